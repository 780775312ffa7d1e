"""Reads the facts: some statements, each of a bounded time, none of which holds up the others."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import text

from qortex_db import engine as engines
from qortex_db import opening
from qortex_db.doctor import statements
from qortex_db.doctor.facts import (
    Capacity,
    Facts,
    Position,
    Replica,
    Server,
    Sessions,
    Standby,
    TableAccess,
    Unread,
    Use,
)
from qortex_db.engine.replica import identity_of
from qortex_db.errors import QortexDbError
from qortex_db.index_health import read_indexes
from qortex_db.migrations.history import is_shared
from qortex_db.migrations.rebuild.pending import pending_on
from qortex_db.names import qualified
from qortex_db.status import TABLES
from qortex_db.translation import translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.index_health import Index
    from qortex_db.settings import Settings, Target

STATEMENT_SECONDS: Final = 5.0
"""How long one of the questions may take."""
_PATIENCE: Final = 2.0
"""After that, the connection itself is taken to be stuck."""
CATCHING_UP_SECONDS: Final = 1.0
"""How long a replica is given to reach where the primary was: how far it is behind."""
_AGAIN_SECONDS: Final = 0.05
T = TypeVar("T")


async def read(settings: Settings, target: Target, tables: Iterable[Table]) -> Facts:
    """What there is to judge; what can't be read is an `Unread` with the reason.

    Args:
        settings: How to connect.
        target: Where to.
        tables: A host's, beside our own.
    """
    async with _lane(settings, target) as lane:
        server = await _read(lane.server())
        if isinstance(server, Unread):
            missing = Unread("the server can't be asked")
            return Facts(
                where=target.display,
                server=server,
                capacity=missing,
                tables=missing,
                indexes=missing,
                revisions=missing,
                pending=missing,
                sessions=missing,
                closed_schemas=missing,
            )
        closed = await _read(lane.closed())
        shut = () if isinstance(closed, Unread) else closed
        found = await _read(lane.tables([*TABLES.values(), *tables], shut))
        revisions = await _read(lane.revisions())
        access: Mapping[str, TableAccess] | Unread
        indexes: tuple[Index, ...] | Unread
        if isinstance(found, Unread):
            access = indexes = found
        else:
            access = {name: one for name, (_, one) in found.items()}
            indexes = await _read(read_indexes(lane.executor, [oid for oid, _ in found.values()]))
        return Facts(
            where=target.display,
            server=server,
            capacity=await _read(lane.capacity()),
            tables=access,
            indexes=indexes,
            revisions=revisions,
            pending=await _read(lane.pending()),
            sessions=await _read(lane.sessions()),
            open_schemas=tuple(map(str, engines.path_of(lane.engine.sync_engine).open)),
            closed_schemas=closed,
            replicas=await _replicas(settings, lane),
        )


async def _replicas(settings: Settings, of_primary: _Lane) -> tuple[Replica, ...]:
    """All of them at once: one that is away holds up no other."""
    targets = settings.replicas()
    if not targets:
        return ()
    primary = await _read(of_primary.position())

    async def read_one(target: Target) -> Replica:
        async with _lane(settings, target) as lane:
            reached = await _read(lane.pid())
            if isinstance(reached, Unread):
                return Replica(target.display, reached, is_reached=False)
            if isinstance(primary, Unread):
                reason = f"where the primary is was not told: {primary.reason}"
                return Replica(target.display, Unread(reason))
            return Replica(target.display, await _read(lane.standby(primary)))

    return tuple(await asyncio.gather(*map(read_one, targets)))


async def _read(asked: Awaitable[T]) -> T | Unread:
    seconds = STATEMENT_SECONDS + _PATIENCE
    try:
        async with asyncio.timeout(seconds):
            return await asked
    except TimeoutError:
        return Unread(f"it was not answered within {seconds:g} s.")
    except QortexDbError as error:
        return Unread(str(error))
    except Exception as error:
        told = translate(error)
        if told is None:
            raise
        return Unread(str(told))


@asynccontextmanager
async def _lane(settings: Settings, target: Target) -> AsyncIterator[_Lane]:
    """Two connections at most, and no try again: what does not answer now is what is told."""
    own = settings.model_copy(
        update={
            "pool": "fair",
            "pool_min_size": 0,
            "pool_max_size": 2,
            "pool_timeout_seconds": STATEMENT_SECONDS,
            "retry_seconds": 0.0,
            "statement_timeout_seconds": STATEMENT_SECONDS,
            "connect_timeout_seconds": min(settings.connect_timeout_seconds, STATEMENT_SECONDS),
        }
    )
    engine = opening.engine_on(target, own, TABLES)
    executor = engines.AutocommitExecutor(engine, retry_seconds=0)
    executor.operations.settle()
    try:
        yield _Lane(engine, executor, settings)
    finally:
        await engines.dispose(engine)


@dataclass(frozen=True, slots=True)
class _Lane:
    engine: AsyncEngine
    executor: engines.AutocommitExecutor
    settings: Settings

    async def _rows(self, statement: Any, **params: Any) -> Sequence[Any]:
        return (await self.executor.run(statement, params)).rows

    async def server(self) -> Server:
        await self._rows(statements.SERVER)  # connects, and prepares it
        sent, began = datetime.now(UTC), time.perf_counter()
        (row,) = await self._rows(statements.SERVER)
        took = time.perf_counter() - began
        *facts, clock = row
        ahead = clock - (sent + timedelta(seconds=took / 2))
        return Server(*facts, ahead.total_seconds(), took)  # type: ignore[call-arg]

    async def capacity(self) -> Capacity:
        names = list(statements.NAMES)
        numbers = dict(await self._rows(statements.SETTINGS, names=names))
        ((all_, of_role, role, of_database, database),) = await self._rows(statements.CONNECTIONS)
        return Capacity(numbers, all_, Use(of_role, role), Use(of_database, database))

    async def closed(self) -> tuple[str, ...]:
        return tuple(row[0] for row in await self._rows(text(engines.CLOSED)))

    async def pending(self) -> tuple[str, ...]:
        async with self.engine.connect() as connection:
            return tuple(await pending_on(connection, self.settings.db_schema))

    async def tables(
        self, wanted: Iterable[Table], closed: Sequence[str]
    ) -> dict[str, tuple[int, TableAccess]]:
        own = self.settings.db_schema
        return await self._access([(t.fullname, t.schema or own, t.name) for t in wanted], closed)

    async def _access(
        self, wanted: Sequence[tuple[str, str | None, str]], closed: Sequence[str]
    ) -> dict[str, tuple[int, TableAccess]]:
        """Of labels, schemas and names those that are there."""
        labels, schemas, names = map(list, zip(*wanted, strict=True))
        rows = await self._rows(
            statements.TABLES, labels=labels, schemas=schemas, names=names, closed=list(closed)
        )
        return {
            name: (oid, TableAccess(name, *where, hides, frozenset(may)))  # type: ignore[call-arg]
            for name, oid, *where, hides, may in rows
        }

    async def revisions(self) -> tuple[str, ...] | Unread | None:
        """What the version table says; what would be refused is not asked."""
        name, schema = self.settings.version_table, self.settings.db_schema
        closed = await self.closed()
        found = await self._access([(name, schema, name)], closed)
        if not found and is_shared(self.settings):  # a host's need not be where our tables are
            found = await self._access([(name, None, name)], closed)
        if not found:
            return None
        _, table = found[name]
        if table.refusal is not None:
            return table.refusal
        place = qualified(table.schema, name)
        rows = await self._rows(text(f"SELECT version_num FROM {place}"))  # noqa: S608 - quoted
        return tuple(row[0] for row in rows)

    async def pid(self) -> int:
        ((number,),) = await self._rows(statements.PID)
        return int(number)

    async def position(self) -> Position:
        identity = tuple(await identity_of(self.executor))
        ((started, place),) = await self._rows(statements.POSITION)
        return Position(identity, started, place)

    async def standby(self, primary: Position) -> Standby:
        """How far it is behind a place, which it is given a moment to reach."""
        identity = tuple(await identity_of(self.executor))
        began = time.monotonic()
        while True:
            (row,) = await self._rows(statements.STANDBY, place=primary.place)
            it, started, is_paused, behind, age, conflicts, has_feedback, delay = row
            waited = time.monotonic() - began
            if behind <= 0 or is_paused or waited > CATCHING_UP_SECONDS:
                break
            await asyncio.sleep(_AGAIN_SECONDS)
        return Standby(
            is_standby=it,
            is_copy=identity == primary.identity,
            is_primary=identity == primary.identity and started == primary.started,
            is_paused=is_paused,
            behind_bytes=max(0, behind),
            behind_seconds=waited if behind <= 0 else age,
            conflicts=conflicts,
            has_feedback=has_feedback,
            delay_seconds=delay,
            revisions=await _read(self.revisions()),
        )

    async def sessions(self) -> Sessions:
        async with self.engine.connect() as first, self.engine.connect() as second:
            pids, answered = [], []
            for each in (first, second):
                connection = await each.execution_options(isolation_level="AUTOCOMMIT")
                answered.append(await connection.scalar(statements.PID))
                raw: Any = await connection.get_raw_connection()
                pids.append(raw.driver_connection.get_server_pid())
        return Sessions(is_pooled=answered != pids, shares=answered[0] == answered[1])
