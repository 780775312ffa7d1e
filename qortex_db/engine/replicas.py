"""Which server answers a read by itself: a replica that has what its caller wrote, or the primary.

No call waits for a replica that is away: it is asked again in a task of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from qortex_db.engine.cleanup import task_of
from qortex_db.engine.executor import written_tables
from qortex_db.engine.options import NO_OPTIONS
from qortex_db.engine.telling import AFTER, guarded, is_for_replicas, parted, seeing, telling, told
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
from qortex_db.observability import log, reads_total

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Executable

    from qortex_db.engine.autocommit import AutocommitExecutor
    from qortex_db.engine.executor import Fetched
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


async def _identity(executor: AutocommitExecutor) -> Sequence[Any]:
    """What a primary's cluster and database have in common with their copies."""
    try:
        return tuple((await executor.run_here(_IDENTITY, {}, NO_OPTIONS)).rows[0])
    except PermissionDeniedError:  # every role may ask, until somebody revokes that
        return ()


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
            found = await _identity(self.executor)
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
        return time.monotonic() >= self._again_at and (self._probe is None or self._probe.done())

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
        except _NOTHING_OF_IT:
            return None
        except (PoolTimeoutError, OverloadedError):
            raise
        except UnavailableError as error:
            self.lose(error)
            return None
        self.reads += 1
        return given

    async def open_from(self) -> int | None:
        """The number from which on transactions are open to it; None where it does not answer."""
        try:
            return int((await self.executor.run_here(_OPEN_FROM, {}, NO_OPTIONS)).rows[0][0])
        except UnavailableError as error:
            self.lose(error)
        except QortexDbError:
            pass
        return None


class Replicas:
    """The primary's, in turn.

    Args:
        primary: Which answers what they don't.
        replicas: The lanes on copies of its by streaming or shipped WAL.
        wait_seconds: How long a read waits for one to reach its caller's last write.
    """

    def __init__(
        self,
        primary: AutocommitExecutor,
        replicas: Sequence[AutocommitExecutor],
        wait_seconds: float,
    ) -> None:
        self._primary = primary
        self.all = tuple(Replica(each, i) for i, each in enumerate(replicas, 1))
        self._wait_seconds = wait_seconds
        self._turn = itertools.count()
        self._identity: Sequence[Any] | None = None

    async def run(
        self, statement: Executable, params: Mapping[str, Any], options: CallOptions
    ) -> Fetched:
        """Where a statement belongs."""
        own = options.own_writes
        if not is_for_replicas(statement):
            if own is None or written_tables(statement) is None:
                return await self._primary.run_here(statement, params, options)
            return await self._write(statement, params, options)
        after = own.last if own is not None and options.consistency == "session" else 0
        if after is None:
            return await self._see(statement, params, options)
        if options.consistency != "strong":
            given = await self._by_replica(statement, params, options, after)
            if given is not None:
                reads_total.add(1, {"answered_by": "replica"})
                return given
        reads_total.add(1, {"answered_by": "primary"})
        return await self._primary.run_here(statement, params, options)

    async def _write(
        self, statement: Executable, params: Mapping[str, Any], options: CallOptions
    ) -> Fetched:
        own: Any = options.own_writes
        mark = own.begin()
        asking = telling(statement)
        try:
            if asking is None:
                given, number = await self._primary.run_here(statement, params, options), None
            else:
                beside = await self._primary.run_here(asking, params, options)
                given, number = told(statement, beside)
        except BaseException:
            own.lose()  # it may have been done, and what refused it may be on the primary alone
            raise
        own.end(mark, number)
        return given

    async def _see(
        self, statement: Any, params: Mapping[str, Any], options: CallOptions
    ) -> Fetched:
        """Read on the primary, and note what it sees: the number of a write is not known."""
        own: Any = options.own_writes
        mark = own.begin()
        reads_total.add(1, {"answered_by": "primary"})
        given, horizon = parted(await self._primary.run_here(seeing(statement), params, options))
        own.end(mark, int(horizon) - 1)
        return given

    async def _by_replica(
        self, statement: Any, params: Mapping[str, Any], options: CallOptions, after: int
    ) -> Fetched | None:
        deadline = time.monotonic() + self._wait_seconds
        while True:
            late = False
            for replica in self._in_turn():
                if not replica.is_behind(after):
                    given = await replica.read(statement, params, options, after)
                    if given is not None:
                        return given
                late = late or replica.is_behind(after)
            left = deadline - time.monotonic()
            if not late or left <= 0:
                return None
            await asyncio.sleep(min(BEHIND_SECONDS, left))

    def _in_turn(self) -> Iterator[Replica]:
        """Those that are there, each time another one first."""
        count = len(self.all)
        first = next(self._turn)
        for place in range(count):
            replica = self.all[(first + place) % count]
            if replica.is_ready:
                yield replica
            elif replica.is_due():
                replica.probe(self._check(replica))

    async def _check(self, replica: Replica) -> None:
        if self._identity is None:
            try:
                self._identity = await _identity(self._primary)
            except QortexDbError as error:
                replica.lose(error)
                raise
        await replica.check(self._identity)

    async def open(self) -> None:
        """Ask all of them at once.

        Raises:
            InvalidInputError: One is a copy of something else.
        """
        if not self.all:
            return
        checks = [task_of(self._check(each)) for each in self.all]
        await asyncio.gather(*checks)

    async def close(self) -> None:
        """Take no more calls, and wait for none: the primary's are over."""
        for replica in self.all:
            replica.end()
            await replica.executor.operations.close(0)

    async def status(self) -> list[dict[str, Any]]:
        """Of each its name, whether it answers, how far it is behind, and what it did."""
        if not self.all:
            return []
        list(self._in_turn())  # those that are lost are asked again
        asked = (await self._primary.run_here(_OPEN_FROM, {}, NO_OPTIONS)).rows
        found = []
        for replica in self.all:
            reached = await replica.open_from() if replica.is_ready else None
            found.append(
                {
                    "name": replica.name,
                    "is_ready": replica.is_ready,
                    "transactions_behind": None
                    if reached is None
                    else max(0, asked[0][0] - reached),
                    "reads": replica.reads,
                    "reads_behind": replica.behind,
                }
            )
        return found
