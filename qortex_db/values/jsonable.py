"""What Python's values are in JSON: the one encoder of payloads, filters, contexts, JSON columns.

The table of docs/vectors/values.md is the rule. `json` can't write a Decimal with all its digits,
and in one walk over a value is what is refused found, with its place.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import numpy as np

from qortex_db.checks import no_text, text_fault
from qortex_db.errors import InvalidInputError
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.markers import Clear
from qortex_db.messages import MAX_SHOWN, escaped
from qortex_db.values.plain_json import CONTAINERS, is_large, is_larger, plain_json

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

MAX_DIGITS: Final = 4_300
"""The most digits of a number before its point: more, Python doesn't read."""
_MAX_SCALE: Final = 16_383  # the most behind it that PostgreSQL's numeric holds


class FaultError(Exception):
    """A value, or one in it, has no form in JSON; whoever knows where it is says so."""

    def __init__(self, reason: str, limit: str | None = None, actual: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.limit = limit
        self.actual = actual
        self.steps: list[str] = []


def to_json(value: object, *, name: str, limits: Limits = DEFAULT_LIMITS) -> str:
    """A value as JSON that a jsonb column holds.

    Args:
        name: What an error calls it.
        limits: How deep and how large it may be, and its keys.

    Raises:
        InvalidInputError: It, or one in it, has no form in JSON; its place is named.
        LimitExceededError: It is too much.
    """
    text = None
    if type(value) in CONTAINERS and is_large(value):  # a smaller one takes no longer with ours
        text = plain_json(value, name=name, limits=limits)
        if text is None and is_larger(value, limits.max_payload_bytes):
            limits.check("max_payload_bytes", limits.max_payload_bytes + 1, name)
    if text is None:
        text = writer_of(limits).text(value, name)
    limits.check_text("max_payload_bytes", text, name)
    return text


def to_canonical_json(value: object, *, name: str) -> str:
    """The same as one text for equal values: keys sorted, ASCII; NUL too, which jsonb lacks."""
    return _CANONICAL.text(value, name)


def simplified(value: object, *, name: str) -> object:
    """A value as one of the types that JSON knows, or a Decimal; what is in it stays as it is.

    Raises:
        InvalidInputError: It has no form in JSON.
    """
    try:
        return _simplified(value)
    except FaultError as error:
        fault = error
    raise InvalidInputError(f"{name} {fault.reason}.")


def _simplified(value: Any) -> Any:
    kind = type(value)
    if kind in _KNOWN:
        return value
    simplify = _simplifier(cast("Hashable", kind))
    if simplify is None:
        raise FaultError(f"is a {kind.__name__}, which JSON can't say{_hint(value)}")
    try:
        return _simplified(simplify(value))  # an Enum's value may be anything
    except FaultError:
        raise
    except Exception as error:  # a caller's own code failed
        reason = f"is a {kind.__name__} that can't be read ({type(error).__name__})"
        raise FaultError(reason) from error


@functools.lru_cache(1_024)  # a program may make classes all the time
def _simplifier(kind: Any) -> Callable[[Any], Any] | None:
    for known, simplify in _SIMPLIFIERS:
        if issubclass(kind, known):
            # numpy has its timedelta for an integer, and CLEAR is no value.
            return None if kind in (np.timedelta64, Clear) else simplify
    if callable(getattr(kind, "model_dump", None)):  # pydantic's
        return lambda value: value.model_dump(mode="python")
    return _fields if dataclasses.is_dataclass(kind) else None


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _iso(value: date | time) -> str:
    if value != value:  # noqa: PLR0124 - pandas' NaT is a datetime
        raise FaultError("is no time (NaT), which JSON can't say")
    return value.isoformat()


def _datetime64(value: np.datetime64) -> str:
    """As of a datetime; where that has no form for it, numpy's own ISO 8601."""
    if np.isnat(value):
        raise FaultError("is no time (NaT), which JSON can't say")
    made = value.astype("datetime64[us]").item() if np.datetime_data(value)[0] == "ns" else None
    if made is None or np.datetime64(made, "ns") != value:
        made = value.item()
    return made.isoformat() if isinstance(made, date) else str(value)


def _marker(value: object) -> object:
    raise FaultError(f"is {value!r}, which stands for a whole column's NULL; pass None")


def _array(value: np.ndarray[Any, Any]) -> object:
    if isinstance(value, np.ma.MaskedArray):
        raise FaultError("is a masked array, which JSON can't say; pass what its filled() gives")
    return list(value) if value.ndim else value[()]


# In this order: an Enum may be a str too, and numpy's float64 is a float.
_SIMPLIFIERS: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (Clear, _marker),
    (Enum, lambda value: value.value),
    (np.bool_, bool),
    (np.integer, int),
    (np.floating, float),
    (np.str_, str.__str__),
    (np.datetime64, _datetime64),
    (np.ndarray, _array),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (Decimal, Decimal),
    (date, _iso),  # and datetime
    (time, _iso),
    (UUID, str),
    (Mapping, dict),
    (list, list),
    (tuple, tuple),
)
_HINTS: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((timedelta, np.timedelta64), "; pass its seconds"),
    ((bytes, bytearray, memoryview), "; pass text, such as base64"),
    ((set, frozenset, Iterator), "; pass a list"),
)


