"""The vector indexes of a partitioned table: rebuilt, or taken away and put back, part by part.

PostgreSQL builds none concurrently on a partitioned table, and drops none of a partition's that is
part of one above. So what is dropped is the whole, for a moment; it comes back declared on the
partitioned tables alone, built concurrently on each partition, and each of these is attached. All
of it is found in the catalogue again, wherever an earlier call has ended.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from qortex_db.errors import LockTimeoutError, NotFoundError
from qortex_db.migrations.rebuild.owned_table import OwnedTable
from qortex_db.migrations.rebuild.pending import Index, read_pending, write_pending
from qortex_db.names import index_name
from qortex_db.observability import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qortex_db.migrations.rebuild.building import Found, Rebuild, RebuiltIndex

_SHORT: Final = "500ms"
_TRIES: Final = 600
_PAUSE_SECONDS: Final = 0.5
_USING: Final = " USING "
_ATTACH: Final = "ALTER INDEX %I.%I ATTACH PARTITION %I.%I"
_TREE = text("""
SELECT t.oid, n.nspname, t.relname, pg_catalog.pg_get_userbyid(t.relowner),
       t.relkind = 'p', p.parentrelid::oid
FROM pg_catalog.pg_partition_tree(CAST(:oid AS oid)::regclass) p
JOIN pg_catalog.pg_class t ON t.oid = p.relid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
WHERE t.relkind IN ('r', 'p') ORDER BY p.level, t.relname
""")
_ATTACHED = text("""
SELECT i.relname, above.relname
FROM pg_catalog.pg_index own
JOIN pg_catalog.pg_class i ON i.oid = own.indexrelid
LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = own.indexrelid
LEFT JOIN pg_catalog.pg_class above ON above.oid = h.inhparent
WHERE own.indrelid = :oid
""")


@dataclass(frozen=True, slots=True)
class _Part:
    """A table of the tree.

    Attributes:
        above: The table that it is a partition of.
    """

    table: OwnedTable
    above: int | None


@dataclass(frozen=True, slots=True)
class Partitioned:
    """One partitioned table's indexes, under the migration lock.

    Attributes:
        rebuild: What rebuilds the indexes of one table.
    """

    table: OwnedTable
    rebuild: Callable[[OwnedTable], Rebuild]

    async def run(self, load: Callable[[], Awaitable[object]] | None) -> list[RebuiltIndex]:
        """As `rebuild_index` says."""
        tree = await self._tree()
        if not await self.rebuild(self.table).indexes() and not await read_pending(self.table):
            raise NotFoundError(
                f"There is no vector index on {self.table.name}, and none waits to be restored."
            )
        if load is None:
            rebuilt = await self.restore(tree)
            done = {index.name for index in rebuilt}
            for part in tree:
                if not part.table.is_partitioned and await self.rebuild(part.table).indexes():
                    rebuilt += await self.rebuild(part.table).run(None, but=done)
            return rebuilt
        try:
            await self._drop(tree)
            await load()
        except BaseException as error:
            log.warning("index_load_failed", table=self.table.name, error=type(error).__name__)
            raise
        finally:
            rebuilt = await self.restore(await self._tree())
        return rebuilt

    async def _tree(self) -> list[_Part]:
        rows = await self.table.query(_TREE, oid=self.table.oid)
        return [_Part(OwnedTable(self.table.engine, *found), above) for *found, above in rows]

    async def _drop(self, tree: list[_Part]) -> None:
        """Write down what there is, of all parts, before any of it goes."""
        for part in tree:
            held = {index.name: index for index in await read_pending(part.table)}
            there = await self.rebuild(part.table).indexes()
            if there:
                await write_pending(part.table, ({**held, **there}).values())
        for part in tree:
            wholes = dict(await part.table.query(_ATTACHED, oid=part.table.oid))
            for name in await self.rebuild(part.table).indexes():
                if wholes[name] is None:
                    names = (part.table.schema, name)
                    await self._for_a_moment(part.table, "DROP INDEX IF EXISTS %I.%I", *names)

    async def restore(self, tree: list[_Part]) -> list[RebuiltIndex]:
        """Bring every index back as it was, and have one on each partition for each above."""
        wholes = [part.table for part in tree if part.table.is_partitioned]
        for table in wholes:
            there = await self.rebuild(table).indexes()
            for index in await read_pending(table):
                if index.name not in there:
                    await self._declare(table, index)
        rebuilt = []
        for part in tree:
            if not part.table.is_partitioned:
                rebuilt += await self.rebuild(part.table).restore()
        for table in wholes:
            rebuilt += await self._complete(table, [one for one in tree if one.above == table.oid])
        for table in wholes:
            if await read_pending(table):
                await write_pending(table, [])
        return rebuilt

    async def _complete(self, table: OwnedTable, below: list[_Part]) -> list[RebuiltIndex]:
        rebuilt = []
        for index in (await self.rebuild(table).indexes()).values():
            for part in below:
                rebuilt += await self._attached(table, index, part)
        return rebuilt

    async def _declare(self, table: OwnedTable, index: Index) -> None:
        await self._for_a_moment(table, index.definition)  # it says ON ONLY
        if index.comment is not None:
            comment = (table.schema, index.name, index.comment)
            await table.run("COMMENT ON INDEX %I.%I IS %L", *comment)

    async def _attached(self, above: OwnedTable, index: Found, part: _Part) -> list[RebuiltIndex]:
        """Have an index of a partition be part of the whole: one that is alike, or a new one."""
        wholes = dict(await part.table.query(_ATTACHED, oid=part.table.oid))
        if index.name in wholes.values():
            return []
        rebuild = self.rebuild(part.table)
        shape = index.definition.partition(_USING)[2]
        alike = [
            one
            for one in (await rebuild.indexes()).values()
            if wholes[one.name] is None and one.definition.partition(_USING)[2] == shape
        ]
        rebuilt = []
        own: Index = alike[0] if alike else await self._new(index, part)
        if part.table.is_partitioned:
            if not alike:  # what is below it comes later: the tree goes downwards
                await self._declare(part.table, own)
        elif not alike or not alike[0].valid:
            rebuilt.append(await rebuild.build(own, create=not alike))
        names = (above.schema, index.name, part.table.schema, own.name)
        await self._for_a_moment(above, _ATTACH, *names)
        return rebuilt

    async def _new(self, index: Found, part: _Part) -> Index:
        name = index_name(f"{index.name}_{part.table.name}")
        only = "ONLY " if part.table.is_partitioned else ""
        create = f"CREATE INDEX %I ON {only}%I.%I"
        said = await part.table.formatted(create, name, part.table.schema, part.table.name)
        shape = index.definition.partition(_USING)[2]
        return Index(name, f"{said}{_USING}{shape}", index.tablespace, None)

    async def _for_a_moment(self, table: OwnedTable, template: str, *values: str) -> None:
        """What others wait behind while it waits: by short waits, again and again."""
        for left in reversed(range(_TRIES)):
            try:
                await table.run(template, *values, lock_timeout=_SHORT)
            except LockTimeoutError:
                if not left:
                    raise
            else:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
