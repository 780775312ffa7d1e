from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from qortex_db import (
    Database,
    InvalidInputError,
    LockTimeoutError,
    NotFoundError,
    QortexDbError,
    Settings,
    UnavailableError,
    migrations,
)
from qortex_db.migrations import IndexProgress, rebuild_index
from qortex_db.migrations.connection import migration_engine, migration_lock
from qortex_db.migrations.rebuild import building, owned_table
from qortex_db.models import Base
from support.catalogue import catalogue, execute, relations, rows
from support.commands import ROOT, run
from support.pages import BLOCK, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

NAME = "ix_qortex_vectors_vec"
DEFINITION = (
    f"CREATE INDEX {NAME} ON public.qortex_vectors USING hnsw (vec public.vector_cosine_ops)"
)
TUNED = (
    "DROP INDEX ix_qortex_vectors_vec",
    """
    CREATE INDEX "Odd 'name" ON qortex_vectors USING hnsw (vec vector_ip_ops)
        WITH (m=8, ef_construction=33) WHERE id <> 'it''s 100%'
    """,
    "COMMENT ON INDEX \"Odd 'name\" IS 'it''s \\ 100% :mine'",
    """
    CREATE INDEX halves ON qortex_vectors USING hnsw ((vec::halfvec(8)) halfvec_l2_ops) WITH (m=4)
    """,
    "CREATE INDEX lists ON qortex_vectors USING ivfflat (vec vector_l2_ops) WITH (lists=3)",
)
FILL = (
    "INSERT INTO {table} (id, vec) SELECT 'r' || i, "
    "ARRAY(SELECT random() FROM generate_series(1, 8) WHERE i > 0)::vector "
    "FROM generate_series(1, {count}) i"
)
LOOK = """
SELECT pg_get_indexdef(i.indexrelid) || ' ' || i.indisvalid
       || coalesce(' ' || t.spcname, '') || coalesce(' ' || obj_description(i.indexrelid), '')
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace ORDER BY c.relname
"""
VECTOR_INDEXES = """
SELECT c.relname || ' ' || i.indisvalid FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE a.amname IN ('hnsw', 'ivfflat') ORDER BY c.relname
"""


async def fill(dsn: str, count: int, table: str = "qortex_vectors") -> None:
    await execute(dsn, FILL.format(table=table, count=count))


@asynccontextmanager
async def open_transaction(dsn: str, statement: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A transaction that has run a statement and stays open, until it is ended in the block."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("BEGIN")
        await connection.execute(statement)
        yield connection
    finally:
        await connection.close()


async def break_by_time(dsn: str, statement: str) -> None:
    """Have a concurrent build fail halfway, as a time-out does: it waits for a writer."""
    async with open_transaction(dsn, "INSERT INTO qortex_vectors (id) VALUES ('open')"):
        connection = await asyncpg.connect(dsn)
        await connection.execute("SET statement_timeout = '300ms'")
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.execute(statement)
        await connection.close()


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned_table, "POLL_SECONDS", 0.05)  # small builds are seen too


@pytest.fixture
async def each_dsn(each_empty_dsn: str) -> str:
    await migrations.upgrade(Settings(dsn=each_empty_dsn, dimensions=8))
    return each_empty_dsn


@pytest.mark.parametrize("with_load", [True, False])
async def test_every_vector_index_is_rebuilt_as_it_was(each_dsn: str, *, with_load: bool) -> None:
    await execute(each_dsn, *TUNED)
    before, everything = await rows(each_dsn, LOOK), await relations(each_dsn)

    async def load() -> None:
        assert await rows(each_dsn, VECTOR_INDEXES) == []
        await fill(each_dsn, 50)

    rebuilt = await rebuild_index(Settings(dsn=each_dsn), load=load if with_load else None)
    assert [index.name for index in rebuilt] == ["Odd 'name", "halves", "lists"]
    assert await rows(each_dsn, LOOK) == before
    assert await relations(each_dsn) == everything
    assert "true it's \\ 100% :mine" in before[0]


