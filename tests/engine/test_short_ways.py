"""What is left out where nobody needs it: greenlets, the pool's proxies, SQLAlchemy's cursors."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from structlog.testing import capture_logs

from qortex_db import (
    Database,
    FairPool,
    InteroceptionFactor,
    QortexDbError,
    QueryTimeoutError,
    Settings,
    UnitOfWork,
    unit_of_work,
)
from qortex_db.engine.connections import lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


VECTOR = [1.0] * 8


def settings_of(dsn: str, **options: Any) -> Settings:
    return Settings(dsn=SecretStr(dsn), **options)


def engine_of(dsn: str, **options: Any) -> Any:
    target = settings_of(dsn).target()
    assert target is not None
    return create_async_engine(target.url, **options)


@pytest.fixture(params=["own", "hosts", "hosts with ours"])
async def anyones(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Database]:
    if request.param == "own":
        db = await Database.connect(settings_of(dsn)).open()
    else:
        options = {"poolclass": FairPool} if request.param.endswith("ours") else {}
        db = Database.from_engine(engine_of(dsn, **options))
    await db.vectors.upsert([{"id": "a", "embedding": VECTOR, "payload": {"k": [1]}}])
    engine = db.engine
    yield db
    await db.close()
    await engine.dispose()


class Counts:
    """How often the long ways were taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.greenlets = self.cursors = 0
        spawn: Any = lease.greenlet_spawn  # type: ignore[attr-defined]
        execute: Any = AsyncAdapt_asyncpg_cursor.execute

        def spawned(*args: Any) -> Any:
            self.greenlets += 1
            return spawn(*args)

        def executed(cursor: Any, *args: Any) -> Any:
            self.cursors += 1
            return execute(cursor, *args)

        monkeypatch.setattr(lease, "greenlet_spawn", spawned)
        monkeypatch.setattr(AsyncAdapt_asyncpg_cursor, "execute", executed)


async def use(of: Database | UnitOfWork) -> None:
    assert len(await of.vectors.search(VECTOR)) == 1
    assert (await of.vectors.get(["a"]))["a"].payload == {"k": [1]}
    await of.factors.adjust({"n": "accepted"})
    assert (await of.arms.observe("l", "a", reward=1.0)).pulls > 0


