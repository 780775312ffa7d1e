"""What goes into a vectors repository and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LIMIT: Final = 10_000
"""The most hits of one search."""

EmbeddingInput: TypeAlias = Sequence[float] | NDArray[np.floating[Any]] | NDArray[np.integer[Any]]
"""One vector: a list, a tuple or a one-dimensional numpy array of floats or integers."""


@dataclass(frozen=True, slots=True, eq=False)
class VectorRecord:
    """A vector to store, or a stored one.

    Attributes:
        id: Its key, 1 to 1,024 bytes.
        embedding: As many numbers as the column holds; float32 when it was read.
        payload: A JSON object. To store None leaves what is there (a new row gets `{}`).
        document: The text behind the embedding. To store None leaves what is there.
    """

    id: str
    embedding: EmbeddingInput
    payload: Mapping[str, Any] | None = None
    document: str | None = None


RecordInput: TypeAlias = VectorRecord | Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class SearchHit:
    """A vector that a search found.

    Attributes:
        score: Higher is better: the cosine similarity, -1 to 1.
        embedding: float32, only where it was asked for.
    """

    id: str
    score: float
    payload: Mapping[str, Any] | None = None
    document: str | None = None
    embedding: NDArray[np.float32] | None = None


class SearchHits(Sequence[SearchHit]):
    """The hits of one search, best first.

    Attributes:
        requested: The limit that was asked for.
        complete: False only where fewer than the limit came back though more may match.
    """

    __slots__ = ("_hits", "complete", "requested")

    def __init__(self, hits: Iterable[SearchHit], *, requested: int, complete: bool) -> None:
        self._hits = tuple(hits)
        self.requested = requested
        self.complete = complete

    @overload
    def __getitem__(self, index: int) -> SearchHit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SearchHit]: ...
    def __getitem__(self, index: int | slice) -> SearchHit | Sequence[SearchHit]:
        return self._hits[index]

    def __len__(self) -> int:
        return len(self._hits)

    def __repr__(self) -> str:
        return (
            f"SearchHits({[(hit.id, round(hit.score, 4)) for hit in self._hits]}, "
            f"requested={self.requested}, complete={self.complete})"
        )
