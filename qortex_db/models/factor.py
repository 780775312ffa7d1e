"""`interoception_factors`: how much feedback weighs a node."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, Double, text
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base
from qortex_db.sql import Text


class InteroceptionFactor(Base):
    """A node's weight."""

    __tablename__ = "interoception_factors"

    node_id: Mapped[str] = mapped_column(Text, primary_key=True, comment="The node's key")
    weight: Mapped[float] = mapped_column(
        Double,
        server_default=text("1.0"),
        comment="Multiplier of a seed's share: 1.0 neutral; feedback keeps it within 0.1 to 5.0",
    )
    updated_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True),
        server_default=text("now()"),
        comment="When the weight last changed",
    )
