"""Whose turn it is on a host's pool, and the connection that goes from call to call with it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from sqlalchemy import QueuePool

from qortex_db.engine.connections.cleanup import task_of
from qortex_db.engine.connections.pool import FairPool, capacity_of
from qortex_db.observability.metrics import pool_wait

if TYPE_CHECKING:
    from qortex_db.engine.connections.cleanup import Cleanup
_PATIENCE_SECONDS: Final = 0.02
"""How long a call waits for another's connection before one is opened beyond the pool's size: that
takes longer, and the pool closes it when it comes back."""


class Borrowed(Protocol):
    """A connection of the pool's, which has to go back to it."""

    async def give_back(self) -> None: ...


LeaseT = TypeVar("LeaseT", bound=Borrowed)


class Turn(Generic[LeaseT]):
    """A call's right to ask the pool.

    Attributes:
        lease: A connection that the call before left for this one; None where there is none.
    """

    __slots__ = ("_turns", "lease")

    def __init__(self, turns: Turns[LeaseT]) -> None:
        self._turns = turns
        self.lease: LeaseT | None = None

    def borrow(self) -> LeaseT | None:
        """Take what was left, once."""
        lease, self.lease = self.lease, None
        return lease

    def lends(self) -> bool:
        """Whether whoever is next takes a connection over; it is that one until something waits."""
        return self._turns.next_borrows()

    def end(self, cleanup: Cleanup) -> None:
        """Leave it to whoever waits longest, with its connection."""
        self._turns.end(self, cleanup)


class Turns(Generic[LeaseT]):
    """Turns on a pool of SQLAlchemy's own, for the calls of all Databases over it.

    That pool gives a connection to whoever asks first, not to who waits longest, and closes what it
    has beyond its size whenever it comes back: so no more calls ask at once than it has
    connections, and one that ends leaves its connection to the one that has waited longest.

    Args:
        size: How many connections the pool keeps.
        most: How many it has at most.
    """

    def __init__(self, size: float, most: float) -> None:
        self._size = size
        self._most = most
        self._taken = 0
        self._waiting: deque[tuple[asyncio.Future[Turn[LeaseT]], bool]] = deque()

    def next_borrows(self) -> bool:
        """Whether there is a next one, who takes a connection over."""
        return self._next() and self._waiting[0][1]

    async def take(self, *, borrows: bool, seconds: float, cleanup: Cleanup) -> Turn[LeaseT]:
        """Wait for one's turn.

        Args:
            borrows: Whether it takes a connection over.
            seconds: How long.
            cleanup: For a connection that was left for a call that is cancelled.

        Raises:
            TimeoutError: The time was up.
        """
        if self._taken < self._size and not self._next():
            self._taken += 1
            return Turn(self)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Turn[LeaseT]] = loop.create_future()
        self._waiting.append((waiter, borrows))
        timers = (
            loop.call_later(_PATIENCE_SECONDS, self._lose_patience, waiter),
            loop.call_later(seconds, _expire, waiter),
        )
        begun = time.perf_counter()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and not waiter.exception():
                self.end(waiter.result(), cleanup)
            raise
        finally:
            pool_wait.record(time.perf_counter() - begun)
            for timer in timers:
                timer.cancel()

    def end(self, turn: Turn[LeaseT], cleanup: Cleanup) -> None:
        """Leave it to whoever waits longest, with its connection."""
        if self._next():
            self._waiting.popleft()[0].set_result(turn)
            return
        self._taken -= 1
        if turn.lease is not None:  # whoever it was left for was cancelled
            cleanup.own(task_of(turn.lease.give_back()))

    def _next(self) -> bool:
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    def _lose_patience(self, waiter: asyncio.Future[Turn[LeaseT]]) -> None:
        if not waiter.done() and self._taken < self._most:
            self._taken += 1
            waiter.set_result(Turn(self))


def turns_on(pool: Any) -> Turns[Any] | None:
    """Those of a pool; None where it sees to that itself, or has no bound that could be met."""
    if not isinstance(pool, QueuePool) or isinstance(pool, FairPool):
        return None
    most = capacity_of(pool)
    return Turns(pool.size() or most, most)


def _expire(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
