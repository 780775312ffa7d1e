"""What the works share: the data, and the clocks."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path


def payload(number: int) -> dict[str, int]:
    """What a row's payload is: keys that a known share of the rows has alike."""
    return {
        "group": number % 1000,
        "percent": number % 100,
        "tenth": number % 10,
        "half": number % 2,
    }


class Base:
    """A contender, and what the run left in its folder for it."""

    def __init__(self, contender: Any, folder: Path) -> None:
        self.contender = contender
        self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.queries = np.load(folder / "queries.npy")

    def id(self, number: int) -> str:
        return f"doc:{number:08}"

    def ids(self, count: int) -> list[str]:
        return [self.id(number) for number in range(count)]

    def questions(self, count: int) -> list[Any]:
        """That many queries, from the first again where there are fewer."""
        return [self.queries[i % len(self.queries)] for i in range(count)]

    @contextmanager
    def timed(self, operations: int) -> Iterator[dict[str, Any]]:
        """Time a block, and the process's own CPU in it, by the operation."""
        gc.collect()
        answer: dict[str, Any] = {"operations": operations}
        cpu, wall = time.process_time(), time.perf_counter()
        yield answer
        seconds = (time.perf_counter() - wall) / operations
        answer["cpu"] = (time.process_time() - cpu) / operations
        answer.setdefault("seconds", [seconds])

    async def each(
        self, operation: Callable[[Any], Awaitable[Any]], arguments: Sequence[Any]
    ) -> dict[str, Any]:
        """Time an operation with one argument after another, each by itself."""
        seconds = []
        with self.timed(len(arguments)) as answer:
            for argument in arguments:
                start = time.perf_counter()
                await operation(argument)
                seconds.append(time.perf_counter() - start)
            answer["seconds"] = seconds
        return answer
