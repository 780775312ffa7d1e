"""What a host says of its transactions holds for each call by itself, as in a unit of work."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import (
    Database,
    EdgeStats,
    ReadOnlyError,
    SerializationConflictError,
    Settings,
    unit_of_work,
)
from qortex_db.testing.factories import VectorRecordFactory
from support.catalogue import execute
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.uow import Repositories

SMALL = VectorRecordFactory.build_batch(1)
LARGE = VectorRecordFactory.build_batch(400)  # parts, one after the other
# Each row says what its transaction was.
SEEN = (
    (
        "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "NEW.document := current_setting('transaction_isolation') || ' '"
        " || current_setting('transaction_read_only'); RETURN NEW; END $$"
    ),
    "CREATE TRIGGER seen BEFORE INSERT OR UPDATE ON qortex_vectors FOR EACH ROW EXECUTE FUNCTION seen()",  # noqa: E501
)


def at_begin(sql: str) -> Callable[[AsyncEngine], AsyncEngine]:
    def listen(engine: AsyncEngine) -> AsyncEngine:
        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql(sql)

        return engine

    return listen


def at_connect(**attributes: Any) -> Callable[[AsyncEngine], AsyncEngine]:
    def listen(engine: AsyncEngine) -> AsyncEngine:
        @event.listens_for(engine.sync_engine, "connect")
        def connect(connection: Any, _: object) -> None:
            for name, value in attributes.items():
                setattr(connection, name, value)

        return engine

    return listen


def by_options(**options: Any) -> Callable[[AsyncEngine], AsyncEngine]:
    return lambda engine: engine.execution_options(**options)


def watched(engine: AsyncEngine) -> AsyncEngine:
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
    return engine


def same(engine: AsyncEngine) -> AsyncEngine:
    return engine


@asynccontextmanager
async def hosted(dsn: str, prepare: Any, **options: Any) -> AsyncIterator[Database]:
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, **options)
    yield Database.from_engine(prepare(engine))
    await engine.dispose()


@asynccontextmanager
async def alone(db: Database) -> AsyncIterator[Repositories]:
    yield db


@asynccontextmanager
async def together(db: Database) -> AsyncIterator[Repositories]:
    async with db.unit_of_work() as uow:
        yield uow


@asynccontextmanager
async def in_a_session(db: Database) -> AsyncIterator[Repositories]:
    async with AsyncSession(db.engine) as session, session.begin(), unit_of_work(session) as uow:
        yield uow


LANES = (alone, together, in_a_session)


def in_lanes(kinds: Iterable[str]) -> Any:
    """Each kind in each lane; a unit of work refuses an engine in AUTOCOMMIT."""
    pairs = [
        pytest.param(kind, lane, id=f"{kind}-{lane.__name__}")
        for kind in kinds
        for lane in LANES
        if lane is alone or "autocommit" not in kind
    ]
    return pytest.mark.parametrize(("kind", "lane"), pairs)


LEVELS = {
    "of the engine": (same, {"isolation_level": "SERIALIZABLE"}),
    "of the engine, watched": (watched, {"isolation_level": "SERIALIZABLE"}),
    "by options": (by_options(isolation_level="SERIALIZABLE"), {}),
    "at begin": (at_begin("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), {}),
    "at begin, in autocommit": (
        at_begin("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        {"isolation_level": "AUTOCOMMIT"},
    ),
    "of a connection": (at_connect(isolation_level="serializable"), {}),
}


@in_lanes(LEVELS)
async def test_the_isolation_of_a_host_is_that_of_every_call(
    dsn384: str, kind: str, lane: Any
) -> None:
    await execute(dsn384, *SEEN)
    prepare, options = LEVELS[kind]
    async with hosted(dsn384, prepare, **options) as db:
        for records in (SMALL, LARGE):
            async with lane(db) as memory:
                await memory.vectors.upsert(records)
                asked = await memory.executor.run(text("SHOW transaction_isolation"), {})
                assert [tuple(row) for row in asked.rows] == [("serializable",)]
                stored = [record async for record in memory.vectors.stream()]
            assert {record.document for record in stored} == {"serializable off"}
        assert len(stored) == len(SMALL) + len(LARGE)


READ_ONLY = {
    "by options": (by_options(postgresql_readonly=True), {}),
    "by options, watched": (lambda e: watched(by_options(postgresql_readonly=True)(e)), {}),
    "by options, in autocommit": (
        by_options(postgresql_readonly=True, isolation_level="AUTOCOMMIT"),
        {},
    ),
    "at begin": (at_begin("SET TRANSACTION READ ONLY"), {}),
    "of a connection": (at_connect(readonly=True), {}),
}
WRITES: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "upsert": lambda on: on.vectors.upsert(SMALL),
    "a large upsert": lambda on: on.vectors.upsert(LARGE),
    "ingest": lambda on: on.vectors.ingest(iter(LARGE)),
    "update": lambda on: on.vectors.update("a", payload={"a": 1}),
    "merge_payload": lambda on: on.vectors.merge_payload({"a": 1}, ids=["a"]),
    "delete": lambda on: on.vectors.delete(["a"]),
    "delete_where": lambda on: on.vectors.delete_where({"a": 1}),
    "adjust": lambda on: on.factors.adjust({"a": "accepted"}),
    "save": lambda on: on.edges.save({("a", "b"): EdgeStats(1)}),
    "a large save": lambda on: on.edges.save({(f"{i}", "b"): EdgeStats(1) for i in range(9_000)}),
    "record": lambda on: on.edges.record("a", "b", score=0.5),
    "promote": lambda on: on.edges.promote(),
    "observe": lambda on: on.arms.observe("l", "a", reward=1.0),
    "once": lambda on: on.arms.observe("l", "a", reward=1.0, idempotency_key="k"),
    "embed": lambda on: on.embeddings.embed(["a"], model=lambda _: [[1.0] * 384], name="m"),
}


@in_lanes(READ_ONLY)
async def test_nothing_is_written_where_a_host_only_reads(
    dsn384: str, kind: str, lane: Any
) -> None:
    prepare, options = READ_ONLY[kind]
    async with hosted(dsn384, prepare, **options) as db:
        for name, write in WRITES.items():
            with pytest.raises(ReadOnlyError):
                async with lane(db) as memory:
                    await write(memory)
            async with lane(db) as memory:
                assert not await memory.vectors.search([1.0] * 384), name
                assert await memory.arms.get_all("l") == {}, name
                assert await memory.edges.load() == {}, name


async def test_a_transaction_of_the_hosts_is_two_round_trips_more(dsn384: str) -> None:
    async with counted(dsn384) as trips:
        for trips_of_one, options in ((1, {}), (3, {"isolation_level": "REPEATABLE READ"})):
            async with hosted(trips.dsn, same, **options) as db:
                for _ in range(2):
                    await db.vectors.search([1.0] * 384)
                async with trips.expect(trips_of_one):
                    await db.vectors.search([1.0] * 384)
                await db.vectors.upsert(LARGE)
                async with trips.expect(trips_of_one):
                    await db.vectors.upsert(LARGE)


async def test_calls_that_meet_are_told_and_leave_nothing_behind(dsn384: str) -> None:
    async with hosted(dsn384, same, isolation_level="SERIALIZABLE", pool_size=4) as db:
        outcomes = await asyncio.gather(
            *(db.arms.observe("l", "a", reward=1.0) for _ in range(40)), return_exceptions=True
        )
        failed = [each for each in outcomes if isinstance(each, BaseException)]
        assert {type(each) for each in failed} <= {SerializationConflictError}
        assert (await db.arms.get("l", "a")).pulls == 40 - len(failed)


async def test_what_a_begin_listener_raises_is_raised(dsn384: str) -> None:
    class NoTenantError(Exception):
        pass

    def refuse(engine: AsyncEngine) -> AsyncEngine:
        @event.listens_for(engine.sync_engine, "begin")
        def begin(_: object) -> None:
            raise NoTenantError

        return engine

    async with hosted(dsn384, refuse, pool_size=1, max_overflow=0, pool_timeout=2) as db:
        for lane in LANES:
            for call in (lambda on: on.vectors.count(), lambda on: on.vectors.upsert(LARGE)):
                with pytest.raises(NoTenantError):
                    async with lane(db) as memory:
                        await call(memory)
