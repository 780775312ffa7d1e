"""The rows of a table as a number and a checksum, by one scan on the server.

A column has its baseline's name in it, so that a rename changes nothing. The checksum is a sum over
the rows, so that their order changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qortex_db.errors import QortexDbError
from qortex_db.migrations.adoption.transformation import extended, qualified, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from qortex_db.migrations.adoption.baseline import Column
    from qortex_db.migrations.adoption.inspection import FoundTable, Inspection
    from qortex_db.migrations.adoption.outcome import AdoptedTable


@dataclass(frozen=True, slots=True)
class Read:
    """What a scan saw.

    Attributes:
        lacking: Rows that can't stay as they are, a line for each kind.
        doubts: Rows that our methods don't take, a line for each kind.
    """

    rows: int
    checksum: str
    lacking: list[str]
    doubts: list[str]


async def scan(connection: AsyncConnection, found: Inspection, table: FoundTable) -> Read:
    """Read a table once, from its first row to its last."""
    statement = _statement(found, table)
    counted = dict((await connection.exec_driver_sql(statement)).mappings().one())
    rows, checksum = counted.pop("rows"), counted.pop("checksum")
    lines: dict[bool, list[str]] = {True: [], False: []}
    for (refused, what), count in zip(_counted(table), counted.values(), strict=True):
        if count:
            lines[refused].append(f"{table.name} has {count:,} row{'s' * (count != 1)} {what}")
    return Read(rows, f"{int(checksum) % 2**64:016x}", lines[True], lines[False])


async def compare(
    connection: AsyncConnection, found: Inspection, tables: Iterable[AdoptedTable]
) -> tuple[AdoptedTable, ...]:
    """Read the rows of tables once more.

    Raises:
        QortexDbError: They are not what they were; leaving the transaction by it rolls back.
    """
    compared = []
    for before in tables:
        after = await scan(connection, found, found.tables[before.name])
        if before.checksum and (after.rows, after.checksum) != (before.rows, before.checksum):
            raise QortexDbError(
                f"The rows of {before.name} were {before.rows:,} with the checksum "
                f"{before.checksum}, and became {after.rows:,} with {after.checksum}. All of it "
                "was rolled back."
            )
        compared.append(replace(before, checksum_after=after.checksum))
    return tuple(compared)


def _statement(found: Inspection, table: FoundTable) -> str:
    present = [column for column in table.expected.columns if column.name in table.columns]
    renamed = ", ".join(f"{quote(table.columns[c.name].name)} AS {c.name}" for c in present)
    hashed = ", ".join(_hashed(found, column) for column in present)
    columns = {
        "rows": "count(*)",
        "checksum": f"coalesce(sum(pg_catalog.hash_record_extended(ROW({hashed}), 0)), 0)",
    }
    for number, condition in enumerate(_counted(table).values()):
        columns[f"counted {number}"] = f"count(*) FILTER (WHERE {condition})"
    selected = ", ".join(f'{expression} AS "{name}"' for name, expression in columns.items())
    source = f"(SELECT {renamed} FROM {qualified(found, table.name)})"  # noqa: S608 - quoted
    return f"SELECT {selected} FROM {source} AS adopted"  # noqa: S608 - the same


def _counted(table: FoundTable) -> dict[tuple[bool, str], str]:
    lacking = {
        (True, f"without {column.name} (NULL)"): f"{column.name} IS NULL"
        for column in table.expected.columns
        if column.not_null and not table.columns[column.name].not_null
    }
    refused = {(True, what): rows for what, rows in table.expected.refused.items()}
    return lacking | refused | {(False, what): rows for what, rows in table.expected.doubts.items()}


def _hashed(found: Inspection, column: Column) -> str:
    if column.type == "vector":  # it has no hash of its own
        return f"{extended(found, 'vector_send')}({column.name})"
    return column.name
