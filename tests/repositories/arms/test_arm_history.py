"""The history: an event for each change, in the order of the changes, whoever makes them."""

from __future__ import annotations

import asyncio
import math
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import (
    ALL_CONTEXTS,
    UCB1,
    ArmState,
    Database,
    LearningContext,
    LearningEvent,
    PostgresLearningStore,
    Settings,
    ThompsonSampling,
    context_hash,
    unit_of_work,
)
from qortex_db.testing.factories import ArmStateFactory
from support.arm_model import replay
from support.catalogue import execute, rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SQL = {"task": "sql", "of": ["a", 1]}


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(Settings(dsn=dsn, learning_history=True)) as database:
        yield database


async def events(db: Database, learner: str = "l") -> list[LearningEvent]:
    async with db.unit_of_work() as uow:
        found = await uow.session.scalars(
            select(LearningEvent)
            .where(LearningEvent.learner_name == learner)
            .order_by(LearningEvent.id)
        )
        return list(found)


def flat(states: dict[str, dict[str, ArmState]]) -> dict[tuple[str, str], ArmState]:
    return {(context, arm): s for context, arms in states.items() for arm, s in arms.items()}


def assert_close(one: dict[Any, ArmState], other: dict[Any, ArmState]) -> None:
    assert one.keys() == other.keys()
    for key, state in one.items():
        same = other[key]
        for name in ("alpha", "beta", "total_reward"):
            a, b = getattr(state, name), getattr(same, name)
            assert math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9), (key, name, a, b)
        assert state.pulls == same.pulls


async def test_each_kind_of_change_is_an_event_with_its_numbers_and_what_it_led_to(
    db: Database,
) -> None:
    await db.arms.seed("l", ["a"], boost=3.0)
    await db.arms.seed("l", ["a"], boost=3.0)  # changes nothing
    await db.arms.observe_many("l", [("a", 0.25), ("a", 0.5)])
    await db.arms.apply_deltas("l", {"a": (-9.0, 0.5)})
    await db.arms.decay("l", factor=0.5)
    await db.arms.put("l", "a", ArmState(2.0, 3.0, 7, 1.5, "2025-01-01T00:00:00+00:00"))
    await db.arms.reset("l")
    await db.arms.delete("l")
    found = await events(db)
    assert [
        (e.kind, e.alpha_added, e.beta_added, e.pulls_added, e.multiplied_by) for e in found
    ] == [
        ("seed", None, None, None, None),
        ("observe", 0.75, 1.25, 2, None),
        ("deltas", -9.0, 0.5, 1, None),
        ("decay", None, None, None, 0.5),
        ("put", None, None, None, None),
        ("reset", None, None, None, None),
        ("delete", None, None, None, None),
    ]
    assert [(e.alpha, e.beta, e.pulls, e.total_reward) for e in found] == [
        (3.0, 1.0, 0, 0.0),
        (3.75, 2.25, 2, 0.75),
        (0.01, 2.75, 3, -8.25),
        (0.01, 1.375, 3, -4.125),
        (2.0, 3.0, 7, 1.5),
        (1.0, 1.0, 0, 0.0),
        (None, None, None, None),
    ]
    assert {(e.learner_name, e.context_hash, e.arm_id) for e in found} == {("l", "default", "a")}
    assert found[4].last_updated == datetime(2025, 1, 1, tzinfo=UTC)
    assert found[4].recorded_at.year > 2025


async def test_states_are_rebuilt_and_at_any_time(db: Database, dsn: str) -> None:
    await db.arms.put("l", "a", ArmStateFactory.build(pulled=True, old=True))
    await db.arms.observe_many("l", [("a", 0.1), ("b", 0.7)], context=SQL)
    await db.arms.observe("l", "gone", reward=1)
    await db.arms.observe("other", "a", reward=1)
    await db.arms.select("l", ["a", "b"])
    (noon,) = await rows(dsn, "SELECT to_json(now()) #>> '{}'")
    before = await db.arms.get_all_states("l")
    assert await db.arms.rebuild("l") == before
    await db.arms.delete("l", ["gone"])
    await db.arms.decay("l", half_life=60, context=ALL_CONTEXTS)
    assert await db.arms.rebuild("l") == await db.arms.get_all_states("l")
    assert await db.arms.rebuild("l", until=noon) == before
    assert await db.arms.rebuild("nobody") == {}


