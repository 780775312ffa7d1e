"""The dimension that a database was upgraded with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from qortex_db.errors import DimensionMismatchError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from qortex_db.settings import Settings

_HELD = text("""
SELECT a.atttypmod FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'qortex_vectors' AND a.attname = 'vec'
  AND n.nspname = coalesce(:schema, current_schema())
""")


def held_dimensions(connection: Connection, schema: str | None) -> int | None:
    """What the embedding column holds, None where there is none or it declares nothing."""
    typmod = connection.execute(_HELD, {"schema": schema}).scalar()
    return None if typmod is None or typmod < 0 else int(typmod)


def check_dimensions(connection: Connection, settings: Settings) -> None:
    """Refuse a setting that is not what the column holds, before anything is migrated."""
    held = held_dimensions(connection, settings.db_schema)
    wanted = settings.dimensions
    if held is not None and wanted is not None and held != wanted:
        raise DimensionMismatchError(
            f"QORTEX_VEC_DIMENSIONS is {wanted}, but qortex_vectors holds {held} dimensions, "
            "chosen at the first upgrade. Unset it, or use another database.",
            expected=held,
            actual=wanted,
        )
