"""The constraints on arms, and the revisions that bring them to rows which break them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy import update

from qortex_db import ConflictError, InvalidInputError, LearningArmState, Settings, migrations
from support.catalogue import execute, rows
from support.commands import alembic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qortex_db import Database


@asynccontextmanager
async def holding(dsn: str, statement: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


VALID = "SELECT convalidated::text FROM pg_constraint WHERE conname LIKE 'ck_learning_arm_states_%'"


@pytest.mark.parametrize(
    "values",
    [
        {"alpha": 0},
        {"beta": -1},
        {"alpha": float("nan")},
        {"beta": float("inf")},
        {"pulls": -1},
    ],
)
async def test_the_server_refuses_what_is_no_posterior(
    db: Database, values: dict[str, float]
) -> None:
    before = await db.arms.observe("l", "a", reward=1)
    with pytest.raises(ConflictError, match="ck_learning_arm_states"):
        await db.executor.run(update(LearningArmState.__table__).values(values), {})
    assert await db.arms.get("l", "a") == before


@pytest.mark.slow
async def test_rows_that_break_them_are_named_left_alone_and_waited_for(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, dimensions=2)
    await migrations.upgrade(settings, "qortex_db_0006")
    await execute(
        empty_dsn,
        "INSERT INTO learning_arm_states SELECT 'l', 'default', 'bad' || n, 4, -n, 1, 3 "
        "FROM generate_series(1, 7) n",
        "INSERT INTO learning_arm_states VALUES ('l', 'default', 'good', 2, 1, 1, 1)",
    )
    everything = "SELECT s::text FROM learning_arm_states s ORDER BY 1"
    before = await rows(empty_dsn, everything)
    with pytest.raises(InvalidInputError) as caught:
        await migrations.upgrade(settings)
    said = str(caught.value)
    assert '7 rows of "public".learning_arm_states can\'t be a posterior' in said
    assert "arm 'bad1' of 'l' in 'default'; arm 'bad2'" in said
    assert "and others" in said
    assert "good" not in said
    done = await alembic("upgrade", "head", dsn=empty_dsn)
    assert done.code != 0
    assert '7 rows of "public".learning_arm_states' in done.err
    assert "Traceback" not in done.err
    assert await rows(empty_dsn, everything) == before
    assert (await migrations.check(settings)).current == "qortex_db_0007"
    assert set(await rows(empty_dsn, VALID)) == {"false"}

    mend = said.partition("by UPDATE")[2].partition(";")[0]
    await execute(empty_dsn, f"UPDATE{mend}")
    assert (await migrations.upgrade(settings)).is_current
    assert set(await rows(empty_dsn, VALID)) == {"true"}
    kept = "SELECT arm_id FROM learning_arm_states WHERE alpha = 2 OR (alpha, beta) = (1, 1)"
    assert len(await rows(empty_dsn, kept)) == 8


async def test_validating_waits_for_no_reader_or_writer(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, dimensions=2, migration_timeout_seconds=5)
    await migrations.upgrade(settings, "qortex_db_0007")
    async with holding(empty_dsn, "INSERT INTO learning_arm_states VALUES ('l', 'default', 'a')"):
        state = await migrations.upgrade(settings, "qortex_db_0008")
    assert state.current == "qortex_db_0008"
