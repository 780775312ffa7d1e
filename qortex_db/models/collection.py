"""What a collection is: its vectors with their metrics and indexes, and its other columns' parts.

A statement asks `collection_of(table)`; Alembic and `create_all` see ordinary indexes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Computed, Index, Table, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import MappedColumn, mapped_column
from sqlalchemy.sql.elements import Grouping

from qortex_db.checks import check_flag, check_text
from qortex_db.embedders import Embedder
from qortex_db.errors import InvalidInputError
from qortex_db.filters import payload_index
from qortex_db.filters.expressions import Constant
from qortex_db.filters.fields import ENCRYPTED
from qortex_db.filters.full_text import (
    ARE_WORDS,
    STORED_WORDS,
    TEXT_CONFIGURATION,
    check_configuration,
    stored_words,
    words_sql,
)
from qortex_db.messages import shown
from qortex_db.models.partitions import Partitions
from qortex_db.models.vector_spec import DEFAULT_VECTOR, HNSW, IndexSpec, VectorSpec
from qortex_db.names import hashed, index_name, is_plain

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement, FromClause

COLLECTION: Final = "qortex_db_collection"
"""The key of a table's info where its model's collection is, and of a column's with its vector."""
MAX_TABLES: Final = 256
"""Of how many tables it is kept what they are: a program may make tables all the time."""
_OWN: Final = frozenset((DEFAULT_VECTOR, "id", "payload", "document", "created_at", "updated_at"))


@dataclass(frozen=True, slots=True)
class Collection:
    """A table of vectors: what a model says of itself in `__collection__`.

    Args:
        vector: The vector of each row, in the column `vec`. None where the table says no more.
        language: Of the full text in `document`, a text search configuration; None for no index.
        text: The same, with the words stored in a column of their own, `document_words`, which
            ranks many documents several times as fast; then `language` says nothing.
        payload_index: Whether one index serves filters on any key of the payload.
        namespace: The column that tells tenants apart; it is added unless the model has it.
        namespace_in_key: Whether an id may come again in another namespace.
        large_namespaces: Those that get indexes of their own, on their rows alone: their searches
            don't walk through everybody's.
        encrypted: The keys of payloads whose values are stored encrypted, by the Database's
            `encryption_keys`; no filter can name them.
        encrypted_document: Whether documents are. Then there is no full text, and `language` says
            nothing.
        embedder: Of the documents: what is written without an embedding gets the document's, and
            searches take texts. Of several vectors, each by its name.
        partitions: What the rows lie in, of a model with VectorMixin: `Partitions(4)` by hash.
        id: Of a model without VectorMixin, the column of the key; by default `id`, or the primary
            key. A tuple of several, whose ids are tuples.
        payload: The column of a JSON object; None for none. By default `payload`, if it is there.
        document: The column of the text behind the vector, likewise.
        updated_at: The column of the time of the last change, if there is one for us to write.
        vectors: By their names, the default one as "vec". Filled in by the model.
        attributes: The host's own columns. Filled in by the model.

    Raises:
        InvalidInputError: An argument was refused, or two contradict one another.
    """

    vector: VectorSpec
    _: KW_ONLY
    language: str | None = "simple"
    text: str | None = None
    payload_index: bool = True
    namespace: str | None = None
    namespace_in_key: bool = False
    large_namespaces: tuple[str | int, ...] = ()
    encrypted: tuple[str, ...] = ()
    encrypted_document: bool = False
    embedder: Embedder | Mapping[str, Embedder] | None = field(default=None, hash=False)
    partitions: Partitions | None = None
    id: str | tuple[str, ...] | None = None
    payload: str | None = "payload"
    document: str | None = "document"
    updated_at: str | None = None
    vectors: Mapping[str, VectorSpec] = field(default_factory=dict, hash=False)
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.vector, VectorSpec) or self.vector.storage == "sparse":
            raise InvalidInputError(
                "A collection's own vector is a VectorSpec with full or half storage; declare a "
                "sparse one beside it, by vector_column."
            )
        if self.language is not None:
            check_configuration(self.language, "language")
        if self.text is not None:
            check_configuration(self.text, "text")
        if self.namespace is not None:
            check_text(self.namespace, name="namespace")
        check_flag(self.payload_index, name="payload_index")
        check_flag(self.namespace_in_key, name="namespace_in_key")
        self._check_names()
        if self.namespace in _OWN:
            raise InvalidInputError(f"namespace can't be the column {self.namespace}.")
        if self.namespace_in_key and self.namespace is None:
            raise InvalidInputError("namespace_in_key needs namespace, the name of a column.")
        self._check_large()
        self._check_encrypted()
        embedders = self.embedder if isinstance(self.embedder, Mapping) else {"": self.embedder}
        if self.embedder is not None and not all(
            isinstance(one, Embedder) for one in embedders.values()
        ):
            raise InvalidInputError(
                "embedder has to be an Embedder(model, name=…), or one by the name of each vector."
            )
        if self.partitions is not None and not isinstance(self.partitions, Partitions):
            raise InvalidInputError("partitions has to be Partitions(…), as Partitions(4).")

    def _check_names(self) -> None:
        for name in ("payload", "document", "updated_at"):
            if getattr(self, name) is not None:
                check_text(getattr(self, name), name=name)
        parts = self.id if isinstance(self.id, tuple) else (self.id,)
        for part in () if self.id is None else parts:
            check_text(part, name="id")
        if isinstance(self.id, tuple) and len(set(self.id)) < max(2, len(self.id)):
            raise InvalidInputError("id has to be a column, or a tuple of several.")

    def _check_encrypted(self) -> None:
        check_flag(self.encrypted_document, name="encrypted_document")
        keys = self.encrypted
        if not (isinstance(keys, tuple) and all(isinstance(key, str) and key for key in keys)):
            raise InvalidInputError('encrypted has to be a tuple of keys, as ("pii",).')
        for key in keys:
            check_text(key, name="encrypted")
        if len(set(keys)) < len(keys):
            raise InvalidInputError("encrypted names a key twice.")
        if self.encrypted_document and self.text is not None:
            raise InvalidInputError(
                "text= is full text of the documents, which encrypted_document has unreadable: "
                "leave one out."
            )

    def _check_large(self) -> None:
        large = self.large_namespaces
        if not (isinstance(large, tuple) and all(type(name) in (str, int) for name in large)):
            raise InvalidInputError(
                "large_namespaces has to be a tuple of strings, or of integers."
            )
        if large and self.namespace is None:
            raise InvalidInputError("large_namespaces needs namespace, the name of a column.")
        if len(set(map(str, large))) < len(large):
            raise InvalidInputError("large_namespaces names one twice.")
        for name in large:
            check_text(str(name), name="large_namespaces")


