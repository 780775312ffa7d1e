"""`qortex_db_idempotency_keys`: what was done under a key is not done again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, Index, LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base


class IdempotencyKey(Base):
    """A key under which something was done, as long as it is kept."""

    __tablename__ = "qortex_db_idempotency_keys"
    __table_args__ = (Index("ix_qortex_db_idempotency_keys_made_at", "made_at"),)

    key: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="What a caller named its call, or its unit of work"
    )
    digest: Mapped[bytes] = mapped_column(
        LargeBinary,
        comment="SHA-256 of the method and its arguments, so that a key is of one call",
    )
    made_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=text("now()"),
        comment="When the transaction that took the key began; older ones are pruned",
    )
