"""qortex 0.8.1's learner, with its results, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qortex_db import (
    UCB1,
    Arm,
    ArmOutcome,
    ArmState,
    BinaryReward,
    ConflictError,
    Database,
    InvalidInputError,
    Learner,
    PostgresLearningStore,
    SchemaVersionError,
    Settings,
    context_hash,
)
from qortex_db.testing.factories import ArmFactory, ArmOutcomeFactory, LearnerConfigFactory
from support.commands import program
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from support.roundtrips import RoundTrips

SQL = {"task": "sql"}
WORKER = Path(__file__).with_name("learner_worker.py")


@dataclass
class TheirArm:
    """The shape of qortex's own class."""

    id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    token_cost: int = 0


@dataclass
class TheirConfig:
    """The shape of qortex's own class."""

    name: str
    baseline_rate: float = 0.1
    seed_boost: float = 2.0
    seed_arms: list[str] = field(default_factory=list)
    state_dir: str = ""
    max_arms: int = 1000
    min_pulls: int = 0


@dataclass
class TheirOutcome:
    """The shape of qortex's own class."""

    arm_id: str
    reward: float
    outcome: str
    context: dict[str, Any] = field(default_factory=dict)
    timestamp: str = ""


@pytest.fixture
def learner(db: Database) -> Learner:
    return Learner(LearnerConfigFactory.build(name="l"), store=db)


def numbers(state: ArmState) -> tuple[float, float, int, float]:
    return state.alpha, state.beta, state.pulls, state.total_reward


async def test_a_reward_adds_to_the_posterior(learner: Learner) -> None:
    state = await learner.observe(ArmOutcome("a", 0.25))
    assert numbers(state) == (1.25, 1.75, 1, 0.25)
    assert state.mean == 1.25 / 3
    assert datetime.fromisoformat(state.last_updated).utcoffset() is not None
    assert await learner.store.get("a") == state


@pytest.mark.parametrize(
    ("outcome", "reward"),
    [
        (ArmOutcome("a", 0.0, "accepted"), 1.0),
        (ArmOutcome("a", 0.0, "partial"), 0.5),
        (ArmOutcome("a", 0.0, "rejected"), 0.0),
        (ArmOutcome("a", 0.0, "adored"), 0.0),
        (ArmOutcome("a", 0.7, "rejected"), 0.7),
        (ArmOutcome("a"), 0.0),
    ],
)
async def test_a_word_counts_where_there_is_no_reward(
    learner: Learner, outcome: ArmOutcome, reward: float
) -> None:
    assert numbers(await learner.observe(outcome)) == (1 + reward, 2 - reward, 1, reward)


async def test_another_reward_model_may_say_what_a_word_is_worth(db: Database) -> None:
    learner = Learner(LearnerConfigFactory.build(name="l"), reward_model=BinaryReward(), store=db)
    assert (await learner.observe(ArmOutcome("a", outcome="partial"))).total_reward == 0
    assert (await learner.observe(ArmOutcome("a", outcome="accepted"))).total_reward == 1


async def test_the_calls_context_comes_before_the_outcomes(learner: Learner) -> None:
    await learner.observe(ArmOutcome("a", 1.0, context=SQL))
    await learner.observe(ArmOutcome("a", 0.0, context=SQL), {"task": "c"})
    await learner.observe(ArmOutcome("a", 0.5))
    means = {key: arms["a"].mean for key, arms in (await learner.store.get_all_states()).items()}
    assert means == {context_hash(SQL): 2 / 3, context_hash({"task": "c"}): 1 / 3, "default": 0.5}


async def test_a_batch_counts_each_outcome_in_its_context(learner: Learner) -> None:
    outcomes = [
        ArmOutcome("a", 1.0),
        ArmOutcome("b", outcome="partial", context=SQL),
        ArmOutcome("a", 1.0, context=SQL),
        ArmOutcome("a", 0.25),
    ]
    states = await learner.batch_observe(outcomes)
    assert list(states) == ["a", "b"]
    assert numbers(states["a"]) == (2.25, 1.75, 2, 1.25)
    assert numbers(states["b"]) == (1.5, 1.5, 1, 0.5)
    assert numbers(await learner.store.get("a", SQL)) == (2.0, 1.0, 1, 1.0)
    assert await learner.batch_observe([]) == {}
    together = await learner.batch_observe(outcomes, {"all": "here"})
    assert numbers(together["a"]) == (3.25, 1.75, 3, 2.25)


