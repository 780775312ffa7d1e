"""The tables of a host's models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Settings

if TYPE_CHECKING:
    from sqlalchemy import MetaData


async def create(dsn: str, metadata: MetaData) -> None:
    """Create them in a database, as a host without migrations does."""
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
