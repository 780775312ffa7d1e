"""Clean-up that comes to its end however often its caller is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Coroutine


CLEANUP_SECONDS: Final = 3.0
"""How long a clean-up may take: as long as asyncpg asks the server to stop."""
_AT_ONCE_SECONDS: Final = 0.05
"""How long a caller who was cancelled waits for it: a server that is there needs a millisecond."""


class Cleanup:
    """The clean-ups that an engine owns: they go on after their callers were cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def own(self, task: asyncio.Future[Any]) -> None:
        """Take over a task that goes on by itself."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_for(self, work: Coroutine[Any, Any, Any], *, at_once: bool) -> None:
        """Begin a clean-up, and wait for it; but no longer than whoever cancelled its caller."""
        await self.wait_for_task(task_of(work), at_once=at_once)

    async def wait_for_task(self, task: asyncio.Future[Any], *, at_once: bool) -> None:
        """Own a task that cleans up, and wait for it likewise."""
        self.own(task)
        await finished(task, _AT_ONCE_SECONDS if at_once else CLEANUP_SECONDS)

    async def finish(self) -> None:
        """Wait for all of them in the running loop; another one's end there."""
        here = asyncio.get_running_loop()
        tasks = [task for task in tuple(self._tasks) if task.get_loop() is here]
        if tasks:
            await asyncio.wait(tasks, timeout=CLEANUP_SECONDS)


def task_of(work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    """Work as a task of its own; where nobody is left to hear of its error, asyncio logs none."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def finished(task: asyncio.Future[Any], seconds: float) -> None:
    """Wait until a task has ended or the time is up; only then a cancellation goes on.

    anyio cancels at each turn of the loop. Cut short, a clean-up would leave the server working.
    """
    cancelled = None
    deadline = time.monotonic() + seconds
    while not task.done() and (left := deadline - time.monotonic()) > 0:
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    if cancelled is not None:
        raise cancelled
