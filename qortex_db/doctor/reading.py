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
from qortex_db.doctor.facts import Capacity, Facts, Server, Sessions, TableAccess, Unread
from qortex_db.errors import QortexDbError
from qortex_db.index_health import read_indexes
from qortex_db.migrations import pending_indexes
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
            )
        found = await _read(lane.tables([*TABLES.values(), *tables]))
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
            revisions=await _read(lane.revisions()),
            pending=await _read(_pending(settings)),
            sessions=await _read(lane.sessions()),
            open_schemas=tuple(map(str, engines.path_of(lane.engine.sync_engine).open)),
        )


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


async def _pending(settings: Settings) -> tuple[str, ...]:
    """Past a pooler in transaction mode alone can they be read."""
    return tuple(await pending_indexes(settings)) if settings.pooler is None else ()


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
        (counts,) = await self._rows(statements.CONNECTIONS)
        return Capacity(numbers, *counts)

    async def tables(self, wanted: Sequence[Table]) -> dict[str, tuple[int, TableAccess]]:
        rows = await self._rows(
            statements.TABLES,
            labels=[table.fullname for table in wanted],
            schemas=[table.schema or self.settings.db_schema for table in wanted],
            names=[table.name for table in wanted],
        )
        return {
            name: (oid, TableAccess(name, *where, frozenset(may), hides))  # type: ignore[call-arg]
            for name, oid, *where, may, hides in rows
        }

    async def revisions(self) -> tuple[str, ...] | None:
        name, schema = self.settings.version_table, self.settings.db_schema
        found = await self._rows(
            statements.TABLES, labels=[name, name], schemas=[schema, None], names=[name, name]
        )
        if not found:
            return None
        place = qualified(found[0][3], name)
        rows = await self._rows(text(f"SELECT version_num FROM {place}"))  # noqa: S608 - quoted
        return tuple(row[0] for row in rows)

    async def sessions(self) -> Sessions:
        async with self.engine.connect() as first, self.engine.connect() as second:
            pids, answered = [], []
            for each in (first, second):
                connection = await each.execution_options(isolation_level="AUTOCOMMIT")
                answered.append(await connection.scalar(statements.PID))
                raw: Any = await connection.get_raw_connection()
                pids.append(raw.driver_connection.get_server_pid())
        return Sessions(is_pooled=answered != pids, shares=answered[0] == answered[1])
