"""Changes of whichever rows a filter matches: by one statement, or batch by batch."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from qortex_db import observability
from qortex_db.errors import InvalidInputError, QortexDbError
from qortex_db.filters import values_of
from qortex_db.mirrors import original_of
from qortex_db.repositories import validation
from qortex_db.repositories.chunks import Chunks, Work
from qortex_db.repositories.vectors.rows.payload_changes import PayloadChange
from qortex_db.repositories.vectors.rows.records import IdT
from qortex_db.repositories.vectors.statements.key_statements import IDS
from qortex_db.repositories.vectors.writes import VectorWrites
from qortex_db.values.plain_json import is_large

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Executable

    from qortex_db.filters import Filter, Where
    from qortex_db.repositories.chunks import Step
    from qortex_db.repositories.progress import IngestProgress
    from qortex_db.repositories.vectors.rows.records import IdInput
    from qortex_db.repositories.vectors.table import VectorTable

LARGE_DELETE: Final = 10_000
"""So many deleted rows are worth a word on VACUUM, where the table has an HNSW index."""
_HAS_HNSW: Final = text("""
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_inherits p
  RIGHT JOIN pg_catalog.pg_index i ON i.indrelid = p.inhrelid
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am a ON a.oid = c.relam
  WHERE a.amname = 'hnsw'::name
    AND pg_catalog.to_regclass(:name)::oid IN (i.indrelid, p.inhparent))
