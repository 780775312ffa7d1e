"""`qortex_db_indexed_documents`: what an index of a framework last wrote, and of what source."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, Index
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base
from qortex_db.sql import Text


class IndexedDocument(Base):
    """A document that an index holds, and when it was last indexed."""

    __tablename__ = "qortex_db_indexed_documents"
    __table_args__ = (
        Index("ix_qortex_db_indexed_documents_namespace_group_id", "namespace", "group_id"),
        Index("ix_qortex_db_indexed_documents_namespace_updated_at", "namespace", "updated_at"),
    )

    namespace: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="Whose documents: the name of an index"
    )
    key: Mapped[str] = mapped_column(
        Text,
        primary_key=True,
        comment="What the framework calls the document: mostly a hash of what it says",
    )
    group_id: Mapped[str | None] = mapped_column(
        Text, comment="The source that it is of, such as a file"
    )
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), comment="When it was last indexed, by the clock of the server"
    )
