"""Searches by meaning, words and sparse vectors at once, each one statement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    bindparam,
    case,
    cast,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from qortex_db.engine.executor import COMPILED
from qortex_db.filters.expressions import Constant
from qortex_db.filters.full_text import (
    document_words,
    is_found,
    is_whole,
    text_configuration,
    web_tsquery,
)
from qortex_db.repositories.statement_cache import built_once
from qortex_db.repositories.vectors.search.bm25 import WordRanks
from qortex_db.repositories.vectors.search.found import found
from qortex_db.repositories.vectors.search.nearest import (
    Branch,
    Nearest,
    SearchForm,
    in_order,
)
from qortex_db.repositories.vectors.search.text_statements import matching, without_phrases
from qortex_db.repositories.vectors.search.word_statements import with_any_word
from qortex_db.sql import Text, double, func

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select, Subquery, Table

    from qortex_db.filters import Filter
    from qortex_db.models import VectorSpec
    from qortex_db.repositories.vectors.search.own_filters import OwnFilter
    from qortex_db.repositories.vectors.search.text_queries import TextMatch

FusedBy: TypeAlias = Literal["rrf", "relative", "dbsf", "sum"]
"""How the scores of several branches become one."""

_HITS = bindparam("hits", type_=Integer)
# The distance of sparse vectors that share no position: such a row is no match, as in full text.
_UNRELATED: Final = {"inner_product": 0.0, "cosine": 1.0}


@dataclass(frozen=True, slots=True)
class Fusion:
    """What is fused, and how.

    Attributes:
        names: Of the branches: those of dense vectors first, "text" and "sparse".
        by: Reciprocal ranks; or scores scaled from 0 to 1, by their distribution, or as they are.
        start: The score at no distance of each branch of vectors, in their order.
        dense: What each of the first branches searches.
        sparse: What the branch of this name searches.
        match: What the branch "text" finds.
        excludes: Whether documents with what is excluded are left out.
        bm25: Whether that branch ranks by BM25, and by what: frequencies that were counted, or the
            rows that it finds.
        own: The filters of branches that have one.
        words: How many words the text has, where rows lie on several nodes of Citus.
    """

    names: tuple[str, ...]
    by: FusedBy
    start: tuple[float, ...]
    dense: tuple[VectorSpec, ...]
    sparse: VectorSpec | None
    match: TextMatch = "any"
    excludes: bool = False
    bm25: Literal["counted", "found"] | None = None
    own: tuple[OwnFilter, ...] = ()
    words: int = 0

    def statement(self, rows: Nearest, where: Filter | None, form: SearchForm) -> Select[Any]:
        """The search; kept only where its filters are dictionaries."""
        if any(each.key is None for each in self.own):
            made: Select[Any] = hybrid.__wrapped__(rows, where, form, self)  # type: ignore[attr-defined]
            return made.execution_options(**{COMPILED: None})
        return hybrid(rows, where, form, self)

    def only(self, name: str) -> list[ColumnElement[bool]]:
        """What has to hold of the rows of a branch, none or one."""
        return [each.clause for each in self.own if each.name == name]


def dense_prefix(number: int) -> str:
    """Of the parameters of a branch, the first of which has none."""
    return f"dense_{number}_" if number else ""


@built_once
def hybrid(rows: Nearest, where: Filter | None, form: SearchForm, fusion: Fusion) -> Select[Any]:
    """The best of the rows that any branch brings in, by a fused score.

    At the end of a row is its rank and its score in each branch; NULL where that did not find it.
    """
    bare = replace(form, with_payload=False, with_embedding=False)
    if fusion.own:  # one look at the rows of a filter would be for all of them
        bare = replace(bare, probed=0)
    # What is equally good by a score is told apart by the embedding, or by the sparse one where
    # there is none, before ids do it.
    near: ColumnElement[float] | None = None
    queries: dict[str, Branch] = {}
    for i, spec in enumerate(fusion.dense):
        own = Nearest(rows.table, spec, rows.scope, dense_prefix(i)) if i else rows
        queries[fusion.names[i]] = Branch(own, only=tuple(fusion.only(fusion.names[i])))
    if fusion.dense:
        near = rows.distance(rows.column)
    sparse = fusion.sparse
    if sparse is not None:
        beside = Nearest(rows.table, sparse, rows.scope, "sparse_")
        then_by = None if near is None else rows
        queries["sparse"] = Branch(beside, then_by=then_by, only=tuple(fusion.only("sparse")))
        if near is None:
            near = beside.distance(beside.column)
    besides = [_not_excluded(rows.table)] if fusion.excludes else []
    branches = found([*queries.values()], bare, where, besides)
    shares = []
    for name, branch, start in zip(queries, branches, fusion.start, strict=True):
        share = _share(fusion, name, double(start) - branch.c.distance)
        matches = branch.c.distance != Constant("NaN")  # as of a zero vector
        if name == "sparse" and sparse is not None and sparse.metric in _UNRELATED:
            matches = branch.c.distance < double(_UNRELATED[sparse.metric])
        shares.append(select(branch.c.id, *share).where(matches))
    if "text" in fusion.names:
        beside_words = [_found_not_excluded(rows.table)] if fusion.excludes else []
        beside_words += [case((clause, true())) for clause in fusion.only("text")]
        lexical = _lexical(rows, where, near, fusion, beside_words)
        shares.append(select(lexical.c.id, *_share(fusion, "text", cast(lexical.c.rank, Float))))
    every = union_all(*shares).subquery("_every")
    # In the shares' own order: equal ones in another order have to give an equal sum.
    total = func.sum(aggregate_order_by(every.c.share, every.c.share))
    told = [func.max(column).label(column.key) for column in every.c if column.key in _told(fusion)]
    grouped = select(every.c.id, total.label("score"), *told).group_by(every.c.id)
    scored = grouped.subquery("_scored")
    best = _with_ties(select(*scored.c), scored.c.score, _HITS).subquery("_best")
    answer = (
        select(
            best.c.id, best.c.score, *rows.columns(form), *(best.c[key] for key in _told(fusion))
        )
        .select_from(best.join(rows.table, rows.table.c.id == best.c.id))
        .where(*rows.scope.clauses)
    )
    return in_order(answer, form, *_best_first(best.c.score, near, best.c.id)).limit(_HITS)


def _not_excluded(table: Table) -> ColumnElement[bool]:
    """A row without a document is none of those that a text excludes."""
    return is_found(document_words(table), _excluded(table)).is_not(true())


def _found_not_excluded(table: Table) -> ColumnElement[bool]:
    """The same of rows that the text finds, as the index tells it: no document is parsed."""
    text = bindparam("text", type_=Text)
    wanted = without_phrases(web_tsquery(text_configuration(table), text))
    kept = func.tsquery_and(wanted, func.tsquery_not(_excluded(table)))
    # Of no words nothing is found; an exclusion alone would go through all rows.
    has_words = func.numnode(wanted) > Constant(0)
    return is_found(document_words(table), case((has_words, kept), else_=wanted))


def _excluded(table: Table) -> ColumnElement[Any]:
    return web_tsquery(text_configuration(table), bindparam("excluded", type_=Text))


def _lexical(
    rows: Nearest,
    where: Filter | None,
    near: ColumnElement[float] | None,
    fusion: Fusion,
    besides: Sequence[ColumnElement[bool]],
) -> Subquery:
    """The rows whose documents match a text, the best by their rank."""
    conditions = [*rows.scope.clauses, *besides]
    if where is not None:
        # A payload's index tells rows that it may be: with it, each of a word's rows would be
        # parsed to be checked again. In a CASE no index is looked for.
        read = is_whole(rows.table) or where.has_words
        conditions.append(where.clause if read else case((where.clause, true())))
    limit = bindparam("text_candidates", type_=Integer)
    if fusion.bm25 is not None:
        counted = fusion.bm25 == "counted"
        ranks = WordRanks(rows, conditions, counted=counted, count=fusion.words)
        if fusion.match == "any":
            found = ranks.best(near, limit)
        else:
            found = matching(rows, conditions, near, ranks.rank, apart=fusion.words > 0)
    elif fusion.match == "any":
        found = with_any_word(rows, conditions, near, limit, fusion.words)
    else:
        found = matching(rows, conditions, near)
    # A rank of 0 is no match.
    ranked = select(found.c.id, found.c.rank).where(found.c.rank > double(0.0))
    tied = _with_ties(ranked, found.c.rank, limit).subquery("_tied")
    return (
        select(tied.c.id, tied.c.rank)
        .select_from(tied.join(rows.table, rows.table.c.id == tied.c.id))
        .where(*rows.scope.clauses)
        .order_by(*_best_first(tied.c.rank, near, tied.c.id))
        .limit(limit)
        .subquery("_lexical")
    )


def _with_ties(
    rows: Select[Any], score: ColumnElement[float], limit: ColumnElement[int]
) -> Select[Any]:
    """The best rows, and all that are as good as the last of them."""
    return rows.order_by(score.desc()).fetch(limit, with_ties=True)


def _best_first(
    score: ColumnElement[float], near: ColumnElement[float] | None, key: ColumnElement[str]
) -> list[ColumnElement[Any]]:
    return [score.desc(), key] if near is None else [score.desc(), near, key]


def _told(fusion: Fusion) -> list[str]:
    """The columns with what each branch says of a row."""
    return [f"{what}_{i}" for i in range(len(fusion.names)) for what in ("rank", "score")]


def _share(fusion: Fusion, name: str, score: ColumnElement[float]) -> list[Any]:
    """What a branch adds to a row's score, and its rank and score in each branch."""
    rank: Any = func.rank().over(order_by=score.desc())  # of equals, all have the best one's
    told: list[ColumnElement[Any]] = []
    for i, other in enumerate(fusion.names):
        nulls = null().cast(BigInteger), null().cast(Float)
        own: tuple[Any, Any] = (rank, score) if other == name else nulls
        told += [own[0].label(f"rank_{i}"), own[1].label(f"score_{i}")]
    weight = bindparam(f"weight_{fusion.names.index(name)}", type_=Float)
    return [(weight * _scaled(fusion, rank, score)).label("share"), *told]


def _scaled(
    fusion: Fusion, rank: ColumnElement[int], score: ColumnElement[float]
) -> ColumnElement[Any]:
    """A branch's score, such that it can be added to another's."""
    zero, half, one = double(0.0), double(0.5), double(1.0)
    if fusion.by == "rrf":
        return one / (bindparam("k", type_=Float) + cast(rank, Float))
    if fusion.by == "relative":
        low, high = func.min(score).over(), func.max(score).over()
        span = func.nullif(high - low, zero, type_=Float)
        return case((high == low, one), else_=(score - low) / span)
    if fusion.by == "dbsf":
        spread = double(3.0) * func.coalesce(func.stddev_samp(score).over(), zero, type_=Float)
        mean = cast(func.avg(score).over(), Float)
        span = func.nullif(double(2.0) * spread, zero, type_=Float)
        return func.coalesce((score - mean + spread) / span, half, type_=Float)
    return score
