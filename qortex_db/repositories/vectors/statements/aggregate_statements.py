"""Aggregates of what payloads hold: one statement, built once for each form of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import (
    Boolean,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    Uuid,
    bindparam,
    case,
    cast,
    column,
    false,
    literal_column,
    null,
    select,
    true,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db.engine.citus import or_on_citus
from qortex_db.filters.columns import ColumnKey, compared
from qortex_db.filters.expressions import Constant
from qortex_db.filters.fields import Field
from qortex_db.repositories.statement_cache import built_once
from qortex_db.repositories.vectors.statements.filter_statements import (
    FilterStatements,
    Place,
    Steps,
)
from qortex_db.sql import Text, double, func, stored_type
from qortex_db.types import JsonText

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Column, ColumnElement, FromClause, Select, Table
    from sqlalchemy.sql.selectable import LateralFromClause
    from sqlalchemy.types import TypeEngine

    from qortex_db.filters import Filter

AggregateName: TypeAlias = Literal["min", "max", "mean", "median", "sum", "count", "distinct"]
Wanted: TypeAlias = tuple[tuple[Place, tuple[AggregateName, ...]], ...]
"""The paths, and what is wanted of the values at each."""

_ARRAY: Final = Constant("array")
_TWO: Final = literal_column("2::numeric", Numeric())


@built_once
def aggregates(
    owner: FilterStatements, where: Filter | None, wanted: Wanted, group_by: Place | None
) -> Select[Any]:
    """A row for each group: its value, how many rows it has, and path by path what is wanted.

    Groups come by their size, the largest first, and then by their value.
    """
    return or_on_citus(
        _aggregates(owner, where, wanted, group_by, apart=False),
        lambda: _aggregates(owner, where, wanted, group_by, apart=True),
    )


def _aggregates(
    owner: FilterStatements,
    where: Filter | None,
    wanted: Wanted,
    group_by: Place | None,
    *,
    apart: bool,
) -> Select[Any]:
    """The same.

    Args:
        apart: Whether what rows have is read first, as Citus takes it.
    """
    source = owner.table
    conditions = [*owner.scope.clauses]
    if where is not None:
        conditions.append(where.clause)
    places: list[Place | None] = [place for place, _ in wanted]
    if apart:
        source = _read(owner.table, [*places, group_by], conditions)
        conditions = []
    table = _Source(owner.table, source, apart=apart)
    each = _values(table, places)
    rows: FromClause = source.join(each, true())
    group: ColumnElement[Any] = type_coerce(cast(null(), Text), JsonText())
    groups: list[ColumnElement[Any]] = []
    if isinstance(group_by, ColumnKey):
        column = owner.table.c[group_by.key]
        groups = [table.column(len(places), group_by)]
        group = type_coerce(groups[0], column.type)
        conditions.append(groups[0].is_not(None))
    elif group_by is not None:
        once = _distinct(table.field(len(places), group_by))
        rows = rows.join(once, true())
        groups = [once.c.value]
        group = type_coerce(cast(once.c.value, Text), JsonText())
        conditions.append(func.jsonb_typeof(once.c.value) != Constant("null"))
    size = func.count(case((each.c.is_row, Constant(1))))
    made = [
        _of_column(name, each.c[f"value_{i}"], owner.table.c[place.key])
        if isinstance(place, ColumnKey)
        else _as_json(_aggregate(name, each.c[f"value_{i}"]))
        for i, (place, names) in enumerate(wanted)
        for name in names
    ]
    return (
        select(group, size, *made)
        .select_from(rows)
        .where(*conditions)
        .group_by(*groups)
        .order_by(size.desc(), *groups)
        .limit(bindparam("hits", type_=Integer))
    )


def _as_json(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return type_coerce(cast(value, Text), JsonText())


@dataclass(frozen=True, slots=True)
class _Source:
    """Where values are found: in a table, or in what was read of it.

    Attributes:
        table: The collection's.
        rows: These.
        apart: Whether the values at the places are columns of the rows, by their number.
    """

    table: Table
    rows: Any
    apart: bool

    def field(self, number: int, steps: Steps) -> Field:
        if self.apart:
            return Field(self.rows, (), self.rows.c[f"at_{number}"])
        return Field(self.table, steps)

    def column(self, number: int, place: ColumnKey) -> ColumnElement[Any]:
        if self.apart:
            found: ColumnElement[Any] = self.rows.c[f"at_{number}"]
            return found
        return compared(self.table.c[place.key])


def _read(
    table: Table, places: Sequence[Place | None], conditions: Sequence[ColumnElement[bool]]
) -> Any:
    """What rows have at some places."""
    at = [
        compared(table.c[place.key]) if isinstance(place, ColumnKey) else Field(table, place).json
        for place in places
        if place is not None
    ]
    columns = [value.label(f"at_{i}") for i, value in enumerate(at)]
    return select(*columns).where(*conditions).cte("_read").prefix_with("MATERIALIZED")


def _values(table: _Source, places: Sequence[Any]) -> LateralFromClause:
    """Of a row what it has at each place, and then the elements of its arrays, path by path.

    Most have no arrays: what takes those apart is behind a filter that is looked at once for a row.
    """
    columns = [
        table.column(i, place) if isinstance(place, ColumnKey) else None
        for i, place in enumerate(places)
    ]
    fields = [
        None if isinstance(place, ColumnKey) else table.field(i, place)
        for i, place in enumerate(places)
    ]
    itself: list[Any] = [
        column if field is None else case((field.kind != _ARRAY, field.json))
        for column, field in zip(columns, fields, strict=True)
    ]
    nothing = [cast(null(), JSONB if column is None else column.type) for column in columns]
    parts = [select(true().label("is_row"), *_numbered(itself)).correlate(table.rows)]
    for i, field in enumerate(fields):
        if field is None:
            continue
        values: list[ColumnElement[Any]] = [*nothing]
        elements = _elements(field, f"elements_{i}")
        values[i] = elements.c.value
        part = select(false().label("is_row"), *_numbered(values)).where(field.kind == _ARRAY)
        parts.append(part.correlate(table.rows))
    return union_all(*parts).lateral("_each")


def _distinct(field: Field) -> LateralFromClause:
    """What a row has at a path, or each of an array's elements once."""
    elements = _elements(field, "keys")
    itself = select(field.json.label("value")).where(field.kind != _ARRAY).correlate(field.table)
    once = select(elements.c.value).where(field.kind == _ARRAY).correlate(field.table).distinct()
    return union_all(itself, once).lateral("_once")


