"""What is refused before the first row: an export that does not fit the tables that are there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import DimensionMismatchError, InvalidInputError, SchemaVersionError
from qortex_db.messages import shown
from qortex_db.models import Checkpoint
from qortex_db.names import own_tables, qualified
from qortex_db.transfer.archive import files, tables
from qortex_db.transfer.archive.connection import FOREVER
from qortex_db.transfer.archive.copying import RowCutter, RowDigest
from qortex_db.transfer.archive.revisions import revision_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qortex_db.database import Database
    from qortex_db.transfer.archive.manifest import Manifest, TableEntry
    from qortex_db.transfer.archive.tables import Found

_VECTOR: Final = re.compile(r"(vector|halfvec|sparsevec)\((\d+)\)")
_CHECKPOINTS: Final = Checkpoint.__tablename__


@dataclass(frozen=True, slots=True)
class Load:
    """One table to be loaded.

    Attributes:
        work: What its checkpoint is called.
        at_once: Whether its rows refer to each other, so that all of them come in one statement.
        is_there: Whether it has all of its rows already.
    """

    entry: TableEntry
    table: Found
    work: str
    at_once: bool
    is_there: bool


async def fitted(
    driver: Any, database: Database, folder: Path, manifest: Manifest, entries: Sequence[TableEntry]
) -> tuple[str, list[Load]]:
    """What is to be loaded, in an order that foreign keys bear, and where its checkpoints are.

    Raises:
        InvalidInputError: A column is missing or another, or a table is not empty.
        DimensionMismatchError: A column of vectors has another dimension.
        SchemaVersionError: The tables are not there, or at another revision.
    """
    schema_of = database.executor.schema_of
    checkpoints = qualified(schema_of(None), _CHECKPOINTS)
    if not (await tables.are_there(driver, [checkpoints]))[0]:
        raise SchemaVersionError(
            "A restore makes no tables, and qortex-db's own are not there: run `qortex-db upgrade` "
            "on this database first."
        )
    if any(entry.schema is None and entry.name in own_tables for entry in entries):
        _check_revision(manifest, await revision_of(driver, database))
    wanted = [tables.Wanted(entry.name, entry.schema) for entry in entries]
    found = {
        table.wanted: table
        for table in await tables.find(driver, wanted, [schema_of(one.schema) for one in wanted])
    }
    for one in wanted:
        if one not in found:
            raise InvalidInputError(f"{shown(one.fullname)} is no table here that takes rows.")
    pairs = [(entry, found[one]) for entry, one in zip(entries, wanted, strict=True)]
    for entry, table in pairs:
        _check_columns(entry, table)
    await _check_changeovers(driver, folder, manifest, pairs)
    loads = []
    refers = await tables.references(driver, [table for _, table in pairs])
    for entry, table in pairs:
        work = f"restore {manifest.id} {table.sql}"
        position = await driver.fetchval(
            f"SELECT position FROM {checkpoints} WHERE work = $1::text",  # noqa: S608 - quoted
            work,
        )
        is_there = False
        if position is None and not is_changeovers(table):
            is_there = await _has_all(driver, entry, table)
        loads.append(Load(entry, table, work, table.oid in refers[table.oid], is_there))
    return checkpoints, _ordered(loads, refers)


def _check_revision(manifest: Manifest, here: str | None) -> None:
    wanted = manifest.revision
    if wanted is None or here is None or wanted == here:
        return
    if wanted < here:
        how = (
            f"run `qortex-db downgrade {wanted}` on this database while it is empty, restore, then "
            "`qortex-db upgrade`"
        )
    else:
        how = (
            f"run `qortex-db upgrade {wanted}` on this database first; where that revision is not "
            f"known, install qortex-db {manifest.package_version}, which wrote the export"
        )
    raise SchemaVersionError(
        f"The export is of revision {wanted}, and the database is at {here}: {how}."
    )


def _check_columns(entry: TableEntry, table: Found) -> None:
    here = {column.name: column for column in table.columns}
    name = shown(entry.fullname)
    for column in entry.columns:
        there = here.get(column.name)
        if there is None:
            raise InvalidInputError(
                f"{name} has no column {shown(column.name)} here that can be written: run the "
                "migrations that make it; where the table changes its model in the export, "
                "`qortex-db model add` does."
            )
        if there.type == column.type:
            continue
        found, given = _VECTOR.fullmatch(there.type), _VECTOR.fullmatch(column.type)
        if found and given and found[1] == given[1]:
            raise DimensionMismatchError(
                f"{name}: the column {shown(column.name)} has {found[2]} dimensions here, and "
                f"{given[2]} in the export. Make the tables anew with that many "
                "(`QORTEX_VEC_DIMENSIONS` at the first upgrade, or the model's VectorSpec).",
                expected=int(found[2]),
                actual=int(given[2]),
            )
        raise InvalidInputError(
            f"{name}: the column {shown(column.name)} is of the type {there.type} here, and of "
            f"{column.type} in the export: run the migrations that make them the same."
        )
    lacking = table.required - {column.name for column in entry.columns}
    if lacking:
        raise InvalidInputError(
            f"{name} needs a value in {', '.join(map(shown, sorted(lacking)))}, which the export "
            "lacks: give it a default, or restore before the migration that adds it."
        )


def is_changeovers(table: Found) -> bool:
    """Whether it is the table that says which tables change their models."""
    return table.wanted == tables.Wanted(tables.CHANGEOVERS, None)


async def _check_changeovers(
    driver: Any,
    folder: Path,
    manifest: Manifest,
    pairs: Sequence[tuple[TableEntry, Found]],
) -> None:
    """Whose columns are those of a changeover's has a row here already, which is replaced."""
    for entry, table in pairs:
        if not is_changeovers(table):
            continue
        place = [column.name for column in entry.columns].index("table_name")
        exported = {
            name.decode()
            for part in entry.parts
            for batch in files.read(manifest.format, folder / part.file, entry.columns)
            for name in batch[place]
            if name is not None
        }
        named = [column for column in table.columns if column.name == "table_name"]
        here = {row[0] for row in await driver.fetch(table.query(named))}
        if strange := here - exported:
            raise InvalidInputError(
                f"{', '.join(shown(one.lstrip('.')) for one in sorted(strange))} changes its model "
                "here, but not in the export: end that first, by `qortex-db model drop`."
            )


