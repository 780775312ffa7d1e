"""How transactions of sessions end: what was lost says so, and hides no error of a block's own."""

from __future__ import annotations

import asyncio
import functools
import itertools
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from sqlalchemy import select, true
from sqlalchemy.exc import SQLAlchemyError

from qortex_db.engine.connections.cleanup import CLEANUP_SECONDS, finished, task_of
from qortex_db.engine.executor import ONE_TASK, translate_map, translated
from qortex_db.engine.lanes import in_session
from qortex_db.engine.loaded import WRITTEN, expire_loaded, refresh_loaded
from qortex_db.engine.outcomes import know_outcome
from qortex_db.errors import InvalidInputError, OutcomeUnknownError, QortexDbError, UnavailableError
from qortex_db.sql import func
from qortex_db.translation import IN_FAILED_TRANSACTION, is_connection_lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession

    from qortex_db.engine.connections.cleanup import Cleanup
    from qortex_db.engine.executor import Executor
    from qortex_db.engine.options import CallOptions

_LAST_ERROR: Final = "qortex_db_last_error"
"""The key of a session's info where the last error is that a server answered to a call of ours."""
_COMMITTING: Final = "qortex_db_committing"
"""The key of its info where its transaction's id is, once our COMMIT was on its way."""
_BLOCKS: Final = "qortex_db_open_blocks"
"""The key of its info where the savepoints' blocks are that are not over, the innermost last."""
_LOST: Final = (SQLAlchemyError, OSError, TimeoutError)
"""What ending a transaction raises whose connection is gone."""


async def commit(session: AsyncSession) -> None:
    """Commit what a session holds, and its pending objects.

    PostgreSQL answers COMMIT by ROLLBACK, without an error, where an error before has aborted the
    transaction. The driver drops that answer.

    Raises:
        QortexDbError: The transaction was aborted, by an error that the block caught: its cause, if
            a call of ours met it.
        OutcomeUnknownError: The connection broke during COMMIT.
    """
    if not session.in_transaction():
        return  # whatever is pending would have begun one
    transaction_id = None
    try:
        if not session.sync_session._is_clean():  # noqa: SLF001 - its parts are slow to ask for
            await session.flush()
        transaction_id = await know_outcome(session)
        connections = connections_of(session)
        _check_connections(connections)
        _tell_of_rollbacks(connections)
        adapted = in_session.commits_at_once(session.sync_session, connections)
    except Exception as error:  # noqa: BLE001 - translated, and raised again
        failure = translated(error)
    else:
        session.info[_COMMITTING] = transaction_id
        try:
            if adapted is not None:
                await in_session.commit(session.sync_session, connections[0], adapted)
            else:
                await session.commit()
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            failure = _commit_failure(session, error)
        else:
            return
    raise _caused(session, failure)


def in_doubt(session: AsyncSession, what: str) -> OutcomeUnknownError | None:
    """The error of a session whose COMMIT was on its way when something ended its block.

    Args:
        what: What happened, as the beginning of a sentence.
    """
    if _COMMITTING not in session.info:
        return None
    return OutcomeUnknownError(
        f"{what} during COMMIT: the unit of work is either whole or absent. "
        "`await error.resolve(db)` asks the server which, or look for one of its rows.",
        transaction_id=session.info[_COMMITTING],
    )


def committed(session: AsyncSession) -> int | None:
    """The id of a session's transaction that was committed; None where it is not known."""
    found: int | None = session.info.get(_COMMITTING)
    return found


def _check_connections(connections: list[Connection]) -> None:
    """What is lost before COMMIT is sent is certainly not committed."""
    for connection in connections:
        driver: Any = connection.connection.driver_connection
        if driver is None or driver.is_closed():
            raise UnavailableError(
                "The connection was lost before COMMIT: nothing of the unit of work is stored."
            )


def _commit_failure(session: AsyncSession, error: Exception) -> Exception:
    lost = is_connection_lost(error) or isinstance(error, TimeoutError)
    return (in_doubt(session, "The connection broke") if lost else None) or translated(error)


def remember_error(session: AsyncSession, failure: Exception) -> Exception:
    """Keep what may have aborted a session's transaction, for its end to tell."""
    if isinstance(failure, QortexDbError) and failure.sqlstate not in (
        None,
        IN_FAILED_TRANSACTION,
    ):
        session.info[_LAST_ERROR] = failure
    return failure


def _caused(session: AsyncSession, failure: Exception) -> Exception:
    """Say of an aborted transaction what aborted it."""
    last = session.info.pop(_LAST_ERROR, None)
    if isinstance(failure, QortexDbError) and failure.sqlstate == IN_FAILED_TRANSACTION:
        failure.__cause__ = last
    return failure


def connections_of(session: AsyncSession) -> list[Connection]:
    """Those that a session's transaction has; asking the session itself would open one."""
    transaction: Any = session.sync_session.get_transaction()
    # Its public name came with SQLAlchemy 2.1.7.
    held = () if transaction is None else transaction._connections.values()  # noqa: SLF001
    return list({id(each[0]): each[0] for each in held}.values())


def _tell_of_rollbacks(connections: list[Connection]) -> None:
    for connection in connections:
        driver = connection.connection.driver_connection
        # Else there will be no COMMIT, and its class would stay.
        if isinstance(driver, asyncpg.Connection) and driver.is_in_transaction():
            kind: Any = type(driver)
            driver.__class__ = _telling(kind)


