"""What the doctor finds in real databases, and by its rules in made-up ones."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from qortex_db import Settings, migrations
from qortex_db.doctor import Finding, diagnose, examine, reading
from qortex_db.doctor.facts import (
    Capacity,
    Declared,
    Expected,
    Facts,
    Server,
    Sessions,
    TableAccess,
    Unread,
)
from qortex_db.index_health import Index
from support.catalogue import execute
from support.commands import run as command
from support.poolers import BOUNCERS, NOT_THERE, Bouncer, through

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db.testing import Server as TestServer

ROLE = "seen_by_the_doctor"


def said(found: list[Finding], check: str, *levels: str) -> str:
    """What one check says, with what to do."""
    of_it = [one for one in found if one.check == check and (not levels or one.level in levels)]
    assert of_it, found
    return " ".join(f"{one.said} {one.do}" for one in of_it)


def levels(found: list[Finding]) -> dict[str, str]:
    return {one.check: one.level for one in found}


def as_role(dsn: str) -> str:
    return re.sub(r"//[^@/]*@", f"//{ROLE}@", dsn)


@pytest.fixture
def role(server: TestServer, dsn: str) -> Iterator[str]:
    """A DSN of a role that may do nothing yet."""
    server.execute(f"CREATE ROLE {ROLE} LOGIN")
    yield as_role(dsn)
    database = dsn.partition("?")[0].rpartition("/")[2]
    server.execute(f"DROP OWNED BY {ROLE}", database=database)
    server.execute(f"DROP ROLE {ROLE}")


async def test_a_database_as_it_should_be_is_good(dsn: str) -> None:
    found = await examine(Settings(dsn=dsn), is_embedded=True)
    assert set(levels(found).values()) == {"good"}, found
    assert "PostgreSQL 18" in said(found, "server")
    assert migrations.head_revision() in said(found, "schema")
    assert "embedded" in said(found, "role")
    assert {"pgvector", "indexes", "maintenance_work_mem", "shared_buffers", "connections",
            "pooler", "clock", "search_path"} <= levels(found).keys()  # fmt: skip


async def test_what_can_be_read_by_a_reader_is_judged(role: str, dsn: str) -> None:
    found = await examine(Settings(dsn=role))
    assert levels(found)["role"] == "wrong"
    assert "may not read arm" not in said(found, "role")
    assert "qortex-db roles" in said(found, "role")
    assert levels(found)["schema"] == "unknown"  # the version table is closed to it, too
    assert "permission" in said(found, "schema").lower()
    await migrations.grant_roles(Settings(dsn=dsn), reader=ROLE)
    found = await examine(Settings(dsn=role))
    assert set(levels(found).values()) == {"good"}, found
    assert said(found, "role") == f"The role {ROLE} may read. "
    await migrations.grant_roles(Settings(dsn=dsn), writer=ROLE)
    assert "may write and read" in said(await examine(Settings(dsn=role)), "role")
    await execute(dsn, "REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    await execute(dsn, f"REVOKE USAGE ON SCHEMA public FROM {ROLE}")
    closed = await examine(Settings(dsn=role, db_schema="public"))
    assert "may not use the schema public" in said(closed, "role", "wrong")


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
    assert "REINDEX INDEX CONCURRENTLY ix_qortex_vectors_words" in wrong
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


MB = 2**20
SERVER = Server(
    180_004, "18.4", False, "service", False, "0.8.5", "public", True, "0.8.5", 0.0, 0.001
)  # fmt: skip
SETTINGS = {
    "maintenance_work_mem": 64 * MB,
    "shared_buffers": 128 * MB,
    "effective_cache_size": 4_096 * MB,
    "max_parallel_maintenance_workers": 2,
    "max_parallel_workers": 8,
    "max_worker_processes": 8,
    "max_connections": 100,
    "superuser_reserved_connections": 3,
}
TABLE = TableAccess(
    "t", "t", "public", "owner", False, True,
    frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"}), False,
)  # fmt: skip
INDEX = Index("ix", "t", "hnsw", True, 40 * MB, "hnsw (vec vector_cosine_ops)", 20_000, 384)
FACTS = Facts(
    where="h/d",
    server=SERVER,
    capacity=Capacity(SETTINGS, 5, None, None),
    tables={"t": TABLE},
    indexes=(INDEX,),
    revisions=("qortex_db_0017",),
    pending=(),
    sessions=Sessions(is_pooled=False, shares=False),
)
EXPECTED = Expected(
    "qortex_db_0017", False, ("t",), (), {"t": {"ix": Declared(True, "CREATE INDEX …")}}, 10
)


def test_a_hosts_tables_alone_are_a_schema_too() -> None:
    expected = replace(EXPECTED, tables=("ours",), others=("t", "u"))
    there = {"t": TABLE, "u": replace(TABLE, name="u", privileges=frozenset({"SELECT"}))}
    found = diagnose(replace(FACTS, revisions=None, tables=there), expected)
    assert "tables of yours alone" in said(found, "schema", "good")
    assert "write all but u." in said(found, "role", "good")
    found = diagnose(replace(FACTS, revisions=None), expected)
    assert "not there: u" in said(found, "schema", "wrong")


def judged(**facts: Any) -> list[Finding]:
    return diagnose(replace(FACTS, **facts), EXPECTED)


def with_settings(**numbers: int) -> Capacity:
    return Capacity(SETTINGS | numbers, 5, None, None)


def test_the_made_up_one_is_good() -> None:
    assert set(levels(judged()).values()) == {"good"}, judged()


@pytest.mark.parametrize(
    ("facts", "check", "level", "words"),
    [
        ({"server": replace(SERVER, number=140_011, version="14.11")}, "server", "wrong",
         "older than any that is supported"),
        ({"server": replace(SERVER, number=190_000, version="19.0")}, "server", "warning",
         "newer than any that was tried"),
        ({"server": replace(SERVER, is_standby=True)}, "server", "good", "a standby"),
        ({"server": replace(SERVER, pgvector=None, available=None)}, "pgvector", "wrong",
         "Install pgvector"),
        ({"server": replace(SERVER, pgvector="0.7.4")}, "pgvector", "wrong", "too old"),
        ({"server": replace(SERVER, available="0.10.0")}, "pgvector", "warning",
         "ALTER EXTENSION vector UPDATE"),
        ({"server": replace(SERVER, pgvector_is_visible=False, pgvector_schema="ext")},
         "pgvector", "wrong", 'SET search_path = …, "ext"'),
        ({"server": replace(SERVER, clock_ahead_seconds=61.0)}, "clock", "warning",
         "61.0 s ahead of"),
        ({"server": replace(SERVER, clock_ahead_seconds=-61.0)}, "clock", "warning", "behind"),
        ({"server": replace(SERVER, clock_ahead_seconds=6.0, round_trip_seconds=4.0)}, "clock",
         "good", "agree"),
        ({"server": replace(SERVER, is_superuser=True)}, "role", "warning", "superuser"),
        ({"revisions": ("qortex_db_0099",)}, "schema", "wrong", "newer qortex-db"),
        ({"revisions": None, "tables": {}}, "schema", "wrong", "upgrade"),
        ({"tables": {"t": replace(TABLE, privileges=frozenset({"SELECT"}))}}, "role", "good",
         "may read."),
        ({"tables": {"t": replace(TABLE, is_owner=True)}}, "role", "good", "owns the tables"),
        ({"tables": {"t": replace(TABLE, hides_rows=True)}}, "role", "good", "Policies decide"),
        ({"tables": {}}, "schema", "wrong", "Tables are missing: t"),
        ({"indexes": (replace(INDEX, bytes=400 * MB),)}, "indexes", "warning",
         "index rebuild --table t"),
        ({"indexes": (replace(INDEX, bytes=400 * MB, rows=-1),)}, "indexes", "good", "valid"),
        ({"indexes": (replace(INDEX, is_valid=False),)}, "indexes", "wrong",
         "index rebuild --table t"),
        ({"indexes": (replace(INDEX, is_valid=False, name="ix_ccnew"), INDEX)}, "indexes", "wrong",
         "DROP INDEX CONCURRENTLY ix_ccnew"),
        ({"indexes": ()}, "indexes", "warning", "ix, which the models declare, is not on t."),
        ({"indexes": (replace(INDEX, name="v2"),)}, "indexes", "good", "valid"),
        ({"indexes": (), "pending": ("ix",)}, "indexes", "wrong", "waits to be built"),
        ({"capacity": with_settings(maintenance_work_mem=MB)}, "maintenance_work_mem", "warning",
         "gives it that by itself"),
        ({"indexes": (replace(INDEX, bytes=9_000 * MB, rows=4_000_000),)}, "maintenance_work_mem",
         "warning", "--maintenance-work-mem 8GB"),
        ({"capacity": with_settings(max_parallel_maintenance_workers=0)}, "parallel workers",
         "warning", "one process alone"),
        ({"capacity": with_settings(shared_buffers=MB)}, "shared_buffers", "warning",
         "Raise shared_buffers"),
        ({"capacity": with_settings(shared_buffers=MB, effective_cache_size=MB)},
         "shared_buffers", "warning", "from the disk"),
        ({"capacity": with_settings(max_connections=12)}, "connections", "wrong", "fewer"),
        ({"capacity": Capacity(SETTINGS, 90, None, None)}, "connections", "warning", "90 are in"),
        ({"capacity": Capacity(SETTINGS, 5, 9, 50)}, "connections", "wrong", "the role's limit"),
        ({"sessions": Sessions(is_pooled=True, shares=True)}, "pooler", "warning",
         "Set QORTEX_DB_POOLER"),
        ({"open_schemas": ("Others may create in x: REVOKE it",)}, "search_path", "warning",
         "REVOKE it."),
        ({"capacity": Unread("it is dark.")}, "connections", "unknown",
         "Not checked: it is dark."),
        ({"server": Unread("refused.")}, "connection", "wrong", "refused."),
    ],
)  # fmt: skip
def test_each_rule(facts: dict[str, Any], check: str, level: str, words: str) -> None:
    found = judged(**facts)
    assert words in said(found, check, level)
