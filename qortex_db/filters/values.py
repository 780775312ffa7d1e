"""The values of filters: what kind each is, and as what it is sent."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any, Final

import numpy as np

from qortex_db.checks import check_text
from qortex_db.errors import InvalidInputError
from qortex_db.values.jsonable import FaultError, JsonWriter, simplified, to_json

MAX_LIST: Final = 10_000
"""The longest list of values."""
MAX_INTEGER_BITS: Final = 1_024
"""The size of the largest whole number: as far as a float64 reaches."""
MAX_QUERY_CHARS: Final = 1_000
"""The longest pattern of $like and query of $text."""

NULL, STRING, NUMBER, BOOLEAN, NESTED = "null", "string", "number", "boolean", "nested"
INSTANT: Final = "instant"
_KINDS: Final[dict[type, str]] = {
    type(None): NULL,
    str: STRING,
    int: NUMBER,
    float: NUMBER,
    Decimal: NUMBER,
    bool: BOOLEAN,
    list: NESTED,
    tuple: NESTED,
    dict: NESTED,
    datetime: INSTANT,
}


def plain(value: object, at: str) -> Any:
    """A value as it is stored in JSON; a datetime stays one, since it may be stored in many ways.

    Raises:
        InvalidInputError: JSON can't say it.
    """
    return value if isinstance(value, datetime) else simplified(value, name=at)


def kind_of(value: object, at: str) -> str:
    """The kind of a value."""
    kind = _KINDS.get(type(value))
    if kind is None:
        value = plain(value, at)
        kind = INSTANT if isinstance(value, datetime) else _KINDS[type(value)]
    return kind


def as_instant(value: datetime, at: str) -> str:
    """A moment in UTC, without its zone, in ISO 8601."""
    try:
        return _in_utc(value).replace(tzinfo=None).isoformat()
    except FaultError as error:
        fault = error
    raise InvalidInputError(f"{at} {fault.reason}.")


def _in_utc(value: datetime) -> datetime:
    if value.utcoffset() is None:
        raise FaultError("is a datetime without a time zone; add one, or pass a string")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        reason = "is a datetime that UTC puts before the year 1 or after 9999"
        raise FaultError(reason) from None


def as_number(value: Any, at: str) -> str:
    """A number as JSON."""
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise InvalidInputError(f"{at} has more than {MAX_INTEGER_BITS:,} bits; pass a float.")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInputError(f"{at} is NaN or infinite; pass a finite number.")
    return to_json(value, name=at)


def as_json(value: Any, at: str) -> str:
    """A value as payloads store it; a moment inside of it in UTC."""
    kind = kind_of(value, at)
    return as_number(value, at) if kind is NUMBER else _WRITER.text(value, at)


_WRITER: Final = JsonWriter(moment=lambda value: _in_utc(value).isoformat())


def as_list(value: Any, at: str) -> list[Any]:
    """Several values, each as it is stored."""
    items = check_list(value, at)
    if set(map(type, items)) <= _KINDS.keys():
        return items
    return [plain(item, at) for item in items]


def kinds_in(items: list[Any], at: str) -> set[str]:
    """The kinds of values that `as_list` gave."""
    return {_KINDS.get(type(item)) or kind_of(item, at) for item in items}


def as_jsons(items: list[Any], at: str) -> list[str]:
    """Values that `as_list` gave, each as JSON."""
    kinds = set(map(type, items))
    if kinds == {str}:
        check_text("".join(items), name=at)
        return list(map(encode_basestring, items))
    if kinds == {int} and max(map(int.bit_length, items)) <= MAX_INTEGER_BITS:
        return list(map(str, items))
    return [as_json(item, at) for item in items]


def check_list(value: Any, at: str) -> list[Any]:
    """Several values, as they are."""
    is_array = isinstance(value, np.ndarray) and value.ndim == 1
    if not (is_array or isinstance(value, (list, tuple, set, frozenset))):
        raise InvalidInputError(f"{at} is a {type(value).__name__}; pass a list.")
    if len(value) > MAX_LIST:
        raise InvalidInputError(
            f"{at} has {len(value):,} values; at most {MAX_LIST:,} are allowed."
        )
    if isinstance(value, np.ndarray) and value.dtype.kind in "iub":
        return value.tolist()  # type: ignore[no-any-return]
    return list(value)


def as_string(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(f"{at} is a {type(value).__name__}; pass a string.")
    if len(value) > MAX_QUERY_CHARS:
        raise InvalidInputError(
            f"{at} has {len(value):,} characters; at most {MAX_QUERY_CHARS:,} are allowed."
        )
    return check_text(value, name=at)


def successor(text: str) -> str | None:
    """What comes, by code point, after everything that begins with a text; None where nothing."""
    for end in range(len(text), 0, -1):
        last = ord(text[end - 1])
        if last < sys.maxunicode:  # surrogates are no characters
            return text[: end - 1] + chr(0xE000 if last == 0xD7FF else last + 1)  # noqa: PLR2004
    return None


def check_pattern(value: object, at: str) -> str:
    """A pattern of LIKE."""
    pattern = as_string(value, at)
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise InvalidInputError(
            f"{at} ends with the escape character; write two backslashes for one."
        )
    return pattern
