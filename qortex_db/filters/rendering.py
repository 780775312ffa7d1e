"""A filter's shape as a clause: the whole of it, what indexes serve of it, and what it says of all.

Its parameters are numbered in the order in which values were read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, column, exists, literal_column, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import AsBoolean, BindParameter, False_, True_

from qortex_db.filters import columns, conditions
from qortex_db.filters.columns import ColumnKey
from qortex_db.filters.expressions import Constant
from qortex_db.filters.fields import Field
from qortex_db.filters.operators import is_served as is_path_served
from qortex_db.sql import func

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.types import TypeEngine

    from qortex_db.filters.conditions import Shape
    from qortex_db.filters.fields import Path


def render(shape: Shape, table: Table, numbers: Iterator[int]) -> ColumnElement[bool]:
    """A shape's clause."""
    return _Renderer(table, numbers).clause(shape)


class _Renderer:
    """Renders a shape, or a part of it within elements of arrays.

    Attributes:
        element: What paths begin at in the place of the payload.
    """

    def __init__(self, table: Table, numbers: Iterator[int]) -> None:
        self.table = table
        self.numbers = numbers
        self.element: ColumnElement[Any] | None = None
        self.depth = 0

    def clause(self, shape: Shape) -> ColumnElement[bool]:
        condition, *rest = shape
        if condition == "sql":
            return rest[0]  # type: ignore[no-any-return]
        if condition == "and":
            return and_(true(), *map(self.clause, rest))
        if condition == "or":
            return or_(*map(self.clause, rest))
        if condition == "not":
            # Not NOT: what is NULL, such as a comparison with a missing key, did not match either.
            return self.clause(rest[0]).is_not(true())
        if condition == "least":
            return self._least(rest[0], rest[1:])
        if condition == "some":
            return self._some(*rest)
        path, *constants = rest
        where: Any = self.table
        if path is not None:
            is_column = isinstance(path, ColumnKey)
            where = self.table.c[path.key] if is_column else self._field(path)
        return condition(where, self._bind, *constants)  # type: ignore[no-any-return]

    def _field(self, path: Path) -> Field:
        return Field(self.table, path.steps, self.element if path.within else None)

    def _bind(self, type_: TypeEngine[Any]) -> ColumnElement[Any]:
        return bindparam(f"row_where_{next(self.numbers)}", type_=type_)

    def _least(self, number: int, shapes: Sequence[Shape]) -> ColumnElement[bool]:
        parts = [self.clause(part) for part in shapes]
        one, none = Constant(1), Constant(0)
        counted: ColumnElement[int] = case((parts[0], one), else_=none)
        for part in parts[1:]:
            counted += case((part, one), else_=none)
        clause = counted >= Constant(number)
        chosen = _needed(number, shapes, self.table)
        return and_(or_(*(parts[i] for i in chosen)), clause) if chosen else clause

    def _some(self, path: Path, shape: Shape) -> ColumnElement[bool]:
        field = self._field(path)
        outside, name = self.element, f"_element_{self.depth}"
        elements = func.jsonb_array_elements(field.elements)
        rows = elements.table_valued(column("value", JSONB())).alias(name)
        # By its name: what replaces parts of a statement leaves it alone.
        self.element = literal_column(f"{name}.value", JSONB())
        self.depth += 1
        statement = select(Constant(1)).select_from(rows).where(self.clause(shape))
        self.element = outside
        self.depth -= 1
        return exists(statement)


def _needed(number: int, shapes: Sequence[Shape], table: Table) -> list[int]:
    """Parts of which one holds where so many of all hold, if indexes serve that many."""
    served = [i for i, part in enumerate(shapes) if is_served(part, table)]
    count = len(shapes) - number + 1
    return served[:count] if len(served) >= count else []


def is_served(shape: Shape, table: Table) -> bool:
    """Whether the indexes that the table declares find rows by a shape, or by a part of it."""
    condition, *rest = shape
    if condition == "and":
        return any(is_served(part, table) for part in rest)
    if condition == "or":
        return all(is_served(part, table) for part in rest)
    if condition == "least":
        return bool(_needed(rest[0], rest[1:], table))
    if condition in ("not", "some"):
        return False
    path, *constants = rest
    if isinstance(path, ColumnKey):
        return columns.is_served(table, condition, path, constants)
    return is_path_served(table, condition, path, constants)


def served(shape: Shape, table: Table, numbers: Iterator[int]) -> ColumnElement[bool] | None:
    """The part of a shape's clause that declared indexes serve, with the same parameters."""
    condition, *rest = shape
    if condition == "least":
        number, *rest = rest
        parts = [served(part, table, numbers) for part in rest]
        chosen = _needed(number, rest, table)
        found = [part for i in chosen if (part := parts[i]) is not None]
        return or_(*found) if found else None
    if condition not in ("and", "or"):
        clause = render(shape, table, numbers)
        return clause if is_served(shape, table) else None
    parts = [served(part, table, numbers) for part in rest]
    if not is_served(shape, table):
        return None
    join = and_ if condition == "and" else or_
    return join(*(part for part in parts if part is not None))


def truth(shape: Shape) -> bool | None:
    """What a condition is of every row, whatever the row holds; None where that decides."""
    condition, *rest = shape
    if condition == "sql":
        element: ColumnElement[Any] = rest[0].element
        while isinstance(element, AsBoolean):  # as or_(…, true()) is
            element = element.element
        if isinstance(element, BindParameter) and type(element.value) is bool:  # literal(True)
            return element.value
        return _CONSTANTS.get(type(element))
    if condition is conditions.nothing:
        return False
    if condition == "not":
        inner = truth(rest[0])
        return None if inner is None else not inner
    if condition not in ("and", "or", "least"):
        return None
    shapes = rest[1:] if condition == "least" else rest
    number: int = {"and": len(rest), "or": 1}.get(condition) or rest[0] if rest else 0
    parts = [truth(part) for part in shapes]
    # Of two opposites one is true.
    opposites = len(
        {part for part in shapes if part[0] in _WITHOUT_VALUES and ("not", part) in shapes}
    )
    if parts.count(True) + opposites >= number:
        return True
    return False if len(parts) - parts.count(False) - opposites < number else None


_CONSTANTS: Final[dict[type, bool]] = {True_: True, False_: False}
# Conditions that are the same where their paths are.
_WITHOUT_VALUES: Final = (conditions.exists, conditions.is_null)


def has(shape: Shape, wanted: tuple[object, ...]) -> bool:
    """Whether one of some conditions is in a shape."""
    return any(
        part in wanted if callable(part) else isinstance(part, tuple) and has(part, wanted)
        for part in shape
    )
