"""Vectors: upsert, search, and reading them back."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from qortex_db import observability, types
from qortex_db.errors import NOT_NULL_VIOLATION, ConflictError, InvalidInputError
from qortex_db.repositories import validation
from qortex_db.repositories.advice import (
    MAX_SAMPLE,
    TABLE_SIZE,
    IndexAdvice,
    Judge,
    RecallProbe,
    Tuning,
    advise,
    sampled,
    tune,
)
from qortex_db.repositories.approach import MAX_EF_SEARCH
from qortex_db.repositories.batches import Batch, Part
from qortex_db.repositories.columns import named_values
from qortex_db.repositories.nearest import SearchForm
from qortex_db.repositories.records import (
    MAX_LIMIT,
    EmbeddingInput,
    FacetCount,
    RecordInput,
    ScrollPage,
    VectorRecord,
)
from qortex_db.repositories.search_statements import Page
from qortex_db.repositories.searches import VectorSearches
from qortex_db.repositories.vector_statements import IDS, VECS, statements_for
from qortex_db.search import with_document

if TYPE_CHECKING:
    from sqlalchemy import Table

    from qortex_db.engine import Executor
    from qortex_db.repositories.columns import RecordPart
    from qortex_db.search import Where

MAX_PAGE_SIZE = 100_000
"""The most rows of one batch of `ingest` and one page of `stream`."""
MAX_REMOVED = 64
"""The most paths that one `merge_payload` takes out."""


class VectorRepository(VectorSearches):
    """The vectors of one table: stored, changed, read and searched."""

    def __init__(self, executor: Executor, table: Table, *, namespace: Any = None) -> None:
        super().__init__(executor, table, namespace=namespace)
        self._sql = statements_for(table, self._vectors.scope)

    async def dimensions(self) -> int | None:
        """What the column holds, read once for each engine; None where it declares nothing.

        Raises:
            SchemaVersionError: There is no such table.
        """
        return (await self._vectors.facts()).dimensions

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
        vector = self._vectors.vector
        batch = Batch(
            records,
            await self.dimensions(),
            self._sql.written,
            allow_zero=allow_zero or vector.metric != "cosine",
            is_half=vector.storage == "half",
            first_row=first_row,
        )
        if not batch.ids:
            return 0
        statement = self._sql.upsert(batch.form)
        params = map(_params, batch.parts())
        start = time.perf_counter()
        try:
            if batch.is_one_part:
                written = (await self._vectors.run(statement, next(params))).rowcount
            else:
                written = await self._vectors.run_all(statement, params)
        except ConflictError as error:
            if self._vectors.scope.column is None or error.sqlstate != NOT_NULL_VIOLATION:
                raise
            raise ConflictError(
                "An id of these records is in another namespace, or a column that takes no NULL "
                "was not given. Nothing was written.",
                sqlstate=error.sqlstate,
            ) from None
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
        fetched = await self._vectors.run(self._sql.get, {IDS: keys})
        record = self._vectors.shape.record
        return {row[0]: record(row) for row in fetched.rows}

    async def update(
        self,
        id: str,  # noqa: A002 - the column's name
        *,
        embedding: EmbeddingInput | None = None,
        payload: Mapping[str, Any] | None = None,
        document: str | None = None,
        vectors: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Change what is given of one existing vector; None leaves it.

        Args:
            id: Its key.
            embedding: As of `upsert`, like all the others.
            payload: Put in the place of the old one; `merge_payload` changes single keys.
            document: The text.
            vectors: Further vectors by name; None clears one.
            attributes: The host's own columns by name.

        Returns:
            Whether there is such a vector.
        """
        key = validation.check_id(id)
        values: dict[str, Any] = {}
        if embedding is not None:
            values["vec"] = self._vectors.encode(embedding, await self._vectors.facts())
        for name, value in (("payload", payload), ("document", document)):
            if value is not None:
                if name not in self._sql.written:
                    raise InvalidInputError(f"The table has no column {name}.")
                values[name] = self._sql.written[name].check(value, name)
        parts: dict[RecordPart, Any] = {"vectors": vectors, "attributes": attributes}
        for part, given in parts.items():
            if given is not None:
                for name, value in named_values(self._sql.written, part, given, part):
                    values[name] = self._sql.written[name].check(value, f"{part}[{name!r}]")
        if not values:
            raise InvalidInputError(
                "Nothing to change: pass embedding, payload, document, vectors or attributes."
            )
        statement = self._sql.update(frozenset(values))
        params = {f"row_value_{i}": values[name] for i, name in enumerate(sorted(values))}
        return (await self._vectors.run(statement, params | {"row_id": key})).rowcount > 0

    async def merge_payload(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        remove: Sequence[str] = (),
        ids: Iterable[str] | None = None,
        where: Where | None = None,
    ) -> int:
        """Change single keys of payloads, atomically; the others stay.

        Args:
            values: Keys and their new values; a nested object is replaced as a whole.
            remove: Paths to take out before, as in a filter, at most `MAX_REMOVED`.
            ids: Of which vectors.
            where: Or of those that a filter matches, as of `search`; one of the two.

        Returns:
            How many rows were changed; those that would not change are left alone.
        """
        given = validation.check_payload({} if values is None else values, name="values")
        if isinstance(remove, str):
            raise InvalidInputError("remove is a str; pass a list of paths, even for one.")
        paths = [self._vectors.steps(path, f"remove[{i}]") for i, path in enumerate(remove)]
        if not (values or paths):
            raise InvalidInputError("Nothing to change: pass values or remove.")
        if len(paths) > MAX_REMOVED:
            raise InvalidInputError(f"remove has {len(paths)} paths; at most {MAX_REMOVED} fit.")
        if (ids is None) is (where is None):
            raise InvalidInputError("Say of which vectors: by ids, or by where.")
        params: dict[str, Any] = {f"row_path_{i}": list(path) for i, path in enumerate(paths)}
        params["row_values"] = given
        if ids is None:
            narrowed = self._vectors.narrow(where, params)
            statement = self._vectors.searches.merge(narrowed, len(paths))
        else:
            params[IDS] = validation.check_ids(ids)
            statement = self._sql.merge(len(paths))
        return (await self._vectors.run(statement, params)).rowcount

    async def delete(self, ids: Iterable[str]) -> int:
        """Remove vectors by id.

        Returns:
            How many were there.
        """
        keys = validation.check_ids(ids)
        if not keys:
            return 0
        return (await self._vectors.run(self._sql.delete, {IDS: keys})).rowcount

    async def delete_where(
        self,
        where: Where | None = None,
        *,
        where_document: Mapping[str, Any] | None = None,
    ) -> int:
        """Remove the vectors that a filter matches.

        Args:
            where: As of `search`; an empty dictionary, which matches every row, is refused.
            where_document: As of `search`.

        Returns:
            How many they were.
        """
        unbounded = where is None or (isinstance(where, Mapping) and not where)
        if unbounded and where_document is None:
            raise InvalidInputError("where is empty, which would remove every vector.")
        params: dict[str, Any] = {}
        where = with_document(where, where_document)
        statement = self._vectors.searches.delete(self._vectors.narrow(where, params))
        return (await self._vectors.run(statement, params)).rowcount

    async def facet(
        self,
        path: str,
        *,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        limit: int = 10,
    ) -> list[FacetCount]:
        """How many rows have each value at a path of the payload, the most frequent first.

        Args:
            path: As in a filter. Of an array each element counts, once for each row.
            where: Count only these rows.
            where_document: As of `search`.
            limit: The most values, 1 to `MAX_LIMIT`.
        """
        params: dict[str, Any] = {"hits": validation.check_limit(limit, MAX_LIMIT)}
        narrowed = self._vectors.narrow(with_document(where, where_document), params)
        statement = self._vectors.searches.facet(narrowed, self._vectors.steps(path, "path"))
        return [FacetCount(*row) for row in await self._vectors.rows(statement, params)]

    async def count(
        self, *, where: Where | None = None, where_document: Mapping[str, Any] | None = None
    ) -> int:
        """How many vectors there are: a scan, so not for every request."""
        params: dict[str, Any] = {}
        narrowed = self._vectors.narrow(with_document(where, where_document), params)
        return int((await self._vectors.rows(self._vectors.searches.count(narrowed), params))[0][0])

    async def scroll(
        self,
        *,
        limit: int = 100,
        after: str | None = None,
        order_by: str | None = None,
        descending: bool = False,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        with_embedding: bool = False,
    ) -> ScrollPage:
        """A page of vectors in the order of their ids, or of a payload's field and then of ids.

        Args:
            limit: 1 to `MAX_LIMIT`.
            after: The `next` of the page before; only with the same `order_by` and `descending`.
            order_by: A path into the payload, as in a filter; rows without it are left out. An
                index of kind containment does not help here: the page costs a scan.
            descending: The greatest first, ids too.
            where: As of `search`.
            where_document: As of `search`.
            with_embedding: Return embeddings too; without, they are empty.
        """
        count = validation.check_limit(limit, MAX_LIMIT)
        steps = () if order_by is None else self._vectors.steps(order_by, "order_by")
        params: dict[str, Any] = {"hits": count}
        if after is not None:
            params |= _read_cursor(after, has_value=bool(steps))
        if not isinstance(descending, bool):
            raise InvalidInputError(f"descending is a {type(descending).__name__}; pass a bool.")
        narrowed = self._vectors.narrow(with_document(where, where_document), params)
        form = SearchForm(with_embedding=with_embedding)
        page = Page(steps, goes_on=after is not None, descending=descending)
        rows = await self._vectors.rows(self._vectors.searches.page(narrowed, form, page), params)
        record = self._vectors.shape.record
        last = json.dumps([rows[-1][0], rows[-1][-1]]) if len(rows) == count else None
        return ScrollPage([record(row[:-1], with_embedding=with_embedding) for row in rows], last)

    async def recall_probe(
        self, *, sample: int = 100, limit: int = 10, ef_search: int | None = None
    ) -> RecallProbe:
        """How many of the true neighbours the index finds, on random stored vectors.

        It compares each of them with every row, so it is for now and then. The gauge
        `qortex_vec_recall` shows the last one.

        Args:
            sample: How many, 1 to `MAX_SAMPLE`.
            limit: How many neighbours of each, 1 to 1,000.
            ef_search: As of `search`.
        """
        judge = await self._judge(sample, limit)
        probe = RecallProbe(await judge.recall(ef_search), judge.sample, limit, ef_search)
        observability.vec_recall.set(probe.recall, {"table": self._vectors.table.name})
        return probe

    async def tune(
        self,
        *,
        target_recall: float = 0.95,
        sample: int = 100,
        limit: int = 10,
        max_ef_search: int = MAX_EF_SEARCH,
    ) -> Tuning:
        """The smallest `ef_search` with which the index finds this share of the true neighbours.

        Args:
            target_recall: 0 to 1.
            sample: As of `recall_probe`.
            limit: As of `recall_probe`.
            max_ef_search: Where to stop, 1 to 1,000.

        Raises:
            NotFoundError: None reaches it.
        """
        target = validation.check_number(target_recall, name="target_recall", low=0, high=1)
        most = validation.check_limit(max_ef_search, MAX_EF_SEARCH, name="max_ef_search")
        return await tune(await self._judge(sample, limit), target, most)

    async def recommend_index(
        self, *, rows: int | None = None, memory_bytes: int | None = None
    ) -> IndexAdvice:
        """Which index suits the table's size and the server's memory, and why.

        Args:
            rows: How many there will be; by default the planner's own estimate.
            memory_bytes: What the index may take; by default half of `effective_cache_size`.
        """
        found = await self._vectors.executor.run(TABLE_SIZE, {"name": self._vectors.qualified_name})
        tuples, size, cache = found.rows[0] if found.rows else (-1, 0, 0)
        dimensions = await self.dimensions() or types.MAX_DIMENSIONS
        if rows is None:  # not analyzed yet: from its size
            rows = tuples if tuples >= 0 else size // (4 * dimensions + 100)
        rows = validation.check_count(rows, name="rows")
        memory = cache // 2 if memory_bytes is None else memory_bytes
        return advise(rows, dimensions, memory)

    async def _judge(self, sample: int, limit: int) -> Judge:
        count = validation.check_limit(sample, MAX_SAMPLE, name="sample")
        judge = Judge(self, limit)
        statement = sampled(self._vectors.table, self._vectors.scope)
        await judge.prepare(await self._vectors.rows(statement, {"sample": count}))
        return judge

    async def stream(
        self,
        *,
        batch_size: int = 500,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        with_embedding: bool = True,
    ) -> AsyncIterator[VectorRecord]:
        """All vectors in the order of their ids, page by page by the last id seen.

        Args:
            batch_size: Rows of a page, and of memory.
            where: As of `search`.
            where_document: As of `search`.
            with_embedding: Return embeddings too; without, they are empty.
        """
        size = validation.check_limit(batch_size, MAX_PAGE_SIZE, name="batch_size")
        record = self._vectors.shape.record
        params: dict[str, Any] = {"hits": size}
        narrowed = self._vectors.narrow(with_document(where, where_document), params)
        form = SearchForm(with_embedding=with_embedding)
        page = Page()
        while True:
            statement = self._vectors.searches.page(narrowed, form, page)
            rows = (await self._vectors.run(statement, params)).rows
            for row in rows:
                yield record(row[:-1], with_embedding=with_embedding)
            if len(rows) < size:
                return
            page, params["after"] = Page(goes_on=True), rows[-1][0]


def _read_cursor(cursor: object, *, has_value: bool) -> dict[str, str]:
    try:
        key, value = json.loads(cursor)  # type: ignore[arg-type]
        params = {"after": validation.check_id(key)}
        if has_value:
            json.loads(value)
            params["after_value"] = validation.check_text(value, name="after")
    except (TypeError, ValueError):
        raise InvalidInputError("after is no `next` of a page in this order.") from None
    return params


def _params(part: Part) -> dict[str, Any]:
    params: dict[str, Any] = {IDS: part.ids, VECS: part.embeddings}
    for i, (values, given) in enumerate(zip(part.values, part.given, strict=True)):
        params[f"row_values_{i}"] = values
        if given is not None:
            params[f"row_given_{i}"] = given
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
