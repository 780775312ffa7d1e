"""Through real PgBouncers: every call, of several processes, and what is said where none can be."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, PoolerError, Settings, UnavailableError, migrations
from support.poolers import BOUNCERS, NOT_THERE, Bouncer, through
from support.servers import execute, new_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db.testing import Server

HERE = Path(__file__).parent
ROLE = "pooled_service"
# PgBouncer sets these anew for each client.
TRACKED = {
    "application_name", "client_encoding", "DateStyle", "IntervalStyle",
    "standard_conforming_strings", "TimeZone",
}  # fmt: skip
LEFT = """
SELECT name || ' = ' || setting FROM pg_settings WHERE source = 'session'
UNION ALL SELECT 'advisory lock' FROM pg_locks
  WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'table ' || relname FROM pg_class
  WHERE relpersistence = 't' AND relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
"""
pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
bouncers = pytest.mark.parametrize(
    "bouncer",
    BOUNCERS or [pytest.param(None, marks=pytest.mark.skip(reason=NOT_THERE))],
    ids=str,
)


@pytest.fixture(scope="module")
def calls() -> Iterator[Any]:
    sys.path[:0] = [str(HERE), str(HERE.parents[1] / "docs")]
    import pooler_worker  # noqa: PLC0415

    yield pooler_worker
    del sys.path[:2]


@pytest.fixture(scope="module", autouse=True)
def role(server: Server) -> Iterator[None]:
    execute(server, f"CREATE ROLE {ROLE} LOGIN SUPERUSER")
    yield
    execute(server, f"DROP ROLE {ROLE}")


@pytest.fixture(scope="module")
def schemas(server: Server, calls: Any) -> Iterator[str]:
    """A database in which each of four has its tables in a schema of its own."""
    name = new_name("pooled")
    execute(server, f'CREATE DATABASE "{name}"')
    dsn = server.dsn(name)

    async def make() -> None:
        for schema in "abcd":
            execute(server, f"CREATE SCHEMA {schema}", database=name)
            settings = Settings(dsn=dsn, db_schema=schema, dimensions=8)
            await migrations.upgrade(settings)
            async with Database.connect(settings) as db, db.engine.begin() as connection:
                await connection.execution_options(schema_translate_map={None: schema})
                await connection.run_sync(calls.page.Base.metadata.create_all)

    asyncio.run(make())
    yield dsn
    execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def as_role(dsn: str) -> str:
    return re.sub(r"//[^@/]*@", f"//{ROLE}@", dsn)


def needed(bouncer: Bouncer) -> tuple[str, str]:
    """What is set here, and in the pooler, so that statements are run where they were prepared."""
    if bouncer.keeps_statements:
        return "", "max_prepared_statements = 200"
    return "transaction", ""


async def worked(dsn: str, schema: str, pooler: str, lanes: tuple[str, ...]) -> dict[str, Any]:
    """What another process was told, by lane and call."""
    worker = HERE / "pooler_worker.py"
    given = (dsn, schema, pooler, json.dumps(lanes))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(worker), *given, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


async def leftovers(dsn: str, until: asyncio.Future[Any]) -> tuple[set[str], set[int]]:
    """What sessions have besides what a client has set for its transaction; and their numbers."""
    seen, sessions = set[str](), set[int]()
    held = [await asyncpg.connect(dsn, statement_cache_size=0) for _ in range(2)]
    last = False
    while not last:
        last = until.done()
        transactions = [connection.transaction() for connection in held]
        for each in transactions:
            await each.start()
        for connection in held:
            seen |= {row[0] for row in await connection.fetch(LEFT)}
            sessions.add(await connection.fetchval("SELECT pg_backend_pid()"))
        for each in transactions:
            await each.rollback()
        await asyncio.sleep(0.2)
    for connection in held:
        await connection.close()
    return {one for one in seen if one.partition(" =")[0] not in TRACKED}, sessions


@bouncers
def test_every_call_of_three_processes_gives_what_it_gives_directly_and_leaves_nothing(
    schemas: str, calls: Any, bouncer: Bouncer
) -> None:
    """In all lanes, over fewer sessions than processes."""
    pooler, more = needed(bouncer)
    lanes = dict(zip("abc", (calls.LANES[:2], calls.LANES[2:], calls.HOSTED), strict=True))

    async def run() -> tuple[dict[str, Any], list[dict[str, Any]], tuple[set[str], set[int]]]:
        direct = asyncio.create_task(worked(as_role(schemas), "d", "", calls.LANES[:2]))
        async with through(bouncer, schemas, ROLE, size=2, more=more) as there:
            work = asyncio.gather(*(worked(there, s, pooler, of) for s, of in lanes.items()))
            left = await leftovers(there, work)
        return await direct, await work, left

    direct, found, (left, sessions) = asyncio.run(run())
    assert len(direct["alone"]) > 350
    for each in found:
        for (lane, told), wanted in zip(each.items(), direct.values(), strict=True):
            differ = {key: (wanted[key], told[key]) for key in wanted if told[key] != wanted[key]}
            assert differ == {}, lane
            assert told.keys() == wanted.keys()
    assert left == set()
    assert len(sessions) == 2


@bouncers
@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
async def test_a_lost_prepared_statement_names_what_to_set(
    dsn: str, bouncer: Bouncer, *, watched: bool
) -> None:
    more = "max_prepared_statements = 0" if bouncer.keeps_statements else ""
    met: list[PoolerError] = []
    async with through(bouncer, dsn, ROLE, size=2, more=more) as there:
        for _ in range(20):
            try:
                async with Database.connect(Settings(dsn=there, pool_min_size=0)) as db:
                    if watched:
                        event.listen(
                            db.engine.sync_engine, "before_cursor_execute", lambda *_: None
                        )
                    for _ in range(3):
                        counting = (db.vectors.count() for _ in range(6))
                        await asyncio.gather(*counting)
                        async with db.unit_of_work() as uow:
                            await uow.factors.save({"a": 1.0})
            except PoolerError as error:
                met.append(error)
        assert met
        for error in met:
            assert error.sqlstate in {"26000", "42P05"}
            for name in ('Settings(pooler="transaction")', "prepared_statement_cache_size=0"):
                assert name in str(error)
        async with Database.connect(Settings(dsn=there, pooler="transaction")) as db:
            for _ in range(5):
                await asyncio.gather(*(db.vectors.count() for _ in range(6)))
                async with db.unit_of_work() as uow:
                    await uow.factors.save({"a": 1.0})


@bouncers
async def test_options_through_a_pooler_are_named_at_once(dsn: str, bouncer: Bouncer) -> None:
    async with through(bouncer, dsn, ROLE, size=2) as there:
        options = f"{there}&options=-c%20work_mem%3D8MB"
        with pytest.raises(PoolerError, match=r"unsupported startup parameter.*work_mem") as caught:
            await Database.connect(Settings(dsn=options, retry_seconds=600)).open()
        assert "with_settings" in str(caught.value)
        assert "127.0.0.1" in str(caught.value)
        target = Settings(dsn=options).target()
        assert target is not None
        engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
        db = Database.from_engine(engine)
        with pytest.raises(PoolerError, match="unsupported startup parameter"):
            await db.vectors.count()
        with pytest.raises(PoolerError, match="unsupported startup parameter"):
            async with db.unit_of_work() as uow:
                await uow.vectors.count()
        await engine.dispose()


@bouncers
@pytest.mark.parametrize(
    ("more", "words", "kind"),
    [
        ("", "default_pool_size.*QORTEX_DB_POOL_MAX_SIZE", UnavailableError),
        ("query_wait_timeout = 1", "query_wait_timeout.*default_pool_size", PoolerError),
        ("max_client_conn = 2", "no more connections allowed.*max_client_conn", PoolerError),
    ],
    ids=["waits", "gives up", "full"],
)
async def test_a_session_pool_that_is_too_small_says_so(
    dsn: str, bouncer: Bouncer, more: str, words: str, kind: type[UnavailableError]
) -> None:
    settings: dict[str, Any] = {"connect_timeout_seconds": 2, "retry_seconds": 0}
    async with through(bouncer, dsn, ROLE, size=2, mode="session", more=more) as there:
        async with Database.connect(Settings(dsn=there, **settings)) as db:
            calls = [db.vectors.count() for _ in range(6)]
            met = [one for one in await asyncio.gather(*calls, return_exceptions=True) if one != 0]
        assert met
        for error in met:
            assert isinstance(error, kind)
            assert re.search(words, str(error)), error
        settings["pool_max_size"] = 2
        async with Database.connect(Settings(dsn=there, **settings)) as db:
            assert await asyncio.gather(*(db.vectors.count() for _ in range(6))) == [0] * 6


async def test_nothing_is_set_for_a_session_that_is_others_too(dsn: str) -> None:
    """Where the setting says so; a pooler may give a server's own number for the session."""

    async def jit(**options: Any) -> Any:
        settings = Settings(dsn=dsn, **options)
        async with Database.connect(settings) as db, db.engine.connect() as connection:
            return (await connection.execute(text("SHOW jit"))).scalar()

    assert await jit() == "off"
    assert await jit(pooler="transaction") == "on"


async def test_migrations_refuse_a_pooler_in_transaction_mode(dsn: str) -> None:
    pooled = Settings(dsn=dsn, pooler="transaction")
    for work in (migrations.upgrade, migrations.check, migrations.drift, migrations.rebuild_index):
        with pytest.raises(PoolerError, match="PostgreSQL's own port, with QORTEX_DB_POOLER unset"):
            await work(pooled)
