"""What tests do with a database: tables of a host's own, and work that is undone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from qortex_db.engine import adopt
from qortex_db.settings import DRIVER, parse_dsn
from qortex_db.uow import UnitOfWork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import AsyncEngine

_EXTENSION: Final = "CREATE EXTENSION IF NOT EXISTS vector"


@asynccontextmanager
async def _engine(dsn: str) -> AsyncIterator[AsyncEngine]:
    target = parse_dsn(dsn)
    engine = create_async_engine(
        target.url, connect_args=dict(target.connect_args), poolclass=NullPool
    )
    adopt(engine)
    try:
        yield engine
    finally:
        await engine.dispose()


def asyncpg_url(dsn: str) -> str:
    """A URL as `create_async_engine` takes it; what its query says has to be asyncpg's."""
    return make_url(dsn).set(drivername=DRIVER).render_as_string(hide_password=False)


async def create_all(dsn: str, *metadata: MetaData) -> None:
    """Create pgvector and the tables that a host's own models declare, where they are missing."""
    async with _engine(dsn) as engine, engine.begin() as connection:
        await connection.exec_driver_sql(_EXTENSION)
        for each in metadata:
            await connection.run_sync(each.create_all)


@asynccontextmanager
async def rolled_back(
    dsn: str, *, session_class: type[AsyncSession] = AsyncSession, schema: str | None = None
) -> AsyncIterator[UnitOfWork]:
    """A unit of work of which nothing is left, whatever is committed in its session.

    What is tested may commit and roll back: those are a savepoint's. Sequences go on.

    Args:
        dsn: A migrated database, which many tests may share.
        session_class: What the unit of work's session is.
        schema: Where the package's tables are, if not where connections look.
    """
    async with _engine(dsn) as engine, engine.connect() as connection:
        transaction = await connection.begin()
        try:
            async with session_class(
                connection, join_transaction_mode="create_savepoint", expire_on_commit=False
            ) as session:
                yield UnitOfWork(session, schema=schema)
        finally:
            await transaction.rollback()
