"""What is in flight on an engine: it ends in order, in the process and event loop it began in."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from qortex_db.engine.connections.cleanup import CLEANUP_SECONDS, Cleanup, task_of
from qortex_db.engine.connections.loops import Home, call_in, forks
from qortex_db.engine.connections.pool import FairPool
from qortex_db.engine.executor import catalog_of
from qortex_db.errors import POOL_TIMEOUT, DatabaseClosedError, PoolTimeoutError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.engine.connections.turns import Turn, Turns


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
        self._forks = forks()
        self._home: Home = catalog_of(self._engine).setdefault(Home, Home())

    @property
    def turns(self) -> Turns[Any] | None:
        """Whose turn it is on a host's pool; None where the pool is fair itself."""
        return self._home.turns

    @property
    def in_flight(self) -> int:
        """How many there are."""
        return sum(self._running.values())

    def begin(self) -> asyncio.Task[Any] | None:
        """Count one in; return its task, for `end`.

        Raises:
            DatabaseClosedError: No more are taken.
            WrongLoopError: The pool's connections are those of another event loop or process.
        """
        if self._closed:
            raise DatabaseClosedError
        self.settle()
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
            if self._closer is not None:  # it may wait in another thread
                call_in(self._closer.get_loop(), self._ended.set)

    def was_closed(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a cancellation was `close`'s: the task itself goes on, with an error."""
        if task is None or task not in self._cancelled:
            return False
        self._cancelled.discard(task)
        task.uncancel()
        return True

    def settle(self) -> None:
        """Have the connections be those of the running loop.

        Raises:
            WrongLoopError: The pool's connections are those of another event loop or process.
        """
        self._leave_parent()
        self._home.enter(self._engine.pool)

    def _leave_parent(self) -> None:
        """Forget, in a child, what was in flight in the process that it was forked from."""
        if self._forks != forks():
            self._forks = forks()
            self._running.clear()

    async def take_turn(self, turns: Turns[Any], *, borrows: bool) -> Turn[Any]:
        """Wait for one's turn on a host's pool, as long as for a connection of it.

        Args:
            borrows: Whether the call takes another's connection over.
        """
        pool: Any = self._engine.pool
        try:
            return await turns.take(borrows=borrows, seconds=pool.timeout(), cleanup=self.cleanup)
        except TimeoutError:
            raise PoolTimeoutError(POOL_TIMEOUT) from None

    async def close(self, grace_seconds: float) -> None:
        """Take no more, let what is in flight finish, then cancel it; at once if cancelled itself.

        Args:
            grace_seconds: How long it may take before it is cancelled.
        """
        self._leave_parent()
        self._closed = True
        self._closer = asyncio.current_task()
        try:
            await self._wait(grace_seconds)
        finally:
            for task in self._others():
                if task.get_loop() is asyncio.get_running_loop():
                    self._cancel(task)
                else:
                    call_in(task.get_loop(), self._cancel, task)

    async def finish(self) -> None:
        """Wait for what was cancelled, and for the clean-ups."""
        await self._wait(CLEANUP_SECONDS)
        await self.cleanup.finish()

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if task in self._running:  # else it has gone on to what is none of ours
            self._cancelled.add(task)
            task.cancel()

    def _others(self) -> list[asyncio.Task[Any]]:
        """Whoever closes can't wait for itself, nor for what will never run again."""
        return [
            task
            for task in tuple(self._running)
            if task is not None and task is not self._closer and not task.get_loop().is_closed()
        ]

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
