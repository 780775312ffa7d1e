"""What a host's own column takes, by its SQLAlchemy type; other types are the driver's to check.

A value that passes is one that the driver can send: nothing is refused half way.
"""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Enum,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Time,
    Uuid,
)
from sqlalchemy.dialects.postgresql import dialect

from qortex_db.errors import InvalidInputError
from qortex_db.repositories import validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column


def check_attribute(column: Column[Any], value: Any, name: str) -> Any:
    """A value of a column, as it is sent.

    Raises:
        InvalidInputError: The column takes no such value.
    """
    if value is None:
        if not column.nullable:
            raise InvalidInputError(f"{name} is None, and the column takes no NULL.")
        return None
    kind = column.type
    for known, check in _CHECKS:
        if isinstance(kind, known):
            return check(kind, value, name)
    return value


def _of(*classes: type) -> Callable[[Any, Any, str], Any]:
    wanted = " or ".join(one.__name__ for one in classes)

    def check(_: Any, value: Any, name: str) -> Any:
        is_bool = isinstance(value, bool) and bool not in classes
        if is_bool or not isinstance(value, classes):
            raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a {wanted}.")
        return value

    return check


_DIALECT: Final[Any] = dialect()  # type: ignore[no-untyped-call]
_text, _whole, _time = _of(str), _of(int), _of(datetime)


def _enum(kind: Enum, value: Any, name: str) -> Any:
    member = kind.enum_class is not None and isinstance(value, kind.enum_class)
    if not member and value not in kind.enums:
        raise InvalidInputError(f"{name} has to be one of {', '.join(kind.enums)}.")
    stored: Any = kind.bind_processor(_DIALECT)  # type: ignore[no-untyped-call]
    return stored(value)


def _json(_: JSON, value: Any, name: str) -> str:
    return validation.check_json(value, name=name)


def _array(_: ARRAY[Any], value: Any, name: str) -> str:
    if not isinstance(value, (list, tuple)):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a list.")
    if any(isinstance(item, (list, tuple, dict)) for item in value):
        raise InvalidInputError(f"{name} is nested; only flat arrays are written here.")
    for item in value:
        if isinstance(item, str):
            validation.check_text(item, name=name)
    return json.dumps(list(value), ensure_ascii=False, default=str)


def _string(kind: String, value: Any, name: str) -> str:
    text = validation.check_text(_text(kind, value, name), name=name)
    if kind.length is not None and len(text) > kind.length:
        raise InvalidInputError(
            f"{name} has {len(text):,} characters; the column takes {kind.length:,}."
        )
    return text


def _integer(bits: int) -> Callable[[Any, Any, str], Any]:
    def check(kind: Any, value: Any, name: str) -> Any:
        if not -(2**bits) <= _whole(kind, value, name) < 2**bits:
            raise InvalidInputError(f"{name} does not fit into the column's {bits + 1} bits.")
        return value

    return check


def _datetime(kind: DateTime, value: Any, name: str) -> Any:
    if kind.timezone is (_time(kind, value, name).utcoffset() is None):
        says = "has no time zone; add one" if kind.timezone else "has a time zone; take it away"
        raise InvalidInputError(f"{name} {says}, as the column wants it.")
    return value


def _uuid(kind: Uuid[Any], value: Any, name: str) -> Any:
    return _of(UUID)(kind, value, name) if kind.as_uuid else _text(kind, value, name)


# In this order, since some are subclasses of others.
_CHECKS: Final[tuple[tuple[type, Callable[[Any, Any, str], Any]], ...]] = (
    (Enum, _enum),
    (JSON, _json),
    (ARRAY, _array),
    (Boolean, _of(bool)),
    (SmallInteger, _integer(15)),
    (BigInteger, _integer(63)),
    (Integer, _integer(31)),
    (Numeric, _of(int, float, Decimal)),
    (String, _string),
    (DateTime, _datetime),
    (Date, _of(date)),
    (Time, _of(time)),
    (Interval, _of(timedelta)),
    (LargeBinary, _of(bytes)),
    (Uuid, _uuid),
)
