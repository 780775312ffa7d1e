"""Statements on a driver's connection that can be cancelled."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from qortex_db.engine.connections.cleanup import task_of
from qortex_db.engine.connections.pool import act_for_caller
from qortex_db.engine.executor import Fetched

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from qortex_db.engine.compiled import Compiled
    from qortex_db.engine.connections.cleanup import Cleanup
    from qortex_db.observability.statement_spans import StatementSpans

T = TypeVar("T")

_FOREVER: Final = 10.0**9
"""Seconds; asyncpg takes None for the connection's own limit."""
_ON_ITS_WAY: Final = 64
"""How many statements of a batch the buffers between here and a server hold."""
_LATER_SECONDS: Final = 1.0
_WRITTEN: Final = "WITH _written AS ({sql}) SELECT {rows}"
_NUMBER: Final = "pg_catalog.pg_current_xact_id()::text"
_LIMITED: Final = """
WHERE (SELECT pg_catalog.set_config('statement_timeout',
  CASE WHEN pg_catalog.current_setting('statement_timeout')::interval
    BETWEEN interval '1 ms' AND {limit}::text::interval
  THEN pg_catalog.current_setting('statement_timeout') ELSE {limit}::text END, true)) IS NOT NULL"""
"""For the rest of the transaction; a server that is stricter stays so."""


class RefusedError(Exception):
    """What a caller gave can't be made a parameter, whatever its error is: no connection broke.

    Attributes:
        error: A caller's own code may have raised it.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


def taken(given: Iterable[T]) -> Iterator[T]:
    """What is made while it is sent, so that its own errors are none of the connection's."""
    made = iter(given)
    while True:
        try:
            each = next(made)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - the caller's own
            raise RefusedError(error) from None
        yield each


class _StoppedError(Exception):
    """Its caller was cancelled: what was sent of a batch is to be rolled back."""


async def execute(
    driver: Any,
    compiled: Compiled,
    arguments: list[Any],
    limit: float | None = None,
    spans: StatementSpans | None = None,
) -> Fetched:
    """Run a statement, for as long as the connection's own limit where none is given."""
    if spans is not None:
        run = execute(driver, compiled, arguments, limit)
        return await spans.around(compiled.sql, run)
    if compiled.returns_rows:
        records = await driver.fetch(compiled.sql, *arguments, timeout=limit)
        return Fetched(compiled.rows(records), len(records))
    status: str = await driver.execute(compiled.sql, *arguments, timeout=limit)
    return Fetched((), int(status.rpartition(" ")[2]))  # such as "INSERT 0 5"


@contextmanager
def patient(driver: Any, limit: float | None) -> Iterator[None]:
    """Have a driver wait for as long as a limit that the server keeps, if that is longer."""
    config = driver._config  # noqa: SLF001 - it has no public name
    own = config.command_timeout
    if limit is not None and own is not None and own <= limit:
        driver._config = config._replace(command_timeout=limit + _LATER_SECONDS)  # noqa: SLF001
    try:
        yield
    finally:
        driver._config = config  # noqa: SLF001


def _batched(compiled: Compiled, *, limited: bool, tells: bool) -> str:
    """A statement of a batch, which limits the next, and tells its transaction's number."""
    if not limited and not tells:
        return compiled.sql
    told = _NUMBER if tells else "1"
    rows = f"_written.*, {told} FROM _written" if compiled.returns_rows else told
    limit = _LIMITED.format(limit=f"${compiled.size + 1}") if limited else ""
    return _WRITTEN.format(sql=compiled.sql, rows=rows) + limit


def _rows(compiled: Compiled, answer: Sequence[Any], *, alone: bool) -> Sequence[Any]:
    if not compiled.returns_rows:
        return ()
    return compiled.rows(answer if alone else [each[:-1] for each in answer])


async def pipeline(
    driver: Any,
    compiled: Compiled,
    arguments: Iterable[list[Any]],
    limit: float | None,
    *,
    tells: bool = False,
) -> tuple[Sequence[Any], str | None]:
    """Run a statement with many arguments as one transaction.

    asyncpg swallows a cancellation that comes while the socket is full, and then waits for the
    answer to a batch whose end it never sent. So it sends in a task that nobody cancels: it is
    stopped by its input, on which it rolls back. And of what the input refuses it makes a TypeError
    if rows of the batches before come in after that, and what is no Exception it swallows.

    Its time limit would be one for the whole batch. So each statement tells the server to limit the
    next, the first of them without arguments: it writes nothing, though a trigger FOR EACH
    STATEMENT sees it.

    Args:
        tells: Whether the transaction's number is asked for, with each statement.

    Returns:
        The rows that came back, and the number; None where there was no row to tell it.

    Raises:
        TimeoutError: A statement took longer than the connection's limit.
    """
    limit = limit or driver._config.command_timeout  # noqa: SLF001 - it has no public name
    sql, given = _batched(compiled, limited=limit is not None, tells=tells), iter(arguments)
    if limit is not None:
        said = f"{max(1, round(limit * 1_000))}ms"
        given = ([*each, said] for each in itertools.chain([[None] * compiled.size], given))
    sent = 0
    stopped = False
    refusal: BaseException | None = None

    def until_stopped() -> Iterator[list[Any]]:
        nonlocal refusal, sent
        while not stopped:
            try:
                each = next(given)
            except StopIteration:
                return
            except BaseException as error:  # noqa: BLE001 - raised by the caller
                refusal = error
                break
            yield each
            sent += 1
        raise _StoppedError

    start = time.monotonic()
    sending = task_of(driver.fetchmany(sql, until_stopped(), timeout=_FOREVER))
    try:
        await _answered(sending, limit, lambda: sent)
    except TimeoutError:
        driver.terminate()  # the server does not even say that it is late
        raise
    finally:
        stopped = True
    if refusal is not None:
        raise refusal
    try:
        answer = sending.result()
    except asyncpg.QueryCanceledError:
        if limit is None or time.monotonic() - start < limit:  # somebody else's doing
            raise
        raise TimeoutError from None  # as of a statement that is alone
    number = answer[-1][-1] if tells and answer else None
    return _rows(compiled, answer, alone=limit is None and not tells), number


async def _answered(
    sending: asyncio.Future[Any], limit: float | None, sent: Callable[[], int]
) -> None:
    """Wait for an answer for as long as the server may take, whose own limit is the exact one.

    Of what is on its way nothing is heard, except that the next is taken.
    """
    seen, deadline = -1, math.inf
    while not sending.done():
        if limit is not None and sent() != seen:
            seen = sent()
            deadline = time.monotonic() + limit * (min(seen, _ON_ITS_WAY) + 1)
        if time.monotonic() >= deadline:
            raise TimeoutError
        await asyncio.wait({sending}, timeout=limit)


async def cancelled_once(work: Coroutine[Any, Any, Any], cleanup: Cleanup) -> Any:
    """Await work that is cancelled no more than once, and then has time to clean up."""
    task = task_of(work)
    act_for_caller(task)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await cleanup.wait_for_task(task, at_once=True)
        raise
    return task.result()
