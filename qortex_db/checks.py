"""What every floor refuses, each rule once: no whole number, no text of PostgreSQL's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, cast
from uuid import UUID

import numpy as np

from qortex_db.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_INT4: Final = 2**31 - 1

_MAX_KEY_BITS: Final = 14_000  # of fewer digits than Python writes

_BOOLS: Final = (bool, np.bool_)  # numpy before 2 takes its own for numbers too


def as_whole(value: object) -> int | None:
    """A whole number of any type, numpy's too; None for what is none."""
    if type(value) is int:
        return value
    if isinstance(value, (*_BOOLS, np.ndarray)):
        return None
    try:
        return int.__int__(index(cast("SupportsIndex", value)))
    except Exception:  # noqa: BLE001 - TypeError, or whatever a number of another library raises
        return None


def check_whole(value: object, low: int, high: int, *, name: str) -> int:
    """A whole number within bounds, both included."""
    number = as_whole(value)
    if number is None or not low <= number <= high:
        given = f", not a {type(value).__name__}" if number is None else ""
        raise InvalidInputError(f"{name} has to be a whole number from {low:,} to {high:,}{given}.")
    return number


def check_choice(value: object, choices: Collection[str], *, name: str) -> None:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidInputError(f"{name} has to be one of {', '.join(choices)}.")


def check_count(value: object, *, name: str) -> int:
    """A count that an int4 column holds."""
    return check_whole(value, 0, MAX_INT4, name=name)


def as_dict(value: object, *, name: str, of: str = "dict") -> dict[Any, Any]:
    """A mapping as a dictionary, which can be read."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a {of}.")
    try:
        return value if type(value) is dict else dict(value)
    except Exception as error:  # noqa: BLE001 - of the mapping's own class
        failed = type(error).__name__
    # Out here it has no context: what a caller's own code raises may quote values.
    raise InvalidInputError(f"{name} is a {type(value).__name__} that can't be read ({failed}).")


def as_key(value: object) -> object:
    """The id of a vector as a text column holds it: an int or a UUID as its text."""
    number = as_whole(value)
    if number is not None and number.bit_length() <= _MAX_KEY_BITS:
        return str(number)
    return str(value) if isinstance(value, UUID) else value


def check_flag(value: object, *, name: str) -> None:
    """True or False, and nothing that merely counts as one."""
    if type(value) is not bool:
        raise InvalidInputError(f"{name} is a {_kind(value)}; pass True or False.")


def _kind(value: object) -> str:
    """The name of a type, by which numpy's bool is not Python's."""
    kind = type(value)
    return f"numpy {kind.__name__}" if isinstance(value, np.generic) else kind.__name__


def check_number(
    value: object, *, name: str, low: float = -math.inf, high: float = math.inf
) -> float:
    """A finite number within bounds, both included."""
    if type(value) is not float and (
        isinstance(value, (bool, np.timedelta64)) or not isinstance(value, Real)
    ):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a number.")
    try:
        number, fault = float(value), ""
    except OverflowError:  # an int has no largest
        number, fault = 0.0, "beyond what a float holds"
    except Exception as error:  # noqa: BLE001 - of the number's own class
        number, fault = 0.0, f"no number ({type(error).__name__})"
    if fault:
        raise InvalidInputError(f"{name} is {fault}.")
    if not math.isfinite(number) or not low <= number <= high:
        bounds = (
            "finite"
            if math.isinf(low)
            else f"from {low:g}" + ("" if math.isinf(high) else f" to {high:g}")
        )
        raise InvalidInputError(f"{name} is {number}; it has to be {bounds}.")
    return number


def check_text(value: object, *, name: str) -> str:
    """Text that PostgreSQL can hold: no NUL, no lone surrogate."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a str.")
    if fault := text_fault(value):
        raise InvalidInputError(f"{name} {fault}.")
    return value


def text_fault(value: str) -> str | None:
    """Why PostgreSQL can't hold a text; None where it can."""
    return "contains NUL, which PostgreSQL's text can't hold" if "\x00" in value else no_text(value)


def no_text(value: str) -> str | None:
    """Why a string is no text of UTF-8, which has no lone surrogates; None where it is."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "contains a lone surrogate, which is no character of UTF-8"
    return None


def encoded(value: str, *, name: str) -> bytes:
    """Any text in UTF-8."""
    if fault := no_text(value):
        raise InvalidInputError(f"{name} {fault}.")
    return value.encode()
