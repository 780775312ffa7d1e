"""`qortex_embedding_cache`: what models made of texts, so that none is embedded twice."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import DateTime, Integer, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base
from qortex_db.sql import Text
from qortex_db.types import Embedding


class CachedEmbedding(Base):
    """One text's embedding by one model; the text itself is not stored.

    The hash comes first in the key: a range of the key is then a random sample of all models'
    rows, which is what eviction compares.
    """

    __tablename__ = "qortex_embedding_cache"

    text_hash: Mapped[bytes] = mapped_column(
        LargeBinary, primary_key=True, comment="SHA-256 of the text in UTF-8"
    )
    model: Mapped[str] = mapped_column(Text, primary_key=True, comment="The model's name")
    revision: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="The model's revision, '' where it has none"
    )
    dimensions: Mapped[int] = mapped_column(
        Integer,
        primary_key=True,
        autoincrement=False,
        comment="How many were asked for; 0: as many as the model gives",
    )
    embedding: Mapped[NDArray[np.float32]] = mapped_column(
        "vec", Embedding(), comment="float4 components, as the model gave them"
    )
    last_used: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=text("now()"),
        comment="When the row was stored or read, to the hour",
    )
