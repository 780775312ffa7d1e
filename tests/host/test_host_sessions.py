"""A host's sessions, engine, vector columns and tenants, as docs/host/sessions.md says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import ForeignKey, Text, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qortex_db import (
    ConflictError,
    Database,
    DimensionMismatchError,
    QortexVector,
    Settings,
    migrations,
    unit_of_work,
)
from qortex_db.testing.factories import QortexVectorFactory, VectorRecordFactory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAGE = Path(__file__).parents[2] / "docs/host/sessions.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


class HostBase(DeclarativeBase):
    pass


class Note(HostBase):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    vector_id: Mapped[str | None] = mapped_column(Text, ForeignKey(QortexVector.id))
    title: Mapped[list[float] | None] = mapped_column(VECTOR(3))
    short: Mapped[list[float] | None] = mapped_column(HALFVEC(3))


def engine_of(dsn: str, **options: Any) -> AsyncEngine:
    target = Settings(dsn=dsn).target()
    assert target is not None
    return create_async_engine(target.url, **options)


@pytest.fixture
async def host(dsn: str) -> AsyncIterator[AsyncEngine]:
    engine = engine_of(dsn)
    async with engine.begin() as connection:
        await connection.run_sync(HostBase.metadata.create_all)
    yield engine
    await engine.dispose()


async def run(program: str, space: dict[str, Any]) -> None:
    """Run a module's text, in which `await` may stand anywhere."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(program, "<docs>", "exec", flags, dont_inherit=True)
    if inspect.isawaitable(result := eval(code, space)):  # noqa: S307 - our own
        await result


