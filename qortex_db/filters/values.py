"""The values of filters: what kind each is, and as what it is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from json.encoder import encode_basestring
from typing import Any, Final

from qortex_db.checks import check_text
from qortex_db.errors import InvalidInputError

MAX_LIST: Final = 10_000
"""The longest list of values."""
MAX_VALUE_DEPTH: Final = 100
"""How deeply a value may be nested."""
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
    bool: BOOLEAN,
    list: NESTED,
    tuple: NESTED,
    dict: NESTED,
    datetime: INSTANT,
    date: STRING,
}


def kind_of(value: object, at: str) -> str:
    kind = _KINDS.get(type(value))
    if kind is not None:
        return kind
    for known, kind in _KINDS.items():  # subclasses; bool has none
        if isinstance(value, known):
            return kind
    if isinstance(value, Mapping):
        return NESTED
    raise InvalidInputError(
        f"{at} is a {type(value).__name__}; pass a string, a number, a bool, None, a date, a list "
        "or a dict."
    )


def as_text(value: Any, at: str) -> str:
    """A string as it is; a date as ISO 8601."""
    return value.isoformat() if isinstance(value, date) else check_text(str.__str__(value), name=at)


def as_instant(value: Any, at: str) -> str:
    """A moment in UTC, without its zone, in ISO 8601."""
    if value.utcoffset() is None:
        raise InvalidInputError(
            f"{at} is a datetime without a time zone; add one, or pass a string."
        )
    try:
        utc: datetime = value.astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(
            f"{at} is a datetime that UTC puts before the year 1 or after 9999."
        ) from None
    return utc.replace(tzinfo=None).isoformat()


def as_number(value: Any, at: str) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(f"{at} is NaN or infinite; pass a finite number.")
        return float.__repr__(value)
    if value.bit_length() > MAX_INTEGER_BITS:
        raise InvalidInputError(f"{at} has more than {MAX_INTEGER_BITS:,} bits; pass a float.")
    return int.__repr__(value)


def as_json(value: Any, at: str, depth: int = 0) -> str:
    """A value as JSON."""
    kind = kind_of(value, at)
    if kind is STRING:
        return encode_basestring(as_text(value, at))
    if kind is INSTANT:  # inside of an object or array, which is compared as JSON
        return f'"{as_instant(value, at)}+00:00"'
    if kind is NUMBER:
        return as_number(value, at)
    if kind is not NESTED:
        return json.dumps(value)
    if depth == MAX_VALUE_DEPTH:
        raise InvalidInputError(f"{at} is nested more than {MAX_VALUE_DEPTH} levels deep.")
    if not isinstance(value, Mapping):
        return f"[{','.join([as_json(item, at, depth + 1) for item in value])}]"
    members = []
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidInputError(f"{at} has a key of type {type(key).__name__}; pass strings.")
        name = encode_basestring(check_text(key, name=f"a key of {at}"))
        members.append(f"{name}:{as_json(item, at, depth + 1)}")
    return f"{{{','.join(members)}}}"


def as_list(value: object, at: str) -> list[Any]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise InvalidInputError(f"{at} is a {type(value).__name__}; pass a list.")
    if len(value) > MAX_LIST:
        raise InvalidInputError(
            f"{at} has {len(value):,} values; at most {MAX_LIST:,} are allowed."
        )
    return list(value)


def as_string(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(f"{at} is a {type(value).__name__}; pass a string.")
    if len(value) > MAX_QUERY_CHARS:
        raise InvalidInputError(
            f"{at} has {len(value):,} characters; at most {MAX_QUERY_CHARS:,} are allowed."
        )
    return check_text(value, name=at)
