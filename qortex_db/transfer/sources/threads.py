"""A client that waits, in a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

P = ParamSpec("P")
T = TypeVar("T")


class OneThread:
    """Runs one call after the other in the same thread, as clients of SQLite's need it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "qortex-db-source")

    async def run(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """What the call gives."""
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: call(*args, **options)
        )

    async def each(self, items: Iterator[T]) -> AsyncIterator[T]:
        """What an iterator gives, which is asked in the thread."""
        end = object()
        while (item := await self.run(next, items, end)) is not end:
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """End the thread once it has done what it was given."""
        self._pool.shutdown(wait=False)
