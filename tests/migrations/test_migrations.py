from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from alembic.script import ScriptDirectory

from qortex_db import (
    DimensionMismatchError,
    InvalidInputError,
    LockTimeoutError,
    SchemaVersionError,
    Settings,
    UnavailableError,
    migrations,
)
from qortex_db.migrations.connection import migration_engine, migration_lock
from support.catalogue import (
    BASELINE,
    LATER,
    VERSION_TABLE,
    catalogue,
    execute,
    relations,
    rows,
    run_script,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEAD = migrations.head_revision()


async def test_the_baseline_makes_the_four_documented_tables(each_empty_dsn: str) -> None:
    state = await migrations.upgrade(Settings(dsn=each_empty_dsn), "qortex_db_0001")
    assert await catalogue(each_empty_dsn) == BASELINE
    assert (state.current, state.dimensions, state.is_current) == ("qortex_db_0001", 384, False)


async def test_the_head_adds_payload_document_and_times(each_empty_dsn: str) -> None:
    state = await migrations.upgrade(Settings(dsn=each_empty_dsn))
    assert await catalogue(each_empty_dsn) == BASELINE | LATER
    assert (state.current, state.head, state.is_current) == (HEAD, HEAD, True)
    assert await migrations.upgrade(Settings(dsn=each_empty_dsn)) == state


async def test_downgrade_leaves_the_extension_and_an_empty_version_table(
    each_empty_dsn: str,
) -> None:
    settings = Settings(dsn=each_empty_dsn)
    await migrations.upgrade(settings)
    state = await migrations.downgrade(settings, "base")
    assert (state.current, state.dimensions) == (None, None)
    assert await relations(each_empty_dsn) == {VERSION_TABLE, f"{VERSION_TABLE}_pkc"}
    assert await rows(each_empty_dsn, f"SELECT version_num FROM {VERSION_TABLE}") == []
    assert await rows(each_empty_dsn, "SELECT extname FROM pg_extension ORDER BY 1") == [
        "plpgsql",
        "vector",
    ]
    assert (await migrations.upgrade(settings)).is_current


async def test_downgrade_leaves_a_schema_that_was_there(empty_dsn: str) -> None:
    await execute(empty_dsn, "CREATE SCHEMA mine", "CREATE TABLE mine.host (id int)")
    settings = Settings(dsn=empty_dsn, db_schema="mine")
    await migrations.upgrade(settings)
    await migrations.downgrade(settings, "base")
    assert await relations(empty_dsn) == {
        "schema mine",
        "mine.host",
        f"mine.{VERSION_TABLE}",
        f"mine.{VERSION_TABLE}_pkc",
    }


@pytest.mark.slow
async def test_each_revision_goes_down_and_up_again(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn)
    scripts = ScriptDirectory(str(migrations.locate()))
    history = [script.revision for script in reversed(list(scripts.walk_revisions()))]
    seen = []
    for revision in history:
        await migrations.upgrade(settings, revision)
        seen.append(await catalogue(empty_dsn))
    for number in range(len(history) - 1, 0, -1):
        await migrations.downgrade(settings, "-1")
        assert await catalogue(empty_dsn) == seen[number - 1]
    assert (await migrations.upgrade(settings)).is_current
    assert await catalogue(empty_dsn) == seen[-1]


async def test_the_second_revision_keeps_rows_and_rewrites_nothing(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, dimensions=2)
    await migrations.upgrade(settings, "qortex_db_0001")
    await execute(empty_dsn, "INSERT INTO qortex_vectors VALUES ('a', '[1,2]')")
    where = "SELECT pg_relation_filenode('qortex_vectors')"
    before = await rows(empty_dsn, where)
    await migrations.upgrade(settings)
    assert await rows(empty_dsn, where) == before
    kept = await rows(
        empty_dsn,
        "SELECT concat_ws('|', id, vec, payload, document) "
        "FROM qortex_vectors WHERE created_at <= now() AND updated_at <= now()",
    )
    assert kept == ["a|[1,2]|{}"]


def test_there_is_one_history_with_one_head_under_our_label() -> None:
    scripts = ScriptDirectory(str(migrations.locate()))
    assert scripts.get_heads() == [HEAD]
    assert all(script.branch_labels == {"qortex_db"} for script in scripts.walk_revisions())


def test_revisions_import_nothing_of_ours() -> None:
    for file in (migrations.locate() / "versions").glob("*.py"):
        assert "qortex_db" not in "".join(
            line for line in file.read_text().splitlines() if "import" in line
        )


@pytest.mark.parametrize("dimensions", [1, 768, 2000])
async def test_the_dimension_of_the_first_upgrade_is_recorded(
    empty_dsn: str, dimensions: int
) -> None:
    state = await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=dimensions))
    assert state.dimensions == dimensions
    assert f"qortex_vectors.vec vector({dimensions})" in await catalogue(empty_dsn)
    assert (await migrations.check(Settings(dsn=empty_dsn))).dimensions == dimensions


