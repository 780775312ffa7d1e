"""What goes into a vectors repository and what comes out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Self,
    TypeAlias,
    get_args,
    overload,
)
from uuid import UUID

import numpy as np
from numpy.typing import NDArray  # noqa: TC002 - pydantic resolves annotations
from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute
from typing_extensions import TypeVar

from qortex_db import types
from qortex_db.checks import check_choice, check_number, check_text
from qortex_db.errors import InvalidInputError
from qortex_db.filters import read_path
from qortex_db.models.vector_spec import Metric
from qortex_db.observability import call_theirs
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.rows import frames
from qortex_db.repositories.vectors.rows.diversity import diversified
from qortex_db.repositories.vectors.rows.grouping import values_at
from qortex_db.types import EmbeddingInput  # noqa: TC001 - pydantic resolves annotations
from qortex_db.types.pydantic_types import EMBEDDING, MATRIX, WITH_VECTORS, sequence_schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    import pyarrow as pa
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from qortex_db.markers import Clear

IdT = TypeVar("IdT", default=str)
"""What ids are: the Python type of the key's column."""
JsonObject: TypeAlias = Annotated[Mapping[str, Any], WITH_VECTORS]
"""A mapping that may hold vectors."""


@dataclass(frozen=True, slots=True, eq=False)
class VectorRecord(Generic[IdT]):
    """A vector to store, or a stored one.

    `CLEAR` for an embedding, a document, a further vector or an attribute stores NULL.

    Attributes:
        id: Its key: of the type of the table's. Where that is text, 1 to 1,024 bytes, and an int or
            a UUID is taken as `str(id)`.
        embedding: As many numbers as the column holds; float32 when it was read. None is no vector:
            to store it leaves what is there, and a new row has none, so that no search by this
            vector finds it.
        payload: A JSON object. To store None leaves what is there (a new row gets `{}`).
        document: The text behind the embedding. To store None leaves what is there.
        vectors: The collection's further vectors, by name. To store, those that are not named
            stay, and None clears one.
        attributes: The host's own columns, by name. The same, and a new row gets their defaults.
    """

    id: IdT
    embedding: Annotated[EmbeddingInput | None, EMBEDDING] = None
    payload: JsonObject | None = None
    document: str | None = None
    vectors: JsonObject | None = None
    attributes: JsonObject | None = None

    # What is read is never CLEAR, so that only what is stored has it in its type.
    def __init__(  # noqa: PLR0917 - the fields
        self,
        id: IdT | int | UUID,  # noqa: A002 - the column's name
        embedding: EmbeddingInput | Clear | None = None,
        payload: Mapping[str, Any] | None = None,
        document: str | Clear | None = None,
        vectors: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        # By its slots: what a frozen dataclass does instead takes twice as long.
        set_id, set_embedding, set_payload, set_document, set_vectors, set_attributes = _SLOTS
        set_id(self, id)
        set_embedding(self, embedding)
        set_payload(self, payload)
        set_document(self, document)
        set_vectors(self, vectors)
        set_attributes(self, attributes)


_SLOTS: Final = tuple(VectorRecord.__dict__[field.name].__set__ for field in fields(VectorRecord))


class ReadAttributes(dict[str, Any]):
    """Of a row that was read: written back, what the server generates is left to it."""


IdInput: TypeAlias = str | int | UUID | tuple[str | int | UUID, ...]
"""An id that is given: where keys are texts, an int or a UUID is stored as `str(id)`; a tuple where
they are of several columns."""
PathInput: TypeAlias = str | ColumnElement[Any] | InstrumentedAttribute[Any]
"""A path into payloads, or a column of the host's own: by its name, or as `Model.price`."""
RecordInput: TypeAlias = VectorRecord[Any] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that `ingest` put aside.

    Attributes:
        row: Its number, counted from 0.
        id: Its key; None where it has none that is text.
        reason: Why; it quotes no value, unless a trigger of yours does in its own words.
    """

    row: int
    id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class BranchHit:
    """What one branch of a fused search says of a hit.

    Attributes:
        rank: From 1 on; equal scores have equal ranks.
        score: As that branch alone would score it: higher is better.
    """

    rank: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class SearchHit(Generic[IdT]):
    """A vector that a search found.

    Attributes:
        score: Higher is better: by cosine the similarity, -1 to 1.
        embedding: float32, only where it was asked for.
        attributes: The host's own columns; None where the collection has none.
        branches: Of `hybrid_search`: which branches found it, by name.
    """

    id: IdT
    score: float
    payload: JsonObject | None = None
    document: str | None = None
    embedding: Annotated[NDArray[np.float32] | None, EMBEDDING] = None
    attributes: JsonObject | None = None
    branches: Mapping[str, BranchHit] | None = None

    # As a frozen dataclass has it, in half the time: a search makes many.
    def __init__(  # noqa: PLR0917 - the fields
        self,
        id: IdT,  # noqa: A002 - the column's name
        score: float,
        payload: Mapping[str, Any] | None = None,
        document: str | None = None,
        embedding: NDArray[np.float32] | None = None,
        attributes: Mapping[str, Any] | None = None,
        branches: Mapping[str, BranchHit] | None = None,
    ) -> None:
        _set_id(self, id)
        _set_score(self, score)
        _set_payload(self, payload)
        _set_document(self, document)
        _set_embedding(self, embedding)
        _set_attributes(self, attributes)
        _set_branches(self, branches)


_set_id, _set_score, _set_payload, _set_document, _set_embedding, _set_attributes, _set_branches = (
    vars(SearchHit)[field.name].__set__ for field in fields(SearchHit)
)


Scorer: TypeAlias = Callable[[str, Sequence[SearchHit[Any]]], Any]
"""A model that scores hits: it gives, or is awaited to give, a number for each of them."""


def _checked_scores(given: object, count: int) -> list[float]:
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes, bytearray, memoryview)):
        given = list(given)
    scores = types.as_numbers(given, name="What the scorer gave").astype(np.float64)
    if scores.shape != (count,) or not np.isfinite(scores).all():
        raise InvalidInputError(f"The scorer has to give {count} finite numbers, one for each hit.")
    return scores.tolist()  # type: ignore[no-any-return]


ItemT = TypeVar("ItemT")


class _Answer(Sequence[ItemT]):
    """What a search found, in its order."""

    __slots__ = ("_items", "complete", "requested")
    _kind: ClassVar[type]

    def __init__(self, items: Iterable[ItemT], *, requested: int, complete: bool) -> None:
        self._items = tuple(items)
        self.requested = requested
        self.complete = complete

    @overload
    def __getitem__(self, index: int) -> ItemT: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ItemT]: ...
    def __getitem__(self, index: int | slice) -> ItemT | Sequence[ItemT]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return sequence_schema(handler.generate_schema(cls._kind), cls, cls._of)

    @classmethod
    def _of(cls, items: list[ItemT]) -> Self:
        return cls(items, requested=max(1, len(items)), complete=True)


class SearchHits(_Answer[SearchHit[IdT]]):
    """The hits of one search, best first.

    Attributes:
        requested: The limit that was asked for.
        complete: False only where fewer than the limit came back though more may match.
    """

    __slots__ = ()
    _kind = SearchHit

    def to_pandas(self) -> pd.DataFrame:
        """A data frame: id, score, document, then the keys of payloads, attributes, embeddings.

        Raises:
            InvalidInputError: pandas is not installed; the extra `frames` has it.
        """
        made: pd.DataFrame = frames.to_pandas(self)
        return made

    def to_arrow(self) -> pa.Table:
        """The same as a table of Arrow's, which polars and DuckDB take as it is.

        Raises:
            InvalidInputError: pyarrow is not installed, or values of one key are of several types.
        """
        made: pa.Table = frames.to_arrow(self)
        return made

    def _repr_html_(self) -> str:
        """As notebooks show it."""
        return frames.to_html(self)

    async def rerank(
        self, query: str, scorer: Scorer, *, limit: int | None = None
    ) -> SearchHits[IdT]:
        """The same hits in the order that another model gives them, by its scores.

        Args:
            query: Handed to the scorer.
            scorer: Called once with the query and the hits; gives a score for each, higher is
                better. What is no coroutine function runs in a thread, as models block the loop.
            limit: Keep so many.

        Raises:
            InvalidInputError: It gave something else.
        """
        count = len(self) if limit is None else validation.check_limit(limit, MAX_LIMIT)
        validation.check_callable(scorer, name="scorer")
        if inspect.iscoroutinefunction(scorer):
            given = await scorer(query, self)
        else:
            given = await call_theirs(scorer, query, self)
        scores = _checked_scores(given, len(self))
        order = sorted(range(len(self)), key=lambda i: -scores[i])[:count]
        hits = [replace(self._items[i], score=scores[i]) for i in order]
        return SearchHits(hits, requested=count, complete=self.complete)

    def diverse(
        self, *, limit: int = 10, lambda_: float = 0.5, metric: Metric = "cosine"
    ) -> SearchHits[IdT]:
        """Those that differ among themselves, by maximal marginal relevance.

        What is relevant is said by the scores, whatever they are made of; of which search they are
        does not matter, if it was told `with_embedding=True`.

        Args:
            limit: How many to choose.
            lambda_: 1.0 looks at scores alone, 0.0 at difference alone.
            metric: By which embeddings differ. A hit without one is chosen last.

        Returns:
            In the order in which they were chosen.

        Raises:
            InvalidInputError: No hit has an embedding.
        """
        count = validation.check_limit(limit, MAX_LIMIT)
        weight = check_number(lambda_, name="lambda_", low=0, high=1)
        check_choice(metric, get_args(Metric), name="metric")
        embeddings = [hit.embedding for hit in self]
        if self and not any(embedding is not None for embedding in embeddings):
            raise InvalidInputError("The hits have no embeddings: search with_embedding=True.")
        chosen = diversified([hit.score for hit in self], embeddings, count, weight, metric)
        full = len(chosen) == count or self.complete
        return SearchHits([self._items[i] for i in chosen], requested=count, complete=full)

    def grouped(self, group_by: str, *, limit: int = 10, group_size: int = 3) -> SearchGroups[IdT]:
        """The best few of each value of a payload's field, groups by their best hit.

        Args:
            group_by: A path into the payload, as of `search_groups`: rows without a value are left
                out, and an array's row is in the group of each of its elements.
            limit: The most groups, 1 to 1,000.
            group_size: The most hits of a group, 1 to 100.

        Returns:
            Not `complete` where groups or hits may be missing: search for more of them.

        Raises:
            InvalidInputError: The path, or a number, was refused.
        """
        count = validation.check_limit(limit, 1_000)
        size = validation.check_limit(group_size, 100, name="group_size")
        steps = read_path(check_text(group_by, name="group_by")).steps
        groups: dict[str, SearchGroup[IdT]] = {}
        for hit in self:
            for key, value in values_at(hit.payload, steps).items():
                groups.setdefault(key, SearchGroup(value, [])).hits.append(hit)
        best = [*groups.values()][:count]
        every = self.complete and len(self) < self.requested
        full = len(best) == count and all(len(group.hits) >= size for group in best)
        for group in best:
            del group.hits[size:]
        return SearchGroups(best, requested=count, complete=full or every)

    def __repr__(self) -> str:
        return (
            f"SearchHits({[(hit.id, round(hit.score, 4)) for hit in self._items]}, "
            f"requested={self.requested}, complete={self.complete})"
        )


@dataclass(frozen=True, slots=True, eq=False)
class SearchGroup(Generic[IdT]):
    """The hits that share a value."""

    value: Any
    hits: list[SearchHit[IdT]]


class SearchGroups(_Answer[SearchGroup[IdT]]):
    """The groups of one search, the one with the best hit first.

    Attributes:
        requested: The most groups that were asked for.
        complete: False only where groups or hits may be missing.
    """

    __slots__ = ()
    _kind = SearchGroup

    def __repr__(self) -> str:
        return (
            f"SearchGroups({[(group.value, len(group.hits)) for group in self._items]}, "
            f"requested={self.requested}, complete={self.complete})"
        )


@dataclass(frozen=True, slots=True)
class FacetCount:
    """A payload's value, and how many rows have it."""

    value: Any
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingBatch(Generic[IdT]):
    """Some vectors, without what belongs to them.

    Attributes:
        embeddings: float32, a row for each id.
    """

    ids: list[IdT]
    embeddings: Annotated[NDArray[np.float32], MATRIX]


@dataclass(frozen=True, slots=True, eq=False)
class ScrollPage(Generic[IdT]):
    """A page of vectors.

    Attributes:
        next: What the next page begins after; None on the last one.
    """

    records: list[VectorRecord[IdT]]
    next: str | None

    def to_pandas(self) -> pd.DataFrame:
        """As of :meth:`SearchHits.to_pandas`."""
        made: pd.DataFrame = frames.to_pandas(self.records)
        return made

    def to_arrow(self) -> pa.Table:
        """As of :meth:`SearchHits.to_arrow`."""
        made: pa.Table = frames.to_arrow(self.records)
        return made

    def _repr_html_(self) -> str:
        """As notebooks show it."""
        return frames.to_html(self.records)