async def test_a_history_may_begin_pause_and_go_on(dsn: str) -> None:
    off, on = Settings(dsn=dsn), Settings(dsn=dsn, learning_history=True)
    async with Database.connect(off) as silent, Database.connect(on) as db:
        await silent.arms.observe_many("l", [("a", 0.5), ("b", 1)])
        await db.arms.observe("l", "a", reward=1)
        states = await db.arms.get_all_states("l")
        assert await db.arms.rebuild("l") == {"default": {"a": states["default"]["a"]}}
        assert_close(replay(await events(db)), flat(await db.arms.rebuild("l")))
        await silent.arms.observe("l", "a", reward=1)
        await db.arms.apply_deltas("l", {"a": (0.5, 0.5), "b": (0.5, 0.5)})
        assert await db.arms.rebuild("l") == await db.arms.get_all_states("l")


async def test_a_host_switches_it_on_by_a_keyword(dsn: str) -> None:
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=target.connect_args)
    try:
        db = Database.from_engine(engine, learning_history=True)
        await db.arms.observe("l", "a", reward=1)
        async with db.unit_of_work() as own:
            await own.arms.observe("l", "a", reward=1)
        async with AsyncSession(engine) as session, session.begin():
            async with unit_of_work(session, learning_history=True) as uow:
                await uow.arms.observe("l", "a", reward=1)
            async with unit_of_work(session) as uow:
                await uow.arms.observe("l", "a", reward=1)
        assert len(await events(db)) == 3
        assert (await db.arms.get("l", "a")).pulls == 4
    finally:
        await engine.dispose()


async def test_events_go_when_their_transaction_does(db: Database) -> None:
    async def fail() -> None:
        async with db.unit_of_work() as uow:
            await uow.arms.observe("l", "a", reward=1, context=SQL)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await events(db) == []
    assert await db.arms.read_contexts("l") == {}


async def test_what_a_hash_stands_for_can_be_read(db: Database, dsn: str) -> None:
    await db.arms.observe("l", "a", reward=1)
    await db.arms.observe("l", "a", reward=1, context=SQL)
    await db.arms.seed("l", ["a"], context={"n": 1.0, "é": None})
    await db.arms.put("l", "a", ArmStateFactory.build(), context={"3": (1, 2)})
    await db.arms.apply_deltas("l", {"a": (1, 1)}, context={"d": 1})
    await db.arms.select("m", ["a"], context={"s": 1})
    # PostgreSQL's JSON has no NUL, and none has NaN, which qortex keys contexts by; the arms are
    # counted all the same.
    await db.arms.observe("l", "a", reward=1, context={"x": "\x00"})
    store = PostgresLearningStore("l", db)
    await store.put("a", ArmStateFactory.build(), {"x": float("nan")})
    await store.put("a", ArmStateFactory.build(), {3: (1, 2), 4: 1})
    async with Database.connect(Settings(dsn=dsn)) as silent:
        await silent.arms.observe("l", "a", reward=1, context={"not": "seen"})
    expected: list[tuple[dict[Any, Any], dict[str, Any] | None]] = [
        ({}, {}),
        (SQL, SQL),
        ({"n": 1.0, "é": None}, {"n": 1.0, "é": None}),
        ({"3": (1, 2)}, {"3": [1, 2]}),
        ({"d": 1}, {"d": 1}),
        ({"x": "\x00"}, None),
        ({"x": float("nan")}, None),
        ({3: (1, 2), 4: 1}, {"3": [1, 2], "4": 1}),
        ({"not": "seen"}, None),
    ]
    readable = await db.arms.read_contexts("l")
    assert readable == {context_hash(context): said for context, said in expected}
    assert list(readable) == await db.arms.contexts("l")
    async with db.unit_of_work() as uow:
        kept = (await uow.session.scalars(select(LearningContext))).all()
    assert {row.context_hash for row in kept} >= {context_hash({"s": 1})}
    assert all(
        context_hash(row.context) == row.context_hash for row in kept if "t" not in row.context
    )


