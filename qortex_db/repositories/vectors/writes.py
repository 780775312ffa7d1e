"""Writes of a vectors table: each is one atomic statement, and nothing is written by halves."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, TypeAlias
from typing import cast as cast_type

from qortex_db.errors import ConflictError, DimensionMismatchError, InvalidInputError
from qortex_db.markers import CLEAR
from qortex_db.observability import calls, metrics
from qortex_db.repositories import validation
from qortex_db.repositories.vectors.batches import Batch, Part
from qortex_db.repositories.vectors.rows.embedding_parts import EmbeddingColumn
from qortex_db.repositories.vectors.rows.records import IdT, VectorRecord
from qortex_db.repositories.vectors.rows.written_columns import named_values
from qortex_db.repositories.vectors.statements.batch_statements import insert_new, update_each
from qortex_db.repositories.vectors.statements.key_statements import (
    GIVEN,
    ID,
    IDS,
    VECS,
    GivenColumns,
    KeyStatements,
)
from qortex_db.repositories.vectors.table import TableBound
from qortex_db.repositories.vectors.two_models import Known
from qortex_db.translation import NOT_NULL_VIOLATION
from qortex_db.values.plain_json import is_large

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Executable

    from qortex_db.markers import Clear
    from qortex_db.repositories.vectors.rows.records import IdInput, RecordInput
    from qortex_db.repositories.vectors.rows.written_columns import RecordPart
    from qortex_db.repositories.vectors.table import VectorTable
    from qortex_db.repositories.vectors.table_facts import TableFacts
    from qortex_db.types import EmbeddingInput

Build: TypeAlias = "Callable[[KeyStatements, GivenColumns], Executable]"
"""What makes a statement for batches that give these columns."""


class VectorWrites(TableBound[IdT]):
    """What changes the vectors of a table."""

    async def upsert(self, records: Iterable[RecordInput]) -> int:
        """Insert vectors, or change those whose id is there.

        Args:
            records: Each a `VectorRecord` or a mapping. A repeated id means what one call after
                the other would: of each field the last that is given.

        Returns:
            How many rows were written, one of each id; those that would not change are left alone.

        Raises:
            InvalidInputError: A record was refused, named by row and id; nothing was written.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: A record is larger, or there are more, than a limit allows.
            EmbeddingModelError: The table is searched by another model's embeddings; nothing was
                written.
            EncryptionError: A value can't be encrypted; nothing was written.
        """
        return await self._upsert(records)

    async def upsert_with_zeros(self, records: Iterable[RecordInput]) -> int:
        """As :meth:`upsert`, with vectors of no cosine too: kept and counted, and never hits.

        Raises:
            InvalidInputError: A row was refused; none is stored.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: A record is larger, or there are more, than a limit allows.
            EmbeddingModelError: The table is searched by another model's embeddings; nothing was
                written.
            EncryptionError: A value can't be encrypted; nothing was written.
        """
        return await self._upsert(records, allow_zero=True)

    async def _upsert(self, records: Iterable[RecordInput], *, allow_zero: bool = False) -> int:
        self._vectors.check_takes_rows()
        _, rows = await self._by_batch(records, KeyStatements.upsert, allow_zero=allow_zero)
        return len(rows)

    async def _by_batch(
        self, records: Iterable[RecordInput], build: Build, **options: bool
    ) -> tuple[list[Any], Sequence[Any]]:
        """Run a statement with records; return their ids in key order, and its rows."""
        listed = validation.check_list(records, name="records", limits=self._vectors.limits)
        listed = await self._vectors.prepared(listed)
        facts = await self._vectors.facts()
        try:
            batch = self._batch(listed, facts, **options)
            return batch.ids, await self._send(batch, build)
        except DimensionMismatchError as refusal:
            anew = await self._vectors.renewed(facts, refusal)
        batch = self._batch(listed, anew, **options)
        return batch.ids, await self._send(batch, build)

    def _batch(
        self,
        records: list[RecordInput],
        facts: TableFacts,
        *,
        allow_zero: bool = False,
        changes_only: bool = False,
        keys_are_made: bool = False,
        first_row: int = 0,
    ) -> Batch:
        vector = self._vectors.vector
        column = EmbeddingColumn(
            facts.dimensions,
            is_nullable=facts.is_nullable,
            allow_zero=allow_zero or vector.metric != "cosine",
            is_half=vector.is_half,
            may_lack=changes_only,
        )
        return Batch(
            records,
            column,
            self._vectors.written,
            self._vectors.key,
            first_row=first_row,
            keys_are_made=keys_are_made,
        )

    async def _write(self, batch: Batch) -> int:
        """Write a batch, all of it or nothing; return how many rows changed."""
        return len(await self._send(batch, KeyStatements.upsert))

    async def _send(
        self, batch: Batch, build: Build, vectors: VectorTable | None = None
    ) -> Sequence[Any]:
        """Run a statement with a batch, part by part, all of it or nothing; return its rows."""
        if not batch.ids:
            return ()
        if build is KeyStatements.upsert and await self._is_in_two(batch):
            return await self._insert_and_update(batch)
        vectors = vectors or self._vectors
        by_key = vectors.by_key
        statement = build(by_key, batch.given)
        every = {name for name, given in batch.given if given == "all"}
        touched = by_key.touched.params(every)
        # What takes long to check and to encode is done beside the event loop.
        parts = await asyncio.to_thread(list, batch.parts()) if batch.is_large else batch.parts()
        params = ({**_params(part), **touched} for part in parts)
        start = time.perf_counter()
        try:
            if batch.is_one_part:
                rows = (await vectors.run(statement, next(params))).rows
            else:
                rows = await vectors.run_all(statement, params)
        except ConflictError as error:
            if self._vectors.scope.column is None or error.sqlstate != NOT_NULL_VIOLATION:
                raise
            raise ConflictError(
                "An id of these records is in another namespace, or a column that takes no NULL "
                "was not given. Nothing was written.",
                sqlstate=error.sqlstate,
            ) from None
        labels = metrics.label("collection", self._vectors.table.name)
        labels["method"] = calls.method()
        metrics.vec_add_total.add(len(batch.ids), labels)
        metrics.vec_add_duration.record(time.perf_counter() - start, labels)
        return rows

    async def _is_in_two(self, batch: Batch) -> bool:
        """Whether an upsert would have parameters, or functions, on conflict: Citus takes none."""
        by_key = self._vectors.by_key
        some = any(mode == "some" for _, mode in batch.given)
        return bool(some or by_key.touched.values()) and await self._vectors.executor.on_citus()

    async def _insert_and_update(self, batch: Batch) -> Sequence[Any]:
        """Insert the rows that are not there, and change the others, all or nothing."""
        async with self._vectors.executor.together() as lane:
            vectors = self._vectors.by(lane)
            new = await self._send(batch, insert_new, vectors)
            # Those that are new it leaves alone, but where json's values can't be compared.
            changed = await self._send(batch, update_each, vectors)
        return [*new, *changed][: len(batch.ids)]

    async def update(
        self,
        id: IdInput,  # noqa: A002 - the column's name
        *,
        embedding: EmbeddingInput | Clear | None = None,
        payload: Mapping[str, Any] | None = None,
        document: str | Clear | None = None,
        vectors: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Change what is given of one existing vector; None leaves it, `CLEAR` stores NULL.

        Args:
            id: Its key.
            embedding: As of :meth:`upsert`, like all the others.
            payload: Put in the place of the old one; `merge_payload` changes single keys.
            document: The text.
            vectors: Further vectors by name; None clears one.
            attributes: The host's own columns by name.

        Returns:
            Whether there is such a vector.

        Raises:
            InvalidInputError: Nothing is given to be changed, or a value was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The payload or the document is larger than a limit allows.
            EmbeddingModelError: The table is searched by another model's embeddings; nothing was
                written.
            EncryptionError: A value can't be encrypted; nothing was written.
        """
        by_key, written = self._vectors.by_key, self._vectors.written
        key = self._vectors.key.check(id)
        said = VectorRecord(key, embedding, document=document, vectors=vectors)
        made = cast_type("VectorRecord", (await self._vectors.prepared([said]))[0])
        embedding, vectors = made.embedding, made.vectors
        values: dict[str, Any] = {}
        if embedding is not None:
            values["vec"] = await self._encoded(embedding)
        for name, value in (("payload", payload), ("document", document)):
            if value is not None:
                if name not in written:
                    raise InvalidInputError(f"The table has no column {name}.")
                send = written[name].sent
                large = is_large(value)
                values[name] = (
                    await asyncio.to_thread(send, value, name) if large else send(value, name)
                )
        parts: dict[RecordPart, Any] = {"vectors": vectors, "attributes": attributes}
        for part, given in parts.items():
            if given is not None:
                for name, value in named_values(written, part, given, part):
                    values[name] = written[name].sent(value, f"{part}[{name!r}]")
        if not values:
            raise InvalidInputError(
                "Nothing to change: pass embedding, payload, document, vectors or attributes."
            )
        statement = by_key.update(frozenset(values))
        params = {f"row_value_{i}": values[name] for i, name in enumerate(sorted(values))}
        params |= {ID: key, **by_key.touched.params(values)}
        return (await self._vectors.run(statement, params)).rowcount > 0

    async def _encoded(self, embedding: EmbeddingInput | Clear) -> Any:
        if embedding is not CLEAR:
            return await self._vectors.by_facts(
                lambda facts: self._vectors.encode(Known(embedding), facts)
            )
        if not (await self._vectors.facts()).is_nullable:
            raise InvalidInputError("embedding is CLEAR, and the column takes no NULL.")
        return None

    async def delete(self, ids: Iterable[IdInput]) -> int:
        """Remove vectors by id.

        Returns:
            How many were there.

        Raises:
            InvalidInputError: An id was refused.
            LimitExceededError: There are more ids than a limit allows.
        """
        keys = validation.check_keys(ids, self._vectors.key, limits=self._vectors.limits)
        if not keys:
            return 0
        return (await self._vectors.run(self._vectors.by_key.delete, {IDS: keys})).rowcount


def _params(part: Part) -> dict[str, Any]:
    params: dict[str, Any] = {IDS: part.ids, VECS: part.embeddings}
    params |= {f"row_values_{i}": values for i, values in enumerate(part.values)}
    return params | {GIVEN + name: json.dumps(given) for name, given in part.given.items()}