async def test_the_pages_examples_run(dsn384: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    first, *rest = BLOCK.findall(PAGE.read_text())
    target = Settings().target()
    assert target is not None
    space: dict[str, Any] = {"url": target.url, "__name__": "page"}
    await run(first, space)
    async with space["engine"].begin() as connection:
        await connection.run_sync(space["Base"].metadata.create_all)
    for block in rest:
        await run(block, space)
    assert space["note"].id == 1
    assert space["weights"] == {"hello": 1.1}
    async with space["engine"].connect() as connection:
        ids = await connection.exec_driver_sql("SELECT id FROM qortex_vectors")
        assert ids.scalars().all() == ["hello"]
        ids = await connection.exec_driver_sql("SELECT id FROM tenant_b.qortex_vectors")
        assert ids.scalars().all() == ["b"]
    # The dependencies: an exception rolls back what the host's session wrote, ours included.
    opened = space["session"]()
    session = await anext(opened)
    memory = space["memory"](session)
    uow = await anext(memory)
    await uow.factors.save({"n": 2.0})
    for generator in (memory, opened):
        with pytest.raises(RuntimeError, match="stop"):
            await generator.athrow(RuntimeError("stop"))
    async with Database.from_engine(space["engine"]) as db:
        assert "n" not in await db.factors.load()
    await space["engine"].dispose()


async def test_a_hosts_vector_columns_are_the_same_before_and_after_us(host: AsyncEngine) -> None:
    sessions = async_sessionmaker(host, expire_on_commit=False)

    async def add_and_read(key: int) -> list[Any]:
        async with sessions.begin() as session:
            session.add(Note(id=key, title=[1.0, 2.0, 3.0], short=np.array([0.5, 0.25, 0.0])))
        async with sessions() as session:
            nearest = select(Note).order_by(Note.title.l2_distance([1, 2, 3]), Note.id.desc())
            note = (await session.scalars(nearest.limit(1))).one()
            assert note.id == key
            order = select(Note.id).order_by(Note.short.cosine_distance([0.5, 0.25, 0]))
            assert key in (await session.scalars(order)).all()
            return [type(note.title), list(np.asarray(note.title)), repr(note.short)]

    before = await add_and_read(1)
    async with Database.from_engine(host) as db:
        await db.vectors.upsert([VectorRecordFactory.build(id="v", dimensions=8)])
        among = await add_and_read(2)
        async with sessions.begin() as session, unit_of_work(session) as uow:
            assert await uow.vectors.count() == 1
            await session.execute(select(Note))
    after = await add_and_read(3)
    assert before[1] == among[1] == after[1] == [1.0, 2.0, 3.0]
    assert before[2] == among[2] == after[2]


async def test_a_hosts_row_and_the_vector_it_refers_to_come_and_go_together(
    host: AsyncEngine,
) -> None:
    sessions = async_sessionmaker(host)

    async def write(session: AsyncSession) -> None:
        async with unit_of_work(session) as uow:
            await uow.vectors.upsert([VectorRecordFactory.build(id="v", dimensions=8)])
            session.add(Note(id=1, vector_id="v"))

    async def counts() -> tuple[int, int]:
        async with sessions() as session, unit_of_work(session) as uow:
            return await uow.vectors.count(), len((await session.scalars(select(Note))).all())

    async with sessions() as session:
        await write(session)
        await session.rollback()
    assert await counts() == (0, 0)
    async with sessions.begin() as session:
        await write(session)
    assert await counts() == (1, 1)
    async with sessions() as session:
        session.add(Note(id=2))
        with pytest.raises(ConflictError):
            async with unit_of_work(session) as uow:
                await uow.vectors.delete(["v"])
        await session.commit()  # the savepoint is undone, and what came before it is not
    assert await counts() == (1, 2)


async def test_code_for_a_sync_session_works_in_the_same_transaction(host: AsyncEngine) -> None:
    def add_note(session: Session) -> int:
        session.add(Note(id=1, vector_id="v"))
        session.flush()
        vector = session.get(QortexVector, "v")
        assert vector is not None
        vector.document = "by the host"
        return len(session.scalars(select(Note)).all())

    async with AsyncSession(host) as session, unit_of_work(session) as uow:
        await uow.vectors.upsert([VectorRecordFactory.build(id="v", dimensions=8)])
        assert await session.run_sync(add_note) == 1
        assert (await uow.vectors.get(["v"]))["v"].document == "by the host"


TENANTS = {"tenant_a": 8, "tenant_b": 3}


@pytest.fixture
async def tenants(empty_dsn: str) -> AsyncIterator[AsyncEngine]:
    for tenant, dimensions in TENANTS.items():
        settings = Settings(dsn=empty_dsn, db_schema=tenant, dimensions=dimensions)
        assert (await migrations.upgrade(settings)).dimensions == dimensions
    engine = engine_of(empty_dsn, pool_size=2, max_overflow=0)
    yield engine
    await engine.dispose()


async def tenant_session(engine: AsyncEngine, tenant: str, way: str) -> AsyncSession:
    """A host's session whose statements go to a tenant's tables."""
    options = {"schema_translate_map": {None: tenant}}
    if way == "engine":
        return AsyncSession(engine.execution_options(**options))
    session = AsyncSession(engine)
    await session.connection(execution_options=options)
    return session


@pytest.mark.parametrize("way", ["engine", "connection"])
async def test_tenants_do_not_see_each_other_and_hold_their_own_dimensions(
    tenants: AsyncEngine, way: str
) -> None:
    for tenant, dimensions in TENANTS.items():
        session = await tenant_session(tenants, tenant, way)
        async with session, unit_of_work(session) as uow:
            record = VectorRecordFactory.build(id=tenant, dimensions=dimensions)
            await uow.vectors.upsert([record])
            await uow.arms.observe("learner", tenant, reward=1)
            hits = await uow.vectors.search(record.embedding)
            assert [hit.id for hit in hits] == [tenant]
            with pytest.raises(DimensionMismatchError):
                await uow.vectors.search([1.0] * (dimensions + 1))
            await session.commit()
    for tenant in TENANTS:
        async with Database.from_engine(tenants, schema=tenant) as db:
            assert await db.vectors.count() == 1
            assert list(await db.arms.get_all("learner")) == [tenant]


@pytest.mark.parametrize("way", ["engine", "connection"])
async def test_a_tenants_loaded_objects_show_what_our_statements_wrote(
    tenants: AsyncEngine, way: str
) -> None:
    Database.from_engine(tenants)  # or our models' embeddings could not be written by the ORM
    for tenant, dimensions in TENANTS.items():
        session = await tenant_session(tenants, tenant, way)
        async with session:
            vector = QortexVectorFactory.build(dimensions=dimensions, document=tenant)
            session.add(vector)
            await session.flush()
            loaded = await session.get(QortexVector, vector.id)
            assert loaded is not None
            async with unit_of_work(session) as uow:
                await uow.vectors.update(vector.id, document="new")
            assert loaded.document == "new"


async def test_tenants_at_once_on_one_pool_keep_apart(tenants: AsyncEngine) -> None:
    async def work(tenant: str, number: int) -> None:
        options = {"schema_translate_map": {None: tenant}}
        sessions = async_sessionmaker(tenants.execution_options(**options))
        async with sessions.begin() as session, unit_of_work(session) as uow:
            await uow.factors.save({f"{tenant}{number}": 2.0})

    await asyncio.gather(*(work(tenant, n) for n in range(10) for tenant in TENANTS))
    for tenant in TENANTS:
        async with Database.from_engine(tenants, schema=tenant) as db:
            assert set(await db.factors.load()) == {f"{tenant}{n}" for n in range(10)}
