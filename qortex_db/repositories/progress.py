"""How far long work is, and who is told so."""

from __future__ import annotations

import time
from inspect import isawaitable
from typing import TYPE_CHECKING, Self

from qortex_db.observability import outside

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


class IngestProgress(int):
    """How many records `ingest` has read so far, which is its value, and how it goes.

    Attributes:
        rejected: How many of them were put aside.
        rows_per_second: Of the last batch, reading it included.
        seconds: Since it began.
    """

    rejected: int
    rows_per_second: float
    seconds: float

    def __new__(
        cls, read: int, *, rejected: int = 0, rows_per_second: float = 0.0, seconds: float = 0.0
    ) -> Self:
        """As `int` is made."""
        made = super().__new__(cls, read)
        made.rejected = rejected
        made.rows_per_second = rows_per_second
        made.seconds = seconds
        return made

    def __repr__(self) -> str:
        return (
            f"IngestProgress({int(self)}, rejected={self.rejected}, "
            f"rows_per_second={self.rows_per_second:.0f}, seconds={self.seconds:.1f})"
        )

    __str__ = int.__repr__


class Pace:
    """How fast rows are read, filled or changed, by when they were last counted.

    Args:
        done: How many were before it began.
    """

    def __init__(self, done: int = 0) -> None:
        self._start = self._last = time.perf_counter()
        self._done = done

    def progress(self, done: int, rejected: int = 0) -> IngestProgress:
        """How it goes, after so many in all."""
        now = time.perf_counter()
        rate = (done - self._done) / max(now - self._last, 1e-9)
        self._last, self._done = now, done
        seconds = now - self._start
        return IngestProgress(done, rejected=rejected, rows_per_second=rate, seconds=seconds)


async def tell(callback: Callable[[T], object] | None, value: T) -> None:
    """Call what may be a coroutine function, or not, or nobody."""
    with outside():
        outcome = None if callback is None else callback(value)
        if isawaitable(outcome):
            await outcome