async def test_a_batch_over_contexts_is_kept_whole_or_not_at_all(
    learner: Learner, db: Database
) -> None:
    refused = max("default", context_hash(SQL))  # the last of the two in key order
    async with db.unit_of_work() as uow:
        connection = await uow.session.connection()
        await connection.exec_driver_sql(
            f"ALTER TABLE learning_arm_states ADD CHECK (context_hash <> '{refused}')"
        )
    with pytest.raises(ConflictError):
        await learner.batch_observe(
            [ArmOutcomeFactory.build(arm_id="a", context=context) for context in ({}, SQL)]
        )
    assert await learner.store.get_all_states() == {}


async def test_credit_moves_posteriors_down_to_a_floor(learner: Learner) -> None:
    given = {
        "up": {"alpha_delta": 0.5},
        "down": {"alpha_delta": -5.0, "beta_delta": -5.0},
        "none": {},
    }
    states = await learner.apply_credit_deltas(given, SQL)
    assert list(states) == list(given)
    assert numbers(states["up"]) == (1.5, 1.0, 1, 0.5)
    assert numbers(states["down"]) == (0.01, 0.01, 1, -5.0)
    assert numbers(states["none"]) == (1.0, 1.0, 1, 0.0)
    again = await learner.apply_credit_deltas({"up": {"alpha_delta": 0.5}}, SQL)
    assert numbers(again["up"]) == (2.0, 1.0, 2, 1.0)
    assert await learner.store.get_all() == {}
    assert await learner.apply_credit_deltas({}) == {}


async def test_decay_keeps_mean_and_pulls(learner: Learner) -> None:
    await learner.batch_observe([ArmOutcome("a", 1.0)] * 3 + [ArmOutcome("a", 0.0)])
    assert numbers(await learner.decay_arm("a", 0.5)) == (2.0, 1.0, 4, 1.5)
    assert numbers(await learner.decay_arm("a")) == (2.0 * 0.9, 0.9, 4, 1.5 * 0.9)
    assert numbers(await learner.decay_arm("a", 0.0)) == (0.01, 0.01, 4, 0.0)


async def test_an_arm_that_is_not_stored_decays_from_the_prior(learner: Learner) -> None:
    assert numbers(await learner.decay_arm("new", 0.5, SQL)) == (0.5, 0.5, 0, 0.0)
    assert numbers(await learner.store.get("new", SQL)) == (0.5, 0.5, 0, 0.0)


async def test_seeds_are_boosted_once(db: Database) -> None:
    config = LearnerConfigFactory.build(name="l", seed_arms=["a", "b"], seed_boost=5.0)
    learner = await Learner.create(config, store=db)
    assert numbers(await learner.store.get("a")) == (5.0, 1.0, 0, 0.0)
    await learner.decay_arm("a", 0.2)
    await learner.observe(ArmOutcome("b", 0.0))
    await Learner.create(config, store=db)
    assert numbers(await learner.store.get("a")) == (1.0, 0.2, 0, 0.0)
    assert numbers(await learner.store.get("b")) == (5.0, 2.0, 1, 0.0)
    await learner.reset(["a"])
    await Learner.create(config, store=db)
    assert (await learner.store.get("a")).alpha == 5.0
    assert (
        await Learner(
            LearnerConfigFactory.build(name="other", seed_arms=["a"]), store=db
        ).posteriors()
        == {}
    )


async def test_reset_forgets_by_qortex_rule(learner: Learner) -> None:
    for context in ({}, SQL):
        outcomes = [ArmOutcomeFactory.build(arm_id=arm) for arm in "ab"]
        await learner.batch_observe(outcomes, context)
    assert await learner.reset([]) == 0
    assert await learner.reset(["a"]) == 1
    assert await learner.reset(None, SQL) == 2
    assert list(await learner.posteriors()) == ["b"]
    assert await learner.reset() == 1


