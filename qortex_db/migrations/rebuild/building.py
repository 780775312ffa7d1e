"""The vector indexes of one table: dropped, built as they were, and reindexed."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Final

from sqlalchemy import TableClause, func, select, text

from qortex_db.errors import NotFoundError, QortexDbError
from qortex_db.migrations.rebuild.owned_table import OwnedTable, finish
from qortex_db.migrations.rebuild.pending import Index, read_pending, write_pending
from qortex_db.observability import log
from qortex_db.translation import sqlstate_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from sqlalchemy.ext.asyncio import AsyncConnection

MAX_MEMORY_KB: Final = 1024 * 1024
"""What a build takes unasked at most: with parallel workers all of it is reserved at once."""
DROP_TIMEOUT: Final = "600s"
"""How long a drop waits for the transactions that use the table; it blocks nobody meanwhile."""

_ROW_KB: Final = 1  # of a graph beside its vector: neighbours and distances, up to m = 24
WORKERS: Final = "max_parallel_maintenance_workers"
_NO_SHARED_MEMORY: Final = {"53100", "53200"}
_LEFTOVER: Final = re.compile(r"_cc(new|old)\d*$")  # of an interrupted REINDEX CONCURRENTLY

_INDEXES = text("""
SELECT c.relname, pg_get_indexdef(c.oid), coalesce(s.spcname, ''),
       obj_description(c.oid, 'pg_class'), i.indisvalid, pg_relation_size(c.oid)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am a ON a.oid = c.relam
LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
WHERE i.indrelid = :oid AND a.amname IN ('hnsw', 'ivfflat') ORDER BY c.relname
""")
_PROGRESS = text("""
SELECT phase, CASE WHEN phase LIKE 'waiting%' THEN lockers_done
                   WHEN blocks_total > 0 THEN blocks_done ELSE tuples_done END,
              CASE WHEN phase LIKE 'waiting%' THEN lockers_total
                   WHEN blocks_total > 0 THEN blocks_total ELSE tuples_total END
