"""Partitioned collections in a host's revisions: declared, made, indexed one by one, undone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase

from qortex_db import (
    Collection,
    InvalidInputError,
    Partitions,
    Settings,
    VectorMixin,
    VectorSpec,
    migrations,
)
from support.catalogue import execute, relations, rows
from support.revisions import Revision, autogenerate, connected, run

if TYPE_CHECKING:
    from sqlalchemy import Connection

pytestmark = pytest.mark.slow

TENANTS = {"namespace": "tenant", "namespace_in_key": True}
INVALID = (
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = indexrelid WHERE NOT indisvalid"
)
PARTS = (
    "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{}'::regclass ORDER BY 1"
)


def models(**collections: Collection) -> MetaData:
    base: Any = type("B", (DeclarativeBase,), {"metadata": MetaData()})
    for name, collection in collections.items():
        space = {"__tablename__": name, "__collection__": collection}
        type(name, (VectorMixin, base), space)
    found: MetaData = base.metadata
    return found


def hashed(**options: Any) -> Collection:
    return Collection(VectorSpec(3), partitions=Partitions(4), **options)


def listed(*, default: str | None = "others", **values: list[str]) -> Collection:
    said = Partitions(values=values, default=default)
    return Collection(VectorSpec(3), partitions=said, **TENANTS)


async def indexes(dsn: str, table: str) -> list[str]:
    """By the parts that are attached to each of a table's own indexes."""
    query = """
        SELECT c.relname || ' ' || count(h.inhrelid) || ' ' || bool_and(own.indisvalid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        LEFT JOIN pg_inherits h ON h.inhparent = c.oid
        LEFT JOIN pg_index own ON own.indexrelid = h.inhrelid
        WHERE i.indrelid = '{}'::regclass AND i.indisvalid GROUP BY c.relname ORDER BY 1
    """
    return await rows(dsn, query.format(table))


async def test_partitions_are_made_by_the_revision_that_makes_their_table(empty_dsn: str) -> None:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    metadata = models(notes=hashed(), logs=listed(acme=["acme", "it's"], Other=["b%"]))
    revision = await autogenerate(empty_dsn, metadata)
    assert "postgresql_partition_by='HASH (id)'" in revision.upgrade
    assert "postgresql_partition_by='LIST (tenant)'" in revision.upgrade
    made = [line for line in revision.lines if "partitions(" in line]
    values = "{'acme': ['acme', \"it's\"], 'Other': ['b%']}"
    assert sorted(made) == [
        f"op.create_partitions('logs', values={values}, default='others')",
        "op.create_partitions('notes', modulus=4)",
    ]
    assert "import qortex_db.migrations" in revision.imports
    await run(empty_dsn, revision)
    assert await rows(empty_dsn, PARTS.format("notes")) == [f"notes_{i}" for i in range(4)]
    bounds = await rows(
        empty_dsn,
        "SELECT relname || ' ' || pg_get_expr(relpartbound, oid) FROM pg_class "
        "WHERE relispartition AND relkind = 'r' AND relname LIKE 'logs%' ORDER BY 1",
    )
    assert sorted(bounds) == [
        "logs_Other FOR VALUES IN ('b%')",
        "logs_acme FOR VALUES IN ('acme', 'it''s')",
        "logs_others DEFAULT",
    ]
    for parts, table in ((4, "notes"), (3, "logs")):
        found = await indexes(empty_dsn, table)
        assert [one.split(" ")[1:] for one in found] == [[str(parts), "true"]] * 4
    again = await autogenerate(empty_dsn, metadata)
    assert (again.differences, again.lines) == ([], [])
    assert await migrations.drift(Settings(dsn=empty_dsn), metadata=metadata) == []
    more = models(notes=hashed(), logs=listed(acme=["acme", "it's"], Other=["b%"], new=["n"]))
    added = await autogenerate(empty_dsn, more)
    assert added.lines == ["op.create_partitions('logs', values={'new': ['n']})"]
    await run(empty_dsn, added)
    assert (await autogenerate(empty_dsn, more)).lines == []
    await run(empty_dsn, added, "downgrade")
    await run(empty_dsn, revision, "downgrade")
    assert await relations(empty_dsn) == set()


async def test_create_all_makes_the_same(empty_dsn: str) -> None:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    metadata = models(notes=hashed(), spaces=hashed(**TENANTS))
    async with connected(empty_dsn) as connection:
        await connection.run_sync(metadata.create_all)
        await connection.run_sync(metadata.create_all)
        await connection.commit()
    assert (await autogenerate(empty_dsn, metadata)).lines == []
    assert await rows(empty_dsn, "SELECT pg_get_partkeydef('spaces'::regclass)") == [
        "HASH (tenant)"
    ]


