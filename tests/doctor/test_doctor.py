"""What the doctor finds in real databases."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
from doctor.findings import levels, said

from qortex_db import Database, PermissionDeniedError, Settings, migrations
from qortex_db.doctor import examine, reading
from support.catalogue import execute, rows
from support.commands import run as command
from support.poolers import BOUNCERS, NOT_THERE, Bouncer, through

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db.testing import Server as TestServer

ROLE = "seen-by-the-doctor"


def as_role(dsn: str) -> str:
    return re.sub(r"//[^@/]*@", f"//{ROLE}@", dsn)


@asynccontextmanager
async def beside(dsn: str, count: int) -> AsyncIterator[None]:
    """Other connections."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            stack.push_async_callback((await asyncpg.connect(dsn)).close)
        yield


@pytest.fixture
def role(server: TestServer, dsn: str) -> Iterator[str]:
    """A DSN of a role that may do nothing yet."""
    server.execute(f'CREATE ROLE "{ROLE}" LOGIN')
    yield as_role(dsn)
    database = dsn.partition("?")[0].rpartition("/")[2]
    server.execute(f'DROP OWNED BY "{ROLE}"', database=database)
    server.execute(f'DROP ROLE "{ROLE}"')


async def test_a_database_as_it_should_be_is_good(dsn: str) -> None:
    found = await examine(Settings(dsn=dsn), is_embedded=True)
    assert set(levels(found).values()) == {"good"}, found
    [version] = await rows(dsn, "SHOW server_version")
    assert f"PostgreSQL {version}" in said(found, "server")
    assert migrations.head_revision() in said(found, "schema")
    assert "embedded" in said(found, "role")
    assert {"pgvector", "indexes", "maintenance_work_mem", "shared_buffers", "connections",
            "pooler", "clock", "search_path"} <= levels(found).keys()  # fmt: skip
    # What the catalogue says where Citus is; a cluster's own answers are in tests/citus.
    await execute(
        dsn,
        "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, "
        "extversion) SELECT 99999, 'citus', extowner, extnamespace, false, '13.2-1' "
        "FROM pg_extension WHERE extname = 'vector'",
    )
    found = await examine(Settings(dsn=dsn), is_embedded=True)
    assert {one.check for one in found if one.level != "good"} == {"memory"}
    assert "each node has its part" in said(found, "memory", "unknown")


async def test_what_can_be_read_by_a_reader_is_judged(role: str, dsn: str) -> None:
    found = await examine(Settings(dsn=role))
    assert levels(found)["role"] == "wrong"
    assert "may not read arm" not in said(found, "role")
    assert f"`qortex-db roles --writer {ROLE}`" in said(found, "role")
    assert f'"public"."qortex_vectors" TO "{ROLE}"' in said(found, "role")
    tables = f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{ROLE}"'
    await execute(dsn, tables, f'REVOKE ALL ON qortex_db_alembic_version FROM "{ROLE}"')
    found = await examine(Settings(dsn=role))
    assert [(one.check, one.level) for one in found if one.fails] == [("schema", "unknown")]
    grant = f'GRANT SELECT ON TABLE "public"."qortex_db_alembic_version" TO "{ROLE}"'
    assert grant in said(found, "schema")
    await migrations.grant_roles(Settings(dsn=dsn), reader=ROLE)
    found = await examine(Settings(dsn=role))
    assert set(levels(found).values()) == {"good"}, found
    assert said(found, "role") == f"The role {ROLE} may read. "
    await migrations.grant_roles(Settings(dsn=dsn), writer=ROLE)
    assert "may write and read" in said(await examine(Settings(dsn=role)), "role")


async def test_what_is_in_a_schema_that_is_closed_to_the_role_is_not_told_to_be_missing(
    role: str, dsn: str
) -> None:
    await migrations.grant_roles(Settings(dsn=dsn), reader=ROLE)
    await execute(
        dsn,
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
        f'REVOKE USAGE ON SCHEMA public FROM "{ROLE}"',
    )
    for settings in (Settings(dsn=role), Settings(dsn=role, db_schema="public")):
        found = await examine(settings)
        for check, level in (("pgvector", "wrong"), ("schema", "unknown"), ("role", "wrong"),
                             ("search_path", "warning")):  # fmt: skip
            told = said(found, check, level)
            assert "lacks USAGE on" in told
            assert f'GRANT USAGE ON SCHEMA "public" TO "{ROLE}"' in told
    with pytest.raises(PermissionDeniedError, match="lacks USAGE on the schema public, where the"):
        await migrations.check(Settings(dsn=role))
    await execute(dsn, "CREATE SCHEMA own", f'GRANT USAGE ON SCHEMA own TO "{ROLE}"')
    state = await migrations.check(Settings(dsn=role, db_schema="own"))  # it is not there
    assert (state.current, state.is_filled) == (None, False)
    with pytest.raises(PermissionDeniedError, match="the role seen-by-the-doctor lacks USAGE"):
        async with Database.connect(role):
            pass


async def test_the_limit_of_a_role_or_database_is_compared_with_its_own_connections(
    role: str, dsn: str
) -> None:
    await execute(dsn, f'ALTER ROLE "{ROLE}" CONNECTION LIMIT 6')
    settings = Settings(dsn=role, pool_max_size=4)
    async with beside(dsn, 3):
        found = await examine(settings)
        enough = "the role's limit leaves 6: enough for 1 such process"
        assert enough in said(found, "connections", "good")
        async with beside(role, 3):
            found = await examine(settings)
        used = "the role's limit leaves 6, and 4 are in use"
        assert used in said(found, "connections", "warning")
        name = dsn.partition("?")[0].rpartition("/")[2]
        await execute(dsn, f"ALTER DATABASE {name} CONNECTION LIMIT 5")
        found = await examine(settings)
        assert "the database's limit leaves 5, and" in said(found, "connections", "warning")
        assert levels(await examine(Settings(dsn=dsn, pool_max_size=4)))["connections"] == "good"


