"""What a service might hold after some weeks, made from a seed."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import text

from qortex_db.sample import load_sample

if TYPE_CHECKING:
    from qortex_db import Database

RATES = {
    "prompt:terse": 0.48,
    "prompt:cited": 0.71,
    "prompt:steps": 0.66,
    "prompt:examples": 0.58,
    "prompt:roleplay": 0.31,
    "prompt:v1": 0.42,
    "prompt:v2": 0.55,
    "prompt:json": 0.37,
    "prompt:long": 0.24,
    "prompt:quiz": 0.5,
}
WAYS = {"ranking:similarity": 0.41, "ranking:weighted": 0.52, "ranking:hybrid": 0.57}
CONTEXTS = ({"task": "sql"}, {"task": "summary", "language": "en"})
_SPREAD = """
UPDATE learning_events SET recorded_at = now() - make_interval(secs =>
    2400000.0 * (1 - id / (SELECT max(id)::float8 FROM learning_events)))
"""


async def fill(db: Database, *, rounds: int = 300) -> None:
    """Vectors, two learners with contexts, factors and edges; the events reach over four weeks."""
    rng = np.random.default_rng(7)
    sample = load_sample()
    await db.vectors.ingest(sample.records())
    for number in range(rounds):
        context = CONTEXTS[number % 3 == 0]
        shift = 0.0 if context is CONTEXTS[0] else 0.12
        chosen = await db.arms.select("prompts", list(RATES), k=2, context=context, rng=rng)
        asked = int(rng.poisson(3 + 2 * np.sin(number / rounds * 8 * np.pi))) + 1  # week by week
        rewards = [
            (arm, float(rng.random() < RATES[arm] + shift))
            for arm in chosen.selected
            for _ in range(asked)
        ]
        await db.arms.observe_many("prompts", rewards, context=context)
        arm = (await db.arms.select("ranking", list(WAYS), rng=rng)).selected[0]
        reward = float(rng.beta(4 * WAYS[arm], 4 - 4 * WAYS[arm]))
        await db.arms.observe_many("ranking", [(arm, reward)] * asked)
    ids = [passage["id"] for passage in sample.passages]
    liked = rng.beta(2, 2.4, size=len(ids))
    for _ in range(rounds // 8):
        found = rng.choice(len(ids), size=60, replace=False)
        await db.factors.adjust(
            {
                ids[place]: "accepted" if draw < liked[place] * 0.8 else "rejected"
                for place, draw in zip(found, rng.random(60), strict=True)
            }
        )
    near = np.argsort(-sample.question_embeddings @ sample.passage_embeddings.T, axis=1)[:, :4]
    for _ in range(rounds // 8):
        question = int(rng.zipf(1.35)) % len(near)
        scores = sample.passage_embeddings[near[question]]
        hits = [
            (ids[a], ids[b], min(float(scores[i] @ scores[i + 1]) + 0.22, 0.98))
            for i, (a, b) in enumerate(pairwise(near[question]))
        ]
        await db.edges.record_many(hits[: int(rng.integers(1, 4))])
    async with db.unit_of_work() as uow:
        await uow.session.execute(text(_SPREAD))
