"""`db.run` runs a unit of work again; and connecting goes on while a server is away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import (
    Database,
    InFailedTransactionError,
    InvalidInputError,
    PoolTimeoutError,
    QortexDbError,
    SerializationConflictError,
    Settings,
    UnavailableError,
)
from support.severing import severed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qortex_db import UnitOfWork

CLASH = text("DO $$ BEGIN RAISE 'met' USING ERRCODE = '40001'; END $$")


@pytest.fixture(params=["ours", "a host's"])
async def either(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """On our engine, and on a host's."""
    if request.param == "ours":
        async with Database.connect(dsn) as db:
            yield db
        return
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url)
    async with Database.from_engine(engine) as db:
        yield db
    await engine.dispose()


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ"])
async def test_who_met_another_is_run_again_until_all_are_counted(
    either: Database, level: Any
) -> None:
    await either.factors.save({"n": 0.0})
    begun = 0

    async def add(uow: UnitOfWork) -> float:
        nonlocal begun
        begun += 1
        weight = (await uow.factors.load())["n"] + 1
        await asyncio.sleep(0.001)
        await uow.factors.save({"n": weight})
        return weight

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(either.run(add, isolation_level=level, max_attempts=1_000))
            for _ in range(12)
        ]
    assert await either.factors.load() == {"n": 12.0}
    assert sorted(task.result() for task in tasks) == [float(n) for n in range(1, 13)]
    assert begun > 12


async def test_deadlocks_and_what_the_block_caught_are_run_again(either: Database) -> None:
    await either.factors.save({"a": 1.0, "b": 1.0})
    meeting = asyncio.Barrier(2)
    begun = 0

    def crossing(keys: str) -> Any:
        first = True

        async def work(uow: UnitOfWork) -> None:
            nonlocal first, begun
            begun += 1
            await uow.factors.save({keys[0]: 2.0})
            if first:
                first = False
                await meeting.wait()
            await uow.factors.save({keys[1]: 2.0})

        return work

    await asyncio.gather(either.run(crossing("ab")), either.run(crossing("ba")))
    assert begun == 3

    seen: list[QortexDbError] = []

    async def swallow(uow: UnitOfWork) -> int:
        if len(seen) < 3:
            with pytest.raises(SerializationConflictError) as caught:
                await uow.executor.run(CLASH, {})
            seen.append(caught.value)
        return len(seen)

    async def of_the_hosts_own(uow: UnitOfWork) -> int:
        seen.append(QortexDbError("a try"))
        if len(seen) < 5:
            await uow.session.execute(CLASH)
        return len(seen)

    assert await either.run(swallow) == 3
    assert await either.run(of_the_hosts_own) == 5


async def test_tries_and_time_are_bounded_and_nothing_else_is_run_again(db: Database) -> None:
    begun = 0
    fails: Any = None

    async def work(uow: UnitOfWork) -> None:
        nonlocal begun
        begun += 1
        await uow.factors.save({f"n{begun}": 1.0})
        if fails is None:
            await uow.executor.run(CLASH, {})
        raise fails

    with pytest.raises(SerializationConflictError):
        await db.run(work, max_attempts=4)
    assert begun == 4
    begun = 0
    with pytest.raises(SerializationConflictError):
        await db.run(work, timeout_seconds=0, max_attempts=100)
    assert begun == 1
    for fails in (
        RuntimeError("no"),
        UnavailableError("away"),
        InFailedTransactionError("?"),
        asyncio.CancelledError(),
    ):
        begun = 0
        with pytest.raises(type(fails)):
            await db.run(work)
        assert begun == 1
    begun, fails = 0, PoolTimeoutError("full")
    with pytest.raises(PoolTimeoutError):
        await db.run(work, max_attempts=3, retry_unavailable=True)
    assert begun == 3
    assert await db.factors.load() == {}
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_a_cancelled_run_is_not_run_again(db: Database) -> None:
    begun = 0

    async def work(uow: UnitOfWork) -> None:
        nonlocal begun
        begun += 1
        await uow.executor.run(CLASH, {})

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await db.run(work, max_attempts=10_000, timeout_seconds=60)
    before = begun
    await asyncio.sleep(0.1)
    assert begun == before


