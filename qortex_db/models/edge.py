"""`interoception_edge_buffer`: pairs seen together, until they are promoted."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base
from qortex_db.sql import Text


class InteroceptionEdge(Base):
    """An undirected pair: its key is the sorted pair of ids."""

    __tablename__ = "interoception_edge_buffer"

    src_id: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="The smaller id of the pair, by code point"
    )
    tgt_id: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="The larger id of the pair, by code point"
    )
    hit_count: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), comment="How often the pair was observed"
    )
    scores: Mapped[list[float]] = mapped_column(
        JSONB, server_default=text("'[]'::jsonb"), comment="The newest 100 scores, oldest first"
    )
    last_seen: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True),
        server_default=text("now()"),
        comment="When the pair was last observed",
    )
