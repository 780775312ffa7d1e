"""What is done once when a Database opens: connections, compiled statements, checks."""

from __future__ import annotations

import asyncio
import math
import weakref
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import QueuePool

from qortex_db import engine as engines
from qortex_db import types
from qortex_db.errors import PermissionDeniedError, SchemaVersionError
from qortex_db.gauges import Gauges
from qortex_db.models import QortexVector
from qortex_db.names import qualified
from qortex_db.observability import statement_spans
from qortex_db.observability.metrics import pools
from qortex_db.repositories.vectors.search.statements import first_search
from qortex_db.repositories.vectors.table import VectorTable
from qortex_db.status import EXTENSION
from qortex_db.translation import translate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.repositories.vectors.repository import VectorRepository
    from qortex_db.settings import Settings, Target
    from qortex_db.uow import Repositories


def engine_on(target: Target, settings: Settings, tables: Iterable[str]) -> AsyncEngine:
    """Our engine on a server, whose statements have spans where settings say so."""
    engine = engines.create_engine(target, settings, tables)
    statement_spans.instrument(
        engine, enabled=settings.otel_enabled, statements=settings.otel_statements
    )
    return engine


class Telling:
    """What an open Database tells of itself besides its calls: its pool, and what gauges ask for.

    Args:
        repositories: The Database.
        engine: Whose pool it is.
        schema: Of the package's tables, if not where the connections look.
        seconds: How often gauges are read that take a query; None: never.
    """

    def __init__(
        self,
        repositories: Repositories,
        engine: AsyncEngine,
        schema: str | None,
        seconds: float | None,
    ) -> None:
        pool: Any = engine.pool
        key = object()
        if isinstance(pool, QueuePool):
            pools[key] = (pool, partial(_use_of, pool))
        # A Database that is never closed is told of as long as somebody has it.
        self._forget = weakref.finalize(self, pools.pop, key, None)
        self._forget.atexit = False
        self._gauges = None if seconds is None else Gauges(repositories, schema, seconds)

    async def end(self) -> None:
        """Tell no more."""
        self._forget()
        if self._gauges is not None:
            await self._gauges.stop()


def _use_of(pool: Any) -> tuple[int, int]:
    """How many connections a pool has at most, and how many are in use."""
    used, most = pool.checkedout(), engines.capacity_of(pool)
    return max(used, pool.size()) if most == math.inf else int(most), used


async def get_ready(
    executor: engines.AutocommitExecutor, engine: AsyncEngine, connections: int
) -> None:
    """Connect so often, and meanwhile compile what a process is likely to ask first."""
    compiling = asyncio.to_thread(_compile_first_search, executor)
    await asyncio.gather(_connect(engine, connections), compiling)


def _compile_first_search(executor: engines.AutocommitExecutor) -> None:
    table: Any = QortexVector.__table__
    executor.compile(first_search(VectorTable(executor, table)))


async def _connect(engine: AsyncEngine, count: int) -> None:
    try:
        # The stack closes those that are there, whatever becomes of the others.
        async with AsyncExitStack() as opened:
            opening = (opened.enter_async_context(engine.connect()) for _ in range(count))
            tasks = [asyncio.ensure_future(each) for each in opening]
            try:
                await asyncio.gather(*tasks)
            finally:
                # One that came later would be nobody's.
                await asyncio.gather(*tasks, return_exceptions=True)
    except Exception as error:  # noqa: BLE001 - translated, and raised again
        failure = translate(error) or error
    else:
        return
    raise failure


async def check(
    executor: engines.AutocommitExecutor,
    vectors: VectorRepository,
    engine: AsyncEngine,
    dimensions: int | None,
) -> None:
    """Refuse what no call would work with; a database that is not migrated yet is fine.

    Args:
        dimensions: What the settings say that the default table holds.

    Raises:
        DimensionMismatchError: It holds others.
        PermissionDeniedError: The role may not use the schema that pgvector is in.
        SchemaVersionError: Its search_path lacks it.
    """
    path = engines.path_of(engine.sync_engine)
    # Where schemas were left out of the path, it is no longer what was asked.
    if path.open or path.vector is None or not path.vector.is_visible:
        extension = (await executor.run(EXTENSION, {})).rows
        if not extension:
            return  # the calls say so
        schema, role, visible, open_ = extension[0]
        if not open_:
            raise PermissionDeniedError(
                f"pgvector is in the schema {schema}, on which the role {role} lacks USAGE. As its "
                f"owner: GRANT USAGE ON SCHEMA {qualified(schema)} TO {qualified(role)}."
            )
        if not visible:
            raise SchemaVersionError(
                f"pgvector is in the schema {schema}, which this role's search_path lacks: "
                f"ALTER ROLE … SET search_path = …, {schema}."
            )
    try:
        held = await vectors.dimensions()
    except SchemaVersionError:
        return
    types.check_setting(dimensions, held)
