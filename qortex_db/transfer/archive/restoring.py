"""A restore: what is in files is checked, loaded by COPY part by part, and checked again."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import ConflictError, InvalidInputError
from qortex_db.messages import shown
from qortex_db.migrations import rebuild_index
from qortex_db.migrations.rebuild.pending import VIEW
from qortex_db.names import qualified
from qortex_db.repositories.progress import tell
from qortex_db.transfer.archive import files, tables
from qortex_db.transfer.archive.connection import FOREVER, connected, transaction
from qortex_db.transfer.archive.copying import HEADER, TRAILER, rows_of
from qortex_db.transfer.archive.exporting import chosen_of, known_tables
from qortex_db.transfer.archive.fitting import Load, digest_of, fitted, is_changeovers
from qortex_db.transfer.archive.manifest import Manifest
from qortex_db.transfer.archive.parts import ArchiveProgress

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from sqlalchemy import Table

    from qortex_db.database import Database
    from qortex_db.transfer.archive.manifest import Part, TableEntry
    from qortex_db.transfer.archive.tables import Found

_INSERTED: Final = "INSERT 0 1"
_STAGE: Final = "qortex_db_restoring"
_HAS_VECTOR_INDEX: Final = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am a ON a.oid = c.relam
  WHERE i.indrelid = $1::oid AND a.amname IN ('hnsw'::name, 'ivfflat'::name))
"""
_SET_SEQUENCE: Final = """
SELECT pg_catalog.setval(s.seqrelid::regclass,
    CASE WHEN s.seqincrement > 0 THEN greatest($2::int8, (SELECT max({column}) FROM {table})::int8)
         ELSE least($2::int8, (SELECT min({column}) FROM {table})::int8) END, true)
FROM pg_catalog.pg_sequence s
WHERE s.seqrelid = $1::text::regclass::oid
    AND ($2::int8 IS NOT NULL OR EXISTS (SELECT FROM {table} WHERE {column} IS NOT NULL))
"""


async def restore(
    database: Database,
    folder: str | os.PathLike[str],
    *,
    collections: Iterable[str | Table | type] | None = None,
    metadata: Any = None,
    rebuild_indexes: bool = False,
    on_progress: Callable[[ArchiveProgress], object] | None = None,
) -> Manifest:
    """Load an export into tables that are there and empty, in any schema.

    Every file is compared with the manifest before the first row is written, and every table with
    its count and checksum after its last one. Each file is a transaction, which notes in
    `qortex_db_checkpoints` that it is there: whatever stops a restore, running it again goes on
    with the first file that is not. Once all is there, running it again changes nothing.

    Args:
        database: Of a role that owns the tables; `qortex-db upgrade`, and your own migrations, have
            to have made them.
        folder: What `export` wrote.
        collections: Only these: names, tables or models. By default all that the export has.
        metadata: Only the package's own tables and these, as of :func:`export`.
        rebuild_indexes: Whether vector indexes are dropped for the load and built after it, which
            is several times faster.
        on_progress: Called, and awaited if need be, after each file.

    Returns:
        What was restored.

    Raises:
        InvalidInputError: A file is damaged or missing, or the export does not fit; nothing was
            changed.
        DimensionMismatchError: A column of vectors has another dimension.
        SchemaVersionError: The tables are not there, or are at another revision.
        ConflictError: A row was refused, or the rows of a table are not those of the export.
    """
    place = Path(folder)
    manifest = await asyncio.to_thread(Manifest.read, place)
    entries = _chosen(manifest, collections, metadata)
    settings = database.settings
    if rebuild_indexes and settings is None:
        raise InvalidInputError(
            "rebuild_indexes connects by Settings, which a Database over a host's engine has not: "
            "use Database.connect(…), or migrations.rebuild_index with the restore as its load."
        )
    await asyncio.to_thread(manifest.verify, place, entries)
    async with connected(database.engine) as driver:
        async with transaction(driver):
            checkpoints, loads = await fitted(driver, database, place, manifest, entries)
        run = _Restore(driver, place, manifest, checkpoints, on_progress)
        embedded = settings is not None and settings.target() is None
        for load in loads:
            if settings is not None and rebuild_indexes and await run.is_slow(load):

                async def loaded(load: Load = load) -> None:
                    await run.load(load)

                await rebuild_index(settings, table=load.entry.name, load=loaded, embedded=embedded)
            elif not load.is_there:
                await run.load(load)
            await run.finish(load)
        if settings is not None and rebuild_indexes:
            for name in await run.pending(loads):
                await rebuild_index(settings, table=name, embedded=embedded)
        await driver.execute(
            f"DELETE FROM {checkpoints} WHERE work = ANY ($1::text[])",  # noqa: S608 - quoted
            [load.work for load in loads],
        )
    return manifest


