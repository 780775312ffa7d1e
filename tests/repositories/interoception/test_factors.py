"""Factors: decay, what a copy is told, and many writers at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from datetime import timedelta

import pytest

from qortex_db import Database, FactorSummary, InvalidInputError, unit_of_work
from support.catalogue import execute, rows

HOUR = 3_600.0


async def pass_time(dsn: str, seconds: float) -> None:
    """Let the stored times be longer ago."""
    moved = f"updated_at = updated_at - interval '{seconds} seconds'"
    await execute(dsn, f"UPDATE interoception_factors SET {moved}")


async def versions(dsn: str) -> list[str]:
    """The rows' versions: what is written gets another one."""
    return await rows(
        dsn, "SELECT node_id || ctid::text || xmin::text FROM interoception_factors ORDER BY 1"
    )


async def test_a_weight_halves_its_distance_to_one_with_each_half_life(
    dsn: str, db: Database
) -> None:
    await db.factors.save({"up": 3.0, "down": 0.2, "far": -7.0, "one": 1.0})
    await pass_time(dsn, HOUR)
    assert await db.factors.decay(half_life=HOUR) == 3
    decayed = {"up": 2.0, "down": 0.6, "far": -3.0, "one": 1.0}
    assert await db.factors.load() == pytest.approx(decayed, rel=1e-3)
    await pass_time(dsn, 2 * HOUR)
    await db.factors.decay(half_life=timedelta(hours=1))
    decayed = {"up": 1.25, "down": 0.9, "far": 0.0, "one": 1.0}
    assert await db.factors.load() == pytest.approx(decayed, rel=1e-3, abs=1e-3)


async def test_decaying_often_is_decaying_once_over_the_whole_time(dsn: str, db: Database) -> None:
    long = 1e6 * HOUR  # what the test itself takes is nothing beside it
    await db.factors.save({"often": 4.0, "once": 4.0})
    for part in (0.5, 0.1, 0.9):
        await pass_time(dsn, part * long)
        assert await db.factors.decay(half_life=long, node_ids=["often", "nobody"]) == 1
    assert await db.factors.decay(half_life=long, node_ids=["once"]) == 1
    weights = await db.factors.load()
    assert weights["often"] == pytest.approx(weights["once"], rel=1e-9)
    assert weights["once"] == pytest.approx(1 + 3 * 0.5**1.5, rel=1e-9)


async def test_feedback_that_knows_the_half_life_forgives_no_time(dsn: str, db: Database) -> None:
    long = 1e6 * HOUR
    await db.factors.save({"knows": 3.0, "forgives": 3.0})
    await pass_time(dsn, long)
    await db.factors.adjust({"knows": "accepted", "new": "accepted"}, half_life=long)
    await db.factors.adjust({"forgives": "accepted"})
    await db.factors.decay(half_life=long)
    expected = {"knows": 2.1, "forgives": 3.1, "new": 1.1}
    assert await db.factors.load() == pytest.approx(expected, rel=1e-6)


async def test_what_decay_leaves_as_it_is_is_not_written(dsn: str, db: Database) -> None:
    await db.factors.save({"one": 1.0, "two": 2.0})
    before = await versions(dsn)
    # So little that a double doesn't show it: it has to add up, not to be forgotten.
    assert await db.factors.decay(half_life=1e18) == 0
    assert await db.factors.decay(half_life=1.0, node_ids=[]) == 0
    assert await versions(dsn) == before
    await pass_time(dsn, 1e9)
    assert await db.factors.decay(half_life=1e-6) == 1  # PostgreSQL would refuse 0.5 ** 1e15
    assert await db.factors.load() == {"one": 1.0, "two": 1.0}
    assert await db.factors.decay(half_life=1e-6) == 0


