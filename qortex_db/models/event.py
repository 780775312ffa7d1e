"""The learners' history: `learning_events`, and `learning_contexts` for people to read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Double, Identity, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base
from qortex_db.sql import Text


class LearningEvent(Base):
    """What was done to one arm, and the state that it led to; or that the arm was selected.

    Append-only, and written where the history is on. Each event carries the state after it, so that
    a history may begin, pause and be cut at any time. There is no foreign key: an arm may be
    deleted, and its history stays.
    """

    __tablename__ = "learning_events"

    learner_name: Mapped[str] = mapped_column(Text, primary_key=True, comment="The bandit's name")
    context_hash: Mapped[str] = mapped_column(
        Text,
        primary_key=True,
        comment="The arm's context; learning_contexts says what it stands for",
    )
    arm_id: Mapped[str] = mapped_column(Text, primary_key=True, comment="The candidate's key")
    id: Mapped[int] = mapped_column(
        BigInteger,
        Identity(always=True),
        primary_key=True,
        comment="The order of one arm's events, which is that of its changes",
    )
    kind: Mapped[str] = mapped_column(
        Text,
        comment="observe, deltas, decay, put, seed, reset, delete; or select, which changes none",
    )
    alpha_added: Mapped[float | None] = mapped_column(
        Double, comment="observe, deltas: what was added to alpha, before its floor"
    )
    beta_added: Mapped[float | None] = mapped_column(
        Double, comment="observe, deltas: what was added to beta, before its floor"
    )
    pulls_added: Mapped[int | None] = mapped_column(
        Integer, comment="observe, deltas: how many pulls were counted"
    )
    multiplied_by: Mapped[float | None] = mapped_column(
        Double, comment="decay: what alpha, beta and total_reward were multiplied by"
    )
    probability: Mapped[float | None] = mapped_column(
        Double, comment="select: how likely the arm was to be chosen, above 0 to 1"
    )
    alpha: Mapped[float | None] = mapped_column(
        Double, comment="After the change; NULL after delete and for select"
    )
    beta: Mapped[float | None] = mapped_column(
        Double, comment="After the change; NULL after delete and for select"
    )
    pulls: Mapped[int | None] = mapped_column(
        Integer, comment="After the change; NULL after delete and for select"
    )
    total_reward: Mapped[float | None] = mapped_column(
        Double, comment="After the change; NULL after delete and for select"
    )
    last_updated: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="The state's own time after the change"
    )
    recorded_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=text("now()"),
        comment="When the transaction of the change began",
    )


class LearningContext(Base):
    """What a context's hash stands for, as first seen with the history on."""

    __tablename__ = "learning_contexts"

    context_hash: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="16 hex digits of the SHA-256 of the context's JSON"
    )
    context: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="What the hash stands for")
    recorded_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=text("now()"),
        comment="When it was first seen with the history on",
    )
