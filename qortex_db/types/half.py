"""`halfvec`: two bytes a component, for columns and for indexes over full vectors.

Values travel as `vector`, whose binary codec each connection has; the server casts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import cast
from sqlalchemy.types import UserDefinedType

from qortex_db.errors import InvalidInputError
from qortex_db.types.vector import (
    MAX_DIMENSIONS,
    DistanceComparator,
    Embedding,
    as_float32,
    check_square,
    declared,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from sqlalchemy import BindParameter, ColumnElement, Dialect

MAX_HALF: Final = float(np.finfo(np.float16).max)
"""The largest component of a halfvec, 65,504."""


class HalfEmbedding(UserDefinedType[Any]):
    """A pgvector `halfvec` column: numbers in, numpy float32 out; rounded to half precision.

    Args:
        dimensions: What the column declares; None leaves it open.

    Raises:
        InvalidInputError: pgvector has no such column.
    """

    cache_ok = True
    comparator_factory = DistanceComparator
    __module__ = "qortex_db.types"  # what migrations name it by

    def __init__(self, dimensions: int | None = None) -> None:
        self.dimensions = declared(dimensions, MAX_DIMENSIONS)

    def __repr__(self) -> str:
        return f"HalfEmbedding({self.dimensions or ''})"

    def get_col_spec(self, **_: object) -> str:
        return "halfvec" if self.dimensions is None else f"halfvec({self.dimensions})"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        process = Embedding(self.dimensions).bind_processor(dialect)

        def check(value: object) -> object:
            if value is not None and not isinstance(value, bytes):
                check_half(as_float32(value))
            return process(value)

        return check

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        return cast(cast(bindvalue, Embedding()), HalfEmbedding())

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        return Embedding().literal_processor(dialect)

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        return cast(colexpr, Embedding())


def check_half(
    array: NDArray[np.float32], *, name: str = "embedding", allow_zero: bool = True
) -> None:
    """Refuse what half precision can't hold, or what has no direction any more in it."""
    with np.errstate(over="ignore", under="ignore"):
        half = array.astype(np.float16)
    if np.isinf(half).any() and np.isfinite(array).all():
        raise InvalidInputError(
            f"{name} has a component beyond ±{MAX_HALF:,.0f}, which half precision can't "
            "hold; scale the vectors, or keep them and their index in full."
        )
    if not allow_zero and not half.any():
        check_square(0.0, name=name, of="half precision")
