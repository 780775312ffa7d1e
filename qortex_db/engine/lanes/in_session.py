"""Statements in a session's transaction by its connection's driver, past SQLAlchemy's cursor.

SQLAlchemy's way costs more than a search takes. It is left where it would do no more than this: the
session has the connection, which is in order, and nobody listens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn

from qortex_db.engine.connections.lease import lends_at_once, takes_at_once
from qortex_db.engine.connections.pool import FairPool
from qortex_db.engine.executor import ONE_TASK, catalog_of
from qortex_db.engine.lanes.driver import execute
from qortex_db.engine.outcomes import OwnSession
from qortex_db.errors import InvalidInputError
from qortex_db.observability.statement_spans import listener_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from qortex_db.engine.compiled import Compiled
    from qortex_db.engine.executor import Fetched
    from qortex_db.observability.statement_spans import StatementSpans


def held(session: Session, bind_arguments: Mapping[str, Any]) -> Connection | None:
    """The connection that a session has for statements; None where it has to be asked for it."""
    transaction: Any = session.get_nested_transaction() or session.get_transaction()
    if transaction is None or not transaction.is_active:
        return None
    bind = bind_arguments.get("bind")
    if bind is None:
        bind = session.get_bind(**bind_arguments)
    # Its public name came with SQLAlchemy 2.1.7, and raises where there is none.
    found = transaction._connections.get(bind)  # noqa: SLF001
    return found[0] if found else None


def adapter(connection: Connection, *, listens: StatementSpans | bool) -> Any:
    """SQLAlchemy's adapter of the driver's connection; None where it would do more than pass on.

    Args:
        listens: Who listens to its statements.
    """
    asked: Any = connection  # none of these has a public name
    outer, inner, proxy = asked._transaction, asked._nested_transaction, asked._dbapi_connection  # noqa: SLF001
    if (
        proxy is None  # closed, or invalidated
        or outer is None
        or not outer.is_active
        or (inner is not None and not inner.is_active)
        or asked._trans_context_manager is not None  # noqa: SLF001
        or listens is True
        or asked.dialect.driver != "asyncpg"
    ):
        return None
    adapted = proxy.dbapi_connection
    return None if adapted is None or adapted.autocommit else adapted


def connects_at_once(session: Session) -> bool:
    """Whether a session's first connection is had without awaiting anything."""
    bind: Any = session.bind
    if type(session) is not OwnSession or not isinstance(bind, Engine):
        return False
    pool: Any = bind.pool
    # SQLAlchemy 2.0 awaits what is there, where there will be no more.
    most, there = getattr(pool, "_max_overflow", -1), getattr(pool, "_overflow", -1)
    return (
        (isinstance(pool, FairPool) or not -1 < most <= there)
        and session.get_nested_transaction() is None
        and len(session.dispatch.after_begin) == 1  # its own
        and not session.dispatch.after_transaction_create
        and not listener_of(bind)
        and lends_at_once(pool, catalog_of(bind))
    )


def commits_at_once(session: Session, connections: list[Connection]) -> Any:
    """The adapter of a session's connection, if COMMIT is all that has to be awaited of its end."""
    if len(connections) != 1 or type(session) is not OwnSession:
        return None
    (connection,) = connections
    dispatch = session.dispatch
    if (
        connection.in_nested_transaction()
        or session.get_nested_transaction() is not None
        or dispatch.before_commit
        or dispatch.after_commit
        or dispatch.after_transaction_end
    ):
        return None
    return adapter(connection, listens=listener_of(connection))


async def run(
    connection: Connection,
    adapted: Any,
    compiled: Compiled,
    arguments: list[Any],
    spans: StatementSpans | None,
) -> Fetched:
    """Run a statement in a connection's transaction, which is begun if it was not yet.

    Raises:
        InvalidInputError: The transaction ended while it waited for another task's statement.
    """
    async with adapted._execute_mutex:  # noqa: SLF001 - as SQLAlchemy's cursors do
        if adapter(connection, listens=False) is not adapted:
            raise InvalidInputError(ONE_TASK)
        try:
            # It sends BEGIN with its first cursor's statement: ours would be outside.
            if not _is_begun(adapted):
                await _begin(adapted)
            return await execute(adapted.driver_connection, compiled, arguments, None, spans)
        except BaseException as error:
            await _end_broken(connection, adapted, error)
            raise


async def commit(session: Session, connection: Connection, adapted: Any) -> None:
    """Commit a session's transaction, which has this connection alone and nothing to flush."""
    async with adapted._execute_mutex:  # noqa: SLF001 - after what is on its way already
        if _is_begun(adapted):
            # Its name before SQLAlchemy 2.1; neither is public.
            discarding = getattr(adapted, "_commit_and_discard", None)
            try:
                if discarding is None:
                    await adapted._call_and_discard(adapted._transaction.commit)  # noqa: SLF001
                else:
                    await discarding()
            except BaseException as error:
                await _end_broken(connection, adapted, error)
                raise
    # Nothing of it is left to send; but others may have filled the pool meanwhile.
    proxy: Any = connection.connection
    if takes_at_once(proxy._pool, catalog_of(connection)):  # noqa: SLF001 - it has no public name
        session.commit()
    else:
        await greenlet_spawn(session.commit)


async def _end_broken(connection: Connection, adapted: Any, error: BaseException) -> None:
    """Have SQLAlchemy know of a connection that is lost; what may still be busy is closed."""
    if isinstance(error, GeneratorExit):  # nothing can be awaited any more
        adapted.driver_connection.terminate()
        return
    broken = not isinstance(error, Exception) or isinstance(error, TimeoutError)
    if broken or adapted.driver_connection.is_closed():
        await greenlet_spawn(connection.invalidate)


def _is_begun(adapted: Any) -> bool:
    """Whether BEGIN was sent; before SQLAlchemy 2.1 a transaction may be there without."""
    return bool(getattr(adapted, "_started", adapted._transaction is not None))  # noqa: SLF001


async def _begin(adapted: Any) -> None:
    try:
        await adapted._start_transaction()  # noqa: SLF001 - no public name
    except adapted.dbapi.Error as error:
        cause = error.__cause__
        raise (cause if isinstance(cause, Exception) else error) from None