@pytest.mark.parametrize(
    "bad",
    [
        {"max_attempts": 0},
        {"timeout_seconds": -1},
        {"retry_unavailable": 1},
        {"isolation_level": "serializable"},
    ],
    ids=repr,
)
async def test_what_run_does_not_take_is_refused(db: Database, bad: Any) -> None:
    async def work(_: UnitOfWork) -> None:
        pytest.fail("It ran.")

    with pytest.raises(InvalidInputError, match=next(iter(bad))):
        await db.run(work, **bad)
    with pytest.raises(InvalidInputError, match="work"):
        await db.run(None)  # type: ignore[arg-type]


async def test_an_isolation_level_is_that_of_its_unit_alone(either: Database) -> None:
    shown = text("SELECT current_setting('transaction_isolation')")

    async def level(uow: UnitOfWork) -> str:
        await uow.vectors.count()
        return str(await uow.session.scalar(shown))

    assert await either.run(level) == "read committed"
    assert await either.run(level, isolation_level="SERIALIZABLE") == "serializable"
    async with either.unit_of_work(isolation_level="REPEATABLE READ") as uow:
        assert await level(uow) == "repeatable read"
    assert await either.run(level) == "read committed"


async def test_while_the_server_is_away_units_of_work_and_open_try_to_connect(dsn: str) -> None:
    async with severed(dsn) as proxy:
        proxy.refuse = True

        async def come_back() -> None:
            await asyncio.sleep(0.6)
            proxy.refuse = False

        back = asyncio.create_task(come_back())
        db = await Database.connect(Settings(dsn=proxy.dsn, pool_min_size=1)).open()
        await back
        for use in ("ours", "a host's own statement", "pending objects"):
            proxy.refuse = True
            await proxy.cut()
            back = asyncio.create_task(come_back())
            async with db.unit_of_work() as uow:
                if use == "ours":
                    await uow.factors.save({"n": 1.0})
                else:
                    assert await uow.session.scalar(text("SELECT 1")) == 1
            await back
        await db.close()

        target = Settings(dsn=proxy.dsn).target()
        assert target is not None
        engine = create_async_engine(target.url)
        async with Database.from_engine(engine) as hosted:
            proxy.refuse = True
            back = asyncio.create_task(come_back())
            async with hosted.unit_of_work() as uow:
                await uow.factors.save({"m": 1.0})
            await back
            assert await hosted.factors.load() == {"n": 1.0, "m": 1.0}
        await engine.dispose()


async def test_retries_of_connecting_end_in_their_time(dsn: str) -> None:
    async with severed(dsn) as proxy:
        proxy.refuse = True
        asked = asyncio.get_running_loop().time()
        with pytest.raises(UnavailableError):
            await Database.connect(Settings(dsn=proxy.dsn, retry_seconds=0.3)).open()
        assert asyncio.get_running_loop().time() - asked < 5
        proxy.refuse = False
        async with Database.connect(Settings(dsn=proxy.dsn, retry_seconds=0.3)) as db:
            proxy.refuse = True
            await proxy.cut()
            for lane in ("alone", "together"):
                before = proxy.refused
                with pytest.raises(UnavailableError):
                    async with db.unit_of_work() as uow:
                        await (db if lane == "alone" else uow).factors.load()
                assert 2 <= proxy.refused - before <= 12  # one span of time, not one in another


async def test_a_watched_engine_is_run_again_too(db: Database) -> None:
    event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    tries: list[int] = []

    async def work(uow: UnitOfWork) -> None:
        tries.append(1)
        if len(tries) < 3:
            await uow.executor.run(CLASH, {})

    await db.run(work)
    assert len(tries) == 3
