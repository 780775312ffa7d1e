"""Upgrades of tables that are filled and in use, by one process or by many."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from qortex_db import LockTimeoutError, Settings, UnavailableError, migrations
from qortex_db.migrations import busy_tables
from qortex_db.migrations.connection import migration_engine
from support.catalogue import catalogue, execute, rows
from support.commands import BIN, ROOT, Result, alembic, program
from support.servers import copied, new_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from qortex_db.testing import Server

pytestmark = pytest.mark.slow

HISTORY = [
    script.revision
    for script in reversed(list(ScriptDirectory(str(migrations.locate())).walk_revisions()))
]
FILL = """
INSERT INTO qortex_vectors (id, vec)
SELECT 'v' || n, array_fill(n::real, ARRAY[8])::vector FROM generate_series(1, 5000) n
"""
WORK = (
    "SELECT id FROM qortex_vectors ORDER BY vec <=> '[1,2,3,4,5,6,7,8]' LIMIT 10",
    """INSERT INTO qortex_vectors (id, vec) VALUES ('new', '[1,2,3,4,5,6,7,8]')
       ON CONFLICT (id) DO UPDATE SET vec = excluded.vec""",
    "UPDATE interoception_factors SET weight = weight + 1",
    """INSERT INTO learning_arm_states (learner_name, context_hash, arm_id)
       VALUES ('l', 'c', 'a') ON CONFLICT DO NOTHING""",
    "SELECT count(*) FROM interoception_edge_buffer",
)
BUSY = ("QORTEX_DB_MIGRATION_TIMEOUT_SECONDS", "too busy to migrate")


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - the server sends no event
            await asyncio.sleep(0.02)


async def linted(file: Path, *options: str) -> Result:
    config = str(ROOT / ".squawk.toml")
    return await program(str(BIN / "squawk"), "--config", config, *options, str(file))


@asynccontextmanager
async def holding(dsn: str, statement: str, pid: list[int] | None = None) -> AsyncIterator[None]:
    """A transaction that stays open on what its statement locked."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            if pid is not None:
                pid.append(connection.get_server_pid())
            yield
    finally:
        await connection.close()


async def moved(now: list[int], since: list[int]) -> bool:
    return all(a > b for a, b in zip(now, since, strict=True))


@asynccontextmanager
async def traffic(dsn: str) -> AsyncIterator[list[int]]:
    """Readers and writers, whose statements the server refuses when they have waited too long."""
    done, stop = [0] * len(WORK), asyncio.Event()

    async def work(number: int) -> None:
        # A statement prepared before the table got a column is prepared again by the driver.
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
        await connection.execute("SET lock_timeout = '900ms'")
        try:
            while not stop.is_set():
                async with connection.transaction():
                    await connection.execute(WORK[number])
                    await asyncio.sleep(0.05)  # it keeps its locks for a while
                done[number] += 1
        finally:
            await connection.close()

    async with asyncio.TaskGroup() as group:
        for number in range(len(WORK)):
            group.create_task(work(number))
        try:
            await until(lambda: moved(done, [0] * len(WORK)))
            yield done
        finally:
            stop.set()


@pytest.fixture(scope="module")
def filled(server: Server) -> str:
    """The baseline's tables with rows in them, to be copied."""
    name = new_name("filled")

    async def fill(dsn: str) -> None:
        await execute(server.dsn(), f"CREATE DATABASE {name}")
        await migrations.upgrade(Settings(dsn=dsn, dimensions=8), "qortex_db_0001")
        await execute(dsn, FILL)

    asyncio.run(fill(server.dsn(name)))
    return name


@pytest.fixture
def filled_dsn(server: Server, filled: str) -> Iterator[str]:
    with copied(server, filled) as dsn:
        yield dsn


async def test_nobody_waits_for_a_second_while_every_revision_goes_up_and_down(
    filled_dsn: str,
) -> None:
    settings = Settings(dsn=filled_dsn)
    async with traffic(filled_dsn) as done:
        for revision in HISTORY[1:]:
            before = list(done)
            assert (await migrations.upgrade(settings, revision)).current == revision
            await until(lambda before=before: moved(done, before))
        for revision in reversed(HISTORY[:-1]):
            assert (await migrations.downgrade(settings, revision)).current == revision
        assert (await migrations.upgrade(settings)).is_current
    assert len(await rows(filled_dsn, "SELECT id FROM qortex_vectors")) == 5001


async def test_behind_a_long_transaction_the_others_go_on_and_the_upgrade_waits(
    filled_dsn: str,
) -> None:
    settings = Settings(dsn=filled_dsn)
    async with traffic(filled_dsn) as done:
        async with holding(filled_dsn, "SELECT FROM qortex_vectors LIMIT 1"):
            waiting = asyncio.create_task(migrations.upgrade(settings))
            await asyncio.sleep(2)
            before = list(done)
            await asyncio.sleep(1.5)
            assert not waiting.done()
            assert await moved(done, before)
        assert (await waiting).is_current


