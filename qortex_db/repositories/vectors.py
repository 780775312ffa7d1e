"""Vectors: upsert, search, and reading them back."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, bindparam, cast, func, select
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import OID
from sqlalchemy.sql import column, table

from qortex_db import observability, types
from qortex_db.errors import UPGRADE_HINT, InvalidInputError, SchemaVersionError
from qortex_db.repositories import validation
from qortex_db.repositories.batches import Batch, Part
from qortex_db.repositories.records import (
    MAX_LIMIT,
    EmbeddingInput,
    RecordInput,
    SearchHit,
    SearchHits,
    VectorRecord,
)
from qortex_db.repositories.vector_statements import Given, given, statements_for

if TYPE_CHECKING:
    from qortex_db.engine import Executor

MAX_EF_SEARCH = 1_000
"""pgvector's own limit of `hnsw.ef_search`; beyond it an iterative scan goes on."""
_DEFAULT_EF_SEARCH = 40
MAX_PAGE_SIZE = 100_000
"""The most rows of one batch of `ingest` and one page of `stream`."""

_attributes = table("pg_attribute", column("attrelid"), column("attname"), column("atttypmod"))
_attributes.schema = "pg_catalog"
_TYPMOD = select(_attributes.c.atttypmod).where(
    _attributes.c.attrelid == cast(func.to_regclass(bindparam("table_name", type_=SqlText)), OID),
    _attributes.c.attname == "vec",
)


