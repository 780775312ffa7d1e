"""Writes of a batch of records of which some mean nothing: what is there, or what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic

from qortex_db.errors import InvalidInputError
from qortex_db.mirrors import original_of
from qortex_db.repositories import validation
from qortex_db.repositories.vectors.rows.records import IdT, VectorRecord
from qortex_db.repositories.vectors.rows.written_columns import generated
from qortex_db.repositories.vectors.statements.batch_statements import (
    insert_new,
    insert_unkeyed,
    update_each,
)
from qortex_db.repositories.vectors.writes import VectorWrites

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Table

    from qortex_db.repositories.vectors.rows.records import RecordInput


@dataclass(frozen=True, slots=True)
class Inserted(Generic[IdT]):
    """What an insert found.

    Attributes:
        new: The ids of the rows that it made, in key order; of records that came without, in
            their order.
        existing: Those that were there, whose rows are left as they are.
    """

    new: list[IdT]
    existing: list[IdT]


class VectorChanges(VectorWrites[IdT]):
    """What inserts only, or changes only, rows by the batch."""

    async def insert(self, records: Iterable[RecordInput]) -> Inserted[IdT]:
        """Insert the vectors whose ids are not there, and leave the others as they are.

        Where the table makes its keys (an identity, a serial, a default of the server's or the
        model's), all records may come without ids, or with None: each is a new row, and `new` has
        their ids in the order of the records.

        Args:
            records: As of :meth:`upsert`, or without ids.

        Raises:
            InvalidInputError: A record was refused, named by row and id; nothing was written.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: A record is larger, or there are more, than a limit allows.
            ConflictError: An id is in another namespace, or one that was made is there already.
            EmbeddingModelError: The table is searched by another model's embeddings; nothing was
                written.
            EncryptionError: A value can't be encrypted; nothing was written.
        """
        vectors = self._vectors
        vectors.check_takes_rows()
        listed = validation.check_list(records, name="records", limits=vectors.limits)
        read, made = vectors.key.read, None
        if any(map(_lacks_id, listed)):
            made = _made_keys(vectors.table, listed)
            if made is None:
                _, rows = await self._by_batch(listed, insert_unkeyed, keys_are_made=True)
                return Inserted([read(row[0]) for row in rows], [])
            listed = [_with_id(one, key) for one, key in zip(listed, made, strict=True)]
        ids, rows = await self._by_batch(listed, insert_new)
        new = {row[0] for row in rows}
        if made is not None:
            ids = [vectors.key.check(key) for key in made]
        found = [read(key) for key in ids if key in new]
        return Inserted(found, [read(key) for key in ids if key not in new])

    async def update_many(self, records: Iterable[RecordInput]) -> int:
        """Change what is given of existing vectors, each row its own, all of it or nothing.

        Args:
            records: As of :meth:`upsert`, which may leave the embedding out. A payload is put in
                the place of the old one.

        Returns:
            How many rows were changed; those that would not change are left alone, and what is not
            there is not made.

        Raises:
            InvalidInputError: A record was refused, named by row and id; nothing was written.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: A record is larger, or there are more, than a limit allows.
            EmbeddingModelError: The table is searched by another model's embeddings; nothing was
                written.
            EncryptionError: A value can't be encrypted; nothing was written.
        """
        return len((await self._by_batch(records, update_each, changes_only=True))[1])


def _lacks_id(record: object) -> bool:
    if isinstance(record, VectorRecord):
        return record.id is None
    return isinstance(record, Mapping) and record.get("id") is None


def _with_id(record: RecordInput, key: Any) -> RecordInput:
    if isinstance(record, VectorRecord):
        return replace(record, id=key)
    return {**record, "id": key}


def _made_keys(table: Table, records: Sequence[RecordInput]) -> list[Any] | None:
    """The keys that a model makes for records without; None where the server will.

    Raises:
        InvalidInputError: Some records have ids, or nobody makes any.
    """
    for number, record in enumerate(records):
        if not _lacks_id(record):
            raise InvalidInputError(
                f"row {number} has an id, and others have none: insert those by a call of theirs."
            )
    key = table.c.id
    make = None if key.default is None else generated(key.default)[1]
    if make is not None:
        return [make() for _ in records]
    serial = getattr(original_of(table), "autoincrement_column", None)
    said = (key.default, key.server_default, key.identity)
    if any(one is not None for one in said) or (serial is not None and serial.name == key.name):
        return None
    raise InvalidInputError(
        f"row 0 lacks 'id', and {table.name}.{key.name} makes none: it is no identity, no serial, "
        "and has no default."
    )
