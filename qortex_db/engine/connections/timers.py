"""One timer for all time limits of a connection.

asyncpg starts a timer with each statement and cancels it with the answer: a tenth of what a call
costs here. Nearly none of them ever rings, so one is enough, which looks at what still waits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class OneTimerLoop:
    """An event loop as a driver's connection sees it, whose `call_later` shares one timer.

    Args:
        loop: Which does everything else.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: set[_Waiting] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> _Waiting:
        """As the loop's, to the moment."""
        waiting = _Waiting(self._waiting, self._loop.time() + delay, callback, args)
        self._waiting.add(waiting)
        if waiting.when < self._at:
            self._set(waiting.when)
        return waiting

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = when
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer, self._at = None, math.inf
        now = self._loop.time()
        for each in [each for each in self._waiting if each.when <= now]:
            each.cancel()
            self._loop.call_soon(each.callback, *each.args)
        if self._waiting:
            self._set(min(each.when for each in self._waiting))


class _Waiting:
    """What `call_later` gives."""

    __slots__ = ("_among", "args", "callback", "when")

    def __init__(
        self,
        among: set[_Waiting],
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
    ) -> None:
        self._among = among
        self.when = when
        self.callback = callback
        self.args = args

    def cancel(self) -> None:
        self._among.discard(self)
