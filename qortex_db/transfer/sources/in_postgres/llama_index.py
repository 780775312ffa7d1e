"""Nodes in a table of LlamaIndex's PGVectorStore."""

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
    metric: Metric | None = None,
) -> TableSource:
    """A store.

    Args:
        location: A DSN; "" for the database of `settings`.
        collection: Its `table_name`, which the database has with `data_` before it, or that table
            itself; schema.table where it is elsewhere.
        metric: Where no index tells it.
    """
    del api_key
    if collection is None:
        raise InvalidInputError("Say which store, by its table_name.")
    schema, dot, name = collection.rpartition(".")
    table = name if name.startswith("data_") else f"data_{name.lower()}"
    columns = Columns(
        "node_id",
        "embedding",
        "text",
        "metadata_",
        metric,
        left_out=("id", "text_search_tsv"),
    )
    database = await open_database(location, settings)
    try:
        return await TableSource.of(database, "llamaindex", f"{schema}{dot}{table}", columns)
    except BaseException:
        await database.close()
        raise
