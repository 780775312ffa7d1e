"""qortex 0.8.1's own PostgreSQL stores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import asyncpg
import numpy as np
from pgvector.asyncpg import register_vector
from qortex.hippocampus.pg_store import PostgresInteroceptionStore
from qortex.learning.pg_store import PostgresLearningStore
from qortex.vec.pgvector import PgVectorIndex


class Contender:
    async def open(self, dsn: str) -> None:
        self.pool = await asyncpg.create_pool(dsn, min_size=2, max_size=10, init=register_vector)
        self.vectors = PgVectorIndex(dsn, dimensions=384, pool=self.pool)
        self.memory = PostgresInteroceptionStore(self.pool)
        await self.vectors.size()
        self.learners: dict[str, Any] = {}

    async def close(self) -> None:
        await self.pool.close()

    async def search(self, query: Any) -> list[str]:
        return [key for key, _ in await self.vectors.search(query, top_k=10, threshold=-1.0)]

    async def upsert(self, ids: list[str], rows: Any) -> None:
        await self.vectors.add(ids, rows)

    async def stream(self, _: int) -> int:
        count = 0
        async for ids, _rows in self.vectors.iter_all():
            count += len(ids)
        return count

    def _learner(self, name: str) -> Any:
        if name not in self.learners:
            self.learners[name] = PostgresLearningStore(name, self.pool)
        return self.learners[name]

    async def observe(self, learner: str, arm: str, reward: float) -> None:
        """As its Learner does: read, add, write back."""
        store = self._learner(learner)
        state = await store.get(arm)
        await store.put(
            arm,
            SimpleNamespace(
                alpha=state.alpha + reward,
                beta=state.beta + 1 - reward,
                pulls=state.pulls + 1,
                total_reward=state.total_reward + reward,
                last_updated="2026-01-01T00:00:00+00:00",
            ),
        )

    async def observe_many(self, learner: str, pairs: list[tuple[str, float]]) -> None:
        for arm, reward in pairs:
            await self.observe(learner, arm, reward)

    async def pulls(self, learner: str, _: list[str]) -> int:
        return sum(state.pulls for state in (await self._learner(learner).get_all()).values())

    async def select(self, learner: str, arms: list[str]) -> Any:
        """As its Learner does: each candidate's state is asked for, one by one."""
        store = self._learner(learner)
        states = [await store.get(arm) for arm in arms]
        draws = np.random.default_rng().beta([s.alpha for s in states], [s.beta for s in states])
        return arms[int(np.argmax(draws))]

    async def save_factors(self, weights: dict[str, float]) -> None:
        await self.memory.save_factors(weights)

    async def load_factors(self) -> dict[str, float]:
        return await self.memory.load_factors()

    async def save_edges(self, edges: dict[tuple[str, str], list[float]]) -> None:
        await self.memory.save_edges(
            {
                key: SimpleNamespace(
                    hit_count=10, scores=scores, last_seen="2026-01-01T00:00:00+00:00"
                )
                for key, scores in edges.items()
            }
        )

    async def load_edges(self) -> Any:
        return await self.memory.load_edges()