async def test_what_was_chosen_are_the_arms_that_were_given(db: Database) -> None:
    learner = Learner(TheirConfig("l", baseline_rate=0.0), store=db)
    arms = [TheirArm("a", {"n": 1}, 10), TheirArm("b", {"n": 2}, 10), TheirArm("c", {}, 25)]
    await learner.batch_observe([TheirOutcome("b", 1.0, "")] * 500)
    await learner.batch_observe([TheirOutcome("c", 0.0, "rejected")] * 500)
    await learner.batch_observe([TheirOutcome("a", 0.5, "partial")] * 500)
    result = await learner.select(arms, k=2)
    assert result.selected == [arms[1], arms[0]]
    assert result.selected[0] is arms[1]
    assert result.excluded == [arms[2]]
    assert set(result.scores) == {"a", "b", "c"}
    assert (result.is_baseline, result.token_budget, result.used_tokens) == (False, 0, 20)
    cheap = await learner.select(arms, k=0, token_budget=36)
    assert [arm.id for arm in cheap.selected] == ["b", "a"]
    assert (cheap.token_budget, cheap.used_tokens) == (36, 20)
    learner.config.min_pulls = 1  # as qortex's service does
    fresh = TheirArm("fresh")
    assert (await learner.select([*arms, fresh], k=1)).selected == [fresh]
    assert (await learner.select([], k=3)).selected == []


async def test_a_baseline_round_is_marked(db: Database) -> None:
    learner = Learner(LearnerConfigFactory.build(baseline_rate=1.0), store=db)
    result = await learner.select(ArmFactory.build_batch(2), k=1)
    assert result.is_baseline
    assert list(result.scores.values()) == [0.5]


async def test_a_policy_and_a_seeded_generator_decide(db: Database) -> None:
    config = LearnerConfigFactory.build(name="l")
    arms = ArmFactory.build_batch(50)
    first, second = (Learner(config, store=db, rng=np.random.default_rng(7)) for _ in range(2))
    assert await first.select(arms, k=9) == await second.select(arms, k=9)
    await first.batch_observe([ArmOutcomeFactory.build(arm_id=arm.id) for arm in arms[1:]])
    greedy = Learner(config, UCB1(), store=db)
    assert (await greedy.select(arms)).selected == [arms[0]]


async def test_selections_follow_what_was_learned(db: Database) -> None:
    rates, rng = {"good": 0.8, "bad": 0.2, "fair": 0.5}, np.random.default_rng(3)
    learner = Learner(LearnerConfigFactory.build(name="l"), store=db, rng=rng)
    arms, chosen = [Arm(key) for key in rates], []
    for _ in range(300):
        (arm,) = (await learner.select(arms, SQL)).selected
        await learner.observe(ArmOutcome(arm.id, float(rng.random() < rates[arm.id])), SQL)
        chosen.append(arm.id)
    assert chosen[-100:].count("good") > 90
    assert [key for key, _ in await learner.top_arms(SQL, k=1)] == ["good"]


async def test_what_is_read_has_qortex_shapes(learner: Learner) -> None:
    assert await learner.posteriors() == {}
    assert await learner.top_arms() == []
    empty = await learner.metrics()
    assert empty == {
        "learner": "l",
        "total_pulls": 0,
        "total_reward": 0.0,
        "accuracy": 0.0,
        "arm_count": 0,
        "explore_ratio": 0.0,
    }
    await learner.batch_observe([ArmOutcome("a", 1.0), ArmOutcome("b", 0.0)])
    state = await learner.observe(ArmOutcome("a", 0.0), SQL)
    assert [key for key, _ in await learner.top_arms(k=2)] == ["a", "b"]
    posteriors = await learner.posteriors(SQL)
    assert posteriors == {
        "a": {
            "alpha": 1.0,
            "beta": 2.0,
            "pulls": 1,
            "total_reward": 0.0,
            "last_updated": state.last_updated,
            "mean": 1 / 3,
        }
    }
    assert list(await learner.posteriors(arm_ids=["b", "nobody"])) == ["b"]
    assert await learner.posteriors(arm_ids=[]) == {}
    found = await learner.metrics(window=10)
    assert (found["total_pulls"], found["arm_count"]) == (3, 3)
    assert found["accuracy"] == 0.3333


def test_a_session_knows_when_it_was(dsn: str) -> None:
    learner = Learner(LearnerConfigFactory.build(name="l"), store=dsn)
    first, second = learner.session_start("one"), learner.session_start("one")
    assert first != second
    ended = learner.session_end(first)
    assert datetime.fromisoformat(ended["started_at"]) <= datetime.fromisoformat(ended["ended_at"])
    assert {key: ended[key] for key in ("session_id", "learner", "selected_arms", "outcomes")} == {
        "session_id": first,
        "learner": "l",
        "selected_arms": [],
        "outcomes": {},
    }
    assert learner.session_end(first) == {"error": f"Session {first} not found"}
    for _ in range(10_000):
        learner.session_start("never ended")
    assert "error" in learner.session_end(second)  # gone, as the oldest


