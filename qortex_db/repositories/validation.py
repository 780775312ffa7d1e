"""What the repositories refuse before it reaches the server, each rule once."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, cast
from uuid import UUID

from qortex_db.checks import as_dict, as_key, as_whole, check_number, check_text, check_whole
from qortex_db.errors import InvalidInputError
from qortex_db.jsonable import to_json
from qortex_db.limits import DEFAULT_LIMITS, Limits

MAX_ID_BYTES: Final = 1_024
"""The longest id, in bytes of UTF-8: three of them still fit into one B-tree entry."""

MAX_LIMIT: Final = 10_000
"""The most of what one call returns or takes in a list, unless its own limit is named."""

MAX_MEASURE: Final = 1e100
"""The largest weight or score: what the server sums and squares of them stays finite."""

_MOST_SHOWN: Final = 10**18  # Python itself refuses to write the longest


def check_id(value: object, *, name: str = "id") -> str:
    """A key: text of 1 to `MAX_ID_BYTES` bytes."""
    if as_whole(value) is not None or isinstance(value, UUID):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass str(id).")
    text = check_text(value, name=name)
    if not text:
        raise InvalidInputError(f"{name} is empty.")
    # A character takes four bytes at most.
    if len(text) * 4 > MAX_ID_BYTES and (size := len(text.encode())) > MAX_ID_BYTES:
        raise InvalidInputError(f"{name} has {size} bytes; at most {MAX_ID_BYTES} are allowed.")
    return text


def check_key(value: object, *, name: str = "id") -> str:
    """The id of a vector: as any, and an int or a UUID as its text."""
    key = value if type(value) is str else as_key(value)
    if as_whole(key) is not None:
        raise InvalidInputError(f"{name} has more than {MAX_ID_BYTES:,} digits.")
    return check_id(key, name=name)


def check_ids(values: object, *, name: str = "ids", limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """Distinct keys in code point order, the order in which every writer locks rows."""
    keys = _listed_ids(values, name, limits)
    check_each_id(keys, name=name)
    return sorted(set(keys))


def check_keys(values: object, *, name: str = "ids", limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """The same of vectors, whose ids may be ints and UUIDs."""
    return sorted(set(check_each_key(_listed_ids(values, name, limits), name=name)))


def _listed_ids(values: object, name: str, limits: Limits) -> list[Any]:
    if isinstance(values, Mapping):
        values = values.keys()
    return check_list(values, name=name, of="list of ids", limits=limits)


_NO_LISTS: Final = (str, bytes, bytearray, memoryview, Mapping)


def check_list(
    values: object, *, name: str, of: str = "list", limits: Limits = DEFAULT_LIMITS
) -> list[Any]:
    """Several of something, as a list; of what has no end no more is read than is allowed."""
    listed = list(islice(check_iterable(values, name=name, of=of), limits.max_items + 1))
    limits.check("max_items", len(listed), name, "items")
    return listed


def check_dict(
    values: object, *, name: str, of: str, limits: Limits = DEFAULT_LIMITS
) -> dict[Any, Any]:
    """Several of something, by their keys."""
    given = as_dict(values, name=name, of=of)
    limits.check("max_items", len(given), name, "items")
    return given


def check_iterable(values: object, *, name: str, of: str = "list") -> Iterator[Any]:
    """Several of something, to be read once."""
    if isinstance(values, Iterable) and not isinstance(values, _NO_LISTS):
        try:
            return iter(values)
        except TypeError:  # a tensor of one number has an iterator, and raises
            pass
    raise InvalidInputError(f"{name} is a {type(values).__name__}; pass a {of}, even for one.")


def check_tuple(value: object, length: int, *, name: str, of: str) -> Sequence[Any]:
    """A tuple of so many, or a list of them."""
    if not isinstance(value, (tuple, list)) or len(value) != length:
        raise InvalidInputError(f"{name} {of}.")
    return value


def check_each_id(keys: list[str], *, name: str) -> None:
    """A list of keys, in any order; the first that is refused is named by its place."""
    if not all_plain(keys):
        for i, key in enumerate(keys):
            check_id(key, name=f"{name}[{i}]")


def check_each_key(keys: list[Any], *, name: str) -> list[str]:
    """The same of vectors; gives them as they are stored."""
    if all_plain(keys):
        return keys
    return [check_key(key, name=f"{name}[{i}]") for i, key in enumerate(keys)]


def all_plain(keys: Sequence[object]) -> bool:
    """Whether all are ids beyond doubt, by a few passes: short printable ASCII."""
    if not keys or set(map(type, keys)) != {str}:
        return not keys
    texts = cast("Sequence[str]", keys)
    joined = "".join(texts)
    return (
        joined.isascii()
        and joined.isprintable()
        and all(texts)
        and (len(joined) <= MAX_ID_BYTES or max(map(len, texts)) <= MAX_ID_BYTES)
    )


def check_limit(value: object, maximum: int, *, name: str = "limit") -> int:
    """A whole number from 1 to a maximum."""
    number = as_whole(value)
    if number is not None and not 1 <= number <= maximum and abs(number) <= _MOST_SHOWN:
        raise InvalidInputError(f"{name} is {number}; pass a whole number from 1 to {maximum:,}.")
    return check_whole(value, 1, maximum, name=name)


def check_callable(value: object, *, name: str) -> None:
    """What can be called."""
    if not callable(value):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass what can be called.")


def check_measure(value: object, *, name: str) -> float:
    """A weight or a score: any number that sums bear."""
    return check_number(value, name=name, low=-MAX_MEASURE, high=MAX_MEASURE)


def all_measures(values: Collection[object]) -> bool:
    """Whether all are weights or scores beyond doubt, by a few passes."""
    if not set(map(type, values)) <= {float}:
        return False
    numbers = cast("Collection[float]", values)
    return not numbers or (
        math.isfinite(sum(numbers))  # as NaN compares with nothing
        and min(numbers) >= -MAX_MEASURE
        and max(numbers) <= MAX_MEASURE
    )


def check_seconds(value: object, *, name: str) -> float:
    """A span of time of a microsecond or more, in seconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return check_number(seconds, name=name, low=1e-6)


def check_time(value: object, *, name: str) -> datetime | None:
    """An aware time from a datetime or its ISO 8601 form; None for "" and None."""
    if value is None or (isinstance(value, str) and not value):
        return None
    if isinstance(value, str):
        value = _from_iso(value)
        if value is None:
            raise InvalidInputError(f"{name} is no ISO 8601 time.")
    if not isinstance(value, datetime):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass an ISO 8601 string.")
    try:
        if value.utcoffset() is not None:
            return value.astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(f"{name} is beyond the years 1 to 9999 in UTC.") from None
    raise InvalidInputError(f"{name} has no time zone; add one, such as +00:00.")


def _from_iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # it quotes the text, and may be nobody's context
        return None


def check_payload(value: object, *, name: str = "payload", limits: Limits = DEFAULT_LIMITS) -> str:
    """A JSON object as text: of a mapping, a pydantic model or a dataclass."""
    text = to_json(value, name=name, limits=limits)
    if text[0] != "{":
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a dict.")
    return text
