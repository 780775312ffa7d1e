"""Changes of arms: exact, atomic, one statement each, with and without a history."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest

from qortex_db import (
    ALL_CONTEXTS,
    ArmState,
    Database,
    InvalidInputError,
    LearnerMetrics,
    LearningArmState,
    Settings,
    context_hash,
    unit_of_work,
)
from qortex_db.engine.compiled import Compiled
from qortex_db.repositories.arms.change_statements import decay, remove, reset
from qortex_db.testing.factories import ArmStateFactory
from support.catalogue import execute
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SQL = {"task": "sql"}
OLD = "2025-01-01T00:00:00+00:00"


@pytest.fixture(params=[False, True], ids=["plain", "history"])
async def db(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(Settings(dsn=dsn, learning_history=request.param)) as database:
        yield database


def numbers(state: ArmState) -> tuple[float, float, int, float]:
    return (state.alpha, state.beta, state.pulls, state.total_reward)


async def test_deltas_are_added_down_to_a_floor_and_count_a_pull_each(db: Database) -> None:
    await db.arms.observe("l", "old", reward=0.5, context=SQL)
    states = await db.arms.apply_deltas(
        "l", {"old": (0.25, -9.0), "new": (-3.0, 0.1), "é'": (1e-9, 2)}, context=SQL
    )
    assert list(states) == ["new", "old", "é'"]
    assert numbers(states["old"]) == (1.75, 0.01, 2, 0.75)
    assert numbers(states["new"]) == (0.01, 1.1, 1, -3.0)
    assert numbers(states["é'"]) == (1 + 1e-9, 3.0, 1, 1e-9)
    assert await db.arms.get_all("l", context=SQL) == states
    assert await db.arms.get_all("l") == {}
    assert await db.arms.apply_deltas("l", {}) == {}


async def test_decay_multiplies_down_to_a_floor_and_keeps_pulls(db: Database) -> None:
    await db.arms.put("l", "a", ArmState(5.0, 0.011, 4, 3.0, OLD))
    await db.arms.put("l", "b", ArmState(2.0, 4.0, 4, 1.0, OLD))
    states = await db.arms.decay("l", "a", factor=0.5)
    assert {key: numbers(state) for key, state in states.items()} == {"a": (2.5, 0.01, 4, 1.5)}
    assert states["a"].last_updated > OLD
    states = await db.arms.decay("l")
    assert list(states) == ["a", "b"]
    assert numbers(states["b"]) == (2.0 * 0.9, 4.0 * 0.9, 4, 0.9)
    assert await db.arms.get_all("l") == states
    assert await db.arms.decay("l", "nobody") == {}
    assert await db.arms.decay("l", context=SQL) == {}


async def test_a_whole_learner_decays_and_is_reset(db: Database) -> None:
    state = ArmStateFactory.build(pulled=True, old=True)
    for context in (None, SQL):
        await db.arms.put("l", "a", state, context=context)
        await db.arms.put("other", "a", state, context=context)
    states = await db.arms.decay("l", "a", factor=0.5, context=ALL_CONTEXTS)
    assert sorted(states) == sorted(["default", context_hash(SQL)])
    assert {numbers(arms["a"]) for arms in states.values()} == {(2.0, 1.0, 4, 1.5)}
    assert await db.arms.get_all_states("l") == states
    assert await db.arms.reset("l", context=ALL_CONTEXTS) == 2
    assert numbers(await db.arms.get("l", "a")) == (1.0, 1.0, 0, 0.0)
    assert (await db.arms.get("l", "a")).last_updated > OLD
    assert await db.arms.get("other", "a", context=SQL) == state


@pytest.mark.parametrize(
    "change", [partial(decay, timed=False), reset, remove], ids=["decay", "reset", "delete"]
)
async def test_a_change_of_many_arms_joins_nothing(dsn: str, db: Database, change: Any) -> None:
    """Until a table is analysed the planner takes it for empty, and a join for one of few rows."""
    await db.arms.observe_many("l", [(f"a{i}", 1.0) for i in range(500)])
    params = {"learner": "l", "context": "default", "by": 0.5, "half_life": None}
    for history in (False, True):
        compiled = Compiled(
            change(in_context=True, listed=False, history=history), db.engine.dialect, {}
        )
        connection = await asyncpg.connect(dsn)
        plan = await connection.fetch(f"EXPLAIN {compiled.sql}", *compiled.arguments(params))
        await connection.close()
        lines = [row[0] for row in plan]
        assert any("learning_arm_states" in line for line in lines)
        assert not any("Nested Loop" in line for line in lines)


async def test_a_half_life_counts_the_time_since_the_last_change(db: Database) -> None:
    now = "2035-01-01T00:00:00+00:00"
    await db.arms.put("l", "future", ArmState(8.0, 4.0, 9, 6.0, now))
    await db.arms.put("l", "old", ArmState(8.0, 4.0, 9, 6.0, OLD))
    await db.arms.put("l", "ancient", ArmState(8.0, 4.0, 9, 6.0, "0100-01-01T00:00:00+00:00"))
    await db.arms.observe("l", "new", reward=1)
    states = await db.arms.decay("l", half_life=timedelta(days=365))
    assert numbers(states["future"]) == (8.0, 4.0, 9, 6.0)  # a clock that is ahead
    assert numbers(states["new"]) == pytest.approx((2.0, 1.0, 1, 1.0), rel=1e-6)
    old = states["old"]
    assert 0 < old.alpha < 4.0
    assert old.alpha / old.beta == pytest.approx(2)
    assert old.total_reward / old.alpha == pytest.approx(6 / 8)
    assert numbers(states["ancient"])[:3] == (0.01, 0.01, 9)
    assert 0 <= states["ancient"].total_reward < 1e-20


async def test_decays_by_half_life_compose_to_the_time_that_passed(db: Database) -> None:
    await db.arms.put("l", "a", ArmState(800.0, 400.0, 9, 6.0))
    start = (await db.arms.get("l", "a")).last_updated
    for _ in range(3):
        await asyncio.sleep(0.1)
        state = (await db.arms.decay("l", "a", half_life=0.2))["a"]
    elapsed = (np.datetime64(state.last_updated[:26]) - np.datetime64(start[:26])) / np.timedelta64(
        1, "s"
    )
    assert state.alpha == pytest.approx(800 * 0.5 ** (elapsed / 0.2), rel=1e-9)


async def test_decay_never_underflows(db: Database) -> None:
    await db.arms.put("l", "a", ArmState(1e-300, 1e100, 1, 1e-300))
    for factor in (0.0, 1e-300, 0.1, 1e-29):
        state = (await db.arms.decay("l", "a", factor=factor))["a"]
        assert state.alpha == 0.01
    await db.arms.put("l", "b", ArmState(1.0, 1.0, 1, 1.0))
    for _ in range(30):
        state = (await db.arms.decay("l", "b", factor=1e-20))["b"]
    assert numbers(state) == (0.01, 0.01, 1, 0.0)
    assert numbers((await db.arms.decay("l", "b", half_life=1e-6))["b"]) == (0.01, 0.01, 1, 0.0)


async def test_seeds_boost_only_arms_that_are_not_there(db: Database) -> None:
    await db.arms.observe("l", "old", reward=0)
    states = await db.arms.seed("l", ["new", "old", "new"], boost=3.0)
    assert {key: numbers(state) for key, state in states.items()} == {
        "new": (3.0, 1.0, 0, 0.0),
        "old": (1.0, 2.0, 1, 0.0),
    }
    assert states["new"].last_updated
    assert await db.arms.seed("l", ["old", "new"]) == states
    assert numbers((await db.arms.seed("l", ["new"], context=SQL))["new"])[0] == 2.0
    assert await db.arms.seed("l", []) == {}


async def test_an_arm_that_decayed_to_the_prior_or_was_reset_is_not_boosted_again(
    db: Database,
) -> None:
    await db.arms.seed("l", ["a", "b"], boost=2.0)
    await db.arms.decay("l", "a", factor=0.5)
    await db.arms.reset("l", ["b"])
    states = await db.arms.seed("l", ["a", "b"])
    assert numbers(states["a"]) == (1.0, 0.5, 0, 0.0)
    assert numbers(states["b"]) == (1.0, 1.0, 0, 0.0)
    await db.arms.observe("l", "b", reward=1)
    states = await db.arms.seed("l", ["a", "b", "c"], unpulled=True)  # qortex's rule
    assert numbers(states["a"]) == (2.0, 1.0, 0, 0.0)
    assert numbers(states["b"]) == (2.0, 1.0, 1, 1.0)
    assert numbers(states["c"]) == (2.0, 1.0, 0, 0.0)
    assert list(states) == ["a", "b", "c"]


async def test_seeds_that_meet_all_see_every_arm(db: Database) -> None:
    ids = [f"a{i}" for i in range(30)]
    rng = np.random.default_rng(1)
    orders = [rng.permutation(ids).tolist() for _ in range(12)]
    answers = await asyncio.gather(*(db.arms.seed("l", order) for order in orders))
    assert all(answer == answers[0] for answer in answers)
    assert list(answers[0]) == sorted(ids)


async def test_a_seed_behind_an_uncommitted_one_returns_what_it_became(db: Database) -> None:
    async with db.unit_of_work() as uow:
        await uow.arms.seed("l", ["a"], boost=5.0)
        waiting = asyncio.create_task(db.arms.seed("l", ["a"], boost=7.0))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert (await waiting)["a"].alpha == 5.0


async def test_a_reset_keeps_arms_at_the_prior(db: Database) -> None:
    await db.arms.observe_many("l", [("a", 1), ("b", 1), ("c", 1)])
    assert await db.arms.reset("l", ["a", "nobody"]) == 1
    assert await db.arms.reset("l", []) == 0
    assert {key: s.pulls for key, s in (await db.arms.get_all("l")).items()} == {
        "a": 0,
        "b": 1,
        "c": 1,
    }
    assert await db.arms.reset("l") == 3
    assert {numbers(s) for s in (await db.arms.get_all("l")).values()} == {(1.0, 1.0, 0, 0.0)}


async def test_metrics_sum_over_all_contexts(db: Database) -> None:
    assert await db.arms.metrics("l") == LearnerMetrics("l", 0, 0, 0, 0.0)
    assert (await db.arms.metrics("l")).accuracy == 0
    await db.arms.observe_many("l", [("a", 1), ("a", 0.5), ("b", 0)])
    await db.arms.observe("l", "a", reward=1, context=SQL)
    await db.arms.observe("other", "a", reward=1)
    metrics = await db.arms.metrics("l")
    assert metrics == LearnerMetrics("l", 3, 2, 4, 2.5)
    assert metrics.accuracy == 2.5 / 4


async def test_posteriors_are_those_of_the_beta_distribution(db: Database) -> None:
    await db.arms.put("l", "a", ArmState(3.0, 7.0, 8, 2.0))
    await db.arms.put("l", "b", ArmStateFactory.build())
    found = await db.arms.posteriors("l")
    assert list(found) == ["a", "b"]
    a = found["a"]
    assert (a.mean, a.pulls) == (0.3, 8)
    assert a.variance == pytest.approx(0.3 * 0.7 / 11, rel=1e-14)
    assert (found["b"].low, found["b"].high) == pytest.approx((0.025, 0.975), abs=1e-12)
    narrow = await db.arms.posteriors("l", ["a", "nobody"], level=0.5)
    assert list(narrow) == ["a"]
    assert a.low < narrow["a"].low < 0.3 < narrow["a"].high < a.high
    assert await db.arms.posteriors("l", []) == {}


async def test_every_change_comes_and_goes_with_its_unit_of_work(db: Database) -> None:
    await db.arms.observe("l", "a", reward=1)
    before = await db.arms.get_all("l")

    async def change_and_fail() -> None:
        async with db.unit_of_work() as uow:
            await uow.arms.apply_deltas("l", {"a": (1, 1), "b": (1, 1)})
            await uow.arms.seed("l", ["c"])
            await uow.arms.decay("l", half_life=1)
            assert await uow.arms.reset("l") == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await change_and_fail()
    assert await db.arms.get_all("l") == before


async def test_objects_that_a_host_has_loaded_show_the_change(db: Database) -> None:
    await db.arms.observe("l", "a", reward=1)
    history = db._learning_history
    async with db.unit_of_work() as host:
        row = await host.session.get(LearningArmState, ("l", "default", "a"))
        assert row is not None
        async with unit_of_work(host.session, learning_history=history) as uow:
            await uow.arms.observe("l", "a", reward=1)
            assert (row.alpha, row.pulls) == (3.0, 2)
            await uow.arms.decay("l", factor=0.5)
            assert row.alpha == 1.5
            await uow.arms.put("l", "a", ArmState(9.0, 1.0))
            assert row.alpha == 9.0
            await uow.arms.seed("l", ["a"], unpulled=True)
            assert row.alpha == 2.0
            await uow.arms.reset("l")
            assert row.alpha == 1.0


CALLS: dict[str, Callable[[Database], Awaitable[object]]] = {
    "put": lambda db: db.arms.put("l", "a", ArmStateFactory.build(), context=SQL),
    "observe": lambda db: db.arms.observe("l", "a", reward=1, context=SQL),
    "apply_deltas": lambda db: db.arms.apply_deltas("l", {"a": (1, 1), "b": (0, 1)}, context=SQL),
    "decay": lambda db: db.arms.decay("l", context=SQL),
    "decay all": lambda db: db.arms.decay("l", half_life=1, context=ALL_CONTEXTS),
    "seed": lambda db: db.arms.seed("l", ["a", "new"], context=SQL),
    "seed as qortex": lambda db: db.arms.seed("l", ["a", "new"], unpulled=True, context=SQL),
    "reset": lambda db: db.arms.reset("l", context=SQL),
    "delete": lambda db: db.arms.delete("l", ["a"], context=SQL),
    "metrics": lambda db: db.arms.metrics("l"),
    "posteriors": lambda db: db.arms.posteriors("l", context=SQL),
    "read_contexts": lambda db: db.arms.read_contexts("l"),
    "rebuild": lambda db: db.arms.rebuild("l"),
}


@pytest.mark.parametrize("history", [False, True])
async def test_every_call_is_one_round_trip(dsn: str, *, history: bool) -> None:
    async with counted(dsn) as trips:
        settings = Settings(
            dsn=trips.dsn, pool_min_size=1, pool_max_size=1, learning_history=history
        )
        async with Database.connect(settings) as db:
            for call in CALLS.values():
                await call(db)
                await db.arms.observe("l", "a", reward=1, context=SQL)
                async with trips.expect(1):
                    await call(db)
            await db.arms.select("l", ["a", "b"])
            async with trips.expect(2 if history else 1):  # what was chosen can't be known before
                await db.arms.select("l", ["a", "b"])


async def test_without_a_history_nothing_is_written_beside_the_states(dsn: str) -> None:
    async with Database.connect(Settings(dsn=dsn)) as db:
        for call in CALLS.values():
            await call(db)
        await db.arms.select("l", ["a"])
        tables = (await db.status()).tables
        assert (tables["learning_events"]["rows"], tables["learning_contexts"]["rows"]) == (0, 0)
        # Nor is it touched: these calls work on a schema that has no such tables.
        await execute(dsn, "DROP TABLE learning_events, learning_contexts")
        for name, call in CALLS.items():
            if name not in {"read_contexts", "rebuild"}:
                await call(db)


BAD: dict[str, tuple[Callable[[Database], Awaitable[object]], str]] = {
    "deltas as a list": (lambda db: db.arms.apply_deltas("l", [("a", 1, 1)]), "mapping"),  # type: ignore[arg-type]
    "a delta alone": (lambda db: db.arms.apply_deltas("l", {"ok": (1, 1), "a": 1}), "pair"),  # type: ignore[dict-item]
    "a nan": (lambda db: db.arms.apply_deltas("l", {"a": (1, float("nan"))}), "beta_delta"),
    "an infinity": (lambda db: db.arms.apply_deltas("l", {"a": (float("inf"), 0)}), "alpha_delta"),
    "an empty key": (lambda db: db.arms.apply_deltas("l", {"": (1, 1)}), "arm_id is empty"),
    "a factor above 1": (lambda db: db.arms.decay("l", factor=1.1), "factor"),
    "a negative factor": (lambda db: db.arms.decay("l", factor=-0.1), "factor"),
    "no half-life": (lambda db: db.arms.decay("l", half_life=0), "half_life"),
    "a negative one": (lambda db: db.arms.decay("l", half_life=timedelta(-1)), "half_life"),
    "a str": (lambda db: db.arms.decay("l", half_life="1d"), "half_life"),  # type: ignore[call-overload]
    "seeds as a str": (lambda db: db.arms.seed("l", "abc"), "even for one"),
    "no boost": (lambda db: db.arms.seed("l", ["a"], boost=0), "boost"),
    "resets as a str": (lambda db: db.arms.reset("l", "abc"), "even for one"),
    "a level": (lambda db: db.arms.posteriors("l", level=1.0), "level"),
    "a learner": (lambda db: db.arms.metrics(""), "learner"),
    "a naive time": (lambda db: db.arms.rebuild("l", until="2025-01-01"), "time zone"),
    "a context": (lambda db: db.arms.reset("l", context="x"), "context"),  # type: ignore[arg-type]
}


async def test_bad_input_is_refused_before_it_is_sent(dsn: str) -> None:
    async with counted(dsn) as trips, Database.connect(trips.dsn) as db:
        async with trips.expect(0):
            for name, (call, match) in BAD.items():
                with pytest.raises(InvalidInputError, match=match):
                    pytest.fail(f"{name} was accepted: {await call(db)}")
        assert await db.arms.contexts("l") == []
