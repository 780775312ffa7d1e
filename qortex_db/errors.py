"""The error tree, and the one translation from driver errors, by SQLSTATE."""

from __future__ import annotations

import asyncio
import copy
import copyreg
import re
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import asyncpg
from sqlalchemy import exc as sa_exc
from sqlalchemy import text

from qortex_db.messages import causes, escaped, said_by_driver, said_by_server, scrubbed
from qortex_db.names import own_columns, own_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

NOT_OPEN: Final = (
    "The Database is not open: use `async with Database.connect(…) as db`, or `await db.open()` "
    "first."
)


class QortexDbError(Exception):
    """Anything that qortex-db reports.

    Attributes:
        sqlstate: The server's five-character code, None where no server was asked.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(escaped(message))
        self.sqlstate = sqlstate

    def retold(self, message: str) -> Self:
        """A new error like this one, with another message: for whoever knows where it happened."""
        again = copy.copy(self)
        again.args = (escaped(message),)
        return again

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...], dict[str, Any]]:
        # To be sent to another process. Python's own way calls the class with its `args`, which
        # lack what is given by keyword, and forgets the cause; a driver's can't be sent.
        kept = dict(vars(self))
        if isinstance(self.__cause__, QortexDbError):
            kept["__cause__"] = self.__cause__
        made: Callable[..., Self] = copyreg.__newobj__  # type: ignore[attr-defined]
        return made, (type(self), *self.args), kept


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


class CounterOverflowError(InvalidInputError):
    """A count would exceed what its column holds, 2,147,483,647; nothing was counted."""


class EncryptionError(QortexDbError):
    """A value can't be encrypted or decrypted: a key is missing or wrong, or the extra is.

    Of what is stored, the message names the row and the payload's key.
    """


class NotFoundError(QortexDbError, LookupError):
    """What was asked for by name is not there."""


class ConflictError(QortexDbError):
    """A constraint of the database was violated; the statement changed nothing."""


class IdempotencyKeyReusedError(ConflictError):
    """The key is that of another call, or of one with other arguments; nothing was changed."""


class SerializationConflictError(QortexDbError):
    """The server aborted a transaction that met another; run the whole transaction again."""


class UnavailableError(QortexDbError):
    """The server can't be reached, or went away. Try again when it is back."""


class ReadOnlyError(UnavailableError):
    """The server takes no writes, as a standby, or this transaction was begun read-only."""


class PoolTimeoutError(UnavailableError):
    """Every connection of the pool stayed in use for `pool_timeout_seconds`."""


class OverloadedError(UnavailableError):
    """Too many calls wait for the pool's connections; nothing was sent. Try again later."""


class QueryTimeoutError(QortexDbError):
    """The statement ran longer than allowed. A write may or may not have happened."""


class LockTimeoutError(QortexDbError):
    """Another transaction held a lock for longer than allowed; nothing was changed."""


class DatabaseClosedError(QortexDbError, RuntimeError):
    """The Database is not open, or was closed meanwhile."""

    def __init__(self, message: str | None = None, *, sqlstate: str | None = None) -> None:
        super().__init__(message or NOT_OPEN, sqlstate=sqlstate)


class WrongLoopError(QortexDbError, RuntimeError):
    """The Database is used in another process or event loop than the one that it was opened in."""


class SchemaVersionError(QortexDbError):
    """The database's schema is not the one that this version needs."""


class InsufficientResourcesError(QortexDbError):
    """The server ran out of disk, memory or another resource; the statement changed nothing."""


class PermissionDeniedError(QortexDbError):
    """The role lacks a privilege, or row-level security refused the row; nothing was changed."""


class InFailedTransactionError(QortexDbError):
    """An error before has aborted the transaction, which takes nothing more but its rollback."""


class OutcomeUnknownError(QortexDbError):
    """The connection broke during a COMMIT, or a write by itself: it is whole or absent; look.

    Attributes:
        transaction_id: Of a unit of work; None where it wrote nothing that told it, and of a call
            by itself, which learns its own only with the answer.
    """

    transaction_id: int | None = None

    def __init__(
        self, message: str, *, sqlstate: str | None = None, transaction_id: int | None = None
    ) -> None:
        super().__init__(message, sqlstate=sqlstate)
        if transaction_id is not None:
            self.transaction_id = transaction_id

    async def resolve(self, db: _Asked, *, timeout_seconds: float = 10.0) -> bool:
        """Ask the server whether the unit of work was committed.

        Args:
            db: The `Database` on which it ran.
            timeout_seconds: How long to wait for a server that still works on it.

        Raises:
            OutcomeUnknownError: There is no id to ask by, it is too old, or of another server.

        Source:
            https://www.postgresql.org/docs/current/functions-info.html (pg_xact_status)
        """
        status = None
        if self.transaction_id is not None:
            deadline = time.monotonic() + timeout_seconds
            status = await self._status(db)
            while status == "in progress" and time.monotonic() < deadline:
                await asyncio.sleep(_STATUS_PAUSE_SECONDS)
                status = await self._status(db)
        if status in {"committed", "aborted"}:
            return status == "committed"
        why = "is not known" if status is None else "is still in progress"
        raise self.retold(f"The transaction {why} to the server: look for one of its rows.")

    async def _status(self, db: _Asked) -> str | None:
        try:
            rows = (await db.executor.run(_XACT_STATUS, {"id": str(self.transaction_id)})).rows
        except QortexDbError as error:
            if error.sqlstate != _IN_THE_FUTURE:
                raise
            return None
        status: str | None = rows[0][0]
        return status