async def test_a_row_without_a_time_decays_from_its_first_decay_on(dsn: str, db: Database) -> None:
    await execute(dsn, "INSERT INTO interoception_factors VALUES ('adopted', 3.0, NULL)")
    assert await db.factors.decay(half_life=HOUR) == 1
    assert await db.factors.load() == {"adopted": 3.0}
    await pass_time(dsn, HOUR)
    await db.factors.decay(half_life=HOUR)
    assert (await db.factors.load())["adopted"] == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("write", ["adjust", "save", "decay"])
async def test_a_transaction_that_began_earlier_does_not_turn_the_time_back(
    dsn: str, db: Database, write: str
) -> None:
    await db.factors.save({"a": 2.0})
    async with db.unit_of_work() as uow:
        await uow.factors.get(["a"])  # now() is the transaction's from here on
        await asyncio.sleep(0.05)
        await db.factors.adjust({"a": "accepted"})
        [before] = await rows(dsn, "SELECT updated_at FROM interoception_factors")
        if write == "adjust":
            await uow.factors.adjust({"a": "accepted"})
        elif write == "save":
            await uow.factors.save({"a": 3.0})
        else:
            assert await uow.factors.decay(half_life=1e-6) == 0
    assert await rows(dsn, "SELECT updated_at FROM interoception_factors") == [before]


async def test_adjusters_at_once_lose_nothing_while_others_decay(dsn: str, db: Database) -> None:
    nodes = [f"n{i}" for i in range(12)]
    deltas = {"accepted": 0.1, "rejected": -0.05, "partial": 0.03}
    start = dict.fromkeys(nodes, 1.5)
    await db.factors.save(start)
    rng = random.Random(1)  # noqa: S311 - a fixed choice
    batches = []
    raised, lowered = Counter(start), Counter(start)
    for _ in range(120):
        batch = {node: rng.choice(list(deltas)) for node in rng.sample(nodes, 5)}
        batches.append(batch)
        for node, outcome in batch.items():
            change = deltas[outcome]
            (raised if change > 0 else lowered)[node] += change
    # No clamp, whichever come first; so the order doesn't matter.
    assert max(raised.values()) < 5.0
    assert min(lowered.values()) > 0.1
    expected = {node: raised[node] + lowered[node] - start[node] for node in nodes}

    async def decay() -> None:
        for _ in range(30):
            await db.factors.decay(half_life=timedelta.max)
            await db.factors.decay(half_life=1e15, node_ids=rng.sample(nodes, 8))

    await asyncio.gather(decay(), decay(), *(db.factors.adjust(batch) for batch in batches))
    assert await db.factors.load() == pytest.approx(expected, rel=1e-9)


async def test_the_summary_without_factors_is_that_of_the_default(db: Database) -> None:
    assert await db.factors.summary() == FactorSummary(0, 1.0, 1.0, 1.0, 0, 0, 0.0)


async def test_a_copy_is_told_everything_once_and_then_what_was_written(db: Database) -> None:
    await db.factors.save({"a": 2.0, "b": 0.5})
    first = await db.factors.changes()
    assert (first.weights, first.count) == ({"a": 2.0, "b": 0.5}, 2)
    nothing = await db.factors.changes(first.cursor)
    assert (nothing.weights, nothing.count) == ({}, 2)
    await db.factors.adjust({"b": "accepted", "c": "accepted"})
    second = await db.factors.changes(first.cursor)
    assert second.weights == pytest.approx({"b": 0.6, "c": 1.1})
    assert (await db.factors.changes(second.cursor)).weights == {}
    assert (await db.factors.changes(first.cursor)).weights == second.weights


async def test_the_count_tells_a_copy_that_something_was_deleted(db: Database) -> None:
    await db.factors.save({"a": 2.0, "b": 0.5})
    first = await db.factors.changes()
    copy = dict(first.weights)
    await db.factors.delete(["a"])
    await db.factors.save({"c": 3.0})  # as many rows as before
    second = await db.factors.changes(first.cursor)
    copy |= second.weights
    assert len(copy) > second.count
    assert (await db.factors.changes()).weights == {"b": 0.5, "c": 3.0}