async def test_after_the_deadline_it_says_who_holds_the_table(filled_dsn: str) -> None:
    settings = Settings(dsn=filled_dsn, migration_timeout_seconds=1)
    pid: list[int] = []
    async with holding(filled_dsn, "SELECT FROM qortex_vectors LIMIT 1", pid):
        with pytest.raises(LockTimeoutError) as caught:
            await migrations.upgrade(settings)
        done = await alembic(
            "upgrade", "head", dsn=filled_dsn, QORTEX_DB_MIGRATION_TIMEOUT_SECONDS="1"
        )
    for message in (str(caught.value), done.err):
        assert f"process {pid[0]} on public.qortex_vectors (idle in transaction for " in message
        assert all(words in message for words in BUSY)
    assert done.code != 0
    assert "Traceback" not in done.err
    assert (await migrations.check(settings)).current == "qortex_db_0001"
    assert (await migrations.upgrade(settings)).is_current


async def test_a_relative_downgrade_never_goes_further_than_it_was_told(filled_dsn: str) -> None:
    settings = Settings(dsn=filled_dsn, migration_timeout_seconds=20)
    await migrations.upgrade(settings, "qortex_db_0003")
    async with holding(filled_dsn, "SELECT FROM qortex_vectors LIMIT 1"):
        with pytest.raises(LockTimeoutError, match="A part of -2 is done"):
            await migrations.downgrade(settings, "-2")
    assert (await migrations.check(settings)).current == "qortex_db_0002"
    assert (await migrations.downgrade(settings, "-1")).current == "qortex_db_0001"


async def test_timeouts_of_a_role_or_database_do_not_end_an_upgrade(filled_dsn: str) -> None:
    (database,) = await rows(filled_dsn, "SELECT current_database()")
    limits = ("statement_timeout = 200", "lock_timeout = 200", "idle_session_timeout = 200")
    await execute(filled_dsn, *(f'ALTER DATABASE "{database}" SET {limit}' for limit in limits))
    async with holding(filled_dsn, "SELECT FROM qortex_vectors LIMIT 1"):
        waiting = asyncio.create_task(migrations.upgrade(Settings(dsn=filled_dsn)))
        await asyncio.sleep(1.2)
        assert not waiting.done()
    assert (await waiting).is_current


