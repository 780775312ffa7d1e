"""Searches by several queries at once, each one statement, built once for each form of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import (
    Float,
    Integer,
    and_,
    bindparam,
    case,
    cast,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

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
    sent_embeddings,
)
from qortex_db.repositories.vectors.search.text_statements import matching, without_phrases
from qortex_db.repositories.vectors.search.word_statements import with_any_word
from qortex_db.sql import Text, double, func

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement, Select, Subquery, Table

    from qortex_db.filters import Filter
    from qortex_db.models import VectorSpec
    from qortex_db.repositories.vectors.search.text_queries import TextMatch

BranchName: TypeAlias = Literal["dense", "text", "sparse"]

_HITS = bindparam("hits", type_=Integer)
# The distance of sparse vectors that share no position: such a row is no match, as in full text.
_UNRELATED: Final = {"inner_product": 0.0, "cosine": 1.0}


@dataclass(frozen=True, slots=True)
class Fusion:
    """What is fused, and how.

    Attributes:
        by: Reciprocal ranks, or scores scaled from 0 to 1.
        sparse: What the branch of this name searches.
        match: What the branch "text" finds.
        excludes: Whether documents with what is excluded are left out.
        bm25: Whether that branch ranks by BM25, and by what: frequencies that were counted, or the
            rows that it finds.
    """

    names: tuple[BranchName, ...]
    by: Literal["ranks", "scores"]
    sparse: VectorSpec | None
    match: TextMatch = "any"
    excludes: bool = False
    bm25: Literal["counted", "found"] | None = None


@built_once
def hybrid(rows: Nearest, where: Filter | None, form: SearchForm, fusion: Fusion) -> Select[Any]:
    """The best of the rows that any branch brings in, by a fused score."""
    bare = replace(form, with_payload=False, with_embedding=False)
    # What is equally good by a score is told apart by the embedding, or by the sparse one where
    # there is none, before ids do it.
    near: ColumnElement[float] | None = None
    queries: dict[BranchName, Branch] = {}
    if "dense" in fusion.names:
        near = rows.distance(rows.column)
        queries["dense"] = Branch(rows)
    sparse = fusion.sparse
    if sparse is not None:
        beside = Nearest(rows.table, sparse, rows.scope, "sparse_")
        queries["sparse"] = Branch(beside, then_by=None if near is None else rows)
        if near is None:
            near = beside.distance(beside.column)
    besides = [_not_excluded(rows.table)] if fusion.excludes else []
    branches = found([*queries.values()], bare, where, besides)
    shares = []
    for name, branch in zip(queries, branches, strict=True):
        share = _share(fusion, name, -branch.c.distance)
        matches = branch.c.distance != Constant("NaN")  # as of a zero vector
        if name == "sparse" and sparse is not None and sparse.metric in _UNRELATED:
            matches = branch.c.distance < double(_UNRELATED[sparse.metric])
        shares.append(select(branch.c.id, share).where(matches))
    if "text" in fusion.names:
        beside_words = [_found_not_excluded(rows.table)] if fusion.excludes else []
        lexical = _lexical(rows, where, near, fusion, beside_words)
        shares.append(select(lexical.c.id, _share(fusion, "text", lexical.c.rank)))
    every = union_all(*shares).subquery("every")
    # In the shares' own order: equal ones in another order have to give an equal sum.
    total = func.sum(aggregate_order_by(every.c.share, every.c.share))
    scored = select(every.c.id, total.label("score")).group_by(every.c.id).subquery("scored")
    best = _with_ties(select(*scored.c), scored.c.score, _HITS).subquery("best")
    answer = (
        select(best.c.id, best.c.score, *rows.columns(form))
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
        ranks = WordRanks(rows, conditions, counted=fusion.bm25 == "counted")
        if fusion.match == "any":
            found = ranks.best(near, limit)
        else:
            found = matching(rows, conditions, near, lambda held: ranks.rank(held, rows.table))
    elif fusion.match == "any":
        found = with_any_word(rows, conditions, near, limit)
    else:
        found = matching(rows, conditions, near)
    # A rank of 0 is no match.
    ranked = select(found.c.id, found.c.rank).where(found.c.rank > double(0.0))
    tied = _with_ties(ranked, found.c.rank, limit).subquery("tied")
    return (
        select(tied.c.id, tied.c.rank)
        .select_from(tied.join(rows.table, rows.table.c.id == tied.c.id))
        .where(*rows.scope.clauses)
        .order_by(*_best_first(tied.c.rank, near, tied.c.id))
        .limit(limit)
        .subquery("lexical")
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


@built_once
def multi(rows: Nearest, where: Filter | None, form: SearchForm) -> Select[Any]:
    """The rows nearest to any of several queries, each once, by its least distance."""
    (every,) = found([Branch(rows, queries=_queries(rows))], form, where)
    place = func.row_number().over(partition_by=every.c.id, order_by=every.c.distance)
    placed = select(*every.c, place.label("place")).subquery("placed")
    columns = [placed.c[column.key] for column in every.c if column.key != "number"]
    first = select(*columns).where(placed.c.place == 1)
    return in_order(first, form, placed.c.distance, placed.c.id).limit(_HITS)


@built_once
def most_found(rows: Nearest, where: Filter | None, form: SearchForm) -> Select[Any]:
    """The rows that several queries find, by the sum of their similarities to those that do."""
    bare = replace(form, with_payload=False, with_embedding=False)
    (every,) = found([Branch(rows, queries=_queries(rows))], bare, where)
    similarity = rows.similarity(every.c.distance)
    # In their own order, whatever the plan's: equal ones have to give an equal sum.
    score = func.sum(aggregate_order_by(similarity, similarity)).label("score")
    best = (
        select(every.c.id, score)
        # A row without an id says that a query fell short.
        .where(or_(every.c.distance != Constant("NaN"), every.c.id.is_(None)))
        .group_by(every.c.id)
        .order_by(score.desc().nulls_last(), every.c.id)
        .limit(_HITS)
        .subquery("best")
    )
    is_row = and_(rows.table.c.id == best.c.id, *rows.scope.clauses)
    sources = best.join(rows.table, is_row, isouter=form.bounded)
    answer = select(best.c.id, best.c.score, *rows.columns(form)).select_from(sources)
    return in_order(answer, form, best.c.score.desc().nulls_last(), best.c.id)


@built_once
def many(rows: Nearest, where: Filter | None, form: SearchForm) -> Select[Any]:
    """The rows nearest to each of several queries, and the number of that query, from 1 on."""
    (every,) = found([Branch(rows, queries=_queries(rows))], form, where)
    columns = [column for column in every.c if column.key != "number"]
    return select(*columns, every.c.number).order_by(every.c.number, every.c.distance, every.c.id)


def _queries(rows: Nearest) -> CTE:
    """The queries of one parameter, numbered from 1 on."""
    arrays = cast(bindparam("queries"), sent_embeddings(rows.vector))
    given = (
        func.unnest(arrays)
        .table_valued("query", with_ordinality="number", name="given")
        .render_derived()
    )
    query = cast(given.c.query, rows.vector.type).label("query")
    return select(query, given.c.number).cte("queries").prefix_with("MATERIALIZED")


def _share(fusion: Fusion, name: BranchName, better: ColumnElement[float]) -> ColumnElement[Any]:
    """What a branch adds to a row's score; `better` grows with what it finds better."""
    weight = bindparam(f"{name}_weight", type_=Float)
    if fusion.by == "ranks":  # of equals, all have the best one's
        place = cast(func.rank().over(order_by=better.desc()), Float)
        return (weight / (bindparam("k", type_=Float) + place)).label("share")
    low, high = func.min(better).over(), func.max(better).over()
    span = func.nullif(high - low, double(0.0), type_=Float)
    scaled = case((high == low, double(1.0)), else_=(better - low) / span)
    return (weight * scaled).label("share")