async def test_a_store_a_database_or_a_dsn_may_be_given(
    db: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn)
    config = LearnerConfigFactory.build(name="l")
    for store in (db, dsn, None, "", PostgresLearningStore("l", db)):
        learner = Learner(config, store=store)
        await learner.observe(ArmOutcomeFactory.build(arm_id="a"))
        await learner.close()
        assert (await learner.metrics())["learner"] == "l"  # opens again
        await learner.close()
    assert (await db.arms.get("l", "a")).pulls == 5


async def test_a_failed_creation_leaves_no_connection(empty_dsn: str, db: Database) -> None:
    config = LearnerConfigFactory.build(name="l", seed_arms=["a"])
    with pytest.raises(SchemaVersionError, match="qortex-db upgrade"):
        await Learner.create(config, store=empty_dsn)
    name = empty_dsn.split("?", maxsplit=1)[0].rsplit("/", 1)[1]
    async with db.unit_of_work() as uow:
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
        connection = await uow.session.connection()
        for _ in range(50):  # a backend takes a moment to go
            if (await connection.exec_driver_sql(query)).scalar() == 0:
                break
            await asyncio.sleep(0.05)
        assert (await connection.exec_driver_sql(query)).scalar() == 0


CALLS: dict[str, tuple[Callable[[Learner], Awaitable[object]], int]] = {
    "observe": (lambda one: one.observe(ArmOutcomeFactory.build()), 1),
    "batch_observe": (lambda one: one.batch_observe(ArmOutcomeFactory.build_batch(50)), 1),
    "batch_observe of two contexts": (
        lambda one: one.batch_observe(
            [ArmOutcomeFactory.build(), ArmOutcomeFactory.build(context=SQL)]
        ),
        4,
    ),
    "select": (lambda one: one.select(ArmFactory.build_batch(100), k=3), 1),
    "apply_credit_deltas": (lambda one: one.apply_credit_deltas({"a": {}, "b": {}}), 1),
    "decay_arm": (lambda one: one.decay_arm("a"), 1),
    "top_arms": (lambda one: one.top_arms(), 1),
    "posteriors": (lambda one: one.posteriors(arm_ids=["a"]), 1),
    "metrics": (lambda one: one.metrics(), 1),
    "reset": (lambda one: one.reset(["nobody"]), 1),
    "create": (
        lambda one: Learner.create(
            LearnerConfigFactory.build(name="l", seed_arms=["a", "b"]), store=one.store
        ),
        1,
    ),
}


@pytest.fixture
async def wire(dsn: str) -> AsyncIterator[tuple[Learner, RoundTrips]]:
    async with counted(dsn) as trips:
        settings = Settings(dsn=trips.dsn, pool_min_size=1, pool_max_size=1)
        async with Database.connect(settings) as db:
            learner = Learner(LearnerConfigFactory.build(name="l"), store=db)
            await learner.observe(ArmOutcomeFactory.build(arm_id="a"))
            yield learner, trips


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_one_round_trip(wire: tuple[Learner, RoundTrips], name: str) -> None:
    (learner, trips), (call, expected) = wire, CALLS[name]
    await call(learner)  # prepares the statement
    async with trips.expect(expected):
        await call(learner)


