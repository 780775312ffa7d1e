"""Writing, reading everything, and the memory that it takes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from works.base import Base, payload


class Writing(Base):
    """Many rows by one call, one row by many, and all rows."""

    async def _bulk(self, work: str, count: int, rows: Any) -> dict[str, Any]:
        ids = self.ids(count)
        with self.timed(count) as answer:
            await getattr(self.contender, work)(ids, rows)
        return answer

    async def upsert(self, count: int) -> dict[str, Any]:
        """Rows of a numpy matrix, by one call."""
        return await self._bulk("upsert", count, np.array(self.vectors[:count]))

    async def upsert_lists(self, count: int) -> dict[str, Any]:
        """The same from lists of floats."""
        return await self._bulk("upsert", count, self.vectors[:count].tolist())

    async def ingest(self, count: int) -> dict[str, Any]:
        """Rows of a numpy matrix, by the call for any number of them."""
        return await self._bulk("ingest", count, np.array(self.vectors[:count]))

    async def ingest_lists(self, count: int) -> dict[str, Any]:
        """The same from lists of floats."""
        return await self._bulk("ingest", count, self.vectors[:count].tolist())

    async def copy(self, count: int) -> dict[str, Any]:
        """COPY into a staging table, and merge."""
        return await self._bulk("copy", count, np.array(self.vectors[:count]))

    async def fill(self, count: int) -> dict[str, Any]:
        """All rows with their payloads, into a database of its own, and its index."""
        ids, rows = self.ids(count), np.array(self.vectors[:count])
        payloads = [payload(i) for i in range(count)]
        with self.timed(count) as answer:
            await self.contender.fill(ids, rows, payloads)
        return answer

    async def write_one(self, count: int) -> dict[str, Any]:
        """Changed rows, each by a call, and kept when it returns."""
        picked = np.random.default_rng(3).integers(0, len(self.vectors), count)
        noise = np.random.default_rng().normal(size=(count, self.vectors.shape[1])) * 0.01
        changed = (np.array(self.vectors[picked]) + noise).astype(np.float32)
        pairs = [(self.id(i), row) for i, row in zip(picked, changed, strict=True)]
        return await self.each(lambda pair: self.contender.write_one(*pair), pairs)

    async def stream(self, count: int, how: str = "stream") -> dict[str, Any]:
        """All rows with their vectors."""
        with self.timed(count) as answer:
            read = await getattr(self.contender, how)(count)
        if read != count:
            raise RuntimeError(f"{read} rows came of {count}")
        return answer

    async def peak_memory(self, count: int, of: str) -> dict[str, Any]:
        """The most that the process ever held, in bytes; its rows come from a generator."""
        await getattr(self.contender, f"{of}_generated")(count, self.vectors)
        # Not getrusage(): that peak has the process in it that started this one.
        status = await asyncio.to_thread(Path("/proc/self/status").read_text)
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return {"peak": int(peak.split()[1]) * 1024}
