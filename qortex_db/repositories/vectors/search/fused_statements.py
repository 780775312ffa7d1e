"""Searches by several queries at once, each one statement, built once for each form of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Integer,
    bindparam,
    cast,
    select,
    union_all,
)

from qortex_db.engine.executor import COMPILED
from qortex_db.filters.expressions import Constant
from qortex_db.repositories.statement_cache import built_once
from qortex_db.repositories.vectors.search.found import found
from qortex_db.repositories.vectors.search.nearest import (
    Branch,
    Nearest,
    SearchForm,
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
    placed = select(*every.c, place.label("place")).subquery("placed")
    return (
        select(*(placed.c[column.name] for column in every.c if column.name != "number"))
        .where(placed.c.place == 1)
        .order_by(placed.c.distance, placed.c.id)
        .limit(_HITS)
    )


@built_once
def many(rows: Nearest, where: Filter | None, form: SearchForm) -> Select[Any]:
    """The rows nearest to each of several queries, and the number of that query, from 1 on."""
    (every,) = found([Branch(rows, queries=_queries(rows))], form, where)
    columns = [column for column in every.c if column.name != "number"]
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
    ).subquery("every")
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
    return select(query, given.c.number).cte("queries").prefix_with("MATERIALIZED")