async def test_limits_of_a_revision_are_for_its_own_statements(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, tries = Settings(dsn=empty_dsn), 0
    limits, holders = [], busy_tables._holders

    def asked(connection: Connection, settings: Settings) -> list[Any]:
        limits.append(connection.scalar(text("SHOW statement_timeout")))
        return holders(connection, settings)

    monkeypatch.setattr(busy_tables, "_holders", asked)

    def migrate_on(connection: Connection) -> str | None:
        def migrate() -> None:
            nonlocal tries
            tries += 1
            connection.execute(text("SET statement_timeout = '500ms'"))
            connection.commit()
            if tries == 1:
                connection.execute(text("SELECT pg_sleep(5)"))

        busy_tables.migrate_patiently(connection, settings, migrate)
        return connection.scalar(text("SHOW statement_timeout"))

    async with (
        migration_engine(settings, embedded=False) as engine,
        engine.connect() as connection,
    ):
        assert await connection.run_sync(migrate_on) == "0"
    assert tries == 2
    assert limits == ["0"] * 3  # before each try, and after the one that failed


async def test_an_autovacuum_gives_way_to_an_upgrade_and_nobody_waits_for_it(
    filled_dsn: str,
) -> None:
    await execute(
        filled_dsn,
        "ALTER TABLE qortex_vectors SET (autovacuum_vacuum_cost_delay = 100, "
        "autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1, "
        "autovacuum_vacuum_scale_factor = 0)",
        "DELETE FROM qortex_vectors WHERE id < 'v3'",
        "ALTER SYSTEM SET autovacuum_naptime = 1",
        "SELECT pg_reload_conf()",
    )
    running = (
        "SELECT pid::text FROM pg_stat_progress_vacuum "
        "WHERE relid = to_regclass('qortex_vectors') AND datname = current_database()"
    )
    try:
        await until(lambda: rows(filled_dsn, running))
        settings = Settings(dsn=filled_dsn, migration_timeout_seconds=20)
        async with traffic(filled_dsn):
            assert await rows(filled_dsn, running)
            assert (await migrations.upgrade(settings)).is_current
    finally:
        await execute(
            filled_dsn, "ALTER SYSTEM RESET autovacuum_naptime", "SELECT pg_reload_conf()"
        )


@pytest.fixture
async def folder_with_an_index(tmp_path: Path) -> Path:
    """Our history and one more revision, begun from the template as its next author would."""
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    done = await alembic(
        "revision", "--rev-id", "next", "-m", "An index on documents", cwd=tmp_path
    )
    assert done.code == 0, done.err
    (written,) = (tmp_path / "alembic" / "versions").glob("next*.py")
    up = """_build_index("ix_next", f"{_prefix()}qortex_vectors (md5(document))")"""
    body = written.read_text().replace("_wait_briefly()\n    pass", up, 1)
    written.write_text(body.replace("_wait_briefly()\n    pass", '_drop_index("ix_next")', 1))
    return tmp_path


INDEX = "CREATE INDEX ix_next ON public.qortex_vectors USING btree (md5(document))"


async def upgraders(folder: Path, dsn: str, count: int) -> list[Result]:
    starts = [alembic("upgrade", "head", cwd=folder, dsn=dsn) for _ in range(count)]
    return await asyncio.gather(*starts)


async def test_an_index_from_the_template_is_built_while_the_table_is_in_use(
    filled_dsn: str, folder_with_an_index: Path
) -> None:
    async with traffic(filled_dsn):
        done = await upgraders(folder_with_an_index, filled_dsn, 5)
        assert [one.code for one in done] == [0] * 5, [one.err for one in done]
        assert INDEX in await catalogue(filled_dsn)
        down = await alembic("downgrade", "-1", cwd=folder_with_an_index, dsn=filled_dsn)
        assert down.code == 0, down.err
    assert INDEX not in await catalogue(filled_dsn)


async def test_an_index_that_a_failed_attempt_left_invalid_is_built_again(
    filled_dsn: str, folder_with_an_index: Path
) -> None:
    await migrations.upgrade(Settings(dsn=filled_dsn))
    await execute(filled_dsn, "UPDATE qortex_vectors SET document = 'the same'")
    with pytest.raises(asyncpg.UniqueViolationError):
        await execute(
            filled_dsn,
            "CREATE UNIQUE INDEX CONCURRENTLY ix_next ON qortex_vectors (md5(document))",
        )
    (done,) = await upgraders(folder_with_an_index, filled_dsn, 1)
    assert done.code == 0, done.err
    assert INDEX in await catalogue(filled_dsn)


async def test_an_index_that_is_there_is_not_built_twice(
    filled_dsn: str, folder_with_an_index: Path
) -> None:
    await migrations.upgrade(Settings(dsn=filled_dsn))
    await execute(filled_dsn, INDEX)
    built = await rows(filled_dsn, "SELECT 'ix_next'::regclass::oid::text")
    (done,) = await upgraders(folder_with_an_index, filled_dsn, 1)
    assert done.code == 0, done.err
    assert await rows(filled_dsn, "SELECT 'ix_next'::regclass::oid::text") == built


async def test_a_linter_of_migrations_finds_nothing_in_the_offline_sql(
    folder_with_an_index: Path,
) -> None:
    up, further, down = await asyncio.gather(
        alembic("upgrade", "head", "--sql", cwd=folder_with_an_index),
        alembic("upgrade", "qortex_db_0001:head", "--sql", cwd=folder_with_an_index),
        alembic("downgrade", "head:base", "--sql", cwd=folder_with_an_index),
    )
    # What a downgrade is for; Alembic 1.16 drops its own table without IF EXISTS.
    drops = "--exclude=ban-drop-column,ban-drop-constraint,ban-drop-table,prefer-robust-stmts"
    for sql, options in ((up, ()), (further, ()), (down, (drops,))):
        assert sql.code == 0, sql.err
        file = folder_with_an_index / "migration.sql"
        file.write_text(sql.out)
        found = await linted(file, *options)
        assert found.code == 0, found.out


async def test_a_linter_of_migrations_would_find_what_is_unsafe(tmp_path: Path) -> None:
    file = tmp_path / "unsafe.sql"
    file.write_text("SET statement_timeout = 1; CREATE INDEX a ON qortex_vectors (document);")
    assert "require-concurrent-index-creation" in (await linted(file)).out


def test_a_statement_waits_for_less_than_a_second() -> None:
    assert busy_tables.WAIT_MS < 1000


@pytest.mark.parametrize("how", ["kill", "cancel"])
async def test_an_upgrade_that_ends_while_it_builds_an_index_goes_on_from_there(
    filled_dsn: str, how: str
) -> None:
    settings = Settings(dsn=filled_dsn)
    building = (
        "SELECT pid::text FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' "
        "AND state = 'active' AND datname = current_database()"
    )
    await migrations.upgrade(settings, "qortex_db_0003")
    async with holding(filled_dsn, "DELETE FROM qortex_vectors WHERE id = 'v1'"):
        task = asyncio.create_task(migrations.upgrade(settings))
        await until(lambda: rows(filled_dsn, building))
        if how == "kill":
            (pid,) = await rows(filled_dsn, building)
            await execute(filled_dsn, f"SELECT pg_terminate_backend({pid})")
            with pytest.raises(UnavailableError):
                await task
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (await migrations.upgrade(settings)).is_current
    invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    assert await rows(filled_dsn, invalid) == []
