"""The error tree, and the one translation from driver errors, by SQLSTATE."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from sqlalchemy import exc as sa_exc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ErrorT = TypeVar("ErrorT", bound="QortexDbError")


class QortexDbError(Exception):
    """Anything that qortex-db reports.

    Attributes:
        sqlstate: The server's five-character code, None where no server was asked.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate

    def retold(self, message: str) -> Self:
        """A new error like this one, with another message: for whoever knows where it happened."""
        return _remade(type(self), message, vars(self))

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        # To be sent to another process. Python's own way calls the class with the message alone.
        return _remade, (type(self), str(self), vars(self))


def _remade(kind: type[ErrorT], message: str, attributes: Mapping[str, Any]) -> ErrorT:
    error = kind.__new__(kind, message)
    vars(error).update(attributes)
    return error


class InvalidInputError(QortexDbError, ValueError):
    """An argument was refused before it reached the server; nothing was changed."""


class DimensionMismatchError(InvalidInputError):
    """An embedding, or a setting, has another dimension than the column.

    Attributes:
        expected: What the column holds.
        actual: What was given.
    """

    def __init__(self, message: str, *, expected: int, actual: int) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class LimitExceededError(InvalidInputError):
    """What was sent is more than a limit allows.

    Attributes:
        limit: Its name, as in `Limits` and `Settings`.
        allowed: What it allows.
        actual: How much there was, or more: it is not counted to the end.
    """

    def __init__(self, message: str, *, limit: str, allowed: int, actual: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.allowed = allowed
        self.actual = actual


class InvalidContextError(InvalidInputError, TypeError):
    """An arm's context was refused: JSON can't say it, or two contexts would be one."""


class NotFoundError(QortexDbError, LookupError):
    """What was asked for by name is not there."""


class ConflictError(QortexDbError):
    """A constraint of the database was violated; the statement changed nothing."""


class SerializationConflictError(QortexDbError):
    """The server aborted a transaction that met another; run the whole transaction again."""


class UnavailableError(QortexDbError):
    """The server can't be reached, or went away. Try again when it is back."""


class PoolTimeoutError(UnavailableError):
    """Every connection of the pool stayed in use for `pool_timeout_seconds`."""


class OverloadedError(UnavailableError):
    """Too many calls wait for the pool's connections; nothing was sent. Try again later."""


class QueryTimeoutError(QortexDbError):
    """The statement ran longer than allowed. A write may or may not have happened."""


class LockTimeoutError(QortexDbError):
    """Another transaction held a lock for longer than allowed; nothing was changed."""


class SchemaVersionError(QortexDbError):
    """The database's schema is not the one that this version needs."""


class InFailedTransactionError(QortexDbError):
    """An error before has aborted the transaction, which takes nothing more but its rollback."""


class OutcomeUnknownError(QortexDbError):
    """The connection broke during a COMMIT, or a write by itself: it is whole or absent; look."""


UPGRADE_HINT = "run `qortex-db upgrade` (or `alembic upgrade head`) on this database"

IN_FAILED_TRANSACTION: Final = "25P02"
"""The SQLSTATE of a statement in a transaction that an error before has aborted."""
NOT_NULL_VIOLATION: Final = "23502"
"""The SQLSTATE of a NULL in a column that takes none."""

_QUOTED: Final = re.compile(r"""["«„“].*["»“”]""", re.DOTALL)
_SCHEMA_STATES = {"42P01", "42703", "3F000"}
_SERIALIZATION_STATES = {"40001", "40P01"}
_UNAVAILABLE_STATES = {"57P01", "57P02", "57P03", "53300"}
# asyncpg's own error for a connection that died between two protocol states.
_LOST_MARKS = ("cannot switch to state", "connection is closed", "connection was closed")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = getattr(seen, "orig", None) or seen.__cause__


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE that an error or its cause carries, None if there is none."""
    for cause in _causes(error):
        state = getattr(cause, "sqlstate", None)
        if isinstance(state, str):
            return state
    return None


def _server_message(error: BaseException, state: str) -> str:
    """The server's primary message: without DETAIL, which quotes values."""
    for cause in _causes(error):
        message = getattr(cause, "message", None)
        if isinstance(message, str):
            # What it says of bad data quotes them here too, in whatever language.
            return _QUOTED.sub("…", message) if state.startswith("22") else message
    return type(list(_causes(error))[-1]).__name__


def is_connection_lost(error: BaseException) -> bool:
    """Whether an error means that the connection is gone, and with it its transaction."""
    if isinstance(error, sa_exc.DBAPIError) and error.connection_invalidated:
        return True
    state = sqlstate_of(error)
    if state is not None:
        return state.startswith("08") or state in _UNAVAILABLE_STATES
    return any(
        isinstance(cause, OSError) or any(mark in str(cause) for mark in _LOST_MARKS)
        for cause in _causes(error)
        if not isinstance(cause, TimeoutError)
    )


def translate(error: BaseException) -> QortexDbError | None:
    """The error of our tree for one of SQLAlchemy, asyncpg or the system; None if it is none."""
    if isinstance(error, sa_exc.TimeoutError):
        return PoolTimeoutError(
            "No connection of the pool became free in time. Raise pool_max_size or "
            "pool_timeout_seconds, or look for a unit of work that is held open."
        )
    if isinstance(error, sa_exc.PendingRollbackError):
        return _in_failed_transaction()
    state = sqlstate_of(error)
    if state is not None:
        return _by_sqlstate(state, error)
    if any(isinstance(cause, TimeoutError) for cause in _causes(error)):
        return QueryTimeoutError(
            "The server did not answer in time (statement_timeout_seconds or "
            "connect_timeout_seconds). A write may or may not have happened."
        )
    if is_connection_lost(error):
        return UnavailableError(
            "The connection to PostgreSQL could not be opened or was lost. "
            "Check that the server runs and that host, port and network are right."
        )
    if isinstance(error, sa_exc.DBAPIError):
        return QortexDbError(
            f"The database driver failed ({type(error.orig).__name__}) before a server answered."
        )
    return None


def _in_failed_transaction() -> QortexDbError:
    return InFailedTransactionError(
        "An error before has aborted this transaction: roll it back and begin anew, and put what "
        "may fail into a savepoint (session.begin_nested()).",
        sqlstate=IN_FAILED_TRANSACTION,
    )


def _by_sqlstate(state: str, error: BaseException) -> QortexDbError:
    message = _server_message(error, state)
    if state == "42704":
        return SchemaVersionError(
            f"What the statement names is not there ({message}): {UPGRADE_HINT}, or name what is "
            "there, as a text search configuration.",
            sqlstate=state,
        )
    if state in _SCHEMA_STATES:
        return SchemaVersionError(
            f"The schema is not there or not current ({message}): {UPGRADE_HINT}.", sqlstate=state
        )
    if state in _SERIALIZATION_STATES:
        return SerializationConflictError(
            f"The transaction met another and was rolled back ({message}): run it again.",
            sqlstate=state,
        )
    if state == "57014":
        return QueryTimeoutError(f"The server cancelled the statement ({message}).", sqlstate=state)
    if state == "55P03":
        return LockTimeoutError(
            f"A lock was not granted in time ({message}): try again, or find its holder in "
            "pg_stat_activity.",
            sqlstate=state,
        )
    if state == IN_FAILED_TRANSACTION:
        return _in_failed_transaction()
    if state.startswith("23"):
        return ConflictError(f"A constraint refused the row ({message}).", sqlstate=state)
    if state.startswith("28") or state == "3D000":
        return UnavailableError(
            f"The server refused the connection ({message}): check user, password and database.",
            sqlstate=state,
        )
    if state.startswith("08") or state in _UNAVAILABLE_STATES:
        return UnavailableError(f"The server is not available ({message}).", sqlstate=state)
    return QortexDbError(f"PostgreSQL refused the statement ({message}).", sqlstate=state)
