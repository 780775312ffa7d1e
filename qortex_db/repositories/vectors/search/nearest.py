"""The rows nearest to a query, as a part of statements: under settings, and never too few."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, bindparam, cast, select, true, union_all

from qortex_db.checks import check_flag
from qortex_db.repositories.vectors.row_shape import row_shape
from qortex_db.sql import Text, double, func

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import CTE, ColumnElement, Select, Subquery, Table

    from qortex_db.filters import Filter
    from qortex_db.models import VectorSpec
    from qortex_db.repositories.vectors.namespaces import Scope


@dataclass(frozen=True, slots=True)
class SearchForm:
    """What makes one search another statement than the next, beside its filter.

    Attributes:
        exact: Compare with every row instead of walking the index.
        guarded: Compare with every row if the index finds fewer than were asked for.
        settings: Of pgvector, taken as parameters for this one statement.
    """

    exact: bool = False
    guarded: bool = False
    settings: tuple[str, ...] = ()
    with_payload: bool = True
    with_embedding: bool = False

    def __post_init__(self) -> None:
        for name in ("exact", "with_payload", "with_embedding"):
            check_flag(getattr(self, name), name=name)


class Nearest:
    """The nearest rows of one vector, as id, distance, payload, document and embedding.

    Args:
        prefix: Of its parameters' names, where a statement has others of the kind.
    """

    def __init__(self, table: Table, vector: VectorSpec, scope: Scope, prefix: str = "") -> None:
        self.table = table
        self.scope = scope
        self.vector = vector
        self.column = table.c[vector.column]
        self.query = bindparam(f"{prefix}query", type_=vector.type)
        self.candidates = bindparam(f"{prefix}candidates", type_=Integer)
        # How many a quantized index brings in, to be compared anew by the full vectors.
        self.oversampled = bindparam(f"{prefix}oversampled", type_=Integer)

    def nearest(
        self,
        form: SearchForm,
        where: Filter | None,
        *,
        query: ColumnElement[Any] | None = None,
        then_by: ColumnElement[float] | None = None,
        besides: Sequence[ColumnElement[bool]] = (),
        exact: bool = False,
        after: CTE | None = None,
    ) -> Select[Any]:
        """The candidates of a query, nearest first: a zero vector's distance, NaN, is the last.

        Args:
            then_by: What orders equally near rows before their ids do, where all are compared.
            besides: What else has to hold of a row.
            exact: Compare with every row, whatever the form says.
            after: What has to be run before.
        """
        query = self.query if query is None else query
        exact = exact or form.exact
        rescored = self.vector.quantization is not None and not exact
        distance = self.vector.distance(self.column, query)
        columns = [self.table.c.id, distance.label("distance"), *self.columns(form)]
        # A sum is no expression that an index is on.
        order = distance + double(0.0) if exact else distance
        if rescored:
            order = self.vector.index_distance(self.column, query)
        # A row may lack this vector: it is no candidate of any search.
        statement = select(*columns).where(self.column.is_not(None), *self.scope.clauses, *besides)
        statement = statement.order_by(order)
        if exact:  # ties; before an index they would lose it
            ties = [self.table.c.id] if then_by is None else [then_by, self.table.c.id]
            statement = statement.order_by(*ties)
        statement = statement.limit(self.oversampled if rescored else self.candidates)
        if where is not None:
            statement = statement.where(where.clause)
        if after is not None:
            statement = statement.where(after.c.new_0.is_not(None)).correlate(after)
        if not rescored:
            return statement
        # The index has found candidates by less than the full vectors; those have the last word.
        found = statement.subquery() if after is None else statement.lateral()
        best = select(*found.c).order_by(found.c.distance).limit(self.candidates)
        return best if after is None else best.correlate(after)

    def columns(self, form: SearchForm) -> list[ColumnElement[Any]]:
        """What a hit has beside its id and distance."""
        return row_shape(self.table).of_hit(
            self.column, with_payload=form.with_payload, with_embedding=form.with_embedding
        )

    def found(
        self,
        form: SearchForm,
        where: Filter | None,
        queries: Sequence[ColumnElement[Any] | None],
        besides: Sequence[ColumnElement[bool]] = (),
    ) -> list[Subquery]:
        """The candidates of each query: under settings, and from all rows where they fall short."""
        return found([Branch(self, query) for query in queries], form, where, besides)


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the queries of a statement, by default the rows' own.

    Attributes:
        then_by: What orders equally near rows before their ids do.
    """

    rows: Nearest
    query: ColumnElement[Any] | None = None
    then_by: ColumnElement[float] | None = None


def found(
    branches: Sequence[Branch],
    form: SearchForm,
    where: Filter | None,
    besides: Sequence[ColumnElement[bool]] = (),
) -> list[Subquery]:
    """The candidates of each branch: under settings, and from all rows where they fall short."""
    parts = [
        functools.partial(
            branch.rows.nearest,
            form,
            where,
            query=branch.query,
            then_by=branch.then_by,
            besides=besides,
        )
        for branch in branches
    ]
    if form.settings:
        sources = _with_settings(parts, form.settings)
    else:
        ctes = [part().cte(f"hits_{i}").prefix_with("MATERIALIZED") for i, part in enumerate(parts)]
        sources = [(hits, select(*hits.c)) for hits in ctes]
    if not form.guarded:
        return [source.subquery(f"found_{i}") for i, (_, source) in enumerate(sources)]
    subqueries = []
    for i, ((hits, source), part, branch) in enumerate(zip(sources, parts, branches, strict=True)):
        count, wanted = _count(hits), branch.rows.candidates
        rest = part(exact=True).where(count < wanted)
        short = select(*rest.subquery(f"rest_{i}").c)
        whole = union_all(source.where(count >= wanted), short)
        subqueries.append(whole.subquery(f"found_{i}"))
    return subqueries


def _count(hits: CTE) -> ColumnElement[int]:
    return select(func.count()).select_from(hits).correlate(None).scalar_subquery()


def _with_settings(
    parts: Sequence[Callable[..., Select[Any]]], names: tuple[str, ...]
) -> list[tuple[CTE, Select[Any]]]:
    """Run searches under settings of their own, and put the old ones back, in one statement.

    A search has to refer to the settings' CTE, or the planner runs it first. The old values are put
    back because in a unit of work they would stay for the rest of its transaction.
    """
    old = [func.current_setting(name, true()).label(f"old_{i}") for i, name in enumerate(names)]
    before = select(*old).cte("before").prefix_with("MATERIALIZED")
    wanted = [
        func.set_config(name, cast(bindparam(name.partition(".")[2]), Text), true())
        for name in names
    ]
    settings = (
        select(*before.c, *(value.label(f"new_{i}") for i, value in enumerate(wanted)))
        .cte("settings")
        .prefix_with("MATERIALIZED")
    )
    all_hits = []
    for number, part in enumerate(parts):
        nearest = part(after=settings).lateral(f"nearest_{number}")
        hits = select(*nearest.c).select_from(settings.join(nearest, true()))
        all_hits.append(hits.cte(f"hits_{number}").prefix_with("MATERIALIZED"))
    done = [_count(hits) >= 0 for hits in all_hits]
    put_back = [
        func.set_config(name, settings.c[f"old_{i}"], true()).label(f"restored_{i}")
        for i, name in enumerate(names)
    ]
    restored = select(*put_back).where(*done).cte("restored").prefix_with("MATERIALIZED")
    return [
        (
            hits,
            select(*hits.c)
            .select_from(restored.outerjoin(hits, true()))
            .where(hits.c.id.is_not(None)),
        )
        for hits in all_hits
    ]
