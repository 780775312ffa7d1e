"""Any number of records, batch by batch: what is read, written, put aside and told."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

from sqlalchemy import text

from qortex_db import checks
from qortex_db.errors import DimensionMismatchError, InvalidInputError, QortexDbError
from qortex_db.filters.full_text import is_whole, stored_words
from qortex_db.observability import log, outside
from qortex_db.repositories import validation
from qortex_db.repositories.halving import by_halves
from qortex_db.repositories.progress import IngestProgress, Pace, tell
from qortex_db.repositories.vectors.rows.distinct_ids import DistinctIds
from qortex_db.repositories.vectors.rows.frames import Frame, records_of
from qortex_db.repositories.vectors.rows.records import (
    IdT,
    RecordInput,
    RejectedRecord,
)
from qortex_db.repositories.vectors.word_counts import count_if_due
from qortex_db.repositories.vectors.writes import VectorWrites

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qortex_db.repositories.vectors.table import VectorTable
    from qortex_db.repositories.vectors.table_facts import TableFacts

MAX_BATCH_SIZE: Final = 100_000
"""The most rows of one batch of `ingest`."""
SLOW_SECONDS: Final = 1.0
SLOW_ROWS_PER_SECOND: Final = 2_000.0
"""A batch that takes so long, at less than this, is slow: an index on the vectors has it so."""

OnError: TypeAlias = Literal["raise", "skip"]
Rejects: TypeAlias = str | os.PathLike[str] | Callable[[RejectedRecord], object]
_Numbered: TypeAlias = tuple[int, RecordInput]
_END: Final = object()

_HAS_INDEX: Final = text("""
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am a ON a.oid = c.relam
  WHERE i.indrelid = pg_catalog.to_regclass(:name)::oid AND a.amname IN ('hnsw', 'ivfflat'))
