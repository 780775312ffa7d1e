"""The one translation from the errors of SQLAlchemy, asyncpg and the system, by SQLSTATE."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import asyncpg
from sqlalchemy import exc as sa_exc

from qortex_db.errors import (
    POOL_TIMEOUT,
    UPGRADE_HINT,
    ConflictError,
    EmbeddingModelError,
    InFailedTransactionError,
    InsufficientResourcesError,
    InvalidInputError,
    LockTimeoutError,
    PermissionDeniedError,
    PoolerError,
    PoolTimeoutError,
    QortexDbError,
    QueryTimeoutError,
    ReadOnlyError,
    RecoveryConflictError,
    SchemaVersionError,
    SerializationConflictError,
    UnavailableError,
)
from qortex_db.messages import causes, said_by_driver, said_by_server, scrubbed
from qortex_db.names import own_columns, own_tables
from qortex_db.poolers import OTHERS_STATEMENT, advice, is_for_good, said_by_pooler

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

_NO_TYPE: Final = "cache lookup failed for type"
"""What PostgreSQL says, in every language, of a type that was dropped under a statement."""
IN_FAILED_TRANSACTION: Final = "25P02"
"""The SQLSTATE of a statement in a transaction that an error before has aborted."""
NOT_NULL_VIOLATION: Final = "23502"
"""The SQLSTATE of a NULL in a column that takes none."""
OLD_MODEL: Final = "QDB01"
"""The SQLSTATE by which our trigger refuses a write without the embedding that searches use."""
STILL_MISSING: Final = "QDB02"
"""The SQLSTATE by which a switch is refused: rows lack the embedding."""

_RECOVERY: Final = {"ProcessInterrupts", "ProcessRecoveryConflictInterrupt"}
"""PostgreSQL's functions that raise it, until 15 and since."""

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
    if type(error) is sa_exc.StatementError:  # what could not be made a parameter
        return False
    if isinstance(error, sa_exc.DBAPIError) and error.connection_invalidated:
        return True
    state = sqlstate_of(error)
    if state is not None:
        if state.startswith("08"):
            return not is_for_good(said_by_pooler(error) or "")
        return state in _UNAVAILABLE_STATES
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
    refusal = _outdated(error) or _conflict_with_recovery(error) or _refusal_by_driver(error)
    if refusal is not None:
        return refusal
    state = sqlstate_of(error)
    if state is not None:
        return _by_pooler(error, state) or _by_sqlstate(state, said_by_server(error, state))
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


def _by_pooler(error: BaseException, state: str) -> QortexDbError | None:
    said = said_by_pooler(error) if state.startswith("08") else None
    if said is None:
        return None
    return PoolerError(f"The pooler says: {said}; {advice(said)}.", sqlstate=state)


def translated(error: Exception) -> Exception:
    """The error to raise for one that a statement met.

    What a host's own type raises comes out as it is: SQLAlchemy wraps it, depending on the lane.
    """
    if type(error) is not sa_exc.StatementError or not isinstance(error.orig, Exception):
        return translate(error) or error
    # A parameter could not be made: SQLAlchemy's error shows all of them.
    if isinstance(error.orig, sa_exc.SQLAlchemyError):  # such as of a parameter without a value
        return InvalidInputError(
            f"SQLAlchemy can't send the statement: {scrubbed(str(error.orig.args[0]))}"
        )
    return error.orig


def is_outdated(error: BaseException) -> bool:
    """Whether a server refused a prepared statement, of whose tables or types some are no more."""
    return any(
        isinstance(cause, asyncpg.InvalidCachedStatementError)
        or (isinstance(cause, asyncpg.InternalServerError) and _NO_TYPE in str(cause))
        for cause in causes(error)
    )


def _outdated(error: BaseException) -> QortexDbError | None:
    if not is_outdated(error):
        return None
    return SerializationConflictError(
        "A table, a type or an extension was made anew while a statement over it was prepared. Run "
        "it again.",
        sqlstate=sqlstate_of(error),
    )


def _conflict_with_recovery(error: BaseException) -> QortexDbError | None:
    if not is_recovery_conflict(error):
        return None
    said = said_by_server(error, "40001")
    return RecoveryConflictError(
        f"The standby had to replay what this reads ({said}): run it again, or on the primary. "
        "hot_standby_feedback, or a longer max_standby_streaming_delay, makes that rare.",
        sqlstate="40001",
    )


def is_recovery_conflict(error: BaseException) -> bool:
    """Whether a standby cancelled a statement, or ended its connection, to go on replaying.

    Its SQLSTATE is that of a serialization failure; where it comes from is said in every language.
    """
    return any(
        getattr(cause, "sqlstate", None) == "40001"
        and getattr(cause, "server_source_function", None) in _RECOVERY
        for cause in causes(error)
    )


def is_refused_by_driver(error: BaseException) -> bool:
    """Whether asyncpg refused to send a value; its class for it has the SQLSTATE of a server's."""
    return _by_driver(error) is not None


def _by_driver(error: BaseException) -> asyncpg.DataError | None:
    for cause in causes(error):
        if isinstance(cause, asyncpg.DataError) and cause.severity is None:
            return cause
    return None


def _refusal_by_driver(error: BaseException) -> QortexDbError | None:
    cause = _by_driver(error)
    return cause and InvalidInputError(
        f"A value can't be sent ({said_by_driver(cause)}): pass one of the type that PostgreSQL "
        "expects there, or cast it in your SQL expression."
    )


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
_POOLED: Final = (PoolerError, OTHERS_STATEMENT)
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
    OLD_MODEL: (
        EmbeddingModelError,
        (
            "The table was switched to the embeddings of another model, which this write lacks: "
            "give the collection that model's embedder too, or name the embedding."
        ),
    ),
    STILL_MISSING: (
        ConflictError,
        "Rows without the embeddings came meanwhile: reembed, and switch again.",
    ),
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
