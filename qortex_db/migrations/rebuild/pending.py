"""The indexes that wait to be restored, written down where they outlive the process.

They stand in a view that selects constants. Definitions are run as they are, and only its owner can
change what a view says, while default privileges may let others write into a new table. Creating it
also proves, before anything is dropped, that the role may create in the schema, as the index will
need. Migrations and autogenerate look at tables only, and it goes with the last index restored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import TableClause, Text, column, func, select, text

from qortex_db.errors import QortexDbError
from qortex_db.migrations.connection import migration_engine
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from qortex_db.migrations.rebuild.owned_table import OwnedTable

VIEW: Final = "qortex_db_pending_indexes"
_COLUMNS: Final = ("table_name", "name", "definition", "tablespace", "comment")
_CREATE: Final = """
CREATE OR REPLACE VIEW %I.%I AS SELECT pending.* FROM jsonb_to_recordset(%L) AS pending
    (table_name text, name text, definition text, tablespace text, comment text)
"""
_OWNER = text("""
SELECT pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = :view
""")
_VISIBLE = text("""
SELECT n.nspname::text FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname::text = CAST(:view AS text)
  AND coalesce(n.nspname::text = CAST(:schema AS text), pg_catalog.pg_table_is_visible(c.oid))
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'::text)
  AND pg_catalog.has_table_privilege(c.oid, 'SELECT'::text)
""")


@dataclass(frozen=True, slots=True)
class Index:
    """What makes an index what it is; a tablespace of "" is the database's own."""

    name: str
    definition: str
    tablespace: str
    comment: str | None


async def read_pending(table: OwnedTable) -> list[Index]:
    """The indexes of a table that wait to be restored."""
    return [Index(*row[1:]) for row in await _read(table) if row[0] == table.name]


async def write_pending(
    table: OwnedTable, indexes: Iterable[Index], *, connection: AsyncConnection | None = None
) -> None:
    """Write down which indexes of a table wait, instead of what was written before.

    Args:
        connection: One whose transaction it shall be part of, in the owner's role.
    """
    rows = [tuple(row) for row in await _read(table) if row[0] != table.name]
    rows += [(table.name, i.name, i.definition, i.tablespace, i.comment) for i in indexes]
    if rows:
        noted = json.dumps([dict(zip(_COLUMNS, row, strict=True)) for row in rows])
        if connection is None:
            await table.run(_CREATE, table.schema, VIEW, noted)
        else:
            create = select(func.format(_CREATE, table.schema, VIEW, noted))
            await connection.exec_driver_sql((await connection.execute(create)).scalar_one())
    else:
        await table.run("DROP VIEW IF EXISTS %I.%I", table.schema, VIEW)


async def pending_indexes(settings: Settings | None = None, *, embedded: bool = False) -> list[str]:
    """The names of the indexes that wait to be built, as far as the role may see them."""
    settings = settings or Settings()
    async with (
        migration_engine(settings, embedded=embedded) as engine,
        engine.connect() as connection,
    ):
        return await pending_on(connection, settings.db_schema)


async def pending_on(connection: AsyncConnection, schema: str | None) -> list[str]:
    """The same, by a connection that is there.

    Args:
        schema: Of the tables; None for wherever the search_path finds them.
    """
    found = await connection.execute(_VISIBLE, {"schema": schema, "view": VIEW})
    there = found.scalar_one_or_none()
    if there is None:
        return []
    view = TableClause(VIEW, column("name", Text), schema=there)
    return list((await connection.execute(select(view.c.name).order_by(view.c.name))).scalars())


async def _read(table: OwnedTable) -> Iterable[Any]:
    owner = await table.query(_OWNER, schema=table.schema, view=VIEW)
    if not owner:
        return []
    if owner[0][0] != table.owner:
        raise QortexDbError(
            f"{table.schema}.{VIEW} belongs to {owner[0][0]}, and {table.name} to {table.owner}. "
            "If it is an unfinished rebuild of that role's, let it finish first."
        )
    columns = (column(name, Text) for name in _COLUMNS)
    return await table.query(select(TableClause(VIEW, *columns, schema=table.schema)))
