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


@dataclass(frozen=True, slots=True, eq=False)
class SearchGroup:
    """The hits that share a value."""

    value: Any
    hits: list[SearchHit]


class SearchGroups(Sequence[SearchGroup]):
    """The groups of one search, the one with the best hit first.

    Attributes:
        requested: The most groups that were asked for.
        complete: False only where groups or hits may be missing.
    """

    __slots__ = ("_groups", "complete", "requested")

    def __init__(self, groups: Iterable[SearchGroup], *, requested: int, complete: bool) -> None:
        self._groups = tuple(groups)
        self.requested = requested
        self.complete = complete

    @overload
    def __getitem__(self, index: int) -> SearchGroup: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SearchGroup]: ...
    def __getitem__(self, index: int | slice) -> SearchGroup | Sequence[SearchGroup]:
        return self._groups[index]

    def __len__(self) -> int:
        return len(self._groups)


@dataclass(frozen=True, slots=True)
class FacetCount:
    """A payload's value, and how many rows have it."""

    value: Any
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class ScrollPage:
    """A page of vectors.

    Attributes:
        next: What the next page begins after; None on the last one.
    """

    records: list[VectorRecord]
    next: str | None
