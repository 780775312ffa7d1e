"""Extension, schema or tables made anew under a live pool: a test-suite's reset, a restore."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import Database, SerializationConflictError, Settings, migrations, unit_of_work
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

VECTOR = [1.0] + [0.0] * 7
CHANGE = {
    "qortex_vectors": "ALTER document TYPE varchar(9000)",
    "learning_arm_states": "ALTER pulls TYPE bigint",
}
RESET = (
    "DROP EXTENSION vector CASCADE",
    "DROP SCHEMA public CASCADE",
    "CREATE SCHEMA public",
)


async def reset(dsn: str) -> None:
    await execute(dsn, *RESET)
    await migrations.upgrade(Settings(dsn=dsn, dimensions=8))


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"{i}", "embedding": VECTOR} for i in range(count)]


CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "upsert": lambda v: v.upsert(rows(1)),
    "search": lambda v: v.search(VECTOR),
    "get": lambda v: v.get(["0"]),
    "search_many": lambda v: v.search_many([VECTOR]),
    "a large upsert": lambda v: v.upsert(rows(2_000)),
}


@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
@pytest.mark.parametrize("first", CALLS)
async def test_calls_go_on(empty_dsn: str, first: str, *, watched: bool) -> None:
    await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=8))
    url = Settings(dsn=empty_dsn).target().url  # type: ignore[union-attr]
    engine = create_async_engine(url, pool_size=4, max_overflow=0)
    if watched:
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
    db = Database.from_engine(engine)
    calls = [CALLS[first], *CALLS.values()]

    async def together(call: Callable[[Any], Awaitable[Any]]) -> Any:
        async with (
            AsyncSession(engine) as session,
            session.begin(),
            unit_of_work(session) as uow,
        ):
            return await call(uow.vectors)

    for _ in range(2):
        await asyncio.gather(*(call(db.vectors) for call in calls[:4]))
        for call in calls:
            await call(db.vectors)
            await together(call)
        await reset(empty_dsn)
        if first == "a large upsert":  # what is sent in parts is not sent again by itself
            with pytest.raises(SerializationConflictError, match="Run it again"):
                await calls[0](db.vectors)
        for call in calls:
            await call(db.vectors)
        await asyncio.gather(*(call(db.vectors) for call in list(CALLS.values())[:4]))
        await reset(empty_dsn)
        refused = 0
        for call in calls:
            try:
                await together(call)
            except SerializationConflictError:  # a plan that a connection kept: the server said so
                refused += 1
                await together(call)
        assert refused <= 1  # the first that is refused makes every connection forget its plans
    await engine.dispose()


async def read(db: Database) -> None:
    async with db.unit_of_work() as uow:
        await uow.vectors.get(["0"])
        await uow.arms.get_all("l")


async def test_a_unit_of_work_that_meets_ddl_is_run_again(dsn: str) -> None:
    async with Database.connect(Settings(dsn=dsn, pool_min_size=1, pool_max_size=1)) as db:
        await db.vectors.upsert(rows(1))
        for table in ("qortex_vectors", "learning_arm_states"):
            async with db.unit_of_work() as uow:
                before = await uow.vectors.get(["0"]), await uow.arms.get_all("l")
            await execute(dsn, f"ALTER TABLE {table} {CHANGE[table]}")
            with pytest.raises(SerializationConflictError, match="Run it again"):
                await read(db)
            async with db.unit_of_work() as uow:
                assert await uow.arms.get_all("l") == before[1]
