"""A row of a vectors table as it is read: columns of a statement, and what is made of them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import cast, null, type_coerce

from qortex_db.models.collection import collection_of
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.repositories.statement_cache import MAX_TABLES
from qortex_db.repositories.vectors.rows.payload_parts import (
    Body,
    PayloadParts,
    columns_of,
    has_document,
    payload_parts,
)
from qortex_db.repositories.vectors.rows.records import ReadAttributes, SearchHit, VectorRecord
from qortex_db.sql import Text, as_jsonb, of_pgvector
from qortex_db.types import (
    Embedding,
    EmbeddingBytes,
    HalfEmbedding,
    JsonText,
    SentEmbedding,
    SparseEmbedding,
    from_binary,
    read_json,
)
from qortex_db.values.keys import key_of, key_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, FromClause, Table

OPTIONAL: Final = ("payload", "document")
"""What a table of vectors may lack."""


def sent_embedding(
    column: ColumnElement[Any],
    name: str = "vec",
    kind: type[SentEmbedding | EmbeddingBytes] = SentEmbedding,
) -> ColumnElement[Any]:
    """The embedding in binary, past the driver's codec; a sparse one as it is."""
    if isinstance(column.type, SparseEmbedding):
        return column.label(name)
    full = cast(column, Embedding()) if isinstance(column.type, HalfEmbedding) else column
    return of_pgvector.vector_send(full, type_=kind()).label(name)


