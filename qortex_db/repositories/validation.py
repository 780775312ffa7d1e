"""What the repositories refuse before it reaches the server, each rule once."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, cast

from qortex_db.checks import as_dict, as_whole, check_number, check_whole
from qortex_db.errors import InvalidInputError
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.values.jsonable import to_json
from qortex_db.values.keys import KeyType
from qortex_db.values.keys import all_plain as all_plain  # noqa: PLC0414 - it is what all share
from qortex_db.values.keys import check_id as check_id  # noqa: PLC0414

MAX_LIMIT: Final = 10_000
"""The most of what one call returns or takes in a list, unless its own limit is named."""

MAX_MEASURE: Final = 1e100
"""The largest weight or score: what the server sums and squares of them stays finite."""

_MOST_SHOWN: Final = 10**18  # Python itself refuses to write the longest


def check_ids(values: object, *, name: str = "ids", limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """Distinct keys in code point order, the order in which every writer locks rows."""
    keys = _listed_ids(values, name, limits)
    check_each_id(keys, name=name)
    return sorted(set(keys))


def check_keys(
    values: object, kind: KeyType, *, name: str = "ids", limits: Limits = DEFAULT_LIMITS
) -> list[Any]:
    """The same of a table whose keys are of some type."""
    if kind.is_composite and _is_one(values):
        values = [values]
    keys = _listed_ids(values, name, limits)
    if not kind.all_plain(keys):
        keys = [kind.check(key, name=f"{name}[{i}]") for i, key in enumerate(keys)]
    return sorted(set(keys), key=kind.order if kind.is_composite else None)


def _is_one(values: object) -> bool:
    """Whether a tuple is a key of several columns, and no tuple of keys."""
    return isinstance(values, tuple) and not any(isinstance(one, tuple) for one in values)


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
