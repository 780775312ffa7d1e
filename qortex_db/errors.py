"""The error tree: what this package raises."""

from __future__ import annotations

import asyncio
import copy
import copyreg
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from sqlalchemy import text

from qortex_db.messages import escaped

if TYPE_CHECKING:
    from collections.abc import Callable

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


class EmbeddingModelError(QortexDbError):
    """The table is searched by another model's embeddings than this process has; nothing was done.

    Attributes:
        current: What the table calls the embeddings that it is searched by; None where only the
            server knows, which refused a write.
    """

    current: str | None = None

    def __init__(
        self, message: str, *, sqlstate: str | None = None, current: str | None = None
    ) -> None:
        super().__init__(message, sqlstate=sqlstate)
        if current is not None:
            self.current = current


class IdempotencyKeyReusedError(ConflictError):
    """The key is that of another call, or of one with other arguments; nothing was changed."""


class SerializationConflictError(QortexDbError):
    """The server aborted a transaction that met another; run the whole transaction again."""


class RecoveryConflictError(SerializationConflictError):
    """A standby cancelled a read for what it had to replay; run it again, or on the primary."""


class UnavailableError(QortexDbError):
    """The server can't be reached, or went away. Try again when it is back."""


class ReadOnlyError(UnavailableError):
    """The server takes no writes, as a standby, or this transaction was begun read-only."""


class PoolTimeoutError(UnavailableError):
    """Every connection of the pool stayed in use for `pool_timeout_seconds`."""


class OverloadedError(UnavailableError):
    """Too many calls wait for the pool's connections; nothing was sent. Try again later."""


class PoolerError(UnavailableError):
    """A pooler between us and the server refuses, or is not set as it has to be."""


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
