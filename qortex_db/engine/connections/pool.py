"""A pool that is fair: a connection goes to whoever has waited longest."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import AsyncAdaptedQueuePool, exc
from sqlalchemy.util import await_only
from sqlalchemy.util.queue import Empty, Full, QueueCommon

from qortex_db.errors import OverloadedError, PoolTimeoutError
from qortex_db.observability.metrics import pool_wait

if TYPE_CHECKING:
    from sqlalchemy import QueuePool
    from sqlalchemy.pool import ConnectionPoolEntry

_ROUNDS: Final = 2
"""How often each connection has to have been handed over before a wait is foretold."""


_acting: dict[asyncio.Task[Any] | None, asyncio.Task[Any] | None] = {}


def act_for_caller(task: asyncio.Future[Any]) -> None:
    """Have a task that this one starts and waits for count as this one."""
    if isinstance(task, asyncio.Task):
        _acting[task] = _current()
        task.add_done_callback(_acting.pop)


def _current() -> asyncio.Task[Any] | None:
    task = asyncio.current_task()
    return _acting.get(task, task)


class _FairQueue(QueueCommon["ConnectionPoolEntry"]):
    """Idle connections, or else those who wait for one, the oldest first.

    asyncio's queues wake a waiter and keep the item for whoever comes first, which is the task that
    has just put it back.
    """

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:  # noqa: FBT001, FBT002 - SQLAlchemy's
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self.idle: deque[ConnectionPoolEntry] = deque()
        # The oldest first; a dict is slow at that end.
        self.waiting: OrderedDict[asyncio.Future[Any], asyncio.Task[Any] | None] = OrderedDict()
        self.waiters: set[asyncio.Task[Any] | None] = set()
        self._handed_over: deque[float] = deque(maxlen=_ROUNDS * max(1, maxsize))

    def empty(self) -> bool:
        return not self.idle

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self.idle)

    def qsize(self) -> int:
        return len(self.idle)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - SQLAlchemy's
        self.put_nowait(item)

    def put_nowait(self, item: Any) -> None:
        if waiter := self._oldest():
            waiter.set_result(item)
            self._handed_over.append(time.monotonic())
        elif self.full():
            raise Full
        else:
            self._handed_over.clear()
            self.idle.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - SQLAlchemy's
        if self.idle or not block:
            return self.get_nowait()
        return await_only(self.wait(timeout))

    def get_nowait(self) -> Any:
        if not self.idle:
            raise Empty
        return self.idle.pop() if self.use_lifo else self.idle.popleft()

    async def wait(self, timeout: float | None) -> Any:  # noqa: ASYNC109 - SQLAlchemy's
        """Wait one's turn; `Empty` where the time is up, or there is room for another."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        task = _current()
        self.waiting[waiter] = task
        self.waiters.add(task)
        timer = None if timeout is None else loop.call_later(timeout, _expire, waiter)
        begun = time.perf_counter()
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # what it was given goes to the next
                if error := waiter.exception():
                    self.wake(error)
                else:
                    self.put_nowait(waiter.result())
            raise
        finally:
            pool_wait.record(time.perf_counter() - begun)
            self.waiting.pop(waiter, None)
            self.waiters.discard(task)
            if timer is not None:
                timer.cancel()

    def _oldest(self) -> asyncio.Future[Any] | None:
        while self.waiting:
            waiter, task = self.waiting.popitem(last=False)
            self.waiters.discard(task)
            if not waiter.done():
                return waiter
        return None

    def wake(self, error: BaseException, *, everybody: bool = False) -> None:
        """Tell the oldest of those who wait, or all, that there is nothing to wait for."""
        while waiter := self._oldest():
            waiter.set_exception(error)
            if not everybody:
                return

    def foretold_seconds(self) -> float:
        """How long a further one would wait, by how fast connections came; 0 where nobody knows."""
        times = self._handed_over
        if len(times) < (times.maxlen or 0):
            return 0.0
        return (len(self.waiting) + 1) * (time.monotonic() - times[0]) / len(times)


def capacity_of(pool: QueuePool) -> float:
    """How many connections a pool has at most; infinite where it is not bounded."""
    beyond: int = pool._max_overflow  # noqa: SLF001 - it has no public name
    return pool.size() + beyond if beyond >= 0 else math.inf