def _chosen(manifest: Manifest, collections: Any, metadata: Any) -> Sequence[TableEntry]:
    held = {tables.Wanted(entry.name, entry.schema): entry for entry in manifest.tables}
    if metadata is not None:
        known = set(known_tables(metadata))
        held = {one: entry for one, entry in held.items() if one in known}
    if collections is None:
        return list(held.values())
    wanted = chosen_of(collections, list(held))
    if lacking := [one for one in wanted if one not in held]:
        raise InvalidInputError(
            f"The export has no {', '.join(shown(one.fullname) for one in lacking)}; it has "
            f"{', '.join(shown(one.fullname) for one in held)}."
        )
    return [held[one] for one in wanted]


@dataclass(frozen=True, slots=True)
class _Restore:
    driver: Any
    folder: Path
    manifest: Manifest
    checkpoints: str
    on_progress: Callable[[ArchiveProgress], object] | None

    async def is_slow(self, load: Load) -> bool:
        """Whether rows are still to come into a table whose vector indexes can be taken away."""
        rest = await self._next(load.work) < len(load.entry.parts) and not load.is_there
        can = load.entry.schema is None
        return can and rest and await self.driver.fetchval(_HAS_VECTOR_INDEX, load.table.oid)

    async def pending(self, loads: Sequence[Load]) -> list[str]:
        """The tables whose indexes an earlier restore took away and did not build."""
        found: set[str] = set()
        for schema in {load.table.schema for load in loads if load.entry.schema is None}:
            view = qualified(schema, VIEW)
            if (await tables.are_there(self.driver, [view]))[0]:
                query = f"SELECT table_name::text FROM {view}"  # noqa: S608 - quoted
                found.update(row[0] for row in await self.driver.fetch(query))
        return [load.entry.name for load in loads if load.entry.name in found]

    async def load(self, load: Load) -> None:
        """Bring the parts of a table that are not there yet."""
        entry = load.entry
        parts = entry.parts
        for group in [list(parts)] if load.at_once else [[part] for part in parts]:
            number = parts.index(group[0])
            async with transaction(self.driver):
                if await self._begin(load) > number:
                    continue
                if number == 0 and is_changeovers(load.table):
                    await self.driver.execute(f"DELETE FROM {load.table.sql}")  # noqa: S608 - quoted
                await self._copy(load, group)
                await self.driver.execute(
                    f"UPDATE {self.checkpoints} SET position = $2::text::jsonb, "  # noqa: S608 - quoted
                    "rows_read = rows_read + $3::int8, rows_written = rows_written + $3::int8, "
                    "updated_at = pg_catalog.now() WHERE work = $1::text",
                    load.work,
                    json.dumps({"part": number + len(group)}),
                    sum(part.rows for part in group),
                )
            done = sum(part.rows for part in parts[: number + len(group)])
            await tell(self.on_progress, ArchiveProgress(entry.fullname, done, entry.rows))

    async def _begin(self, load: Load) -> int:
        """The number of the part to go on with, and nobody else goes on meanwhile."""
        status = await self.driver.execute(
            f"INSERT INTO {self.checkpoints} (work, position) "  # noqa: S608 - quoted
            "VALUES ($1::text, '{\"part\": 0}'::jsonb) ON CONFLICT (work) DO NOTHING",
            load.work,
        )
        table = load.table
        if (
            status == _INSERTED
            and not is_changeovers(table)
            and await self.driver.fetchval(f"SELECT EXISTS ({table.query([])})")
        ):
            raise ConflictError(
                f"{shown(load.entry.fullname)} is no longer empty: another process writes to it, "
                "or another restore has filled it. Run it again to see."
            )
        return await self._next(load.work, " FOR UPDATE")

    async def _next(self, work: str, lock: str = "") -> int:
        found = await self.driver.fetchval(
            f"SELECT (position ->> 'part')::int FROM {self.checkpoints} "  # noqa: S608 - quoted
            f"WHERE work = $1::text{lock}",
            work,
        )
        return found or 0

    async def _copy(self, load: Load, parts: Sequence[Part]) -> None:
        table, columns = load.table, load.entry.columns
        staged = table.is_staged(columns)
        if staged:
            await self.driver.execute(
                f"CREATE TEMPORARY TABLE {_STAGE} ON COMMIT DROP AS "
                f"{table.query(columns)} WITH NO DATA"
            )
        await self.driver.copy_to_table(
            _STAGE if staged else table.wanted.name,
            source=self._rows(load.entry, parts),
            columns=[column.name for column in columns],
            schema_name="pg_temp" if staged else table.schema,
            format="binary",
            timeout=FOREVER,
        )
        if staged:
            names = ", ".join(qualified(column.name) for column in columns)
            values = ", ".join(table.put(column) for column in columns)
            await self.driver.execute(
                f"INSERT INTO {table.sql} ({names}) OVERRIDING SYSTEM VALUE "  # noqa: S608 - quoted
                f"SELECT {values} FROM pg_temp.{_STAGE}",
                timeout=FOREVER,
            )

    async def _rows(self, entry: TableEntry, parts: Sequence[Part]) -> AsyncIterator[bytes]:
        yield HEADER
        for part in parts:
            batches = files.read(self.manifest.format, self.folder / part.file, entry.columns)
            while (rows := await asyncio.to_thread(_next_rows, batches)) is not None:
                yield rows
        yield TRAILER

    async def finish(self, load: Load) -> None:
        """See that all rows are there as they were, and have the rest of the table follow."""
        entry, table = load.entry, load.table
        if not load.is_there:
            await self._compare(entry, table, load.work)
        async with transaction(self.driver):
            for sequence in entry.sequences:
                source = table.sequences.get(sequence.column)
                if source is not None:
                    column, name = qualified(sequence.column), table.sql
                    await self.driver.execute(
                        _SET_SEQUENCE.format(column=column, table=name),
                        source,
                        sequence.last_value,
                        timeout=FOREVER,
                    )
            if not load.is_there:
                await self.driver.execute(f"ANALYZE {table.sql}", timeout=FOREVER)

    async def _compare(self, entry: TableEntry, table: Found, work: str) -> None:
        async with transaction(self.driver, snapshot=True):
            digest = await digest_of(self.driver, entry, table)
        if (digest.rows, digest.hexdigest()) != (entry.rows, entry.checksum):
            await self.driver.execute(
                f"DELETE FROM {self.checkpoints} WHERE work = $1::text",  # noqa: S608 - quoted
                work,
            )
            raise ConflictError(
                f"{shown(entry.fullname)} has {digest.rows:,} rows after the restore, and the "
                f"export {entry.rows:,}"
                + ("" if digest.rows != entry.rows else ", of which some are others")
                + ". Another process wrote to it meanwhile, or a trigger changes what is inserted: "
                "see to that, empty the table (TRUNCATE), and restore again."
            )


def _next_rows(batches: Any) -> bytes | None:
    batch = next(batches, None)
    return None if batch is None else rows_of(batch)