async def test_what_was_loaded_is_found_by_the_index(each_dsn: str) -> None:
    settings = Settings(dsn=each_dsn)

    async with Database.connect(settings) as db:

        async def load() -> None:
            vectors = ([1.0, n / 100] + [0.1] * 6 for n in range(500))
            assert await db.vectors.ingest(
                {"id": f"v{n}", "embedding": vector} for n, vector in enumerate(vectors)
            )

        (index,) = await rebuild_index(settings, load=load)
        assert (index.name, index.definition) == (NAME, DEFINITION)
        assert index.bytes > 0
        hits = await db.vectors.search([1.0, 2.5] + [0.1] * 6, limit=1)
        assert hits[0].id == "v250"
    connection = await asyncpg.connect(each_dsn)
    await connection.execute("SET enable_seqscan = off; SET enable_sort = off")
    query = f"SELECT id FROM qortex_vectors ORDER BY vec <=> '[1,2.5{',.1' * 6}]' LIMIT 1"
    plan = "".join(line[0] for line in await connection.fetch(f"EXPLAIN {query}"))
    assert f"Index Scan using {NAME}" in plan
    assert await connection.fetchval(query) == "v250"
    await connection.close()


@pytest.mark.parametrize("error", [OSError("no file"), QortexDbError("no row", sqlstate="42704")])
async def test_a_load_that_fails_leaves_the_index_and_its_error(dsn: str, error: Exception) -> None:
    await execute(dsn, *TUNED)
    before = await catalogue(dsn)

    async def load() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await rebuild_index(Settings(dsn=dsn), load=load)
    assert caught.value is error
    assert await catalogue(dsn) == before


async def test_a_load_that_is_cancelled_leaves_the_index(dsn: str) -> None:
    before = await catalogue(dsn)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await rebuild_index(Settings(dsn=dsn), load=lambda: asyncio.sleep(60))
    assert await catalogue(dsn) == before
    assert "qortex_db_pending_indexes" not in await relations(dsn)


async def test_a_second_cancellation_leaves_the_index_to_the_next_call(dsn: str) -> None:
    before, settings = await catalogue(dsn), Settings(dsn=dsn)
    loading, building = asyncio.Event(), asyncio.Event()

    async def load() -> None:
        await fill(dsn, 10_000)
        loading.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(
        rebuild_index(settings, load=load, on_progress=lambda _: building.set())
    )
    for reached in (loading, building):
        await reached.wait()
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await rows(dsn, VECTOR_INDEXES) == []
    await rebuild_index(settings)
    assert await catalogue(dsn) == before


async def test_a_build_that_what_was_loaded_prevents_can_be_repeated(dsn: str) -> None:
    await execute(
        dsn, "CREATE INDEX a ON qortex_vectors USING hnsw ((vec::halfvec(8)) halfvec_l2_ops)"
    )
    before, settings = await catalogue(dsn), Settings(dsn=dsn)
    too_large = "INSERT INTO qortex_vectors (id, vec) VALUES ('x', '[1,1,1,1,1,1,1,100000]')"
    with pytest.raises(QortexDbError, match="out of range for type halfvec"):
        await rebuild_index(settings, load=lambda: execute(dsn, too_large))
    assert await rows(dsn, VECTOR_INDEXES) == []
    await execute(dsn, "DELETE FROM qortex_vectors")
    assert [index.name for index in await rebuild_index(settings)] == ["a", NAME]
    assert await catalogue(dsn) == before


KILLED = """
import asyncio
from qortex_db.migrations import rebuild_index

async def load():
    print("loading", flush=True)
    await asyncio.sleep(100)

asyncio.run(rebuild_index(load=load))
"""


