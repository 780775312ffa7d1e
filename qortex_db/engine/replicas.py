"""Which server answers a read by itself: a replica that has its caller's writes, or the primary."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any

from qortex_db.engine.connections.cleanup import task_of
from qortex_db.engine.executor import written_tables
from qortex_db.engine.replica import BEHIND_SECONDS, Replica, identity_of, open_from
from qortex_db.engine.telling import is_for_replicas, parted, seeing, telling, told
from qortex_db.errors import QortexDbError
from qortex_db.observability.metrics import reads_total

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Executable

    from qortex_db.engine.executor import Fetched
    from qortex_db.engine.lanes.autocommit import AutocommitExecutor
    from qortex_db.engine.options import CallOptions


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
                self._identity = await identity_of(self._primary)
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

    async def close(self, grace_seconds: float) -> None:
        """Take no more calls, and wait for those in flight."""
        for replica in self.all:
            replica.end()
        lanes = (replica.executor.operations.close(grace_seconds) for replica in self.all)
        await asyncio.gather(*lanes)

    async def status(self) -> list[dict[str, Any]]:
        """Of each its name, whether it answers, how far it is behind, and what it did."""
        if not self.all:
            return []
        list(self._in_turn())  # those that are lost are asked again
        latest = await open_from(self._primary)
        found = []
        for replica in self.all:
            reached = await replica.open_from() if replica.is_ready else None
            found.append(
                {
                    "name": replica.name,
                    "is_ready": replica.is_ready,
                    "transactions_behind": None if reached is None else max(0, latest - reached),
                    "reads": replica.reads,
                    "reads_behind": replica.behind,
                }
            )
        return found
