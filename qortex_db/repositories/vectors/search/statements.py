"""Searches of a vectors table, each one statement, built once for each form of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

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
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db.filters.fields import Field
from qortex_db.repositories.statement_cache import built_once
from qortex_db.repositories.vectors.row_shape import (
    delete_in_key_order,
    merge_in_key_order,
    row_shape,
)
from qortex_db.repositories.vectors.search.nearest import Nearest, SearchForm
from qortex_db.types import JsonText

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Delete, Select, Table, Update

    from qortex_db.filters import Filter
    from qortex_db.models import VectorSpec
    from qortex_db.repositories.vectors.namespaces import Scope

Steps: TypeAlias = tuple[str, ...]

_HITS = bindparam("hits", type_=Integer)


@dataclass(frozen=True, slots=True)
class Page:
    """The order of a page, and whether it goes on from another one's end.

    Attributes:
        steps: To the payload's value to order by, before ids; empty for ids alone.
    """

    steps: Steps = ()
    goes_on: bool = False
    descending: bool = False


class SearchStatements:
    """The searches of one table; rows are id, distance or score, payload, document, embedding."""

    def __init__(self, table: Table, vector: VectorSpec, scope: Scope) -> None:
        self.table = table
        self.vector = vector
        self.scope = scope
        self.rows = Nearest(table, vector, scope)

    @built_once
    def search(self, where: Filter | None, form: SearchForm) -> Select[Any]:
        """The nearest rows, nearest first; ties by id."""
        if form.settings or form.guarded:
            (found,) = self.rows.found(form, where, [None])
        else:  # ties are broken outside: inside, that would lose the index
            found = self.rows.nearest(form, where).subquery("hits")
        return select(*found.c).order_by(found.c.distance, found.c.id)

    @built_once
    def groups(self, where: Filter | None, form: SearchForm, steps: tuple[str, ...]) -> Select[Any]:
        """The nearest rows of each value at a path, and how many rows were looked at."""
        (found,) = self.rows.found(form, where, [None])
        value = Field(self.table, steps).json
        keyed = (
            select(*found.c, cast(value, Text).label("value"))
            .select_from(found.join(self.table, self.table.c.id == found.c.id))
            .where(*self.scope.clauses)
            .where(value.is_not(None), func.jsonb_typeof(value) != literal_column("'null'", Text))
            .subquery("keyed")
        )
        order = (keyed.c.distance, keyed.c.id)
        placed = select(
            *keyed.c,
            func.row_number().over(partition_by=keyed.c.value, order_by=order).label("place"),
            func.first_value(keyed.c.distance)
            .over(partition_by=keyed.c.value, order_by=order)
            .label("best"),
        ).subquery("placed")
        ranked = select(
            *placed.c,
            func.dense_rank().over(order_by=(placed.c.best, placed.c.value)).label("group"),
        ).subquery("ranked")
        best = (
            select(*ranked.c)
            .where(ranked.c.place <= bindparam("group_size", type_=Integer))
            .where(ranked.c.group <= _HITS)
            .subquery("best")
        )
        total = select(func.count().label("looked_at")).select_from(found).subquery("total")
        return (
            select(
                *(best.c[column.name] for column in found.c),
                type_coerce(best.c.value, JsonText()).label("value"),
                total.c.looked_at,
            )
            .select_from(total.outerjoin(best, true()))
            .order_by(best.c.group, best.c.place)
        )

    @built_once
    def within(self, where: Filter | None, form: SearchForm) -> Select[Any]:
        """All rows within a distance, nearest first."""
        distance = bindparam("max_distance", type_=Float)
        near = self.vector.distance(self.rows.column, self.rows.query) <= distance
        found = self.rows.nearest(form, where, besides=[near], exact=True).subquery("hits")
        return select(*found.c).order_by(found.c.distance, found.c.id)

    @built_once
    def facet(self, where: Filter | None, steps: tuple[str, ...]) -> Select[Any]:
        """The values at a path, an array's one by one, and how many rows have each."""
        field = Field(self.table, steps)
        values = func.coalesce(field.elements, func.jsonb_build_array(field.json))
        element = func.jsonb_array_elements(values).table_valued("value").lateral("elements")
        value = cast(element.c.value, JSONB)
        count = func.count(self.table.c.id.distinct()).label("count")
        statement = (
            select(type_coerce(cast(value, Text), JsonText()).label("value"), count)
            .select_from(self.table.join(element, true()))
            .where(field.json.is_not(None), *self.scope.clauses)
            .group_by(value)
            .order_by(count.desc(), value)
            .limit(_HITS)
        )
        return statement if where is None else statement.where(where.clause)

    @built_once
    def delete(self, where: Filter | None) -> Delete:
        """Remove rows, in key order."""
        return delete_in_key_order(
            self.table, self.scope, true() if where is None else where.clause
        )

    @built_once
    def merge(self, where: Filter | None, removed: int) -> Update:
        """Change payloads, in key order."""
        condition = true() if where is None else where.clause
        return merge_in_key_order(self.table, self.scope, condition, removed)

    @built_once
    def page(self, where: Filter | None, form: SearchForm, page: Page) -> Select[Any]:
        """Rows in the order of their value at a path, then of their keys; the value at the end."""
        table = self.table
        value = Field(table, page.steps).json if page.steps else null()
        columns = row_shape(table).of_record(with_embedding=form.with_embedding)
        keys = (value, table.c.id) if page.steps else (table.c.id,)
        order = [key.desc() for key in keys] if page.descending else keys
        statement = select(*columns, cast(value, Text).label("value")).order_by(*order).limit(_HITS)
        statement = statement.where(*self.scope.clauses)
        if page.steps:
            statement = statement.where(value.is_not(None))
        if page.goes_on:
            seen: list[ColumnElement[Any]] = [bindparam("after", type_=Text)]
            if page.steps:
                seen.insert(0, cast(bindparam("after_value", type_=Text), JSONB))
            here, there = tuple_(*keys), tuple_(*seen)
            statement = statement.where(here < there if page.descending else here > there)
        return statement if where is None else statement.where(where.clause)

    @built_once
    def count(self, where: Filter | None) -> Select[Any]:
        """How many rows there are."""
        statement = select(func.count()).select_from(self.table).where(*self.scope.clauses)
        return statement if where is None else statement.where(where.clause)