REFUSED: dict[str, tuple[Callable[[Learner], Awaitable[object]], str]] = {
    "a reward above 1": (
        lambda one: one.observe(ArmOutcomeFactory.build(reward=3.0)),
        "reward is 3.0",
    ),
    "an outcome of nothing": (lambda one: one.observe("accepted"), "outcome is a str"),
    "an empty arm": (
        lambda one: one.observe(ArmOutcomeFactory.build(arm_id="")),
        "arm_id is empty",
    ),
    "a context that is none": (
        lambda one: one.observe(ArmOutcomeFactory.build(), "sql"),
        "pass a mapping or None",
    ),
    "a bad reward in a batch": (
        lambda one: one.batch_observe(
            [ArmOutcomeFactory.build(), ArmOutcomeFactory.build(reward=float("nan"), context=SQL)]
        ),
        "reward is nan",
    ),
    "an arm that is no text": (
        lambda one: one.batch_observe([ArmOutcomeFactory.build(arm_id=[])]),
        "arm_id is a list",
    ),
    "arms as a string": (lambda one: one.select("ab"), "pass a list of arms, even for one"),
    "ids as arms": (lambda one: one.select(["a"]), "no id or token_cost"),
    "an arm twice": (lambda one: one.select([ArmFactory.build()] * 2), "an id twice"),
    "an arm of no id": (
        lambda one: one.select([ArmFactory.build(id=[])]),
        r"candidates\[0\] is a list",
    ),
    "a negative budget": (
        lambda one: one.select([ArmFactory.build()], token_budget=-1),
        "token_budget has to be",
    ),
    "credit as a list": (lambda one: one.apply_credit_deltas(["a"]), "deltas has to be"),
    "credit as a number": (
        lambda one: one.apply_credit_deltas({"a": 1.0}),
        "deltas has to be",
    ),
    "endless credit": (
        lambda one: one.apply_credit_deltas({"a": {"alpha_delta": float("inf")}}),
        "alpha_delta is inf",
    ),
    "growth as decay": (lambda one: one.decay_arm("a", 1.1), "factor is 1.1"),
    "decay of every arm": (lambda one: one.decay_arm(None, 0.0), "arm_id is a NoneType"),
    "decay of no arm": (lambda one: one.decay_arm("", 0.0), "arm_id is empty"),
    "no best arms": (lambda one: one.top_arms(k=0), "k is 0"),
    "seeds as a string": (
        lambda one: Learner.create(
            LearnerConfigFactory.build(name="l", seed_arms="ab"), store=one.store
        ),
        "arm_ids is a str",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_bad_input_is_refused_before_anything_is_sent(
    wire: tuple[Learner, RoundTrips], name: str
) -> None:
    learner, trips = wire
    call, says = REFUSED[name]
    async with trips.expect(0):
        with pytest.raises(InvalidInputError, match=says):
            await call(learner)


def test_what_makes_no_learner_is_refused() -> None:
    theirs = SimpleNamespace(select=print, update=print)
    with pytest.raises(InvalidInputError, match="SimpleNamespace without scores"):
        Learner(LearnerConfigFactory.build(name="l"), theirs)
    with pytest.raises(InvalidInputError, match=r"object without compute"):
        Learner(LearnerConfigFactory.build(name="l"), reward_model=object())
    with pytest.raises(InvalidInputError, match="pass a LearnerConfig"):
        Learner("l")
    with pytest.raises(InvalidInputError, match="Database or a DSN"):
        Learner(LearnerConfigFactory.build(name="l"), store=7)


async def test_sixteen_tasks_observing_one_arm_are_each_counted(learner: Learner) -> None:
    async def observe(reward: float) -> None:
        for _ in range(10):
            await learner.observe(ArmOutcome("a", reward))

    await asyncio.gather(*(observe(i % 2) for i in range(16)))
    assert numbers(await learner.store.get("a")) == (81.0, 81.0, 160, 80.0)


@pytest.mark.slow
async def test_processes_that_share_a_learner_lose_nothing(db: Database, dsn: str) -> None:
    starts = (program(sys.executable, str(WORKER), dsn, str(seed)) for seed in range(3))
    done = await asyncio.gather(*starts)
    assert [one.code for one in done] == [0] * 3, [one.err for one in done]
    pulls: Counter[str] = Counter()
    rewards: Counter[str] = Counter()
    for one in done:
        acknowledged = json.loads(one.out)
        pulls.update(acknowledged["pulls"])
        rewards.update(acknowledged["rewards"])
    stored = await db.arms.get_all_states("shared")
    states = {f"{key} {arm}": state for key, arms in stored.items() for arm, state in arms.items()}
    assert {key: state.pulls for key, state in states.items()} == dict(pulls)
    assert min(pulls.values()) > 10
    faded = {key for key in states if key.endswith("faded")}
    assert all(states[key].total_reward < rewards[key] for key in faded)
    for key, state in states.items():
        if key not in faded:  # rewards are quarters: their sums are exact in any order
            prior = 3.0 if key.startswith("default") else 1.0
            assert state.total_reward == rewards[key], key
            assert state.alpha == prior + rewards[key], key
            assert state.beta == 1.0 + pulls[key] - rewards[key], key
    metrics = await Learner(LearnerConfigFactory.build(name="shared"), store=db).metrics()
    assert metrics["total_pulls"] == pulls.total()
