"""`qortex_db_word_frequencies`: how many documents of a table have a word, to rank by BM25."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Double
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db.models.base import Base
from qortex_db.sql import Text


class WordFrequency(Base):
    """A word of a table's documents; the one with the word '' is about all of them.

    Words of one document alone are left out, and so are as rare as those that came since.
    """

    __tablename__ = "qortex_db_word_frequencies"

    table_name: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="Whose documents: schema and table, as SQL names them"
    )
    word: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="A lexeme, or '' for all documents together"
    )
    documents: Mapped[int] = mapped_column(
        BigInteger, comment="How many documents have the word; of '' how many there are"
    )
    mean_length: Mapped[float | None] = mapped_column(
        Double, comment="Of '': how many words a document has, repeated ones included"
    )
    counted_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="Of '': when they were counted"
    )
