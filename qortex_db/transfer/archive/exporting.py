"""An export: one snapshot of tables, by COPY, in files that can be checked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args
from uuid import uuid4

from sqlalchemy import MetaData, Table
from sqlalchemy import inspect as inspected
from sqlalchemy.exc import NoInspectionAvailable

from qortex_db.__about__ import __version__
from qortex_db.checks import check_choice, check_whole
from qortex_db.errors import InvalidInputError, SchemaVersionError
from qortex_db.messages import shown
from qortex_db.names import own_tables, qualified
from qortex_db.transfer.archive import files, parquet, tables
from qortex_db.transfer.archive.connection import FOREVER, connected, transaction
from qortex_db.transfer.archive.copying import RowCutter, RowDigest
from qortex_db.transfer.archive.manifest import Manifest, TableEntry
from qortex_db.transfer.archive.parts import ArchiveProgress, Destination, Parts
from qortex_db.transfer.archive.revisions import revision_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from qortex_db.database import Database
    from qortex_db.transfer.archive.manifest import Column
    from qortex_db.transfer.archive.tables import Found, Wanted

PART_ROWS: Final = 25_000
"""Rows of a file, and of a transaction of a restore."""


async def export(
    database: Database,
    folder: str | os.PathLike[str],
    *,
    format: files.Format = "parquet",  # noqa: A002 - its name
    collections: Iterable[str | Table | type] | None = None,
    metadata: Any = None,
    part_rows: int = PART_ROWS,
    on_progress: Callable[[ArchiveProgress], object] | None = None,
) -> Manifest:
    """Write tables into a folder, as they are at one moment, while they are in use.

    Without a manifest, which is written last, a folder is no export. If it fails or is cancelled,
    what was written is removed; a process that is killed leaves files without a manifest, and the
    folder has to be removed: a snapshot does not outlive its transaction.

    Args:
        database: It is read on one connection, in one transaction, that holds back no writer.
        folder: Made if need be; it has to be empty.
        format: "parquet" (extra `parquet`), "jsonl" or "jsonl.gz".
        collections: Only these: names, tables or models. By default all of the package's tables,
            but for its checkpoints, and those of `metadata`.
        metadata: A host's own: a declarative base, a MetaData, or a list of them.
        part_rows: Rows of a file, 1 to 1,000,000.
        on_progress: Called, and awaited if need be, every few thousand rows.

    Returns:
        What the folder holds.

    Raises:
        InvalidInputError: The folder is not empty, or an option can't be honoured.
        SchemaVersionError: A table is not there.
        PermissionDeniedError: The role may not read one, or policies hide rows of it.
    """
    check_choice(format, get_args(files.Format), name="format")
    check_whole(part_rows, 1, 1_000_000, name="part_rows")
    if format == "parquet":
        parquet.arrow()
    place = Path(folder)
    known = known_tables(metadata)
    chosen = None if collections is None else chosen_of(collections, known)
    is_new = await asyncio.to_thread(_make, place)
    to = Destination(place, format, part_rows, on_progress)
    try:
        manifest = await _Export(database, to).all_of(chosen, known)
        await asyncio.to_thread(manifest.write, place)
    except BaseException:
        for path in to.written:
            path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):  # somebody else has put something there
                place.rmdir()  # noqa: ASYNC240 - at once, as it was made
        raise
    return manifest


def known_tables(metadata: Any) -> list[Wanted]:
    """The package's tables, and a host's."""
    given = (
        metadata if isinstance(metadata, (list, tuple)) else [] if metadata is None else [metadata]
    )
    found = [tables.Wanted(name, None) for name in sorted(own_tables - tables.LEFT_OUT)]
    for one in given:
        held = one if isinstance(one, MetaData) else getattr(one, "metadata", None)
        if not isinstance(held, MetaData):
            raise InvalidInputError(
                f"metadata is a {type(one).__name__}; pass a declarative base or a MetaData."
            )
        found += [tables.Wanted(table.name, table.schema) for table in held.tables.values()]
    return [one for one in dict.fromkeys(found) if one.name not in tables.LEFT_OUT]


def chosen_of(collections: Any, known: Sequence[Wanted]) -> list[Wanted]:
    """The tables that are named: by what is known of them, or as they are."""
    if isinstance(collections, (str, Table, type)) or not isinstance(collections, Iterable):
        raise InvalidInputError("collections has to be a list of names, tables or models.")
    found = []
    for one in collections:
        if isinstance(one, str):
            named = [each for each in known if one in {each.name, each.fullname}]
            found.append(named[0] if named else tables.Wanted(one, None))
            continue
        try:
            table = one if isinstance(one, Table) else inspected(one).local_table
            found.append(tables.Wanted(table.name, table.schema))
        except (NoInspectionAvailable, AttributeError):
            raise InvalidInputError(
                f"A {type(one).__name__} is no collection: pass names, tables or models."
            ) from None
    if not found:
        raise InvalidInputError("collections is empty; leave it out for all.")
    return list(dict.fromkeys(found))


def _make(folder: Path) -> bool:
    """Have a folder that is empty; whether it is new."""
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise InvalidInputError(
            f"{folder} is no folder that can be written to ({error.strerror})."
        ) from None
    if not is_empty:
        raise InvalidInputError(
            f"{folder} is not empty. Name another folder; or remove it, if it is an export that "
            "was stopped, of which nothing can be used."
        )
    return is_new


@dataclass(frozen=True, slots=True)
class _Export:
    database: Database
    to: Destination

    async def all_of(self, chosen: list[Wanted] | None, known: list[Wanted]) -> Manifest:
        schema_of = self.database.executor.schema_of
        async with connected(self.database.engine) as driver, transaction(driver, snapshot=True):
            made_at = datetime.now(UTC).isoformat()
            wanted = await self._there(driver, known) if chosen is None else chosen
            places = [schema_of(one.schema) for one in wanted]
            found = await tables.find(driver, wanted, places)
            if chosen is not None and len(found) < len(wanted):
                lacking = {one.fullname for one in wanted} - {one.wanted.fullname for one in found}
                raise InvalidInputError(
                    f"{', '.join(map(shown, sorted(lacking)))} is a view, a foreign table or a "
                    "partition of another one that is named: leave it out."
                )
            if found:
                # As pg_dump does: whoever drops one waits until it is read.
                listed = ", ".join(table.sql for table in found)
                await driver.execute(f"LOCK TABLE {listed} IN ACCESS SHARE MODE")
            entries = [await self._table(driver, table) for table in found]
            ours = any(one.wanted.schema is None and one.wanted.name in own_tables for one in found)
            revision = await revision_of(driver, self.database) if ours else None
            schema = await driver.fetchval("SELECT pg_catalog.current_schema()::text")
            version = await driver.fetchval("SHOW server_version")
        return Manifest(
            id=str(uuid4()),
            made_at=made_at,
            package_version=__version__,
            server_version=version,
            revision=revision,
            schema=schema_of(None) or schema or "",
            format=self.to.format,
            tables=tuple(entries),
        )

    async def _there(self, driver: Any, known: list[Wanted]) -> list[Wanted]:
        """All of a host's, and those of ours that its revision has."""
        place = self.database.executor.schema_of(None)
        ours = [one for one in known if one.schema is None and one.name in own_tables]
        there = await tables.are_there(driver, [qualified(place, one.name) for one in ours])
        missing = {one for one, is_there in zip(ours, there, strict=True) if not is_there}
        if len(missing) == len(known):
            raise SchemaVersionError(
                "There is nothing to export: the database has no tables of qortex-db's. Name your "
                "own by metadata, or run `qortex-db upgrade`."
            )
        return [one for one in known if one not in missing]

    async def _table(self, driver: Any, table: Found) -> TableEntry:
        total = await driver.fetchval(
            "SELECT greatest(reltuples, 0)::int8 FROM pg_catalog.pg_class WHERE oid = $1::oid",
            table.oid,
        )
        columns = [
            await self._column(driver, table, column)
            for column in files.columns_of(self.to.format, table.columns)
        ]
        parts = Parts(self.to, table.wanted.fullname, columns, total)
        digest = RowDigest()
        cutter = RowCutter(digest)

        async def take(data: bytes) -> None:
            for fields in cutter.cut(data):
                if parts.add(fields):
                    await parts.flush()

        try:
            await driver.copy_from_query(
                table.query(columns), output=take, format="binary", timeout=FOREVER
            )
            cutter.end()
            await parts.flush()
            await parts.close()
        finally:
            await parts.abandon()
        # After its rows: what a sequence gives is in no snapshot.
        sequences = await tables.read_sequences(driver, table)
        wanted = table.wanted
        return TableEntry(
            name=wanted.name,
            schema=wanted.schema,
            columns=tuple(columns),
            sequences=sequences,
            rows=digest.rows,
            checksum=digest.hexdigest(),
            parts=tuple(parts.done),
        )

    async def _column(self, driver: Any, table: Found, column: Column) -> Column:
        """A column as it is written: few versions of pyarrow know NULLs among lists of one size."""
        if column.dimensions is None or not await driver.fetchval(
            f"SELECT EXISTS ({table.query([])} WHERE {qualified(column.name)} IS NULL)",
            timeout=FOREVER,
        ):
            return column
        return replace(column, dimensions=None)
