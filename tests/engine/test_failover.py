"""A standby becomes the primary under writers, and what was a primary comes back as a standby."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, QortexDbError, ReadOnlyError, Settings, migrations
from support.standby import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]
VECTOR = [1.0] * 8


@pytest.fixture
def cluster(qortex_db_server: object) -> Iterator[Cluster]:
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("is_synchronous", [True, False], ids=["synchronous", "asynchronous"])
async def test_a_promotion_under_writers_loses_nothing_that_was_acknowledged(
    cluster: Cluster, is_synchronous: bool
) -> None:
    both = cluster.dsn("first", "second", target_session_attrs="read-write")
    await migrations.upgrade(Settings(dsn=both, dimensions=8))
    if is_synchronous:
        await _wait_for(cluster, "second")
    acknowledged: set[str] = set()
    failed: list[float] = []
    promoted_at = 0.0
    ends = False
    back: list[float] = []

    async def write(db: Database, writer: int) -> None:
        number = 0
        while not ends:
            key = f"w{writer}-{number}"
            number += 1
            try:
                if number % 2:
                    await db.vectors.upsert([{"id": key, "embedding": VECTOR}])
                else:
                    async with db.unit_of_work() as uow:
                        await uow.vectors.upsert([{"id": key, "embedding": VECTOR}])
            except QortexDbError:
                failed.append(time.monotonic())
                await asyncio.sleep(0.02)
            else:
                acknowledged.add(key)
                if promoted_at and len(back) < 8:
                    back.append(time.monotonic())

    settings = Settings(dsn=both, retry_seconds=0.5)
    async with Database.connect(settings) as db:
        writers = [asyncio.create_task(write(db, number)) for number in range(8)]
        await asyncio.sleep(1.0)
        assert len(acknowledged) > 20
        await asyncio.to_thread(cluster.stop, "first")
        await asyncio.sleep(0.3)
        await asyncio.to_thread(cluster.promote, "second")
        promoted_at = time.monotonic()
        await asyncio.sleep(3.0)
        ends = True
        await asyncio.gather(*writers)
        assert failed
        assert back
        assert back[0] - promoted_at < 3.0
        assert max(failed) - promoted_at < 3.0
        stored = await db.vectors.get(sorted(acknowledged))
        missing = acknowledged - stored.keys()
    # Of what was not waited for, only the last moment's may be gone.
    assert len(missing) <= (0 if is_synchronous else 8), missing


async def _wait_for(cluster: Cluster, standby: str) -> None:
    """Have COMMIT wait until a standby has it on disk."""
    connection = await asyncpg.connect(cluster.dsn("first"))
    await connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
    await connection.execute("SELECT pg_reload_conf()")
    states = "SELECT sync_state FROM pg_stat_replication"
    for _ in range(200):
        if await connection.fetchval(states) == "sync":
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError(standby)
    await connection.close()


@pytest.mark.parametrize("whose", ["ours", "a host's"])
@pytest.mark.parametrize("lane", ["by itself", "in a unit of work", "watched"])
async def test_connections_to_what_is_a_standby_by_now_are_made_anew(
    cluster: Cluster, whose: str, lane: str
) -> None:
    await migrations.upgrade(Settings(dsn=cluster.dsn("first"), dimensions=8))
    service = cluster.lead("second")  # its name still leads there
    await _caught_up(cluster)
    engine = None
    if whose == "ours":
        db = Database.connect(service)
    else:
        engine = create_async_engine(service.replace("postgresql:", "postgresql+asyncpg:"))
        db = Database.from_engine(engine)
    async with db:
        if lane == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)

        async def write() -> None:
            record = {"id": "a", "embedding": VECTOR}
            if lane == "in a unit of work":
                async with db.unit_of_work() as uow:
                    await uow.vectors.upsert([record])
            else:
                await db.vectors.upsert([record])

        assert await asyncio.gather(*(db.vectors.count() for _ in range(4))) == [0] * 4
        with pytest.raises(ReadOnlyError):
            await write()
        with pytest.raises(ReadOnlyError):  # it leads there yet, and reads go on
            await write()
        assert await db.vectors.count() == 0
        cluster.lead("first")
        with suppress(ReadOnlyError):  # on a connection of before: from now on there are none
            await write()
        await write()
        assert await asyncio.gather(*(db.vectors.count() for _ in range(4))) == [1] * 4
    if engine is not None:
        await engine.dispose()


async def test_a_transaction_that_was_begun_read_only_costs_no_connection(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        before = await _backends(db)
        with pytest.raises(ReadOnlyError):
            await _write_read_only(db)
        assert await _backends(db) == before


async def _write_read_only(db: Database) -> None:
    async with db.unit_of_work() as uow:
        await uow.session.execute(text("SET TRANSACTION READ ONLY"))
        await uow.vectors.upsert([{"id": "a", "embedding": VECTOR}])


async def _backends(db: Database) -> list[int]:
    async with db.engine.connect() as connection:
        rows = await connection.exec_driver_sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() ORDER BY pid"
        )
        return list(rows.scalars())


async def _caught_up(cluster: Cluster) -> None:
    """Wait until the standby has the tables."""
    async with Database.connect(cluster.dsn("second")) as db:
        for _ in range(200):
            try:
                await db.vectors.count()
            except QortexDbError:
                await asyncio.sleep(0.05)
            else:
                return
    raise AssertionError
