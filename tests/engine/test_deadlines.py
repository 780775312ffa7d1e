"""Time-outs by call and for a whole unit of work, in both lanes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import (
    Database,
    InvalidInputError,
    LockTimeoutError,
    OutcomeUnknownError,
    QueryTimeoutError,
    Settings,
    UnitOfWork,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VECTOR = [1.0] * 8
ROWS = [{"id": f"v{i}", "embedding": VECTOR} for i in range(300)]  # several parts


@pytest.fixture(params=["driver", "watched", "hosts", "hosts-watched"])
async def anyones(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Database]:
    if request.param.startswith("hosts"):
        target = Settings(dsn=dsn).target()
        assert target is not None
        db = Database.from_engine(create_async_engine(target.url))
    else:
        db = await Database.connect(Settings(dsn=dsn)).open()
    engine = db.engine
    if request.param.endswith("watched"):
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
    yield db
    await db.close()
    await engine.dispose()


@pytest.fixture
async def blocked(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Another client holds every table."""
    other = await asyncpg.connect(dsn)
    await other.execute("BEGIN; LOCK TABLE interoception_factors, qortex_vectors")
    yield other
    await other.close()


async def test_calls_have_less_time_than_others(
    anyones: Database, blocked: asyncpg.Connection
) -> None:
    quick, patient = anyones.options(timeout_seconds=0.1), anyones.options(lock_timeout_seconds=0.1)
    async with asyncio.timeout(20):  # the engine's own limit is a minute
        for view, error in ((quick, QueryTimeoutError), (patient, LockTimeoutError)):
            for call in (
                view.factors.load(),
                view.factors.save({"n": 1.0}),
                view.vectors.upsert(ROWS),
                view.vectors.search(VECTOR),
            ):
                with pytest.raises(error):
                    await call
            async with view.unit_of_work() as uow:
                for each in (uow.factors.load, lambda uow=uow: uow.vectors.upsert(ROWS)):
                    with pytest.raises(error):
                        async with uow.session.begin_nested():
                            await each()
    await blocked.execute("ROLLBACK")
    assert await quick.vectors.upsert(ROWS) == 300
    both = quick.options(lock_timeout_seconds=5)
    assert await both.vectors.count() == 300
    async with both.unit_of_work() as uow:
        show = text("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
        assert tuple((await uow.session.execute(show)).one()) == ("100ms", "5s")
        async with uow.options(timeout_seconds=0.05), uow.session.begin_nested():
            assert tuple((await uow.session.execute(show)).one()) == ("50ms", "5s")
    async with anyones.unit_of_work() as uow:  # nothing of it is left on the connections
        assert tuple((await uow.session.execute(show)).one()) == ("0", "0")


@pytest.mark.parametrize("watched", [False, True])
async def test_calls_have_more_time_than_others(
    dsn: str, blocked: asyncpg.Connection, *, watched: bool
) -> None:
    async with Database.connect(Settings(dsn=dsn, statement_timeout_seconds=0.3)) as db:
        if watched:
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        patient = db.options(timeout_seconds=20)
        calls = asyncio.gather(patient.factors.load(), patient.vectors.upsert(ROWS))
        await asyncio.sleep(0.6)
        await blocked.execute("ROLLBACK")
        assert await calls == [{}, 300]
        await blocked.execute("BEGIN; LOCK TABLE interoception_factors")
        with pytest.raises(QueryTimeoutError):  # nothing of it is left
            await asyncio.gather(*(db.factors.load() for _ in range(3)))


async def test_some_calls_of_a_unit_of_work_have_less_time(
    anyones: Database, blocked: asyncpg.Connection
) -> None:
    show = text("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")

    async def limited(uow: UnitOfWork) -> None:
        async with uow.options(timeout_seconds=30, lock_timeout_seconds=0.1):
            assert tuple((await uow.session.execute(show)).one()) == ("30s", "100ms")
            await uow.factors.load()

    async with AsyncSession(anyones.engine) as session:
        uow = UnitOfWork(session)
        await session.execute(text("SET LOCAL lock_timeout = '7s'"))
        with pytest.raises(LockTimeoutError):
            async with session.begin_nested():
                await limited(uow)
        assert tuple((await session.execute(show)).one()) == ("0", "7s")
        await blocked.execute("ROLLBACK")
        await limited(uow)
        assert tuple((await session.execute(show)).one()) == ("0", "7s")


async def test_a_whole_unit_of_work_has_its_time(anyones: Database, dsn: str) -> None:
    async def work(*, wait: float) -> None:
        async with anyones.unit_of_work(timeout_seconds=0.3) as uow:
            await uow.factors.save({"n": 1.0})
            await asyncio.sleep(wait)

    await work(wait=0)
    assert await anyones.factors.delete(["n"]) == 1
    with pytest.raises(QueryTimeoutError, match="timeout_seconds was up"):
        await work(wait=5)
    assert await anyones.factors.load() == {}

    async def own_limit() -> None:
        async with anyones.unit_of_work(timeout_seconds=5) as uow:
            await uow.factors.save({"n": 1.0})
            async with asyncio.timeout(0.01):
                await asyncio.sleep(1)

    with pytest.raises(TimeoutError):  # the block's own
        await own_limit()

    async def cancelled() -> None:
        async with anyones.unit_of_work(timeout_seconds=5) as uow:
            await uow.factors.save({"n": 1.0})
            await asyncio.sleep(5)

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await anyones.factors.load() == {}
    assert anyones.engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    other = await asyncpg.connect(dsn)
    # A trigger that is due at COMMIT keeps it from ending.
    await other.execute(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(5); RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON interoception_factors "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()"
    )
    await other.close()
    with pytest.raises(OutcomeUnknownError, match="during COMMIT") as caught:
        await work(wait=0)
    assert await caught.value.resolve(anyones) is False

    async def closed() -> None:
        async with anyones.unit_of_work() as uow:
            await uow.factors.save({"n": 1.0})

    task = asyncio.create_task(closed())
    await asyncio.sleep(0.2)
    await anyones.close(grace_seconds=0)
    with pytest.raises(OutcomeUnknownError, match="closed during COMMIT") as caught:
        await task
    await anyones.open()
    assert await caught.value.resolve(anyones) is False


async def test_limits_are_numbers_of_seconds(anyones: Database) -> None:
    bad: Any
    for bad in (0, -1, "1", True, float("nan"), float("inf"), 90_000):
        for call in (
            lambda bad=bad: anyones.options(timeout_seconds=bad),
            lambda bad=bad: anyones.options(lock_timeout_seconds=bad),
            lambda bad=bad: anyones.unit_of_work(timeout_seconds=bad),
        ):
            with pytest.raises(InvalidInputError, match="_seconds"):
                call()