async def test_another_dimension_later_is_refused_before_anything_is_done(empty_dsn: str) -> None:
    await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=768), "qortex_db_0001")
    with pytest.raises(DimensionMismatchError, match=r"1536.*768") as caught:
        await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=1536))
    assert (caught.value.expected, caught.value.actual) == (768, 1536)
    state = await migrations.upgrade(Settings(dsn=empty_dsn))
    assert (state.dimensions, state.is_current) == (768, True)


async def test_a_dimension_that_no_index_holds_is_refused_before_anything_is_done(
    empty_dsn: str,
) -> None:
    settings = Settings(dsn=empty_dsn, dimensions=2001, db_schema="mine")
    with pytest.raises(InvalidInputError, match="2000"):
        await migrations.upgrade(settings)
    with pytest.raises(InvalidInputError, match="2000"):
        migrations.upgrade_sql(settings)
    assert await relations(empty_dsn) == set()


async def test_a_schema_of_its_own_holds_everything(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, db_schema="Mine")
    assert (await migrations.upgrade(settings)).is_current
    moved = {line.replace("public.", '"Mine".') for line in BASELINE | LATER}
    assert await catalogue(empty_dsn, '"Mine"') == moved
    assert await rows(empty_dsn, f'SELECT version_num FROM "Mine".{VERSION_TABLE}') == [HEAD]
    assert await catalogue(empty_dsn) == set()
    # Another one beside it, with another dimension.
    other = await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=3))
    assert (other.dimensions, (await migrations.check(settings)).dimensions) == (3, 384)


async def test_a_role_without_the_right_to_create_schemas_migrates_its_own(
    empty_dsn: str,
) -> None:
    await execute(
        empty_dsn,
        "DO 'BEGIN IF to_regrole(''tenant'') IS NULL THEN CREATE ROLE tenant LOGIN; END IF; END'",
        "CREATE SCHEMA mine AUTHORIZATION tenant",
        "CREATE EXTENSION vector",
    )
    dsn = empty_dsn.replace("postgres:@", "tenant@")
    assert dsn != empty_dsn
    assert (await migrations.upgrade(Settings(dsn=dsn, db_schema="mine"))).is_current
    await execute(empty_dsn, "DROP OWNED BY tenant CASCADE")


async def test_an_extension_in_a_schema_off_the_search_path_is_found(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn)
    await migrations.upgrade(settings, extension_schema="extensions")
    found = await catalogue(empty_dsn)
    assert "qortex_vectors.vec extensions.vector(384)" in found
    assert any("hnsw (vec extensions.vector_cosine_ops)" in str(line) for line in found)


async def test_a_search_path_that_leads_nowhere_is_told(empty_dsn: str) -> None:
    (database,) = await rows(empty_dsn, "SELECT current_database()")
    await execute(empty_dsn, f'ALTER DATABASE "{database}" SET search_path = nowhere')
    with pytest.raises(SchemaVersionError, match=r"search_path.*QORTEX_DB_SCHEMA"):
        await migrations.upgrade(Settings(dsn=empty_dsn))
    settings = Settings(dsn=empty_dsn, db_schema="here")
    assert (await migrations.upgrade(settings, extension_schema="here")).is_current


