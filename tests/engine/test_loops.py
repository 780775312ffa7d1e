"""A Database in several event loops, threads and processes."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import NullPool, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import (
    Database,
    DatabaseClosedError,
    QueryTimeoutError,
    Settings,
    WrongLoopError,
)
from support.commands import program

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

EMBEDDING = [0.5] * 384
ROWS: list[dict[str, Any]] = [{"id": f"v{i}", "embedding": EMBEDDING} for i in range(400)]
KINDS = ["own", "watched", "hosts"]


def nowhere(dsn: str, kind: str = "own", **options: Any) -> Database:
    """A Database that keeps no connections."""
    settings = Settings(dsn=dsn, pool="null", **options)
    if kind != "hosts":
        return Database.connect(settings)
    target = settings.target()
    assert target is not None
    return Database.from_engine(create_async_engine(target.url, poolclass=NullPool))


async def opened(db: Database, kind: str) -> None:
    await db.open()
    if kind == "watched":
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)


async def everything(db: Database) -> None:
    """Each way by which connections are used, at real sizes."""
    rows = [{**row, "payload": {"by": uuid.uuid4().hex}} for row in ROWS]
    assert await db.vectors.upsert(rows) == len(ROWS)
    assert await db.vectors.ingest(iter(ROWS), batch_size=150) == len(ROWS)
    assert len(await db.vectors.search(EMBEDDING, limit=5)) == 5
    assert len([each async for each in db.vectors.stream(batch_size=150)]) == len(ROWS)
    async with db.unit_of_work() as uow:
        await uow.factors.adjust({"node": "accepted"})
        assert len(await uow.vectors.get(["v1", "v2"])) == 2
    assert (await db.arms.observe("learner", "arm", reward=1.0)).pulls > 0
    status = await db.status()
    assert status.pool == {"checked_out": 0, "idle": 0, "max": 0}


async def backends(dsn: str) -> int:
    other = await asyncpg.connect(dsn)
    try:
        count = """
            SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        """
        for _ in range(200):  # a backend ends a little later than its connection
            left: int = await other.fetchval(count)
            if not left:
                break
            await asyncio.sleep(0.02)
        return left
    finally:
        await other.close()


@pytest.fixture
def nothing_left(dsn384: str) -> Iterator[None]:
    """No connection is open afterwards; a ResourceWarning is an error of the test anyway."""
    yield
    gc.collect()
    assert asyncio.run(backends(dsn384)) == 0


def in_threads(*works: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Each in an event loop of its own, all begun at the same time."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        barrier.wait()
        return asyncio.run(work())

    with ThreadPoolExecutor(len(works)) as pool:
        return [each.result() for each in [pool.submit(run, work) for work in works]]


# Without connections that are kept


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_pool_it_is_used_in_loop_after_loop(dsn384: str, kind: str) -> None:
    db = nowhere(dsn384, kind)
    asyncio.run(opened(db, kind))
    assert asyncio.run(backends(dsn384)) == 0  # nothing of opening stays
    for _ in range(2):
        asyncio.run(everything(db))
    asyncio.run(db.open())
    asyncio.run(db.close())
    asyncio.run(db.close())
    with pytest.raises(DatabaseClosedError):
        asyncio.run(db.vectors.count())
    asyncio.run(opened(db, kind))  # begins anew
    asyncio.run(everything(db))
    asyncio.run(db.close())


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_pool_threads_open_it_use_it_and_close_it_at_once(dsn384: str, kind: str) -> None:
    db = nowhere(dsn384, kind)
    if kind == "hosts":  # SQLAlchemy learns of the server at the first connection, in one loop
        asyncio.run(db.factors.load())

    async def work() -> None:
        await opened(db, kind)
        for i in range(5):
            await asyncio.gather(*(db.factors.save({f"{i}": 1.0}) for _ in range(3)))
            async with db.unit_of_work() as uow:
                await uow.arms.observe("learner", "arm", reward=1.0)

    in_threads(*[work] * 4)

    async def pulls() -> int:
        return (await db.arms.get("learner", "arm")).pulls

    assert asyncio.run(pulls()) == 20
    in_threads(*[db.close] * 4)


@pytest.mark.usefixtures("nothing_left")
def test_without_a_pool_limits_codec_and_path_hold(dsn384: str) -> None:
    db = nowhere(dsn384, statement_timeout_seconds=0.2, retry_seconds=0)

    async def prepare() -> None:
        other = await asyncpg.connect(dsn384)
        database = await other.fetchval("SELECT quote_ident(current_database())")
        await other.execute(f"""
            CREATE SCHEMA shared; GRANT CREATE ON SCHEMA shared TO PUBLIC;
            ALTER DATABASE {database} SET search_path = shared, public
        """)
        await other.close()
        await db.open()
        await db.vectors.upsert(ROWS[:1])

    async def work() -> None:
        other = await asyncpg.connect(dsn384)
        assert await other.fetchval("SHOW search_path") == "shared, public"
        async with db.unit_of_work() as uow:
            path = str(await uow.session.scalar(text("SHOW search_path")))
        assert "public" in path
        assert "shared" not in path
        assert (await db.status()).open_schemas == []
        (hit,) = await db.vectors.search(EMBEDDING, limit=1, with_embedding=True)
        assert hit.embedding is not None
        assert hit.embedding.tolist() == EMBEDDING
        await other.execute("BEGIN; LOCK TABLE interoception_factors")
        with pytest.raises(QueryTimeoutError):
            await db.factors.load()
        with pytest.raises(QueryTimeoutError):
            async with db.unit_of_work() as uow:
                await uow.factors.load()
        with pytest.raises(QueryTimeoutError):
            async with db.unit_of_work(timeout_seconds=0.05):
                await asyncio.sleep(5)
        await other.close()

    asyncio.run(prepare())
    for _ in range(2):
        asyncio.run(work())
    asyncio.run(db.close())


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_ends_amid_a_call_leaves_nothing(dsn384: str, kind: str) -> None:
    db = nowhere(dsn384, kind)

    async def cut_short() -> None:
        await opened(db, kind)
        other = await asyncpg.connect(dsn384)
        await other.execute("BEGIN; LOCK TABLE interoception_factors, qortex_vectors")

        async def unit() -> None:
            async with db.unit_of_work() as uow:
                await uow.factors.save({"a": 1.0})

        tasks = [
            asyncio.ensure_future(each)
            for each in (db.factors.load(), db.vectors.upsert(ROWS), unit())
        ]
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while await other.fetchval(waiting) < len(tasks):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await other.close()  # asyncio.run cancels the tasks

    asyncio.run(cut_short())
    asyncio.run(everything(db))
    asyncio.run(db.close())


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kind", KINDS)
def test_closing_in_a_loop_waits_for_another_ones_calls_then_cancels_them(
    dsn384: str, kind: str
) -> None:
    db = nowhere(dsn384, kind)
    asyncio.run(opened(db, kind))
    begun = threading.Event()

    async def finishes() -> str:
        async with db.unit_of_work() as uow:
            await uow.factors.save({"done": 1.0})
            begun.set()
            await asyncio.sleep(0.3)
        return "done"

    async def never_ends() -> str:
        try:
            async with db.unit_of_work() as uow:
                await uow.factors.save({"lost": 1.0})
                begun.set()
                await asyncio.sleep(60)
        except DatabaseClosedError:
            await asyncio.sleep(0)  # its cancellation was the Database's alone
            return "closed"
        return "too late"

    async def close(grace_seconds: float) -> None:
        while not begun.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await db.close(grace_seconds=grace_seconds)

    assert in_threads(finishes, lambda: close(30)) == ["done", None]
    begun.clear()
    asyncio.run(opened(db, kind))
    assert in_threads(never_ends, lambda: close(0)) == ["closed", None]
    asyncio.run(db.open())
    assert set(asyncio.run(db.factors.load())) == {"done"}
    asyncio.run(db.close())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # pytest may have threads
@pytest.mark.usefixtures("nothing_left")
def test_without_a_pool_children_of_a_fork_work(dsn384: str) -> None:
    db = nowhere(dsn384)
    asyncio.run(db.open())
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_in_child, args=(db,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    asyncio.run(everything(db))
    asyncio.run(db.close())


def _in_child(db: Database) -> None:
    asyncio.run(everything(db))
    asyncio.run(db.open())
    asyncio.run(db.close())


# With a pool


def test_opening_and_closing_elsewhere_name_the_remedy(dsn384: str) -> None:
    db = Database.connect(Settings(dsn=dsn384))
    with asyncio.Runner() as home, asyncio.Runner() as other:
        home.run(db.open())
        for call in (db.open, db.close, db.factors.load, db.status, db.__aenter__):
            for run in (other.run, lambda work: in_threads(lambda: work)):
                with pytest.raises(WrongLoopError, match=r'another event loop.*pool="null"'):
                    run(call())
        assert home.run(db.factors.load()) == {}
        home.run(db.close())
        other.run(db.open())  # closed, it belongs to nobody
        assert other.run(db.factors.load()) == {}
        other.run(db.close())


def test_opening_in_two_loops_at_once_is_told_apart(dsn384: str) -> None:
    for pool in ("fair", "null"):
        db = Database.connect(Settings(dsn=dsn384, pool=pool))

        async def begin(db: Database = db) -> asyncio.Task[Any]:
            task = asyncio.create_task(db.open())
            await asyncio.sleep(0)
            return task

        async def end(task: asyncio.Task[Any]) -> None:
            await task

        with asyncio.Runner() as home, asyncio.Runner() as other:
            opening = home.run(begin())
            for call in (db.open, db.close):  # the other loop stands still: there is no waiting
                with pytest.raises(WrongLoopError, match=r'opened or closed.*pool="null"'):
                    other.run(call())
            home.run(end(opening))
            home.run(db.close())

    db = Database.connect(Settings(dsn=dsn384))

    async def outcome() -> str:
        try:
            await asyncio.gather(*(db.open() for _ in range(3)))
        except WrongLoopError:
            return "told"
        await asyncio.sleep(0.3)
        assert await db.factors.load() == {}
        await db.close()
        return "opened"

    assert sorted(in_threads(*[outcome] * 3)) == ["opened", "told", "told"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # pytest may have threads
def test_a_child_can_neither_open_nor_close_its_parents(dsn384: str) -> None:
    db = Database.connect(Settings(dsn=dsn384))
    with asyncio.Runner() as runner:
        runner.run(db.open())
        fork = multiprocessing.get_context("fork")
        child = fork.Process(target=_refused_in_child, args=(db,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert runner.run(db.factors.load()) == {}
        runner.run(db.close())


def _refused_in_child(db: Database) -> None:
    for call in (db.open, db.close, db.factors.load):
        try:
            asyncio.run(call())
        except WrongLoopError as error:
            if "another process" in str(error):
                continue
        os._exit(1)

    async def own() -> None:
        assert db._settings is not None
        async with Database.connect(db._settings) as mine:
            assert await mine.factors.load() == {}

    asyncio.run(own())
    os._exit(0)


# The environment


async def test_the_environment_says_so_to_the_commands(dsn384: str) -> None:
    command = (sys.executable, "-m", "qortex_db", "status")
    done = await program(*command, PGVECTOR_DSN=dsn384, QORTEX_DB_POOL="null")
    assert "none: each call connects" in done.out, done.err
