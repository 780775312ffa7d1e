from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import Vector
from sqlalchemy import ForeignKey, MetaData, Text, create_engine, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Database,
    InteroceptionFactor,
    InvalidInputError,
    QortexVector,
    Settings,
    UnavailableError,
    UnitOfWork,
    unit_of_work,
)
from qortex_db.testing.factories import InteroceptionFactorFactory, VectorRecordFactory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VECTOR = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


class HostBase(DeclarativeBase):
    metadata = MetaData()


class Note(HostBase):
    """A host's own table, with a key into ours and a pgvector column of its own."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    vector_id: Mapped[str] = mapped_column(Text, ForeignKey(QortexVector.id))
    mine: Mapped[list[float] | None] = mapped_column(Vector(3))


@pytest.fixture
async def host(dsn: str) -> AsyncIterator[AsyncEngine]:
    """A host's engine, which knows nothing of the package, with a connection already open."""
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, pool_size=2, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE TABLE notes (id int PRIMARY KEY, mine vector(3), "
                "vector_id text NOT NULL REFERENCES qortex_vectors (id))"
            )
        )
    yield engine
    await engine.dispose()


async def test_a_unit_of_work_keeps_all_or_nothing(db: Database) -> None:
    async def work(*, fail: bool) -> None:
        async with db.unit_of_work() as uow:
            await uow.vectors.upsert([VectorRecordFactory.build(dimensions=8)])
            await uow.factors.adjust({"n": "accepted"})
            await uow.edges.record("a", "b", score=0.5)
            await uow.arms.observe("l", "x", reward=1)
            uow.session.add(InteroceptionFactor(node_id="orm", weight=2.0))
            if fail:
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await work(fail=True)
    assert await db.vectors.count() == 0
    assert await db.factors.load() == {}
    assert await db.edges.load() == {}
    assert await db.arms.get_all("l") == {}
    await work(fail=False)
    assert await db.vectors.count() == 1
    assert await db.factors.load() == {"n": 1.1, "orm": 2.0}
    assert (await db.edges.get("a", "b")).hit_count == 1
    assert (await db.arms.get("l", "x")).pulls == 1


async def test_after_its_end_a_unit_of_work_takes_nothing(db: Database) -> None:
    async with db.unit_of_work() as uow:
        await uow.factors.save({"in": 2.0})
    with pytest.raises(InvalidRequestError, match="closed"):
        await uow.factors.save({"late": 2.0})
    with pytest.raises(InvalidRequestError, match="closed"):
        await uow.vectors.search(VECTOR)
    assert await db.factors.load() == {"in": 2.0}
    assert db.engine.pool.checkedout() == 0


async def test_nobody_sees_a_unit_of_work_before_its_end(db: Database) -> None:
    async with db.unit_of_work() as uow:
        await uow.factors.save({"n": 2.0})
        assert await uow.factors.load() == {"n": 2.0}
        assert await db.factors.load() == {}
    assert await db.factors.load() == {"n": 2.0}


async def test_a_cancelled_unit_of_work_leaves_nothing_and_returns_its_connection(
    db: Database,
) -> None:
    started = asyncio.Event()

    async def work() -> None:
        async with db.unit_of_work() as uow:
            await uow.factors.save({"n": 2.0})
            started.set()
            await uow.session.execute(text("SELECT pg_sleep(30)"))

    task = asyncio.create_task(work())
    await started.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.factors.load() == {}
    assert (await db.status()).pool["checked_out"] <= 1  # the status itself


async def test_a_unit_of_work_in_a_hosts_session_is_a_savepoint(host: AsyncEngine) -> None:
    kept = VectorRecordFactory.build(id="kept", dimensions=8)
    async with AsyncSession(host) as session:
        async with unit_of_work(session) as uow:
            await uow.vectors.upsert([kept])
        session.add(Note(id=1, vector_id="kept", mine=[1.0, 2.0, 3.0]))
        with pytest.raises(RuntimeError, match="stop"):
            await _fail_in(session)
        async with unit_of_work(session) as uow:
            assert sorted(await uow.vectors.get(["kept", "undone"])) == ["kept"]
        await session.commit()
    async with AsyncSession(host) as session:
        note = (await session.scalars(select(Note))).one()
        assert note.mine is not None
        assert list(note.mine) == [1.0, 2.0, 3.0]  # an array before pgvector 0.5
        row = await session.get(QortexVector, "kept")
        assert row is not None
        assert row.payload == {}
        assert np.array_equal(row.embedding, kept.embedding)


async def _fail_in(session: AsyncSession) -> None:
    async with unit_of_work(session) as uow:
        await uow.vectors.upsert([VectorRecordFactory.build(id="undone", dimensions=8)])
        raise RuntimeError("stop")


async def test_the_host_ends_its_own_transaction(host: AsyncEngine) -> None:
    async with AsyncSession(host) as session:
        async with unit_of_work(session) as uow:
            await uow.factors.save({"n": 2.0})
        plain = UnitOfWork(session)
        await plain.factors.save({"m": 3.0})
        await session.rollback()
        assert await UnitOfWork(session).factors.load() == {}


async def test_what_the_host_has_pending_comes_first(host: AsyncEngine) -> None:
    async with AsyncSession(host, autoflush=False) as session:
        session.add(InteroceptionFactor(node_id="n", weight=4.0))
        assert await UnitOfWork(session).factors.adjust({"n": "accepted"}) == {"n": 4.1}


