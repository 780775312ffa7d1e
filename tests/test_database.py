"""Opening a database: whatever state it is in, it says what to do."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg
import pytest
import sqlalchemy
from sqlalchemy import text

from qortex_db import (
    Database,
    DimensionMismatchError,
    PgVectorIndex,
    PoolTimeoutError,
    PostgresInteroceptionStore,
    PostgresLearningStore,
    QueryTimeoutError,
    SchemaVersionError,
    Settings,
    UnavailableError,
    migrations,
)
from qortex_db.testing.factories import VectorRecordFactory
from support.catalogue import execute
from support.commands import program

if TYPE_CHECKING:
    from pathlib import Path


async def fetch(dsn: str, query: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_an_unmigrated_database_opens_and_every_call_says_what_to_run(
    empty_dsn: str,
) -> None:
    async with Database.connect(empty_dsn) as db:
        calls = (
            db.vectors.count(),
            db.vectors.search([1.0]),
            db.vectors.upsert([VectorRecordFactory.build()]),
            db.vectors.get(["a"]),
            db.factors.load(),
            db.factors.adjust({"a": "accepted"}),
            db.edges.record("a", "b", score=1),
            db.arms.observe("l", "a", reward=1),
            db.arms.select("l", ["a"]),
            db.status(),
            PgVectorIndex(db).size(),
            PostgresInteroceptionStore(db).load_edges(),
            PostgresLearningStore("l", db).get("a"),
        )
        for call in calls:
            with pytest.raises(SchemaVersionError, match="qortex-db upgrade"):
                await call
        tables = (
            "SELECT 1 FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        assert await fetch(empty_dsn, tables) == []
        # The same connections take the extension and the tables up when they come.
        await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=3))
        record = VectorRecordFactory.build(dimensions=3)
        assert await db.vectors.upsert([record]) == 1
        assert (await db.vectors.search(record.embedding))[0].id == record.id


async def test_a_table_of_an_older_revision_says_what_to_run(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, dimensions=3)
    await migrations.upgrade(settings, "qortex_db_0001")
    async with Database.connect(settings) as db:
        with pytest.raises(SchemaVersionError, match=r"payload.*qortex-db upgrade"):
            await db.vectors.search([1, 2, 3])


async def test_a_dimension_set_otherwise_is_refused_at_opening(dsn: str) -> None:
    with pytest.raises(DimensionMismatchError, match=r"is 13.*holds 8") as caught:
        await Database.connect(Settings(dsn=dsn, dimensions=13)).open()
    assert (caught.value.expected, caught.value.actual) == (8, 13)
    async with Database.connect(Settings(dsn=dsn, dimensions=8)) as db:
        assert await db.vectors.dimensions() == 8


async def test_opening_says_where_an_invisible_extension_is(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn)
    assert (await migrations.upgrade(settings, extension_schema="ext")).is_current
    with pytest.raises(SchemaVersionError, match=r"schema ext.*search_path"):
        await Database.connect(settings).open()
    visible = Settings(dsn=f"{empty_dsn}&options=-c%20search_path=public,ext")
    async with Database.connect(visible) as db:
        record = VectorRecordFactory.build()
        await db.vectors.upsert([record])
        assert (await db.vectors.search(record.embedding))[0].id == record.id


async def test_everything_works_in_a_schema_of_its_own(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, db_schema="Qx1", dimensions=3)
    await migrations.upgrade(settings)
    async with Database.connect(settings) as db:
        record = VectorRecordFactory.build(dimensions=3)
        await db.vectors.upsert([record])
        await db.arms.observe("l", "a", reward=1)
        async with db.unit_of_work() as uow:
            assert (await uow.vectors.search(record.embedding, limit=50))[0].id == record.id
            assert (await uow.edges.record("a", "b", score=1)).hit_count == 1
        tables = (await db.status()).tables
    assert {name: table["rows"] for name, table in tables.items()} == {
        "interoception_edge_buffer": 1,
        "interoception_factors": 0,
        "learning_arm_states": 1,
        "learning_contexts": 0,
        "qortex_db_changeovers": 0,
        "qortex_db_checkpoints": 0,
        "qortex_db_indexed_documents": 0,
        "qortex_db_idempotency_keys": 0,
        "qortex_db_word_frequencies": 0,
        "learning_events": 0,
        "qortex_embedding_cache": 0,
        "qortex_vectors": 1,
    }


async def test_a_large_table_is_not_counted_unless_it_is_asked_for(dsn: str, db: Database) -> None:
    await db.factors.save({"a": 1.0, "b": 2.0})
    said = "UPDATE pg_class SET reltuples = {} WHERE relname = 'interoception_factors'"
    found = {}
    for rows in (-1, 1_000_000, 1_234_567):
        await execute(dsn, said.format(rows))
        found[rows] = (await db.status()).tables["interoception_factors"]
        found[rows].pop("bytes")
    assert found == {
        -1: {"rows": 2, "is_estimate": False},
        1_000_000: {"rows": 2, "is_estimate": False},
        1_234_567: {"rows": 1_234_567, "is_estimate": True},
    }
    status = await db.status(exact=True)
    assert status.tables["interoception_factors"]["rows"] == 2
    assert not any(table["is_estimate"] for table in status.tables.values())
    estimated = await db.status()
    assert estimated.interoception["factors"] == 1_234_567
    async with db.engine.connect() as connection:
        # What is not needed of a CASE is not run: the table is not read.
        plan = await connection.exec_driver_sql(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT CASE WHEN (SELECT reltuples "
            "FROM pg_class WHERE relname = 'interoception_factors') > 1000000 THEN 1 ELSE "
            "(SELECT count(*) FROM interoception_factors) END"
        )
        assert "(never executed)" in "\n".join(plan.scalars())
    shown = await program(sys.executable, "-m", "qortex_db", "status", PGVECTOR_DSN=dsn)
    assert "about 1,234,567" in shown.out
    counted = await program(
        sys.executable, "-m", "qortex_db", "status", "--exact", PGVECTOR_DSN=dsn
    )
    assert "about" not in counted.out


@pytest.mark.slow
async def test_without_a_server_given_the_embedded_one_is_used(folder: Path) -> None:
    settings = Settings(embedded_path=folder / "mine" / "postgres", dimensions=3)
    await migrations.upgrade(settings, embedded=True)
    record = VectorRecordFactory.build(dimensions=3)
    for rows in (1, 0):
        async with Database.connect(settings) as db:
            assert await db.vectors.upsert([record]) == rows
            assert (await db.status()).embedded


async def test_an_exhausted_pool_and_a_slow_statement_have_their_own_errors(dsn: str) -> None:
    settings = Settings(
        dsn=dsn,
        pool_min_size=1,
        pool_max_size=1,
        pool_timeout_seconds=0.1,
        statement_timeout_seconds=0.3,
    )
    async with Database.connect(settings) as db:
        async with db.unit_of_work() as uow:
            await uow.factors.load()
            with pytest.raises(PoolTimeoutError, match="pool_max_size"):
                await db.factors.load()
        with pytest.raises(QueryTimeoutError, match="may or may not"):
            await db.executor.run(text("SELECT pg_sleep(5)"), {})
        assert await db.factors.load() == {}


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="check that the server runs"):
        await Database.connect("postgresql://u:p@127.0.0.1:1/db").open()


@pytest.mark.skipif(
    sqlalchemy.__version__ < "2.1", reason="SQLAlchemy 2.0 itself loses what it was connecting"
)
async def test_an_opening_that_is_cancelled_leaves_no_connection_behind(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()
    caplog.clear()  # of what others left behind
    for wait in range(40):  # milliseconds: at whatever it does
        database = Database.connect(dsn)
        opening = asyncio.create_task(database.open())
        await asyncio.sleep(wait / 1000)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        await database.close()
        gc.collect()  # where SQLAlchemy would meet a connection that nobody has given back
    assert [record.getMessage() for record in caplog.records if "pool" in record.name] == []
