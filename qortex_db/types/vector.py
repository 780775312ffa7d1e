"""`vector`: its column type, and the conversions between Python's vectors and pgvector's.

pgvector's wire form is a 16-bit count, 16 zero bits, then the components as big-endian float4.
Sending it in binary costs 1-2 µs a vector where text costs 80-180.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Float
from sqlalchemy.types import TypeEngine, UserDefinedType

from qortex_db.checks import check_whole
from qortex_db.errors import DimensionMismatchError, InvalidInputError
from qortex_db.messages import scrubbed

try:
    from pgvector import Vector as PgVector
except ImportError:  # before pgvector 0.4
    from pgvector.utils import Vector as PgVector  # type: ignore[no-redef, unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, Dialect

MAX_DIMENSIONS: Final = 16_000
"""What a pgvector column holds at most."""
MIN_SQUARE: Final = float(np.finfo(np.float32).tiny)
"""The least sum of squares of a vector that has a cosine, a norm of 1.1e-19: pgvector sums them in
float32, and below that digits, then all, are lost."""
MAX_SQUARE: Final = 3.39e38
"""The largest, a norm of 1.84e19: beyond it the sum is infinite, sooner or later by its order."""


class SupportsArray(Protocol):
    """What numpy reads: a tensor or an array of another library, in the CPU's memory."""

    def __array__(self) -> NDArray[Any]: ...


EmbeddingInput: TypeAlias = (
    Sequence[float]
    | NDArray[np.floating[Any]]
    | NDArray[np.integer[Any]]
    | SupportsArray
    | Mapping[str, Any]
)
"""One vector: a list, a tuple or a one-dimensional array of floats or integers; numpy's, or another
library's that has `__array__` or `__dlpack__`. While a table has those of two models, both by their
names."""

_HEADER = struct.Struct(">HH")
_BOOLS = {bool, np.bool_}
_SENT: Final = np.dtype(">f4")  # made once: that takes as long as reading a vector
_FLOAT32: Final = np.dtype(np.float32)
_AT_ONCE: Final = 64


def as_float32(value: object, *, name: str = "embedding") -> NDArray[np.float32]:
    """One vector as contiguous float32, shape checked but not its values.

    Args:
        value: A list, tuple or one-dimensional array of floats or integers; numpy's, or another
            library's, in the CPU's memory.
        name: What an error calls it.

    Raises:
        InvalidInputError: It is no vector of real numbers.
    """
    if type(value) is np.ndarray and value.dtype == np.float32 and value.ndim == 1 and value.size:
        return np.ascontiguousarray(value)
    if isinstance(value, (list, tuple)) and value:
        plain = from_lists([value], len(value))
        if plain is not None:
            return plain.ravel()
    array = as_numbers(value, name=name)
    if array.ndim != 1:
        raise InvalidInputError(
            f"{name} has {array.ndim} dimensions (shape {array.shape}); pass one vector."
        )
    if array.size == 0:
        raise InvalidInputError(f"{name} is empty.")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as such
        return np.ascontiguousarray(array, dtype=np.float32)


def as_numbers(value: object, *, name: str) -> NDArray[Any]:
    """Floats or integers of any shape and size.

    Raises:
        InvalidInputError: They are none; bools and texts aren't, nor what iterates only once.
    """
    if isinstance(value, (list, tuple)):
        _check_elements(value, name)
    elif isinstance(value, PgVector):
        value = value.to_numpy()
    else:
        _check_kind(value, name)
    array = _read(value, name)
    if array.size and array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise InvalidInputError(
            f"{name} has elements of type {array.dtype}; pass floats or integers."
        )
    return array


