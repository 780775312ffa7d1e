"""`learning_arm_states`: a Beta posterior for each learner, context and arm."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Double, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base
from qortex_db.sql import Text


class LearningArmState(Base):
    """What a learner believes of one arm in one context."""

    __tablename__ = "learning_arm_states"
    __table_args__ = (
        Index("idx_learning_arm_states_context", "learner_name", "context_hash"),
        # To PostgreSQL, NaN is larger than infinity: neither of them passes.
        CheckConstraint("alpha > 0 AND alpha < 'infinity'", name="alpha_positive"),
        CheckConstraint("beta > 0 AND beta < 'infinity'", name="beta_positive"),
        CheckConstraint("pulls >= 0", name="pulls_counted"),
    )

    learner_name: Mapped[str] = mapped_column(Text, primary_key=True, comment="The bandit's name")
    context_hash: Mapped[str] = mapped_column(
        Text,
        primary_key=True,
        comment="'default', or 16 hex digits of the SHA-256 of the context's JSON",
    )
    arm_id: Mapped[str] = mapped_column(Text, primary_key=True, comment="The candidate's key")
    alpha: Mapped[float] = mapped_column(
        Double, server_default=text("1.0"), comment="Beta posterior: 1 + the rewards"
    )
    beta: Mapped[float] = mapped_column(
        Double, server_default=text("1.0"), comment="Beta posterior: 1 + what the rewards missed"
    )
    pulls: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), comment="How many rewards were observed"
    )
    total_reward: Mapped[float] = mapped_column(
        Double, server_default=text("0.0"), comment="The sum of the rewards, each 0 to 1"
    )
    last_updated: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), server_default=text("now()"), comment="When the state last changed"
    )
