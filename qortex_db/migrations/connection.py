"""The connections of a migration: one that migrates, and one that holds the lock."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import String, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from qortex_db import embedded as embedded_server
from qortex_db.engine import Cleanup, Connector, path_of, pin_search_path
from qortex_db.errors import (
    LockTimeoutError,
    PoolerError,
    QortexDbError,
    SchemaVersionError,
    UnavailableError,
)
from qortex_db.migrations.waiting import BusyError, try_until
from qortex_db.models import Base
from qortex_db.names import is_identifier
from qortex_db.settings import Settings
from qortex_db.sql import Text
from qortex_db.translation import sqlstate_of, translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

NO_TIMEOUTS: Final = text("""
SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings
WHERE name IN
    ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_session_timeout')
""")
"""A role or a database may have set them; PostgreSQL 16 does not know them all."""
# To `translate`, a schema not yet migrated; here that is why they came.
_MISSING: Final = {
    "42704": (
        "pgvector was not found. Let a role that may run CREATE EXTENSION vector; if it is in "
        "a schema that is not on the search_path, name that by --extension-schema "
        "(alembic: -x extension_schema=...)."
    ),
    "3F000": (
        "No schema of the search_path is there, or the role lacks USAGE on it. Create one, or "
        "name one by QORTEX_DB_SCHEMA "
        "(alembic: -x schema=...), and where pgvector goes by --extension-schema."
    ),
}
_NOTHING: Final = "pg_catalog"
_SET_PATH: Final = text("SELECT pg_catalog.set_config('search_path'::text, :path, false)")
_PLACES: Final = text("""
SELECT pg_catalog.current_setting('search_path'::text) AS path,
    (SELECT n.nspname FROM pg_catalog.pg_class c
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = coalesce(
         pg_catalog.to_regclass(pg_catalog.quote_ident(:version_table)),
         pg_catalog.to_regclass('qortex_vectors'::text))::oid) AS schema,
    (SELECT n.nspname FROM pg_catalog.pg_extension e
     JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'vector'::name) AS extension
""")
_LOCK_KEY: Final = 0x71_6F_72_74_65_78_64_62  # "qortexdb"
_LOCK_PAUSE_SECONDS: Final = 0.2

NOTHING_GIVEN: Final = (
    "No database is given. Name one by PGVECTOR_DSN, by PGVECTOR_HOST and its kin or by "
    "DATABASE_URL; or ask for the embedded server by --embedded (alembic: -x embedded)."
)
_POOLED: Final = (
    "Migrations hold a lock and settings of their session, which a pooler in transaction mode "
    "gives to others. Connect past it, to PostgreSQL's own port, with QORTEX_DB_POOLER unset."
)


@asynccontextmanager
async def migration_engine(
    settings: Settings, *, embedded: bool, host: AsyncEngine | None = None
) -> AsyncIterator[AsyncEngine]:
    """An engine without a pool or a statement timeout on the given server.

    Args:
        host: An engine to connect as; its own pool stays as it is.

    Raises:
        PoolerError: The settings name a pooler.
        UnavailableError: No server is given and the embedded one was not asked for, or it can't be
            reached.
    """
    server = None
    if host is None and settings.pooler is not None:
        raise PoolerError(_POOLED)
    if host is not None:
        engine = _beside(host)
    else:
        target = settings.target()
        if target is None or embedded:
            if not embedded:
                raise UnavailableError(NOTHING_GIVEN)
            server = await asyncio.to_thread(embedded_server.start, settings.embedded_path)
            target = server.target()
        arguments = {
            "async_creator_fn": Connector(Cleanup()),
            "timeout": settings.connect_timeout_seconds,
            **target.connect_args,
        }
        engine = create_async_engine(target.url, connect_args=arguments, poolclass=NullPool)
    _trust_nobody(engine, settings)
    try:
        yield engine
    except QortexDbError:
        raise
    except Exception as error:
        translated = _translated(error)
        if translated is None:
            raise
        raise translated from None
    finally:
        await engine.dispose()
        if server is not None:
            await asyncio.to_thread(server.stop)


def _trust_nobody(engine: AsyncEngine, settings: Settings) -> None:
    """Have nothing run that others planted: who migrates may be a superuser."""
    pin_search_path(engine, list(Base.metadata.tables), settings.db_schema)
    # SQLAlchemy's and Alembic's own queries of the catalogue, too, send text as text.
    dialect: Any = engine.dialect
    dialect.colspecs = {**dialect.colspecs, String: Text}


def refuse_open_schemas(engine: Engine) -> None:
    """For what can't do without the schema of our tables on its path.

    Raises:
        SchemaVersionError: Others may create in it.
    """
    found = [str(schema) for schema in path_of(engine).open if schema.is_needed]
    if found:
        raise SchemaVersionError(
            f"{'. '.join(found)}. What they may have planted there would run as you: nothing was "
            "done."
        )


def isolated(connection: Connection, settings: Settings) -> tuple[Settings, str | None]:
    """Empty a connection's search_path, so that revisions get what PostgreSQL has by each name.

    Returns:
        The settings, with the schema that the path led to, and that of the extension.
    """
    found = connection.execute(_PLACES, {"version_table": settings.version_table}).one()
    connection.commit()
    first = next(iter(path_of(connection.engine).names), None)
    schema, extension = settings.db_schema or found.schema or first, found.extension or first
    places = [place for place in (schema, extension) if place and is_identifier(place)]
    shared = settings.version_table != Settings.model_fields["version_table"].default
    # A host's version table may be anywhere on the path.
    if found.path == _NOTHING or shared or len(places) < 2:  # noqa: PLR2004 - both are needed
        return settings, None
    connection.execute(_SET_PATH, {"path": _NOTHING})
    connection.commit()
    connection.dialect.default_schema_name = _NOTHING
    return settings.model_copy(update={"db_schema": schema}), extension


def _beside(host: AsyncEngine) -> AsyncEngine:
    """An engine that connects as a host's does, listeners too, and leaves nothing in its pool."""
    theirs = host.sync_engine.pool
    # What a pool's own `recreate` does, which keeps its class and its size.
    ours = NullPool(theirs._creator, _dispatch=theirs.dispatch)  # noqa: SLF001
    return create_async_engine(host.url, pool=ours)


def _translated(error: Exception) -> QortexDbError | None:
    state = sqlstate_of(error)
    if state in _MISSING:
        return SchemaVersionError(_MISSING[state], sqlstate=state)
    return translate(error)


@asynccontextmanager
async def migration_lock(engine: AsyncEngine, *, timeout_seconds: float) -> AsyncIterator[None]:
    """Let one process at a time migrate a database.

    On a connection of its own, since the migrating one has to be fresh for Alembic; and by trying,
    since a session that waits inside a statement would block a concurrent index build for ever.
    """

    def take(connection: Connection) -> None:
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK_KEY}):
            raise BusyError(
                LockTimeoutError(
                    f"Another process has been migrating this database for more than "
                    f"{timeout_seconds:g} s. Wait for it, find it in pg_locks (advisory), or give "
                    "it more time by QORTEX_DB_MIGRATION_TIMEOUT_SECONDS."
                )
            )

    def wait(connection: Connection) -> None:
        try_until(lambda: take(connection), seconds=timeout_seconds, pause=_LOCK_PAUSE_SECONDS)

    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(NO_TIMEOUTS)
        await connection.run_sync(wait)
        try:
            yield
        finally:
            give = text("SELECT pg_advisory_unlock(:key)")
            await connection.execute(give, {"key": _LOCK_KEY})
