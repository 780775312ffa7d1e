"""Searches by several queries at once, each one statement, built once for each form of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Integer,
    and_,
    bindparam,
    cast,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from qortex_db.engine.executor import COMPILED
from qortex_db.filters.expressions import Constant
from qortex_db.repositories.statement_cache import built_once
from qortex_db.repositories.vectors.search.found import found
from qortex_db.repositories.vectors.search.nearest import (
    Branch,
    Nearest,
    SearchForm,
    in_order,
    sent_embeddings,
)
from qortex_db.sql import func

if TYPE_CHECKING:
    from sqlalchemy import CTE, Select

    from qortex_db.filters import Filter
    from qortex_db.repositories.vectors.search.own_filters import OwnFilter

_HITS = bindparam("hits", type_=Integer)


@built_once
def multi(rows: Nearest, where: Filter | None, form: SearchForm) -> Select[Any]:
    """The rows nearest to any of several queries, each once, by its least distance."""
    (every,) = found([Branch(rows, queries=_queries(rows))], form, where)
    place = func.row_number().over(partition_by=every.c.id, order_by=every.c.distance)
    placed = select(*every.c, place.label("place")).subquery("_placed")
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
        .subquery("_best")
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


def many_filtered(
    rows: Nearest, form: SearchForm, count: int, own: tuple[OwnFilter, ...]
) -> Select[Any]:
    """The same of so many queries, some of which have a filter of their own."""
    if all(each.key is not None for each in own):
        return _many_filtered(rows, None, form, count, own)
    made: Select[Any] = _many_filtered.__wrapped__(rows, None, form, count, own)  # type: ignore[attr-defined]
    return made.execution_options(**{COMPILED: None})


@built_once
def _many_filtered(
    rows: Nearest, where: None, form: SearchForm, count: int, own: tuple[OwnFilter, ...]
) -> Select[Any]:
    clauses = {each.number: (each.clause,) for each in own}
    branches = [
        Branch(rows, bindparam(f"query_{i}", type_=rows.vector.type), only=clauses.get(i, ()))
        for i in range(count)
    ]
    found_by_each = found(branches, form, where)
    every = union_all(
        *(select(*each.c, Constant(i + 1).label("number")) for i, each in enumerate(found_by_each))
    ).subquery("_every")
    return select(*every.c).order_by(every.c.number, every.c.distance, every.c.id)


def _queries(rows: Nearest) -> CTE:
    """The queries of one parameter, numbered from 1 on."""
    arrays = cast(bindparam("queries"), sent_embeddings(rows.vector))
    given = (
        func.unnest(arrays)
        .table_valued("query", with_ordinality="number", name="given")
        .render_derived()
    )
    query = cast(given.c.query, rows.vector.type).label("query")
    return select(query, given.c.number).cte("_queries").prefix_with("MATERIALIZED")