def _expire(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(Empty())


class FairPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool, where a connection goes to the task that has waited longest for one.

    With SQLAlchemy's own, a task that calls again and again keeps its connection, and the others
    wait until their time is up. Use it on an engine of yours:
    `create_async_engine(url, poolclass=FairPool)`.

    Args:
        creator: As of SQLAlchemy's pools.
        max_waiting: How many may wait for a connection. None: as many as will have one in time.
        options: As of `QueuePool`; `use_lifo` by default.

    Raises:
        OverloadedError: From what asks for a connection: `max_waiting` others wait already, or by
            the pace of the last ones it would wait longer than the pool's timeout.
        PoolTimeoutError: Every connection is held by a task that itself waits for one, such as by a
            call of a `Database` inside a unit of work. Nobody would ever have one.
    """

    _queue_class = _FairQueue

    # Not keyword-only: by its signature create_engine knows what is the pool's.
    def __init__(self, creator: Any, max_waiting: int | None = None, **options: Any) -> None:
        options.setdefault("use_lifo", True)  # the warm connections stay in use
        super().__init__(creator, **options)
        self._max_waiting = max_waiting
        self._handed: ConnectionPoolEntry | None = None
        self._holders: dict[ConnectionPoolEntry, asyncio.Task[Any] | None] = {}

    @property
    def _queue(self) -> _FairQueue:
        return cast("_FairQueue", self._pool)

    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._queue.waiting)

    def idle(self) -> list[ConnectionPoolEntry]:
        """The connections that nobody uses."""
        return list(self._queue.idle)

    def used(self) -> list[ConnectionPoolEntry]:
        """The connections that somebody uses."""
        return list(self._holders)

    def refuse(self, error: Exception) -> None:
        """End the wait of everybody who waits."""
        self._queue.wake(error, everybody=True)

    def recreate(self) -> FairPool:
        """A new one like it, for `Engine.dispose`."""
        fresh: Any = super().recreate()
        fresh._max_waiting = self._max_waiting  # noqa: SLF001 - its own kind
        return fresh  # type: ignore[no-any-return]

    def is_full(self) -> bool:
        """Whether a connection has to be waited for: none is idle, and there will be no more."""
        return not self._queue.idle and self._overflow >= self._max_overflow > -1

    async def turn(self) -> ConnectionPoolEntry | None:
        """Wait for a connection without a greenlet; None where there is room for another instead.

        Raises:
            TimeoutError: SQLAlchemy's: the time was up.
            OverloadedError: As of the pool.
            PoolTimeoutError: As of the pool.
        """
        self._check_wait(self.size() + self._max_overflow)
        deadline = time.monotonic() + self._timeout
        try:
            record: ConnectionPoolEntry = await self._queue.wait(self._timeout)
        except Empty:
            if time.monotonic() >= deadline:
                raise exc.TimeoutError("The pool's timeout was up.") from None
            return None
        self._holders[record] = _current()
        return record

    def hand_over(self, record: ConnectionPoolEntry) -> None:
        """Have what is asked for next, at once, be this one, which is held already."""
        self._handed = record

    def _do_get(self) -> ConnectionPoolEntry:
        if self._handed is not None:
            handed, self._handed = self._handed, None
            return handed
        capacity = self.size() + self._max_overflow
        if self.is_full():
            self._check_wait(capacity)
        record = self._got()
        self._holders[record] = _current()
        return record

    def take(self) -> ConnectionPoolEntry:
        """An idle connection, of those that `idle` has."""
        record: ConnectionPoolEntry = self._queue.get_nowait()
        self._holders[record] = _current()
        return record

    def _got(self) -> ConnectionPoolEntry:
        """Wait again where another took the room that there was: it is no time-out."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return super()._do_get()
            except exc.TimeoutError:
                if time.monotonic() >= deadline:
                    raise

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._holders.pop(record, None)
        super()._do_return_conn(record)

    def _dec_overflow(self) -> Any:
        done = super()._dec_overflow()
        self._queue.wake(Empty())  # there is room for a connection of its own
        return done

    def _check_wait(self, capacity: int) -> None:
        waiting = self._queue.waiting
        if len(self._holders) >= capacity:
            waiters, mine = self._queue.waiters, _current()
            if all(each is mine or each in waiters for each in self._holders.values()):
                raise PoolTimeoutError(
                    f"All {capacity} connections of the pool are held by tasks that themselves wait"
                    " for one, so none would ever become free. Inside a unit of work use its own "
                    "repositories (uow.vectors, not db.vectors), or raise pool_max_size."
                )
        if self._max_waiting is not None and len(waiting) >= self._max_waiting:
            raise OverloadedError(
                f"{len(waiting)} calls wait for the pool's {capacity} connections already "
                "(max_waiting). Try again later, raise pool_max_size, or send less at once."
            )
        foretold = self._queue.foretold_seconds()
        if foretold > self._timeout:
            raise OverloadedError(
                f"{len(waiting)} calls wait for the pool's {capacity} connections: a further one "
                f"would wait some {foretold:.0f} s, longer than pool_timeout_seconds "
                f"({self._timeout:g}). Try again later, raise pool_max_size, or send less at once."
            )