async def test_a_transaction_that_commits_late_is_not_missed(db: Database) -> None:
    await db.factors.save({"a": 1.0})
    async with db.unit_of_work() as late:
        await late.factors.save({"late": 2.0})
        async with unit_of_work(late.session) as savepoint:
            await savepoint.factors.save({"inner": 3.0})
        await db.factors.save({"early": 4.0})  # a later number, committed first
        first = await db.factors.changes()
        assert first.weights == {"a": 1.0, "early": 4.0}
        await db.factors.save({"early": 5.0})
        second = await db.factors.changes(first.cursor)
        assert second.weights == {"early": 5.0}
    third = await db.factors.changes(second.cursor)
    assert third.weights.items() >= {"late": 2.0, "inner": 3.0}.items()
    assert (await db.factors.changes(third.cursor)).weights == {}


class UndoneError(Exception):
    """What a writer of these tests fails with."""


def fail(share: float = 1.0, rng: random.Random | None = None) -> None:
    if rng is None or rng.random() < share:
        raise UndoneError


async def test_what_is_rolled_back_is_not_told(db: Database) -> None:
    first = await db.factors.changes()
    with suppress(UndoneError):
        async with db.unit_of_work() as uow:
            await uow.factors.save({"a": 2.0})
            fail()
    assert (await db.factors.changes(first.cursor)).weights == {}


async def write_in_parts(db: Database, name: str, rng: random.Random) -> None:
    """Write, and write in a savepoint, and commit at some time, or not."""
    with suppress(UndoneError):
        async with db.unit_of_work() as uow:
            await uow.factors.save({f"{name}-outer": rng.random()})
            await asyncio.sleep(rng.random() * 0.05)
            with suppress(UndoneError):
                async with unit_of_work(uow.session) as inner:
                    await inner.factors.save({f"{name}-inner": rng.random(), "all": rng.random()})
                    await asyncio.sleep(rng.random() * 0.01)
                    fail(0.3, rng)
            fail(0.2, rng)


@pytest.mark.slow
async def test_a_follower_of_many_writers_ends_up_with_the_table(db: Database) -> None:
    rng = random.Random(2)  # noqa: S311 - a fixed choice

    async def write(task: int) -> None:
        for number in range(25):
            name = f"{task}-{number}"  # written once, so that nothing later hides what was missed
            if rng.random() < 0.4:
                await db.factors.adjust({name: "accepted", "all": "rejected"})
            else:
                await write_in_parts(db, name, rng)

    writers = asyncio.gather(*(write(task) for task in range(8)))
    copy: dict[str, float] = {}
    cursor = None
    is_last = False
    while not is_last:
        is_last = writers.done()
        changes = await db.factors.changes(cursor)
        copy |= changes.weights
        cursor = changes.cursor
        assert len(copy) == changes.count
        await asyncio.sleep(0.002)
    await writers
    assert len(copy) > 150
    assert copy == await db.factors.load()


async def test_a_cursor_of_another_database_or_of_the_future_is_refused(
    db: Database, dsn384: str
) -> None:
    cursor = (await db.factors.changes()).cursor
    async with Database.connect(dsn384) as other:
        with pytest.raises(InvalidInputError, match="another database"):
            await other.factors.changes(cursor)
    number, _, database = cursor.partition("@")
    with pytest.raises(InvalidInputError, match="start anew"):
        await db.factors.changes(f"{int(number) + 10**6}@{database}")


async def test_rows_that_vacuum_froze_keep_their_numbers(dsn: str, db: Database) -> None:
    await db.factors.save({"a": 2.0})
    first = await db.factors.changes()
    await db.factors.save({"b": 3.0})
    await execute(dsn, "VACUUM (FREEZE) interoception_factors")
    assert (await db.factors.changes(first.cursor)).weights == {"b": 3.0}