def _hint(value: object) -> str:
    return next((hint for kinds, hint in _HINTS if isinstance(value, kinds)), "")


class JsonWriter:
    """Writes values as JSON.

    Args:
        limits: Of depth and of keys.
        escape: Writes a text that has no fault.
        fault_of: Why one can't be written; None where it can.
        sort_keys: By code point.
        moment: What a datetime is, in the place of its `isoformat()`.
    """

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        escape: Callable[[str], str] = encode_basestring,
        fault_of: Callable[[str], str | None] = text_fault,
        *,
        sort_keys: bool = False,
        moment: Callable[[datetime], str] | None = None,
    ) -> None:
        self._limits = limits
        self._deepest = limits.max_payload_depth
        self._escape = escape
        self._fault_of = fault_of
        self._sort_keys = sort_keys
        self._moment = moment
        self._writers: dict[type, Callable[[Any, int], str]] = {
            str: self._string,
            dict: self._object,
            list: self._array,
            tuple: self._array,
            int: _whole,
            float: _float,
            bool: lambda value, _: "true" if value else "false",
            type(None): lambda _, __: "null",
            Decimal: _decimal,
        }

    @property
    def kinds(self) -> frozenset[type]:
        """What is written without being simplified first."""
        return frozenset(self._writers)

    def text(self, value: object, name: str) -> str:
        """A value as JSON.

        Raises:
            InvalidInputError: It, or one in it, has no form in JSON; its place is named.
        """
        try:
            return self.write(value, 0)
        except FaultError as error:
            fault = error
        place = name + "".join(reversed(fault.steps))
        if len(place) > len(name) + 200:
            place = f"{place[: len(name) + 200]}…"
        if fault.limit is not None:
            raise self._limits.exceeded(fault.limit, fault.actual, f"{place} {fault.reason}")
        raise InvalidInputError(f"{place} {fault.reason}.")

    def write(self, value: Any, depth: int) -> str:
        """The same of what is so deep in another."""
        write = self._writers.get(type(value))
        if write is None:
            if self._moment is not None and isinstance(value, datetime):
                return f'"{self._moment(value)}"'
            value = _simplified(value)
            write = self._writers[type(value)]
        return write(value, depth)

    def _string(self, value: str, _: int) -> str:
        if fault := self._fault_of(value):
            raise FaultError(fault)
        return self._escape(value)

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise FaultError(f"has a key of type {type(key).__name__}; pass strings")
        if fault := self._fault_of(key):
            raise FaultError(f"has a key that {fault}")
        most = self._limits.max_key_bytes
        if len(key) * 4 > most and (size := len(key.encode(errors="replace"))) > most:
            raise FaultError(f"has a key of {size:,} bytes", "max_key_bytes", size)
        return self._escape(key)

    def _object(self, value: dict[Any, Any], depth: int) -> str:
        if depth == self._deepest:
            reason = f"is nested more than {depth} levels deep"
            raise FaultError(reason, "max_payload_depth", depth + 1)
        members = []
        names: Iterable[Any] = value
        if self._sort_keys:
            for key in value:
                self._key(key)  # what can't be sorted is refused for what it is
            names = sorted(value)
        writers = self._writers
        at = None
        try:
            for key in names:
                at = None  # a key's fault is the object's
                name = self._key(key)
                at = key
                item = value[key]
                write = writers.get(type(item)) or self.write
                members.append(f"{name}:{write(item, depth + 1)}")
        except FaultError as fault:
            if at is not None:
                fault.steps.append(f".{escaped(str.__str__(at), MAX_SHOWN)}")
            raise
        return f"{{{','.join(members)}}}"

    def _array(self, value: list[Any] | tuple[Any, ...], depth: int) -> str:
        if depth == self._deepest:
            reason = f"is nested more than {depth} levels deep"
            raise FaultError(reason, "max_payload_depth", depth + 1)
        writers = self._writers
        items: list[str] = []
        try:
            for item in value:
                write = writers.get(type(item)) or self.write
                items.append(write(item, depth + 1))
        except FaultError as fault:
            fault.steps.append(f"[{len(items)}]")
            raise
        return f"[{','.join(items)}]"


def _whole(value: int, _: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # Python's own limit, which a program may have changed
        raise FaultError(f"has more than {MAX_DIGITS:,} digits") from None


def _float(value: float, _: int) -> str:
    if not math.isfinite(value):
        raise FaultError(f"is {value}, which JSON can't say")
    return float.__repr__(value)


def _decimal(value: Decimal, _: int) -> str:
    if not value.is_finite():
        raise FaultError(f"is {value}, which JSON can't say")
    exponent = value.as_tuple().exponent
    if value.adjusted() >= MAX_DIGITS or not isinstance(exponent, int) or exponent < -_MAX_SCALE:
        raise FaultError(
            f"has more than {MAX_DIGITS:,} digits before the point or {_MAX_SCALE:,} behind it"
        )
    return str(value)


@functools.lru_cache(16)
def writer_of(limits: Limits) -> JsonWriter:
    """What writes within limits."""
    return JsonWriter(limits)


_CANONICAL: Final = JsonWriter(DEFAULT_LIMITS, encode_basestring_ascii, no_text, sort_keys=True)
_KNOWN: Final = _CANONICAL.kinds