_STATUS_PAUSE_SECONDS: Final = 0.1
_IN_THE_FUTURE: Final = "22023"
"""The SQLSTATE of an id that a server has not given yet: another's, or of before a failover."""
_XACT_STATUS: Final = text(
    "SELECT pg_catalog.pg_xact_status(CAST(CAST(:id AS pg_catalog.text) AS pg_catalog.xid8))"
)


class _Asked(Protocol):
    """What runs a statement by itself: a `Database`."""

    @property
    def executor(self) -> Any: ...


def counter_is_full(name: str) -> CounterOverflowError:
    return CounterOverflowError(
        f"{name} would exceed 2,147,483,647, the most that the column holds; nothing of this call "
        "was counted. Begin that counter anew, or leave it out."
    )


POOL_TIMEOUT: Final = (
    "No connection of the pool became free in time. Raise pool_max_size or "
    "pool_timeout_seconds, or look for a unit of work that is held open."
)
UPGRADE_HINT = "run `qortex-db upgrade` (or `alembic upgrade head`) on this database"

IN_FAILED_TRANSACTION: Final = "25P02"
"""The SQLSTATE of a statement in a transaction that an error before has aborted."""
NOT_NULL_VIOLATION: Final = "23502"
"""The SQLSTATE of a NULL in a column that takes none."""

_UNAVAILABLE_STATES = {"57P01", "57P02", "57P03", "53300"}
# asyncpg's own error for a connection that died between two protocol states.
_LOST_MARKS = ("cannot switch to state", "connection is closed", "connection was closed")


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE that an error or its cause carries, None if there is none."""
    for cause in causes(error):
        state = getattr(cause, "sqlstate", None)
        if isinstance(state, str):
            return state
    return None


def is_connection_lost(error: BaseException) -> bool:
    """Whether an error means that the connection is gone, and with it its transaction."""
    if isinstance(error, sa_exc.DBAPIError) and error.connection_invalidated:
        return True
    state = sqlstate_of(error)
    if state is not None:
        return state.startswith("08") or state in _UNAVAILABLE_STATES
    return any(
        isinstance(cause, OSError) or any(mark in str(cause) for mark in _LOST_MARKS)
        for cause in causes(error)
        if not isinstance(cause, TimeoutError)
    )


def translate(error: BaseException) -> QortexDbError | None:
    """The error of our tree for one of SQLAlchemy, asyncpg or the system; None if it is none."""
    if isinstance(error, QortexDbError):
        return error
    if isinstance(error, sa_exc.TimeoutError):
        return PoolTimeoutError(POOL_TIMEOUT)
    if isinstance(error, sa_exc.PendingRollbackError):
        return _by_sqlstate(IN_FAILED_TRANSACTION, type(error).__name__)
    refusal = _refusal_by_driver(error)
    if refusal is not None:
        return refusal
    state = sqlstate_of(error)
    if state is not None:
        return _by_sqlstate(state, said_by_server(error, state))
    if any(isinstance(cause, TimeoutError) for cause in causes(error)):
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
        return _driver_failed(type(error.orig).__name__)
    if isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return _driver_failed(said_by_driver(error))
    return None


def translated(error: Exception) -> Exception:
    """The error to raise for one that a statement met.

    What a host's own type raises comes out as it is: SQLAlchemy wraps it, depending on the lane.
    """
    found = translate(error)
    if found is not None or not isinstance(error, sa_exc.StatementError):
        return found or error
    if isinstance(error.orig, sa_exc.SQLAlchemyError):  # such as of a parameter without a value
        return InvalidInputError(
            f"SQLAlchemy can't send the statement: {scrubbed(str(error.orig.args[0]))}"
        )
    return translate(error.orig) or error.orig if isinstance(error.orig, Exception) else error


def _refusal_by_driver(error: BaseException) -> QortexDbError | None:
    """What asyncpg refused to send; its class for it has the SQLSTATE of a server's."""
    for cause in causes(error):
        if isinstance(cause, asyncpg.DataError) and cause.severity is None:
            return InvalidInputError(
                f"A value can't be sent ({said_by_driver(cause)}): pass one of the type that "
                "PostgreSQL expects there, or cast it in your SQL expression."
            )
    return None