async def test_an_idle_connection_is_lent_at_once_unless_somebody_listens(
    anyones: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(anyones)
    counts = Counts(monkeypatch)
    await use(anyones)
    assert (counts.greenlets, counts.cursors) == (0, 0)
    engine = anyones.engine.sync_engine
    heard: list[str] = []

    @event.listens_for(engine, "checkin")
    def _back(*_: object) -> None:
        heard.append("in")

    @event.listens_for(engine, "reset")
    def _reset(*_: object) -> None:
        heard.append("reset")

    @event.listens_for(engine, "checkout")
    def _out(connection: Any, *_: object) -> None:  # it awaits, as only a greenlet lets it
        cursor = connection.cursor()
        cursor.execute("SET LOCAL application_name = 'heard'")
        cursor.close()
        heard.append("out")

    await use(anyones)
    assert heard == ["out", "reset", "in"] * 4
    assert counts.greenlets >= 8
    assert anyones.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert (await anyones.arms.get("l", "a")).pulls == 3


async def test_what_is_not_to_be_used_again_is_replaced(dsn: str) -> None:
    engine = engine_of(dsn, pool_size=1, max_overflow=1, pool_recycle=3_600)
    db = Database.from_engine(engine)
    pid = text("SELECT pg_backend_pid()")
    pids = [(await db.executor.run(pid, {})).rows[0][0] for _ in range(2)]
    entry: Any = engine.pool._pool._queue._queue[0]
    entry.starttime -= 4_000
    pids.append((await db.executor.run(pid, {})).rows[0][0])
    entry.invalidate(soft=True)
    pids.append((await db.executor.run(pid, {})).rows[0][0])
    assert pids[0] == pids[1]
    assert len(set(pids)) == 3
    # Beyond its size, the pool closes what comes back.
    assert await asyncio.gather(*(db.vectors.count() for _ in range(2))) == [0, 0]
    assert engine.pool.checkedin() == 1
    await engine.dispose()


async def test_a_call_that_is_thrown_away_leaves_its_connection_to_nobody(dsn: str) -> None:
    async with Database.connect(settings_of(dsn, pool_min_size=1, pool_max_size=1)) as db:
        call: Any = db.executor.run(text("SELECT pg_sleep(30)"), {})
        call.send(None)
        call.close()
        async with asyncio.timeout(5):
            assert await db.factors.load() == {}
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_statements_of_a_unit_of_work_need_no_cursor_unless_somebody_listens(
    anyones: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(anyones)
    counts = Counts(monkeypatch)
    for fails in (False, True):
        before = await anyones.factors.load()
        with suppress(ZeroDivisionError):
            async with anyones.unit_of_work() as uow:
                await uow.factors.save({"first": 2.0 + fails})  # what begins it is inside of it
                await use(uow)
                async with uow.session.begin_nested():
                    await uow.factors.save({"inner": 2.0 + fails})
                assert 1 / (1 - fails)
        assert (await anyones.factors.load() == before) is fails
    assert before["first"] == before["inner"] == 2.0
    savepoints = counts.cursors  # which SQLAlchemy sends
    assert savepoints == 4
    async with AsyncSession(anyones.engine, expire_on_commit=False) as session:
        factor = await session.get_one(InteroceptionFactor, "first")
        factor.weight = 5.0  # flushed before
        counts.cursors = 0
        async with unit_of_work(session) as uow:
            assert (await uow.factors.get(["first"]))["first"] == 5.0
            await uow.factors.save({"first": 7.0})
            assert factor.weight == 7.0  # refreshed after
        await session.rollback()
    event.listen(anyones.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    counts.cursors = 0
    async with anyones.unit_of_work() as uow:
        await use(uow)
    assert counts.cursors == 4


async def test_what_breaks_in_a_unit_of_work_breaks_its_connection(dsn: str) -> None:
    slow = text("SELECT pg_sleep(30)")
    async with Database.connect(settings_of(dsn, statement_timeout_seconds=0.2)) as db:

        async def late(seconds: float) -> None:
            async with db.unit_of_work() as uow:
                await uow.factors.save({"n": 1.0})
                connection = await uow.session.connection()
                async with asyncio.timeout(seconds):
                    try:
                        await uow.executor.run(slow, {})
                    finally:
                        assert connection.invalidated

        with pytest.raises(QueryTimeoutError):
            await late(5)
        with pytest.raises(TimeoutError):
            await late(0.05)
        assert await db.factors.load() == {}
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_a_unit_of_work_without_a_statement_leaves_its_connection_as_it_was(
    anyones: Database,
) -> None:
    for _ in range(3):
        async with anyones.unit_of_work() as uow:
            connection = await uow.session.connection()
            proxy = await connection.get_raw_connection()
            kind = type(proxy.driver_connection)
            assert kind.__mro__.index(object) < 6
        async with anyones.unit_of_work():
            pass
    async with anyones.unit_of_work() as uow:
        connection = await uow.session.connection()
        driver = (await connection.get_raw_connection()).driver_connection
        assert type(driver) is kind


async def test_a_host_is_told_once_of_a_pool_that_rotates(dsn: str) -> None:
    for options, told in (({}, 1), ({"pool_use_lifo": True}, 0), ({"poolclass": FairPool}, 0)):
        engine = engine_of(dsn, **options)
        with capture_logs() as logs:
            for _ in range(2):
                Database.from_engine(engine)
        assert [each["event"] for each in logs] == ["host_pool_rotates_connections"] * told
        await engine.dispose()


async def test_a_cancellation_while_a_failed_call_is_rolled_back_loses_no_connection(
    dsn: str,
) -> None:
    settings = settings_of(dsn, pool_min_size=1, pool_max_size=1, pool_timeout_seconds=3)
    async with Database.connect(settings) as db:
        view = db.with_settings({"app.tenant": "a"})
        for seconds in (0.0005, 0.001, 0.002, 0.003, 0.004, 0.006):
            for _ in range(5):
                with suppress(TimeoutError, QortexDbError):
                    async with asyncio.timeout(seconds):
                        await view.arms.observe("l", "a", reward=1.0)
                        await view.vectors.upsert([{"id": "a", "embedding": VECTOR, "payload": {}}])
                        await view.executor.run(text("SELECT 1 / 0"), {})
        assert await db.vectors.count() <= 1  # the one connection is there
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_what_waits_for_its_turn_when_the_unit_of_work_ends_is_not_run(dsn: str) -> None:
    settings = settings_of(dsn, pool_min_size=1, pool_max_size=1)
    async with Database.connect(settings) as db:
        async with db.unit_of_work() as uow:
            await uow.factors.load()
            late = [asyncio.ensure_future(uow.factors.save({f"n{i}": 2.0})) for i in range(50)]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        await db.vectors.count()  # which would commit what another left behind
        stored = await db.factors.load()
        said = sum(outcome is None for outcome in outcomes)
        assert len(stored) <= said
        assert all(isinstance(one, (QortexDbError, type(None))) for one in outcomes), outcomes
        async with db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert not driver.is_in_transaction()  # type: ignore[union-attr]


async def test_a_pools_reset_listener_hears_every_call(dsn: str) -> None:
    engine = engine_of(dsn)
    heard: list[str] = []
    event.listen(engine.sync_engine, "reset", lambda *_: heard.append("reset"))
    async with Database.from_engine(engine) as db:
        for _ in range(3):
            await db.factors.load()
    await engine.dispose()
    assert len(heard) >= 3
