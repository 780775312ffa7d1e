"""A connection borrowed from the pool, and statements on its driver that can be cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy.util import await_only, greenlet_spawn

from qortex_db.engine.cleanup import finished, task_of
from qortex_db.engine.executor import Fetched
from qortex_db.errors import is_connection_lost

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

    from qortex_db.engine.compiled import Compiled

_CLEANUP_SECONDS: Final = 3.0


class UnsentError(Exception):
    """No connection could be had: nothing reached the server, so anything may be repeated."""


class _StoppedError(Exception):
    """Its caller was cancelled: what was sent of a batch is to be rolled back."""


class Lease:
    """A driver's connection, borrowed from a pool; inside a greenlet, as the pool may wait.

    A fresh or returned connection is in no transaction: SQLAlchemy begins one at its cursor's first
    statement. So a statement that the driver runs by itself is its own transaction, unless a host's
    hook used a cursor at connect or checkout.
    """

    __slots__ = ("_engine", "_held", "driver")

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __enter__(self) -> Self:
        try:
            self._held = self._engine.raw_connection()
        except Exception as error:
            raise UnsentError from error
        self.driver: Any = self._held.driver_connection
        return self

    def commit(self) -> None:
        """End what a hook began: the pool would roll it back, and our write with it."""
        if self.driver.is_in_transaction():
            self._held.dbapi_connection.commit()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and not isinstance(error, Exception):
            # Cancelled, it may still be busy: closing it has the server stop.
            closing = task_of(greenlet_spawn(self._held.invalidate, error))
            with suppress(asyncio.CancelledError):  # what is on its way goes on
                await_only(finished(closing, _CLEANUP_SECONDS))
        elif error is not None and is_connection_lost(error):
            self._held.invalidate(error)
        else:
            self._held.close()


async def execute(driver: Any, compiled: Compiled, arguments: list[Any]) -> Fetched:
    if compiled.returns_rows:
        records = await driver.fetch(compiled.sql, *arguments)
        return Fetched(compiled.rows(records), len(records))
    status: str = await driver.execute(compiled.sql, *arguments)
    return Fetched((), int(status.rpartition(" ")[2]))  # such as "INSERT 0 5"


async def pipeline(driver: Any, sql: str, arguments: Iterable[list[Any]]) -> int:
    """Run a statement with many arguments as one transaction; return how many rows came back.

    asyncpg swallows a cancellation that comes while the socket is full, and then waits for the
    answer to a batch whose end it never sent. So it sends in a task that nobody cancels: it is
    stopped by its input, on which it rolls back. And of what the input refuses it makes a TypeError
    if rows of the batches before come in after that.
    """
    stopped = False
    refusal: Exception | None = None

    def until_stopped() -> Iterator[list[Any]]:
        nonlocal refusal
        try:
            for each in arguments:
                yield each
                if stopped:
                    break
        except Exception as error:
            refusal = error
            raise
        if stopped:
            raise _StoppedError

    sending = task_of(driver.fetchmany(sql, until_stopped()))
    try:
        await asyncio.wait({sending})
    finally:
        stopped = True
    if sending.exception() is not None and refusal is not None:
        raise refusal
    return len(sending.result())


async def cancelled_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Await work that is cancelled no more than once, and then has time to clean up."""
    task = task_of(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await finished(task, _CLEANUP_SECONDS)
        raise
    return task.result()
