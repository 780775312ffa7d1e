"""`qortex_db_checkpoints`: how far long work is, so that it goes on where it was stopped."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base
from qortex_db.sql import Text


class Checkpoint(Base):
    """How far one piece of long work is; written in the transaction of each of its batches."""

    __tablename__ = "qortex_db_checkpoints"

    work: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="What is done, and with what: its source and its table"
    )
    position: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True), comment="Where it goes on; null before the first batch"
    )
    rows_read: Mapped[int] = mapped_column(
        BigInteger, server_default=text("0"), comment="How many rows it has read"
    )
    rows_written: Mapped[int] = mapped_column(
        BigInteger,
        server_default=text("0"),
        comment="How many of them it wrote; the others were as they are",
    )
    rows_rejected: Mapped[int] = mapped_column(
        BigInteger, server_default=text("0"), comment="How many of them were no good"
    )
    began_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()"), comment="When it last began anew"
    )
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=text("now()"),
        comment="When its last batch was committed",
    )
    finished_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="When it reached the end"
    )
