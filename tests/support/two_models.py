"""A collection that changes its model, from 384 dimensions to 768, and the two models of it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase

from qortex_db import Collection, Embedder, Settings, VectorMixin, VectorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ASKED: dict[str, list[str]] = {"minilm": [], "bge": []}
"""The texts that each model was given, in this test."""


class Base(DeclarativeBase):
    """A host's own."""


class Memo(VectorMixin, Base):
    __tablename__ = "memos"
    __collection__ = Collection(VectorSpec(384), language=None, payload_index=False)


def old_vector(text: str) -> np.ndarray[Any, Any]:
    """One that no other text has."""
    return _vector(f"old {text}", 384)


def new_vector(text: str) -> np.ndarray[Any, Any]:
    """Of other neighbours than the old one."""
    return _vector(f"new {text}", 768)


def _vector(text: str, dimensions: int) -> np.ndarray[Any, Any]:
    few = np.random.default_rng(zlib.crc32(text.encode())).normal(size=12)  # as real ones are
    return few @ np.random.default_rng(dimensions).normal(size=(12, dimensions))


def _minilm(texts: Sequence[str]) -> list[Any]:
    ASKED["minilm"] += texts
    return [old_vector(text) for text in texts]


def _bge(texts: Sequence[str]) -> list[Any]:
    ASKED["bge"] += texts
    return [new_vector(text) for text in texts]


MINILM = Embedder(_minilm, name="minilm")
BGE = Embedder(_bge, name="bge")
BOTH = {"old": MINILM, "v2": BGE}


async def migrate(dsn: str, work: Callable[[Operations], None]) -> None:
    """Do what a revision of a host's does."""
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args))

    def run(connection: Any) -> None:
        context = MigrationContext.configure(connection, opts={"transaction_per_migration": True})
        with context.begin_transaction(_per_migration=True):
            work(Operations(context))

    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


def begin(op: Any) -> None:
    op.add_embedding_column("memos", "v2", 768)


async def create(dsn: str) -> None:
    """Make the table."""
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