def _read(value: Any, name: str) -> NDArray[Any]:
    """What a list holds, or another library's array or tensor, by the protocol that it has."""
    try:
        if isinstance(value, (list, tuple)) or hasattr(value, "__array__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except Exception as error:
        says = f"{type(error).__name__}: {scrubbed(str(error))}"  # such as how to detach a gradient
        raise InvalidInputError(
            f"{name} is a {type(value).__name__} that can't be read as an array ({says})."
        ) from error


def from_lists(rows: Sequence[Sequence[float]], dimensions: int) -> NDArray[np.float32] | None:
    """Rows of numbers as one matrix; None where an element is a bool or no number.

    Packing is nearly twice as fast as numpy's conversion, and refuses text by itself. What is too
    large becomes infinite.
    """
    packer = struct.Struct(f"{dimensions}f")
    try:
        packed = b"".join([packer.pack(*row) for row in rows])
    except Exception:  # noqa: BLE001 - a number of another library's may raise anything
        return None
    matrix = np.frombuffer(packed, _FLOAT32).reshape(len(rows), dimensions)
    # True and False pack as 1 and 0, so rows with those are looked at again.
    doubtful = np.flatnonzero(((matrix == 0) | (matrix == 1)).any(axis=1))
    if any(_BOOLS & set(map(type, rows[int(i)])) for i in doubtful):
        return None
    return matrix


def _check_kind(value: object, name: str) -> None:
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError(f"{name} is a masked array; pass what its filled() gives.")
    if isinstance(value, (str, bytes, bytearray, type)) or not (
        hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    ):
        raise InvalidInputError(
            f"{name} is a {type(value).__name__}; pass a list, tuple or array of numbers."
        )


def _check_elements(value: Sequence[object], name: str) -> None:
    for kind in set(map(type, value)):
        if kind in _BOOLS or not hasattr(kind, "__float__"):
            raise InvalidInputError(
                f"{name} has elements of type {kind.__name__}; pass floats or integers."
            )


def has_direction(array: NDArray[np.float32]) -> bool:
    """Whether the server's cosine with it is a number: no zero vector, nor nearly, nor too long."""
    return bool(MIN_SQUARE <= np.vdot(array, array) <= MAX_SQUARE)


def check_values(array: NDArray[np.float32], *, name: str, allow_zero: bool = False) -> None:
    """Refuse what has no direction. After the cast: 1e300 and 1e-300 are fine only before it."""
    if has_direction(array):  # NaN has none: beyond doubt, by one pass
        return
    if not np.isfinite(array).all():
        position = int(np.flatnonzero(~np.isfinite(array))[0])
        kind = "NaN" if np.isnan(array[position]) else "infinity (in float32)"
        raise InvalidInputError(f"{name} has {kind} at position {position}.")
    if not allow_zero:
        check_square(float(np.vdot(wide := array.astype(np.float64), wide)), name=name)


def check_square(square: float, *, name: str, of: str = "float32") -> None:
    """Refuse a sum of squares of which the server has no cosine."""
    if square == 0:
        raise InvalidInputError(f"{name} is a zero vector (in {of}); it has no direction.")
    if not MIN_SQUARE <= square <= MAX_SQUARE:
        long = square > MAX_SQUARE
        raise InvalidInputError(
            f"{name} is too {'long' if long else 'short'} for a cosine: its norm is "
            f"{'above 1.84e19' if long else 'below 1.1e-19'}, and the server's sum of squares "
            f"{'overflows' if long else 'vanishes'}; scale it."
        )


def check_dimensions(array: NDArray[np.float32], expected: int | None, *, name: str) -> None:
    """Refuse a vector whose length is not the column's (None: the column takes any)."""
    if expected is not None and array.size != expected:
        raise DimensionMismatchError(
            f"{name} has {array.size} dimensions, the column holds {expected}.",
            expected=expected,
            actual=array.size,
        )


def declared(dimensions: int | None, most: int) -> int | None:
    """What a column of vectors may declare; one of numpy's is kept as an int."""
    return None if dimensions is None else check_whole(dimensions, 1, most, name="dimensions")


def check_setting(wanted: int | None, held: int | None) -> None:
    """Refuse `QORTEX_VEC_DIMENSIONS` where it is set and is not what the column holds."""
    if wanted is not None and held is not None and wanted != held:
        raise DimensionMismatchError(
            f"QORTEX_VEC_DIMENSIONS is {wanted}, but qortex_vectors holds {held} dimensions, "
            "chosen at the first upgrade. Unset it, or use another database.",
            expected=held,
            actual=wanted,
        )


def encode(array: NDArray[np.float32]) -> bytes:
    """One checked vector in pgvector's binary form."""
    return _HEADER.pack(array.size, 0) + array.astype(">f4").tobytes()


def encode_many(matrix: NDArray[np.float32]) -> list[bytes]:
    """The rows of a checked matrix in pgvector's binary form, by one pass over all of them."""
    count, dimensions = matrix.shape
    size = 4 + 4 * dimensions
    rows = np.empty((count, size), dtype=np.uint8)
    rows[:, :4] = np.frombuffer(_HEADER.pack(dimensions, 0), dtype=np.uint8)
    rows[:, 4:] = matrix.astype(">f4").view(np.uint8)
    data = rows.tobytes()
    return [data[start : start + size] for start in range(0, len(data), size)]


def encode_any(value: object) -> bytes:
    """The driver codec's encoder: tolerant, since a host's own columns send text through it."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        value = [float(part) for part in value.strip("[] ").split(",")]
    return encode(as_float32(value))


# pgvector's SQLAlchemy type expects what its own version decodes to: an array before 0.5, its
# Vector since. Ours takes either.
decode: Final[Any] = getattr(PgVector, "_from_db_binary", getattr(PgVector, "from_binary", None))


def to_numpy(value: object) -> NDArray[np.float32] | None:
    """What the codec, or a connection without it, decoded, as float32."""
    if value is None:
        return None
    if isinstance(value, str):
        return np.array(value.strip("[]").split(","), dtype=np.float32)
    if isinstance(value, PgVector):
        return np.array(value.to_numpy(), dtype=np.float32)
    return np.asarray(value, dtype=np.float32)


class DistanceComparator(TypeEngine.Comparator[Any]):
    """Distances, smaller is nearer, as pgvector's operators give them."""

    def _distance(self, operator: str, other: object) -> ColumnElement[float]:
        return cast("ColumnElement[float]", self.op(operator, return_type=Float())(other))

    def cosine_distance(self, other: object) -> ColumnElement[float]:
        """1 - cosine similarity, 0 to 2; NaN where either is zero."""
        return self._distance("<=>", other)

    def l2_distance(self, other: object) -> ColumnElement[float]:
        """Euclidean distance."""
        return self._distance("<->", other)

    def max_inner_product(self, other: object) -> ColumnElement[float]:
        """The negative inner product."""
        return self._distance("<#>", other)

    def l1_distance(self, other: object) -> ColumnElement[float]:
        """Taxicab distance."""
        return self._distance("<+>", other)


class Embedding(UserDefinedType[Any]):
    """A pgvector `vector` column: numbers in, numpy float32 out, binary on asyncpg.

    Args:
        dimensions: What the column declares; None leaves it to the migration.

    Raises:
        InvalidInputError: pgvector has no such column.
    """

    cache_ok = True
    __module__ = "qortex_db.types"  # what migrations name it by

    def __init__(self, dimensions: int | None = None) -> None:
        self.dimensions = declared(dimensions, MAX_DIMENSIONS)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dimensions or ''})"

    def get_col_spec(self, **_: object) -> str:
        return "vector" if self.dimensions is None else f"vector({self.dimensions})"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        def process(value: object) -> object:
            if value is None or isinstance(value, bytes):
                return value
            array = as_float32(value)
            check_dimensions(array, self.dimensions, name="embedding")
            check_values(array, name="embedding", allow_zero=True)
            return encode(array) if dialect.driver == "asyncpg" else to_text(array)

        return process

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        return lambda value: f"'{to_text(as_float32(value))}'"

    def result_processor(
        self,
        dialect: Dialect,  # noqa: ARG002
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], NDArray[np.float32] | None]:
        return to_numpy

    comparator_factory = DistanceComparator