async def test_loaded_objects_show_what_statements_wrote(host: AsyncEngine) -> None:
    async with AsyncSession(host) as session:
        session.add_all(InteroceptionFactorFactory.build(node_id=key) for key in "ab")
        await session.commit()
        kept = await session.get(InteroceptionFactor, "a")
        gone = await session.get(InteroceptionFactor, "b")
        assert kept is not None
        assert gone is not None
        async with unit_of_work(session) as uow:
            await uow.factors.save({"a": 3.0})
            await uow.factors.delete(["b"])
        assert kept.weight == 3.0
        assert gone not in session
        with pytest.raises(RuntimeError, match="stop"):
            await _save_and_fail(session)
        assert kept.weight == 3.0
        await session.rollback()


async def _save_and_fail(session: AsyncSession) -> None:
    async with unit_of_work(session) as uow:
        await uow.factors.save({"a": 9.0})
        kept = await session.get(InteroceptionFactor, "a")
        assert kept is not None
        assert kept.weight == 9.0
        raise RuntimeError("stop")


async def test_a_scoped_session_works_too(host: AsyncEngine) -> None:
    scoped = async_scoped_session(async_sessionmaker(host), scopefunc=asyncio.current_task)
    async with unit_of_work(scoped) as uow:
        await uow.factors.save({"n": 2.0})
    await scoped.commit()
    await scoped.remove()
    async with Database.from_engine(host) as db:
        assert await db.factors.load() == {"n": 2.0}


async def test_a_hosts_engine_and_its_own_vector_columns_go_on_working(host: AsyncEngine) -> None:
    query = select(Note.id).order_by(Note.mine.cosine_distance([1, 0, 0]))
    async with Database.from_engine(host) as db:
        await db.vectors.upsert([VectorRecordFactory.build(id="v", dimensions=8)])
        async with AsyncSession(host) as session:
            session.add(Note(id=1, vector_id="v", mine=np.array([0.0, 1.0, 0.0])))
            session.add(Note(id=2, vector_id="v", mine=[1.0, 0.0, 0.0]))
            await session.commit()
            assert (await session.scalars(query)).all() == [2, 1]
    async with host.connect() as connection:  # closing the Database left the engine alone
        assert (await connection.execute(text("SELECT count(*) FROM notes"))).scalar() == 2


async def test_the_models_are_ordinary_models(db: Database) -> None:
    async with db.unit_of_work() as uow:
        uow.session.add(QortexVector(id="a", embedding=VECTOR, payload={"k": 1}))
        uow.session.add(QortexVector(id="b", embedding=[-x for x in VECTOR]))
    nearest = select(QortexVector.id).order_by(QortexVector.embedding.cosine_distance(VECTOR))
    async with db.unit_of_work() as uow:
        assert (await uow.session.scalars(nearest)).all() == ["a", "b"]
        row = await uow.session.get(QortexVector, "a")
        assert row is not None
        row.embedding = np.ones(8)
    assert (await db.vectors.search([1.0] * 8, limit=1))[0].score == pytest.approx(1.0)


def test_another_driver_is_refused_by_name() -> None:
    engine: Any = create_engine("sqlite://")
    with pytest.raises(InvalidInputError, match=r"pysqlite.*asyncpg"):
        Database.from_engine(engine)


async def test_a_database_has_to_be_open(dsn: str) -> None:
    db = Database.connect(dsn)
    with pytest.raises(RuntimeError, match="not open"):
        db.vectors  # noqa: B018 - reading it is what fails
    with pytest.raises(RuntimeError, match="not open"):
        db.unit_of_work()
    await db.open()
    await db.open()
    assert await db.vectors.count() == 0
    await db.close()
    await db.close()
    with pytest.raises(RuntimeError, match="not open"):
        db.vectors  # noqa: B018


async def test_opening_warms_two_connections_and_never_has_more_than_ten(db: Database) -> None:
    assert (await db.status()).pool == {"checked_out": 0, "idle": 2, "max": 10}
    await asyncio.gather(*(db.executor.run(text("SELECT pg_sleep(0.02)"), {}) for _ in range(50)))
    assert (await db.status()).pool == {"checked_out": 0, "idle": 10, "max": 10}


async def test_connections_that_a_restart_closed_are_replaced(db: Database) -> None:
    end = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    async with db.unit_of_work() as uow:  # both connections exist; this one ends the other
        await uow.session.execute(end)
    await asyncio.sleep(0.05)
    assert [await db.factors.load() for _ in range(4)] == [{}] * 4


async def test_a_lost_connection_is_told_where_objects_are_loaded(db: Database) -> None:
    async def write(session: AsyncSession) -> None:
        async with unit_of_work(session) as uow:
            await uow.vectors.upsert([{"id": "a", "embedding": VECTOR}])
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            end = text("SELECT pg_terminate_backend(CAST(:pid AS int4))")
            await db.executor.run(end, {"pid": pid})
            await uow.vectors.count()

    await db.vectors.upsert([{"id": "a", "embedding": VECTOR[::-1]}])
    async with AsyncSession(db.engine) as session:
        loaded = await session.get_one(QortexVector, "a")
        with pytest.raises(UnavailableError):
            await write(session)
        assert loaded in session