@functools.cache
def _telling(kind: type[asyncpg.Connection]) -> type[asyncpg.Connection]:
    """A driver's class whose next COMMIT fails if the server rolled back.

    A host's connections were made before we see them, and are its own again afterwards.
    """

    async def execute(self: Any, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's own
        self.__class__ = kind
        tag: str = await self.execute(query, *args, timeout=timeout)
        if query.startswith("COMMIT") and tag == "ROLLBACK":
            raise asyncpg.InFailedSQLTransactionError("the transaction was aborted")
        return tag

    return type(kind.__name__, (kind,), {"__slots__": (), "execute": execute})


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """A savepoint's block that is not over.

    Attributes:
        task: Which began it.
    """

    task: asyncio.Task[Any] | None


_inside: ContextVar[tuple[_Block, ...]] = ContextVar("qortex_db_blocks", default=())
"""The blocks that a task is in, or was begun in."""


@contextmanager
def _block(session: AsyncSession) -> Iterator[None]:
    """Refuse a block of another task's inside of one that is still at work: one would end both."""
    blocks: list[_Block] = session.info.setdefault(_BLOCKS, [])
    task = asyncio.current_task()
    if blocks:
        outer = blocks[-1]
        others = outer.task is not None and outer.task is not task and not outer.task.done()
        if others and outer not in _inside.get():
            raise InvalidInputError(ONE_TASK)
    block = _Block(task)
    blocks.append(block)
    _inside.set((*_inside.get(), block))
    try:
        yield
    finally:
        blocks.remove(block)
        _inside.set(tuple(each for each in _inside.get() if each is not block))


@asynccontextmanager
async def savepoint(
    session: AsyncSession, schema: str | None, bind_arguments: Mapping[str, Any]
) -> AsyncIterator[None]:
    """A block whose failure undoes what it wrote, and nothing besides.

    What it takes back, loaded objects may still show: those of the tables that statements of ours
    wrote get what is stored, or are expired where nobody can be asked.

    Raises:
        InvalidInputError: Another task is in a block of the same session.
        QortexDbError: The block caught an error that had aborted the transaction: its cause, if a
            call of ours met it.
    """
    with _block(session):
        nested = session.begin_nested()
        try:
            await nested.__aenter__()
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            failure = translated(error)
        else:
            try:
                yield
            except BaseException as error:
                # The block's own error is the one to tell, whatever becomes of the transaction, but
                # for a cancellation meanwhile. No object is left behind that shows what is gone.
                ending = nested.__aexit__(type(error), error, error.__traceback__)
                undoing = task_of(_undo(session, ending, schema, bind_arguments))
                await finished(undoing, CLEANUP_SECONDS)
                raise
            marks = _savepoints(session)
            try:
                await nested.__aexit__(None, None, None)
            except Exception as error:  # noqa: BLE001 - translated, and raised again
                failure = _caused(session, translated(error))
            else:
                return
            ending = session.run_sync(lambda _: _roll_back_to(marks))
            await _undo(session, ending, schema, bind_arguments)
        raise failure


async def _undo(
    session: AsyncSession,
    ending: Coroutine[Any, Any, object],
    schema: str | None,
    bind_arguments: Mapping[str, Any],
) -> None:
    """Roll back to a savepoint, and give loaded objects what is stored."""
    written = session.info.get(WRITTEN, ())
    with suppress(*_LOST):
        await ending
        await refresh_loaded(session, written, translate_map(schema), bind_arguments)
        return
    expire_loaded(session, written)


def _savepoints(session: AsyncSession) -> list[tuple[Connection, str]]:
    """The last savepoint of each of a session's connections."""
    nested: list[tuple[Any, Any]] = [
        (connection, connection.get_nested_transaction()) for connection in connections_of(session)
    ]
    return [(connection, each._savepoint) for connection, each in nested if each]  # noqa: SLF001


def _roll_back_to(marks: list[tuple[Connection, str]]) -> None:
    """What SQLAlchemy leaves out when releasing a savepoint fails: the transaction goes on."""
    for connection, name in marks:
        connection.dialect.do_rollback_to_savepoint(connection, name)


@asynccontextmanager
async def set_meanwhile(executor: Executor, options: CallOptions) -> AsyncIterator[None]:
    """Settings for the statements of a block, after which those before hold again."""
    wanted = options.local
    before: Any = ()
    if wanted:
        pairs = [(func.current_setting(n), func.set_config(n, v, true())) for n, v in wanted]
        before = (await executor.run(select(*itertools.chain(*pairs)), {})).rows[0][::2]
    try:
        yield
    finally:
        with suppress(QortexDbError):  # with its transaction
            names = [name for name, _ in wanted]
            again = zip(names, before, strict=True)
            if wanted:
                await executor.run(select(*(func.set_config(*e, true()) for e in again)), {})


async def close(session: AsyncSession, cleanup: Cleanup, *, at_once: bool) -> None:
    """Give a session's connection back; what was not committed is rolled back.

    It raises nothing of that: a block has its own error, and what was committed is there.

    Args:
        session: Whose block has ended.
        cleanup: What goes on with it when the time is up.
        at_once: The block was cancelled: whoever did it waits for no server.
    """
    if session.in_transaction():
        await cleanup.wait_for(session.close(), at_once=at_once)
    else:
        session.sync_session.close()  # it has no connection, so there is nothing to wait for
