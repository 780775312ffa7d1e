"""The same calls to qortex's learner, in a JSON file, and to ours: run in qortex's environment."""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
from typing import Any

from qortex.learning import ArmOutcome, JsonLearningStore, LearnerConfig
from qortex.learning import Learner as Theirs

from qortex_db import Database, Learner

CALLS = 400
ARMS = ["a", "b", "c", "d"]
CONTEXTS = [None, {}, {"task": "sql"}, {"task": "c", "n": [1, 2.5]}]


def an_outcome(rng: random.Random) -> ArmOutcome:
    word = rng.choice(["", "accepted", "partial", "rejected", "adored"])
    reward = rng.choice([0.0, 0.0, 0.3, 1.0])
    return ArmOutcome(rng.choice(ARMS), reward, word, rng.choice(CONTEXTS[1:]))


def a_call(rng: random.Random) -> tuple[str, tuple[Any, ...]]:
    context = rng.choice(CONTEXTS)
    some = rng.sample(ARMS, rng.randrange(len(ARMS) + 1))
    deltas = {
        arm: {"alpha_delta": rng.uniform(-2, 2), "beta_delta": rng.uniform(-2, 2)} for arm in some
    }
    choices: dict[str, tuple[Any, ...]] = {
        "observe": (an_outcome(rng), context),
        "batch_observe": ([an_outcome(rng) for _ in range(rng.randrange(6))], context),
        "apply_credit_deltas": (deltas, context),
        "decay_arm": (rng.choice(ARMS), rng.choice([0.0, 0.1, 0.9, 1.0]), context),
        "posteriors": (context, rng.choice([None, some])),
        "metrics": (),
    }
    if rng.random() < 0.05:
        return "reset", (rng.choice([None, some]), context)
    name = rng.choice(list(choices))
    return name, choices[name]


def plain(result: Any) -> Any:
    """Results without times, to be compared."""
    if hasattr(result, "to_dict"):
        return plain(result.to_dict())
    if isinstance(result, dict):
        return {key: plain(value) for key, value in result.items() if key != "last_updated"}
    return result


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return bool(one == other)


async def main(folder: str) -> None:
    rng = random.Random(5)  # noqa: S311 - a fixed choice
    config = LearnerConfig("l", seed_arms=["a", "b"], seed_boost=3.0)
    async with Database.connect(os.environ["PGVECTOR_DSN"]) as db:
        theirs = await Theirs.create(config, store=JsonLearningStore("l", folder))
        ours = await Learner.create(config, store=db)
        for _ in range(CALLS):
            name, arguments = a_call(rng)
            expected = plain(await getattr(theirs, name)(*arguments))
            found = plain(await getattr(ours, name)(*arguments))
            assert same(expected, found), (name, arguments, expected, found)
        for context in CONTEXTS:
            expected, found = await theirs.top_arms(context), await ours.top_arms(context)
            means = [[state.mean for _, state in each] for each in (expected, found)]
            assert all(map(math.isclose, *means)), means
        assert same(
            plain(await theirs.store.get_all_states()), plain(await db.arms.get_all_states("l"))
        )


asyncio.run(main(sys.argv[1]))