async def test_a_selection_is_logged_with_its_probabilities(db: Database) -> None:
    await db.arms.put("l", "good", ArmState(90, 10, 98, 89))
    await db.arms.put("l", "bad", ArmState(10, 90, 98, 9))
    rng = np.random.default_rng(0)
    for _ in range(5):
        await db.arms.select("l", ["good", "bad"], baseline_rate=0.2, rng=rng)
    await db.arms.select("l", ["bad", "good"], policy=UCB1(), baseline_rate=0, k=0)
    await db.arms.select("l", [])
    logged = [e for e in await events(db) if e.kind == "select"]
    assert len(logged) == 7
    for event in logged[:5]:
        # Half of the baseline rounds, and nearly all of the others.
        assert event.probability == pytest.approx(0.9 if event.arm_id == "good" else 0.1, abs=0.01)
    assert [e.probability for e in logged[5:]] == [1.0, 1.0]
    assert {e.alpha for e in logged} == {None}


async def test_logging_does_not_change_what_is_selected(db: Database, dsn: str) -> None:
    async with Database.connect(Settings(dsn=dsn)) as silent:
        arms = [f"a{i}" for i in range(20)]
        chosen = []
        for each in (db, silent):
            rng = np.random.default_rng(7)
            chosen.append([await each.arms.select("l", arms, k=3, rng=rng) for _ in range(5)])
    assert chosen[0] == chosen[1]


async def test_off_policy_estimates_come_from_what_was_logged(db: Database) -> None:
    """What another policy would have earned, from rounds that this one played."""
    truth = {"a": 0.2, "b": 0.7}
    rng = np.random.default_rng(5)
    for _ in range(150):
        (arm,) = (await db.arms.select("l", list(truth), baseline_rate=0.5, rng=rng)).selected
        await db.arms.observe("l", arm, reward=float(rng.random() < truth[arm]))
    found = await events(db)
    rounds = list(zip(found[::2], found[1::2], strict=True))
    assert {(s.kind, o.kind, s.arm_id == o.arm_id) for s, o in rounds} == {
        ("select", "observe", True)
    }
    for arm, rate in truth.items():
        worth = [(s.arm_id == arm) * o.alpha_added / s.probability for s, o in rounds]
        assert np.mean(worth) == pytest.approx(rate, abs=0.15)


