"""Tables filled quickly."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.schema import CreateIndex, CreateTable

from qortex_db import Database
from support.catalogue import execute
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from qortex_db.testing import Server


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


async def rename_backwards(session: AsyncSession, table: str) -> None:
    """Give a table's rows other ids, in the opposite order."""
    await session.execute(
        text(
            f"UPDATE {table} SET id = 'p' || lpad((9999 - n)::text, 4, '0') FROM "
            f"(SELECT id AS was, row_number() OVER (ORDER BY id) - 1 AS n FROM {table}) o "
            "WHERE id = was"
        )
    )


@contextmanager
def loaded_collections(
    server: Server,
    tables: Iterable[Table],
    models: Iterable[type[Any]],
    passages: NDArray[np.float32],
    even: str,
) -> Iterator[str]:
    """A database whose collections all hold the same passages; every other payload is even."""

    async def load(dsn: str) -> None:
        await execute(dsn, "CREATE EXTENSION vector")
        async with Database.connect(dsn) as db, indexed_at_the_end(db.engine, tables):
            for model in models:
                await db.collection(model).ingest(
                    {"id": f"p{i:04}", "embedding": row, "payload": {even: i % 2 == 0}}
                    for i, row in enumerate(passages)
                )

    with copied(server, "template0") as dsn:
        asyncio.run(load(dsn))
        yield dsn