def vector_column(spec: VectorSpec, name: str | None = None) -> MappedColumn[Any]:
    """A further vector of a collection, called by the name of its column.

    Args:
        spec: Its dimensions, metric, storage and index.
        name: Of the column, unless the attribute's.

    Raises:
        InvalidInputError: The spec is none, or the name is.
    """
    if not isinstance(spec, VectorSpec):
        raise InvalidInputError(f"spec is a {type(spec).__name__}; pass a VectorSpec.")
    info = {COLLECTION: spec}
    if name is not None:
        check_text(name, name="name")
    if name is None:
        return mapped_column(spec.type, info=info)
    return mapped_column(name, spec.type, info=info)


def words_column(configuration: str) -> MappedColumn[Any]:
    """The words of `document`, which the server keeps; left out of what entities load."""
    computed = Computed(words_sql("document", configuration), persisted=True)
    return mapped_column(
        STORED_WORDS,
        TSVECTOR,
        computed,
        deferred=True,
        info={ARE_WORDS: True},
        comment="The words of the document, to be searched",
    )


def vector_index(
    table: FromClause,
    vector: str = DEFAULT_VECTOR,
    *,
    index: IndexSpec | None = None,
    name: str | None = None,
) -> Index:
    """An index on a vector of a declared collection, beside the one that its model declares.

    Args:
        table: As `Note.__table__`.
        vector: Its name.
        index: By default as the model's. One with `where`, for a large tenant, keeps the searches
            of this tenant apart from everybody else's rows.
        name: Made of the table and the column unless given; give one to a second index.

    Raises:
        InvalidInputError: The table has no such vector, or an argument was refused.
    """
    if not isinstance(table, Table):
        raise InvalidInputError("table must be a Table, as Note.__table__ is.")
    if name is not None:
        check_text(name, name="name")
    spec = collection_of(table).vectors.get(check_text(vector, name="vector"))
    if spec is None:
        raise InvalidInputError(f"{table.name} has no vector {shown(vector)}.")
    shape = replace(spec, index=(spec.index or HNSW()) if index is None else index)
    return _declare_index(table, shape, name or index_name(f"ix_{table.name}_{spec.column}"))


def attribute_key(name: str) -> str:
    """The key of a host's own column in a mirror, where it may be called as ours are."""
    return f"own {name}" if name in _OWN or name == STORED_WORDS else name