FROM pg_catalog.pg_stat_progress_create_index WHERE pid = :pid AND phase IS NOT NULL
""")
_SIZES = text("""
SELECT pg_table_size(CAST(:oid AS oid)) / 1024, setting::bigint
FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'
""")


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How far the build of an index is.

    Attributes:
        index: Its name.
        phase: In the words of `pg_stat_progress_create_index`; "finished" at the end.
        done: Blocks, tuples or transactions of this phase.
        total: How many there are, 0 where the server does not say.
    """

    index: str
    phase: str
    done: int
    total: int

    @property
    def fraction(self) -> float:
        """The done part of this phase, 0.0 to 1.0."""
        return min(1.0, self.done / self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class RebuiltIndex:
    """An index after its build."""

    name: str
    definition: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Found(Index):
    """One that is there."""

    valid: bool
    bytes: int


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One table's indexes, under the migration lock."""

    table: OwnedTable
    options: dict[str, str]
    on_progress: Callable[[IndexProgress], object] | None

    async def run(
        self, load: Callable[[], Awaitable[object]] | None, *, but: Collection[str] = ()
    ) -> list[RebuiltIndex]:
        """As `rebuild_index` says.

        Args:
            but: Those that were built already.
        """
        await self._sweep(DROP_TIMEOUT)
        there = await self.indexes()
        if not there and not await read_pending(self.table):
            raise NotFoundError(
                f"There is no vector index on {self.table.name}, and none waits to be restored."
            )
        if load is None:
            restored = await self.restore()
            done = {*but, *(index.name for index in restored)}
            others = [index for name, index in there.items() if name not in done]
            return restored + [await self.build(index, create=False) for index in others]
        try:
            await self._drop(there)
            await load()
        except BaseException as error:
            log.warning("index_load_failed", table=self.table.name, error=type(error).__name__)
            raise
        finally:
            rebuilt = await self.restore()
        return rebuilt

    async def indexes(self) -> dict[str, Found]:
        """The table's vector indexes, by their names."""
        rows = await self.table.query(_INDEXES, oid=self.table.oid)
        return {row[0]: Found(*row) for row in rows}

    async def _sweep(self, lock_timeout: str, created: str | None = None) -> None:
        """Drop what an interrupted build left: it slows each write and serves no search."""
        for index in (await self.indexes()).values():
            if not index.valid and (index.name == created or _LEFTOVER.search(index.name)):
                await self._drop_one(index.name, lock_timeout)

    async def _drop_one(self, name: str, lock_timeout: str) -> None:
        statement = "DROP INDEX CONCURRENTLY IF EXISTS %I.%I"
        await self.table.run(statement, self.table.schema, name, lock_timeout=lock_timeout)

    async def _drop(self, there: dict[str, Found]) -> None:
        pending = {index.name: index for index in await read_pending(self.table)}
        for index in there.values():
            noted = pending.get(index.name)
            # The process may have died after the build, before the comment was put back.
            if noted is None or noted.definition != index.definition:
                pending[index.name] = index
        await write_pending(self.table, pending.values())
        for name in there:
            await self._drop_one(name, DROP_TIMEOUT)

    async def restore(self) -> list[RebuiltIndex]:
        """Build what is pending, or let what is there already count, and forget it."""
        rebuilt = []
        pending = await read_pending(self.table)
        while pending:
            index = pending.pop(0)
            there = (await self.indexes()).get(index.name)
            if there is not None and there.valid:
                rebuilt.append(RebuiltIndex(there.name, there.definition, there.bytes, 0.0))
            else:
                rebuilt.append(await self.build(index, create=there is None))
            if index.comment is not None:
                comment = (self.table.schema, index.name, index.comment)
                await self.table.run("COMMENT ON INDEX %I.%I IS %L", *comment)
            await write_pending(self.table, pending)
        return rebuilt

    async def build(self, index: Index, *, create: bool) -> RebuiltIndex:
        """Create an index, or build anew the one that is there, while the table is in use."""
        started = time.monotonic()
        if create:
            statement = [index.definition.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)]
        else:
            statement = ["REINDEX INDEX CONCURRENTLY %I.%I", self.table.schema, index.name]
        # The definition does not say it.
        settings = {"default_tablespace": index.tablespace} | await self._memory() | self.options
        while True:
            try:
                await self.table.run(*statement, watch=self._watch(index.name), **settings)
                break
            except BaseException as error:
                await finish(self._sweep("5s", index.name if create else None))
                if settings.get(WORKERS) == "0" or sqlstate_of(error) not in _NO_SHARED_MEMORY:
                    raise
                # A container's /dev/shm is small; one process alone builds in memory of its own.
                log.warning("index_build_without_workers", index=index.name)
                settings[WORKERS] = "0"
        made = (await self.indexes()).get(index.name)
        if made is None or not made.valid:
            raise QortexDbError(f"The index {index.name} was built, but is not valid: build again.")
        await self._tell(IndexProgress(index.name, "finished", 1, 1))
        seconds = time.monotonic() - started
        log.info(
            "index_built",
            table=self.table.name,
            index=made.name,
            bytes=made.bytes,
            seconds=round(seconds, 3),
        )
        return RebuiltIndex(made.name, made.definition, made.bytes, seconds)

    async def _memory(self) -> dict[str, str]:
        """Memory for the whole graph, without which a build is many times slower."""
        needed, held = (await self.table.query(_SIZES, oid=self.table.oid))[0]
        if needed < MAX_MEMORY_KB:  # else there is no need to count
            rows = select(func.count()).select_from(
                TableClause(self.table.name, schema=self.table.schema)
            )
            needed += _ROW_KB * (await self.table.query(rows))[0][0]
        return {"maintenance_work_mem": f"{max(held, min(needed, MAX_MEMORY_KB))}kB"}

    def _watch(self, name: str) -> Callable[[AsyncConnection, int], Awaitable[None]]:
        last = None

        async def watch(connection: AsyncConnection, pid: int) -> None:
            nonlocal last
            row = (await connection.execute(_PROGRESS, {"pid": pid})).one_or_none()
            if row is not None and row != last:
                last = row
                await self._tell(IndexProgress(name, *row))

        return watch

    async def _tell(self, progress: IndexProgress) -> None:
        if self.on_progress is not None and isawaitable(told := self.on_progress(progress)):
            await told
