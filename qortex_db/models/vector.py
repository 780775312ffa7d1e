"""`qortex_vectors`: a row is an id, its embedding, payload and document."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    DateTime,
    Index,
    TypeDecorator,
    event,
    inspect,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.filters import payload_index
from qortex_db.filters.full_text import ARE_WORDS, words
from qortex_db.models.base import Base
from qortex_db.sql import Text
from qortex_db.types import Embedding

if TYPE_CHECKING:
    from sqlalchemy import BindParameter
    from sqlalchemy.engine.default import DefaultExecutionContext

LANGUAGE: Final = "english"
"""The text search configuration of the documents."""


class _Words(TypeDecorator[str]):
    """A tsvector that is written as the text that it is made of."""

    impl = TSVECTOR
    cache_ok = True

    def bind_expression(self, bindparam: BindParameter[str]) -> ColumnElement[Any]:
        return words(type_coerce(bindparam, Text()), LANGUAGE)


def _document(context: DefaultExecutionContext) -> str | None:
    parameters = context.get_current_parameters()  # type: ignore[no-untyped-call]
    document: str | None = parameters.get("document")
    return document


class QortexVector(Base):
    """A vector of the default collection.

    The column declares no dimension: the database's own, chosen at its first upgrade, counts.
    """

    __tablename__ = "qortex_vectors"
    __table_args__ = (
        Index(
            "ix_qortex_vectors_vec",
            "vec",
            postgresql_using="hnsw",
            postgresql_ops={"vec": "vector_cosine_ops"},
        ),
    )

    id: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="The caller's key, 1 to 1,024 bytes of UTF-8"
    )
    embedding: Mapped[NDArray[np.float32] | None] = mapped_column(
        "vec", Embedding(), comment="float4 components; as many as chosen at the first upgrade"
    )
    payload: Mapped[dict[str, Any]] = mapped_column(
        JSONB, server_default=text("'{}'::jsonb"), comment="A JSON object to filter by"
    )
    document: Mapped[str | None] = mapped_column(
        Text, comment="The text that the embedding was computed from"
    )
    document_words: Mapped[str | None] = mapped_column(
        _Words,
        default=_document,
        info={ARE_WORDS: True},
        comment="The words of the document, to rank it by; kept by what qortex-db writes",
    )
    created_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), server_default=text("now()"), comment="When the row was inserted"
    )
    updated_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True),
        server_default=text("now()"),
        comment="When the row last changed; unchanged rows are left alone",
    )


@event.listens_for(QortexVector, "before_insert", propagate=True)
@event.listens_for(QortexVector, "before_update", propagate=True)
def _keep_words(_: object, __: object, row: QortexVector) -> None:
    """Write the words of the document: those that were loaded would be read as a text."""
    state = inspect(row)
    written = (state.attrs.document, state.attrs.document_words)
    if not state.has_identity or any(one.history.has_changes() for one in written):
        document: Any = row.document  # which may be SQL
        is_sql = isinstance(document, ColumnElement)
        row.document_words = words(document, LANGUAGE) if is_sql else document


_TABLE: Any = QortexVector.__table__
payload_index(_TABLE, "", "containment", name="ix_qortex_vectors_payload")
payload_index(_TABLE, "", "document", language=LANGUAGE, name="ix_qortex_vectors_words")
