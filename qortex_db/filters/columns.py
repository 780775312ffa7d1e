"""Operators over a host's own columns: compared by their types, as their own indexes have them.

Nulls and lists are as the table of docs/vectors/filters.md has them of payloads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Time,
    Uuid,
    any_,
    cast,
    exists,
    literal_column,
    select,
    true,
    type_coerce,
)

from qortex_db.errors import InvalidInputError
from qortex_db.filters import column_indexes, conditions
from qortex_db.filters.conditions import HASHED_FROM, Bind, Shape
from qortex_db.filters.expressions import Constant
from qortex_db.filters.fields import check_readable
from qortex_db.filters.full_text import is_found, read_terms, web_query, web_tsquery, words
from qortex_db.filters.regex import read_regex
from qortex_db.filters.values import as_string, check_list, check_pattern, successor
from qortex_db.messages import shown
from qortex_db.sql import Text, as_text, func, is_decorated, stored_type
from qortex_db.values.column_values import compared_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Column, ColumnElement, FromClause, Select, Table
    from sqlalchemy.types import TypeEngine

_SIGNS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_ORDERED: Final = (
    String,
    Integer,
    Numeric,
    Float,
    DateTime,
    Date,
    Time,
    Interval,
    LargeBinary,
    Uuid,
)


@dataclass(frozen=True, slots=True)
class ColumnKey:
    """A column in the place of a path into the payload.

    Attributes:
        key: Of the column in its table.
    """

    key: str


def column_kind(column: ColumnElement[Any]) -> TypeEngine[Any]:
    """The type by which a column is compared: without the length or precision of its values."""
    kind = stored_type(column.type)
    if isinstance(kind, Enum):
        return kind
    for known, wide in _WIDE:
        if isinstance(kind, known):
            return wide
    return kind


_WIDE: Final[tuple[tuple[type, TypeEngine[Any]], ...]] = (
    (String, Text()),
    (Integer, BigInteger()),
    (Float, Double()),
    (Numeric, Numeric()),
)


def compared(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column as it is compared: a varchar, of a host's own type too, as text."""
    kind = stored_type(column.type)
    is_text = isinstance(kind, String) and not isinstance(kind, Enum) and is_decorated(column.type)
    return as_text(type_coerce(column, kind) if is_text else column)


def _value(kind: TypeEngine[Any], bind: Bind) -> ColumnElement[Any]:
    if isinstance(kind, Enum):
        return cast(bind(Text()), kind)
    return bind(kind)


def _values(kind: TypeEngine[Any], bind: Bind) -> ColumnElement[Any]:
    if isinstance(kind, Enum):
        return cast(bind(ARRAY(Text())), ARRAY(kind))
    return bind(ARRAY(kind))


