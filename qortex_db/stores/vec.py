"""qortex's vector index."""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import Column, DateTime, MetaData, Table, Text

from qortex_db import checks, messages, types
from qortex_db.errors import DimensionMismatchError, InvalidInputError, SchemaVersionError
from qortex_db.markers import Clear
from qortex_db.models import QortexVector
from qortex_db.observability import traced
from qortex_db.observability.apart import apart
from qortex_db.repositories import MAX_LIMIT, VectorRecord, VectorRepository, validation
from qortex_db.repositories.statement_cache import MAX_TABLES
from qortex_db.status import read_tables
from qortex_db.stores import events
from qortex_db.stores.handle import DatabaseHandle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from qortex_db.database import Database
    from qortex_db.types import EmbeddingInput
    from qortex_db.view import DatabaseView

_INDEX_TYPE: Final = "pgvector"
_TABLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@functools.lru_cache(MAX_TABLES)
def _table(name: str) -> Table:
    """A table as this store sees it: no payload, which it never touches."""
    columns: list[Column[Any]] = [
        Column("id", Text, primary_key=True),
        Column("vec", types.Embedding()),
    ]
    if name == QortexVector.__tablename__:
        columns.append(Column("updated_at", DateTime(timezone=True)))
    return Table(name, MetaData(), *columns)


