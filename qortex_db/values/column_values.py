"""What a host's own column takes, by its SQLAlchemy type; other types are the driver's to check.

A value that passes is one that the driver can send: nothing is refused half way.
"""

from __future__ import annotations

import functools
import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Time,
    TypeDecorator,
    Uuid,
)

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.sql import DIALECT, is_decorated
from qortex_db.values.jsonable import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column
    from sqlalchemy.types import TypeEngine


def check_attribute(column: Column[Any], value: Any, name: str) -> Any:
    """A value of a column, as a parameter of its type takes it.

    Raises:
        InvalidInputError: The column takes no such value.
    """
    if value is None:
        if not column.nullable:
            raise InvalidInputError(f"{name} is None, and the column takes no NULL.")
        return None
    return _checked(column.type, value, name)


def sent_attribute(column: Column[Any], value: Any, name: str) -> Any:
    """The same as it is stored, which is what a host's own type makes of it."""
    if not is_decorated(column.type):
        return check_attribute(column, value, name)
    made = _made(column.type, value, name)
    if made is None and not column.nullable:
        raise InvalidInputError(f"{name} is None, and the column takes no NULL.")
    return made


def compared_value(kind: TypeEngine[Any], value: Any, name: str) -> Any:
    """A value that a column's, or an array's elements, are compared with; of whatever size."""
    if is_decorated(kind):
        return _made(kind, value, name)
    if isinstance(kind, String) and not isinstance(kind, Enum):
        return checks.check_text(value, name=name)
    return _checked(BigInteger() if isinstance(kind, Integer) else kind, value, name)


def _checked(kind: TypeEngine[Any], value: Any, name: str) -> Any:
    check = _check_of(type(kind))  # type: ignore[arg-type]
    return value if check is None else check(kind, value, name)


@functools.cache
def _check_of(kind: type[Any]) -> Callable[[Any, Any, str], Any] | None:
    return next((check for known, check in _CHECKS if issubclass(kind, known)), None)


def _made(kind: TypeEngine[Any], value: Any, name: str) -> Any:
    """What types of a host's make of a value."""
    while is_decorated(kind):
        if type(kind).process_bind_param is not TypeDecorator.process_bind_param:
            value = kind.process_bind_param(value, DIALECT)
        kind = kind.load_dialect_impl(DIALECT)
    if value is None:
        return None
    if isinstance(kind, (JSON, ARRAY, Enum)):
        return _checked(kind, value, name)
    # The type below takes what SQLAlchemy would have it take, more than a user may pass.
    return checks.check_text(value, name=name) if isinstance(value, str) else value


def _of(*classes: type) -> Callable[[Any, Any, str], Any]:
    wanted = " or ".join(one.__name__ for one in classes)
    wanted = f"an {wanted}" if wanted[0] in "aeiou" else f"a {wanted}"

    def check(_: Any, value: Any, name: str) -> Any:
        is_bool = isinstance(value, bool) and bool not in classes
        if is_bool or not isinstance(value, classes):
            raise InvalidInputError(f"{name} is a {type(value).__name__}; pass {wanted}.")
        return value

    return check


_MAX_NUMERIC_DIGITS: Final = 131_072  # before the point: the driver stores more as 0
_text = _of(str)


def _enum(kind: Enum, value: Any, name: str) -> Any:
    member = kind.enum_class is not None and isinstance(value, kind.enum_class)
    if not member and value not in kind.enums:
        raise InvalidInputError(f"{name} has to be one of {', '.join(kind.enums)}.")
    stored: Any = kind.bind_processor(DIALECT)  # type: ignore[no-untyped-call]
    return stored(value)


def _json(_: JSON, value: Any, name: str) -> str:
    return to_json(value, name=name)


def _array(kind: ARRAY[Any], value: Any, name: str) -> str:
    if not isinstance(value, (list, tuple)):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a list.")
    if any(isinstance(item, (list, tuple)) for item in value):
        raise InvalidInputError(f"{name} is nested; only flat arrays are written here.")
    item = kind.item_type
    return json.dumps([_item(item, one, f"{name}[{i}]") for i, one in enumerate(value)])


def _item(kind: TypeEngine[Any], value: Any, name: str) -> str | None:
    """An array's element as the server reads it."""
    if is_decorated(kind):
        value = _made(kind, value, name)
    elif value is not None:
        value = _checked(kind, value, name)
    if value is None:
        return None
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    return checks.check_text(str(value), name=name)


def _string(kind: String, value: Any, name: str) -> str:
    text = checks.check_text(_text(kind, value, name), name=name)
    if kind.length is not None and len(text) > kind.length:
        raise InvalidInputError(
            f"{name} has {len(text):,} characters; the column takes {kind.length:,}."
        )
    return text


def _bool(_: Boolean, value: Any, name: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a bool.")
    return bool(value)


def _integer(bits: int) -> Callable[[Any, Any, str], int]:
    def check(_: Any, value: Any, name: str) -> int:
        number = checks.as_whole(value)
        if number is None:
            raise InvalidInputError(f"{name} is a {type(value).__name__}; pass an int.")
        if not -(2**bits) <= number < 2**bits:
            raise InvalidInputError(f"{name} does not fit into the column's {bits + 1} bits.")
        return number

    return check


def _number(value: Any, name: str) -> Any:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, Decimal)):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a number.")
    return value.item() if isinstance(value, np.generic) else value


def _float(_: Float[Any], value: Any, name: str) -> float:
    number = _number(value, name)
    try:
        sent = float(number)
        is_lost = math.isinf(sent) and number != sent
    except (OverflowError, ValueError):  # no int has an end, and a Decimal may be a signalling NaN
        is_lost = True
    if is_lost:
        raise InvalidInputError(f"{name} is beyond what a float holds.") from None
    return sent


def _numeric(_: Numeric[Any], value: Any, name: str) -> Any:
    number = _number(value, name)
    if not isinstance(number, float):
        size = Decimal(number) if isinstance(number, (int, Decimal)) else Decimal(float(number))
        if size.is_finite() and size.adjusted() >= _MAX_NUMERIC_DIGITS:
            raise InvalidInputError(f"{name} has more digits than PostgreSQL's numeric holds.")
    return number


def _clock(of: type) -> Callable[[Any, Any, str], Any]:
    check_class = _of(of)

    def check(kind: DateTime | Time, value: Any, name: str) -> Any:
        if kind.timezone is (check_class(kind, value, name).utcoffset() is None):
            says = "has no time zone; add one" if kind.timezone else "has a time zone; take it away"
            raise InvalidInputError(f"{name} {says}, as the column wants it.")
        return value

    return check


def _uuid(kind: Uuid[Any], value: Any, name: str) -> Any:
    return _of(UUID)(kind, value, name) if kind.as_uuid else _text(kind, value, name)


# In this order, since some are subclasses of others.
_CHECKS: Final[tuple[tuple[type, Callable[[Any, Any, str], Any]], ...]] = (
    (Enum, _enum),
    (JSON, _json),
    (ARRAY, _array),
    (Boolean, _bool),
    (SmallInteger, _integer(15)),
    (BigInteger, _integer(63)),
    (Integer, _integer(31)),
    (Float, _float),  # in SQLAlchemy 2.0 it is a Numeric
    (Numeric, _numeric),
    (String, _string),
    (DateTime, _clock(datetime)),
    (Date, _of(date)),
    (Time, _clock(time)),
    (Interval, _of(timedelta)),
    (LargeBinary, _of(bytes)),
    (Uuid, _uuid),
)
