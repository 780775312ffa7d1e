"""What a vector of a collection is: its column, its metric, and the index that serves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias, cast, get_args

from sqlalchemy import Float
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import BIT

from qortex_db.checks import check_whole
from qortex_db.errors import InvalidInputError
from qortex_db.sql import of_pgvector
from qortex_db.types import (
    MAX_DIMENSIONS,
    MAX_INDEXED_NONZEROS,
    MAX_NONZEROS,
    MAX_SPARSE_DIMENSIONS,
    Embedding,
    HalfEmbedding,
    SparseEmbedding,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

Metric: TypeAlias = Literal["cosine", "l2", "inner_product", "l1"]
Storage: TypeAlias = Literal["full", "half", "sparse"]
Quantization: TypeAlias = Literal["half", "binary"]

DEFAULT_VECTOR: Final = "vec"
"""The name and the column of a collection's own vector."""
OPERATORS: Final[Mapping[str, str]] = {
    "cosine": "<=>",
    "l2": "<->",
    "inner_product": "<#>",
    "l1": "<+>",
}
_CLASSES: Final = {"cosine": "cosine", "l2": "l2", "inner_product": "ip", "l1": "l1"}
_KINDS: Final = {"full": "vector", "half": "halfvec", "sparse": "sparsevec"}
# What an index takes at most. Of bits it is 64,000, which no column reaches; of a sparse vector it
# is the components that are not zero.
MAX_INDEXED: Final = {"vector": 2_000, "halfvec": 4_000}


def _keep_whole(spec: object, name: str, low: int, high: int, called: str = "") -> None:
    """Check a frozen spec's number; one of numpy's is kept as an int, which revisions can say."""
    number = check_whole(getattr(spec, name), low, high, name=called or name)
    object.__setattr__(spec, name, number)