async def test_indexes_of_partitions_are_built_one_by_one_while_the_table_is_in_use(
    empty_dsn: str,
) -> None:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    bare = {"payload_index": False, "language": None}
    none = models(notes=Collection(VectorSpec(3, index=None), partitions=Partitions(4), **bare))
    await run(empty_dsn, await autogenerate(empty_dsn, none))
    await execute(
        empty_dsn,
        # A partition of partitions, as a host may make them.
        "ALTER TABLE notes DETACH PARTITION notes_3",
        "DROP TABLE notes_3",
        "CREATE TABLE notes_3 PARTITION OF notes FOR VALUES WITH (MODULUS 4, REMAINDER 3) "
        "PARTITION BY HASH (id)",
        "CREATE TABLE notes_3_0 PARTITION OF notes_3 FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "INSERT INTO notes (id, vec) SELECT n::text, ARRAY[n, 1, 2]::vector "
        "FROM generate_series(1, 200) n",
    )
    metadata = models(notes=hashed())
    revision = await autogenerate(empty_dsn, metadata)
    assert "concurrently" not in revision.upgrade
    writer = await asyncpg.connect(empty_dsn)
    try:
        # Another session writes to one partition, and then reads, all the time.
        open_ = writer.transaction()
        await open_.start()
        await writer.execute("INSERT INTO notes (id, vec) VALUES ('new', '[1,2,3]')")
        building = asyncio.create_task(run(empty_dsn, revision))
        await asyncio.sleep(0.3)
        assert not building.done()
        other = await asyncpg.connect(empty_dsn, timeout=5)
        async with asyncio.timeout(5):
            await other.execute("INSERT INTO notes (id, vec) VALUES ('more', '[1,2,3]')")
        await other.close()
        await open_.commit()
        await building
    finally:
        await writer.close()
    assert await rows(empty_dsn, INVALID) == []
    assert [one.split(" ")[1:] for one in await indexes(empty_dsn, "notes")] == [["4", "true"]] * 4
    assert (await autogenerate(empty_dsn, metadata)).lines == []
    assert await migrations.drift(Settings(dsn=empty_dsn), metadata=metadata) == []
    (rebuilt,) = await migrations.rebuild_index(Settings(dsn=empty_dsn), table="notes_1")
    assert rebuilt.name == "ix_notes_vec_notes_1"
    other = models(notes=Collection(VectorSpec(3, "l2"), partitions=Partitions(4)))
    changed = await autogenerate(empty_dsn, other)
    assert [line.partition("(")[0] for line in changed.lines] == [
        "op.drop_vector_index",
        "op.create_vector_index",
    ]
    await run(empty_dsn, changed)
    assert (await autogenerate(empty_dsn, other)).lines == []
    await run(empty_dsn, changed, "downgrade")
    await run(empty_dsn, revision, "downgrade")
    assert (await autogenerate(empty_dsn, none)).lines == []


async def test_a_build_that_failed_goes_on_where_it_ended(empty_dsn: str) -> None:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    none = models(notes=Collection(VectorSpec(3, index=None), partitions=Partitions(4)))
    await run(empty_dsn, await autogenerate(empty_dsn, none))
    await execute(
        empty_dsn,
        # As a row of another length, which a column without dimensions takes.
        "ALTER TABLE notes ALTER vec TYPE vector",
        "INSERT INTO notes (id, vec) SELECT n::text, '[1,2,3]' FROM generate_series(1, 40) n",
        "INSERT INTO notes (id, vec) VALUES ('bad', '[1,2]')",
    )
    op = "op.create_vector_index('ix_notes_vec', 'notes', '(vec::vector(3))')"

    def build(connection: Connection) -> None:
        revision = object.__new__(Revision)
        revision.imports = ["import qortex_db.migrations"]
        revision.run(op, connection)

    async with connected(empty_dsn) as connection:
        with pytest.raises(DBAPIError, match="expected 3 dimensions"):
            await connection.run_sync(build)
    assert "ix_notes_vec" in await rows(empty_dsn, INVALID)
    whole = "SELECT count(*)::text FROM pg_inherits WHERE inhparent = 'ix_notes_vec'::regclass"
    assert await rows(empty_dsn, whole) != ["4"]
    before = await rows(empty_dsn, "SELECT oid::text FROM pg_class WHERE relname = 'ix_notes_vec'")
    await execute(empty_dsn, "DELETE FROM notes WHERE id = 'bad'")
    async with connected(empty_dsn) as connection:
        await connection.run_sync(build)
    assert await rows(empty_dsn, INVALID) == []
    assert await rows(empty_dsn, whole) == ["4"]
    assert before == await rows(
        empty_dsn, "SELECT oid::text FROM pg_class WHERE relname = 'ix_notes_vec'"
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "by modulus"),
    ({"modulus": 4, "values": {"a": ["a"]}}, "by modulus"),
    ({"modulus": 1}, "whole number from 2"),
    ({"modulus": 2, "default": "x"}, "hash has none"),
    ({"values": {}}, "mapping"),
    ({"values": {"a": "b"}}, "a list of one or more"),
    ({"values": {"a": []}}, "a list of one or more"),
    ({"values": {"a": ["x"], "b": ["x"]}}, "none of them twice"),
    ({"values": {"a": [True]}}, "strings or integers"),
    ({"values": {"a": ["x"]}, "default": "a"}, "another partition"),
]


@pytest.mark.parametrize(("options", "says"), REFUSED)
def test_what_makes_no_partitions_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        Partitions(**options)


def test_a_list_needs_a_namespace_in_the_key() -> None:
    said = Collection(VectorSpec(3), partitions=Partitions(values={"a": ["a"]}))
    with pytest.raises(InvalidInputError, match="in the key"):
        models(notes=said)
    with pytest.raises(InvalidInputError, match="has to be Partitions"):
        Collection(VectorSpec(3), partitions=4)  # type: ignore[arg-type]
