"""Policies, rewards and posteriors: pure functions, with fixed seeds."""

from __future__ import annotations

import itertools
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qortex_db import (
    UCB1,
    Arm,
    ArmState,
    BinaryReward,
    CustomReward,
    Database,
    EpsilonGreedy,
    InvalidInputError,
    RewardModel,
    TernaryReward,
    ThompsonSampling,
)
from qortex_db.learning import posteriors, probabilities, select, selection

if TYPE_CHECKING:
    from qortex_db import Policy

RATES = {"a": 0.2, "b": 0.35, "c": 0.5, "d": 0.65, "e": 0.8}
POLICIES: list[Policy] = [ThompsonSampling(), UCB1(), EpsilonGreedy(0.1)]


def regret(policy: Policy, seed: int, rounds: int = 2_000, **options: Any) -> float:
    """What was lost to the best arm, in expectation, on a Bernoulli bandit."""
    rng = np.random.default_rng(seed)
    states = {arm: ArmState() for arm in RATES}
    lost = 0.0
    for _ in range(rounds):
        chosen = select(list(RATES), states, policy=policy, rng=rng, **options)
        (arm,) = chosen.selected
        reward = float(rng.random() < RATES[arm])
        state = states[arm]
        state.alpha += reward
        state.beta += 1 - reward
        state.pulls += 1
        lost += max(RATES.values()) - RATES[arm]
    return lost


# Chance alone loses 0.3 a round: 600. Thompson and UCB1 lose a logarithm, epsilon-greedy at least
# 0.1 * 0.3 a round: 60; a baseline round costs the same.
@pytest.mark.parametrize(
    ("policy", "options", "low", "high"),
    [
        (ThompsonSampling(), {"baseline_rate": 0}, 5, 60),
        (UCB1(), {"baseline_rate": 0}, 50, 200),
        (UCB1(exploration=0.5), {"baseline_rate": 0}, 10, 100),
        (EpsilonGreedy(0.1), {"baseline_rate": 0}, 45, 150),
        (ThompsonSampling(), {}, 50, 120),
        (ThompsonSampling(), {"baseline_rate": 1}, 550, 650),
    ],
)
def test_the_regret_on_a_known_bandit_is_within_bounds(
    policy: Policy, options: dict[str, float], low: float, high: float
) -> None:
    mean = np.mean([regret(policy, seed, **options) for seed in range(5)])
    assert low < mean < high


@pytest.mark.parametrize("policy", [ThompsonSampling(), UCB1()])
def test_regret_grows_like_a_logarithm(policy: Policy) -> None:
    early, late = (
        np.mean([regret(policy, seed, rounds, baseline_rate=0) for seed in range(5)])
        for rounds in (750, 3_000)
    )
    assert late < 2.2 * early  # four times the rounds


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_the_same_seed_selects_the_same(policy: Policy) -> None:
    states = {arm: ArmState(1 + 10 * rate, 11 - 10 * rate, 10) for arm, rate in RATES.items()}
    runs = [
        [select(list(RATES), states, k=2, policy=policy, rng=rng) for _ in range(20)]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    ]
    assert runs[0] == runs[1]
    assert len({run.selected for run in runs[0]}) > 1


def test_ucb1_is_the_published_bound_and_tries_everything_once() -> None:
    states = {"a": ArmState(3, 1, 2), "b": ArmState(2, 4, 6), "new": ArmState()}
    chosen = select(list(states), states, policy=UCB1(), baseline_rate=0, k=3)
    assert chosen.selected == ("new", "a", "b")
    assert chosen.scores == {
        "a": pytest.approx(0.75 + math.sqrt(2 * math.log(8) / 2)),
        "b": pytest.approx(2 / 6 + math.sqrt(2 * math.log(8) / 6)),
        "new": math.inf,
    }
    none = select(["x", "y"], {}, policy=UCB1(), baseline_rate=0)
    assert none.selected == ("x",)


def test_epsilon_greedy_takes_the_highest_mean_but_in_its_share_of_rounds() -> None:
    states = {"a": ArmState(2, 8), "b": ArmState(6, 4), "c": ArmState(5, 5)}
    rng = np.random.default_rng(0)
    rounds = [
        select(list(states), states, policy=EpsilonGreedy(0.3), baseline_rate=0, rng=rng)
        for _ in range(2_000)
    ]
    share = np.mean([chosen.selected == ("b",) for chosen in rounds])
    assert share == pytest.approx(0.7 + 0.3 / 3, abs=0.03)
    greedy = select(list(states), states, policy=EpsilonGreedy(0), baseline_rate=0, k=3)
    assert greedy.selected == ("b", "c", "a")
    assert greedy.scores == {"a": 0.2, "b": 0.6, "c": 0.5}