async def test_the_extension_can_be_left_to_an_administrator(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn)
    with pytest.raises(SchemaVersionError, match="CREATE EXTENSION vector"):
        await migrations.upgrade(settings, create_extension=False)
    assert await relations(empty_dsn) == set()
    await execute(empty_dsn, "CREATE EXTENSION vector")
    assert (await migrations.upgrade(settings, create_extension=False)).is_current


@pytest.mark.parametrize("schema", ["a b", 'x"; DROP TABLE y; --', "1a", "x" * 64])
async def test_what_is_no_identifier_is_refused(empty_dsn: str, schema: str) -> None:
    with pytest.raises(InvalidInputError, match="identifier"):
        await migrations.upgrade(Settings(dsn=empty_dsn), extension_schema=schema)
    with pytest.raises(ValueError, match="identifier"):
        Settings(dsn=empty_dsn, db_schema=schema)
    assert await relations(empty_dsn) == set()


async def test_a_database_of_a_newer_package_is_left_alone(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn)
    await migrations.upgrade(settings)
    await execute(empty_dsn, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for call in (
        migrations.upgrade(settings),
        migrations.downgrade(settings, "base"),
        migrations.check(settings),
    ):
        with pytest.raises(SchemaVersionError, match=r"9999.*newer qortex-db"):
            await call
    assert await catalogue(empty_dsn) >= BASELINE


async def test_tables_that_no_migration_made_are_left_alone_and_adoption_is_named(
    empty_dsn: str,
) -> None:
    await execute(empty_dsn, "CREATE TABLE interoception_factors (node_id text)")
    with pytest.raises(SchemaVersionError, match=r"interoception_factors.*qortex-db adopt"):
        await migrations.upgrade(Settings(dsn=empty_dsn))
    assert "qortex_vectors" not in await relations(empty_dsn)


async def test_a_revision_that_is_not_there_is_named(empty_dsn: str) -> None:
    with pytest.raises(SchemaVersionError, match="nowhere"):
        await migrations.upgrade(Settings(dsn=empty_dsn), "nowhere")


async def test_check_changes_nothing(empty_dsn: str) -> None:
    state = await migrations.check(Settings(dsn=empty_dsn))
    assert (state.current, state.head, state.dimensions) == (None, HEAD, None)
    assert await relations(empty_dsn) == set()


@pytest.mark.parametrize("call", [migrations.upgrade, migrations.check])
async def test_no_server_is_started_unasked(
    call: Callable[[Settings], Awaitable[object]],
) -> None:
    with pytest.raises(UnavailableError, match=r"PGVECTOR_DSN.*PGVECTOR_HOST.*DATABASE_URL"):
        await call(Settings())


async def test_a_server_that_is_not_there_is_unavailable_and_its_password_unsaid() -> None:
    settings = Settings(dsn="postgresql://u:s3cret@127.0.0.1:9/x")
    with pytest.raises(UnavailableError) as caught:
        await migrations.upgrade(settings)
    assert "s3cret" not in str(caught.value)


async def test_an_upgrade_waits_for_another_one_but_not_for_ever(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn)
    async with (
        migration_engine(settings, embedded=False) as engine,
        migration_lock(engine, timeout_seconds=1),
    ):
        waiting = asyncio.create_task(migrations.upgrade(settings))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        with pytest.raises(LockTimeoutError, match="Another process"):
            async with migration_lock(engine, timeout_seconds=0.1):
                pass
    assert (await waiting).is_current


async def test_the_offline_sql_gives_the_same_database(empty_dsn: str) -> None:
    await run_script(empty_dsn, migrations.upgrade_sql(Settings()))
    assert await catalogue(empty_dsn) == BASELINE | LATER
    assert (await migrations.check(Settings(dsn=empty_dsn))).is_current


def test_the_offline_sql_takes_every_option() -> None:
    sql = migrations.upgrade_sql(
        Settings(db_schema="mine", dimensions=12), create_extension=False, extension_schema="ext"
    )
    assert "CREATE EXTENSION" not in sql
    assert "vec ext.vector(12)" in sql.replace('"', "")
    assert f"CREATE TABLE mine.{VERSION_TABLE}" in sql