class VectorRepository:
    """The vectors of one table, by cosine similarity."""

    def __init__(self, executor: Executor, table: Table) -> None:
        self._executor = executor
        self._table = table
        self._sql = statements_for(table)

    async def upsert(self, records: Iterable[RecordInput]) -> int:
        """Insert vectors, or change those whose id is there.

        Args:
            records: Each a `VectorRecord` or a mapping. Of a repeated id the last wins.

        Returns:
            How many rows were written; rows that would not change are left alone.

        Raises:
            InvalidInputError: A record was refused, named by row and id; nothing was written.
        """
        return await self._upsert(records)

    async def upsert_with_zeros(self, records: Iterable[RecordInput]) -> int:
        """As `upsert`, but takes zero vectors too: they are kept and counted, and never hits."""
        return await self._upsert(records, allow_zero=True)

    async def _upsert(
        self, records: Iterable[RecordInput], *, allow_zero: bool = False, first_row: int = 0
    ) -> int:
        if isinstance(records, (Mapping, VectorRecord, str, bytes)):
            raise InvalidInputError("Pass a list of records, even for one.")
        batch = Batch(records, await self.dimensions(), allow_zero=allow_zero, first_row=first_row)
        if not batch.ids:
            return 0
        modes = {"payload": given(batch.payloads), "document": given(batch.documents)}
        for name, mode in modes.items():
            if mode != "none" and name not in self._sql.optional:
                raise InvalidInputError(f"The table {self._table.name} has no column {name}.")
        statement = self._sql.upsert(**modes)
        params = (_params(part, modes) for part in batch.parts())
        start = time.perf_counter()
        if batch.is_one_part:
            written = (await self._executor.run(statement, next(params))).rowcount
        else:
            written = await self._executor.run_all(statement, params)
        observability.vec_add_total.add(len(batch.ids))
        observability.vec_add_duration.record(time.perf_counter() - start)
        return written

    async def ingest(
        self,
        records: Iterable[RecordInput] | AsyncIterable[RecordInput],
        *,
        batch_size: int = 5_000,
        on_progress: Callable[[int], object] | None = None,
    ) -> int:
        """Upsert any number of vectors in batches, each a statement of its own.

        By itself each batch is its own transaction, so that what is done stays done, and running
        it again resumes cheaply; in a unit of work all batches belong to that transaction.

        Args:
            records: As for `upsert`; read lazily, one batch in memory at a time.
            batch_size: Rows of a statement.
            on_progress: Called, and awaited if need be, with the rows done so far.

        Returns:
            How many records were read.

        Raises:
            InvalidInputError: A record was refused, named by batch and row; earlier batches stay.
        """
        size = validation.check_limit(batch_size, MAX_PAGE_SIZE, name="batch_size")
        done = 0
        number = 0
        async for batch in _batches(records, size):
            number += 1
            try:
                await self._upsert(batch, first_row=done)
            except Exception as error:
                rows = f"batch {number} (rows {done:,} to {done + len(batch) - 1:,})"
                error.args = (f"{rows}: {error} Earlier batches were written.", *error.args[1:])
                raise
            done += len(batch)
            if on_progress is not None and isawaitable(outcome := on_progress(done)):
                await outcome
        return done

    async def get(self, ids: Iterable[str]) -> dict[str, VectorRecord]:
        """The stored vectors by id, embeddings as float32; who is missing is absent."""
        keys = validation.check_ids(ids)
        if not keys:
            return {}
        fetched = await self._executor.run(self._sql.get, {"ids": keys})
        return {row[0]: VectorRecord(*row) for row in fetched.rows}

    async def update(
        self,
        id: str,  # noqa: A002 - the column's name
        *,
        embedding: EmbeddingInput | None = None,
        payload: Mapping[str, Any] | None = None,
        document: str | None = None,
    ) -> bool:
        """Change what is given of one existing vector; None leaves it.

        Returns:
            Whether there is such a vector.
        """
        params: dict[str, Any] = {"key": validation.check_id(id)}
        if embedding is not None:
            params["new_vec"] = await self._encoded(embedding, name="embedding")
        if payload is not None:
            params["new_payload"] = validation.check_payload(payload)
        if document is not None:
            params["new_document"] = validation.check_text(document, name="document")
        names = frozenset(name.removeprefix("new_") for name in params.keys() - {"key"})
        if not names:
            raise InvalidInputError("Nothing to change: pass embedding, payload or document.")
        fetched = await self._executor.run(self._sql.update(names), params)
        return fetched.rowcount > 0

    async def search(
        self,
        embedding: EmbeddingInput,
        *,
        limit: int = 10,
        min_score: float | None = None,
        ef_search: int | None = None,
        exact: bool = False,
        with_embedding: bool = False,
    ) -> SearchHits:
        """The most similar vectors, best first; ties by id.

        Args:
            embedding: As many numbers as the column holds.
            limit: 1 to `MAX_LIMIT`.
            min_score: Leave out hits below this cosine similarity, -1 to 1.
            ef_search: Candidates that the HNSW index keeps, 1 to 1,000; more find more and take
                longer. By default the larger of 40 and the limit.
            exact: Compare with every row: slow, and right.
            with_embedding: Return the hits' embeddings too.

        Raises:
            InvalidInputError: An argument was refused.
        """
        count = validation.check_limit(limit, MAX_LIMIT)
        if min_score is not None:
            min_score = validation.check_number(min_score, name="min_score", low=-1, high=1)
        if ef_search is not None:
            ef_search = validation.check_limit(ef_search, MAX_EF_SEARCH, name="ef_search")
        params: dict[str, Any] = {
            "query": await self._encoded(embedding, name="embedding"),
            "hits": count,
        }
        # LIMIT above ef_search would silently return ef_search rows.
        tuned = not exact and (ef_search is not None or count > _DEFAULT_EF_SEARCH)
        if tuned:
            params["ef_search"] = str(ef_search or min(MAX_EF_SEARCH, count))
        statement = self._sql.search(exact=exact, tuned=tuned, with_embedding=with_embedding)
        start = time.perf_counter()
        rows = (await self._executor.run(statement, params)).rows
        observability.vec_search_duration.record(time.perf_counter() - start)
        floor = -math.inf if min_score is None else min_score
        # A zero vector has no angle: its score is NaN, which is no hit.
        hits = [
            SearchHit(row[0], score, *row[2:]) for row in rows if (score := 1.0 - row[1]) >= floor
        ]
        complete = exact or len(rows) == count or len(hits) < len(rows)
        return SearchHits(hits, requested=count, complete=complete)

    async def delete(self, ids: Iterable[str]) -> int:
        """Remove vectors by id.

        Returns:
            How many were there.
        """
        keys = validation.check_ids(ids)
        if not keys:
            return 0
        return (await self._executor.run(self._sql.delete, {"ids": keys})).rowcount

    async def count(self) -> int:
        """How many vectors there are: a scan, so not for every request."""
        return int((await self._executor.run(self._sql.count, {})).rows[0][0])

    async def stream(self, *, batch_size: int = 500) -> AsyncIterator[VectorRecord]:
        """All vectors in the order of their ids, page by page by the last id seen."""
        size = validation.check_limit(batch_size, MAX_PAGE_SIZE, name="batch_size")
        statement, params = self._sql.first_page, {"page_size": size}
        while True:
            rows = (await self._executor.run(statement, params)).rows
            for row in rows:
                yield VectorRecord(*row)
            if len(rows) < size:
                return
            statement, params = self._sql.next_page, {"page_size": size, "after": rows[-1][0]}

    async def dimensions(self) -> int | None:
        """What the column holds, read once for each engine; None where it declares nothing.

        Raises:
            SchemaVersionError: There is no such table.
        """
        known = await self._executor.catalog()
        name = self._qualified_name
        if name not in known:
            rows = (await self._executor.run(_TYPMOD, {"table_name": name})).rows
            if not rows:
                raise SchemaVersionError(
                    f"There is no table {name} with a column vec here: {UPGRADE_HINT}, or write a "
                    f"migration that creates it: CREATE TABLE {name} (id text PRIMARY KEY, "
                    f"vec vector(384)).",
                    sqlstate="42P01",
                )
            known[name] = None if rows[0][0] < 0 else int(rows[0][0])
        return known[name]

    @functools.cached_property
    def _qualified_name(self) -> str:
        parts = (self._table.schema or self._executor.schema, self._table.name)
        return ".".join('"' + part.replace('"', '""') + '"' for part in parts if part)

    async def _encoded(self, embedding: object, *, name: str) -> bytes:
        array = types.as_float32(embedding, name=name)
        types.check_dimensions(array, await self.dimensions(), name=name)
        types.check_values(array, name=name)
        return types.encode(array)


def _params(part: Part, modes: Mapping[str, Given]) -> dict[str, Any]:
    params: dict[str, Any] = {"ids": part.ids, "vecs": part.embeddings}
    for name, values in (("payload", part.payloads), ("document", part.documents)):
        if modes[name] != "none":
            params[f"{name}s"] = values
        if modes[name] == "some":
            pairs = zip(part.ids, values, strict=True)
            params[f"with_{name}"] = {key: 1 for key, value in pairs if value is not None}
    return params


async def _batches(
    records: Iterable[RecordInput] | AsyncIterable[RecordInput], size: int
) -> AsyncIterator[list[RecordInput]]:
    if isinstance(records, AsyncIterable):
        batch: list[RecordInput] = []
        async for record in records:
            batch.append(record)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
    elif isinstance(records, Iterable) and not isinstance(records, (Mapping, str, bytes)):
        iterator = iter(records)
        while batch := list(itertools.islice(iterator, size)):
            yield batch
    else:
        raise InvalidInputError("records has to be an iterable of records.")
