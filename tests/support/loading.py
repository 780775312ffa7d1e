"""Tables filled quickly."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy.schema import CreateIndex, CreateTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncEngine


@asynccontextmanager
async def indexed_at_the_end(engine: AsyncEngine, tables: Iterable[Table]) -> AsyncIterator[None]:
    """Make tables; their indexes are built over what the block loads."""
    tables = list(tables)
    async with engine.begin() as connection:
        for table in tables:
            await connection.execute(CreateTable(table))
    yield
    async with engine.begin() as connection:
        for table in tables:
            for index in table.indexes:
                await connection.execute(CreateIndex(index))
        await connection.exec_driver_sql("ANALYZE")
