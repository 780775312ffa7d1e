"""Which revisions a database is at, and whether this version of the package knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData

from qortex_db.__about__ import __version__
from qortex_db.errors import SchemaVersionError
from qortex_db.migrations.host import include_name
from qortex_db.models import Base
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

_OWN_TABLE: str = Settings.model_fields["version_table"].default


def is_shared(settings: Settings) -> bool:
    """Whether the version table is a host's."""
    return settings.version_table != _OWN_TABLE


def current_revision(
    connection: Connection, settings: Settings, scripts: ScriptDirectory
) -> str | None:
    """Our revision of a database; in a history shared with a host, the host's are passed over.

    Raises:
        SchemaVersionError: A newer package migrated the database.
    """
    shared = is_shared(settings)
    heads = _heads(connection, settings.version_table, settings.db_schema)
    if shared and not heads:  # a host's version table need not be in the schema of our tables
        heads = _heads(connection, settings.version_table, None)
    known = {script.revision for script in scripts.walk_revisions()}
    ours = [revision for revision in heads if revision in known]
    if ours:
        return ours[0]
    if heads and not shared:
        raise SchemaVersionError(
            f"The database is at revision {', '.join(heads)}, which qortex-db {__version__} does "
            "not know: a newer qortex-db migrated it. Install that version, or a later one."
        )
    # Of a revision that a host's depends on, Alembic keeps no row: the tables themselves say it.
    return scripts.get_current_head() if heads and _is_built(connection, settings) else None


def _heads(connection: Connection, table: str, schema: str | None) -> tuple[str, ...]:
    options = {"version_table": table, "version_table_schema": schema}
    return MigrationContext.configure(connection, opts=options).get_current_heads()


def _is_built(connection: Connection, settings: Settings) -> bool:
    """Whether the tables are there as the models say."""
    schema = settings.db_schema
    if schema == connection.dialect.default_schema_name:
        schema = None  # Alembic's name for it
    place: dict[str, Any] = {} if schema is None else {"schema": schema}
    models = MetaData()
    for table in Base.metadata.tables.values():
        table.to_metadata(models, **place)

    def ours(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
        if kind == "schema":
            return name == schema
        return kind != "table" or not include_name(name, kind, parents)

    options = {
        "include_name": ours,
        "include_schemas": schema is not None,
        "version_table": _OWN_TABLE,
    }
    context = MigrationContext.configure(connection, opts=options)
    differences: list[Any] = compare_metadata(context, models)
    return not differences
