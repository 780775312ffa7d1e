"""A statement's time limit limits a statement: many on their way at once don't share one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import bindparam, delete, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, InteroceptionFactor, QueryTimeoutError, Settings, migrations
from qortex_db.testing.factories import VectorRecordFactory, edges
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

LANES = pytest.mark.parametrize("lane", ["own", "host", "watched", "together"])
LIMIT = 1.0
ROWS = 300  # of 384 dimensions: 8 parts


@asynccontextmanager
async def opened(dsn: str, lane: str, limit: float = LIMIT) -> AsyncIterator[Database]:
    if lane == "host":
        target = Settings(dsn=dsn).target()
        assert target is not None
        options = {**target.connect_args, "command_timeout": limit}
        engine = create_async_engine(target.url, connect_args=options, pool_size=1, max_overflow=0)
        yield Database.from_engine(engine)
        await engine.dispose()
        return
    settings = Settings(dsn=dsn, statement_timeout_seconds=limit, pool_min_size=1, pool_max_size=1)
    async with Database.connect(settings) as db:
        if lane == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        yield db


async def slow_rows(dsn: str, table: str, seconds: float, condition: str = "true") -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"""
        CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
        CREATE OR REPLACE TRIGGER slow BEFORE INSERT ON {table} FOR EACH ROW
        WHEN ({condition}) EXECUTE FUNCTION slow()
    """)
    await connection.close()


async def write(db: Database, lane: str, given: Any) -> None:
    async def by(side: Any) -> None:
        if isinstance(given, dict):
            await side.edges.save(given)
        else:
            await side.vectors.upsert(given)

    if lane == "together":
        async with db.unit_of_work() as uow:
            await by(uow)
    else:
        await by(db)


@LANES
@pytest.mark.parametrize("condition", ["true", "NEW.id > 'v00126'"])
async def test_parts_that_are_each_in_time_are_so_together(
    dsn384: str, lane: str, condition: str
) -> None:
    await slow_rows(dsn384, "qortex_vectors", 0.01, condition)  # 0.4 s a part
    async with opened(dsn384, lane) as db:
        await write(db, lane, VectorRecordFactory.build_batch(ROWS))
        assert await db.vectors.count() == ROWS


async def test_each_server_limits_each_part(each_empty_dsn: str) -> None:
    await migrations.upgrade(Settings(dsn=each_empty_dsn, dimensions=384))
    records = VectorRecordFactory.build_batch(ROWS)
    async with opened(each_empty_dsn, "own") as db:
        await slow_rows(each_empty_dsn, "qortex_vectors", 0.01)
        await db.vectors.upsert(records[:-1])
        await slow_rows(each_empty_dsn, "qortex_vectors", 3, f"NEW.id = '{records[-1].id}'")
        with pytest.raises(QueryTimeoutError):
            await db.vectors.upsert(records)
        assert await db.vectors.count() == ROWS - 1


@LANES
async def test_edges_in_parts_are_each_in_time(dsn: str, lane: str) -> None:
    await slow_rows(dsn, "interoception_edge_buffer", 0.001)  # 0.3 s a part
    async with opened(dsn, lane) as db:
        await write(db, lane, edges(1_500))
        assert len(await db.edges.load()) == 1_500


@LANES
@pytest.mark.parametrize("place", [0, 150, ROWS - 1])
async def test_a_part_that_takes_too_long_is_stopped_and_leaves_nothing(
    dsn384: str, lane: str, place: int
) -> None:
    # Not so long that the driver, which waits for all parts together, would be the one to stop it.
    await slow_rows(dsn384, "qortex_vectors", 3, f"NEW.id = 'v{place:05}'")
    records = VectorRecordFactory.build_batch(ROWS)
    async with opened(dsn384, lane) as db:
        await db.vectors.count()
        with pytest.raises(QueryTimeoutError, match="did not answer in time") as caught:
            await write(db, lane, records)
        assert caught.value.sqlstate is None
        assert await db.vectors.count() == 0
        del records[place]
        await write(db, lane, records)
        assert await db.vectors.count() == ROWS - 1


async def test_an_edge_that_takes_too_long_is_stopped(dsn: str) -> None:
    await slow_rows(dsn, "interoception_edge_buffer", 30, "NEW.src_id = 'a00700'")
    async with opened(dsn, "own") as db:
        with pytest.raises(QueryTimeoutError):
            await db.edges.save(edges(1_500))
        assert await db.edges.load() == {}


@LANES
async def test_statements_that_return_no_rows_count_none(dsn: str, lane: str) -> None:
    key = InteroceptionFactor.node_id
    statement = delete(InteroceptionFactor).where(key == bindparam("id"))
    params = [{"id": f"n{i}"} for i in range(3)]
    async with opened(dsn, lane) as db:
        assert await db.executor.run_all(statement, params) in ((), [])


@pytest.mark.parametrize("lane", ["own", "host"])
async def test_a_limit_of_the_servers_stays_if_it_is_stricter(dsn384: str, lane: str) -> None:
    await slow_rows(dsn384, "qortex_vectors", 30, "NEW.id = 'v00150'")
    stricter = f"{dsn384}&options=-c%20statement_timeout=300"
    async with opened(stricter, lane, limit=60) as db:
        with pytest.raises(QueryTimeoutError) as caught:
            await db.vectors.upsert(VectorRecordFactory.build_batch(ROWS))
        assert caught.value.sqlstate == "57014"
        assert await db.vectors.count() == 0


@pytest.mark.parametrize("lane", ["own", "host"])
async def test_the_limit_does_not_outlive_the_write(dsn384: str, lane: str) -> None:
    async with opened(dsn384, lane) as db:
        await db.vectors.upsert(VectorRecordFactory.build_batch(ROWS))
        async with db.engine.connect() as connection:
            assert await connection.scalar(text("SHOW statement_timeout")) == "0"


async def test_a_server_that_falls_silent_is_given_up(dsn384: str) -> None:
    async with counted(dsn384) as wire, opened(wire.dsn, "own", limit=0.1) as db:
        await db.vectors.dimensions()
        wire.silent = True
        with pytest.raises(QueryTimeoutError):
            await db.vectors.upsert(VectorRecordFactory.build_batch(ROWS))
        wire.silent = False
        assert await db.vectors.count() == 0