@pytest.mark.parametrize("again", [True, False])
async def test_after_a_process_was_killed_the_next_call_restores(
    each_dsn: str, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    await execute(each_dsn, *TUNED)
    before, everything = await rows(each_dsn, LOOK), await relations(each_dsn)
    monkeypatch.setenv("PGVECTOR_DSN", each_dsn)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"loading\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert await rows(each_dsn, VECTOR_INDEXES) == []
    pending = await rows(each_dsn, "SELECT name FROM qortex_db_pending_indexes")
    assert pending == ["Odd 'name", "halves", "lists"]

    async def load() -> None:
        assert await rows(each_dsn, VECTOR_INDEXES) == []

    rebuilt = await rebuild_index(Settings(), load=load if again else None)
    assert [index.name for index in rebuilt] == pending
    assert await rows(each_dsn, LOOK) == before
    assert await relations(each_dsn) == everything


async def test_what_is_restored_already_is_not_built_again(dsn: str) -> None:
    """The process may die between a build and the line that forgets it."""
    await execute(dsn, "COMMENT ON INDEX ix_qortex_vectors_vec IS 'kept'")
    before, file = await rows(dsn, LOOK), f"SELECT pg_relation_filenode('{NAME}')"

    async def load() -> None:
        await execute(
            dsn,
            "CREATE VIEW copy AS SELECT * FROM qortex_db_pending_indexes",
            DEFINITION,
        )

    built: list[str] = []

    async def look_again() -> None:
        await load()
        built.extend(map(str, await rows(dsn, file)))

    with pytest.raises(QortexDbError, match="other objects depend"):  # the view can't be dropped
        await rebuild_index(Settings(dsn=dsn), load=look_again)
    await execute(dsn, "DROP VIEW copy", f"COMMENT ON INDEX {NAME} IS NULL")
    await rebuild_index(Settings(dsn=dsn))
    assert list(map(str, await rows(dsn, file))) == built
    assert await rows(dsn, LOOK) == before


@pytest.mark.parametrize("how", ["cancelled", "terminated"])
@pytest.mark.parametrize("with_load", [True, False])
async def test_an_interrupted_build_leaves_nothing_invalid_and_the_next_one_restores(
    each_dsn: str, how: str, *, with_load: bool
) -> None:
    settings, everything = Settings(dsn=each_dsn), await relations(each_dsn)
    before = await rows(each_dsn, LOOK)
    built = asyncio.get_running_loop().create_future()

    async def load() -> None:
        await fill(each_dsn, 10_000)

    def show(progress: IndexProgress) -> None:
        if "loading tuples" in progress.phase and not built.done():
            built.set_result(progress)

    if not with_load:
        await rebuild_index(settings, load=load)
    task = asyncio.create_task(
        rebuild_index(settings, load=load if with_load else None, on_progress=show)
    )
    await asyncio.wait({task, built}, return_when=asyncio.FIRST_COMPLETED)
    if how == "cancelled":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        await rows(each_dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index")
        with pytest.raises(UnavailableError):
            await task
    assert await rows(each_dsn, VECTOR_INDEXES) == ([] if with_load else [f"{NAME} true"])
    await rebuild_index(settings)
    assert await rows(each_dsn, LOOK) == before
    assert await relations(each_dsn) == everything


async def test_an_invalid_index_is_repaired(each_dsn: str) -> None:
    before = await rows(each_dsn, LOOK)
    await execute(each_dsn, f"DROP INDEX {NAME}")
    concurrently = DEFINITION.replace("INDEX", "INDEX CONCURRENTLY", 1)
    await break_by_time(each_dsn, concurrently)
    assert await rows(each_dsn, VECTOR_INDEXES) == [f"{NAME} false"]
    await rebuild_index(Settings(dsn=each_dsn))
    assert await rows(each_dsn, LOOK) == before
    await execute(each_dsn, f"DROP INDEX {NAME}")
    await break_by_time(each_dsn, concurrently)
    await rebuild_index(Settings(dsn=each_dsn), load=lambda: asyncio.sleep(0))
    assert await rows(each_dsn, LOOK) == before


async def test_leftovers_of_an_interrupted_reindex_are_dropped(each_dsn: str) -> None:
    await break_by_time(each_dsn, f"REINDEX INDEX CONCURRENTLY {NAME}")
    left = [f"{NAME} true", f"{NAME}_ccnew false"]
    assert await rows(each_dsn, VECTOR_INDEXES) == left
    assert [index.name for index in await rebuild_index(Settings(dsn=each_dsn))] == [NAME]
    assert await rows(each_dsn, VECTOR_INDEXES) == left[:1]


async def test_readers_and_writers_go_on_meanwhile(each_dsn: str) -> None:
    await rebuild_index(Settings(dsn=each_dsn), load=lambda: fill(each_dsn, 10_000))
    connection = await asyncpg.connect(each_dsn)
    await connection.execute("SET lock_timeout = '2s'")
    written, valid = 0, set()

    async def use(_: IndexProgress) -> None:
        nonlocal written
        written += 1
        await connection.execute(
            f"INSERT INTO qortex_vectors (id, vec) VALUES ('w{written}', '[1,2,3,4,5,6,7,8]')"
        )
        await connection.execute(
            "UPDATE qortex_vectors SET vec = '[8,7,6,5,4,3,2,1]' WHERE id='r1'"
        )
        valid.add(f"{NAME} true" in await rows(each_dsn, VECTOR_INDEXES))

    await rebuild_index(Settings(dsn=each_dsn), on_progress=use)
    assert written > 1
    assert valid == {True}
    await rebuild_index(Settings(dsn=each_dsn), load=lambda: asyncio.sleep(0), on_progress=use)
    await connection.close()
    count = await rows(each_dsn, "SELECT count(*) FROM qortex_vectors WHERE id LIKE 'w%'")
    assert count == [written]


async def test_progress_tells_what_is_waited_for_and_ends_finished(dsn: str) -> None:
    seen: list[IndexProgress] = []
    async with open_transaction(dsn, "INSERT INTO qortex_vectors (id) VALUES ('x')") as writer:

        async def show(progress: IndexProgress) -> None:
            seen.append(progress)
            if progress.phase == "waiting for writers before build":
                assert (progress.done, progress.total, progress.fraction) == (0, 1, 0.0)
                await writer.execute("COMMIT")

        await rebuild_index(Settings(dsn=dsn), on_progress=show)
    assert seen[0].phase == "waiting for writers before build"
    assert seen[-1] == IndexProgress(NAME, "finished", 1, 1)
    assert seen[-1].fraction == 1.0


async def test_progress_within_a_phase_only_grows(dsn: str) -> None:
    seen: list[IndexProgress] = []
    settings = Settings(dsn=dsn)
    await rebuild_index(settings, load=lambda: fill(dsn, 10_000), on_progress=seen.append)
    building = [one.fraction for one in seen if one.phase == "building index: loading tuples"]
    assert building == sorted(building)
    assert 0.0 < building[-1] <= 1.0


async def test_an_error_of_the_progress_stops_the_build_and_stays_itself(dsn: str) -> None:
    def show(_: IndexProgress) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await rebuild_index(Settings(dsn=dsn), load=lambda: fill(dsn, 5_000), on_progress=show)
    assert await rows(dsn, VECTOR_INDEXES) == []
    await rebuild_index(Settings(dsn=dsn))
    assert await rows(dsn, VECTOR_INDEXES) == [f"{NAME} true"]


async def test_a_table_in_use_for_too_long_keeps_its_index(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "DROP_TIMEOUT", "300ms")
    before, loaded = await catalogue(dsn), []

    async def load() -> None:
        loaded.append(True)

    async with open_transaction(dsn, "SELECT count(*) FROM qortex_vectors") as reader:

        async def show(progress: IndexProgress) -> None:
            if progress.phase.startswith("waiting for readers"):
                await reader.execute("COMMIT")

        with pytest.raises(LockTimeoutError):
            await rebuild_index(Settings(dsn=dsn), load=load, on_progress=show)
    assert not loaded
    assert await catalogue(dsn) == before


async def test_one_rebuild_or_migration_at_a_time(dsn: str) -> None:
    settings = Settings(dsn=dsn)

    async def load() -> None:
        async with migration_engine(settings, embedded=False) as engine:
            with pytest.raises(LockTimeoutError):
                async with migration_lock(engine, timeout_seconds=0.3):
                    pass

    assert await rebuild_index(settings, load=load)


async def test_any_table_of_a_schema_of_its_own(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, dimensions=8, db_schema="Mine")
    await migrations.upgrade(settings)
    name = 'It\'s "odd"; DROP TABLE qortex_vectors; --%I'
    quoted = '"Mine"."' + name.replace('"', '""') + '"'
    await execute(
        empty_dsn,
        f"CREATE TABLE {quoted} (id text, vec vector(8))",
        f"CREATE INDEX ON {quoted} USING hnsw (vec vector_l1_ops)",
    )
    before, everything = await rows(empty_dsn, LOOK), await relations(empty_dsn)
    for table in ("qortex_vectors", name):
        assert len(await rebuild_index(settings, table=table)) == 1
        assert len(await rebuild_index(settings, table=table, load=lambda: asyncio.sleep(0))) == 1
    assert await rows(empty_dsn, LOOK) == before
    assert await relations(empty_dsn) == everything
    with pytest.raises(NotFoundError, match="qortex_vectors"):
        await rebuild_index(Settings(dsn=empty_dsn))


async def test_two_tables_can_wait_for_their_indexes(dsn: str) -> None:
    await execute(
        dsn,
        "CREATE TABLE other (id text, vec vector(8))",
        "CREATE INDEX others ON other USING hnsw (vec vector_l2_ops)",
        "CREATE VIEW qortex_db_pending_indexes AS SELECT pending.* FROM jsonb_to_recordset("
        '\'[{"table_name": "other", "name": "others", "definition": "CREATE INDEX others ON '
        'public.other USING hnsw (vec public.vector_l2_ops)", "tablespace": ""}]\') AS pending'
        "(table_name text, name text, definition text, tablespace text, comment text)",
    )
    before = await rows(dsn, LOOK)
    await execute(dsn, "DROP INDEX others")
    await rebuild_index(Settings(dsn=dsn), load=lambda: asyncio.sleep(0))
    assert await rows(dsn, "SELECT name FROM qortex_db_pending_indexes") == ["others"]
    await rebuild_index(Settings(dsn=dsn), table="other")
    assert await rows(dsn, LOOK) == before
    assert "qortex_db_pending_indexes" not in await relations(dsn)


async def test_a_tablespace_is_kept(dsn: str) -> None:
    await execute(dsn, "SET allow_in_place_tablespaces = on", "CREATE TABLESPACE fast LOCATION ''")
    try:
        await execute(dsn, f"ALTER INDEX {NAME} SET TABLESPACE fast")
        before = await rows(dsn, LOOK)
        assert any(line.endswith("true fast") for line in before)
        await rebuild_index(Settings(dsn=dsn))
        await rebuild_index(Settings(dsn=dsn), load=lambda: asyncio.sleep(0))
        assert await rows(dsn, LOOK) == before
    finally:
        await execute(dsn, f"DROP INDEX {NAME}", "DROP TABLESPACE fast")


async def test_a_table_without_a_vector_index_is_refused_before_the_load(dsn: str) -> None:
    await execute(dsn, f"DROP INDEX {NAME}")
    before = await catalogue(dsn)

    async def load() -> None:
        raise AssertionError

    with pytest.raises(NotFoundError, match="no vector index on qortex_vectors"):
        await rebuild_index(Settings(dsn=dsn), load=load)
    for name in ("nothing", "", "public.qortex_vectors", "Qortex_Vectors", NAME):
        with pytest.raises(NotFoundError, match="no table"):
            await rebuild_index(Settings(dsn=dsn), table=name, load=load)
    assert await catalogue(dsn) == before


ROLES = """
DO $$ BEGIN
    IF to_regrole('index_owner') IS NULL THEN
        CREATE ROLE index_owner LOGIN;
        CREATE ROLE index_member LOGIN IN ROLE index_owner;
        CREATE ROLE index_stranger LOGIN;
    END IF;
END $$
"""


@pytest.fixture
async def owned_dsn(dsn: str) -> AsyncIterator[str]:
    await execute(
        dsn,
        ROLES,
        *(f"ALTER TABLE {name} OWNER TO index_owner" for name in Base.metadata.tables),
        "GRANT CREATE ON SCHEMA public TO index_owner",
        "GRANT ALL ON qortex_vectors TO index_stranger",
    )
    yield dsn
    await execute(dsn, "DROP OWNED BY index_owner, index_stranger CASCADE")


def as_role(dsn: str, role: str) -> Settings:
    changed = dsn.replace("postgres:@", f"{role}@")
    assert changed != dsn
    return Settings(dsn=changed)


async def test_who_is_not_the_owner_is_told_so_and_drops_nothing(owned_dsn: str) -> None:
    before = await catalogue(owned_dsn)

    async def load() -> None:
        raise AssertionError

    for given in (None, load):
        with pytest.raises(QortexDbError, match="Connect as index_owner") as caught:
            await rebuild_index(as_role(owned_dsn, "index_stranger"), load=given)
        assert caught.value.sqlstate == "42501"
    assert await catalogue(owned_dsn) == before


@pytest.mark.parametrize("role", ["index_owner", "index_member", "postgres"])
async def test_the_owner_its_members_and_a_superuser_rebuild(owned_dsn: str, role: str) -> None:
    before = await rows(owned_dsn, LOOK)
    settings = Settings(dsn=owned_dsn) if role == "postgres" else as_role(owned_dsn, role)
    seen: list[IndexProgress] = []

    async def load() -> None:
        await fill(owned_dsn, 5_000)
        owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'qortex_vectors' UNION ALL "
        owner += "SELECT viewowner FROM pg_views WHERE viewname = 'qortex_db_pending_indexes'"
        assert await rows(owned_dsn, owner) == ["index_owner"] * 2

    await rebuild_index(settings, load=load, on_progress=seen.append)
    await rebuild_index(settings)
    assert await rows(owned_dsn, LOOK) == before
    assert "building index: loading tuples" in {progress.phase for progress in seen}


async def test_an_owner_who_may_not_create_drops_nothing(owned_dsn: str) -> None:
    await execute(owned_dsn, "REVOKE CREATE ON SCHEMA public FROM index_owner")
    before = await catalogue(owned_dsn)
    with pytest.raises(QortexDbError, match="create in the schema public"):
        await rebuild_index(as_role(owned_dsn, "index_owner"), load=lambda: asyncio.sleep(0))
    assert await catalogue(owned_dsn) == before


async def test_definitions_that_another_role_wrote_are_not_run(owned_dsn: str) -> None:
    await execute(
        owned_dsn,
        "CREATE VIEW qortex_db_pending_indexes AS SELECT 'qortex_vectors' AS table_name, "
        "'x' AS name, 'DROP TABLE qortex_vectors' AS definition, '' AS tablespace, "
        "'' AS comment",
        "ALTER VIEW qortex_db_pending_indexes OWNER TO index_stranger",
    )
    with pytest.raises(QortexDbError, match="belongs to index_stranger"):
        await rebuild_index(Settings(dsn=owned_dsn))
    assert await rows(owned_dsn, VECTOR_INDEXES) == [f"{NAME} true"]


SPY = (
    "CREATE TABLE seen (memory text, workers text)",
    """
    CREATE FUNCTION spy() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO seen SELECT current_setting('maintenance_work_mem'),
                                current_setting('max_parallel_maintenance_workers');
    END $$
    """,
    """
    CREATE EVENT TRIGGER spy ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'REINDEX')
        EXECUTE FUNCTION spy()
    """,
)


async def test_a_build_gets_the_memory_that_its_table_needs(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = (await rows(dsn, "SELECT current_database()"))[0]
    await execute(dsn, *SPY)
    # VACUUM gives a table maps of its pages: pages more, between our look and the command's.
    await execute(dsn, "ALTER TABLE qortex_vectors SET (autovacuum_enabled = off)")
    settings = Settings(dsn=dsn)
    await rebuild_index(settings, load=lambda: fill(dsn, 5_000))
    await execute(dsn, f"ALTER DATABASE \"{name}\" SET maintenance_work_mem = '1MB'")
    await rebuild_index(settings)
    monkeypatch.setattr(building, "MAX_MEMORY_KB", 2048)
    await rebuild_index(settings)
    await rebuild_index(settings, maintenance_work_mem="3 MB", parallel_workers=7)
    memory = await rows(dsn, "SELECT memory FROM seen")
    table = (await rows(dsn, "SELECT pg_table_size('qortex_vectors') / 1024"))[0]
    assert memory == ["64MB", f"{table + 5_000}kB", "2MB", "3MB"]
    assert (await rows(dsn, "SELECT workers FROM seen"))[2:] == ["2", "7"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory lies elsewhere")  # noqa: S108
@pytest.mark.parametrize("with_load", [True, False])
async def test_without_shared_memory_one_process_builds(
    dsn: str, caplog: pytest.LogCaptureFixture, *, with_load: bool
) -> None:
    await execute(dsn, "ALTER TABLE qortex_vectors SET (parallel_workers = 2)")
    await fill(dsn, 200)
    more = shutil.disk_usage("/dev/shm").total // 2**30 + 1  # noqa: S108
    await rebuild_index(
        Settings(dsn=dsn),
        maintenance_work_mem=f"{more}GB",
        parallel_workers=2,
        load=(lambda: asyncio.sleep(0)) if with_load else None,
    )
    assert "index_build_without_workers" in caplog.text
    assert await rows(dsn, VECTOR_INDEXES) == [f"{NAME} true"]


@pytest.mark.parametrize(
    "options",
    [
        {"maintenance_work_mem": text}
        for text in (
            "",
            "2",
            "2gb",
            "0GB",
            "-1GB",
            "1.5GB",
            "63kB",
            "2TB",
            "1GB; x",
            "1GB\n",
            "\uff19GB",
        )
    ]
    + [{"parallel_workers": number} for number in (-1, 1025, True, "2")],
)
async def test_options_are_refused_before_anything_is_done(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        await rebuild_index(Settings(dsn="postgresql://u@127.0.0.1:1/x"), **options)


async def test_timeouts_of_the_role_do_not_end_a_build(owned_dsn: str) -> None:
    name = (await rows(owned_dsn, "SELECT current_database()"))[0]
    for setting in ("statement_timeout", "lock_timeout", "transaction_timeout"):
        await execute(owned_dsn, f"ALTER DATABASE \"{name}\" SET {setting} = '1s'")
    connection = await asyncpg.connect(owned_dsn)
    await connection.execute("SET statement_timeout = 0; SET transaction_timeout = 0")
    await connection.execute("BEGIN")
    await connection.execute("INSERT INTO qortex_vectors (id) VALUES ('x')")
    task = asyncio.create_task(rebuild_index(Settings(dsn=owned_dsn)))
    await asyncio.sleep(2)
    assert not task.done()
    await connection.execute("COMMIT")
    await connection.close()
    assert [index.name for index in await task] == [NAME]


def test_the_command_rebuilds_and_loads(dsn: str, tmp_path: Path) -> None:
    given = {"PGVECTOR_DSN": dsn}
    code, printed, error = run("index", "rebuild", **given)
    assert (code, error) == (0, "")
    assert printed.startswith(f"{NAME} is built: ")
    script = tmp_path / "load me.py"
    script.write_text(
        "import asyncio, os, asyncpg\n"
        "async def main():\n"
        "    connection = await asyncpg.connect(os.environ['PGVECTOR_DSN'])\n"
        f"    print(await connection.fetchval(\"SELECT to_regclass('{NAME}')\"))\n"
        "    await connection.close()\n"
        "asyncio.run(main())\n"
    )
    options = ("--maintenance-work-mem", "64MB", "--parallel-workers", "0")
    load = f"{sys.executable} '{script}'"
    code, printed, error = run("index", "rebuild", "--load", load, *options, **given)
    assert (code, error) == (0, "")
    assert printed.splitlines()[0] == "None"
    assert printed.splitlines()[1].startswith(f"{NAME} is built: ")


def test_the_command_fails_with_its_load_and_keeps_the_index(dsn: str) -> None:
    given = {"PGVECTOR_DSN": dsn}
    load = f"{sys.executable} -c 'raise SystemExit(3)'"
    code, printed, error = run("index", "rebuild", "--load", load, **given)
    assert (code, printed) == (1, "")
    assert error == "error: The load ended with status 3. The index is built again.\n"
    assert asyncio.run(rows(dsn, VECTOR_INDEXES)) == [f"{NAME} true"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--table", "nothing"), "no table nothing"),
        (("--load", ""), "--load names no program"),
        (("--load", "no-such-program-anywhere"), "--load names no program"),
        (("--load", "'"), "--load can't be read"),
        (("--maintenance-work-mem", "much"), "maintenance_work_mem has to be"),
    ],
)
def test_the_command_says_what_it_refuses(dsn: str, arguments: list[str], said: str) -> None:
    code, printed, error = run("index", "rebuild", *arguments, PGVECTOR_DSN=dsn)
    assert (code, printed) == (1, "")
    assert error.startswith("error: ")
    assert said in error
    assert asyncio.run(rows(dsn, VECTOR_INDEXES)) == [f"{NAME} true"]


def test_the_command_starts_no_server_unasked() -> None:
    code, _, error = run("index", "rebuild")
    assert code == 1
    assert "PGVECTOR_DSN" in error


def test_the_command_interrupted_in_its_load_keeps_the_index(dsn: str) -> None:
    async def interrupt() -> tuple[int | None, bytes]:
        load = f"{sys.executable} -c 'import time; print(1, flush=True); time.sleep(60)'"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "qortex_db", "index", "rebuild", "--load", load),
            env={"PGVECTOR_DSN": dsn},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, error = await process.communicate()
        return process.returncode, error

    assert asyncio.run(interrupt()) == (130, b"Stopped.\n")
    assert asyncio.run(rows(dsn, VECTOR_INDEXES)) == [f"{NAME} true"]


async def test_the_examples_of_the_page_run(dsn384: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    blocks = BLOCK.findall((ROOT / "docs/migrations/rebuild.md").read_text())
    assert blocks
    await program(*blocks)()


def test_the_commands_of_the_page_run(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "load.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    lines = (ROOT / "docs/migrations/rebuild.md").read_text().splitlines()
    commands = [line.removeprefix("$ qortex-db ") for line in lines if line.startswith("$ ")]
    assert len(commands) == 2
    for command in commands:
        code, _, error = run(*shlex.split(command), PGVECTOR_DSN=dsn)
        assert (code, error) == (0, "")
