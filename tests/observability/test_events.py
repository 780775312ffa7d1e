"""Each thing that matters is one event, with what it is about and no value."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, SerializationConflictError, Settings, migrations
from qortex_db.testing.factories import embedding
from support.proxies import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db import UnitOfWork


@pytest.fixture
def told() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as events:
        yield events


def named(told: list[Any], name: str) -> list[Any]:
    return [each for each in told if each["event"] == name]


@pytest.mark.slow
async def test_a_migration_is_told_revision_by_revision(empty_dsn: str, told: list[Any]) -> None:
    settings = Settings(dsn=empty_dsn, dimensions=8)
    await migrations.upgrade(settings)
    head = migrations.head_revision()
    (migrated,) = named(told, "migrated")
    assert (migrated["before"], migrated["now"]) == ("base", head)
    applied = named(told, "revision_applied")
    assert applied[0]["revision"] == "qortex_db_0001"
    assert applied[-1]["revision"] == head
    assert {each["way"] for each in applied} == {"upgrade"}
    told.clear()
    await migrations.upgrade(settings)
    assert named(told, "migrated") == named(told, "revision_applied") == []
    await migrations.downgrade(settings, "-1")
    (back,) = named(told, "revision_applied")
    assert (back["way"], back["revision"]) == ("downgrade", applied[-2]["revision"])


@pytest.mark.slow
async def test_an_index_that_is_built_anew_is_told(dsn: str, told: list[Any]) -> None:
    await migrations.rebuild_index(Settings(dsn=dsn))
    built = named(told, "index_built")
    assert [each["table"] for each in built] == ["qortex_vectors"]
    assert built[0]["bytes"] > 0


async def test_each_batch_of_an_ingest_is_told(db: Database, told: list[Any]) -> None:
    records = ({"id": f"secret {i}", "embedding": embedding(i, 8)} for i in range(25))
    await db.vectors.ingest(records, batch_size=10)
    batches = named(told, "ingest_batch")
    assert [(each["table"], each["rows"], each["done"]) for each in batches] == [
        ("qortex_vectors", 10, 10),
        ("qortex_vectors", 10, 20),
        ("qortex_vectors", 5, 25),
    ]
    assert "secret" not in str(told)


@pytest.mark.parametrize("host", [False, True])
async def test_opening_and_the_end_are_told_once(dsn: str, told: list[Any], *, host: bool) -> None:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    db = Database.from_engine(engine) if host else Database.connect(dsn)
    await db.open()
    await db.open()
    asking = asyncio.create_task(db.factors.load())
    await asyncio.sleep(0)
    await db.close()
    await db.close()
    await asking
    await engine.dispose()
    told = [each for each in told if each["event"] != "host_pool_rotates_connections"]
    assert [each["event"] for each in told] == [
        "database_opened",
        "database_closing",
        "database_closed",
    ]
    assert told[1]["in_flight"] == 1
    assert ":@" not in told[0]["server"]


async def test_a_server_that_was_away_is_told_and_that_it_is_back(
    dsn: str, told: list[Any]
) -> None:
    async with Proxy(dsn) as proxy:
        settings = Settings(dsn=proxy.dsn, pool_min_size=1, pool_max_size=1, retry_seconds=10)
        async with Database.connect(settings) as db:
            proxy.refuses = True
            proxy.close()
            reading = asyncio.create_task(db.factors.load())
            await asyncio.sleep(0.3)
            proxy.refuses = False
            await reading
    (away,) = named(told, "server_away")
    (back,) = named(told, "reconnected")
    assert away["retry_seconds"] == 10
    assert back["tries"] > 1
    assert back["seconds"] >= 0.2


async def test_a_call_that_is_sent_again_is_told(dsn: str, told: list[Any]) -> None:
    async with Proxy(dsn) as proxy:
        settings = Settings(dsn=proxy.dsn, pool_min_size=1, pool_max_size=1)
        async with Database.connect(settings) as db:
            await db.factors.load()
            proxy.cuts = True
            await db.factors.load()
    (retry,) = named(told, "retry")
    assert (retry["method"], retry["reason"]) == ("load", "connection lost")


async def test_a_transaction_that_is_run_again_is_told_once(db: Database, told: list[Any]) -> None:
    tries = 0

    async def work(uow: UnitOfWork) -> None:
        nonlocal tries
        await uow.factors.load()
        tries += 1
        if tries < 4:
            raise SerializationConflictError("another was first")

    await db.run(work)
    (retry,) = named(told, "retry")
    assert (retry["reason"], retry["error"]) == ("transaction", "SerializationConflictError")