""")


class VectorIngest(VectorWrites[IdT]):
    """What writes more than one statement takes."""

    async def ingest(
        self,
        records: Iterable[RecordInput] | AsyncIterable[RecordInput] | Frame,
        *,
        id: str | None = None,  # noqa: A002 - the column's name
        embedding: str | None = None,
        document: str | None = None,
        batch_size: int = 5_000,
        on_progress: Callable[[IngestProgress], object] | None = None,
        on_error: OnError = "raise",
        rejects: Rejects | None = None,
    ) -> int:
        """Upsert any number of vectors in batches, each a statement of its own.

        By itself each batch is its own transaction, so that what is done stays done, and running
        it again resumes cheaply; in a unit of work all batches belong to that transaction. What is
        stored in the end does not depend on the size of a batch. Where the words of the table's
        documents were counted, a tenth as many records have them counted anew at the end.

        Args:
            records: As for :meth:`upsert`; read lazily, one batch in memory at a time. Or a data
                frame of pandas, polars or Arrow (extra `frames`).
            id: Of a frame: which column has the keys; by default `id`.
            embedding: Which has lists of numbers; None: an embedder makes them of the documents.
            document: Which has the texts. Columns that are not named are keys of the payload; what
                is null in them is left out.
            batch_size: Rows of a statement.
            on_progress: Called, and awaited if need be, after each batch, with the rows read so far
                as an int that also tells the rate and how many were rejected.
            on_error: "skip" puts aside the records that are refused, by this package or by the
                server for what is in them, and writes the others. A batch that the server refuses
                is tried again in halves, so that a few bad rows cost it about as many times again
                as it has levels; every other error is raised.
            rejects: Where those records are told of: a file, written anew, with the JSON of a
                `RejectedRecord` a line, or what is called, and awaited if need be, with each.

        Returns:
            How many distinct ids were stored, or left as they were where nothing changed.

        Raises:
            InvalidInputError: A record was refused, named by batch and row; earlier batches stay.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: A record is larger than a limit allows.
            EmbeddingModelError: The table is searched by another model's embeddings.
            EncryptionError: A value can't be encrypted.
        """
        self._vectors.check_takes_rows()
        size = validation.check_limit(batch_size, MAX_BATCH_SIZE, name="batch_size")
        if on_progress is not None:
            validation.check_callable(on_progress, name="on_progress")
        aside = _Aside(on_error, rejects)
        await aside.begin()
        pace = _Pace(self._vectors)
        done = 0
        facts = None
        if isinstance(records, Frame):
            records = records_of(records, key=id or "id", embedding=embedding, document=document)
        elif any(name is not None for name in (id, embedding, document)):
            raise InvalidInputError("id, embedding and document name columns of a data frame.")
        with DistinctIds() as ids:
            async for read in _batches(records, size):
                start = time.perf_counter()
                batch = await self._vectors.prepared(read, done)
                facts = facts or await self._facts_for(batch[0])
                if aside.skips:
                    rows = await self._screened(list(enumerate(batch, done)), facts, aside)
                    ids.add(await self._store(rows, facts, aside))
                    await aside.tell()
                else:
                    ids.add(await self._store_whole(batch, facts, done, size))
                seconds = time.perf_counter() - start
                await pace.note(len(batch), seconds)
                done += len(batch)
                log.info(
                    "ingest_batch",
                    table=self._vectors.table.name,
                    rows=len(batch),
                    done=done,
                    seconds=round(seconds, 3),
                )
                await tell(on_progress, pace.progress(done, aside.count))
            if aside.count:
                table = self._vectors.table.name
                log.warning("ingest_rejected", table=table, rows=aside.count, read=done)
            await self._keep_counted(done)
            return await asyncio.to_thread(ids.count)

    async def _keep_counted(self, read: int) -> None:
        """Count words anew if it is due; what was written is written, whatever comes of that."""
        vectors = self._vectors
        if "document" not in vectors.table.c:
            return
        try:
            async with vectors.executor.savepoint():
                await count_if_due(vectors, read)
        except QortexDbError as error:
            log.warning("words_not_counted", table=vectors.table.name, reason=type(error).__name__)

    async def fill_words(
        self, *, batch_size: int = 1_000, on_progress: Callable[[int], object] | None = None
    ) -> int:
        """Store the words of documents that lack them: of old rows, and of what others wrote.

        By itself each batch is its own transaction: it can be stopped, and run again. A row that
        is changed is written anew, with its entries in the indexes.

        Args:
            batch_size: Rows that are read, and locked, at a time.
            on_progress: Called, and awaited if need be, with the rows read so far.

        Returns:
            How many rows were changed; none where the server itself keeps the words.

        Raises:
            InvalidInputError: An argument was refused.
        """
        size = validation.check_limit(batch_size, MAX_BATCH_SIZE, name="batch_size")
        if on_progress is not None:
            validation.check_callable(on_progress, name="on_progress")
        table = self._vectors.table
        if stored_words(table) is None or is_whole(table):
            return 0
        read = filled = 0
        last: str | None = ""
        while last is not None:
            params = {"after": last, "hits": size}
            found = await self._vectors.run(self._vectors.by_key.fill, params)
            last, rows, changed = found.rows[0]
            read += rows
            filled += changed
            if rows:
                await tell(on_progress, read)
        return filled

    async def _facts_for(self, record: RecordInput) -> TableFacts:
        """What is true of the table for all of an ingest, as far as its first record tells."""
        facts = await self._vectors.facts()
        try:
            embedding = record["embedding"] if isinstance(record, Mapping) else record.embedding
            self._vectors.encode(embedding, facts)
        except DimensionMismatchError:
            return await self._vectors.facts(anew=True)
        except Exception:  # noqa: BLE001 - told with its batch
            return facts
        return facts

    async def _store_whole(
        self, records: list[RecordInput], facts: TableFacts, done: int, size: int
    ) -> list[Any]:
        try:
            batch = self._batch(records, facts, first_row=done)
            await self._write(batch)
        except Exception as error:
            rows = f"batch {done // size + 1} (rows {done:,} to {done + len(records) - 1:,})"
            earlier = " Earlier batches were written." if done else ""
            if isinstance(error, QortexDbError):
                raise error.retold(f"{rows}: {error}{earlier}") from None
            error.add_note(f"In {rows}.{earlier}")  # a record's own
            raise
        return batch.ids

    async def _screened(
        self, rows: list[_Numbered], facts: TableFacts, aside: _Aside
    ) -> list[_Numbered]:
        """What this package takes of some rows, found by halves without a statement."""
        try:
            batch = self._batch([record for _, record in rows], facts, first_row=rows[0][0])
            if batch.is_large:
                await asyncio.to_thread(list, batch.parts())
            for _ in batch.parts() if not batch.is_large else ():
                pass
        except InvalidInputError as error:
            if len(rows) == 1:
                aside.put(*rows[0], error)
                return []
            middle = len(rows) // 2
            first = await self._screened(rows[:middle], facts, aside)
            return first + await self._screened(rows[middle:], facts, aside)
        return rows

    async def _store(self, rows: list[_Numbered], facts: TableFacts, aside: _Aside) -> list[Any]:
        """Write rows, and put aside those that the server refuses."""

        async def write(some: Sequence[_Numbered]) -> list[Any]:
            batch = self._batch([record for _, record in some], facts)
            await self._write(batch)
            return batch.ids

        def put_aside(row: _Numbered, error: QortexDbError) -> None:
            aside.put(*row, error)

        executor = self._vectors.executor
        return list(itertools.chain(*await by_halves(executor, rows, write, put_aside)))


class _Aside:
    """The records that were put aside, told of batch by batch, in their order."""

    def __init__(self, on_error: object, rejects: object) -> None:
        checks.check_choice(on_error, get_args(OnError), name="on_error")
        self.skips = on_error == "skip"
        if rejects is not None and not self.skips:
            raise InvalidInputError('rejects are only told of with on_error="skip".')
        if not (rejects is None or callable(rejects) or isinstance(rejects, (str, os.PathLike))):
            raise InvalidInputError("rejects has to be the path of a file, or a function.")
        self._rejects: Any = rejects
        self._waiting: list[RejectedRecord] = []
        self.count = 0

    def put(self, row: int, record: object, error: QortexDbError) -> None:
        found: object = getattr(record, "id", None)
        if isinstance(record, Mapping):
            found = record.get("id")
        if isinstance(found, tuple) and all(isinstance(one, str | int | UUID) for one in found):
            found = json.dumps(found, default=str)
        found = checks.as_key(found)
        key = found if isinstance(found, str) else None
        self._waiting.append(RejectedRecord(row, key, str(error)))
        self.count += 1

    async def begin(self) -> None:
        if self._rejects is None or callable(self._rejects):
            return
        try:
            await asyncio.to_thread(_write, self._rejects, "w", [])
        except Exception as error:
            raise InvalidInputError(
                f"rejects is no file that can be written ({type(error).__name__})."
            ) from error

    async def tell(self) -> None:
        told, self._waiting = sorted(self._waiting, key=lambda one: one.row), []
        if callable(self._rejects):
            for one in told:
                await tell(self._rejects, one)
        elif told and self._rejects is not None:
            await asyncio.to_thread(_write, self._rejects, "a", told)


def _write(path: Any, mode: str, rejected: Iterable[RejectedRecord]) -> None:
    with open(path, mode, encoding="utf-8") as file:  # noqa: PTH123 - a path of any kind
        file.writelines(
            json.dumps({"row": one.row, "id": one.id, "reason": one.reason}) + "\n"
            for one in rejected
        )


class _Pace(Pace):
    """A word on why it is slow, too, said once."""

    def __init__(self, vectors: VectorTable) -> None:
        super().__init__()
        self._vectors = vectors
        self._said = False

    async def note(self, rows: int, seconds: float) -> None:
        """Look at a batch; only after the first slow one the server is asked for the index."""
        rate = rows / max(seconds, 1e-9)
        if self._said or seconds < SLOW_SECONDS or rate >= SLOW_ROWS_PER_SECOND:
            return
        self._said = True
        vectors = self._vectors
        found = await vectors.executor.run(_HAS_INDEX, {"name": vectors.qualified_name})
        if found.rows[0][0]:
            log.warning(
                "ingest_into_live_index",
                table=vectors.table.name,
                rows_per_second=round(rate),
                faster="qortex-db index rebuild --load: loads without the index, then builds it",
            )


async def _batches(
    records: Iterable[RecordInput] | AsyncIterable[RecordInput], size: int
) -> AsyncIterator[list[RecordInput]]:
    if isinstance(records, AsyncIterable):
        theirs = aiter(records)
        batch = await _awaited(theirs, size)
        while batch:
            yield batch
            batch = await _awaited(theirs, size) if len(batch) == size else []
    else:
        iterator = validation.check_iterable(records, name="records")
        while batch := _taken(iterator, size):
            yield batch


async def _awaited(iterator: AsyncIterator[RecordInput], size: int) -> list[RecordInput]:
    batch: list[Any] = []
    with outside():
        while len(batch) < size and (record := await anext(iterator, _END)) is not _END:
            batch.append(record)
    return batch


def _taken(iterator: Iterator[RecordInput], size: int) -> list[RecordInput]:
    with outside():
        return list(itertools.islice(iterator, size))
