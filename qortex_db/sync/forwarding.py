"""Objects of ours whose methods wait."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from qortex_db.repositories import (
    ArmRepository,
    EdgeRepository,
    EmbeddingRepository,
    FactorRepository,
    IdempotencyRepository,
    VectorRepository,
)
from qortex_db.sync.background import Calls
from qortex_db.uow import Repositories
from qortex_db.view import Lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qortex_db.sync.background import Runner
    from qortex_db.uow import UnitOfWork

T = TypeVar("T")

_AT_ONCE: Final = 100
"""How many items of an asynchronous iterator are fetched for each time that the thread waits."""
OURS: Final = (
    Repositories,
    ArmRepository,
    EdgeRepository,
    EmbeddingRepository,
    FactorRepository,
    IdempotencyRepository,
    VectorRepository,
    AsyncSession,
)


class Forwarded:
    """An object of the async package, whose methods wait for what they give.

    Args:
        target: The object.
        runner: Where its methods run.
    """

    def __init__(self, target: Any, runner: Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return _forwarded(getattr(self._target, name), self._runner)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._target)})

    def __repr__(self) -> str:
        return f"<waits for {self._target!r}>"


class ForwardedLanes(Forwarded):
    """A Database, or a view of one."""

    def run(self, work: Callable[[Any], T], **options: Any) -> T | None:
        """As of the async one, with a function that waits: it runs in a thread of its own."""

        async def bridged(uow: UnitOfWork) -> T:
            calls = Calls(asyncio.get_running_loop())

            def worked() -> T:
                try:
                    return work(Forwarded(uow, calls))
                finally:
                    calls.end()

            result = asyncio.ensure_future(asyncio.to_thread(worked))
            try:
                await calls.serve()
            finally:
                await asyncio.wait({result})
            return result.result()

        given: T | None = self._runner.call(lambda: self._target.run(bridged, **options))
        return given


def _forwarded(value: Any, runner: Runner) -> Any:
    if isinstance(value, Lanes):
        return ForwardedLanes(value, runner)
    if isinstance(value, OURS):
        return Forwarded(value, runner)
    return _waiting(value, runner) if inspect.ismethod(value) else value


def _waiting(method: Callable[..., Any], runner: Runner) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        given = runner.call(lambda: method(*args, **options))
        if isinstance(given, AsyncIterator):
            return _iterated(given, runner)
        if isinstance(given, AbstractAsyncContextManager) and not isinstance(given, OURS):
            return _block(given, runner)
        return _forwarded(given, runner)

    return call


@contextmanager
def _block(entered: AbstractAsyncContextManager[Any], runner: Runner) -> Iterator[Any]:
    with runner.block(entered) as (inside, calls):
        yield _forwarded(inside, calls)


def _iterated(items: AsyncIterator[Any], runner: Runner) -> Iterator[Any]:
    async def some() -> list[Any]:
        found: list[Any] = []
        async for item in items:
            found.append(item)
            if len(found) == _AT_ONCE:
                break
        return found

    try:
        while found := runner.call(some):
            yield from found
    finally:
        if close := getattr(items, "aclose", None):
            runner.call(close)
