"""One of several processes that use everything at once; it writes down what was acknowledged.

A line is written as soon as a call has returned, so that a process that is killed has told of all
but its last few calls.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from qortex_db import Database, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ARMS = [f"arm{i}" for i in range(8)]
FADING = [f"fading{i}" for i in range(4)]
CONTEXTS: list[dict[str, Any]] = [{}, {"task": "sql"}]
BATCH = 8


class Worker:
    """The works of one process."""

    def __init__(self, db: Database, seed: int, learner: str, told: TextIO) -> None:
        self.db = db
        self.rng = random.Random(seed)  # noqa: S311 - a fixed choice
        self.learner = learner
        self.told = told

    def tell(self, what: str, key: str, number: int, total: float = 0.0) -> None:
        self.told.write(json.dumps([what, key, number, total]) + "\n")
        self.told.flush()

    async def observe(self) -> None:
        arm = self.rng.choice(ARMS + FADING)
        reward = self.rng.randrange(9) / 8
        await self.db.arms.observe(self.learner, arm, reward=reward)
        self.tell("arm", f"{self.learner} {arm}", 1, reward)

    async def observe_many(self) -> None:
        rewards = [(self.rng.choice(ARMS), self.rng.randrange(9) / 8) for _ in range(BATCH)]
        await self.db.arms.observe_many(self.learner, rewards)
        for arm, reward in rewards:
            self.tell("arm", f"{self.learner} {arm}", 1, reward)

    async def decide(self) -> None:
        chosen = await self.db.arms.select(
            self.learner, ARMS, k=2, context=self.rng.choice(CONTEXTS), rng=None
        )
        assert len(chosen.selected) == 2

    async def decay(self) -> None:
        states = await self.db.arms.decay(self.learner, self.rng.choice(FADING), factor=0.9)
        assert all(state.alpha >= 0.01 and state.beta >= 0.01 for state in states.values())
        await self.db.factors.decay(half_life=1e6)

    async def adjust(self) -> None:
        await self.db.factors.adjust({f"{self.learner} node": "accepted"})

    async def record(self) -> None:
        pairs = [
            (f"{self.learner} a{self.rng.randrange(4)}", f"b{self.rng.randrange(4)}")
            for _ in range(BATCH)
        ]
        await self.db.edges.record_many([(*pair, self.rng.random()) for pair in pairs])
        for a, b in pairs:
            self.tell("edge", f"{a}|{b}", 1)

    async def promote(self) -> None:
        """What leaves the buffer is counted in the same transaction, or stays."""
        async with self.db.unit_of_work() as uow:
            taken = await uow.edges.promote(min_avg_score=0.5, limit=self.rng.choice([None, 2]))
            hits = [(f"{max(p.src_id, p.tgt_id)}|{min(p.src_id, p.tgt_id)}", p) for p in taken]
            await uow.arms.observe_many(
                "promoted", [(key, 1.0) for key, p in hits for _ in range(p.hit_count)]
            )
            if self.rng.random() < 0.2:
                await uow.session.rollback()
        await asyncio.sleep(0.01)

    async def work(self, until: float) -> None:
        works: list[Callable[[], Awaitable[None]]] = [
            *(self.observe, self.observe_many, self.decide, self.decay),
            *(self.adjust, self.record, self.promote),
        ]
        while time.monotonic() < until:
            await self.rng.choice(works)()


async def main(dsn: str, seconds: str, seed: str, learner: str, path: str) -> None:
    settings = Settings(dsn=dsn, learning_history=True)
    with open(path, "w", encoding="utf-8") as told:  # noqa: ASYNC230, PTH123 - a line at a time
        async with Database.connect(settings) as db:
            until = time.monotonic() + float(seconds)
            workers = [Worker(db, 10 * int(seed) + i, learner, told) for i in range(6)]
            await asyncio.gather(*(worker.work(until) for worker in workers))


asyncio.run(main(*sys.argv[1:]))
