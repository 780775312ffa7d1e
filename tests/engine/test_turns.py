"""Calls by themselves over a host's own pool take turns, and hand their connections on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, PoolTimeoutError, Settings
from qortex_db.engine.connections import turns
from qortex_db.engine.connections.cleanup import Cleanup
from qortex_db.engine.connections.lease import Lease
from qortex_db.engine.connections.turns import turns_on
from qortex_db.engine.executor import catalog_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine


@pytest.fixture
async def engine(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, **getattr(request, "param", {}))
    yield engine
    await engine.dispose()


def connects_of(engine: AsyncEngine) -> list[Any]:
    made: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda *given: made.append(given))
    return made


BOUNDED = [{}, {"pool_use_lifo": True}, {"pool_size": 2, "max_overflow": 1}]


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("engine", BOUNDED, indirect=True, ids=["stock", "lifo", "small"])
async def test_who_waits_takes_over_a_connection_instead_of_opening_one(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, *, watched: bool
) -> None:
    # On a busy machine some would wait so long that further ones are opened, and closed again.
    monkeypatch.setattr(turns, "_PATIENCE_SECONDS", 60)
    borrow, taken_over = turns.Turn.borrow, []

    def counted(turn: turns.Turn[Any]) -> Any:
        lease = borrow(turn)
        taken_over.extend([] if lease is None else [lease])
        return lease

    monkeypatch.setattr(turns.Turn, "borrow", counted)
    db, made = Database.from_engine(engine), connects_of(engine)
    if watched:
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)

    async def calls(task: int) -> None:
        for i in range(25):
            await db.factors.save({f"n{(task * 7 + i) % 20:02}": i / 10})
            assert len(await db.factors.get([f"n{task % 20:02}"])) == 1

    await asyncio.gather(*(calls(task) for task in range(40)))

    pool: Any = engine.pool
    assert pool.checkedout() == 0
    if not watched:  # SQLAlchemy's own way opens what it is asked for
        assert len(made) <= pool.size() + pool._max_overflow
        assert len(taken_over) > 1_000  # of 2,000 calls


@pytest.mark.parametrize("engine", [{"pool_size": 1, "max_overflow": 1}], indirect=True)
async def test_one_is_opened_beyond_the_pools_size_where_a_call_takes_long(
    engine: AsyncEngine, dsn: str
) -> None:
    db = Database.from_engine(engine)
    await db.factors.save({"a": 1.0})
    locker = await asyncpg.connect(dsn)
    try:
        held = locker.transaction()
        await held.start()
        await locker.execute("UPDATE interoception_factors SET weight = 2")
        slow = asyncio.create_task(db.factors.save({"a": 3.0}))
        await asyncio.sleep(0)
        assert await db.factors.load() == {"a": 1.0}
        assert not slow.done()
        await held.commit()
        await slow
    finally:
        await locker.close()
    assert await db.factors.load() == {"a": 3.0}


@pytest.mark.parametrize(
    "engine", [{"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}], indirect=True
)
async def test_a_wait_is_as_long_as_the_pools(engine: AsyncEngine, dsn: str) -> None:
    db = Database.from_engine(engine)
    await db.factors.save({"a": 1.0})
    locker = await asyncpg.connect(dsn)
    try:
        held = locker.transaction()
        await held.start()
        await locker.execute("UPDATE interoception_factors SET weight = 2")
        slow = asyncio.create_task(db.factors.save({"a": 3.0}))
        await asyncio.sleep(0)
        with pytest.raises(PoolTimeoutError):
            await db.factors.load()
        await held.rollback()
        await slow
    finally:
        await locker.close()


@pytest.mark.parametrize("engine", [{"pool_size": 1, "max_overflow": 0}], indirect=True)
async def test_a_connection_left_for_who_was_cancelled_goes_back_to_the_pool(
    engine: AsyncEngine,
) -> None:
    db = Database.from_engine(engine)
    await db.factors.load()
    turns, cleanup = turns_on(engine.pool), Cleanup()
    assert turns is not None
    turn = await turns.take(borrows=True, seconds=10, cleanup=cleanup)
    waiting = asyncio.create_task(turns.take(borrows=True, seconds=10, cleanup=cleanup))
    await asyncio.sleep(0)
    assert turn.lends()
    turn.lease = await Lease.waited_for(engine.sync_engine, catalog_of(engine.sync_engine))
    turn.end(cleanup)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await cleanup.finish()

    pool: Any = engine.pool
    assert pool.checkedout() == 0
    assert (await turns.take(borrows=True, seconds=0, cleanup=cleanup)).lease is None
    assert await db.factors.load() == {}


@pytest.mark.parametrize("engine", [{"pool_size": 2, "max_overflow": 0}], indirect=True)
async def test_whatever_is_cancelled_no_connection_and_no_turn_is_lost(
    engine: AsyncEngine,
) -> None:
    db = Database.from_engine(engine)
    for round_ in range(20):
        tasks = [asyncio.create_task(db.factors.save({"a": float(i)})) for i in range(12)]
        for _ in range(round_):
            await asyncio.sleep(0)
        for task in tasks[round_ % 3 :: 2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(10):
        await asyncio.gather(*(db.factors.load() for _ in range(10)))
    await db.close()

    pool: Any = engine.pool
    assert pool.checkedout() == 0
