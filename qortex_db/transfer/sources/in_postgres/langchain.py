"""Collections of langchain-postgres: those of PGVector's two tables, and PGVectorStore's tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.messages import shown
from qortex_db.names import qualified
from qortex_db.transfer.sources.in_postgres.tables import Columns, TableSource, open_database

if TYPE_CHECKING:
    from qortex_db.database import Database
    from qortex_db.models.vector_spec import Metric
    from qortex_db.settings import Settings
    from qortex_db.transfer.source import SourceRow

_OLD: Final = "langchain_pg_embedding"
_COLLECTIONS: Final = text("SELECT name, uuid FROM langchain_pg_collection ORDER BY name")
_HAS_OLD: Final = text("SELECT pg_catalog.to_regclass('langchain_pg_collection') IS NOT NULL")
_HAS_ID: Final = text("""
SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass('langchain_pg_embedding') AND attname = 'id')
""")
_TABLE: Final = text("SELECT pg_catalog.to_regclass(CAST(:table_name AS text)) IS NOT NULL")


async def open_source(
    location: str,
    collection: str | None,
    *,
    api_key: str | None,
    settings: Settings | None = None,
    metric: Metric | None = None,
) -> TableSource:
    """A collection of `PGVector` by its name, or a table of `PGVectorStore`.

    Args:
        location: A DSN; "" for the database of `settings`.
        metric: Where no index tells it; PGVector compares by cosine unless told.
    """
    del api_key
    if collection is None:
        raise InvalidInputError("Say which collection of PGVector, or table of PGVectorStore.")
    database = await open_database(location, settings)
    try:
        return await _found(database, collection, metric)
    except BaseException:
        await database.close()
        raise


async def _found(database: Database, name: str, metric: Metric | None) -> TableSource:
    old = await _old_collections(database)
    if name in old:
        return await _old(database, name, old[name], metric)
    if not await _is_table(database, name):
        known = f"; PGVector has {', '.join(map(shown, old))}" if old else ""
        raise NotFoundError(f"There is neither a collection nor a table {shown(name)}{known}.")
    columns = Columns("langchain_id", "embedding", "content", "langchain_metadata", metric)
    return await TableSource.of(database, "langchain", name, columns, row=_without_nulls)


async def _old_collections(database: Database) -> dict[str, Any]:
    async with database.engine.connect() as connection:
        if not await connection.scalar(_HAS_OLD):
            return {}
        return {name: key for name, key in await connection.execute(_COLLECTIONS)}  # noqa: C416


async def _is_table(database: Database, name: str) -> bool:
    quoted = qualified(*name.split("."))
    async with database.engine.connect() as connection:
        return bool(await connection.scalar(_TABLE, {"table_name": quoted}))


async def _old(database: Database, name: str, key: Any, metric: Metric | None) -> TableSource:
    async with database.engine.connect() as connection:
        has_id = bool(await connection.scalar(_HAS_ID))
    # Before langchain-postgres it was `uuid`, in langchain-community.
    columns = Columns("id" if has_id else "uuid", "embedding", "document", "cmetadata", metric)
    return await TableSource.of(
        database,
        f"langchain {name} of",
        _OLD,
        columns,
        where={"collection_id": key},
        hidden=("collection_id",),  # which collection it was of is no metadata of a row's
    )


def _without_nulls(row: SourceRow) -> SourceRow:
    """A metadata column without a value is a key that the document lacks."""
    payload = {name: value for name, value in row.payload.items() if value is not None}
    return replace(row, payload=payload)
