"""One of several processes that share a learner; it prints what was acknowledged."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter

from qortex_db import Arm, ArmOutcome, Database, Learner, LearnerConfig, Settings, context_hash

SECONDS, TURNS = 2.0, 20  # each task goes on for both, however busy the machine is
CONTEXTS = [{}, {"task": "sql"}]
PLAIN = ["a", "b", "c"]
CONFIG = LearnerConfig("shared", seed_arms=PLAIN, seed_boost=3.0)


class Acknowledged:
    """Pulls and rewards by context and arm."""

    def __init__(self) -> None:
        self.pulls: Counter[str] = Counter()
        self.rewards: Counter[str] = Counter()

    def add(self, outcome: ArmOutcome) -> None:
        key = f"{context_hash(outcome.context)} {outcome.arm_id}"
        self.pulls[key] += 1
        self.rewards[key] += outcome.reward


def an_outcome(rng: random.Random) -> ArmOutcome:
    arm = rng.choice([*PLAIN, "faded"])
    return ArmOutcome(arm, rng.randrange(5) / 4, context=rng.choice(CONTEXTS))


async def work(db: Database, rng: random.Random, until: float, seen: Acknowledged) -> None:
    learner = await Learner.create(CONFIG, store=db)
    turn = 0
    while time.monotonic() < until or turn < TURNS:
        turn += 1
        outcomes = [an_outcome(rng) for _ in range(rng.choice([1, 1, 8]))]
        match rng.randrange(5):
            case 0:
                await learner.batch_observe(outcomes)
            case 1:
                outcomes = outcomes[:1]
                await learner.apply_credit_deltas(
                    {
                        o.arm_id: {"alpha_delta": o.reward, "beta_delta": 1 - o.reward}
                        for o in outcomes
                    },
                    outcomes[0].context,
                )
            case 2:
                outcomes = []
                await learner.decay_arm("faded", 0.9, rng.choice(CONTEXTS))
            case 3:
                outcomes = []
                await learner.select([Arm(key) for key in PLAIN], rng.choice(CONTEXTS))
                learner = await Learner.create(CONFIG, store=db)
            case _:
                outcomes = outcomes[:1]
                await learner.observe(outcomes[0])
        for outcome in outcomes:
            seen.add(outcome)


async def main(dsn: str, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a fixed choice
    seen = Acknowledged()
    until = time.monotonic() + SECONDS
    async with Database.connect(Settings(dsn=dsn)) as db:
        await asyncio.gather(*(work(db, rng, until, seen) for _ in range(8)))
    sys.stdout.write(json.dumps({"pulls": seen.pulls, "rewards": seen.rewards}))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