def part_key(number: int) -> str:
    """The key, in a mirror, of one of several columns that a key has."""
    return f"id {number}"


def is_part(key: str) -> bool:
    """Whether it is such a key."""
    return key.startswith("id ")


def collection_of(table: Table) -> Collection:
    """What a table's model declared; of another table, what its columns say."""
    declared = table.info.get(COLLECTION)
    return declared if isinstance(declared, Collection) else _of_columns(table)


@functools.lru_cache(MAX_TABLES)
def _of_columns(table: Table) -> Collection:
    column = table.c.get(DEFAULT_VECTOR)
    spec = VectorSpec(getattr(getattr(column, "type", None), "dimensions", None))
    language = table.info.get(TEXT_CONFIGURATION, "simple")
    return resolved(table, Collection(spec, language=language))


def declare(table: Table, collection: Collection) -> None:
    """Give a table of a model its indexes, and keep what it is with it."""
    found = resolved(table, collection)
    table.info[COLLECTION] = found
    declare_encrypted(table, collection)
    for spec in found.vectors.values():
        if spec.index is not None:
            _declare_index(table, spec, index_name(f"ix_{table.name}_{spec.column}"))
            for large in collection.large_namespaces:
                _declare_large(table, spec, table.c[collection.namespace or ""], large)
    if collection.payload_index:
        payload_index(table, "", "containment")
    if collection.text is not None:
        if stored_words(table) is None:
            raise InvalidInputError(
                f"{table.name} has a column {STORED_WORDS} of its own, or no VectorMixin: text= "
                "can't add one. Call yours otherwise, or leave text= out."
            )
        table.info[TEXT_CONFIGURATION] = collection.text
        name = index_name(f"ix_{table.name}_{STORED_WORDS}")
        Index(name, table.c[STORED_WORDS], postgresql_using="gin")
    elif collection.language is not None and not collection.encrypted_document:
        payload_index(table, "", "document", language=collection.language)
    if collection.namespace is not None and not collection.namespace_in_key:
        name = index_name(f"ix_{table.name}_{collection.namespace}")
        Index(name, table.c[collection.namespace])


def declare_encrypted(table: Table, collection: Collection) -> None:
    """Say of a table what of it is encrypted, if anything is."""
    names: set[str | None] = set(collection.encrypted)
    if collection.encrypted_document:
        names.add(None)
    for wanted, column in ((collection.encrypted, "payload"), (None in names, "document")):
        if wanted and column not in table.c:
            raise InvalidInputError(f"{table.name} has no column {column} to encrypt.")
    if names:
        table.info[ENCRYPTED] = frozenset(names)


def resolved(table: Table, collection: Collection) -> Collection:
    """What a table is, with its further vectors and the host's own columns."""
    vectors = {DEFAULT_VECTOR: collection.vector}
    for column in table.columns:
        spec = column.info.get(COLLECTION)
        if isinstance(spec, VectorSpec) and column.key != DEFAULT_VECTOR:
            vectors[column.key] = replace(spec, column=column.key)
    own = _OWN | vectors.keys() | {collection.namespace}
    if stored_words(table) is not None:
        own |= {STORED_WORDS}
    return replace(
        collection,
        vectors=MappingProxyType(vectors),
        attributes=tuple(
            column.key
            for column in table.columns
            if column.key not in own and not is_part(column.key)
        ),
    )


def _declare_index(
    table: Table, spec: VectorSpec, name: str, *, where: ColumnElement[bool] | None = None
) -> Index:
    index = spec.index
    if index is None or spec.dimensions is None:
        raise InvalidInputError(
            f"{table.name}.{spec.column} declares no dimensions, which an index needs: say how "
            "many, or index=None."
        )
    column = table.c[spec.column]
    part: ColumnElement[Any] = column
    if where is None and index.where is not None:
        where = text(index.where.replace(":", r"\:"))  # type: ignore[assignment]
    if spec.quantization is not None:
        part = Grouping(spec.indexed(column)).label(spec.column)
    return Index(
        name,
        part,
        postgresql_using=index.method,
        postgresql_ops={spec.column: spec.operator_class},
        postgresql_with=index.options,
        postgresql_where=where,
    )


def _declare_large(table: Table, spec: VectorSpec, column: Column[Any], large: str | int) -> None:
    name = str(large)
    if not is_plain(name):  # nor any other that is like it
        name = hashed(name)
    called = index_name(f"ix_{table.name}_{spec.column}_{name}")
    _declare_index(table, spec, called, where=column == Constant(large))
