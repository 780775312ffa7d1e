"""The statements of a vectors table by filter, each built once for each form of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Integer,
    and_,
    bindparam,
    case,
    cast,
    literal_column,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db.checks import check_flag
from qortex_db.engine.citus import on_citus, or_on_citus
from qortex_db.filters.columns import ColumnKey, column_kind, compared
from qortex_db.filters.expressions import Constant
from qortex_db.filters.fields import Field, is_position
from qortex_db.mirrors import original_of
from qortex_db.repositories.chunks import Chunk
from qortex_db.repositories.statement_cache import MAX_TABLES, built_once
from qortex_db.repositories.vectors.rows.row_shape import row_shape, sent_embedding
from qortex_db.repositories.vectors.statements.key_statements import (
    delete_in_key_order,
    merge_in_key_order,
)
from qortex_db.sql import Text, func
from qortex_db.types import EmbeddingBytes, JsonText
from qortex_db.values.keys import key_columns, key_of, key_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement, Delete, Select, Table, Update

    from qortex_db.filters import Filter
    from qortex_db.repositories.chunks import Step
    from qortex_db.repositories.vectors.rows.namespaces import Scope
    from qortex_db.repositories.vectors.rows.payload_changes import Form
    from qortex_db.repositories.vectors.rows.payload_parts import Body

Steps: TypeAlias = tuple[str, ...]
"""The keys that lead from a payload to a value."""
Place: TypeAlias = Steps | ColumnKey
"""Where a row has a value: in its payload, or in a column."""

_HITS = bindparam("hits", type_=Integer)


@dataclass(frozen=True, slots=True)
class Page:
    """What makes one page another statement than the next, beside its filter.

    Attributes:
        place: Of the value to order by, before ids; empty for ids alone.
    """

    place: Place = ()
    goes_on: bool = False
    descending: bool = False
    with_embedding: bool = True
    body: Body = True

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
        """Rows in the order of their value at a path, which is at the end, then of their keys."""
        table, shape = self.table, row_shape(self.table)
        kind = key_type(table)
        keys = key_columns(table)
        seen = kind.apart(bindparam("after", type_=kind.type))
        values: Sequence[ColumnElement[Any]] = []
        conditions = [*self.scope.clauses]
        if page.place:
            value = value_at(table, page.place)
            values = [value]
            keys.insert(0, value)
            is_column = isinstance(page.place, ColumnKey)
            value_type = column_kind(value) if is_column else JSONB()
            seen.insert(0, cast(bindparam("after_value", type_=Text), value_type))
            conditions.append(keys[0].is_not(None))
        if page.goes_on:
            here, there = tuple_(*keys), tuple_(*seen)
            conditions.append(here < there if page.descending else here > there)
        if where is not None:
            conditions.append(where.clause)
        elif not page.place:  # the key's index has the order
            columns = shape.of_record(with_embedding=page.with_embedding, body=page.body)
            return _ordered(select(*columns).where(*conditions), keys, page).limit(_HITS)
        # What is read is made of the page's rows alone: under a sort it would be of all.
        own = shape.columns(with_embedding=page.with_embedding, body=page.body)
        statement = select(*own, *(value.label("row_value") for value in values))
        rows = _ordered(statement.where(*conditions), keys, page).limit(_HITS).subquery()
        columns = shape.of_record(rows, with_embedding=page.with_embedding, body=page.body)
        values = [*rows.c][len(own) :]
        shown = [cast(value, Text).label("value") for value in values]
        return _ordered(select(*columns, *shown), [*values, *key_columns(rows)], page)

    @built_once
    def embeddings(self, where: Filter | None, vector: str, goes_on: bool) -> Select[Any]:  # noqa: FBT001 - of the key
        """Keys and embeddings, in key order, of the rows that have one."""
        key, embedding = self.table.c.id, self.table.c[vector]
        order = key_columns(self.table)
        conditions = [*self.scope.clauses, embedding.is_not(None)]
        if goes_on:
            conditions.append(key > bindparam("after", type_=key_type(self.table).type))
        if where is not None:
            conditions.append(where.clause)
        statement = (
            select(key_of(self.table), embedding).where(*conditions).order_by(*order).limit(_HITS)
        )
        rows = statement.subquery()
        sent = sent_embedding(rows.c[vector], kind=EmbeddingBytes)
        return select(rows.c.id, sent).order_by(*key_columns(rows))

    @built_once
    def facet_of_column(self, where: Filter | None, column: ColumnKey) -> Select[Any]:
        """The values of a column, and how many rows have each."""
        value = value_at(self.table, column).label("value")
        count = func.count().label("count")
        statement = select(value, count).where(value.is_not(None), *self.scope.clauses)
        statement = statement if where is None else statement.where(where.clause)
        return statement.group_by(value).order_by(count.desc(), value).limit(_HITS)

    @built_once
    def facet(self, where: Filter | None, steps: Steps) -> Select[Any]:
        """The values at a path, an array's one by one, and how many rows have each.

        What rows have there is counted first, arrays as they are. Those are then taken apart, once
        however many rows have one, and added to the others: where there is no array, nothing is.
        """
        whole = value_at(self.table, steps).label("value")
        counted = select(whole, func.count().label("count")).where(*self.scope.clauses)
        counted = counted if where is None else counted.where(where.clause)
        found = counted.group_by(whole).cte("_found").prefix_with("MATERIALIZED")
        is_array = func.jsonb_typeof(found.c.value) == Constant("array")
        # Kept, so that it is looked for once.
        first = select(found.c.value).where(is_array).limit(literal_column("1")).cte("_first_array")
        has_arrays = select(first.prefix_with("MATERIALIZED")).exists()
        array = case((is_array, found.c.value))  # which is never reordered
        elements = (
            select(func.jsonb_array_elements(array, type_=JSONB()).label("value"))
            .distinct()
            .correlate(found)
            .lateral("_elements")
        )
        taken_apart = select(elements.c.value, found.c.count).where(is_array)
        parts = union_all(
            select(found).where(~is_array),
            taken_apart.select_from(found.join(elements, true())),
        ).subquery("_parts")
        total = cast(func.sum(parts.c.count), BigInteger).label("count")
        counts = union_all(
            select(found).where(~has_arrays, found.c.value.is_not(None)),
            select(parts.c.value, total).where(has_arrays).group_by(parts.c.value),
        ).subquery("_counts")
        return (
            select(type_coerce(cast(counts.c.value, Text), JsonText()), counts.c.count)
            .order_by(counts.c.count.desc(), counts.c.value)
            .limit(_HITS)
        )

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

    @built_once
    def merge_chunk(self, where: Filter, form: Form, step: Step) -> Select[Any]:
        """Change the payloads of the rows of a batch, in key order."""
        chunk, rows = self._chunk(where, step)
        return self._changed(chunk, merge_in_key_order(self.table, self.scope, rows, form))

    @built_once
    def delete_chunk(self, where: Filter | None, step: Step) -> Select[Any]:
        """Remove the rows of a batch, in key order."""
        chunk, rows = self._chunk(where, step)
        return self._changed(chunk, delete_in_key_order(self.table, self.scope, rows))

    def _changed(self, chunk: Chunk, change: Update | Delete) -> Select[Any]:
        def of(change: Any) -> Select[Any]:
            return chunk.changed_by(_marked(change), original_of(self.table))

        return or_on_citus(of(change), lambda: of(on_citus(change)))

    def _chunk(self, where: Filter | None, step: Step) -> tuple[Chunk, ColumnElement[bool]]:
        """A batch, and what is so of its rows, then and when they are locked."""
        table = self.table
        own = [*self.scope.clauses, *([] if where is None else [where.clause])]
        behind = table.c.id > bindparam("after", type_=key_type(table).type)
        parts = key_columns(table)
        chunk = Chunk(step, table.c.id, parts, [*own, behind] if step.goes_on else own)
        return chunk, and_(chunk.contains(*parts), *own)


def _ordered(statement: Select[Any], keys: list[ColumnElement[Any]], page: Page) -> Select[Any]:
    return statement.order_by(*(key.desc() if page.descending else key for key in keys))


def _marked(change: Update | Delete) -> CTE:
    """A change that returns a row for each of its own."""
    return change.returning(literal_column("1")).cte("_changed")


def value_at(table: Table, steps: Place) -> ColumnElement[Any]:
    """The value at a path; of one key by what reads it in two thirds of the time."""
    if isinstance(steps, ColumnKey):
        return compared(table.c[steps.key])
    field = Field(table, steps)
    if len(steps) > 1 or is_position(steps[0]):
        return field.json
    return func.jsonb_object_field(field.payload, Constant(steps[0]), type_=JSONB())


@functools.lru_cache(MAX_TABLES)
def by_filter(table: Table, scope: Scope) -> FilterStatements:
    """The statements by filter over a table, the same object at every call."""
    return FilterStatements(table, scope)
