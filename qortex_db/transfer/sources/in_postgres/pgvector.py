"""Any table with embeddings, in this database or another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qortex_db.errors import InvalidInputError
from qortex_db.transfer.sources.in_postgres.tables import Columns, TableSource, open_database

if TYPE_CHECKING:
    from qortex_db.models.vector_spec import Metric
    from qortex_db.settings import Settings


async def open_source(
    location: str,
    collection: str | None,
    *,
    api_key: str | None,
    settings: Settings | None = None,
    id: str | None = None,  # noqa: A002 - the column's name
    embedding: str | None = None,
    document: str | None = None,
    payload: str | None = None,
    metric: Metric | None = None,
) -> TableSource:
    """A table.

    Args:
        location: A DSN; "" for the database of `settings`.
        collection: The table, or schema.table.
        id: The column of its key; by default its primary key.
        embedding: The columns of its vectors, with commas, the main one first; by default all.
        document: The column of the text.
        payload: A column of a JSON object; the other columns become keys beside its own.
        metric: Where no index tells it.
    """
    del api_key
    if collection is None:
        raise InvalidInputError("Say which table: as table, or schema.table.")
    columns = Columns(id, embedding, document, payload, metric)
    database = await open_database(location, settings)
    try:
        return await TableSource.of(database, "pgvector", collection, columns)
    except BaseException:
        await database.close()
        raise