""")


class VectorBulkChanges(VectorWrites[IdT]):
    """What changes or removes the rows that a filter matches, however many they are."""

    async def merge_payload(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        remove: Sequence[str] = (),
        ids: Iterable[IdInput] | None = None,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        resume: str | None = None,
        on_progress: Callable[[IngestProgress], object] | None = None,
    ) -> int:
        """Change single keys of payloads, atomically; the others stay.

        With `batch_size` each batch is a statement and a transaction of its own, which is refused
        in a unit of work: others wait for the rows of one batch at most, `statement_timeout` is for
        each, and what is done stays done. Rows are visited in the order of their keys, each at most
        once, and changed if the filter matches them when they are locked; those that others insert
        behind the batch that is under way are missed.

        What is not described here is as of :meth:`search`.

        Args:
            values: New values by their paths, as in a filter: `{"b.c": 2}` changes `c` in `b`, and
                leaves the rest of `b`; `{"b": …}` replaces all of it. What is missing on the way is
                made, and what is no object there is replaced by one; an element of an array is
                named by its position.
            remove: Paths to take out before; with values deeper than a key and the objects on their
                way at most 64.
            ids: Of which vectors.
            where: Or of those that a filter matches; one that is true of every row by its form,
                as `{}` is, is refused.
            batch_size: Rows of a batch, 1 to 100,000; None for one statement. Only with `where`.
            resume: Text that is this piece of work's own. Each batch then says in its own
                transaction how far it is, in `qortex_db_checkpoints`: the same call, with this
                again, goes on behind the last one, whatever stopped it, and changes no row twice;
                once it is done, it changes nothing.
            on_progress: Called, and awaited if need be, after each batch, with the rows that the
                filter matched so far.

        Returns:
            How many rows were changed; those that would not change are left alone. Of what was
            resumed those of earlier calls too.

        Raises:
            InvalidInputError: An argument was refused; nothing was changed.
            LimitExceededError: The filter, the ids or the values are more than a limit allows.
            ConflictError: `resume` was begun with other arguments, or another process goes on with
                it at the same time.
            EncryptionError: A value can't be encrypted; nothing was changed.
        """
        vectors = self._vectors
        if "payload" not in vectors.table.c:
            raise InvalidInputError(f"The table {vectors.table.name} has no column payload.")
        limits, encrypted = vectors.limits, vectors.encrypted
        if is_large(values):
            change = await asyncio.to_thread(PayloadChange, values, remove, limits, encrypted)
        else:
            change = PayloadChange(values, remove, limits, encrypted)
        if (ids is None) is (where is None and where_document is None):
            raise InvalidInputError("Say of which vectors: by ids, or by where.")
        chunks = Chunks.of(vectors.executor, batch_size, on_progress, resume)
        params = change.params() | vectors.by_key.touched.params()
        if ids is not None:
            if chunks is not None:
                raise InvalidInputError(
                    "batch_size goes with where; of ids pass as many as there are to be in a batch."
                )
            params[IDS] = validation.check_keys(ids, vectors.key, limits=limits)
            return (await vectors.run(vectors.by_key.merge(change.form), params)).rowcount
        narrowed = await self._narrow_changes(
            where,
            where_document,
            "to change all, say so by an expression: Model.id.is_not(None)",
        )
        params |= values_of(narrowed)
        if chunks is None:
            statement = vectors.by_filter.merge(narrowed, change.form)
            return (await vectors.run(statement, params)).rowcount
        return await self._in_chunks(
            chunks,
            "merge_payload",
            [values, remove, where, where_document],
            lambda step: vectors.by_filter.merge_chunk(narrowed, change.form, step),
            params,
        )

    async def delete_where(
        self,
        where: Where | None = None,
        *,
        where_document: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        resume: str | None = None,
        on_progress: Callable[[IngestProgress], object] | None = None,
    ) -> int:
        """Remove the vectors that a filter matches.

        What is not described here is as of :meth:`search` and :meth:`merge_payload`.

        Returns:
            How many they were.

        Raises:
            InvalidInputError: The filter is true of every row by its form, as `{}` is;
                :meth:`delete_all` says so by its name.
            LimitExceededError: The filter has more than a limit allows.
            ConflictError: What `resume` names was begun with other arguments.
        """
        chunks = Chunks.of(self._vectors.executor, batch_size, on_progress, resume)
        narrowed = await self._narrow_changes(
            where, where_document, "delete_all() removes every vector"
        )
        return await self._delete(narrowed, chunks, "delete_where", [where, where_document])

    async def delete_all(
        self,
        *,
        batch_size: int | None = None,
        resume: str | None = None,
        on_progress: Callable[[IngestProgress], object] | None = None,
    ) -> int:
        """Remove every vector: of the table, or of the namespace.

        What is not described here is as of :meth:`merge_payload`.

        Returns:
            How many they were.

        Raises:
            InvalidInputError: batch_size is given in a unit of work, or resume without it.
            ConflictError: What resume names was begun with other arguments.
        """
        chunks = Chunks.of(self._vectors.executor, batch_size, on_progress, resume)
        return await self._delete(None, chunks, "delete_all", [])

    async def _delete(
        self,
        narrowed: Filter | None,
        chunks: Chunks | None,
        method: str,
        arguments: Sequence[object],
    ) -> int:
        vectors, params = self._vectors, values_of(narrowed)
        if chunks is None:
            statement = vectors.by_filter.delete(narrowed)
            count = (await vectors.run(statement, params)).rowcount
        else:
            count = await self._in_chunks(
                chunks,
                method,
                arguments,
                lambda step: vectors.by_filter.delete_chunk(narrowed, step),
                params,
            )
        if count >= LARGE_DELETE:
            with suppress(QortexDbError):  # what was deleted is deleted
                await _tell_of_vacuum(vectors, count)
        return count

    async def _in_chunks(
        self,
        chunks: Chunks,
        method: str,
        arguments: Sequence[object],
        statement: Callable[[Step], Executable],
        params: Mapping[str, Any],
    ) -> int:
        vectors = self._vectors
        table: str = original_of(vectors.table).fullname
        of = "" if vectors.namespace is None else f" of {vectors.namespace}"
        work = Work(f"{method} {table}{of}", arguments, vectors.key.check_cursor)
        return await chunks.run(
            vectors.executor,
            work,
            statement,
            lambda batch, given: vectors.run(batch, {**params, **given}),
        )

    async def _narrow_changes(
        self, where: Where | None, where_document: Mapping[str, Any] | None, otherwise: str
    ) -> Filter:
        """A filter of rows to change, which has to leave some out."""
        narrowed = await self._vectors.narrow(where, where_document)
        if narrowed is None or narrowed.matches_all:
            raise InvalidInputError(f"where is true of every row, or empty; {otherwise}.")
        return narrowed


async def _tell_of_vacuum(vectors: VectorTable, rows: int) -> None:
    """Say what is left to do after many rows were deleted, where that is slow."""
    found = await vectors.executor.run(_HAS_HNSW, {"name": vectors.qualified_name})
    if found.rows[0][0]:
        observability.log.warning(
            "vacuum_is_slow",
            table=vectors.table.name,
            deleted=rows,
            why="VACUUM repairs an HNSW index row by row, which may take longer than building it",
            faster="qortex-db index rebuild, then VACUUM: an index that is new has nothing dead",
        )
