"""Aggregates of what payloads hold: one statement, built once for each form of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import (
    Integer,
    Numeric,
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

from qortex_db.filters.columns import ColumnKey
from qortex_db.filters.expressions import Constant
from qortex_db.filters.fields import Field
from qortex_db.repositories.statement_cache import built_once
from qortex_db.repositories.vectors.filter_statements import FilterStatements, Place
from qortex_db.sql import Text, double, func
from qortex_db.types import JsonText

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, FromClause, Select, Table
    from sqlalchemy.sql.selectable import LateralFromClause

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
    table = owner.table
    each = _values(table, [steps for steps, _ in wanted])
    rows: FromClause = table.join(each, true())
    conditions = [*owner.scope.clauses]
    if where is not None:
        conditions.append(where.clause)
    group: ColumnElement[Any] = null()
    groups: list[ColumnElement[Any]] = []
    if group_by is not None:
        once = _distinct(table, group_by)
        rows = rows.join(once, true())
        group = once.c.value
        groups = [group]
        conditions.append(func.jsonb_typeof(group) != Constant("null"))
    size = func.count(case((each.c.is_row, Constant(1))))
    made = [
        type_coerce(cast(_aggregate(name, each.c[f"value_{i}"]), Text), JsonText())
        for i, (_, names) in enumerate(wanted)
        for name in names
    ]
    return (
        select(type_coerce(cast(group, Text), JsonText()), size, *made)
        .select_from(rows)
        .where(*conditions)
        .group_by(*groups)
        .order_by(size.desc(), *groups)
        .limit(bindparam("hits", type_=Integer))
    )


def _values(table: Table, paths: list[Place]) -> LateralFromClause:
    """Of a row what it has at each path, and then the elements of its arrays, path by path.

    Most have no arrays: what takes those apart is behind a filter that is looked at once for a row.
    """
    fields = [_field(table, place) for place in paths]
    itself = [case((field.kind != _ARRAY, field.json)) for field in fields]
    parts = [select(true().label("is_row"), *_numbered(itself)).correlate(table)]
    for place, field in enumerate(fields):
        values: list[ColumnElement[Any]] = [cast(null(), JSONB)] * len(fields)
        elements = _elements(field, f"elements_{place}")
        values[place] = elements.c.value
        part = select(false().label("is_row"), *_numbered(values)).where(field.kind == _ARRAY)
        parts.append(part.correlate(table))
    return union_all(*parts).lateral("_each")


def _distinct(table: Table, path: Place) -> LateralFromClause:
    """What a row has at a path, or each of an array's elements once."""
    field = _field(table, path)
    elements = _elements(field, "keys")
    itself = select(field.json.label("value")).where(field.kind != _ARRAY).correlate(table)
    once = select(elements.c.value).where(field.kind == _ARRAY).correlate(table).distinct()
    return union_all(itself, once).lateral("_once")


def _elements(field: Field | _Column, name: str) -> FromClause:
    elements = func.jsonb_array_elements(field.elements)
    return elements.table_valued(column("value", JSONB())).lateral(f"_{name}")


class _Column:
    """A column's value as JSON, which a payload's values are."""

    def __init__(self, column: ColumnElement[Any]) -> None:
        self.json: ColumnElement[Any] = func.to_jsonb(column, type_=JSONB())
        self.kind: ColumnElement[str] = func.jsonb_typeof(self.json)
        self.elements: ColumnElement[Any] = case((self.kind == _ARRAY, self.json))


def _field(table: Table, place: Place) -> Field | _Column:
    if isinstance(place, ColumnKey):
        return _Column(table.c[place.key])
    return Field(table, place)


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
    if name == "median":  # not percentile_cont, which is of float8
        half = func.percentile_disc(double(0.5))
        return (half.within_group(number) + half.within_group(number.desc())) / _TWO
    return func.avg(number) if name == "mean" else func.sum(number)