def _driver_failed(said: str) -> QortexDbError:
    return QortexDbError(f"The database driver failed ({said}) before a server answered.")


_REFUSED_CONNECTION: Final = (
    UnavailableError,
    "The server refused the connection ({}): check user, password and database.",
)
_NO_SCHEMA: Final = (
    SchemaVersionError,
    (
        f"The schema is not there or not current ({{}}): {UPGRADE_HINT}; for a table of your own, "
        "your migrations."
    ),
)
_NOT_NAMED: Final = (
    SchemaVersionError,
    (
        f"What the statement names is not there ({{}}): {UPGRADE_HINT}, or name what is there, "
        "as a text search configuration."
    ),
)
_NOT_OURS: Final[Mapping[str, tuple[AbstractSet[str], tuple[type[QortexDbError], str]]]] = {
    "42703": (
        own_columns,
        (
            QortexDbError,
            (
                "An SQL expression or a model of yours names a column that is not there ({}): mend "
                "the name, or run your migrations."
            ),
        ),
    ),
    "42P01": (
        own_tables,
        (
            SchemaVersionError,
            "A table is not there ({}): run the migrations of the application that declares it.",
        ),
    ),
}
"""What is missing where the server names none of the package's own."""
_MET_ANOTHER: Final = (
    SerializationConflictError,
    "The transaction met another and was rolled back ({}): run it again.",
)
_POOLED: Final = (
    QortexDbError,
    (
        "A prepared statement is another session's ({}), as behind PgBouncer in transaction mode: "
        "connect with statement_cache_size=0 and prepared_statement_cache_size=0, in the DSN or in "
        "connect_args of your engine."
    ),
)
_UNAVAILABLE: Final = (UnavailableError, "The server is not available ({}).")
_KINDS: Final[Mapping[str, tuple[type[QortexDbError], str]]] = {
    "08": _UNAVAILABLE,
    "23": (ConflictError, "A constraint refused the row ({})."),
    "25006": (
        ReadOnlyError,
        (
            "Nothing can be written here ({}): connect to the primary "
            "(target_session_attrs=read-write), or begin a transaction that is not read-only."
        ),
    ),
    IN_FAILED_TRANSACTION: (
        InFailedTransactionError,
        (
            "An error before has aborted this transaction ({}): roll it back and begin anew, and "
            "put what may fail into a savepoint (session.begin_nested())."
        ),
    ),
    "28": _REFUSED_CONNECTION,
    "3D000": _REFUSED_CONNECTION,
    "26000": _POOLED,
    "3F000": _NOT_NAMED,
    "40001": _MET_ANOTHER,
    "40P01": _MET_ANOTHER,
    "42501": (
        PermissionDeniedError,
        (
            "The role may not do this ({}): grant it what it needs, which `qortex-db roles --sql` "
            "prints, or connect as another."
        ),
    ),
    "42703": _NO_SCHEMA,
    "42704": _NOT_NAMED,
    "42883": (
        QortexDbError,
        (
            "A function or an operator is not there ({}): mend its name and the types of its "
            "arguments in your SQL expression; one of pgvector's needs ALTER EXTENSION vector "
            "UPDATE, or its schema on the search_path."
        ),
    ),
    "42P01": _NO_SCHEMA,
    "42P05": _POOLED,
    "53": (
        InsufficientResourcesError,
        (
            "The server is out of a resource ({}): give it disk, memory or a higher limit, then "
            "try again."
        ),
    ),
    "53300": _UNAVAILABLE,
    "55P03": (
        LockTimeoutError,
        "A lock was not granted in time ({}): try again, or find its holder in pg_stat_activity.",
    ),
    "57014": (QueryTimeoutError, "The server cancelled the statement ({})."),
    "57P01": _UNAVAILABLE,
    "57P02": _UNAVAILABLE,
    "57P03": _UNAVAILABLE,
}
"""By SQLSTATE, or by its class; {} is what the server says."""
_OTHER: Final = (QortexDbError, "PostgreSQL refused the statement ({}).")


def _by_sqlstate(state: str, message: str) -> QortexDbError:
    kind, says = _KINDS.get(state) or _KINDS.get(state[:2]) or _OTHER
    if state in _NOT_OURS:
        ours, theirs = _NOT_OURS[state]
        if ours.isdisjoint(re.findall(r"\w+", message)):
            kind, says = theirs
    return kind(says.format(message), sqlstate=state)
