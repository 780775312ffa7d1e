"""The rows nearest to a query, as a part of statements: under settings, and never too few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Float,
    Integer,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    select,
    true,
    union_all,
)

from qortex_db.repositories.rows import OPTIONAL, optional_columns, sent_embedding
from qortex_db.types import Embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement, Select, Subquery, Table

    from qortex_db.search import Filter

CANDIDATES: Final = bindparam("candidates", type_=Integer)
"""How many rows a branch of a search brings in."""


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


class Nearest:
    """The nearest rows of one table, as id, distance, payload, document and embedding."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def nearest(
        self,
        form: SearchForm,
        where: Filter | None,
        *,
        query: ColumnElement[Any] | None = None,
        exact: bool = False,
    ) -> Select[Any]:
        distance = self.distance(query)
        columns = [self.table.c.id, distance.label("distance"), *self.columns(form)]
        # A sum is no expression that an index is on.
        exact = exact or form.exact
        order = distance + literal_column("0.0", Float) if exact else distance
        statement = select(*columns).order_by(order).limit(CANDIDATES)
        return statement if where is None else statement.where(where.clause)

    def distance(self, query: ColumnElement[Any] | None = None) -> ColumnElement[float]:
        query = bindparam("query", type_=Embedding()) if query is None else query
        distance: ColumnElement[float] = self.table.c.vec.cosine_distance(query)
        return distance

    def columns(self, form: SearchForm) -> list[ColumnElement[Any]]:
        columns: list[ColumnElement[Any]] = (
            [*optional_columns(self.table)]
            if form.with_payload
            else [null().label(name) for name in OPTIONAL]
        )
        return [*columns, sent_embedding(self.table)] if form.with_embedding else columns

    def found(
        self,
        form: SearchForm,
        where: Filter | None,
        queries: Sequence[ColumnElement[Any] | None],
        besides: Sequence[ColumnElement[bool]] = (),
    ) -> list[Subquery]:
        """The candidates of each query: under settings, and from all rows where they fall short."""
        nearest = [self.nearest(form, where, query=query).where(*besides) for query in queries]
        if form.settings:
            branches = _with_settings(nearest, form.settings)
        else:
            ctes = [
                one.cte(f"hits_{i}").prefix_with("MATERIALIZED") for i, one in enumerate(nearest)
            ]
            branches = [(hits, select(*hits.c)) for hits in ctes]
        if not form.guarded:
            return [source.subquery(f"found_{i}") for i, (_, source) in enumerate(branches)]
        found = []
        for number, ((hits, source), query) in enumerate(zip(branches, queries, strict=True)):
            count = _count(hits)
            rest = self.nearest(form, where, query=query, exact=True).where(*besides)
            short = select(*rest.where(count < CANDIDATES).subquery(f"rest_{number}").c)
            whole = union_all(source.where(count >= CANDIDATES), short)
            found.append(whole.subquery(f"found_{number}"))
        return found


def _count(hits: CTE) -> ColumnElement[int]:
    return select(func.count()).select_from(hits).correlate(None).scalar_subquery()


def _with_settings(
    branches: Sequence[Select[Any]], names: tuple[str, ...]
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
    for number, branch in enumerate(branches):
        inner = branch.where(settings.c.new_0.is_not(None)).correlate(settings)
        nearest = inner.lateral(f"nearest_{number}")
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