def test_a_process_has_one_source_of_chance_and_a_fork_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {"baseline_rate": 0, "k": 0}
    made: list[np.random.Generator] = []
    make = np.random.default_rng

    def counted() -> np.random.Generator:
        made.append(make())
        return made[-1]

    selection._chance.cache_clear()
    monkeypatch.setattr(np.random, "default_rng", counted)
    orders = {select([*"abcdef"], {}, **options).selected for _ in range(30)}
    assert (len(made), len(orders) > 10) == (1, True)
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    select([*"abcdef"], {}, **options)
    assert len(made) == 2


def test_the_same_is_chosen_by_states_and_by_what_is_known_of_them() -> None:
    states = {arm: ArmState(1 + 10 * rate, 11 - 10 * rate, 10) for arm, rate in RATES.items()}
    rows = {arm: (state.alpha, state.beta, state.pulls) for arm, state in states.items()}
    arms = [*RATES, "new"]
    for policy in (None, ThompsonSampling(), UCB1(), EpsilonGreedy(0.5)):
        for candidates in (arms, [Arm(arm, 1) for arm in arms], [Arm(arms[0]), *arms[1:]]):
            chosen = [
                select(candidates, known, policy=policy, rng=np.random.default_rng(1), min_pulls=1)
                for known in (states, rows)
            ]
            assert chosen[0] == chosen[1]


async def test_a_policy_is_an_argument_of_select(db: Database) -> None:
    class Last:
        """Anything with scores is a policy."""

        def scores(self, states: Any, _: np.random.Generator, rounds: int) -> Any:
            return np.tile(np.arange(len(states), dtype=float), (rounds, 1))

    await db.arms.observe_many("l", [("a", 1.0)] * 20 + [("b", 0.0)] * 5)
    options: dict[str, Any] = {"baseline_rate": 0}
    arms = ["a", "b"]
    assert (await db.arms.select("l", arms, policy=UCB1(), **options)).selected == ("a",)
    assert (await db.arms.select("l", arms, policy=UCB1(100.0), **options)).selected == ("b",)
    assert (await db.arms.select("l", arms, policy=Last(), **options)).selected == ("b",)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 1},
        {"k": 2, "baseline_rate": 0.5},
        {"k": 2, "min_pulls": 5},
        {"k": 0, "token_budget": 40},
        {"k": 2, "token_budget": 40, "baseline_rate": 0.7},
        {"k": 1, "policy": UCB1()},
        {"k": 1, "policy": EpsilonGreedy(0.4), "baseline_rate": 0},
        {"k": 4, "baseline_rate": 0},
        {"k": 1, "baseline_rate": 1},
    ],
)
def test_probabilities_are_the_shares_of_rounds_in_which_an_arm_is_chosen(
    options: dict[str, Any],
) -> None:
    arms = [Arm("a", 10), Arm("b", 20), Arm("c", 30), Arm("d", 5)]
    states = {"a": ArmState(8, 4, 10), "b": ArmState(6, 6, 10), "c": ArmState(4, 8, 2)}
    rng = np.random.default_rng(11)
    rounds = [select(arms, states, rng=rng, **options) for _ in range(4_000)]
    shares = {arm.id: np.mean([arm.id in chosen.selected for chosen in rounds]) for arm in arms}
    seen: dict[str, float] = {}
    for chosen in {c.selected: c for c in rounds}.values():
        found = probabilities(arms, states, chosen.selected, **options)
        assert list(found) == list(chosen.selected)
        seen |= found
    assert seen == {key: pytest.approx(shares[key], abs=0.045) for key in seen}
    assert set(seen) == {key for key, share in shares.items() if share}


def test_a_probability_is_never_zero_and_repeatable() -> None:
    arms = ["good", "bad"]
    states = {"good": ArmState(1e6, 1, 9), "bad": ArmState(1, 1e6, 9)}
    unlikely = probabilities(arms, states, ["bad"], baseline_rate=0)
    assert unlikely == {"bad": 0.001}
    assert probabilities(arms, states, ["bad"], baseline_rate=0) == unlikely
    assert probabilities([], {}, []) == {}
    many = [f"a{i}" for i in range(5_000)]
    assert 0 < probabilities(many, {}, ["a7"])["a7"] < 0.02
    dear = [Arm(key, 1) for key in many]
    by_chance = {"token_budget": 1, "baseline_rate": 1.0}
    assert 0 < probabilities(dear, {}, ["a7"], **by_chance)["a7"] < 0.02


