"""Bandits, factors and edges."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from works.base import Base

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Learning(Base):
    """Counting rewards and choosing; saving and loading what was learned."""

    has_arms = False

    async def observe(self, count: int, tasks: int, arms: int) -> dict[str, Any]:
        """Rewards counted, and how many of them are there afterwards."""
        name = f"learner-{time.time_ns()}"
        numbers = iter(range(count))

        async def run() -> None:
            for i in numbers:
                await self.contender.observe(name, f"arm:{i % arms}", 0.5)

        with self.timed(count) as answer:
            await asyncio.gather(*(run() for _ in range(tasks)))
        kept = await self.contender.pulls(name, [f"arm:{i}" for i in range(arms)])
        return answer | {"lost": 1 - kept / count}

    async def observe_many(self, count: int) -> dict[str, Any]:
        """Many rewards by one call."""
        name = f"learner-{time.time_ns()}"
        pairs = [(f"arm:{i % 100}", 0.5) for i in range(count)]
        with self.timed(count) as answer:
            await self.contender.observe_many(name, pairs)
        return answer

    async def _arms(self) -> tuple[str, list[str]]:
        name, arms = "learner-select", [f"arm:{i}" for i in range(100)]
        if not self.has_arms:
            await self.contender.observe_many(name, [(arm, 0.5) for arm in arms])
            self.has_arms = True
        return name, arms

    async def select(self, count: int) -> dict[str, Any]:
        """One of a hundred candidates."""
        name, arms = await self._arms()
        return await self.each(lambda _: self.contender.select(name, arms), [0] * count)

    async def states(self, count: int) -> dict[str, Any]:
        """What is known of a hundred arms."""
        name, _ = await self._arms()
        return await self.each(lambda _: self.contender.states(name), [0] * count)

    async def save_factors(self, count: int) -> dict[str, Any]:
        """Weights by node."""
        weights = {f"node:{i:06}": 1.0 + i / count for i in range(count)}
        return await self._whole(self.contender.save_factors(weights))

    async def load_factors(self, count: int) -> dict[str, Any]:
        """All weights."""
        return await self._whole(self.contender.load_factors(), count)

    async def save_edges(self, count: int) -> dict[str, Any]:
        """Edges of ten scores."""
        edges = {
            (f"node:{i:06}", f"node:{i + 1:06}"): [round(0.5 + 0.01 * j, 2) for j in range(10)]
            for i in range(count)
        }
        return await self._whole(self.contender.save_edges(edges))

    async def load_edges(self, count: int) -> dict[str, Any]:
        """All edges."""
        return await self._whole(self.contender.load_edges(), count)

    async def _whole(self, work: Awaitable[Any], expected: int | None = None) -> dict[str, Any]:
        with self.timed(1) as answer:
            result = await work
        if expected is not None and len(result) != expected:
            raise RuntimeError(f"{len(result)} rows came of {expected}")
        return answer
