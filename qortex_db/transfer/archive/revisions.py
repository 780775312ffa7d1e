"""Which of the package's revisions a database is at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qortex_db.names import qualified
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from qortex_db.database import Database

PREFIX: Final = "qortex_db_"
"""What all of them begin with, and none of a host's does."""


async def revision_of(driver: Any, database: Database) -> str | None:
    """The revision; None where a host's history, which goes beyond it, does not say.

    Args:
        driver: The connection.
        database: Whose settings name the table.
    """
    own: str = Settings.model_fields["version_table"].default
    table = own if database.settings is None else database.settings.version_table
    for schema in dict.fromkeys((database.executor.schema_of(None), None)):
        name = qualified(schema, table)
        if await driver.fetchval("SELECT pg_catalog.to_regclass($1::text)", name) is not None:
            rows = await driver.fetch(f"SELECT version_num::text FROM {name}")  # noqa: S608 - quoted
            return next((row[0] for row in rows if row[0].startswith(PREFIX)), None)
    return None