def _check_choice(value: object, choices: tuple[object, ...], name: str) -> None:
    if not isinstance(value, (str, type(None))) or value not in choices:
        raise InvalidInputError(f"{name} must be one of: {', '.join(map(str, choices))}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HNSW:
    """A graph: fast and precise, slow to build.

    Args:
        m: Neighbours of a row, 2 to 100.
        ef_construction: Candidates while building, 4 to 1,000, at least twice m.
        where: The rows that it holds, as SQL; searches of these only can use it.

    Raises:
        InvalidInputError: A number is out of its range, or `where` is no text.
    """

    method: ClassVar[str] = "hnsw"

    m: int = 16
    ef_construction: int = 64
    where: str | None = None

    def __post_init__(self) -> None:
        _keep_whole(self, "m", 2, 100)
        _keep_whole(self, "ef_construction", 4, 1_000)
        if self.ef_construction < 2 * self.m:
            raise InvalidInputError(
                f"ef_construction ({self.ef_construction}) must be at least twice m ({self.m})."
            )

    @property
    def options(self) -> dict[str, int]:
        """What stands in WITH."""
        return {"m": self.m, "ef_construction": self.ef_construction}


@dataclass(frozen=True, slots=True, kw_only=True)
class IVFFlat:
    """Lists around centres that are found in the rows there are: build it on a filled table.

    Args:
        lists: How many, 1 to 32,768; about rows / 1,000.
        where: The rows that it holds, as SQL; searches of these only can use it.

    Raises:
        InvalidInputError: A number is out of its range, or `where` is no text.
    """

    method: ClassVar[str] = "ivfflat"

    lists: int = 100
    where: str | None = None

    def __post_init__(self) -> None:
        _keep_whole(self, "lists", 1, 32_768)

    @property
    def options(self) -> dict[str, int]:
        """What stands in WITH."""
        return {"lists": self.lists}


IndexSpec: TypeAlias = HNSW | IVFFlat


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """A vector of a collection: what its column holds, how it is compared and indexed.

    Args:
        dimensions: Of the column; None leaves it open, and then there can be no index.
        metric: What searches order by.
        storage: Four bytes a component, two, or only those that are not zero.
        quantization: What the index holds in the place of the full vector, which is kept: two
            bytes a component, or its sign. Searches rescore what such an index finds.
        index: None for none: searches then read the whole table.
        column: Its name, in a table without VectorMixin.

    Raises:
        InvalidInputError: pgvector has no such column or no such index.
    """

    dimensions: int | None
    metric: Metric = "cosine"
    storage: Storage = "full"
    quantization: Quantization | None = None
    index: IndexSpec | None = field(default_factory=HNSW)
    column: str = field(default=DEFAULT_VECTOR, kw_only=True)

    def __post_init__(self) -> None:
        _check_choice(self.metric, get_args(Metric), "metric")
        _check_choice(self.storage, get_args(Storage), "storage")
        _check_choice(self.quantization, (None, *get_args(Quantization)), "quantization")
        if self.index is not None and not isinstance(self.index, HNSW | IVFFlat):
            raise InvalidInputError("index must be an HNSW(…), an IVFFlat(…) or None.")
        if self.dimensions is not None:
            high = MAX_SPARSE_DIMENSIONS if self.storage == "sparse" else MAX_DIMENSIONS
            _keep_whole(self, "dimensions", 1, high, f"dimensions of a {self.storage} vector")
        self._check_quantization()
        if self.index is not None:
            self._check_index(self.index)

    def _check_quantization(self) -> None:
        if self.quantization is None:
            return
        if self.storage in ("sparse", self.quantization):
            raise InvalidInputError(
                f"quantization {self.quantization!r} is of no use to {self.storage} storage; "
                "leave it out."
            )
        if self.index is None:
            raise InvalidInputError("quantization is of the index: declare one, or leave it out.")

    def _check_index(self, index: IndexSpec) -> None:
        kind, method = self.index_kind, index.method
        if method == "ivfflat" and kind == "sparsevec":
            raise InvalidInputError("pgvector has no ivfflat index on sparse vectors: use HNSW.")
        if method == "ivfflat" and self.metric == "l1" and kind != "bit":
            raise InvalidInputError("pgvector has no ivfflat index by l1 distance: use HNSW.")
        high = MAX_INDEXED.get(kind)
        if high is None or self.dimensions is None or self.dimensions <= high:
            return
        wider = (
            " Use quantization='half' (up to 4,000) or 'binary', or index=None."
            if kind == "vector"
            else " Use quantization='binary', or index=None."
        )
        raise InvalidInputError(
            f"An index on {kind} takes at most {high:,} dimensions, not {self.dimensions:,}.{wider}"
        )

    @property
    def operator(self) -> str:
        """The operator of the metric, between the column and a value."""
        return OPERATORS[self.metric]

    @property
    def index_kind(self) -> str:
        """The type that the index is on: vector, halfvec, sparsevec or bit."""
        if self.quantization == "binary":
            return "bit"
        return "halfvec" if self.quantization == "half" else _KINDS[self.storage]

    @property
    def is_half(self) -> bool:
        """Whether its column, or else its index, is of half precision."""
        return self.index_kind == "halfvec" or self.storage == "half"

    @property
    def operator_class(self) -> str:
        """What the index orders by."""
        kind = self.index_kind
        return "bit_hamming_ops" if kind == "bit" else f"{kind}_{_CLASSES[self.metric]}_ops"

    @property
    def type(self) -> TypeEngine[Any]:
        """The column's type, which is also that of a value compared with it."""
        if self.storage == "sparse":
            most = MAX_NONZEROS if self.index is None else MAX_INDEXED_NONZEROS
            return SparseEmbedding(self.dimensions, max_nonzeros=most)
        return (HalfEmbedding if self.storage == "half" else Embedding)(self.dimensions)

    def indexed(self, value: ColumnElement[Any]) -> ColumnElement[Any]:
        """What the index holds of the column, or of a parameter of its `type`."""
        if self.quantization == "half":
            return sql_cast(value, HalfEmbedding(self.dimensions))
        if self.quantization == "binary":
            return sql_cast(of_pgvector.binary_quantize(value), BIT(self.dimensions))
        return value

    def distance(
        self, column: ColumnElement[Any], value: ColumnElement[Any]
    ) -> ColumnElement[float]:
        """The exact distance, smaller is nearer; the index serves it if nothing is quantized."""
        return cast("ColumnElement[float]", column.op(self.operator, return_type=Float())(value))

    def index_distance(
        self, column: ColumnElement[Any], value: ColumnElement[Any]
    ) -> ColumnElement[float]:
        """The distance that the index orders by, between what it holds of the two.

        Args:
            column: The vector's.
            value: Of its `type`; a parameter is given that type by name, or the server would take
                it for the index's.
        """
        if self.quantization is None:
            return self.distance(column, value)
        operator = "<~>" if self.quantization == "binary" else self.operator
        other = self.indexed(sql_cast(value, self.type))
        order = self.indexed(column).op(operator, return_type=Float())
        return cast("ColumnElement[float]", order(other))
