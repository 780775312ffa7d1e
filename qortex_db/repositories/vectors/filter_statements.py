"""The statements of a vectors table by filter, each built once for each form of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Integer, bindparam, cast, null, select, true, tuple_, type_coerce
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db.checks import check_flag
from qortex_db.filters.fields import Field
from qortex_db.repositories.statement_cache import MAX_TABLES, built_once
from qortex_db.repositories.vectors.key_statements import delete_in_key_order, merge_in_key_order
from qortex_db.repositories.vectors.row_shape import row_shape
from qortex_db.sql import Text, func
from qortex_db.types import JsonText

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Delete, Select, Table, Update

    from qortex_db.filters import Filter
    from qortex_db.repositories.vectors.namespaces import Scope
    from qortex_db.repositories.vectors.payload_changes import Form

Steps: TypeAlias = tuple[str, ...]
"""The keys that lead from a payload to a value."""

_HITS = bindparam("hits", type_=Integer)


@dataclass(frozen=True, slots=True)
class Page:
    """What makes one page another statement than the next, beside its filter.

    Attributes:
        steps: To the payload's value to order by, before ids; empty for ids alone.
    """

    steps: Steps = ()
    goes_on: bool = False
    descending: bool = False
    with_embedding: bool = True

    def __post_init__(self) -> None:
        check_flag(self.descending, name="descending")
        check_flag(self.with_embedding, name="with_embedding")


class FilterStatements:
    """What reads, counts and changes the rows that a filter matches; None matches all of them."""

    def __init__(self, table: Table, scope: Scope) -> None:
        self.table = table
        self.scope = scope

    @built_once
    def count(self, where: Filter | None) -> Select[Any]:
        """How many rows there are."""
        statement = select(func.count()).select_from(self.table).where(*self.scope.clauses)
        return statement if where is None else statement.where(where.clause)

    @built_once
    def page(self, where: Filter | None, page: Page) -> Select[Any]:
        """Rows in the order of their value at a path, then of their keys; the value at the end."""
        table = self.table
        value = Field(table, page.steps).json if page.steps else null()
        columns = row_shape(table).of_record(with_embedding=page.with_embedding)
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
    def facet(self, where: Filter | None, steps: Steps) -> Select[Any]:
        """The values at a path, an array's one by one, and how many rows have each."""
        element = Field(self.table, steps).each("elements")
        value = element.c.value
        count = func.count(self.table.c.id.distinct()).label("count")
        statement = (
            select(type_coerce(cast(value, Text), JsonText()).label("value"), count)
            .select_from(self.table.join(element, true()))
            .where(*self.scope.clauses)
            .group_by(value)
            .order_by(count.desc(), value)
            .limit(_HITS)
        )
        return statement if where is None else statement.where(where.clause)

    @built_once
    def merge(self, where: Filter | None, form: Form) -> Update:
        """Change payloads, in key order."""
        condition = true() if where is None else where.clause
        return merge_in_key_order(self.table, self.scope, condition, form)

    @built_once
    def delete(self, where: Filter | None) -> Delete:
        """Remove rows, in key order."""
        return delete_in_key_order(
            self.table, self.scope, true() if where is None else where.clause
        )


@functools.lru_cache(MAX_TABLES)
def by_filter(table: Table, scope: Scope) -> FilterStatements:
    """The statements by filter over a table, the same object at every call."""
    return FilterStatements(table, scope)
