"""One contender in a process of its own: it is told a work by a line of JSON and answers by one.

It runs in the contender's environment, so it imports nothing but the standard library, numpy and
that contender.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))


class Works:
    """What is timed, over a contender's single operations."""

    def __init__(self, contender: Any, folder: Path) -> None:
        self.contender = contender
        self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.queries = np.load(folder / "queries.npy")
        self.has_arms = False
        self.ids = [f"doc:{i:08}" for i in range(len(self.vectors))]

    async def _each(self, operation: Any, arguments: list[Any]) -> list[float]:
        seconds = []
        for argument in arguments:
            start = time.perf_counter()
            await operation(argument)
            seconds.append(time.perf_counter() - start)
        return seconds

    async def search(self, count: int) -> dict[str, Any]:
        """Top 10, one after another."""
        return {"seconds": await self._each(self.contender.search, list(self.queries[:count]))}

    async def search_tuned(self, count: int) -> dict[str, Any]:
        """Top 10 with a setting of the query's own."""
        seconds = await self._each(self.contender.search_tuned, list(self.queries[:count]))
        return {"seconds": seconds}

    async def found(self, count: int) -> dict[str, Any]:
        """The ids found, for the recall."""
        return {"found": [await self.contender.search(query) for query in self.queries[:count]]}

    async def search_together(self, count: int, tasks: int) -> dict[str, Any]:
        """Top 10, several tasks at once."""
        queries = iter([self.queries[i % len(self.queries)] for i in range(count)])

        async def run() -> None:
            for query in queries:
                await self.contender.search(query)

        start = time.perf_counter()
        await asyncio.gather(*(run() for _ in range(tasks)))
        return {"seconds": [(time.perf_counter() - start) / count]}

    async def get(self, count: int) -> dict[str, Any]:
        """One row by its key."""
        picked = np.random.default_rng(7).integers(0, len(self.ids), count)
        return {"seconds": await self._each(self.contender.get, [self.ids[i] for i in picked])}

    async def _bulk(self, operation: Any, ids: list[str], rows: Any) -> dict[str, Any]:
        gc.collect()
        start, cpu = time.perf_counter(), time.process_time()
        await operation(ids, rows)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {"seconds": [wall / len(ids)], "cpu": cpu / len(ids)}

    async def upsert(self, count: int) -> dict[str, Any]:
        """Rows of a numpy matrix, by one call."""
        rows = np.array(self.vectors[:count])
        return await self._bulk(self.contender.upsert, self.ids[:count], rows)

    async def upsert_lists(self, count: int) -> dict[str, Any]:
        """The same from lists of floats."""
        rows = self.vectors[:count].tolist()
        return await self._bulk(self.contender.upsert, self.ids[:count], rows)

    async def ingest(self, count: int) -> dict[str, Any]:
        """Rows of a numpy matrix, by the call for any number of them."""
        rows = np.array(self.vectors[:count])
        return await self._bulk(self.contender.ingest, self.ids[:count], rows)

    async def copy(self, count: int) -> dict[str, Any]:
        """COPY into a staging table, and merge."""
        rows = np.array(self.vectors[:count])
        return await self._bulk(self.contender.copy, self.ids[:count], rows)

    async def stream(self, count: int) -> dict[str, Any]:
        """All rows with their vectors."""
        start = time.perf_counter()
        read = await self.contender.stream(count)
        wall = time.perf_counter() - start
        if read != count:
            raise RuntimeError(f"{read} rows came of {count}")
        return {"seconds": [wall / count]}

    async def observe(self, count: int, tasks: int, arms: int) -> dict[str, Any]:
        """Rewards counted, and how many of them are there afterwards."""
        name = f"learner-{time.time_ns()}"
        numbers = iter(range(count))

        async def run() -> None:
            for i in numbers:
                await self.contender.observe(name, f"arm:{i % arms}", 0.5)

        start = time.perf_counter()
        await asyncio.gather(*(run() for _ in range(tasks)))
        wall = time.perf_counter() - start
        kept = await self.contender.pulls(name, [f"arm:{i}" for i in range(arms)])
        return {"seconds": [wall / count], "lost": 1 - kept / count}

    async def observe_many(self, count: int) -> dict[str, Any]:
        """Many rewards by one call."""
        name = f"learner-{time.time_ns()}"
        pairs = [(f"arm:{i % 100}", 0.5) for i in range(count)]
        start = time.perf_counter()
        await self.contender.observe_many(name, pairs)
        return {"seconds": [(time.perf_counter() - start) / count]}

    async def select(self, count: int) -> dict[str, Any]:
        """One of a hundred candidates."""
        name = "learner-select"
        arms = [f"arm:{i}" for i in range(100)]
        if not self.has_arms:
            await self.contender.observe_many(name, [(arm, 0.5) for arm in arms])
            self.has_arms = True
        return {
            "seconds": await self._each(lambda _: self.contender.select(name, arms), [0] * count)
        }

    async def save_factors(self, count: int) -> dict[str, Any]:
        """Weights by node."""
        weights = {f"node:{i:06}": 1.0 + i / count for i in range(count)}
        return await self._timed(self.contender.save_factors(weights))

    async def load_factors(self, count: int) -> dict[str, Any]:
        """All weights."""
        return await self._timed(self.contender.load_factors(), count)

    async def save_edges(self, count: int) -> dict[str, Any]:
        """Edges of ten scores."""
        edges = {
            (f"node:{i:06}", f"node:{i + 1:06}"): [round(0.5 + 0.01 * j, 2) for j in range(10)]
            for i in range(count)
        }
        return await self._timed(self.contender.save_edges(edges))

    async def load_edges(self, count: int) -> dict[str, Any]:
        """All edges."""
        return await self._timed(self.contender.load_edges(), count)

    async def _timed(self, work: Any, expected: int | None = None) -> dict[str, Any]:
        start = time.perf_counter()
        result = await work
        wall = time.perf_counter() - start
        if expected is not None and len(result) != expected:
            raise RuntimeError(f"{len(result)} rows came of {expected}")
        return {"seconds": [wall]}

    async def peak_memory(self, count: int, of: str) -> dict[str, Any]:
        """The most that the process ever held, in bytes; its rows come from a generator."""
        await getattr(self.contender, f"{of}_generated")(count, self.vectors)
        # Not getrusage(): that peak has the process in it that started this one.
        status = await asyncio.to_thread(Path("/proc/self/status").read_text)
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return {"peak": int(peak.split()[1]) * 1024}


async def main() -> None:
    name, dsn, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a contender prints is no answer
    contender = importlib.import_module(f"contenders.{name}").Contender()
    await contender.open(dsn)
    works = Works(contender, folder)
    loop = asyncio.get_running_loop()
    print("{}", file=answers, flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        try:
            answer = await getattr(works, order.pop("work"))(**order)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers, flush=True)
    await contender.close()


if __name__ == "__main__":
    asyncio.run(main())
