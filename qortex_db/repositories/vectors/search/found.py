"""The candidates of a search's queries, never too few: what all searches are built on.

A statement is planned whole, so what is not needed must cost nothing. Each part is behind a gate, a
CTE with a column `go` that it refers to: joined to that, it starts no workers before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, exists, false, null, select, true, union_all

from qortex_db.filters.expressions import Constant
from qortex_db.repositories.vectors.search.found_apart import found_apart
from qortex_db.repositories.vectors.search.local_settings import restored, settings_of
from qortex_db.repositories.vectors.search.nearest import count_of
from qortex_db.repositories.vectors.search.probing import PLACE, has_few_rows, probed
from qortex_db.sql import func
from qortex_db.values.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement, FromClause, Select, Subquery

    from qortex_db.filters import Filter
    from qortex_db.repositories.vectors.search.nearest import Branch, SearchForm


def found(
    branches: Sequence[Branch],
    form: SearchForm,
    where: Filter | None,
    besides: Sequence[ColumnElement[bool]] = (),
) -> list[Subquery]:
    """The candidates of each branch, with the number of their query where it has several.

    They come from the vectors' index, and from a comparison with every row where that fell short;
    or from the few rows that the filter's own index finds. Where the form is bounded, a row without
    an id says that a query fell short.
    """
    if form.distributed:
        return found_apart(branches, form, None if where is None else where.clause, besides)
    clause = None if where is None else where.planned_once
    if form.exact:
        exact = [each.nearest(form, clause, besides, queries=each.queries) for each in branches]
        return [rows.subquery(f"_found_{i}") for i, rows in enumerate(exact)]
    few = many = settings = not_many = None
    searched = None if where is None else where.walked
    if form.probed and where is not None and branches:
        few, many = probed(branches, form, where, besides)
        gate = select(true().label("go")).where(~exists(select(many.c.go))).cte("_not_many")
        not_many = gate.prefix_with("MATERIALIZED")
        # No index serves it but the vectors' own, and the planner takes it for a half of the rows.
        searched = and_(*where.promises, func.coalesce(where.planned_once, false()))
    if form.settings:
        settings = settings_of(form.settings, many)
    after = [] if settings is None else [settings]
    all_hits: list[CTE] = []
    for i, branch in enumerate(branches):
        near = branch.nearest(form, searched, besides, *after, queries=branch.queries)
        all_hits.append(near.cte(f"_hits_{i}").prefix_with("MATERIALIZED"))
    done = None if settings is None else restored(settings, form.settings, all_hits)
    subqueries = []
    for i, (branch, hits) in enumerate(zip(branches, all_hits, strict=True)):
        short = _short(branch, hits, many, done).cte(f"_short_{i}").prefix_with("MATERIALIZED")
        compared = short
        if form.bounded:
            # In a CASE it is looked up for the queries that are short, and not before.
            allowed = case((short.c.go, has_few_rows()))
            compared = select(*short.c).where(allowed).cte(f"_compared_{i}")
        queries = None if branch.queries is None else compared
        rest = branch.nearest(form, clause, besides, compared, queries=queries, exact=True)
        parts = [select(*hits.c).where(_is_none_of(hits, compared)), rest]
        if form.bounded:
            nulls = [null() for column in hits.c if column.key != "number"]
            marks = select(*_numbers(short), *nulls).select_from(short)
            parts.append(marks.where(_is_none_of(short, compared)))
        if few is not None and not_many is not None:
            parts.append(_best_of_few(branches, i, form, few, not_many))
        subqueries.append(union_all(*parts).subquery(f"_found_{i}"))
    return subqueries


def _numbers(rows: FromClause) -> list[ColumnElement[Any]]:
    return [rows.c.number] if "number" in rows.c else []


def _is_none_of(rows: FromClause, others: CTE) -> ColumnElement[bool]:
    if "number" in rows.c:
        return rows.c.number.not_in(select(others.c.number))
    return ~exists(select(others.c.go).correlate(None))


def _short(branch: Branch, hits: CTE, many: CTE | None, done: CTE | None) -> Select[Any]:
    """The queries that brought in fewer than were asked for, once settings are put back."""
    wanted = branch.rows.candidates
    go = true().label("go") if many is None else many.c.go
    if branch.queries is None:
        is_short = count_of(hits) < wanted
        short = select(go)
    else:
        queries = branch.queries
        counts = select(hits.c.number, func.count().label("count")).group_by(hits.c.number)
        counted = counts.subquery()
        is_short = func.coalesce(counted.c.count, Constant(0)) < wanted
        sources = queries.outerjoin(counted, counted.c.number == queries.c.number)
        if many is not None:
            sources = sources.join(many, true())
        short = select(queries.c.query, queries.c.number, go).select_from(sources)
    if done is not None:  # of an AND the server may leave a part out
        is_short = case((count_of(done) >= Constant(0), is_short))
    return short.where(is_short)


def _best_of_few(
    branches: Sequence[Branch], place: int, form: SearchForm, few: CTE, gate: CTE
) -> Select[Any]:
    """The nearest of the few rows that match, all of which are compared."""
    branch = branches[place]
    rows, queries = branch.rows, branch.queries
    sources: list[FromClause] = [gate]
    if queries is not None:
        sources.append(queries)
    compared = few.c[f"compared_{place}"]
    distance = compared if queries is None else rows.distance(compared, queries.c.query)
    ties: list[ColumnElement[Any]] = []
    if branch.then_by is not None:
        other = next(i for i, each in enumerate(branches) if each.rows is branch.then_by)
        ties.append(few.c[f"compared_{other}"])
    nearest = (
        select(few.c.id, few.c.place, distance.label("distance"))
        .where(compared.is_not(None), gate.c.go.is_not(None))
        .order_by(distance, *ties, few.c.id)
        .limit(Constant(form.walk))
        .correlate(*sources)
        .lateral()
    )
    best = select(*nearest.c).limit(rows.candidates).correlate(*sources).lateral(f"_best_{place}")
    # One by one, where they are: the planner expects more of them, and might read the whole table.
    row = (
        select(key_of(rows.table), *rows.columns(form))
        # Each partition has such a place: the key tells which.
        .where(best.c.place == PLACE, rows.table.c.id == best.c.id, *rows.scope.clauses)
        .limit(Constant(1))
        .correlate(best)
        .lateral(f"_row_{place}")
    )
    joined: FromClause = gate
    for source in (*sources[1:], best, row):
        joined = joined.join(source, true())
    numbers = [] if queries is None else [queries.c.number]
    columns = [column for column in row.c if column.key != "id"]
    return select(*numbers, row.c.id, best.c.distance, *columns).select_from(joined)