class RowShape:
    """A table's rows as they are read: columns of a statement, and what is made of its rows.

    Attributes:
        vectors: The names of the further vectors.
        attributes: The names of the host's own columns.
        own: Their keys by these names.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        collection = collection_of(table)
        self._key = key_type(table)
        self.vectors = [name for name in collection.vectors if name != DEFAULT_VECTOR]
        self._keys = list(collection.attributes)
        self.attributes = [table.c[key].name for key in self._keys]
        self.own = dict(zip(self.attributes, self._keys, strict=True))
        vectors = {1: DEFAULT_VECTOR, **dict(enumerate(self.vectors, 4))}
        self._sent = [
            place
            for place, name in vectors.items()
            if not isinstance(table.c[name].type, SparseEmbedding)
        ]

    def columns(
        self, *, with_embedding: bool = True, body: Body = True
    ) -> list[ColumnElement[Any]]:
        """What `of_record` is made of."""
        beside = [key for _, key in columns_of(body) if key not in {"id", *self._keys}]
        names = [*(name for name in OPTIONAL if name in self.table.c), *self._keys, *beside]
        vectors = [DEFAULT_VECTOR, *self.vectors] if with_embedding else []
        return [key_of(self.table), *(self.table.c[name] for name in (*names, *vectors))]

    def of_record(
        self,
        rows: FromClause | None = None,
        *,
        with_embedding: bool = True,
        body: Body = True,
    ) -> list[ColumnElement[Any]]:
        """What `read` reads; without embeddings those are NULL.

        Args:
            rows: Of `columns`, by default the table's.
            body: What is read of payload and document; attributes with all of them alone.
        """
        rows = self.table if rows is None else rows

        def sent(vector: str, name: str) -> ColumnElement[Any]:
            if not with_embedding:
                return null().label(name)
            return sent_embedding(rows.c[vector], name, EmbeddingBytes)

        vec = sent(DEFAULT_VECTOR, "vec")
        further = [sent(name, f"vector_{i}") for i, name in enumerate(self.vectors)]
        own: list[ColumnElement[Any]] = [null().label(name) for name in OPTIONAL]
        if "payload" in rows.c and body:
            own[0] = cast(_payload(rows, body), Text).label("payload")
        if "document" in rows.c and has_document(body):
            own[1] = rows.c.document
        attributes = self._attributes(rows, body)
        return [key_of(rows), vec, *own, *further, *attributes]

    def read(
        self, rows: Sequence[Sequence[Any]], *, with_embedding: bool = True
    ) -> list[tuple[Any, ...]]:
        """Rows of `of_record`, column by column, as `record` takes them."""
        columns: list[Any] = list(zip(*rows, strict=True))
        if not columns:
            return []
        columns[2] = read_json(columns[2])
        if with_embedding:
            for place in self._sent:
                columns[place] = map(from_binary, columns[place])
        return list(zip(*columns, strict=True))

    def record(
        self, row: Sequence[Any], *, with_embedding: bool = True, body: Body = True
    ) -> VectorRecord[Any]:
        """A row that was read; what comes after is left alone."""
        if self._key.is_composite:
            row = [self._key.read(row[0]), *row[1:]]
        if not (self.vectors or self.attributes or columns_of(body)):
            return VectorRecord(*row[:4])
        end = 4 + len(self.vectors)
        vectors = None
        if with_embedding:
            vectors = dict(zip(self.vectors, row[4:end], strict=True))
        attributes = None
        if body is True:
            attributes = ReadAttributes(zip(self.attributes, row[end:], strict=False))
        key, embedding, payload, document = row[:4]
        payload = _with_columns(payload, body, row[end:])
        return VectorRecord(key, embedding, payload, document, vectors, attributes)

    def of_hit(
        self, vector: ColumnElement[Any], *, with_payload: Body, with_embedding: bool
    ) -> list[ColumnElement[Any]]:
        """What `hit` reads after id and score; attributes with all of payloads alone."""
        columns = self._optional(with_payload)
        attributes = self._attributes(self.table, with_payload)
        if with_embedding:
            columns.append(sent_embedding(vector))
        elif attributes:
            columns.append(null().label("vec"))
        return [*columns, *attributes]

    def hits(
        self, rows: Iterable[Sequence[Any]], start: float, floor: float, body: Body
    ) -> list[SearchHit[Any]]:
        """Rows of id, distance and `of_hit` as hits, but those that score less than a floor.

        Args:
            start: The score at no distance.
        """
        # A zero vector has no angle: its score is NaN, which is no hit.
        if self.attributes or self._key.is_composite or columns_of(body):
            return [
                self.hit(row, score, body) for row in rows if (score := start - row[1]) >= floor
            ]
        return [
            SearchHit(row[0], score, *row[2:]) for row in rows if (score := start - row[1]) >= floor
        ]

    def hit(self, row: Sequence[Any], score: float, body: Body) -> SearchHit[Any]:
        """A row of id, distance and `of_hit`, with its score."""
        if self._key.is_composite:
            row = [self._key.read(row[0]), *row[1:]]
        if len(row) <= 5:  # noqa: PLR2004 - without payloads, and so without attributes
            return SearchHit(row[0], score, *row[2:])
        payload, document, embedding = row[2:5]
        if body is not True:
            payload = _with_columns(payload, body, row[5:])
            return SearchHit(row[0], score, payload, document, embedding)
        attributes = dict(zip(self.attributes, row[5:], strict=True))
        return SearchHit(row[0], score, payload, document, embedding, attributes)

    def _optional(self, body: Body) -> list[ColumnElement[Any]]:
        """Payload and document, NULL where the table lacks one, or it is not asked for."""
        table = self.table
        payload: ColumnElement[Any] = null()
        if "payload" in table.c and body:
            payload = type_coerce(cast(_payload(table, body), Text), JsonText())
        has = "document" in table.c and has_document(body)
        document = table.c.document if has else null()
        return [payload.label("payload"), document.label("document")]

    def _attributes(self, rows: FromClause, body: Body) -> list[ColumnElement[Any]]:
        """All of the host's own columns, or those that are asked for."""
        keys = self._keys if body is True else [key for _, key in columns_of(body)]
        # By number: a host may call a column as a statement of ours calls something else.
        return [rows.c[key].label(f"attribute_{i}") for i, key in enumerate(keys)]


def _with_columns(payload: Any, body: Body, values: Sequence[Any]) -> Any:
    """A payload with the columns in it that values begin with."""
    names = [name for name, _ in columns_of(body)]
    return {**(payload or {}), **dict(zip(names, values, strict=False))} if names else payload


def _payload(rows: FromClause, body: Body) -> ColumnElement[Any]:
    payload: ColumnElement[Any] = rows.c.payload
    return payload_parts(as_jsonb(payload), body) if isinstance(body, PayloadParts) else payload


@functools.lru_cache(MAX_TABLES)
def row_shape(table: Table) -> RowShape:
    """The rows of a table, the same object at every call."""
    return RowShape(table)