class PgVectorIndex:
    """A vector index by cosine similarity, with qortex's methods.

    Args:
        dsn: Where the database is, or a `Database` to share; "" reads the environment.
        dimensions: What the column holds.
        table_name: Any table with `id text` as its key and `vec vector(dimensions)`.
        pool_size: Connections at most, where the index has a database of its own.
        pool: A `Database` to share, in the place of qortex's pool.

    Raises:
        InvalidInputError: An argument was refused.
    """

    def __init__(
        self,
        dsn: str | Database = "",
        *,
        dimensions: int = 384,
        table_name: str = "qortex_vectors",
        pool_size: int = 10,
        pool: Database | DatabaseView | None = None,
    ) -> None:
        if not isinstance(table_name, str) or not _TABLE_NAME.fullmatch(table_name):
            got = (
                messages.shown(table_name, 80) if isinstance(table_name, str) else type(table_name)
            )
            raise InvalidInputError(
                "table_name must be a safe SQL identifier (lowercase alphanumeric + underscores), "
                f"got: {got}"
            )
        self._dimensions = validation.check_limit(
            dimensions, types.MAX_DIMENSIONS, name="dimensions"
        )
        self._table_name = table_name
        size = validation.check_limit(pool_size, MAX_LIMIT, name="pool_size")
        self._handle = DatabaseHandle(dsn if pool is None else pool, pool_size=size)
        self._checked = False

    async def _vectors(self) -> VectorRepository:
        database = await self._handle.open()
        vectors = VectorRepository(database.executor, _table(self._table_name))
        if not self._checked:
            await self._check(vectors)
            self._checked = True
        return vectors

    async def _check(self, vectors: VectorRepository) -> None:
        try:
            held = await vectors.dimensions()
        except SchemaVersionError as error:
            if self._table_name == QortexVector.__tablename__:
                raise
            name, count = self._table_name, self._dimensions
            raise SchemaVersionError(
                f"There is no table {name} with a column vec. Tables come from migrations; write "
                f"one: CREATE TABLE {name} (id text PRIMARY KEY, vec vector({count})); "
                f"CREATE INDEX CONCURRENTLY ix_{name}_vec ON {name} USING hnsw (vec "
                "vector_cosine_ops).",
                sqlstate=error.sqlstate,
            ) from None
        if held is not None and held != self._dimensions:
            raise DimensionMismatchError(
                f"The index is made for {self._dimensions} dimensions, the column "
                f"{self._table_name}.vec holds {held}.",
                expected=held,
                actual=self._dimensions,
            )

    @traced("vec.add")
    async def add(self, ids: Sequence[str], embeddings: Sequence[EmbeddingInput]) -> None:
        """Insert or overwrite vectors; payloads and documents stay as they are.

        Raises:
            InvalidInputError: The lengths differ, or a row was refused; nothing was stored.
            DimensionMismatchError: An embedding has another length than the column.
        """
        keys = validation.check_list(ids, name="ids", of="list of ids")
        rows = validation.check_list(embeddings, name="embeddings", of="list of embeddings")
        if len(keys) != len(rows):
            raise InvalidInputError(f"ids ({len(keys)}) and embeddings ({len(rows)}) must match")
        for number, (key, row) in enumerate(zip(keys, rows, strict=True)):
            if row is None or isinstance(row, Clear):  # what has no vector is no row here
                types.as_float32(row, name=f"embedding of row {number} (id {messages.shown(key)})")
        start = time.perf_counter()
        vectors = await self._vectors()
        records = [VectorRecord(key, row) for key, row in zip(keys, rows, strict=True)]
        await vectors.upsert_with_zeros(records)
        if not events.are_heard():
            return
        with apart():
            events.tell(
                "VecIndexUpdated",
                count_added=len(records),
                total_size=await self._rows(),
                latency_ms=events.milliseconds_since(start),
                index_type=_INDEX_TYPE,
            )

    async def _rows(self) -> int:
        """How many there are; of a large table about how many."""
        executor, table = (await self._handle.open()).executor, _table(self._table_name)
        sizes, _ = await read_tables(executor, [table], executor.schema_of(None))
        return sizes[table.fullname]["rows"]

    @traced("vec.search")
    async def search(
        self, query_embedding: EmbeddingInput, top_k: int = 10, threshold: float = 0.0
    ) -> list[tuple[str, float]]:
        """The most similar ids with their similarities, best first, at or above the threshold.

        Raises:
            InvalidInputError: The embedding or a number was refused.
            DimensionMismatchError: An embedding has another length than the column.
        """
        validation.check_limit(top_k, MAX_LIMIT, name="top_k")
        floor = checks.check_number(threshold, name="threshold")
        query = types.as_float32(query_embedding, name="query_embedding")
        types.check_dimensions(query, self._dimensions, name="query_embedding")
        types.check_values(query, name="query_embedding", allow_zero=True)
        start = time.perf_counter()
        vectors = await self._vectors()
        found: list[tuple[str, float]] = []
        if types.has_direction(query):  # else nothing is similar: as in qortex's own index
            hits = await vectors.search(query, limit=top_k)
            found = [(hit.id, hit.score) for hit in hits if hit.score >= floor]
        best, last = (found[0][1], found[-1][1]) if found else (0.0, 0.0)
        events.tell(
            "VecSearchResults",
            candidates=len(found),
            top_score=best,
            score_spread=best - last,
            latency_ms=events.milliseconds_since(start),
            index_type=_INDEX_TYPE,
        )
        return found

    @traced("vec.remove")
    async def remove(self, ids: Sequence[str]) -> None:
        """Remove vectors; unknown ids are ignored.

        Raises:
            InvalidInputError: An id was refused.
        """
        await (await self._vectors()).delete(ids)

    async def size(self) -> int:
        """How many rows there are: those that a repository stored without a vector, too."""
        return await (await self._vectors()).count()

    async def persist(self) -> None:
        """Nothing to do: what was added is stored."""

    async def iter_all(
        self, batch_size: int = 500
    ) -> AsyncIterator[tuple[list[str], list[list[float]]]]:
        """All vectors in batches of ids and lists of floats, in the order of the ids.

        Raises:
            InvalidInputError: `batch_size` was refused.
        """
        ids: list[str] = []
        embeddings: list[list[float]] = []
        async for record in (await self._vectors()).stream(batch_size=batch_size):
            if record.embedding is None:  # a repository's, which may do without
                continue
            ids.append(record.id)
            embeddings.append(np.asarray(record.embedding).tolist())
            if len(ids) == batch_size:
                yield ids, embeddings
                ids, embeddings = [], []
        if ids:
            yield ids, embeddings

    async def close(self) -> None:
        """Close a database of its own; a shared one stays open."""
        await self._handle.close()
