"""`sparsevec`: the non-zero components of a vector, with their positions.

Values travel as text, which needs no codec: a sparse vector is short, and pgvector's text is exact.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import cast, type_coerce
from sqlalchemy.types import UserDefinedType

from qortex_db.checks import as_dict, as_whole, check_whole
from qortex_db.errors import DimensionMismatchError, InvalidInputError
from qortex_db.sql import Text
from qortex_db.types.vector import DistanceComparator, check_square, declared

try:
    from pgvector import SparseVector as SparseVector  # noqa: PLC0414 - ours to export
except ImportError:  # before pgvector 0.4
    from pgvector.utils import SparseVector  # type: ignore[no-redef, unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import BindParameter, ColumnElement, Dialect

MAX_SPARSE_DIMENSIONS: Final = 1_000_000_000
"""What a sparsevec column declares at most."""
MAX_NONZEROS: Final = 16_000
"""The non-zero components that a sparsevec holds at most."""
MAX_INDEXED_NONZEROS: Final = 1_000
"""Those that an index takes at most."""

_FLOAT = struct.Struct("f")


class EncodedSparse(str):
    """A sparse vector that was checked, as pgvector reads it."""

    __slots__ = ()


class SparseEmbedding(UserDefinedType[Any]):
    """A pgvector `sparsevec` column: `pgvector.SparseVector` in and out.

    Args:
        dimensions: What the column declares; None leaves it open.
        max_nonzeros: How many components may be non-zero; an index takes 1,000.

    Raises:
        InvalidInputError: pgvector has no such column.
    """

    cache_ok = True
    comparator_factory = DistanceComparator
    __module__ = "qortex_db.types"  # what migrations name it by

    def __init__(self, dimensions: int | None = None, *, max_nonzeros: int = MAX_NONZEROS) -> None:
        self.dimensions = declared(dimensions, MAX_SPARSE_DIMENSIONS)
        self.max_nonzeros = check_whole(max_nonzeros, 1, MAX_NONZEROS, name="max_nonzeros")

    def __repr__(self) -> str:
        return f"SparseEmbedding({self.dimensions or ''})"

    def get_col_spec(self, **_: object) -> str:
        return "sparsevec" if self.dimensions is None else f"sparsevec({self.dimensions})"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str | None]:  # noqa: ARG002
        return lambda value: None if value is None else self.to_text(value)

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        return cast(cast(bindvalue, Text()), SparseEmbedding())

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        return lambda value: f"'{self.to_text(value)}'"

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        return type_coerce(cast(colexpr, Text()), self)

    def result_processor(
        self,
        dialect: Dialect,  # noqa: ARG002
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], SparseVector | None]:
        return from_text

    def to_text(
        self, value: object, *, name: str = "The sparse embedding", allow_zero: bool = True
    ) -> EncodedSparse:
        """A value as pgvector reads it; SQLAlchemy would wrap what is raised when it is bound.

        Args:
            value: A `pgvector.SparseVector`, or components by position.
            name: What an error calls it.
            allow_zero: Whether it may be without a cosine.

        Raises:
            InvalidInputError: It is none that this column takes.
        """
        if isinstance(value, EncodedSparse):
            return value
        parts, dimensions = _read(value, self.dimensions, name)
        if self.dimensions is not None and dimensions != self.dimensions:
            raise DimensionMismatchError(
                f"{name} has {dimensions:,} dimensions, the column holds {self.dimensions:,}.",
                expected=self.dimensions,
                actual=dimensions,
            )
        if len(parts) > self.max_nonzeros:
            raise InvalidInputError(
                f"{name} has {len(parts):,} non-zero components; this column takes "
                f"{self.max_nonzeros:,}. Keep the largest."
            )
        if not allow_zero:
            check_square(sum(number * number for _, number in parts), name=name)
        pairs = ",".join(f"{at + 1}:{number!r}" for at, number in parts)
        return EncodedSparse(f"{{{pairs}}}/{dimensions}")

    def read(self, value: object) -> SparseVector:
        """A value that this column takes, as it comes back from it."""
        return SparseVector(*_parts(self.to_text(value)))


def from_text(text: str | None) -> SparseVector | None:
    """What pgvector writes of a sparse vector; its positions count from 1."""
    return None if text is None else SparseVector(*_parts(text))


def _parts(text: str) -> tuple[dict[int, float], int]:
    parts, _, dimensions = text[1:].partition("}/")
    pairs = (part.split(":") for part in parts.split(",") if part)
    return {int(at) - 1: float(number) for at, number in pairs}, int(dimensions)


def fold_sparse(components: Mapping[int, float], dimensions: int) -> SparseVector:
    """A sparse vector whose positions are beyond a column's dimensions, such as hashes, in them.

    A position is taken modulo the dimensions. Those that then meet are added, as if the words
    behind them were one: of n positions chosen at random about n²/(2 · dimensions) pairs do. Fold
    stored vectors and queries by the same number.

    Args:
        components: By position, counted from 0, of any size.
        dimensions: What the column declares, 1 to 1,000,000,000.

    Raises:
        InvalidInputError: A position or a component is no number of this kind.
    """
    size = check_whole(dimensions, 1, MAX_SPARSE_DIMENSIONS, name="dimensions")
    given = as_dict(components, name="components", of="mapping of numbers by position")
    folded: dict[int, float] = {}
    for at, number in given.items():
        position = as_whole(at)
        if position is None or position < 0:
            raise InvalidInputError("components has a position that is no whole number from 0.")
        place = position % size
        folded[place] = folded.get(place, 0.0) + _single(number, "components")
    return SparseVector({at: _single(sum_, "components") for at, sum_ in folded.items()}, size)


def _read(value: object, dimensions: int | None, name: str) -> tuple[list[tuple[int, float]], int]:
    """Positions and components by position, without the zeros, and the dimensions."""
    if isinstance(value, SparseVector):
        pairs: list[tuple[Any, Any]] = list(zip(value.indices(), value.values(), strict=True))
        dimensions = value.dimensions()
    elif isinstance(value, Mapping):
        pairs = list(as_dict(value, name=name).items())
    else:
        raise InvalidInputError(
            f"{name} is a {type(value).__name__}; pass a pgvector.SparseVector, or "
            "a mapping from positions, counted from 0, to components."
        )
    if dimensions is None:
        raise InvalidInputError(
            "The column declares no dimensions: pass a pgvector.SparseVector, which has its own."
        )
    parts = []
    for at, number in pairs:
        position = as_whole(at)
        if position is None or not 0 <= position < dimensions:
            hint = ""
            if position is not None and position >= dimensions:
                hint = " Hashes and other large positions are brought in by fold_sparse."
            raise InvalidInputError(
                f"{name} has a position that is no whole number from 0 to {dimensions - 1:,}.{hint}"
            )
        single = _single(number, name)
        if single:
            parts.append((position, single))
    return sorted(parts), dimensions


def _single(number: object, name: str) -> float:
    """A component as float4 holds it."""
    if isinstance(number, (bool, np.bool_)) or not hasattr(number, "__float__"):
        raise InvalidInputError(
            f"{name} has a component of type {type(number).__name__}; pass numbers."
        )
    try:
        single: float | None = _FLOAT.unpack(_FLOAT.pack(number))[0]
    except (OverflowError, struct.error):
        single = math.inf
    except Exception as error:  # noqa: BLE001 - of the number's own class
        failed, single = type(error).__name__, None
    if single is None:
        raise InvalidInputError(
            f"{name} has a component of type {type(number).__name__} that is no number ({failed})."
        )
    if not math.isfinite(single):
        raise InvalidInputError(f"{name} has NaN or infinity (in float32) for a component.")
    return single
