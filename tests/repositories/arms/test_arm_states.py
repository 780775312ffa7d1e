"""The arms' repository against a plain Python model, by whatever calls hypothesis thinks of."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from qortex_db import ALL_CONTEXTS, ArmState, Database, Settings, context_hash
from support.arm_model import FLOOR, ArmModel

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CONTEXTS: list[dict[str, Any]] = [{}, {"task": "sql"}, {"task": 1}]
arm = st.sampled_from(["a", "b", "é", "a'\"\\{}", "Z"])
some_arms = st.lists(arm, max_size=6)
context = st.sampled_from(CONTEXTS)
anywhere = st.sampled_from([*CONTEXTS, ALL_CONTEXTS])
unit = st.floats(0, 1)
delta = st.floats(-5, 5)
numbers = itertools.count()


class Machine(RuleBasedStateMachine):
    runner: asyncio.Runner
    db: Database

    def __init__(self) -> None:
        super().__init__()
        self.learner = f"learner{next(numbers)}"
        self.model = ArmModel()

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    def matching(self, where: Any, ids: list[str] | None = None) -> list[tuple[str, str]]:
        hashes = None if where is ALL_CONTEXTS else {context_hash(where)}
        return [
            key
            for key in sorted(self.model.arms)
            if (hashes is None or key[0] in hashes) and (ids is None or key[1] in ids)
        ]

    def check(self, where: Any, states: dict[str, ArmState], ids: Any) -> None:
        """All of these, in key order, and as the model has them."""
        assert list(states) == sorted(set(ids))
        for key, state in states.items():
            same(state, self.model.arms[context_hash(where), key])

    @rule(rewards=st.lists(st.tuples(arm, unit), max_size=6), where=context)
    def observe_many(self, rewards: list[tuple[str, float]], where: Any) -> None:
        states = self.run(self.db.arms.observe_many(self.learner, rewards, context=where))
        for key, reward in rewards:
            self.model.add((context_hash(where), key), reward, 1 - reward, 1)
        self.check(where, states, (key for key, _ in rewards))

    @rule(deltas=st.dictionaries(arm, st.tuples(delta, delta), max_size=4), where=context)
    def apply_deltas(self, deltas: dict[str, tuple[float, float]], where: Any) -> None:
        states = self.run(self.db.arms.apply_deltas(self.learner, deltas, context=where))
        for key, (alpha, beta) in deltas.items():
            self.model.add((context_hash(where), key), alpha, beta, 1, floor=FLOOR)
        self.check(where, states, deltas)

    @rule(key=st.none() | arm, factor=unit, where=anywhere)
    def decay(self, key: str | None, factor: float, where: Any) -> None:
        states = self.run(self.db.arms.decay(self.learner, key, factor=factor, context=where))
        keys = self.matching(where, None if key is None else [key])
        self.model.decay(keys, factor if factor > 1e-30 else 0.0)
        if where is not ALL_CONTEXTS:
            self.check(where, states, (key for _, key in keys))
        else:
            assert [(place, key) for place in states for key in states[place]] == keys

    @rule(ids=some_arms, boost=st.floats(0.01, 9), unpulled=st.booleans(), where=context)
    def seed(self, ids: list[str], boost: float, *, unpulled: bool, where: Any) -> None:
        states = self.run(
            self.db.arms.seed(self.learner, ids, boost=boost, unpulled=unpulled, context=where)
        )
        for key in set(ids):
            self.model.seed((context_hash(where), key), boost, unpulled=unpulled)
        self.check(where, states, ids)

    @rule(ids=st.none() | some_arms, where=anywhere)
    def reset(self, ids: list[str] | None, where: Any) -> None:
        count = self.run(self.db.arms.reset(self.learner, ids, context=where))
        keys = self.matching(where, ids)
        self.model.arms |= {key: ArmState() for key in keys}
        assert count == len(keys)

    @rule(ids=st.none() | some_arms, where=anywhere)
    def delete(self, ids: list[str] | None, where: Any) -> None:
        count = self.run(self.db.arms.delete(self.learner, ids, context=where))
        keys = self.matching(where, ids)
        for key in keys:
            del self.model.arms[key]
        assert count == len(keys)

    @rule(key=arm, alpha=st.floats(1e-3, 1e6), beta=st.floats(1e-3, 1e6), where=context)
    def put(self, key: str, alpha: float, beta: float, where: Any) -> None:
        state = ArmState(alpha, beta, 3, alpha)
        self.run(self.db.arms.put(self.learner, key, state, context=where))
        self.model.arms[context_hash(where), key] = state

    @invariant()
    def states_and_history_are_the_model(self) -> None:
        stored = self.run(self.db.arms.get_all_states(self.learner))
        assert self.run(self.db.arms.rebuild(self.learner)) == stored
        found = {(place, key): s for place, arms in stored.items() for key, s in arms.items()}
        assert found.keys() == self.model.arms.keys()
        for key, state in found.items():
            same(state, self.model.arms[key])
        metrics = self.run(self.db.arms.metrics(self.learner))
        assert metrics.total_pulls == sum(state.pulls for state in self.model.arms.values())


def same(state: ArmState, expected: ArmState) -> None:
    for name in ("alpha", "beta", "total_reward"):
        one, other = getattr(state, name), getattr(expected, name)
        assert math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-12), (name, one, other)
    assert state.pulls == expected.pulls


@pytest.fixture
def machine(dsn: str) -> Iterator[type[Machine]]:
    with asyncio.Runner() as runner:
        db = runner.run(Database.connect(Settings(dsn=dsn, learning_history=True)).open())
        yield type("Bound", (Machine,), {"runner": runner, "db": db})
        runner.run(db.close())


def test_arms_are_what_a_plain_model_of_them_is(machine: type[Machine]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
