"""Texts in the place of embeddings: a collection's embedder makes them, through the cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from qortex_db.checks import text_fault
from qortex_db.errors import InvalidInputError, QortexDbError
from qortex_db.markers import CLEAR
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.observability import call_theirs
from qortex_db.repositories.vectors.rows.record_columns import RowNumber, row_name
from qortex_db.repositories.vectors.rows.records import VectorRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from qortex_db.embedders import Embedder
    from qortex_db.limits import Limits
    from qortex_db.models.changing import Changeover
    from qortex_db.repositories.vectors.rows.records import RecordInput

_MOST_NAMED: Final = 5
_NOTHING: Final = object()
_NOT_WRITTEN: Final = ("25006", "42501")
"""SQLSTATE of a transaction, and of a role, that may only read."""


class EmbeddingCache(Protocol):
    """Where embeddings are looked up, and kept."""

    async def embed(
        self, texts: Iterable[str], *, model: Any, name: str | None, revision: str
    ) -> NDArray[np.float32]:
        """An embedding of each text."""
        ...


@dataclass(frozen=True, slots=True)
class TextEmbedder:
    """An embedder, and the cache that it is asked through."""

    embedder: Embedder
    cache: EmbeddingCache

    async def queries(self, texts: Sequence[str]) -> list[Any]:
        """An embedding of each query, which may be no document's."""
        embedder = self.embedder
        name = f"{embedder.name} (queries)" if embedder.tells_queries else embedder.name

        computed: dict[str, Any] = {}

        async def model(missing: list[str]) -> Any:
            which = f"The embedder {name!r} failed on {len(missing)} queries."
            made = await _asked(embedder.queries, missing, which)
            if isinstance(made, Iterable) and not isinstance(made, (str, bytes, Mapping)):
                made = list(made)  # which may be read but once
                computed.update(zip(missing, made, strict=False))
            return made

        async def embed(some: Iterable[str]) -> NDArray[np.float32]:
            return await self.cache.embed(some, model=model, name=name, revision=embedder.revision)

        try:
            return list(await embed(texts))
        except QortexDbError as error:
            # A standby, or who may only read, can search, and keeps nothing.
            if error.sqlstate not in _NOT_WRITTEN or not computed:
                raise
        others = [text for text in texts if text not in computed]
        computed |= dict(zip(others, await embed(others), strict=True))
        return [computed[text] for text in texts]

    async def records(
        self,
        records: Sequence[RecordInput],
        limits: Limits,
        first_row: int = 0,
        vector: str = DEFAULT_VECTOR,
    ) -> list[RecordInput]:
        """Records with the embeddings of texts: of one in its place, or else of their documents.

        A document that is cleared takes its embedding with it.
        """
        made = list(records)
        wanted: list[tuple[int, str]] = []
        for place, record in enumerate(made):
            text = _text_for(record, vector)
            if text is CLEAR:
                made[place] = _with(record, CLEAR, vector)
            elif vector == DEFAULT_VECTOR and _field(record, "embedding") is None:
                made[place] = _with(record, None, vector)  # it may say so by leaving it out
            if isinstance(text, str) and _is_text(text, limits):  # else it is refused with its row
                wanted.append((place, text))
        if not wanted:
            return made
        embedder = self.embedder

        async def model(missing: list[str]) -> Any:
            texts = set(missing)
            rows = [place for place, text in wanted if text in texts]
            named = [_name(made[place], first_row + place) for place in rows[:_MOST_NAMED]]
            more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
            which = (
                f"The embedder {embedder.name!r} failed on documents of {', '.join(named)}{more}."
            )
            return await _asked(embedder.documents, missing, which)

        try:
            vectors = await self.cache.embed(
                [text for _, text in wanted],
                model=model,
                name=embedder.name,
                revision=embedder.revision,
            )
        except InvalidInputError as error:
            raise error.retold(f"The embedder {embedder.name!r}: {error}") from None
        for (place, _), embedding in zip(wanted, vectors, strict=True):
            made[place] = _with(made[place], embedding, vector)
        return made


@dataclass(frozen=True, slots=True)
class TextEmbedders:
    """What embeds texts, by the names of the vectors that it is for; "" of one that names none."""

    by_name: Mapping[str, TextEmbedder]

    @property
    def first(self) -> TextEmbedder:
        """The one of a table that has embeddings of one model alone."""
        return next(iter(self.by_name.values()))

    @property
    def labels(self) -> str:
        """What they are called, for messages."""
        return ", ".join(each.embedder.label for each in self.by_name.values())

    def during(self, changeover: Changeover) -> dict[str, TextEmbedder]:
        """Those that a table has embeddings of, by their names in its changeover."""
        found = dict(self.by_name)
        alone = found.pop("", None)
        if alone is not None:
            is_new = changeover.model == alone.embedder.label
            is_new = is_new or (changeover.has_ended and changeover.model is None)
            found[changeover.new_name if is_new else changeover.old_name] = alone
        new = found.get(changeover.new_name)
        if new is not None and changeover.model not in {None, new.embedder.label}:
            del found[changeover.new_name]  # another model's, though it is called the same
        return found


def _field(record: object, name: str) -> Any:
    """What a record says; what is none is refused with its batch."""
    if isinstance(record, VectorRecord):
        return getattr(record, name)
    return record.get(name) if isinstance(record, Mapping) else None


def _name(record: object, row: int) -> str:
    key = _field(record, "id")
    return row_name(row, RowNumber(row) if key is None else str(key))


def _is_text(document: str, limits: Limits) -> bool:
    return not text_fault(document) and len(document.encode()) <= limits.max_document_bytes


def _given(record: object, vector: str) -> Any:
    """What a record has for a vector; None where it says nothing, CLEAR where it clears it."""
    if vector == DEFAULT_VECTOR:
        return _field(record, "embedding")
    named = _field(record, "vectors")
    if named is None:
        return None
    # What is no mapping is refused with its batch.
    found = named.get(vector, _NOTHING) if isinstance(named, Mapping) else CLEAR
    return None if found is _NOTHING else CLEAR if found is None else found


def _text_for(record: object, vector: str) -> Any:
    """What a vector's embedding is made of, if it is not given; CLEAR where it goes."""
    given = _given(record, vector)
    if given is None:
        return _field(record, "document")
    return given if isinstance(given, str) else None


def _with(record: RecordInput, embedding: Any, vector: str) -> RecordInput:
    changed = {"embedding": embedding}
    if vector != DEFAULT_VECTOR:
        named = {**(_field(record, "vectors") or {}), vector: embedding}
        changed = {"vectors": named}
    if isinstance(record, VectorRecord):
        return replace(record, **changed)
    return {**record, **changed} if isinstance(record, Mapping) else record


async def _asked(model: Any, texts: list[str], which: str) -> list[Any]:
    """What a model makes, in a thread where it is not async."""
    try:
        made = await call_theirs(model, texts)
    except Exception as error:
        error.add_note(which)
        raise
    return made  # type: ignore[no-any-return]
