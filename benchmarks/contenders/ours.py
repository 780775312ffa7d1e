"""qortex-db, on an engine of its own."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from qortex_db import Database, EdgeStats, Settings, VectorRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Contender:
    async def open(self, dsn: str) -> None:
        self.settings = Settings(dsn=dsn)
        self.db = await Database.connect(self.settings).open()

    async def close(self) -> None:
        await self.db.close()

    async def search(self, query: Any) -> list[str]:
        return [hit.id for hit in await self.db.vectors.search(query, limit=10)]

    async def search_tuned(self, query: Any, ef: int) -> list[str]:
        return [hit.id for hit in await self.db.vectors.search(query, limit=10, ef_search=ef)]

    async def search_filtered(self, query: Any, where: dict[str, int]) -> list[str]:
        return [hit.id for hit in await self.db.vectors.search(query, limit=10, where=where)]

    async def search_never_complete(self, query: Any, where: dict[str, int]) -> list[str]:
        """Without the comparison with every row, where this version can be told so."""
        options: dict[str, Any] = {"iterative_scan": "off"}
        if "complete" in inspect.signature(self.db.vectors.search).parameters:
            options = {"complete": "never"}
        hits = await self.db.vectors.search(query, limit=10, where=where, **options)
        return [hit.id for hit in hits]

    async def loop(self, queries: list[Any]) -> Any:
        return [await self.db.vectors.search(query, limit=10) for query in queries]

    async def gather(self, queries: list[Any]) -> Any:
        return await asyncio.gather(*(self.db.vectors.search(query, limit=10) for query in queries))

    async def search_many(self, queries: list[Any]) -> Any:
        return await self.db.vectors.search_many(queries, limit=10)

    async def multi_search(self, queries: list[Any]) -> Any:
        return await self.db.vectors.multi_search(queries, limit=10)

    async def search_unit(self, query: Any) -> list[str]:
        """A unit of work of one search."""
        async with self.db.unit_of_work() as uow:
            return [hit.id for hit in await uow.vectors.search(query, limit=10)]

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[Any]:
        async with self.db.unit_of_work() as uow:
            yield uow.vectors.search

    async def count(self) -> int:
        return await self.db.vectors.count()

    async def get(self, key: str) -> Any:
        return (await self.db.vectors.get([key]))[key].embedding

    async def get_many(self, keys: list[str]) -> Any:
        return await self.db.vectors.get(keys)

    async def write_one(self, key: str, row: Any) -> None:
        await self.db.vectors.upsert([VectorRecord(key, row)])

    async def upsert(self, ids: list[str], rows: Any) -> None:
        await self.db.vectors.upsert(
            [VectorRecord(key, row) for key, row in zip(ids, rows, strict=True)]
        )

    async def ingest(self, ids: list[str], rows: Any) -> None:
        await self.db.vectors.ingest(
            {"id": key, "embedding": row} for key, row in zip(ids, rows, strict=True)
        )

    async def fill(self, ids: list[str], rows: Any, payloads: list[Any]) -> None:
        """As its documentation has a first load: the vector index is built after it."""

        async def load() -> None:
            await self.db.vectors.ingest(
                {"id": key, "embedding": row, "payload": payload}
                for key, row, payload in zip(ids, rows, payloads, strict=True)
            )

        from qortex_db import migrations  # noqa: PLC0415 - no part of a start

        await migrations.rebuild_index(self.settings, load=load)

    async def stream(self, _: int) -> int:
        count = 0
        async for _record in self.db.vectors.stream():
            count += 1
        return count

    async def stream_batches(self, _: int) -> int:
        count = 0
        async for batch in self.db.vectors.stream_batches():
            count += len(batch.embeddings)
        return count

    async def ingest_generated(self, count: int, vectors: Any) -> None:
        size = len(vectors)
        await self.db.vectors.ingest(
            {"id": f"made:{i:09}", "embedding": vectors[i % size]} for i in range(count)
        )

    async def stream_generated(self, count: int, _: Any) -> None:
        seen = 0
        async for _record in self.db.vectors.stream():
            seen += 1
            if seen == count:
                break

    async def observe(self, learner: str, arm: str, reward: float) -> None:
        await self.db.arms.observe(learner, arm, reward=reward)

    async def observe_many(self, learner: str, pairs: list[tuple[str, float]]) -> None:
        await self.db.arms.observe_many(learner, pairs)

    async def states(self, learner: str) -> Any:
        return await self.db.arms.get_all(learner)

    async def pulls(self, learner: str, _: list[str]) -> int:
        return sum(state.pulls for state in (await self.db.arms.get_all(learner)).values())

    async def select(self, learner: str, arms: list[str]) -> Any:
        return await self.db.arms.select(learner, arms)

    async def save_factors(self, weights: dict[str, float]) -> None:
        await self.db.factors.save(weights)

    async def load_factors(self) -> dict[str, float]:
        return await self.db.factors.load()

    async def save_edges(self, edges: dict[tuple[str, str], list[float]]) -> None:
        await self.db.edges.save({key: EdgeStats(10, scores) for key, scores in edges.items()})

    async def load_edges(self) -> Any:
        return await self.db.edges.load()
