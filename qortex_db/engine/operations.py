"""What is in flight on an engine: it ends in order, in the process and event loop it began in."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import NullPool, QueuePool

from qortex_db.engine.cleanup import CLEANUP_SECONDS, Cleanup, task_of
from qortex_db.engine.executor import catalog_of
from qortex_db.engine.pool import FairPool
from qortex_db.errors import POOL_TIMEOUT, DatabaseClosedError, PoolTimeoutError, WrongLoopError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - a process has one count
    _forks += 1


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_count_fork)


@dataclass(slots=True)
class _Home:
    """Where an engine's connections are, for all Databases over it.

    Attributes:
        loop: Whose event loop's they are; None before the first.
        forks: How many forks lie before this process.
        pool: Which has them.
        gate: How many calls may ask that pool at once.
    """

    loop: asyncio.AbstractEventLoop | None = None
    forks: int = field(default_factory=lambda: _forks)
    pool: Any = None
    gate: asyncio.Semaphore | None = None


class Operations:
    """The calls and units of work that are in flight on an engine, and their clean-ups.

    Args:
        engine: On which they run.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.sync_engine
        self.cleanup: Cleanup = catalog_of(self._engine).setdefault(Cleanup, Cleanup())
        self._running: dict[asyncio.Task[Any] | None, int] = {}
        self._cancelled: set[asyncio.Task[Any] | None] = set()
        self._closed = False
        self._closer: asyncio.Task[Any] | None = None
        self._ended = asyncio.Event()
        self._home: _Home = catalog_of(self._engine).setdefault(_Home, _Home())

    @property
    def gate(self) -> asyncio.Semaphore | None:
        """Where calls wait for their turn on a host's pool; None where the pool is fair itself."""
        return self._home.gate

    def begin(self) -> asyncio.Task[Any] | None:
        """Count one in; return its task, for `end`.

        Raises:
            DatabaseClosedError: No more are taken.
            WrongLoopError: The pool's connections are those of another event loop or process.
        """
        if self._closed:
            raise DatabaseClosedError
        home = self._home
        if home.loop is not asyncio.get_running_loop() or home.forks != _forks:
            self._move()
        task = asyncio.current_task()
        self._running[task] = self._running.get(task, 0) + 1
        return task

    def end(self, task: asyncio.Task[Any] | None) -> None:
        """Count one out."""
        left = self._running[task] - 1
        if left:
            self._running[task] = left
        else:
            del self._running[task]
            if self._closed:
                self._ended.set()

    def was_closed(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a cancellation was `close`'s: the task itself goes on, with an error."""
        if task is None or task not in self._cancelled:
            return False
        self._cancelled.discard(task)
        task.uncancel()
        return True

    def _move(self) -> None:
        """Take the running loop for home, unless connections of another one lie in the pool."""
        home = self._home
        here = self._engine.pool
        used: Any = here  # a host's may count nothing
        empty = hasattr(here, "checkedin") and not used.checkedin() and not used.checkedout()
        if home.loop and here is home.pool and not empty and not isinstance(here, NullPool):
            where = "process" if home.forks != _forks else "event loop"
            raise WrongLoopError(
                f"This Database holds connections of another {where}. Open one in each {where} "
                "that uses it (after a fork, in the child), and close it there: `async with "
                "Database.connect(…)`. On an engine of yours, `await engine.dispose(close=False)` "
                "first, or use poolclass=NullPool."
            )
        home.loop, home.forks, home.pool = asyncio.get_running_loop(), _forks, here
        # SQLAlchemy's own pool gives a connection to whoever asks first, not to who waits longest:
        # so no more calls than it has connections for ask at once.
        most = used._max_overflow if isinstance(here, QueuePool) else -1  # noqa: SLF001 - it has no public name
        unfair = most >= 0 and not isinstance(here, FairPool)
        home.gate = asyncio.Semaphore(used.size() + most) if unfair else None

    async def pass_gate(self) -> asyncio.Semaphore | None:
        """Wait for one's turn on a host's pool; return what has to be released."""
        gate = self.gate
        if gate is not None:
            pool: Any = self._engine.pool
            try:
                async with asyncio.timeout(pool.timeout()):
                    await gate.acquire()
            except TimeoutError:
                raise PoolTimeoutError(POOL_TIMEOUT) from None
        return gate

    async def close(self, grace_seconds: float) -> None:
        """Take no more, let what is in flight finish, then cancel it; at once if cancelled itself.

        Args:
            grace_seconds: How long it may take before it is cancelled.
        """
        self._closed = True
        self._closer = asyncio.current_task()
        try:
            await self._wait(grace_seconds)
        finally:
            for task in self._others():
                self._cancelled.add(task)
                task.cancel()

    async def finish(self) -> None:
        """Wait for what was cancelled, and for the clean-ups."""
        await self._wait(CLEANUP_SECONDS)
        await self.cleanup.finish()

    def _others(self) -> list[asyncio.Task[Any]]:
        """Whoever closes can't wait for itself."""
        return [task for task in self._running if task is not None and task is not self._closer]

    async def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._others() and (left := deadline - time.monotonic()) > 0:
            self._ended.clear()
            try:
                await asyncio.wait_for(self._ended.wait(), left)
            except TimeoutError:
                return


async def dispose(engine: AsyncEngine) -> None:
    """Close an engine's connections, all at once and within a bound.

    SQLAlchemy closes one after the other, and each may wait for a server that is silent.
    """
    pool = engine.pool
    if isinstance(pool, FairPool):
        pool.refuse(DatabaseClosedError())
        idle: list[Any] = [entry.driver_connection for entry in pool.idle()]
        closing = [task_of(driver.close()) for driver in idle if driver]
        if closing:
            await asyncio.wait(closing, timeout=CLEANUP_SECONDS)
        used: list[Any] = [entry.driver_connection for entry in pool.used()]
        for driver in (*idle, *used):
            if driver:
                driver.terminate()
    await engine.dispose()
