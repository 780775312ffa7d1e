"""How a migration shares a busy table: short waits for its locks, again and again, to a deadline.

Whoever waits for an exclusive lock makes everybody behind it wait too. So a statement of a revision
gives up soon, lets the others pass, and the revision, a transaction of its own, is tried again.

An autovacuum gives way only to whom it has kept waiting for deadlock_timeout, a second by default.
It is outwaited before a revision, by a lock that stands in nobody else's way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from qortex_db.errors import LockTimeoutError
from qortex_db.migrations.connection import NO_TIMEOUTS
from qortex_db.migrations.waiting import BusyError, try_until
from qortex_db.models import Base
from qortex_db.observability import log
from qortex_db.translation import sqlstate_of

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
# nobody.
_HOLDERS = text("""
SELECT lock.pid, CAST(CAST(lock.relation AS regclass) AS text), state,
       round(extract(epoch FROM now() - xact_start)),
       mode = 'ShareUpdateExclusiveLock' AND usesysid IS NULL
FROM unnest(CAST(:tables AS text[])) AS ours (name)
JOIN pg_catalog.pg_locks lock
  ON lock.relation
    = to_regclass(coalesce(quote_ident(:schema) || '.', '') || quote_ident(name))::oid
JOIN pg_catalog.pg_stat_activity activity ON activity.pid = lock.pid
WHERE granted AND lock.pid <> pg_backend_pid()
  AND lock.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
ORDER BY xact_start NULLS LAST, lock.pid
""")
OUTWAIT: Final = text("""
SELECT set_config('statement_timeout', '0', true),
       set_config('lock_timeout', CAST(CAST(setting AS integer) + 500 AS text), true)
FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'
""")
"""For the rest of a transaction: wait for longer than an autovacuum does."""
UNOBTRUSIVE: Final = "SHARE UPDATE EXCLUSIVE"
"""A lock that an autovacuum is in the way of; none who read or write are, nor wait behind it."""


@dataclass(frozen=True, slots=True)
class _Holder:
    """A process with a lock on a table of ours."""

    pid: int
    table: str  # quoted, and with its schema where the search path does not find it
    state: str | None
    seconds: int | None
    is_autovacuum: bool

    def __str__(self) -> str:
        what = "an autovacuum" if self.is_autovacuum else self.state or "not shown"
        since = "" if self.seconds is None else f" for {self.seconds} s"
        return f"process {self.pid} on {self.table} ({what}{since})"


def migrate_patiently(
    connection: Connection, settings: Settings, migrate: Callable[[], None]
) -> None:
    """Call what migrates until the tables let it.

    Whatever limits it sets are for its own statements: what is asked in between and afterwards has
    none.

    Raises:
        LockTimeoutError: The deadline has passed; it names who holds the tables.
    """
    _lift_limits(connection)
    seconds = settings.migration_timeout_seconds
    holders: list[_Holder] = []

    def attempt() -> None:
        nonlocal holders
        _outwait_autovacuums(connection, settings)
        try:
            migrate()
        except PendingRollbackError as error:  # what ended an autocommit_block is behind it
            raise _behind(error) from None
        except DBAPIError as error:
            if sqlstate_of(error) not in _BUSY:
                raise
            connection.rollback()
            _lift_limits(connection)
            holders = _holders(connection, settings)
            raise BusyError(LockTimeoutError(_refusal(seconds, holders))) from None
        _lift_limits(connection)

    def tell(pause: float) -> None:
        log.info("migration_waits", holders=[str(holder) for holder in holders], pause=pause)

    try_until(
        attempt,
        seconds=seconds,
        pause=WAIT_MS / 1000,
        longest_pause=MAX_PAUSE_SECONDS,
        on_pause=tell,
    )


def _lift_limits(connection: Connection) -> None:
    off = "SET statement_timeout = 0"
    try:
        connection.exec_driver_sql(off)
    except DBAPIError as error:
        if sqlstate_of(error) not in _BUSY:
            raise
        connection.rollback()  # the server stalled for as long as the limit that this lifts
        connection.exec_driver_sql(off)
    connection.execute(NO_TIMEOUTS)
    connection.commit()


def _behind(error: BaseException) -> BaseException:
    while isinstance(error, PendingRollbackError) and error.__context__ is not None:
        error = error.__context__
    return error


def _outwait_autovacuums(connection: Connection, settings: Settings) -> None:
    for holder in _holders(connection, settings):
        if not holder.is_autovacuum:
            continue
        try:
            connection.execute(OUTWAIT)
            connection.exec_driver_sql(f"LOCK TABLE {holder.table} IN {UNOBTRUSIVE} MODE")
        except DBAPIError as error:  # one that prevents a wraparound gives way to nobody
            if sqlstate_of(error) not in _BUSY:
                raise
        connection.rollback()


def _holders(connection: Connection, settings: Settings) -> list[_Holder]:
    tables = {"tables": list(Base.metadata.tables), "schema": settings.db_schema}
    rows = connection.execute(_HOLDERS, tables).all()
    connection.rollback()
    return list({row[0]: _Holder(*row) for row in reversed(rows)}.values())[::-1]


def _refusal(seconds: float, holders: list[_Holder]) -> str:
    who = "; ".join(str(holder) for holder in holders[:5]) or "nobody any more"
    return (
        f"The tables were too busy to migrate for {seconds:g} s. What is done stays done, and a "
        f"new upgrade goes on from there. Their locks are held by {who}. End what is long and run "
        "it again, or give it more time by QORTEX_DB_MIGRATION_TIMEOUT_SECONDS."
    )
