"""One of several processes that record and promote edges; it prints what was acknowledged."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter

from qortex_db import Database, Settings

SECONDS, TURNS = 2.0, 20  # each task goes on for both, however busy the machine is


class UndoneError(Exception):
    """What a promoter fails with."""


def fail() -> None:
    raise UndoneError


async def record(db: Database, rng: random.Random, until: float, hits: Counter[str]) -> None:
    turn = 0
    while time.monotonic() < until or turn < TURNS:
        turn += 1
        pairs = [(f"a{rng.randrange(6)}", f"b{rng.randrange(6)}") for _ in range(5)]
        await db.edges.record_many([(*pair, 0.7 + 0.3 * rng.random()) for pair in pairs])
        hits.update(map(" ".join, pairs))


async def promote(db: Database, rng: random.Random, until: float, taken: Counter[str]) -> None:
    turn = 0
    while time.monotonic() < until or turn < TURNS:
        turn += 1
        limit = rng.choice([None, 1, 3])
        least = rng.choice([0.8, 0.85])  # about the mean, so that recording moves edges across it
        try:
            if rng.random() < 0.5:
                promotions = await db.edges.promote(limit=limit, min_avg_score=least)
            else:
                async with db.unit_of_work() as uow:
                    promotions = await uow.edges.promote(limit=limit, min_avg_score=least)
                    await uow.factors.adjust(
                        {f"{p.src_id} {p.tgt_id}": "partial" for p in promotions}
                    )
                    await asyncio.sleep(rng.random() * 0.01)
                    if rng.random() < 0.4:
                        fail()
        except UndoneError:
            continue
        for p in promotions:
            assert p.hit_count >= 3
            assert p.avg_score >= least
            taken[f"{p.src_id} {p.tgt_id}"] += p.hit_count
        await asyncio.sleep(rng.random() * 0.01)


async def main(dsn: str, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a fixed choice
    hits: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    until = time.monotonic() + SECONDS
    async with Database.connect(Settings(dsn=dsn)) as db:
        work = [record(db, rng, until, hits) for _ in range(3)]
        work += [promote(db, rng, until, taken) for _ in range(3)]
        await asyncio.gather(*work)
    sys.stdout.write(json.dumps({"hits": hits, "taken": taken}))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
