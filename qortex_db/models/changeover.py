"""`qortex_db_changeovers`: which tables change the model of their embeddings, and how far it is."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, text
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base
from qortex_db.sql import Text


class EmbeddingChangeover(Base):
    """A table that has embeddings of two models, or had them last."""

    __tablename__ = "qortex_db_changeovers"

    table_name: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="Schema and table, as SQL names them"
    )
    column_name: Mapped[str] = mapped_column(Text, comment="The column of the old embeddings")
    old_name: Mapped[str] = mapped_column(Text, comment="What those are called meanwhile")
    new_name: Mapped[str] = mapped_column(
        Text, comment="What the new embeddings are called, and their column"
    )
    metric: Mapped[str] = mapped_column(Text, comment="What the new ones are compared by")
    storage: Mapped[str] = mapped_column(Text, comment="Of the new ones: full or half")
    quantization: Mapped[str | None] = mapped_column(
        Text, comment="Of the new ones' index: half or binary"
    )
    is_switched: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="Whether searches use the new ones"
    )
    is_closing: Mapped[bool] = mapped_column(
        server_default=text("false"),
        comment="Whether writes without the new ones are refused, before the switch too",
    )
    model: Mapped[str | None] = mapped_column(
        Text, comment="The embedder that the new ones are of: its name, and @ its revision"
    )
    began_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()"), comment="When the column was added"
    )
    switched_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="When searches were last switched, there or back"
    )
    ended_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="When the old ones were dropped"
    )
