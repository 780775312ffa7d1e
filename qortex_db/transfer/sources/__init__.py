"""The sources there are, each behind its extra: a module is imported when its source is opened."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qortex_db.transfer.source import Source

SOURCES: Final[Mapping[str, tuple[str, str | None]]] = {
    "jsonl": ("in_files.json_lines", None),
    "numpy": ("in_files.numpy_matrix", None),
    "parquet": ("in_files.parquet", "parquet"),
    "pgvector": ("in_postgres.pgvector", None),
    "langchain": ("in_postgres.langchain", None),
    "llamaindex": ("in_postgres.llama_index", None),
    "qortex-sqlite": ("qortex_sqlite", None),
    "qdrant": ("vendors.qdrant", "qdrant"),
    "chroma": ("vendors.chroma", "chroma"),
    "milvus": ("vendors.milvus", "milvus"),
    "weaviate": ("vendors.weaviate", "weaviate"),
    "pinecone": ("vendors.pinecone", "pinecone"),
}
"""Each source by its name: its module, and the extra that it needs."""


async def open_source(
    kind: str,
    location: str,
    collection: str | None = None,
    *,
    api_key: str | None = None,
    **options: Any,
) -> Source:
    """Open a source.

    Args:
        kind: A key of `SOURCES`.
        location: A URL, a DSN, a folder or a file, as the source has it.
        collection: Which of its collections, indexes, classes or tables.
        api_key: Of a server that asks for one.
        options: What this source takes besides; the page on imports lists it.

    Raises:
        InvalidInputError: There is no such source or option, or its extra is not installed.
        NotFoundError: There is nothing at that place.
    """
    if kind not in SOURCES:
        raise InvalidInputError(f"There is no source {kind!r}: it is one of {', '.join(SOURCES)}.")
    module, extra = SOURCES[kind]
    try:
        found = importlib.import_module(f"qortex_db.transfer.sources.{module}")
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").startswith("qortex_db"):
            raise
        raise InvalidInputError(
            f"The source {kind} needs its client: pip install 'qortex-db[{extra}]'."
        ) from error
    opened: Source = await found.open_source(location, collection, api_key=api_key, **options)
    return opened
