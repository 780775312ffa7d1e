"""The row that says where a history stands, written without a revision being run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import column, insert, table

from qortex_db.migrations.adoption.baseline import REVISION
from qortex_db.migrations.commands import locate

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from qortex_db.settings import Settings


def stamp(connection: Connection, settings: Settings, schema: str) -> None:
    """Say that the baseline is there, in a version table of our own, which is made if need be."""
    _context(connection, settings, schema).stamp(ScriptDirectory(str(locate())), REVISION)


def stamp_beside_host(connection: Connection, settings: Settings) -> bool:
    """Say it in a host's version table if that has revisions, as the role that may write there."""
    where = _host_schema(connection, settings)
    if where is None:
        return False
    version = table(settings.version_table, column("version_num"), schema=where or None)
    connection.execute(insert(version).values(version_num=REVISION))
    return True


def is_in_host_table(connection: Connection, settings: Settings) -> bool:
    """Whether the version table has revisions that our folder does not know."""
    return _host_schema(connection, settings) is not None


def _host_schema(connection: Connection, settings: Settings) -> str | None:
    """Where a host's version table is, "" by the search path; None where its history is ours."""
    known = {script.revision for script in ScriptDirectory(str(locate())).walk_revisions()}
    for schema in dict.fromkeys((settings.db_schema, None)):
        heads = _context(connection, settings, schema).get_current_heads()
        if heads:
            return None if set(heads) <= known else schema or ""
    return None


def _context(connection: Connection, settings: Settings, schema: str | None) -> MigrationContext:
    where = {"version_table": settings.version_table, "version_table_schema": schema}
    return MigrationContext.configure(connection, opts=where)
