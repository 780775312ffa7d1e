"""Whose event loop and process something belongs to: connections can't leave theirs."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import NullPool

from qortex_db.engine.connections.turns import turns_on
from qortex_db.errors import WrongLoopError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from qortex_db.engine.connections.turns import Turns

_PAUSE_SECONDS: Final = 0.005

_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - a process has one count
    _forks += 1


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_count_fork)


def forks() -> int:
    """How many forks lie before this process."""
    return _forks


def call_in(loop: asyncio.AbstractEventLoop, work: Callable[..., object], *given: object) -> None:
    """Have a loop of any thread call a function; one that is closed never will."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(work, *given)


@dataclass(slots=True)
class Home:
    """Where an engine's connections are, for all Databases over it.

    Attributes:
        loop: Whose event loop's they are; None before the first.
        forks: How many forks lie before this process.
        pool: Which has them.
        turns: Whose turn it is to ask that pool; None where it is fair itself.
    """

    loop: asyncio.AbstractEventLoop | None = None
    forks: int = field(default_factory=forks)
    pool: Any = None
    turns: Turns[Any] | None = None

    def enter(self, pool: Any) -> None:
        """Take the running loop for home, unless a pool has connections of another one.

        Raises:
            WrongLoopError: It has.
        """
        if self.loop is asyncio.get_running_loop() and self.forks == _forks:
            return
        # A host's may count nothing.
        empty = hasattr(pool, "checkedin") and not pool.checkedin() and not pool.checkedout()
        if self.loop and pool is self.pool and not empty and not isinstance(pool, NullPool):
            where = "process" if self.forks != _forks else "event loop"
            raise _wrong(f"This Database holds connections of another {where}.")
        self.loop, self.forks, self.pool = asyncio.get_running_loop(), _forks, pool
        self.turns = turns_on(pool)


class OneAtATime:
    """A lock for tasks of any event loop; asyncio's belongs to the first in which one waits.

    Args:
        waits: Whether a task waits for one of another loop, which runs in another thread.
    """

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        # By fork: a child is not held up by who was in the parent. Each is set by one thread.
        self._inside: dict[int, list[asyncio.AbstractEventLoop]] = {}

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A block that nobody else is in.

        Raises:
            WrongLoopError: Somebody is, in another event loop, and can't be waited for.
        """
        here = asyncio.get_running_loop()
        key, mine = _forks, [here]
        while (inside := self._inside.setdefault(key, mine)) is not mine:
            (loop,) = inside
            if loop is not here and not (self._waits and loop.is_running()):
                raise _wrong("This Database is being opened or closed in another event loop.")
            await asyncio.sleep(_PAUSE_SECONDS)
        try:
            yield
        finally:
            del self._inside[key]


def _wrong(what: str) -> WrongLoopError:
    return WrongLoopError(
        f"{what} Open one in each process and event loop that uses it (after a fork, in the "
        "child), and close it there: `async with Database.connect(…)`. Or use "
        'Settings(pool="null"), where each call has a connection of its own. On an engine of '
        "yours, `await engine.dispose(close=False)` first, or use poolclass=NullPool."
    )