class EncodedEmbeddings(UserDefinedType[Any]):
    """A parameter of type `vector[]` whose elements are encoded already."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "vector[]"


class SentEmbedding(UserDefinedType[Any]):
    """What `vector_send()` gives: the binary form as bytea, which the driver reads in C.

    A column's own values come through the connection's codec, which has to satisfy pgvector's
    SQLAlchemy type too and costs five times as much.
    """

    cache_ok = True

    def result_processor(
        self,
        dialect: Dialect,  # noqa: ARG002
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], NDArray[np.float32] | None]:
        return from_binary


class EmbeddingBytes(UserDefinedType[Any]):
    """The same, left as it is for whoever reads many at once."""

    cache_ok = True


def from_binary(data: bytes | None) -> NDArray[np.float32] | None:
    """Pgvector's binary form as float32."""
    return None if data is None else np.frombuffer(data, _SENT, -1, 4).astype(_FLOAT32)


def matrix_from_binary(sent: Sequence[bytes]) -> NDArray[np.float32]:
    """Vectors of one length in pgvector's binary form as the rows of one matrix."""
    columns = len(sent[0]) // 4 - 1
    matrix = np.empty((len(sent), columns), _FLOAT32)
    for start in range(0, len(sent), _AT_ONCE):  # what fits into a processor's cache
        some = sent[start : start + _AT_ONCE]
        joined = np.frombuffer(b"".join(some), _SENT).reshape(len(some), columns + 1)
        matrix[start : start + _AT_ONCE] = joined[:, 1:]
    return matrix


def to_text(array: NDArray[np.float32]) -> str:
    return "[" + ",".join(map(str, array.tolist())) + "]"
