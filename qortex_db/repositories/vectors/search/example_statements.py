"""Searches from examples, each one statement, built once for each form of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY, Integer, bindparam, case, cast, or_, select, true, union_all

from qortex_db.filters.expressions import Constant
from qortex_db.repositories.statement_cache import built_once
from qortex_db.repositories.vectors.search.found import found
from qortex_db.repositories.vectors.search.nearest import Branch, sent_embeddings
from qortex_db.sql import func, of_pgvector
from qortex_db.types import Embedding
from qortex_db.values.keys import key_of, key_type

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select, SelectBase, Subquery

    from qortex_db.filters import Filter
    from qortex_db.repositories.vectors.search.nearest import Nearest, SearchForm

_SIDES: Final = ("positive", "negative")


@built_once
def nearest_to_mean(rows: Nearest, where: Filter | None, form: SearchForm) -> Select[Any]:
    """The rows nearest to the mean of examples, and how many of those there are."""
    sides = []
    for side in _SIDES:
        examples = _examples(rows, side)
        one: ColumnElement[Any] = cast(examples.c.vec, Embedding())
        if rows.vector.metric == "cosine":  # then each example counts by its direction alone
            one = of_pgvector.l2_normalize(one)
        mean = of_pgvector.avg(one).label("mean")
        sides.append(
            select(mean, func.count().label("count")).select_from(examples).cte(f"_{side}")
        )
    liked, disliked = sides
    towards = liked.c.mean.op("+")(liked.c.mean.op("-")(disliked.c.mean))
    aim = func.coalesce(towards, liked.c.mean, type_=Embedding())
    count = liked.c.count + disliked.c.count
    target = (
        select(aim.label("aim"), count.label("examples"))
        .select_from(liked.join(disliked, true()))
        .cte("_target")
        .prefix_with("MATERIALIZED")
    )
    query = cast(select(target.c.aim).correlate(None).scalar_subquery(), rows.vector.type)
    (hits,) = found([Branch(rows, query)], form, where, _no_example(rows))
    return (
        select(*hits.c, target.c.examples)
        .select_from(target.outerjoin(hits, true()))
        .order_by(hits.c.distance, hits.c.id)
    )


@built_once
def best_scores(rows: Nearest, where: Filter | None, form: SearchForm) -> Select[Any]:
    """The rows that score best against all examples, and how many of those there are."""
    place = func.row_number().over().label("place")
    sides = []
    for side in _SIDES:
        examples = _examples(rows, side)
        sides.append(select(examples.c.vec, place).cte(f"_{side}").prefix_with("MATERIALIZED"))
    liked = sides[0]
    candidates: SelectBase
    if form.exact:
        every = select(key_of(rows.table)).where(
            rows.column.is_not(None), *rows.scope.clauses, *_no_example(rows)
        )
        candidates = every if where is None else every.where(where.clause)
    else:
        bare = replace(form, with_payload=False, with_embedding=False)
        query = cast(liked.c.vec, rows.vector.type).label("query")
        queries = select(query, liked.c.place.label("number")).cte("_queries")
        branch = Branch(rows, queries=queries.prefix_with("MATERIALIZED"))
        (near,) = found([branch], bare, where, _no_example(rows))
        candidates = select(near.c.id).distinct()
    keys = candidates.subquery("_candidates")
    # The least distance is no NaN, the distance of a zero vector, unless all are.
    nearest = [
        select(func.min(rows.vector.distance(rows.column, side.c.vec)))
        .select_from(side)
        .correlate(rows.table)
        .scalar_subquery()
        for side in sides
    ]
    compared = (
        select(key_of(rows.table), nearest[0].label("liked"), nearest[1].label("disliked"))
        .select_from(rows.table.join(keys, keys.c.id == rows.table.c.id))
        .where(*rows.scope.clauses)
        .subquery("_compared")
    )
    good, bad = (rows.similarity(compared.c[name]) for name in ("liked", "disliked"))
    score = case((or_(bad.is_(None), good > bad), good), else_=-(bad * bad)).label("score")
    best = (
        select(compared.c.id, score)
        .where(compared.c.liked != Constant("NaN"))
        .order_by(score.desc(), compared.c.id)
        .limit(bindparam("hits", type_=Integer))
        .subquery("_best")
    )
    hits = (
        select(best.c.id, best.c.score, *rows.columns(form))
        .select_from(best.join(rows.table, rows.table.c.id == best.c.id))
        .where(*rows.scope.clauses)
        .subquery("_hits")
    )
    counts = [select(func.count()).select_from(side).scalar_subquery() for side in sides]
    total = select((counts[0] + counts[1]).label("examples")).subquery("_total")
    return (
        select(*hits.c, total.c.examples)
        .select_from(total.outerjoin(hits, true()))
        .order_by(hits.c.score.desc(), hits.c.id)
    )


def _examples(rows: Nearest, side: str) -> Subquery:
    """The embeddings of a side: those stored under its ids, and those given."""
    ids = _ids(rows, side)
    stored = select(rows.column.label("vec")).where(
        rows.table.c.id == func.any(ids), rows.column.is_not(None), *rows.scope.clauses
    )
    arrays = cast(bindparam(f"{side}_vecs"), sent_embeddings(rows.vector))
    given = select(cast(func.unnest(arrays), rows.vector.type))
    return union_all(stored, given).subquery(f"_{side}_examples")


def _ids(rows: Nearest, side: str) -> ColumnElement[Any]:
    return cast(bindparam(f"{side}_ids"), ARRAY(key_type(rows.table).type))


def _no_example(rows: Nearest) -> list[ColumnElement[bool]]:
    keys = [_ids(rows, side) for side in _SIDES]
    return [rows.table.c.id != func.all(ids) for ids in keys]
