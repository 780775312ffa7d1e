"""Observers, deciders, decayers and promoters in several processes, one of which is killed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from qortex_db import Database, Settings

pytestmark = pytest.mark.slow

SECONDS = 20.0
WORKER = Path(__file__).with_name("memory_worker.py")
ENOUGH_BYTES = 10_000
IN_FLIGHT = 6 * 8
"""What the killed process may have done without a word of it: a call of each of its tasks."""


async def start(dsn: str, seed: int, learner: str, path: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(WORKER), dsn, str(SECONDS), str(seed), learner, str(path)),
        stderr=asyncio.subprocess.PIPE,
    )


class Told:
    """What the processes say was acknowledged."""

    def __init__(self, paths: list[Path]) -> None:
        self.pulls: Counter[str] = Counter()
        self.rewards: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        for path in paths:
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):  # else the last word of the killed
                    self._add(*json.loads(line))

    def _add(self, what: str, key: str, number: int, total: float) -> None:
        if what == "edge":
            self.hits[key] += number
        else:
            self.pulls[key] += number
            self.rewards[key] += total


async def check_arms(db: Database, learner: str, told: Told) -> int:
    """Compare states with what was told and with their history; say what nobody told of."""
    states = await db.arms.get_all(learner)
    rebuilt = (await db.arms.rebuild(learner))["default"]
    assert rebuilt.keys() == states.keys()
    untold = 0
    for arm, state in states.items():
        pulls, rewards = told.pulls[f"{learner} {arm}"], told.rewards[f"{learner} {arm}"]
        assert state.pulls >= pulls, arm
        untold += state.pulls - pulls
        if state.pulls == pulls and not arm.startswith("fading"):  # eighths add up exactly
            expected = (rewards, 1 + rewards, 1 + pulls - rewards)
            assert (state.total_reward, state.alpha, state.beta) == expected
        assert rebuilt[arm].alpha == pytest.approx(state.alpha, abs=1e-9)
        assert rebuilt[arm].beta == pytest.approx(state.beta, abs=1e-9)
        assert rebuilt[arm].pulls == state.pulls
    return untold


async def check_edges(db: Database, learner: str, told: Told) -> int:
    """Each hit was promoted, and counted with it, or is in the buffer; the same."""
    promoted = await db.arms.get_all("promoted")
    counted = Counter({key: state.pulls for key, state in promoted.items()})
    assert counted.total() > 100
    for (one, other), stats in (await db.edges.load()).items():
        counted[f"{max(one, other)}|{min(one, other)}"] += stats.hit_count
    keys = [key for key in counted.keys() | told.hits.keys() if key.startswith(learner)]
    assert all(counted[key] >= told.hits[key] for key in keys)
    return sum(counted[key] - told.hits[key] for key in keys)


@pytest.mark.timeout(180)
async def test_what_many_processes_were_told_is_there_exactly_once(
    dsn: str, tmp_path: Path
) -> None:
    # Three share a learner; two another, of whom one is killed in the middle of its work.
    learners = ["calm", "calm", "calm", "hurt", "hurt"]
    paths = [tmp_path / str(seed) for seed in range(len(learners))]
    work = zip(learners, paths, strict=True)
    workers = [await start(dsn, seed, *which) for seed, which in enumerate(work)]
    *survivors, victim = workers
    while not paths[-1].exists() or paths[-1].stat().st_size < ENOUGH_BYTES:
        assert victim.returncode is None
        await asyncio.sleep(0.05)
    victim.kill()
    await victim.communicate()
    for worker in survivors:
        _, errors = await worker.communicate()
        assert worker.returncode == 0, errors.decode()
    told = Told(paths)
    assert told.pulls.total() > 1_000
    async with Database.connect(Settings(dsn=dsn, learning_history=True)) as db:
        assert await check_arms(db, "calm", told) == 0
        assert await check_edges(db, "calm", told) == 0
        assert await check_arms(db, "hurt", told) <= IN_FLIGHT
        assert await check_edges(db, "hurt", told) <= IN_FLIGHT
