"""What the doctor says by its rules, over made-up facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from doctor.findings import levels, said

from qortex_db.doctor import Finding, diagnose
from qortex_db.doctor.facts import (
    Capacity,
    Declared,
    Expected,
    Facts,
    Replica,
    Server,
    Sessions,
    Standby,
    TableAccess,
    Unread,
    Use,
)
from qortex_db.index_health import Index

MB = 2**20
SERVER = Server(
    180_004, "18.4", False, "service", False, "0.8.5", "public", True, True, False, "0.8.5", 0.0,
    0.001,
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
    "t", "service", "t", "public", "owner", False, True, False,
    frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"}),
)  # fmt: skip
INDEX = Index(
    "ix", "t", "public", "hnsw", True, 40 * MB, "hnsw (vec vector_cosine_ops)", 20_000, 384
)
FACTS = Facts(
    where="h/d",
    server=SERVER,
    capacity=Capacity(SETTINGS, 5, Use(5), Use(5)),
    tables={"t": TABLE},
    indexes=(INDEX,),
    revisions=("qortex_db_0017",),
    pending=(),
    sessions=Sessions(is_pooled=False, shares=False),
)
EXPECTED = Expected(
    "qortex_db_0017", False, ("t",), (), {"t": {"ix": Declared(True, "CREATE INDEX …")}}, 10
)


def test_an_index_of_a_table_of_that_name_in_another_schema_is_no_index_of_this_one() -> None:
    found = diagnose(replace(FACTS, indexes=(replace(INDEX, schema="other"),)), EXPECTED)
    assert "ix, which the models declare, is not on t" in said(found, "indexes", "warning")


def test_what_to_do_names_the_schema_and_the_role() -> None:
    expected = replace(EXPECTED, schema="m$m")
    found = diagnose(replace(FACTS, tables={"t": replace(TABLE, has_usage=False)}), expected)
    do = "`QORTEX_DB_SCHEMA='m$m' qortex-db roles --writer service` gives it all that is needed"
    assert do in said(found, "role", "wrong")
    shared = diagnose(
        replace(FACTS, revisions=("host_1",), tables={}), replace(EXPECTED, is_shared=True)
    )
    assert "`alembic upgrade heads`" in said(shared, "schema", "wrong")
    invalid = replace(FACTS, indexes=(replace(INDEX, is_valid=False, table="a b"),))
    do = "`QORTEX_DB_SCHEMA='m$m' qortex-db index rebuild --table 'a b'` builds it"
    assert do in said(diagnose(invalid, expected), "indexes", "wrong")


def test_what_is_not_known_fails_where_it_is_essential() -> None:
    failing = {check for check in ("schema", "role", "pooler", "clock", "memory")
               if Finding(check, "unknown", "").fails}  # fmt: skip
    assert failing == {"schema", "role"}


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
    return Capacity(SETTINGS | numbers, 5, Use(5), Use(5))


STANDBY = Standby(
    is_standby=True, is_copy=True, is_primary=False, is_paused=False, behind_bytes=0,
    behind_seconds=0.04, conflicts=0, has_feedback=True, delay_seconds=30.0,
    revisions=FACTS.revisions,
)  # fmt: skip


def with_replica(**facts: Any) -> dict[str, Any]:
    return {"replicas": (Replica("r/d", replace(STANDBY, **facts)),)}


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
        ({"server": replace(SERVER, pgvector_is_visible=False, pgvector_is_open=False)},
         "pgvector", "wrong", 'GRANT USAGE ON SCHEMA "public" TO "service".'),
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
         'DROP INDEX CONCURRENTLY "public"."ix_ccnew"'),
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
        ({"capacity": Capacity(SETTINGS, 90, Use(5), Use(5))}, "connections", "warning",
         "max_connections leaves 97, and 90 are in use"),
        ({"capacity": Capacity(SETTINGS, 5, Use(1, 9), Use(1, 50))}, "connections", "wrong",
         "the role's limit"),
        ({"capacity": Capacity(SETTINGS, 90, Use(1, 20), Use(5, 50))}, "connections", "warning",
         "max_connections leaves 97, and 90 are in use"),
        ({"server": replace(SERVER, has_citus=True)}, "memory", "unknown", "with Citus each node"),
        (with_replica(), "replica 1", "good", "r/d is a standby, 0 kB and 0.0 s behind."),
        (with_replica(behind_bytes=6 * MB, behind_seconds=3.0), "replica 1", "good",
         "6.0 MB behind: its last transaction is 3 s old."),
        (with_replica(behind_bytes=6 * MB, behind_seconds=61.0, delay_seconds=None), "replica 1",
         "warning", "With max_standby_streaming_delay = -1"),
        (with_replica(behind_bytes=6 * MB, behind_seconds=None), "replica 1", "warning",
         "none yet"),
        (with_replica(is_paused=True), "replica 1", "warning", "pg_wal_replay_resume()"),
        (with_replica(is_standby=False), "replica 1", "wrong", "r/d is no standby. Take it out"),
        (with_replica(is_copy=False), "replica 1", "wrong", "no standby of the primary's"),
        (with_replica(is_standby=False, is_primary=True), "replica 1", "warning",
         "r/d is the primary itself"),
        (with_replica(revisions=("qortex_db_0016",)), "replica 1", "warning",
         "r/d has the schema at revision qortex_db_0016, and the primary at qortex_db_0017."),
        (with_replica(revisions=Unread("denied.", "GRANT it.")), "replica 1", "unknown",
         "r/d: its schema was not read: denied. GRANT it."),
        (with_replica(conflicts=3, has_feedback=False), "replica 1", "warning",
         "hot_standby_feedback = on"),
        (with_replica(conflicts=3), "replica 1", "warning", "A longer max_standby_streaming_delay"),
        (with_replica(has_feedback=False), "replica 1", "good", "in its replay's way for 30 s."),
        ({"replicas": (Replica("r/d", Unread("refused."), False),)}, "replica 1", "wrong",
         "r/d was not reached: refused."),
        ({"replicas": (Replica("r/d", Unread("not supported.")),)}, "replica 1", "unknown",
         "r/d was not checked: not supported."),
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