def is_null(column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:  # noqa: ARG001 - as all
    return column.is_(None)


def compare(column: ColumnElement[Any], bind: Bind, operator: str) -> ColumnElement[bool]:
    kind = column_kind(column)
    value = _made(column, _value(kind, bind))
    return compared(column).op(_pinned(kind, operator), is_comparison=True)(value)


def is_one_of(column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:
    kind = column_kind(column)
    values = any_(_values(kind, bind))
    return compared(column).op(_pinned(kind, "="), is_comparison=True)(values)


def is_one_of_many(column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:
    values = func.unnest(_values(column_kind(column), bind)).column_valued("each")
    return compared(column).in_(select(_made(column, values)))


def _made(column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[Any]:
    """What a host's own type makes of a value in SQL."""
    kind = column.type
    found = kind.bind_expression(value) if is_decorated(kind) else None  # type: ignore[arg-type]
    return value if found is None else found


def _is_made(kind: TypeEngine[Any]) -> bool:
    return is_decorated(kind) and kind.bind_expression(literal_column("x")) is not None  # type: ignore[arg-type]


def _pinned(kind: TypeEngine[Any], operator: str) -> str:
    """An operator of enums is one of any: who plants one of their own type is nearer."""
    return f"OPERATOR(pg_catalog.{operator})" if isinstance(kind, Enum) else operator


def array_has(column: ColumnElement[Any], bind: Bind, operator: str) -> ColumnElement[bool]:
    kind: Any = stored_type(column.type)
    wanted = cast(_values(_element(kind), bind), kind)
    return column.op(f"OPERATOR(pg_catalog.{operator})", is_comparison=True)(wanted)


def begins(
    column: ColumnElement[Any],
    bind: Bind,
    operator: str,
    by_pattern: bool,  # noqa: FBT001 - a constant of the shape
) -> ColumnElement[bool]:
    """By code point: as an index of text_pattern_ops has it, or one by the collation "C"."""
    if by_pattern:
        return compared(column).op(_BY_PATTERN[operator], is_comparison=True)(bind(Text()))
    return compared(column).collate("C").op(operator, is_comparison=True)(bind(Text()))


_BY_PATTERN: Final = {
    ">=": "OPERATOR(pg_catalog.~>=~)",
    "<": "OPERATOR(pg_catalog.~<~)",
}


def matches_regex(column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:
    return compared(column).collate("C").op("~", is_comparison=True)(bind(Text()))


def array_has_of_many(column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:
    """An overlap, whose list is hashed."""
    kind: Any = stored_type(column.type)
    values = select(func.unnest(_values(_element(kind), bind)))
    each = func.unnest(column).table_valued("value").render_derived("_each")
    value = cast(literal_column("_each.value"), _element(kind))
    elements: Select[Any] = select(literal_column("1")).select_from(each)
    return exists(elements.where(value.in_(values).is_(true())))


def has_substring(column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:
    return func.strpos(compared(column), bind(Text())) > Constant(0)


def like(column: ColumnElement[Any], bind: Bind, operator: str) -> ColumnElement[bool]:
    return compared(column).op(operator, is_comparison=True)(bind(Text()))


def matches(column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:
    return is_found(words(compared(column), "simple"), web_tsquery("simple", bind(Text())))


def _element(kind: ARRAY[Any]) -> TypeEngine[Any]:
    found = stored_type(kind.item_type)
    return next((wide for known, wide in _WIDE if isinstance(found, known)), found)


def column_named(table: FromClause, name: str, at: str) -> Column[Any]:
    """A column by the name that the host has for it.

    Raises:
        InvalidInputError: There is none.
    """
    columns = {column.name: column for column in table.columns}
    if name not in columns:
        raise InvalidInputError(f"{at} names {shown(name)}; the columns are {', '.join(columns)}.")
    return columns[name]  # type: ignore[return-value]


def value_column(column: Column[Any], at: str) -> ColumnKey:
    """A column whose values are counted, grouped or ordered.

    Raises:
        InvalidInputError: They are of a type that has no order, or are encrypted.
    """
    if column.key == "document":
        check_readable(column.table, None, at)
    kind = stored_type(column.type)
    if not isinstance(kind, (*_ORDERED, Boolean)):
        raise InvalidInputError(
            f"{at} is the column {column.name}, which is {kind}: it has no order."
        )
    return ColumnKey(column.key)


def no_column(table: Table, name: str, own: Iterable[str]) -> InvalidInputError:
    """What is said of a key that names nothing, where there is no payload to look into."""
    has = ", ".join(own) or "none of its own"
    return InvalidInputError(
        f"{table.name} has no payload, and no column {shown(name)} to filter by; it has {has}."
    )


class ColumnReader:
    """Reads the operators of one column into shapes; values go aside.

    Args:
        column: Of a table of vectors.
        values: To append to, in the order in which the conditions ask for them.
    """

    def __init__(self, table: Table, column: Column[Any], at: str, values: list[Any]) -> None:
        if column.key == "document":
            check_readable(table, None, at)
        self._column = column
        self._key = ColumnKey(column.key)
        self._kind = stored_type(column.type)
        self._values = values

    def read(self, name: str, value: Any, at: str) -> Shape:
        """The shape of an operator with its argument.

        Raises:
            InvalidInputError: The column has no such operator, or can't have such a value.
        """
        if name == "$exists":
            if not isinstance(value, bool):
                raise InvalidInputError(f"{at} is a {type(value).__name__}; pass True or False.")
            shape: Shape = is_null, self._key
            return ("not", shape) if value else shape
        if name in ("$ne", "$nin"):
            return "not", self.read("$eq" if name == "$ne" else "$in", value, at)
        if name == "$eq" and value is None:
            return is_null, self._key
        kind = self._kind
        readers: Mapping[str, Callable[[str, Any, str], Shape]] = {}
        if isinstance(kind, ARRAY):
            readers = dict.fromkeys(("$contains", "$any", "$all"), self._array)
        elif isinstance(kind, (*_ORDERED, Boolean)):
            readers = {"$eq": self._compared, "$in": self._listed}
            if isinstance(kind, _ORDERED):
                readers |= dict.fromkeys(_SIGNS, self._compared) | {"$between": self._between}
            if isinstance(kind, String) and not isinstance(kind, Enum):
                readers |= dict.fromkeys(("$like", "$ilike"), self._pattern)
                readers |= {"$contains": self._substring, "$text": self._text}
                readers |= {"$prefix": self._prefix, "$regex": self._regex}
        if name not in readers:
            raise InvalidInputError(
                f"{at} is no operator of the column {self._column.name}, which is {kind}; it has "
                f"{', '.join([*readers, '$exists'])}. Everything else an expression says."
            )
        return readers[name](name, value, at)

    def _compared(self, name: str, value: Any, at: str) -> Shape:
        if value is None:
            raise InvalidInputError(f"{at} is None, which has no order; pass a value.")
        self._values.append(compared_value(self._column.type, value, at))
        return compare, self._key, _SIGNS.get(name, "=")

    def _between(self, _: str, value: Any, at: str) -> Shape:
        if not isinstance(value, (list, tuple)) or len(value) != 2:  # noqa: PLR2004
            raise InvalidInputError(f"{at} takes a list of two, the lowest and the highest.")
        low, high = value
        return "and", self._compared("$gte", low, at), self._compared("$lte", high, at)

    def _listed(self, _: str, value: Any, at: str) -> Shape:
        items = check_list(value, at)
        known = [compared_value(self._column.type, item, at) for item in items if item is not None]
        shapes: list[Shape] = []
        if known:
            self._values.append(known)
            many = len(known) >= HASHED_FROM and not isinstance(self._kind, Enum)
            many = many or _is_made(self._column.type)
            shapes.append((is_one_of_many if many else is_one_of, self._key))
        if len(known) < len(items):
            shapes.append((is_null, self._key))
        if len(shapes) == 1:
            return shapes[0]
        return ("or", *shapes) if shapes else (conditions.nothing, self._key)

    def _array(self, name: str, value: Any, at: str) -> Shape:
        items = [value] if name == "$contains" else check_list(value, at)
        kind: Any = self._kind
        self._values.append([compared_value(kind.item_type, item, at) for item in items])
        is_long = len(items) >= HASHED_FROM and not isinstance(stored_type(kind.item_type), Enum)
        if name == "$any" and is_long and not column_indexes.finds_elements(self._column):
            return array_has_of_many, self._key
        return array_has, self._key, "&&" if name == "$any" else "@>"

    def _pattern(self, name: str, value: Any, at: str) -> Shape:
        self._values.append(check_pattern(value, at))
        return like, self._key, "LIKE" if name == "$like" else "ILIKE"

    def _prefix(self, _: str, value: Any, at: str) -> Shape:
        return self._begins(as_string(value, at))

    def _begins(self, text: str) -> Shape:
        how = column_indexes.is_by_pattern(self._column)
        bounds = {">=": text, "<": successor(text)}
        bounds = {sign: bound for sign, bound in bounds.items() if bound is not None}
        self._values.extend(bounds.values())
        return "and", *((begins, self._key, sign, how) for sign in bounds)

    def _regex(self, _: str, value: Any, at: str) -> Shape:
        regex = read_regex(as_string(value, at), at)
        beginning = [self._begins(regex.prefix)] if regex.prefix else []
        self._values.append(regex.sql)
        return "and", *beginning, (matches_regex, self._key)

    def _substring(self, _: str, value: Any, at: str) -> Shape:
        self._values.append(as_string(value, at))
        return has_substring, self._key

    def _text(self, _: str, value: Any, at: str) -> Shape:
        self._values.append(web_query(read_terms(as_string(value, at))))
        return matches, self._key


def is_served(table: FromClause, condition: object, key: ColumnKey, constants: list[Any]) -> bool:
    """Whether the table declares a key or an index that finds rows by a condition."""
    column: Any = table.c[key.key]
    if condition is begins:
        return column_indexes.finds_beginning(column, by_pattern=constants[1])
    return condition in _BY_INDEX and column_indexes.finds_value(table, column)


_BY_INDEX: Final = (compare, is_one_of, is_one_of_many)
