"""A standby that reads are sent to: whether it is there, and whether it has what a caller wrote.

No call waits for one that is away: it is asked again in a task of its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from qortex_db.engine.connections.cleanup import task_of
from qortex_db.engine.options import NO_OPTIONS
from qortex_db.engine.telling import AFTER, guarded, parted
from qortex_db.errors import (
    InvalidInputError,
    OverloadedError,
    PermissionDeniedError,
    PoolTimeoutError,
    QortexDbError,
    ReadOnlyError,
    RecoveryConflictError,
    SchemaVersionError,
    UnavailableError,
)
from qortex_db.observability import log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qortex_db.engine.executor import Fetched
    from qortex_db.engine.lanes.autocommit import AutocommitExecutor
    from qortex_db.engine.options import CallOptions

LEAST_LOST_SECONDS: Final = 0.5
MOST_LOST_SECONDS: Final = 30.0
"""How long a replica that is lost is left alone: it doubles from the one to the other."""
BEHIND_SECONDS: Final = 0.01
"""How long a replica that was behind a write is not asked for what has to be after it."""
_IDENTITY: Final = text("""
SELECT CAST(s.system_identifier AS text), CAST(d.oid AS text)
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
WHERE d.datname = pg_catalog.current_database()
""")
_OPEN_FROM: Final = text(
    "SELECT CAST(CAST(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) AS text) "
    "AS bigint)"
)
_NOTHING_OF_IT: Final = (RecoveryConflictError, SchemaVersionError, ReadOnlyError)
"""What another server may answer: one that replays nothing, or has the newest migration."""


async def identity_of(executor: AutocommitExecutor) -> Sequence[Any]:
    """What a primary's cluster and database have in common with their copies."""
    try:
        return tuple((await executor.run_here(_IDENTITY, {}, NO_OPTIONS)).rows[0])
    except PermissionDeniedError:  # every role may ask, until somebody revokes that
        return ()


async def open_from(executor: AutocommitExecutor) -> int:
    """The number from which on transactions are open to a server."""
    return int((await executor.run_here(_OPEN_FROM, {}, NO_OPTIONS)).rows[0][0])


class Replica:
    """A standby that reads are sent to.

    Attributes:
        executor: The lane of calls by themselves on it.
        name: Its place among the replicas, with host and database.
        is_ready: Whether it answered when it was last asked.
        reads: How many it answered.
        behind: How many it did not, since it was behind what their callers wrote.
    """

    def __init__(self, executor: AutocommitExecutor, number: int) -> None:
        self.executor = executor
        url = executor.engine.url
        self.name = f"{number} ({url.host or url.query.get('host') or 'local'}/{url.database})"
        self.is_ready = False
        self.reads = self.behind = 0
        self._told_lost = False
        self._pause = LEAST_LOST_SECONDS
        self._again_at = 0.0
        self._behind: tuple[int, float] = (0, 0.0)
        self._probe: asyncio.Future[Any] | None = None

    def is_behind(self, after: int) -> bool:
        """Whether it was behind just now."""
        number, until = self._behind
        return bool(number) and after >= number and time.monotonic() < until

    def lose(self, error: QortexDbError) -> None:
        """Leave it alone for a while."""
        self.is_ready = False
        self._again_at = time.monotonic() + self._pause
        if not self._told_lost:
            self._told_lost = True
            log.warning("replica_lost", replica=self.name, reason=str(error))
        self._pause = min(2 * self._pause, MOST_LOST_SECONDS)

    async def check(self, identity: Sequence[Any]) -> None:
        """Take it up if it answers.

        Args:
            identity: Of the primary's cluster and database.

        Raises:
            InvalidInputError: It is no copy of the primary's: numbers of transactions are others.
        """
        try:
            found = await identity_of(self.executor)
        except RecoveryConflictError:  # it is there, and replays
            self._again_at = time.monotonic() + BEHIND_SECONDS
            return
        except QortexDbError as error:
            self.lose(error)
            return
        if found != identity:
            failure = InvalidInputError(
                f"{self.name} is no standby of the primary by streaming or shipped WAL, or another "
                "of its databases; take it out of the replicas."
            )
            self.lose(failure)
            raise failure
        self.is_ready = True
        self._pause = LEAST_LOST_SECONDS
        if self._told_lost:
            self._told_lost = False
            log.info("replica_back", replica=self.name)

    def is_due(self) -> bool:
        """Whether it is to be asked again, by a task of nobody's."""
        probe = self._probe
        # One of another loop's, as before a fork, is never done.
        asks = probe is not None and probe.get_loop() is asyncio.get_running_loop()
        return time.monotonic() >= self._again_at and (probe is None or not asks or probe.done())

    def probe(self, check: Any) -> None:
        """Ask it again meanwhile."""
        self._probe = task_of(check)
        self.executor.operations.cleanup.own(self._probe)

    def end(self) -> None:
        """Wait for it no more."""
        if self._probe is not None and self._probe.get_loop() is asyncio.get_running_loop():
            self._probe.cancel()

    async def read(
        self, statement: Any, params: Mapping[str, Any], options: CallOptions, after: int
    ) -> Fetched | None:
        """What it has; None where another has to be asked.

        Args:
            after: The number of the transaction that it has to have reached; 0 for any.
        """
        try:
            if not after:
                given = await self.executor.run_here(statement, params, options)
            else:
                asked = {**params, AFTER: str(after)}
                beside = await self.executor.run_here(guarded(statement), asked, options)
                given, has_reached = parted(beside)
                if not has_reached:
                    self.behind += 1
                    self._behind = after, time.monotonic() + BEHIND_SECONDS
                    return None
        except (*_NOTHING_OF_IT, PoolTimeoutError, OverloadedError):  # others may have room
            return None
        except UnavailableError as error:
            self.lose(error)
            return None
        self.reads += 1
        return given

    async def open_from(self) -> int | None:
        """The number from which on transactions are open to it; None where it does not answer."""
        try:
            return await open_from(self.executor)
        except UnavailableError as error:
            self.lose(error)
        except QortexDbError:
            pass
        return None
