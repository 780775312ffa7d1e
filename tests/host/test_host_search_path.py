"""Tenants of a host whose search_path, or translated engine, leads to tables of their own."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import (
    Database,
    DimensionMismatchError,
    Settings,
    migrations,
    unit_of_work,
)
from support.catalogue import execute
from support.compilations import compilations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db import VectorRepository

SIZES = {"small": 8, "large": 384}
tenant: ContextVar[str] = ContextVar("tenant")


def records(size: int, count: int = 3) -> list[dict[str, Any]]:
    return [{"id": f"{i}", "embedding": [1.0 + i] + [1.0] * (size - 1)} for i in range(count)]


CALLS: dict[str, Callable[[VectorRepository, Any], Awaitable[Any]]] = {
    "search": lambda v, q: v.search(q),
    "exact": lambda v, q: v.search(q, exact=True),
    "explain": lambda v, q: v.explain(q),
    "search_many": lambda v, q: v.search_many([q, q]),
    "multi_search": lambda v, q: v.multi_search([q, q]),
    "hybrid_search": lambda v, q: v.hybrid_search(q, "a"),
    "recommend": lambda v, q: v.recommend([q]),
    "range_search": lambda v, q: v.range_search(q, min_score=0.5),
    "mmr_search": lambda v, q: v.mmr_search(q),
    "search_groups": lambda v, q: v.search_groups(q, "a"),
    "upsert": lambda v, q: v.upsert(records(len(q))),
    "a large upsert": lambda v, q: v.upsert(records(len(q), 400)),
    "ingest": lambda v, q: v.ingest(records(len(q), 400), batch_size=150),
    "ingest, skipping": lambda v, q: v.ingest(records(len(q)), on_error="skip"),
    "update": lambda v, q: v.update("0", embedding=q),
}


@pytest.fixture
async def engine(empty_dsn: str) -> AsyncIterator[AsyncEngine]:
    """Each connection looks where its task's tenant is."""
    for name, size in SIZES.items():
        await migrations.upgrade(Settings(dsn=empty_dsn, db_schema=name, dimensions=size))
    engine = create_async_engine(Settings(dsn=empty_dsn).target().url)  # type: ignore[union-attr]

    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(connection: Any, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET search_path = {tenant.get('small')}, public")
        connection.commit()

    yield engine
    await engine.dispose()


@pytest.mark.parametrize("lane", ["alone", "together"])
async def test_tenants_by_search_path_have_dimensions_of_their_own(
    engine: AsyncEngine, lane: str
) -> None:
    async def of(name: str) -> None:
        tenant.set(name)
        query = records(SIZES[name])[0]["embedding"]
        for what, call in CALLS.items():
            if lane == "alone":
                await call(db.vectors, query)
            else:
                async with (
                    AsyncSession(engine) as session,
                    session.begin(),
                    unit_of_work(session) as uow,
                ):
                    await call(uow.vectors, query)
            assert await db.vectors.count() in (0, 3, 400), what
        assert len(await db.vectors.search(query)) == 10
        with pytest.raises(DimensionMismatchError) as refused:
            await db.vectors.search([1.0] * 5)
        assert refused.value.expected == SIZES[name]

    db = Database.from_engine(engine)
    for name in ("small", "large", "small"):
        await of(name)
        await db.vectors.delete_all()
    await asyncio.gather(*map(of, SIZES))


async def test_a_column_that_was_migrated_under_a_running_service_is_looked_at_again(
    dsn: str,
) -> None:
    async with Database.connect(dsn) as db:
        await db.vectors.upsert(records(8))
        await execute(
            dsn, "DELETE FROM qortex_vectors", "ALTER TABLE qortex_vectors ALTER vec TYPE vector(3)"
        )
        assert await db.vectors.upsert(records(3)) == 3
        assert len(await db.vectors.search([1.0] * 3)) == 3


async def test_a_translated_engine_for_each_request_compiles_nothing_again(
    engine: AsyncEngine,
) -> None:
    async def request(name: str) -> None:
        query = records(SIZES[name])[0]["embedding"]
        own = engine.execution_options(schema_translate_map={None: name})
        db = Database.from_engine(own)
        for what in ("upsert", "search", "search_many", "update"):
            await CALLS[what](db.vectors, query)
        assert await db.vectors.count() == 3
        assert (await db.arms.observe("l", "a", reward=1.0)).alpha > 1
        async with AsyncSession(own) as session, session.begin(), unit_of_work(session) as uow:
            await uow.vectors.upsert(records(SIZES[name]))

    await request("small")
    listeners = len(engine.pool.dispatch.checkout)  # type: ignore[attr-defined]
    compiled = compilations(engine)
    for _ in range(3):
        await request("large")
        await request("small")
    assert [sql for sql in compiled if "SAVEPOINT" not in sql] == []
    assert len(engine.pool.dispatch.checkout) == listeners  # type: ignore[attr-defined]
