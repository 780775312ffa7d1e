"""`VectorMixin`: a collection as a model, on the package's Base or on a host's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime  # noqa: TC003 - SQLAlchemy resolves Mapped[...]
from typing import Any, ClassVar, Final

import numpy as np  # noqa: TC002 - the same
from numpy.typing import NDArray  # noqa: TC002 - the same
from sqlalchemy import Column, DateTime, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from qortex_db.errors import InvalidInputError
from qortex_db.filters.full_text import STORED_WORDS
from qortex_db.models.collection import Collection, declare, words_column
from qortex_db.models.partitions import create_with
from qortex_db.models.vector_spec import DEFAULT_VECTOR

_NOW = text("now()")
_PARTITION_BY: Final = "postgresql_partition_by"
"""SQLAlchemy's own word for it, as an option of a table."""


_MAPPED: Final[Any] = {
    "id": None,
    "payload": "payload",
    "document": "document",
    "updated_at": None,
}


class VectorMixin:
    """The columns and indexes of a collection, as of `qortex_vectors`.

    A model says what it is in `__collection__ = Collection(VectorSpec(384))`; columns of its own
    stand beside these.
    """

    __collection__: ClassVar[Collection]

    @declared_attr
    def id(cls: Any) -> Mapped[str]:  # noqa: N805 - a class
        return mapped_column(
            Text, primary_key=True, sort_order=-3, comment="1 to 1,024 bytes of UTF-8"
        )

    @declared_attr
    def embedding(cls: Any) -> Mapped[NDArray[np.float32] | None]:  # noqa: N805
        collection = getattr(cls, "__collection__", None)
        if not isinstance(collection, Collection):
            raise InvalidInputError(
                f"{cls.__name__} says nothing of its vectors: give it "
                "__collection__ = Collection(VectorSpec(dimensions))."
            )
        return mapped_column(DEFAULT_VECTOR, collection.vector.type, sort_order=-2)

    @declared_attr
    def payload(cls: Any) -> Mapped[dict[str, Any]]:  # noqa: N805
        return mapped_column(
            JSONB,
            server_default=text("'{}'::jsonb"),
            sort_order=-1,
            comment="A JSON object to filter by",
        )

    @declared_attr
    def document(cls: Any) -> Mapped[str | None]:  # noqa: N805
        return mapped_column(
            Text, sort_order=-1, comment="The text that the embedding was computed from"
        )

    @declared_attr
    def document_words(cls: Any) -> Mapped[str | None]:  # noqa: N805
        own = vars(cls).get("__annotations__", {})
        if STORED_WORDS in own:  # SQLAlchemy would take this one in its place
            raise InvalidInputError(
                f"{cls.__name__}.{STORED_WORDS} needs a value: write = mapped_column()."
            )
        text = getattr(getattr(cls, "__collection__", None), "text", None)
        if text is None:  # then SQLAlchemy maps nothing
            return None  # type: ignore[return-value]
        return words_column(text)

    @declared_attr
    def created_at(cls: Any) -> Mapped[datetime | None]:  # noqa: N805
        return mapped_column(
            DateTime(timezone=True),
            server_default=_NOW,
            sort_order=1,
            comment="When the row was inserted",
        )

    @declared_attr
    def updated_at(cls: Any) -> Mapped[datetime | None]:  # noqa: N805
        return mapped_column(
            DateTime(timezone=True),
            server_default=_NOW,
            sort_order=1,
            comment="When the row last changed; unchanged rows are left alone",
        )

    @classmethod
    def __table_cls__(cls, name: str, *arguments: Any, **options: Any) -> Table:
        collection = cls.__collection__
        if replace(collection, **_MAPPED) != collection or collection.vector.column != "vec":
            raise InvalidInputError(
                f"{cls.__name__} has VectorMixin, which brings its columns under their own names: "
                "leave id, payload, document, updated_at and column out, or the mixin."
            )
        own = {item.name: item for item in arguments if isinstance(item, Column)}
        space = collection.namespace
        added = []
        if space is not None and space not in own:
            added.append(
                Column(
                    space,
                    Text,
                    primary_key=collection.namespace_in_key,
                    nullable=False,
                    server_default=text("''"),
                    comment="Whose row it is",
                )
            )
        elif space is not None and own[space].primary_key is not collection.namespace_in_key:
            raise InvalidInputError(
                f"{cls.__name__}.{space} is a part of the key, or not, unlike namespace_in_key."
            )
        elif space is not None and own[space].nullable:
            raise InvalidInputError(
                f"{cls.__name__}.{space} may be NULL, and a row has to be somebody's: declare it "
                "without None."
            )
        metadata, *items = arguments
        partitions = collection.partitions
        if partitions is not None and _PARTITION_BY not in options:
            if partitions.method == "LIST" and not collection.namespace_in_key:
                raise InvalidInputError(
                    f"{cls.__name__} has partitions by lists of namespaces, which have to be in "
                    "the key: namespace=…, namespace_in_key=True; or say by which column, with "
                    f"{_PARTITION_BY} in __table_args__."
                )
            column = space if collection.namespace_in_key and space else "id"
            options[_PARTITION_BY] = partitions.key(column)
        table = Table(name, metadata, *added, *items, **options)
        declare(table, collection)
        if partitions is not None:
            create_with(table, partitions)
        return table
