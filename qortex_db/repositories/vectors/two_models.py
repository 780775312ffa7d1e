"""What a call has for a table with the embeddings of two models, and which of them is whose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qortex_db.errors import EmbeddingModelError, InvalidInputError
from qortex_db.markers import CLEAR
from qortex_db.messages import shown
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.repositories.vectors.rows.record_columns import row_name
from qortex_db.repositories.vectors.rows.records import VectorRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from qortex_db.limits import Limits
    from qortex_db.models.changing import Changeover
    from qortex_db.repositories.vectors.rows.records import RecordInput
    from qortex_db.repositories.vectors.rows.texts import TextEmbedder, TextEmbedders


@dataclass(frozen=True, slots=True)
class Known:
    """An embedding of which it is known whose it is."""

    embedding: Any


@dataclass(frozen=True, slots=True)
class TwoModels:
    """A table's changeover, and what a collection has for it.

    Attributes:
        table: Its name.
        embedders: By the names in the changeover.
        labels: What all of them are called, those of other models too.
    """

    table: str
    changeover: Changeover
    embedders: Mapping[str, TextEmbedder]
    labels: str

    @classmethod
    def of(cls, table: str, changeover: Changeover, texts: TextEmbedders | None) -> TwoModels:
        """What a collection has that embeds by these."""
        if texts is None:
            return cls(table, changeover, {}, "")
        return cls(table, changeover, texts.during(changeover), texts.labels)

    @property
    def current(self) -> TextEmbedder | None:
        """What embeds for searches."""
        return self.embedders.get(self.changeover.current)

    def of_vector(self, vector: str) -> str:
        """What a vector is called in the changeover."""
        return self.changeover.current if vector == DEFAULT_VECTOR else vector

    def refusal(self, what: str) -> EmbeddingModelError:
        """The error for what is of a model that searches do not use."""
        current, model = self.changeover.current, self.changeover.model
        whose = f"{current} ({model})" if self.changeover.is_switched and model else current
        has = f" This collection embeds with {self.labels}." if self.labels else ""
        return EmbeddingModelError(
            f"{self.table} is searched by the embeddings of {whose}, and {what}.{has} Give the "
            f"collection that model: embedder={{{current!r}: …}}; or name the embedding, as "
            f"{{{current!r}: embedding}}, or by using={current!r}.",
            current=current,
        )

    def named(self, embedding: object, vector: str, *, is_chosen: bool) -> Any:
        """An embedding of one of the two: by its name, or one that names none where that is clear.

        Args:
            vector: Which it is for.
            is_chosen: Whether the caller said so.

        Raises:
            EmbeddingModelError: It may be of the other model.
        """
        if isinstance(embedding, Known):
            return embedding.embedding
        if isinstance(embedding, Mapping):
            name = self.of_vector(vector)
            if name not in embedding:
                raise self.refusal("none was given of these")
            return embedding[name]
        if isinstance(embedding, str):  # which is no embedding, and refused as that
            return embedding
        may_be = self.changeover.is_switched and not self.changeover.has_ended
        if may_be and not is_chosen and vector == DEFAULT_VECTOR:
            raise self.refusal("an embedding that names no model may be of another")
        return embedding

    async def records(
        self, records: Sequence[RecordInput], limits: Limits, first_row: int
    ) -> list[RecordInput]:
        """Records with the embeddings of both models, as far as they or the embedders give them.

        Raises:
            InvalidInputError: It names a model that is not there.
            EmbeddingModelError: A record has the embedding of the other model alone.
        """
        made = [self._told(record, row) for row, record in enumerate(records, first_row)]
        changeover = self.changeover
        current, other = self.current, self.embedders.get(changeover.other)
        if current is not None:
            made = await current.records(made, limits, first_row)
        elif self.embedders or self.labels:
            for row, record in enumerate(made, first_row):
                if _field(record, "embedding") is None and isinstance(
                    _field(record, "document"), str
                ):
                    raise self.refusal(
                        f"nothing here embeds the document of {_name(record, row)} by it"
                    )
        if changeover.has_ended:
            return made
        if other is not None:
            asked = [
                VectorRecord("", CLEAR) if self._has_other(record) else _document_of(record)
                for record in made
            ]
            others = await other.records(asked, limits, first_row)
            made = [
                self._with_other(record, _field(found, "embedding"))
                for record, found in zip(made, others, strict=True)
            ]
        return [self._cleared(record) for record in made]

    def _told(self, record: RecordInput, row: int) -> RecordInput:
        """A record whose embedding is that of the current model, or none."""
        changeover = self.changeover
        given, vectors = _field(record, "embedding"), _vectors(record)
        named = dict(vectors)
        if isinstance(given, Mapping):
            names = {changeover.old_name, changeover.new_name}
            if unknown := [name for name in given if name not in names]:
                raise InvalidInputError(
                    f"embedding of {_name(record, row)} names {shown(unknown[0])}; {self.table} "
                    f"has {changeover.old_name} and {changeover.new_name}."
                )
            named |= given
            given = None
        elif (
            given is not None
            and given is not CLEAR
            and changeover.is_switched
            and not changeover.has_ended
            and changeover.current not in named
            and changeover.other not in named
        ):
            raise self.refusal(f"the embedding of {_name(record, row)} names no model")
        current = named.pop(changeover.current, None)
        if changeover.has_ended:
            named.pop(changeover.other, None)
        if current is None and given is None and named.get(changeover.other) is not None:
            document = _field(record, "document")
            if changeover.is_switched and not (self.current and isinstance(document, str)):
                raise self.refusal(f"{_name(record, row)} has none of these")
        if current is None and named == vectors and given is _field(record, "embedding"):
            return record
        return _with(record, given if current is None else current, named or None)

    def _has_other(self, record: RecordInput) -> bool:
        return self.changeover.other in _vectors(record)

    def _with_other(self, record: RecordInput, embedding: Any) -> RecordInput:
        if embedding is None or self._has_other(record):
            return record
        named = {**_vectors(record), self.changeover.other: embedding}
        return _with(record, _field(record, "embedding"), named)

    def _cleared(self, record: RecordInput) -> RecordInput:
        """A record that clears the embedding of one model clears the other's too."""
        if _field(record, "embedding") is not CLEAR or self._has_other(record):
            return record
        named = {**_vectors(record), self.changeover.other: None}
        return _with(record, CLEAR, named)


def _field(record: object, name: str) -> Any:
    """What a record says; what is none is refused with its batch."""
    if isinstance(record, VectorRecord):
        return getattr(record, name)
    return record.get(name) if isinstance(record, Mapping) else None


def _vectors(record: object) -> Mapping[str, Any]:
    found = _field(record, "vectors")
    return found if isinstance(found, Mapping) else {}


def _document_of(record: object) -> VectorRecord[Any]:
    return VectorRecord(str(_field(record, "id")), document=_field(record, "document"))


def _name(record: object, row: int) -> str:
    return row_name(row, str(_field(record, "id")))


def _with(record: RecordInput, embedding: Any, vectors: Mapping[str, Any] | None) -> RecordInput:
    if isinstance(record, VectorRecord):
        return replace(record, embedding=embedding, vectors=vectors)
    if not isinstance(record, Mapping):
        return record
    return {**record, "embedding": embedding, "vectors": vectors}


def as_embeddings(made: Sequence[NDArray[np.float32]]) -> list[Any]:
    """What a model made, of which it is known whose it is."""
    return [Known(one) for one in made]
