"""A value as a column of vectors takes it: refused, or in pgvector's binary form."""

from __future__ import annotations

from qortex_db.errors import InvalidInputError
from qortex_db.types.half import check_half
from qortex_db.types.vector import (
    MAX_DIMENSIONS,
    as_float32,
    check_dimensions,
    check_values,
    encode,
)


def checked(
    value: object, *, dimensions: int | None, allow_zero: bool, is_half: bool, name: str
) -> bytes:
    """One vector, encoded.

    Args:
        value: Numbers, as :func:`as_float32` takes them.
        dimensions: What the column declares; None where it takes any.
        allow_zero: Whether a vector without a cosine may be stored, or searched for.
        is_half: Whether the column is of half precision, or its index.
        name: What an error calls it.

    Raises:
        InvalidInputError: The column does not take it.
    """
    vector = as_float32(value, name=name)
    check_dimensions(vector, dimensions, name=name)
    check_values(vector, name=name, allow_zero=allow_zero)
    if is_half:
        check_half(vector, name=name, allow_zero=allow_zero)
    if vector.size > MAX_DIMENSIONS:  # a column that declares no dimension holds any
        raise InvalidInputError(
            f"{name} has {vector.size} dimensions; at most {MAX_DIMENSIONS:,} fit."
        )
    return encode(vector)
