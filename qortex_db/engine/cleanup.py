"""Clean-up that comes to its end however often its caller is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


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
