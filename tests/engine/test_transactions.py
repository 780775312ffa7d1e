"""How units of work end: what was lost says so, and no error of a block's own is replaced."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from qortex_db import (
    Database,
    InFailedTransactionError,
    LockTimeoutError,
    OutcomeUnknownError,
    QortexDbError,
    QueryTimeoutError,
    Settings,
    UnavailableError,
    UnitOfWork,
    unit_of_work,
)
from qortex_db import engine as engines
from qortex_db.engine import create_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

VECTOR = [1.0] * 8
KINDS = ["ours", "watched", "hosts", "hosts-watched"]


def engine_of(dsn: str, **options: Any) -> AsyncEngine:
    target = Settings(dsn=dsn).target()
    assert target is not None
    return create_async_engine(target.url, **options)


@pytest.fixture(params=KINDS)
async def anyones(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Database]:
    """Our engine and a host's, watched by a listener and not."""
    if request.param.startswith("ours") or request.param == "watched":
        db = Database.connect(Settings(dsn=dsn))
        await db.open()
    else:
        db = Database.from_engine(engine_of(dsn, pool_size=3))
    engine = db.engine
    if request.param.endswith("watched"):
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
    yield db
    await db.close()
    await engine.dispose()


async def lock_timeout(uow: UnitOfWork, dsn: str) -> None:
    """A call of ours that meets a server's error."""
    other = await asyncpg.connect(dsn)
    await other.execute("BEGIN; LOCK TABLE interoception_edge_buffer")
    try:
        await uow.session.execute(text("SET LOCAL lock_timeout = '20ms'"))
        await uow.edges.record("a", "b", score=1.0)
    finally:
        await other.close()


async def by_zero(uow: UnitOfWork, _dsn: str) -> None:
    await uow.session.execute(text("SELECT 1/0"))


