"""Searches, and reading by key."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from works.base import Base


class Searching(Base):
    """Top 10 in whatever way, and one row by its key."""

    async def search(self, count: int) -> dict[str, Any]:
        """Top 10, one after another."""
        return await self.each(self.contender.search, self.questions(count))

    async def search_tuned(self, count: int, ef: int) -> dict[str, Any]:
        """Top 10, with a breadth of the search that is given with each."""
        return await self.each(
            lambda query: self.contender.search_tuned(query, ef), self.questions(count)
        )

    async def search_filtered(self, count: int, where: dict[str, int], how: str) -> dict[str, Any]:
        """Top 10 of the rows that match, in one of the contender's ways."""
        search = getattr(self.contender, how)
        return await self.each(lambda query: search(query, where), self.questions(count))

    async def found(
        self, count: int, how: str = "search", arguments: list[Any] | None = None
    ) -> dict[str, Any]:
        """The ids found, for the recall."""
        search = getattr(self.contender, how)
        return {
            "found": [await search(query, *(arguments or ())) for query in self.questions(count)]
        }

    async def search_together(self, count: int, tasks: int) -> dict[str, Any]:
        """Top 10, several tasks at once."""
        queries = iter(self.questions(count))

        async def run() -> None:
            for query in queries:
                await self.contender.search(query)

        with self.timed(count) as answer:
            await asyncio.gather(*(run() for _ in range(tasks)))
        return answer

    async def search_for(self, seconds: float, tasks: int) -> dict[str, Any]:
        """Tasks that search again and again for a while: what each call took, and had each task."""
        latencies: list[float] = []
        calls = [0] * tasks
        queries = self.questions(1_000)
        end = time.perf_counter() + seconds

        async def run(number: int) -> None:
            while (start := time.perf_counter()) < end:
                await self.contender.search(queries[(calls[number] * tasks + number) % 1_000])
                latencies.append(time.perf_counter() - start)
                calls[number] += 1

        with self.timed(1) as answer:
            await asyncio.gather(*(run(number) for number in range(tasks)))
        (wall,) = answer["seconds"]
        return {
            "operations": len(latencies),
            "cpu": answer["cpu"] / len(latencies),
            "seconds": [wall / len(latencies)],
            "p50": float(np.percentile(latencies, 50)),
            "p99": float(np.percentile(latencies, 99)),
            "fewest": min(calls),
            "most": max(calls),
        }

    async def many(self, count: int, size: int, how: str) -> dict[str, Any]:
        """Several queries that are there at once, in one of the contender's ways."""
        search = getattr(self.contender, how)
        batches = [self.questions(count * size)[i * size : (i + 1) * size] for i in range(count)]
        return await self.each(search, batches)

    async def unit(self, count: int, how: str) -> dict[str, Any]:
        """Searches in units of work of one, or in an open one."""
        queries = self.questions(count)
        if how == "search_in_unit":
            async with self.contender.unit() as search:
                return await self.each(search, queries)
        return await self.each(getattr(self.contender, how), queries)

    async def get(self, count: int) -> dict[str, Any]:
        """One row by its key."""
        picked = np.random.default_rng(7).integers(0, len(self.vectors), count)
        return await self.each(self.contender.get, [self.id(i) for i in picked])

    async def get_many(self, count: int, size: int) -> dict[str, Any]:
        """Many rows by their keys, by one call."""
        picked = np.random.default_rng(7).integers(0, len(self.vectors), (count, size))
        return await self.each(
            self.contender.get_many, [[self.id(i) for i in row] for row in picked]
        )

    async def count_rows(self, count: int) -> dict[str, Any]:
        """How many rows there are."""
        return await self.each(lambda _: self.contender.count(), [0] * count)
