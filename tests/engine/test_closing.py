"""Closing, cancelling, and being used where it was not opened."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import NullPool, event
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import (
    Database,
    DatabaseClosedError,
    OutcomeUnknownError,
    QortexDbError,
    Settings,
    UnavailableError,
    WrongLoopError,
)
from support.proxies import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VECTOR = [1.0] * 8
KINDS = ["driver", "watched", "hosts"]


def engine_of(dsn: str, **options: Any) -> Any:
    target = Settings(dsn=dsn).target()
    assert target is not None
    return create_async_engine(target.url, **options)


async def opened(dsn: str, kind: str, **settings: Any) -> Database:
    if kind == "hosts":
        return Database.from_engine(engine_of(dsn))
    db = await Database.connect(Settings(dsn=dsn, **settings)).open()
    if kind == "watched":
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    return db


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def backends(other: asyncpg.Connection) -> int:
    count: int = await other.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return count


async def until_no_backend(other: asyncpg.Connection) -> bool:
    for _ in range(100):
        if not await backends(other):
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_in_flight_may_finish(dsn: str, other: asyncpg.Connection, kind: str) -> None:
    db = await opened(dsn, kind)
    engine, vectors, factors = db.engine, db.vectors, db.factors
    await other.execute("BEGIN; LOCK TABLE interoception_factors, qortex_vectors")

    async def unit() -> str:
        async with db.unit_of_work() as uow:
            await uow.factors.save({"unit": 1.0})
            await asyncio.sleep(0.05)
            await uow.factors.save({"unit": 2.0})
            return "done"

    rows = [{"id": f"v{i}", "embedding": VECTOR} for i in range(300)]  # in parts
    flying = [
        asyncio.create_task(each)
        for each in (factors.save({"lone": 1.0}), vectors.upsert(rows), unit())
    ]
    while await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < len(flying):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    closing = [asyncio.create_task(db.close()) for _ in range(2)]  # twice is fine
    await asyncio.sleep(0.05)
    for call in (factors.load, vectors.count, lambda: db.factors.load()):  # noqa: PLW0108 - made anew
        with pytest.raises(DatabaseClosedError, match="not open"):
            await call()
    with pytest.raises(DatabaseClosedError):
        db.unit_of_work()
    await other.execute("ROLLBACK")
    assert await asyncio.gather(*flying) == [None, 300, "done"]
    await asyncio.gather(*closing)
    await db.close()
    if kind == "hosts":
        assert engine.pool.checkedout() == 0
        await engine.dispose()
    assert await until_no_backend(other)
    assert await other.fetchval("SELECT count(*) FROM interoception_factors") == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_what_does_not_finish_in_time_is_cancelled(
    dsn: str, other: asyncpg.Connection, kind: str
) -> None:
    db = await opened(dsn, kind, pool_min_size=1, pool_max_size=3)
    engine = db.engine
    await db.vectors.upsert([{"id": f"v{i}", "embedding": VECTOR} for i in range(4)])
    await other.execute("BEGIN; LOCK TABLE interoception_factors")
    reached = []

    async def unit() -> None:
        async with db.unit_of_work() as uow:
            await uow.edges.record("a", "b", score=1.0)
            await asyncio.sleep(60)

    async def telling() -> None:
        async with db.unit_of_work():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise ZeroDivisionError from None

    async def stream() -> None:
        async for record in db.vectors.stream(batch_size=2):
            reached.append(record.id)
            await asyncio.sleep(0.2)

    flying = [
        asyncio.create_task(each)
        for each in (
            db.factors.save({"lone": 1.0}),
            unit(),
            unit(),
            db.factors.load(),
            stream(),
            telling(),
        )
    ]
    await asyncio.sleep(0.1)
    await db.close(grace_seconds=0.1)
    *results, told = await asyncio.gather(*flying, return_exceptions=True)
    for result in results:
        assert isinstance(result, DatabaseClosedError), result
    assert isinstance(told, ZeroDivisionError)  # the block's own
    assert len(reached) <= 2  # a page
    if kind == "hosts":
        assert engine.pool.checkedout() == 0
        await engine.dispose()
    assert await until_no_backend(other)
    await other.execute("ROLLBACK")
    assert await other.fetchval("SELECT count(*) FROM interoception_edge_buffer") == 0
    assert await other.fetchval("SELECT count(*) FROM interoception_factors") == 0


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
async def test_a_close_at_any_moment_is_told_and_leaves_no_backend(
    dsn: str, other: asyncpg.Connection, kind: str
) -> None:
    """Cancelled itself, too; and where blocks that are done give their connections back."""
    chance = random.Random(7)  # noqa: S311 - no secret
    for count in range(100):
        db = await opened(dsn, kind)
        engine = db.engine

        async def unit(key: str, db: Database = db) -> None:
            await asyncio.sleep(chance.uniform(0, 0.01))
            async with db.unit_of_work() as uow:
                await uow.factors.save({key: 1.0})

        names = [f"{count}.{i}" for i in range(8)]
        flying = [asyncio.create_task(unit(name)) for name in names]
        await asyncio.sleep(chance.uniform(0, 0.04))
        with suppress(TimeoutError):
            async with asyncio.timeout(chance.uniform(0, 0.02) if count % 2 else None):
                await db.close(grace_seconds=0 if chance.random() < 0.5 else 5)
        results = await asyncio.gather(*flying, return_exceptions=True)
        stored = {row[0] for row in await other.fetch("SELECT node_id FROM interoception_factors")}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, OutcomeUnknownError):
                continue
            assert result is None or isinstance(result, DatabaseClosedError), result
            assert (name in stored) is (result is None)
        if kind == "hosts":
            await engine.dispose()
        assert await until_no_backend(other)


async def test_an_opening_that_fails_leaves_no_connection_behind(
    dsn: str, other: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = asyncpg.connect
    failing = iter([True])

    async def slow_but_for_one_that_fails(**options: Any) -> asyncpg.Connection:
        if next(failing, False):
            raise ConnectionRefusedError
        await asyncio.sleep(0.2)
        return await connect(**options)

    monkeypatch.setattr(asyncpg, "connect", slow_but_for_one_that_fails)
    with pytest.raises(UnavailableError):
        await Database.connect(Settings(dsn=dsn, pool_min_size=3, retry_seconds=0)).open()
    await asyncio.sleep(0.3)
    assert await until_no_backend(other)


async def test_a_closed_database_can_be_opened_again(dsn: str) -> None:
    for kind in ("driver", "hosts"):
        db = await opened(dsn, kind)
        before = db.factors
        await db.close()
        await db.open()
        assert await db.factors.load() == {}
        with pytest.raises(DatabaseClosedError):
            await before.load()
        engine = db.engine
        await db.close()
        await engine.dispose()


async def test_a_unit_of_work_that_closes_its_database_does_not_wait_for_itself(dsn: str) -> None:
    db = await opened(dsn, "driver")

    async def work() -> None:
        async with db.unit_of_work() as uow:
            await uow.factors.save({"n": 1.0})
            async with asyncio.timeout(5):
                await db.close()

    with pytest.raises(QortexDbError):
        await work()


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_call_returns_at_once_though_the_server_does_not(
    dsn: str, kind: str
) -> None:
    """The reply is held back by a proxy that has gone silent; the clean-up goes on meanwhile."""
    rows = [{"id": f"v{i}", "embedding": VECTOR} for i in range(400)]
    async with Proxy(dsn) as proxy:
        db = await opened(proxy.dsn, kind)
        engine = db.engine
        await db.factors.load()

        async def unit() -> None:
            async with db.unit_of_work() as uow:
                await uow.factors.load()

        proxy.silent.set()
        for call in (db.factors.load, lambda: db.vectors.upsert(rows), unit):
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await call()
            took = time.monotonic() - start
            # In a unit of work, SQLAlchemy asks the server for two seconds to stop.
            assert took < (0.9 if call is not unit else 4), (took, call)
        start = time.monotonic()
        await db.close(grace_seconds=0.1)
        await engine.dispose()
        assert time.monotonic() - start < 8


@pytest.mark.faults
async def test_a_cancelled_connect_leaves_nothing_behind_and_nothing_in_the_log(
    dsn: str, other: asyncpg.Connection
) -> None:
    logged: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    async with Proxy(dsn) as proxy:
        # Without ssl=disable, asyncpg first asks for TLS.
        for each in (dsn, proxy.dsn, proxy.dsn.removesuffix("?ssl=disable")):
            for turn in range(40):
                db = Database.connect(Settings(dsn=each, pool_min_size=2))
                task = asyncio.create_task(db.open())
                if turn % 2:
                    await asyncio.sleep(turn * 0.0005)
                else:
                    for _ in range(turn):
                        await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
                assert task.cancelled() or task.exception() is None
                await db.close()
        gc.collect()
        await asyncio.sleep(0)
        assert await until_no_backend(other)
    assert logged == []


# Processes and event loops


def test_another_event_loop_is_told_what_to_do(dsn: str) -> None:
    db = Database.connect(Settings(dsn=dsn))

    async def first() -> None:
        await db.open()
        await db.factors.load()

    async def second() -> None:
        with pytest.raises(WrongLoopError, match="another event loop"):
            await db.factors.load()
        with pytest.raises(WrongLoopError, match="Open one in each"):
            async with db.unit_of_work() as uow:
                await uow.factors.load()

    with asyncio.Runner() as one, asyncio.Runner() as two:
        one.run(first())
        two.run(second())
        one.run(db.close())

    async def fresh() -> None:
        async with Database.connect(Settings(dsn=dsn)) as here:
            assert await here.factors.load() == {}

    asyncio.run(fresh())


def test_a_pool_without_connections_works_in_any_event_loop(dsn: str) -> None:
    for options in ({"poolclass": NullPool}, {}):
        engine = engine_of(dsn, **options)
        db = Database.from_engine(engine)

        async def work(db: Database = db, engine: Any = engine) -> None:
            assert await db.factors.load() == {}
            await engine.dispose()

        asyncio.run(work())
        asyncio.run(work())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # pytest may have threads
def test_a_fork_is_told_what_to_do_and_leaves_its_parent_whole(dsn: str) -> None:
    db = Database.connect(Settings(dsn=dsn))
    with asyncio.Runner() as runner:
        runner.run(db.open())
        assert runner.run(db.factors.load()) == {}
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # no assertion here: pytest is the parent's
            said = b"nothing"
            try:
                asyncio.events._set_running_loop(None)
                with asyncio.Runner() as own:
                    own.run(db.factors.load())
            except WrongLoopError as error:
                said = str(error).encode()
            finally:
                os.write(write, said)
                os._exit(0)
        os.waitpid(child, 0)
        said = os.read(read, 1_000).decode()
        os.close(read)
        os.close(write)
        assert "another process" in said
        assert "in the child" in said
        assert runner.run(db.factors.load()) == {}
        runner.run(db.close())
