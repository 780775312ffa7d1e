"""Which revisions a database is at, and whether this version of the package knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.runtime.migration import MigrationContext

from qortex_db.__about__ import __version__
from qortex_db.errors import SchemaVersionError
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

_OWN_TABLE = Settings.model_fields["version_table"].default


def current_revision(
    connection: Connection, settings: Settings, scripts: ScriptDirectory
) -> str | None:
    """Our revision of a database; in a history shared with a host, the host's are passed over.

    Raises:
        SchemaVersionError: A newer package migrated the database.
    """
    tables = {
        "version_table": settings.version_table,
        "version_table_schema": settings.db_schema,
    }
    heads = MigrationContext.configure(connection, opts=tables).get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    ours = [revision for revision in heads if revision in known]
    if heads and not ours and settings.version_table == _OWN_TABLE:
        raise SchemaVersionError(
            f"The database is at revision {', '.join(heads)}, which qortex-db {__version__} does "
            "not know: a newer qortex-db migrated it. Install that version, or a later one."
        )
    return ours[0] if ours else None
