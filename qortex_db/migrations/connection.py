"""The connections of a migration: one that migrates, and one that holds the lock."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from qortex_db import embedded as embedded_server
from qortex_db.errors import (
    LockTimeoutError,
    QortexDbError,
    SchemaVersionError,
    UnavailableError,
    sqlstate_of,
    translate,
)
from qortex_db.migrations.waiting import BusyError, try_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.settings import Settings

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
        "No schema of the search_path is there. Create one, or name one by QORTEX_DB_SCHEMA "
        "(alembic: -x schema=...), and where pgvector goes by --extension-schema."
    ),
}
_LOCK_KEY: Final = 0x71_6F_72_74_65_78_64_62  # "qortexdb"
_LOCK_PAUSE_SECONDS: Final = 0.2

NOTHING_GIVEN: Final = (
    "No database is given. Name one by PGVECTOR_DSN, by PGVECTOR_HOST and its kin or by "
    "DATABASE_URL; or ask for the embedded server by --embedded (alembic: -x embedded)."
)


@asynccontextmanager
async def migration_engine(
    settings: Settings, *, embedded: bool, host: AsyncEngine | None = None
) -> AsyncIterator[AsyncEngine]:
    """An engine without a pool or a statement timeout on the given server.

    Args:
        host: An engine to connect as; its own pool stays as it is.

    Raises:
        UnavailableError: No server is given and the embedded one was not asked for, or it can't be
            reached.
    """
    server = None
    if host is not None:
        engine = _beside(host)
    else:
        target = settings.target()
        if target is None or embedded:
            if not embedded:
                raise UnavailableError(NOTHING_GIVEN)
            server = await asyncio.to_thread(embedded_server.start, settings.embedded_path)
            target = server.target()
        arguments = {"timeout": settings.connect_timeout_seconds, **target.connect_args}
        engine = create_async_engine(target.url, connect_args=arguments, poolclass=NullPool)
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
