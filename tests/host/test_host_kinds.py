"""Hosts of every kind: sessions of SQLModel, bases of each library, types for strict hosts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from qortex_db import (
    Collection,
    InteroceptionFactor,
    QortexVector,
    VectorMixin,
    VectorSpec,
    unit_of_work,
)
from qortex_db.testing import asyncpg_url, create_all
from support.commands import ROOT, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("hosts_of_each_kind.py")
SCRIPT = ROOT / "tests/sync/script.py"
VECTOR = np.ones(8, np.float32)
OTHER = np.arange(1, 9, dtype=np.float32)


class Note(VectorMixin, SQLModel, table=True):
    __tablename__ = "notes"
    __collection__ = Collection(VectorSpec(8))

    author: str | None = Field(default=None)


@pytest.fixture
async def session(dsn: str) -> AsyncIterator[AsyncSession]:
    await create_all(dsn, SQLModel.metadata)
    engine = create_async_engine(asyncpg_url(dsn))
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
    await engine.dispose()


async def test_a_session_of_sqlmodel_is_never_warned(session: AsyncSession) -> None:
    """Warnings are errors here: in statements, in what refreshes loaded objects, in savepoints."""
    async with unit_of_work(session) as uow:
        notes, vectors = uow.collection(Note), uow.vectors
        for collection in (notes, vectors):
            await collection.upsert([{"id": i, "embedding": VECTOR} for i in "abc"])
        await uow.factors.save({"n": 2.0})
        await uow.edges.record("a", "b", score=0.9)
        await uow.arms.observe("l", "arm", reward=1.0)
        note = (await session.exec(select(Note).where(Note.id == "a"))).one()
        vector = await session.get_one(QortexVector, "a")
        gone = await session.get_one(QortexVector, "c")
        factor = await session.get_one(InteroceptionFactor, "n")
        for collection in (notes, vectors):
            await collection.update("a", embedding=OTHER, payload={"k": 1})
            await collection.merge_payload({"more": 2}, where={"k": 1})
            assert await collection.delete(["c"]) == 1
            assert [hit.id for hit in await collection.search(OTHER, limit=1)] == ["a"]
        await uow.factors.adjust({"n": "accepted"})
        assert note.payload == vector.payload == {"k": 1, "more": 2}
        assert factor.weight == 2.1
        assert gone not in session
        async with uow.options(timeout_seconds=5):
            assert await vectors.count() == 2
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what raises
        async with unit_of_work(session) as uow:
            await uow.collection(Note).update("a", payload={"k": 3})
            await uow.vectors.update("a", payload={"k": 3})
            raise ZeroDivisionError
    assert note.payload == vector.payload == {"k": 1, "more": 2}
    async with unit_of_work(session) as uow:
        note.author = "Ada"  # flushed before our statement, with SQLModel's own session
        found = await uow.collection(Note).get(["a"])
    assert found["a"].attributes == {"author": "Ada"}
    await session.commit()


async def test_strict_hosts_of_every_kind_type_check(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path))
    done = await program(*command, "--config-file", "", str(PROGRAM), str(SCRIPT), cwd=ROOT)
    assert done.code == 0, done.out + done.err


async def test_hosts_of_every_kind_run(dsn: str) -> None:
    done = await program(sys.executable, "-Werror::DeprecationWarning:__main__", str(PROGRAM), dsn)
    assert done.code == 0, done.err
