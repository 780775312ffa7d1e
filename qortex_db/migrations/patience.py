"""How a migration shares a busy table: short waits for its locks, again and again, to a deadline.

Whoever waits for an exclusive lock makes everybody behind it wait too. So a statement of a revision
gives up soon, lets the others pass, and the revision, a transaction of its own, is tried again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.util import await_only

from qortex_db.errors import LockTimeoutError, sqlstate_of
from qortex_db.migrations.connection import NO_TIMEOUTS
from qortex_db.models import Base
from qortex_db.observability import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from qortex_db.settings import Settings

WAIT_MS: Final = 500
"""What a statement of a revision may take, its wait for a lock included."""
MAX_PAUSE_SECONDS: Final = 5.0
"""The longest pause before a revision is tried again."""

_BUSY: Final = {"55P03", "57014", "40P01"}  # no lock in time, no end in time, a deadlock
# To an ordinary role the activity of others shows no more than who they are; an autovacuum is
# nobody, and yields to a lock that waits for longer than deadlock_timeout.
_HOLDERS = text("""
SELECT lock.pid, class.relname, state, round(extract(epoch FROM now() - xact_start)),
       CASE WHEN mode = 'ShareUpdateExclusiveLock' AND usesysid IS NULL
            THEN (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout')::int
       END
FROM pg_catalog.pg_locks lock
JOIN pg_catalog.pg_class class ON class.oid = lock.relation
JOIN pg_catalog.pg_stat_activity activity ON activity.pid = lock.pid
WHERE granted AND class.relname = ANY(:tables) AND lock.pid <> pg_backend_pid()
  AND lock.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
ORDER BY xact_start NULLS LAST, lock.pid
""")


@dataclass(frozen=True, slots=True)
class _Holder:
    """A process with a lock on a table of ours; a number of milliseconds if it yields after it."""

    pid: int
    table: str
    state: str | None
    seconds: int | None
    yields_after_ms: int | None

    def __str__(self) -> str:
        what = "an autovacuum" if self.yields_after_ms is not None else self.state or "not shown"
        since = "" if self.seconds is None else f" for {self.seconds} s"
        return f"process {self.pid} on {self.table} ({what}{since})"


def try_until(connection: Connection, settings: Settings, attempt: Callable[[int], None]) -> None:
    """Call what migrates, with the milliseconds that a statement may take, until tables let it.

    Raises:
        LockTimeoutError: The deadline has passed; it names who holds the tables.
    """
    connection.execute(NO_TIMEOUTS)
    connection.commit()
    seconds = settings.migration_timeout_seconds
    deadline, pause, wait_ms = time.monotonic() + seconds, WAIT_MS / 1000, WAIT_MS
    while True:
        try:
            attempt(wait_ms)
        except PendingRollbackError as error:  # what ended an autocommit_block is behind it
            raise _behind(error) from None
        except DBAPIError as error:
            if sqlstate_of(error) not in _BUSY:
                raise
            connection.rollback()
            holders = _holders(connection)
            if time.monotonic() + pause > deadline:
                raise LockTimeoutError(_refusal(seconds, holders)) from None
        else:
            return
        log.info("migration_waits", holders=[str(holder) for holder in holders], pause=pause)
        wait_ms = max([WAIT_MS, *(h.yields_after_ms + 100 for h in holders if h.yields_after_ms)])
        await_only(asyncio.sleep(pause))
        pause = min(pause * 2, MAX_PAUSE_SECONDS)


def _behind(error: BaseException) -> BaseException:
    while isinstance(error, PendingRollbackError) and error.__context__ is not None:
        error = error.__context__
    return error


def _holders(connection: Connection) -> list[_Holder]:
    rows = connection.execute(_HOLDERS, {"tables": list(Base.metadata.tables)}).all()
    connection.rollback()
    return list({row[0]: _Holder(*row) for row in reversed(rows)}.values())[::-1]


def _refusal(seconds: float, holders: list[_Holder]) -> str:
    who = "; ".join(str(holder) for holder in holders[:5]) or "nobody any more"
    return (
        f"The tables were too busy to migrate for {seconds:g} s. What is done stays done, and a "
        f"new upgrade goes on from there. Their locks are held by {who}. End what is long and run "
        "it again, or give it more time by QORTEX_DB_MIGRATION_TIMEOUT_SECONDS."
    )
