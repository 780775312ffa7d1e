"""Writes of a batch of records of which some mean nothing: what is there, or what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from qortex_db.repositories.vectors.batch_statements import insert_new, update_each
from qortex_db.repositories.vectors.records import IdT
from qortex_db.repositories.vectors.writes import VectorWrites

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qortex_db.repositories.vectors.records import RecordInput


@dataclass(frozen=True, slots=True)
class Inserted(Generic[IdT]):
    """What an insert found.

    Attributes:
        new: The ids of the rows that it made, in key order.
        existing: Those that were there, whose rows are left as they are.
    """

    new: list[IdT]
    existing: list[IdT]


class VectorChanges(VectorWrites[IdT]):
    """What inserts only, or changes only, rows by the batch."""

    async def insert(self, records: Iterable[RecordInput]) -> Inserted[IdT]:
        """Insert the vectors whose ids are not there, and leave the others as they are.

        Args:
            records: As of :meth:`upsert`.

        Raises:
            InvalidInputError: A record was refused, named by row and id; nothing was written.
            ConflictError: An id is in another namespace.
        """
        self._vectors.check_takes_rows()
        ids, rows = await self._by_batch(records, insert_new)
        new = {row[0] for row in rows}
        return Inserted([key for key in ids if key in new], [key for key in ids if key not in new])

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
        """
        return len((await self._by_batch(records, update_each, changes_only=True))[1])
