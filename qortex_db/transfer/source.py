"""What an importer reads: what a source says of itself, its rows, and what it has to be able to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from qortex_db.filters import Kind
    from qortex_db.models.vector_spec import IndexSpec, Metric, Quantization, Storage

SourceId: TypeAlias = str | int | UUID
"""What a source calls a row."""
Position: TypeAlias = Any
"""Where a source goes on, as JSON; None for its beginning."""
IdKind: TypeAlias = Literal["text", "integer", "uuid"]

UNNAMED = ""
"""What the one vector is called of a source that does not name its vectors."""


@dataclass(frozen=True, slots=True)
class SparseComponents:
    """A sparse vector as sources have it: of any index that is not negative.

    Attributes:
        indices: Distinct, in no order.
        values: As many.
    """

    indices: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of a source, in its own words.

    Attributes:
        id: Its key.
        vectors: By their names; one that it lacks is left out, or None. A sequence of numbers, an
            array, or `SparseComponents`.
        payload: A JSON object; values that JSON has no word for as docs/vectors/values.md says.
        document: Where the source has a text beside the payload.
    """

    id: SourceId
    vectors: Mapping[str, Any] = field(default_factory=dict)
    payload: Mapping[str, Any] = field(default_factory=dict)
    document: str | None = None


@dataclass(frozen=True, slots=True)
class SourceReject:
    """A row that the source itself can't give.

    Attributes:
        where: Its id, or its line.
        reason: Why; it quotes no value.
    """

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, and where those after them begin.

    Attributes:
        position: Given back to `pages` to go on after these rows. None after the last page.
    """

    rows: Sequence[SourceRow]
    position: Position
    rejects: Sequence[SourceReject] = ()


@dataclass(frozen=True, slots=True)
class SourceVector:
    """One of the vectors that a source's rows have.

    Attributes:
        name: As the source has it, or `UNNAMED`.
        dimensions: Of a dense one; None of a sparse one.
        index: As the source has it; None for none.
    """

    name: str
    dimensions: int | None
    metric: Metric
    storage: Storage = "full"
    quantization: Quantization | None = None
    index: IndexSpec | None = None


@dataclass(frozen=True, slots=True)
class SourceIndex:
    """An index on a key of the payloads."""

    path: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """What a source says of itself, before a row is read.

    Attributes:
        rows: How many, exact; None where the source can't tell.
        vectors: The main one first, if one is.
        ids: What they are; None where that shows in the rows alone.
        left_out: What can't come over, and why: a sentence each.
        notes: What comes over otherwise than it was: a sentence each.
    """

    rows: int | None
    vectors: Sequence[SourceVector]
    ids: IdKind | None = None
    indexes: Sequence[SourceIndex] = ()
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()


def plain_id(given: SourceId) -> int | str:
    """An id as JSON has it, which a checkpoint keeps: 1 is another than "1"."""
    return given if isinstance(given, int) else str(given)


class Source(Protocol):
    """Something that has rows with vectors, opened; whoever opened it closes it."""

    @property
    def label(self) -> str:
        """What and where it is, in one line, without a password: checkpoints are named by it."""

    async def describe(self) -> SourceDescription:
        """What it says of itself; its rows are counted anew each time."""

    def pages(self, after: Position, size: int) -> AsyncIterator[Page]:
        """All rows from a position on, about `size` at a time, in bounded memory.

        The order has to be the same whenever it is read, and rows that are added meanwhile must not
        hide others.
        """

    async def get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        """These rows, as `pages` gives them, in any order; what is missing is left out."""

    async def nearest(self, vector: str, query: Any, limit: int) -> list[SourceId] | None:
        """The ids that its own search finds, nearest first; None where it has no search."""

    async def close(self) -> None:
        """Let go of what it holds."""
