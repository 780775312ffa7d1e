"""The pool: who has waited longest comes first, and what could never be had says so at once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import (
    Database,
    FairPool,
    OverloadedError,
    PoolTimeoutError,
    QortexDbError,
    Settings,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LANES = ["driver", "watched", "unit of work", "hosts with SQLAlchemy's pool", "hosts with ours"]


def engine_of(dsn: str, **options: Any) -> Any:
    target = Settings(dsn=dsn).target()
    assert target is not None
    return create_async_engine(target.url, **options)


async def opened(dsn: str, lane: str, size: int, **settings: Any) -> Database:
    if lane.startswith("hosts"):
        options = {"poolclass": FairPool} if lane.endswith("ours") else {}
        db = Database.from_engine(engine_of(dsn, pool_size=size, max_overflow=0, **options))
    else:
        settings = {"pool_min_size": 1, "pool_max_size": size, **settings}
        db = await Database.connect(Settings(dsn=dsn, **settings)).open()
    if lane == "watched":
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    return db


async def closed(db: Database) -> None:
    await db.close()
    if db._host_engine is not None:
        await db._host_engine.dispose()


def one(db: Database, lane: str) -> Callable[[], Awaitable[Any]]:
    if lane != "unit of work":
        return lambda: db.factors.get(["a"])

    async def work() -> None:
        async with db.unit_of_work() as uow:
            await uow.factors.get(["a"])

    return work


async def test_whoever_comes_first_to_a_cancelled_connects_room_ends_nobodys_wait(dsn: str) -> None:
    db = await opened(dsn, "driver", 1, pool_timeout_seconds=60)
    await db.engine.dispose()
    connecting = asyncio.create_task(db.factors.load())
    await asyncio.sleep(0.001)
    waiting = [asyncio.create_task(db.factors.load()) for _ in range(3)]
    await asyncio.sleep(0)
    connecting.cancel()
    coming = [asyncio.create_task(db.factors.load()) for _ in range(3)]
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting, *coming) == [{}] * 6
    await db.close()


@pytest.mark.faults
@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("callers", [100, 300])
async def test_nobody_starves(dsn: str, lane: str, callers: int) -> None:
    db = await opened(dsn, lane, 10, pool_min_size=10)
    call = one(db, lane)
    counts = [0] * callers
    over = time.monotonic() + 3

    async def work(i: int) -> None:
        while time.monotonic() < over:
            await call()
            counts[i] += 1

    await asyncio.gather(*(work(i) for i in range(callers)))
    # Everybody has their turn before anybody has another; who is served slowly comes back later.
    assert max(counts) - min(counts) <= max(3, 0.04 * max(counts)), (min(counts), max(counts))
    assert min(counts) > 0
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await closed(db)


async def test_what_was_handed_to_a_cancelled_waiter_goes_to_the_next(dsn: str) -> None:
    db = await opened(dsn, "driver", 1)
    await db.factors.save({"a": 2.0})
    for cancel_after in range(6):  # before, at and after the connection's hand-over
        async with db.unit_of_work() as uow:
            await uow.factors.load()
            first, second = (asyncio.create_task(db.factors.get(["a"])) for _ in range(2))
            await asyncio.sleep(0.01)
            assert db.engine.pool.waiting() == 2  # type: ignore[attr-defined]
        for _ in range(cancel_after):
            await asyncio.sleep(0)
        first.cancel()
        assert await asyncio.wait_for(second, 5) == {"a": 2.0}
        await asyncio.wait({first})
        assert await db.factors.load() == {"a": 2.0}
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await db.close()


async def test_a_wait_that_is_too_long_ends_and_loses_nothing(dsn: str) -> None:
    db = await opened(dsn, "driver", 1, pool_timeout_seconds=0.05)
    async with db.unit_of_work() as uow:
        await uow.factors.load()
        waiting = [asyncio.create_task(db.factors.load()) for _ in range(5)]
        for task in waiting:
            with pytest.raises(PoolTimeoutError):
                await task
    assert await db.factors.load() == {}
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert db.engine.pool.waiting() == 0  # type: ignore[attr-defined]
    await db.close()


@pytest.mark.parametrize("lane", ["driver", "watched", "hosts with ours"])
async def test_what_could_only_wait_for_itself_raises_at_once(dsn: str, lane: str) -> None:
    db = await opened(dsn, lane, 1)
    async with db.unit_of_work() as uow:
        await uow.factors.save({"a": 2.0})
        async with asyncio.timeout(5):  # the pool's own limit is thirty seconds
            with pytest.raises(PoolTimeoutError, match=r"uow\.vectors, not db\.vectors"):
                await db.factors.load()
            async with db.unit_of_work() as inner:
                with pytest.raises(PoolTimeoutError, match="none would ever become free"):
                    await inner.factors.load()
    assert await db.factors.load() == {"a": 2.0}
    await closed(db)


async def test_of_units_of_work_that_all_wait_for_each_other_one_is_told(dsn: str) -> None:
    db = await opened(dsn, "driver", 3)
    held = asyncio.Barrier(3)

    async def work() -> str:
        async with db.unit_of_work() as uow:
            await uow.factors.load()
            await held.wait()
            try:
                await db.factors.load()
            except PoolTimeoutError:
                return "told"
            return "went on"

    async with asyncio.timeout(5):
        results = await asyncio.gather(*(work() for _ in range(3)))
    assert sorted(results) == ["told", "went on", "went on"]
    await db.close()


async def test_whoever_waits_for_somebody_else_goes_on_waiting(dsn: str) -> None:
    db = await opened(dsn, "driver", 2)
    release = asyncio.Event()

    async def other() -> None:
        async with db.unit_of_work() as uow:
            await uow.factors.load()
            await release.wait()

    task = asyncio.create_task(other())
    async with db.unit_of_work() as uow:
        await uow.factors.load()
        await asyncio.sleep(0.01)
        lone = asyncio.create_task(db.factors.load())  # its own task holds nothing
        asyncio.get_running_loop().call_later(0.05, release.set)
        assert await db.factors.load() == {}
        assert await lone == {}
    await task
    await db.close()


async def test_as_many_wait_as_may_and_one_more_is_answered_at_once(dsn: str) -> None:
    db = await opened(dsn, "driver", 1, max_waiting=3)
    async with db.unit_of_work() as uow:
        await uow.factors.load()
        waiting = [asyncio.create_task(db.factors.load()) for _ in range(3)]
        await asyncio.sleep(0.01)
        more = [asyncio.create_task(db.factors.load()) for _ in range(2)]
        for task in more:
            with pytest.raises(OverloadedError, match="max_waiting") as caught:
                await asyncio.wait_for(task, 5)
        assert isinstance(caught.value, UnavailableError)  # a service's 503
    assert await asyncio.gather(*waiting) == [{}] * 3
    await db.engine.dispose()
    assert db.engine.pool._max_waiting == 3  # type: ignore[attr-defined]
    await db.close()


async def test_who_would_wait_longer_than_the_limit_is_told_by_the_pace(dsn: str) -> None:
    db = await opened(dsn, "driver", 2, pool_timeout_seconds=1.0)

    async def slow() -> None:
        async with db.unit_of_work() as uow:
            await uow.factors.load()
            await asyncio.sleep(0.2)

    # Two at a time, five a second a connection: of forty, ten have their turn within the second.
    async def later(i: int) -> None:
        await asyncio.sleep(0.01 * i)
        await slow()

    results = await asyncio.gather(*(later(i) for i in range(60)), return_exceptions=True)
    kinds = {type(result) for result in results}
    assert OverloadedError in kinds
    assert kinds <= {type(None), OverloadedError, PoolTimeoutError}
    overloaded = next(str(each) for each in results if isinstance(each, OverloadedError))
    assert "pool_timeout_seconds (1)" in overloaded
    assert await db.factors.load() == {}  # the flood is over
    await db.close()


async def test_a_failed_connect_makes_room_for_whoever_waits(dsn: str) -> None:
    """Not until their time is up: their connects fail likewise, or succeed."""
    db = await opened(dsn, "driver", 2, pool_min_size=1, retry_seconds=0, pool_timeout_seconds=60)
    engine = db.engine.sync_engine

    @event.listens_for(engine, "do_connect")
    def refuse(*_: Any) -> None:
        raise ConnectionRefusedError("nobody is there")

    await db.engine.dispose()
    async with asyncio.timeout(10):
        calls = [asyncio.create_task(db.factors.load()) for _ in range(8)]
        for each in calls:
            with pytest.raises(UnavailableError):
                await each
    event.remove(engine, "do_connect", refuse)
    assert await db.factors.load() == {}
    await db.close()


@pytest.mark.faults
@pytest.mark.parametrize("lane", ["driver", "watched"])
async def test_the_pool_stays_whole_through_kills_cancellations_and_time_outs(
    dsn: str, lane: str
) -> None:
    if sqlalchemy.__version__ < "2.1" and lane == "watched":
        pytest.skip("SQLAlchemy 2.0 loses a connection when its end at checkout is cancelled")
    db = await opened(dsn, lane, 4, pool_timeout_seconds=2, retry_seconds=5)
    await db.factors.save({"a": 1.0})
    killer = await asyncpg.connect(dsn)
    over = time.monotonic() + 4
    done = 0

    async def work(i: int) -> None:
        nonlocal done
        turn = 0
        while time.monotonic() < over:
            turn += 1
            try:
                async with asyncio.timeout((i + turn) % 7 / 1_000 if (i + turn) % 3 else 5):
                    await db.factors.get(["a"])
                done += 1
            except (TimeoutError, QortexDbError):
                pass

    async def kill() -> None:
        while time.monotonic() < over:
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.2)

    await asyncio.gather(kill(), *(work(i) for i in range(30)))
    assert done > 100
    pool: Any = db.engine.pool
    for _ in range(100):
        if not pool.checkedout():
            break
        await asyncio.sleep(0.05)
    assert (pool.checkedout(), pool.waiting(), len(pool._holders)) == (0, 0, 0)
    # All of its connections can still be had at once.
    barrier = asyncio.Barrier(4)

    async def hold() -> None:
        async with db.unit_of_work() as uow:
            await uow.factors.load()
            await barrier.wait()

    async with asyncio.timeout(10):
        await asyncio.gather(*(hold() for _ in range(4)))
    await killer.close()
    await db.close()