async def test_what_is_wrong_is_told_with_what_to_do(dsn: str, empty_dsn: str) -> None:
    await execute(
        dsn,
        "UPDATE pg_index SET indisvalid = false "
        "WHERE indexrelid = 'ix_qortex_vectors_words'::regclass",
        "DROP INDEX ix_qortex_vectors_vec",
        "UPDATE pg_class SET reltuples = 50000 WHERE relname = 'qortex_vectors'",
        "UPDATE qortex_db_alembic_version SET version_num = 'qortex_db_0001'",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
    )
    found = await examine(Settings(dsn=dsn, pool_max_size=1_000, pooler="transaction"))
    wrong = said(found, "indexes", "wrong")
    assert "ix_qortex_vectors_words on qortex_vectors is invalid" in wrong
    assert 'REINDEX INDEX CONCURRENTLY "public"."ix_qortex_vectors_words"' in wrong
    assert "ix_qortex_vectors_vec, which the models declare" in wrong
    assert "about 50,000 rows" in wrong
    assert (
        "CREATE INDEX CONCURRENTLY ix_qortex_vectors_vec ON qortex_vectors "
        "USING hnsw (vec vector_cosine_ops)"
    ) in wrong
    assert "`qortex-db upgrade`" in said(found, "schema", "wrong")
    assert "REVOKE CREATE ON SCHEMA" in said(found, "search_path", "warning")
    assert "QORTEX_DB_POOL_MAX_SIZE" in said(found, "connections", "wrong")
    assert "Unset it" in said(found, "pooler", "warning")
    bare = await examine(Settings(dsn=empty_dsn))
    assert "CREATE EXTENSION vector" in said(bare, "pgvector", "wrong")
    assert "`qortex-db upgrade`" in said(bare, "schema", "wrong")
    await execute(empty_dsn, "CREATE TABLE interoception_factors (node_id text)")
    assert "`qortex-db adopt`" in said(await examine(Settings(dsn=empty_dsn)), "schema", "wrong")
    # Where another schema is migrated, one that is named is not.
    place = await examine(Settings(dsn=dsn, db_schema="mem"))
    do = "The schema is not there. Run `QORTEX_DB_SCHEMA=mem qortex-db upgrade`."
    assert said(place, "schema", "wrong") == do
    away = await examine(Settings(dsn="postgresql://u:s3cr3t@127.0.0.1:1/db"))
    assert levels(away) == {"connection": "wrong"}
    assert "s3cr3t" not in str(away)


async def test_what_is_locked_is_not_waited_for_and_the_rest_is_told(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "STATEMENT_SECONDS", 0.3)
    connection = await asyncpg.connect(dsn)
    async with connection.transaction():
        await connection.execute("LOCK TABLE qortex_vectors, qortex_db_alembic_version")
        await connection.execute("DROP INDEX ix_qortex_vectors_vec")
        found = await asyncio.wait_for(examine(Settings(dsn=dsn)), 20)
    await connection.close()
    by = levels(found)
    assert (by["schema"], by["indexes"], by["memory"]) == ("unknown",) * 3
    assert "Not checked: " in said(found, "indexes")
    assert [one.check for one in found if one.fails] == ["schema"]
    assert (by["server"], by["pooler"], by["clock"]) == ("good",) * 3


@pytest.mark.slow
def test_the_command_tells_by_its_exit_status(dsn: str, empty_dsn: str) -> None:
    good = command("doctor", PGVECTOR_DSN=dsn)
    assert (good.code, "✓" in good.out) == (0, True), good.err
    assert max(map(len, good.out.splitlines())) <= 80
    assert command("doctor", "--strict", PGVECTOR_DSN=dsn).code == 1  # a superuser
    wrong = command("doctor", "--json", PGVECTOR_DSN=empty_dsn)
    assert wrong.code == 1
    found = {one["check"]: one for one in json.loads(wrong.out)}
    assert found["pgvector"]["level"] == "wrong"
    assert "CREATE EXTENSION" in found["pgvector"]["do"]
    none = command("doctor", QORTEX_DB_EMBEDDED_PATH="/nowhere/at/all")
    assert (none.code, "PGVECTOR_DSN" in none.err) == (1, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bouncer",
    BOUNCERS[:1] or [pytest.param(None, marks=pytest.mark.skip(reason=NOT_THERE))],
    ids=str,
)
@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_a_pooler_is_seen_and_its_mode(
    role: str, dsn: str, bouncer: Bouncer, mode: str
) -> None:
    await migrations.grant_roles(Settings(dsn=dsn), reader=ROLE)
    async with through(bouncer, role, ROLE, size=4, mode=mode) as there:
        told = await examine(Settings(dsn=there, pooler="transaction"))
        plain = f"{there}&statement_cache_size=0&prepared_statement_cache_size=0"
        untold = await examine(Settings(dsn=plain))
    assert "the pooler shares those" in said(told, "connections")
    if mode == "transaction":
        assert "as QORTEX_DB_POOLER says" in said(told, "pooler", "good")
        assert "Set QORTEX_DB_POOLER=transaction" in said(untold, "pooler", "warning")
    else:
        assert "session mode, unset QORTEX_DB_POOLER" in said(told, "pooler", "warning")
        assert "a session of its own" in said(untold, "pooler", "good")