class Everybody:
    """Observers, creditors, decayers, seeders, resetters and deleters, who count what was told."""

    def __init__(self, db: Database, seed: int) -> None:
        self.arms = db.arms
        self.db = db
        self.rng = np.random.default_rng(seed)
        self.acknowledged = 0

    async def work(self, seconds: float) -> None:
        actions = [self.observe] * 4 + [self.credit, self.fade, self.age, self.seed, self.reset]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while loop.time() < deadline:
            ids = self.rng.permutation([f"a{i}" for i in range(6)])[: self.rng.integers(1, 6)]
            act = [*actions, self.forget][self.rng.integers(0, len(actions) + 1)]
            await act(ids.tolist(), SQL if self.rng.random() < 0.5 else None)

    async def observe(self, ids: list[str], context: Any) -> None:
        rewards = [(key, float(self.rng.random())) for key in ids]
        await self.arms.observe_many("counted", rewards, context=context)
        self.acknowledged += len(rewards)
        await self.arms.observe_many("l", rewards, context=context)

    async def credit(self, ids: list[str], context: Any) -> None:
        deltas = {key: (self.rng.normal(), self.rng.normal()) for key in ids}
        await self.arms.apply_deltas("l", deltas, context=context)

    async def fade(self, _: list[str], context: Any) -> None:
        await self.arms.decay("l", factor=0.9, context=ALL_CONTEXTS)
        await self.arms.decay("counted", factor=0.95, context=context)

    async def age(self, ids: list[str], context: Any) -> None:
        await self.arms.decay("l", ids[0], half_life=0.5, context=context)

    async def seed(self, ids: list[str], context: Any) -> None:
        unpulled = bool(self.rng.random() < 0.3)
        states = await self.arms.seed("l", ids, unpulled=unpulled, context=context)
        assert list(states) == sorted(ids)

    async def reset(self, ids: list[str], context: Any) -> None:
        await self.arms.reset("l", ids, context=context)

    async def forget(self, ids: list[str], context: Any) -> None:
        await self.arms.delete("l", ids, context=context)
        async with self.db.unit_of_work() as uow:
            await uow.arms.observe("l", ids[0], reward=0.5, context=context)
            await asyncio.sleep(0.002)


@pytest.mark.slow
async def test_states_counts_and_history_agree_after_everybody_wrote_at_once(dsn: str) -> None:
    settings = Settings(dsn=dsn, learning_history=True, pool_max_size=5)
    async with (
        Database.connect(settings) as db,
        Database.connect(settings) as second,
        Database.connect(settings) as third,
    ):
        writers = [Everybody((db, second, third)[n % 3], n) for n in range(12)]
        await asyncio.gather(*(writer.work(4.0) for writer in writers))
        counted = flat(await db.arms.get_all_states("counted"))
        acknowledged = sum(writer.acknowledged for writer in writers)
        assert sum(state.pulls for state in counted.values()) == acknowledged > 100
        for learner in ("counted", "l"):
            states = flat(await db.arms.get_all_states(learner))
            assert flat(await db.arms.rebuild(learner)) == states
            assert_close(replay(await events(db, learner)), states)
        kinds = {event.kind for event in await events(db)}
        assert kinds == {"observe", "deltas", "decay", "seed", "reset", "delete"}


async def test_new_contexts_of_many_writers_never_deadlock(dsn: str) -> None:
    settings = Settings(dsn=dsn, learning_history=True)
    async with Database.connect(settings) as db:

        async def whole(number: int) -> None:
            async with db.unit_of_work() as uow:
                await uow.arms.observe("l", "z", reward=1, context={"n": number})
                await asyncio.sleep(0.02)
                await uow.arms.observe("l", "a", reward=1, context={"n": number})

        for number in range(20):
            alone = (db.arms.observe("l", "a", reward=1, context={"n": number}) for _ in range(3))
            await asyncio.gather(whole(number), *alone)
        states = await db.arms.get_all_states("l")
        assert {s["a"].pulls for s in states.values()} == {4}
        assert len(await db.arms.read_contexts("l")) == 20


async def test_the_history_can_be_cut(db: Database, dsn: str) -> None:
    for _ in range(5):
        await db.arms.observe("l", "a", reward=1)
    await execute(
        dsn, "DELETE FROM learning_events WHERE id < (SELECT max(id) FROM learning_events)"
    )
    assert await db.arms.rebuild("l") == await db.arms.get_all_states("l")


async def test_probabilities_are_not_counted_on_the_event_loops_thread(db: Database) -> None:
    counted_on: list[threading.Thread] = []

    class Watched(ThompsonSampling):
        def scores(self, states: Any, rng: np.random.Generator, rounds: int) -> Any:
            if rounds > 1:
                counted_on.append(threading.current_thread())
            return super().scores(states, rng, rounds)

    await db.arms.select("l", ["a", "b"], policy=Watched())
    assert counted_on
    assert threading.current_thread() not in counted_on