def _elements(field: Field, name: str) -> FromClause:
    elements = func.jsonb_array_elements(field.elements)
    return elements.table_valued(column("value", JSONB())).lateral(f"_{name}")


def _numbered(values: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [value.label(f"value_{i}") for i, value in enumerate(values)]


def _aggregate(name: AggregateName, value: ColumnElement[Any]) -> ColumnElement[Any]:
    """An aggregate of values, exact; what is of no use to it is left out."""
    kind = func.jsonb_typeof(value)
    # Behind a CASE, which is never reordered: mixed values can't make a cast fail.
    present = case((kind != Constant("null"), value))
    number = case((kind == Constant("number"), cast(value, Numeric)))
    if name == "count":
        return func.count(present)
    if name == "distinct":
        return func.count(present.distinct())
    if name in ("min", "max"):
        text = value.op("#>>", return_type=Text())(literal_column("'{}'::text[]"))
        string = case((kind == Constant("string"), text)).collate("C")
        of = getattr(func, name)
        return func.coalesce(func.to_jsonb(of(number)), func.to_jsonb(of(string)))
    return _aggregate_of_numbers(name, number)


def _aggregate_of_numbers(name: AggregateName, number: ColumnElement[Any]) -> ColumnElement[Any]:
    if name == "median":  # not percentile_cont, which is of float8
        half = func.percentile_disc(double(0.5))
        return (half.within_group(number) + half.within_group(number.desc())) / _TWO
    return func.avg(number) if name == "mean" else func.sum(number)


def _of_column(
    name: AggregateName, value: ColumnElement[Any], column: Column[Any]
) -> ColumnElement[Any]:
    """An aggregate of a column's values, exact, as the column's type or as JSON has numbers."""
    kind = stored_type(column.type)
    if name == "count":
        return func.count(value)
    if name == "distinct":
        return func.count(value.distinct())
    if name in ("min", "max"):
        return type_coerce(_end(getattr(func, name), value, kind), column.type)
    if not isinstance(kind, (Integer, Numeric, Float)):
        return null()
    found = _aggregate_of_numbers(name, cast(value, Numeric))
    is_decimal = isinstance(kind, Numeric) and not isinstance(kind, Float)  # in 2.0 it is one
    return type_coerce(found, column.type) if is_decimal else _as_json(found)


def _end(of: Callable[..., Any], value: ColumnElement[Any], kind: TypeEngine[Any]) -> Any:
    """The least or the greatest, of types too that the server knows none of."""
    if isinstance(kind, Boolean):
        return null()
    if isinstance(kind, Uuid):
        return cast(of(cast(value, Text).collate("C")), kind)
    if isinstance(kind, LargeBinary):
        as_hex = Constant("hex")
        return func.decode(of(func.encode(value, as_hex, type_=Text()).collate("C")), as_hex)
    return of(value)
