"""What every floor refuses, each rule once: no whole number, no text of PostgreSQL's."""

from __future__ import annotations

from operator import index
from typing import Final, SupportsIndex, cast

import numpy as np

from qortex_db.errors import InvalidInputError

MAX_INT4: Final = 2**31 - 1


def as_whole(value: object) -> int | None:
    """A whole number of any type, numpy's too; None for what is none."""
    if type(value) is int:
        return value
    try:
        is_bool = isinstance(value, (bool, np.bool_))  # numpy 1's still count, with a warning
        return None if is_bool else index(cast("SupportsIndex", value))
    except TypeError:
        return None


def check_whole(value: object, low: int, high: int, *, name: str) -> int:
    """A whole number within bounds, both included."""
    number = as_whole(value)
    wanted = f"a whole number from {low:,} to {high:,}"
    if number is None:
        raise InvalidInputError(f"{name} has to be {wanted}, not a {type(value).__name__}.")
    if not low <= number <= high:
        raise InvalidInputError(f"{name} is {number}; pass {wanted}.")
    return number


def check_count(value: object, *, name: str) -> int:
    """A count that an int4 column holds."""
    return check_whole(value, 0, MAX_INT4, name=name)


def check_text(value: object, *, name: str) -> str:
    """Text that PostgreSQL can hold: no NUL, no lone surrogate."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a str.")
    if "\x00" in value:
        raise InvalidInputError(f"{name} contains NUL, which PostgreSQL's text can't hold.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInputError(
                f"{name} contains a lone surrogate, which is no character of UTF-8."
            ) from None
    return value