async def _has_all(driver: Any, entry: TableEntry, table: Found) -> bool:
    """Whether an empty table may be loaded (False), or has all of its rows already.

    Raises:
        InvalidInputError: It has others.
    """
    if not await driver.fetchval(f"SELECT EXISTS ({table.query([])})"):
        return entry.rows == 0
    # A restore that was finished, and is run again.
    digest = await digest_of(driver, entry, table)
    if (digest.rows, digest.hexdigest()) == (entry.rows, entry.checksum):
        return True
    raise InvalidInputError(
        f"{shown(entry.fullname)} is not empty here: it has {digest.rows:,} rows of its own. Empty "
        "it (TRUNCATE), restore into another schema by QORTEX_DB_SCHEMA, or leave it out by "
        "--collection."
    )


async def digest_of(driver: Any, entry: TableEntry, table: Found) -> RowDigest:
    """The checksum of what is in a table, of the columns that the export has."""
    digest = RowDigest()
    cutter = RowCutter(digest)

    async def take(data: bytes) -> None:
        for _ in cutter.cut(data):
            pass

    await driver.copy_from_query(
        table.query(entry.columns), output=take, format="binary", timeout=FOREVER
    )
    cutter.end()
    return digest


def _ordered(loads: list[Load], refers: dict[int, set[int]]) -> list[Load]:
    """What is referred to comes first; changeovers last, since they say what rows have to have."""
    by_oid = {load.table.oid: load for load in loads}
    graph = {oid: others - {oid} for oid, others in refers.items()}
    try:
        order = [by_oid[oid] for oid in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        names = ", ".join(dict.fromkeys(shown(by_oid[oid].entry.fullname) for oid in error.args[1]))
        raise InvalidInputError(
            f"{names} refer to each other in a circle, so that none can be loaded first: drop one "
            "of the foreign keys for the restore, and create it again after it."
        ) from None
    return sorted(order, key=lambda load: is_changeovers(load.table))