def test_reward_models_have_qortex_numbers() -> None:
    outcomes = ("accepted", "partial", "rejected", "anything")
    assert [BinaryReward().compute(one) for one in outcomes] == [1.0, 0.0, 0.0, 0.0]
    assert [TernaryReward().compute(one) for one in outcomes] == [1.0, 0.5, 0.0, 0.0]
    custom = CustomReward({"good": 1, "fair": 0.6}.__getitem__)
    assert [custom.compute(one) for one in ("good", "fair")] == [1.0, 0.6]
    assert all(isinstance(m, RewardModel) for m in (BinaryReward(), TernaryReward(), custom))


@pytest.mark.parametrize("reward", [1.1, -0.1, float("nan"), float("inf"), "1", None, True])
def test_a_reward_function_that_gives_no_reward_is_refused(reward: Any) -> None:
    with pytest.raises(InvalidInputError, match="reward function"):
        CustomReward(lambda _: reward).compute("accepted")


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_a_policy_refuses_what_is_no_rate(bad: float) -> None:
    with pytest.raises(InvalidInputError, match="exploration"):
        UCB1(bad)
    with pytest.raises(InvalidInputError, match="epsilon"):
        EpsilonGreedy(bad)


def test_the_posterior_of_small_whole_numbers_is_the_binomial_sum() -> None:
    """For whole a and b, P(rate <= x) is the tail of a binomial distribution."""
    whole = [(1, 1), (2, 1), (1, 9), (3, 7), (12, 5), (40, 60)]
    found = posteriors([ArmState(a, b) for a, b in whole], level=0.9)
    for (a, b), posterior in zip(whole, found, strict=True):
        n = a + b - 1
        for x, expected in ((posterior.low, 0.05), (posterior.high, 0.95)):
            tail = sum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(a, n + 1))
            assert tail == pytest.approx(expected, abs=1e-10)
        assert posterior.mean == a / (a + b)
        assert posterior.variance == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), rel=1e-14)


def test_intervals_hold_for_large_and_tiny_posteriors() -> None:
    sizes = (0.01, 0.5, 1.0, 1e3, 1e6)
    pairs = list(itertools.product(sizes, sizes))
    for (a, b), found in zip(pairs, posteriors([ArmState(a, b) for a, b in pairs]), strict=True):
        assert 0 <= found.low <= found.high <= 1
        if min(a, b) >= 1e3:  # normal enough
            deviation = math.sqrt(found.variance)
            assert found.low == pytest.approx(found.mean - 1.96 * deviation, abs=0.05 * deviation)
            assert found.high == pytest.approx(found.mean + 1.96 * deviation, abs=0.05 * deviation)
    assert posteriors([]) == []


@pytest.mark.timeout(10)
def test_the_interval_of_very_much_evidence_holds_its_mean_and_takes_no_time() -> None:
    pairs = [(1e300, 1e300), (1e300, 1.0), (0.01, 1e300), (2e6, 1e6), (5.0, 1e13)]
    for (a, b), found in zip(pairs, posteriors([ArmState(a, b) for a, b in pairs]), strict=True):
        assert found.mean == a / (a + b)
        assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
    (just_below,) = posteriors([ArmState(9.99e5, 9.99e5)])
    (just_above,) = posteriors([ArmState(1.001e6, 1.001e6)])
    width = just_below.high - just_below.low
    assert just_above.high - just_above.low == pytest.approx(width, rel=2e-3)


def test_an_interval_holds_the_mean_whatever_is_stored() -> None:
    numbers = (1e-300, 0.01, 1.0, 1e9, 1e15, 1e100)
    for state in (ArmState(a, b) for a in numbers for b in numbers):
        (belief,) = posteriors([state])
        assert 0 <= belief.low <= belief.mean <= belief.high <= 1


def test_a_policy_of_ones_own_sees_the_states_as_they_were_given() -> None:
    class Own(ArmState):
        pass

    seen: list[list[ArmState]] = []

    class Recorder:
        def scores(self, states: Any, rng: Any, rounds: int) -> Any:  # noqa: ARG002
            seen.append(list(states))
            return np.zeros((rounds, len(states)))

    given = {"a": ArmState(2.0, 1.0, 5, 4.5, "2026-01-01"), "b": Own(1.0, 1.0, 1, 0.5, "")}
    select(["a", "b", "c"], given, policy=Recorder(), baseline_rate=0)
    assert seen == [[given["a"], given["b"], ArmState()]]