FAILURES: dict[str, tuple[Callable[[UnitOfWork, str], Awaitable[None]], type[Exception]]] = {
    "a call of ours": (lock_timeout, LockTimeoutError),
    "a host's own": (by_zero, Exception),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_unit_of_work_that_lost_everything_says_so(
    anyones: Database, dsn: str, kind: str
) -> None:
    fail, error = FAILURES[kind]
    await anyones.factors.save({"before": 1.0})

    async def work() -> None:
        async with anyones.unit_of_work() as uow:
            await uow.factors.save({"lost": 2.0})
            with pytest.raises(error):
                await fail(uow, dsn)

    with pytest.raises(InFailedTransactionError, match="aborted") as caught:
        await work()
    expected = LockTimeoutError if kind == "a call of ours" else type(None)
    assert isinstance(caught.value.__cause__, expected)
    assert await anyones.factors.load() == {"before": 1.0}
    assert anyones.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_savepoint_heals_what_failed_in_it(anyones: Database, dsn: str, kind: str) -> None:
    fail, error = FAILURES[kind]

    async def inside(uow: UnitOfWork) -> None:
        async with unit_of_work(uow.session) as inner:
            await inner.factors.save({"undone": 1.0})
            await fail(inner, dsn)

    async with anyones.unit_of_work() as uow:
        await uow.factors.save({"kept": 2.0})
        with pytest.raises(error):
            async with uow.session.begin_nested():
                await fail(uow, dsn)
        with pytest.raises(error):
            await inside(uow)
    assert await anyones.factors.load() == {"kept": 2.0}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_savepoint_that_lost_everything_says_so_and_the_host_goes_on(
    anyones: Database, dsn: str, kind: str
) -> None:
    fail, error = FAILURES[kind]

    async def work(session: AsyncSession) -> None:
        async with unit_of_work(session) as uow:
            await uow.factors.save({"lost": 2.0})
            with pytest.raises(error):
                await fail(uow, dsn)

    async with AsyncSession(anyones.engine) as session:
        await UnitOfWork(session).factors.save({"host": 1.0})
        with pytest.raises(InFailedTransactionError) as caught:
            await work(session)
        expected = LockTimeoutError if kind == "a call of ours" else type(None)
        assert isinstance(caught.value.__cause__, expected)
        await session.commit()
    assert await anyones.factors.load() == {"host": 1.0}


async def test_commits_after_a_lost_one_are_a_hosts_own(dsn: str) -> None:
    engine = engine_of(dsn, pool_size=1, max_overflow=0)
    db = Database.from_engine(engine)

    async def lose() -> None:
        async with db.unit_of_work() as uow:
            with pytest.raises(Exception, match="division"):
                await by_zero(uow, dsn)

    with pytest.raises(InFailedTransactionError):
        await lose()
    async with db.unit_of_work() as uow:
        await uow.factors.save({"n": 1.0})
    async with engine.connect() as connection:
        held: Any = await connection.get_raw_connection()
        assert type(held.driver_connection) is asyncpg.Connection
        with pytest.raises(Exception, match="division"):
            await connection.execute(text("SELECT 1/0"))
        await connection.commit()  # as always: what a host commits itself, it looks after itself
    await engine.dispose()


async def test_a_unit_of_work_of_another_database_session_in_error_says_so(
    anyones: Database,
) -> None:
    """A flush that failed leaves the session itself in need of a rollback."""

    async def work() -> None:
        async with anyones.unit_of_work() as uow:
            with pytest.raises(Exception, match="division"):
                await by_zero(uow, "")
            with pytest.raises(InFailedTransactionError):
                await uow.vectors.search(VECTOR)
            with pytest.raises(InFailedTransactionError):
                await uow.factors.save({"n": 1.0})

    with pytest.raises(InFailedTransactionError):
        await work()


# Connecting and ending


async def ways(uow: UnitOfWork) -> list[Callable[[], Any]]:
    return [
        lambda: uow.vectors.search(VECTOR),
        uow.factors.load,
        lambda: uow.vectors.upsert([{"id": "a", "embedding": VECTOR}]),
        lambda: uow.arms.observe("l", "a", reward=1.0),
        uow.vectors.count,
    ]


@pytest.mark.parametrize("kind", ["ours", "hosts"])
async def test_every_way_of_connecting_in_a_unit_of_work_is_typed(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(engines, "RETRY_SECONDS", 0.2)  # of a host's
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    closing = server.sockets[0].getsockname()[1]
    silent = socket.create_server(("127.0.0.1", 0))  # the system takes connections for it
    unanswered = silent.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = gone.getsockname()[1]
    for port in (closing, unanswered, nobody):
        dsn = f"postgresql://u:p@127.0.0.1:{port}/d?ssl=disable"
        settings = Settings(dsn=dsn, connect_timeout_seconds=0.2, retry_seconds=0, pool_min_size=0)
        if kind == "ours":
            db = Database.connect(settings)
            target = settings.target()
            assert target is not None
            db._bind(create_engine(target, settings, ()), ())
        else:
            db = Database.from_engine(engine_of(dsn, connect_args={"timeout": 0.2}))
        async with db.unit_of_work() as uow:
            for way in await ways(uow):
                with pytest.raises(QortexDbError) as caught:
                    await way()
                assert isinstance(caught.value, (UnavailableError, QueryTimeoutError)), port
        await db.engine.dispose()
    server.close()
    silent.close()


async def test_a_blocks_own_exception_outlives_a_connection_that_is_gone(
    anyones: Database, dsn: str
) -> None:
    async def killed(session: AsyncSession) -> None:
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        other = await asyncpg.connect(dsn)
        await other.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        await other.close()

    async def own() -> None:
        async with anyones.unit_of_work() as uow:
            await uow.factors.save({"n": 1.0})
            await killed(uow.session)
            raise KeyError("the block's own")

    async def in_a_session(session: AsyncSession) -> None:
        async with unit_of_work(session) as uow:
            await uow.factors.save({"n": 1.0})
            await killed(session)
            raise KeyError("the block's own")

    with pytest.raises(KeyError, match="own"):
        await own()
    session = AsyncSession(anyones.engine)
    with pytest.raises(KeyError, match="own"):
        await in_a_session(session)
    await session.invalidate()

    async def committed() -> None:
        async with anyones.unit_of_work() as uow:
            await uow.factors.save({"n": 1.0})
            await killed(uow.session)

    with pytest.raises((OutcomeUnknownError, UnavailableError)):
        await committed()

    async def caught_and_went_on() -> None:
        async with anyones.unit_of_work() as uow:
            await uow.factors.save({"n": 1.0})
            await killed(uow.session)
            with pytest.raises(UnavailableError):
                await uow.factors.load()
            with pytest.raises(QortexDbError):
                await uow.factors.load()

    with pytest.raises(QortexDbError) as lost:
        await caught_and_went_on()
    assert not isinstance(lost.value, OutcomeUnknownError)
    assert await anyones.factors.load() == {}
