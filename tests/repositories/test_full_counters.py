"""A counter at its column's end is refused by name, and takes nothing else with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from qortex_db import (
    ArmState,
    CounterOverflowError,
    Database,
    EdgeStats,
    InvalidInputError,
    PostgresInteroceptionStore,
    PostgresLearningStore,
)
from qortex_db.checks import MAX_INT4
from qortex_db.testing.factories import ArmStateFactory, EdgeStatsFactory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qortex_db.uow import Repositories

MANY = [f"arm {number:03}" for number in range(300)]
PAIRS = [(f"a{number:03}", f"b{number:03}") for number in range(300)]

COUNTING: dict[str, tuple[Callable[[Repositories], Awaitable[Any]], str]] = {
    "observe": (lambda r: r.arms.observe("l", "full", reward=1.0), "pulls of arm 'full' of 'l'"),
    "observe_many": (
        lambda r: r.arms.observe_many("l", [("full", 1.0), *((arm, 0.5) for arm in MANY)]),
        "pulls of arm 'full' of 'l'",
    ),
    "observe_many, whose sum is too much": (
        lambda r: r.arms.observe_many("l", [("nearly", 1.0), ("new", 1.0), ("nearly", 1.0)]),
        "pulls of arm 'nearly' of 'l'",
    ),
    "apply_deltas": (
        lambda r: r.arms.apply_deltas("l", dict.fromkeys(("full", *MANY), (0.5, 0.5))),
        "pulls of arm 'full' of 'l'",
    ),
    "record": (lambda r: r.edges.record("y", "x", score=1.0), r"the edge \('x', 'y'\)"),
    "record_many": (
        lambda r: r.edges.record_many([("y", "x", 1.0), *((*pair, 0.5) for pair in PAIRS)]),
        r"the edge \('x', 'y'\)",
    ),
    "record_many, whose sum is too much": (
        lambda r: r.edges.record_many([("n", "m", 1.0), ("m", "n", 1.0)]),
        r"the edge \('m', 'n'\)",
    ),
}


async def everything(db: Database) -> Any:
    states = await db.arms.get_all_states("l")
    return {arm: replace(state, last_updated="") for arm, state in states["default"].items()}, {
        pair: (edge.hit_count, edge.scores) for pair, edge in (await db.edges.load()).items()
    }


@pytest.mark.parametrize("history", [False, True], ids=["", "with history"])
async def test_a_full_counter_is_named_and_nothing_is_counted(db: Database, history: bool) -> None:
    engine, counted = db.engine, Database.from_engine(db.engine, learning_history=history)
    await db.arms.put("l", "full", ArmStateFactory.build(pulls=MAX_INT4))
    await db.arms.put("l", "nearly", ArmStateFactory.build(pulls=MAX_INT4 - 1))
    await db.arms.put("other", "full", ArmStateFactory.build(pulls=1))
    await db.edges.save(
        {
            ("x", "y"): EdgeStatsFactory.build(hit_count=MAX_INT4),
            ("m", "n"): EdgeStatsFactory.build(hit_count=MAX_INT4 - 1),
        }
    )
    before = await everything(db)
    for call, named in COUNTING.values():
        with pytest.raises(CounterOverflowError, match=named):
            await call(counted)
        async with counted.unit_of_work() as uow:  # and the transaction goes on
            with pytest.raises(CounterOverflowError, match=named):
                await call(uow)
            assert (await uow.arms.get("l", "full")).pulls == MAX_INT4
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
    for call, named in COUNTING.values():
        with pytest.raises(CounterOverflowError, match=named):
            await call(counted)
    assert await everything(db) == before
    assert await counted.arms.rebuild("l") == {}

    async with counted.unit_of_work() as uow:  # what has room is counted to the last
        assert (await uow.arms.observe("l", "nearly", reward=1.0)).pulls == MAX_INT4
        assert (await uow.arms.observe("other", "full", reward=1.0)).pulls == 2
        assert (await uow.arms.observe("l", "full", reward=1.0, context={"a": 1})).pulls == 1
        assert (await uow.edges.record("m", "n", score=1.0)).hit_count == MAX_INT4
    assert (await db.arms.metrics("l")).total_pulls == 2 * MAX_INT4 + 1
    assert (await db.edges.summary()).total_hits == 2 * MAX_INT4
    await db.arms.reset("l", ["full"])
    assert (await db.arms.observe("l", "full", reward=1.0)).pulls == 1


async def test_a_count_beyond_the_column_is_refused_by_name(db: Database) -> None:
    with pytest.raises(InvalidInputError, match=r"pulls of arm 'a'.*2,147,483,647"):
        await db.arms.put("l", "a", ArmState(1.0, 1.0, MAX_INT4 + 1))
    with pytest.raises(InvalidInputError, match="pulls of arm 'a'"):
        await PostgresLearningStore("l", db).put("a", ArmState(1.0, 1.0, MAX_INT4 + 1))
    edges = {("b", "a"): EdgeStats(MAX_INT4 + 1), ("c", "d"): EdgeStats(1)}
    for save in (db.edges.save, PostgresInteroceptionStore(db).save_edges):
        with pytest.raises(InvalidInputError, match=r"hit_count of the edge \('a', 'b'\)"):
            await save(edges)
    assert await everything_is_empty(db)


async def everything_is_empty(db: Database) -> bool:
    return await db.edges.load() == {} and await db.arms.get_all_states("l") == {}
