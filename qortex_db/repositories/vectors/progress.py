"""How far long work is, and who is told so."""

from __future__ import annotations

import time
from inspect import isawaitable
from typing import TYPE_CHECKING

from qortex_db.repositories.vectors.records import IngestProgress

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


class Pace:
    """How fast records are read or filled, by when they were last counted."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._done = 0

    def progress(self, done: int, rejected: int = 0) -> IngestProgress:
        """How it goes, after so many in all."""
        now = time.perf_counter()
        rate = (done - self._done) / max(now - self._last, 1e-9)
        self._last, self._done = now, done
        seconds = now - self._start
        return IngestProgress(done, rejected=rejected, rows_per_second=rate, seconds=seconds)


async def tell(callback: Callable[[T], object] | None, value: T) -> None:
    """Call what may be a coroutine function, or not, or nobody."""
    outcome = None if callback is None else callback(value)
    if isawaitable(outcome):
        await outcome
