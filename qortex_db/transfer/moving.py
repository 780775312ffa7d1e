"""Rows of a source into a collection: batch by batch, each with its checkpoint."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from qortex_db.errors import ConflictError, InvalidInputError
from qortex_db.markers import CLEAR
from qortex_db.messages import shown, with_rows_called
from qortex_db.repositories.checkpoints import CheckpointRepository, Progress
from qortex_db.repositories.halving import by_halves
from qortex_db.repositories.progress import Pace, tell
from qortex_db.repositories.vectors.rows.records import VectorRecord
from qortex_db.transfer.rejects import RejectsFile
from qortex_db.transfer.source import SourceReject, plain_id

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from qortex_db.errors import QortexDbError
    from qortex_db.repositories import VectorRepository
    from qortex_db.repositories.progress import IngestProgress
    from qortex_db.transfer.route import Route
    from qortex_db.transfer.source import Page, SourceId
    from qortex_db.transfer.translating import Translator
    from qortex_db.uow import UnitOfWork

SAMPLED_ROWS: Final = 100
"""How many rows are compared in the end."""
KEPT_REASONS: Final = 10
"""How many rejects a report has itself; the file has all."""


@dataclass
class Moved:
    """What came of it.

    Attributes:
        progress: The counts of all of the import, of earlier processes too.
        before: How many rows the collection had when the import began.
        sample: Ids of rows that were taken, chosen by a hash of theirs.
        rejects: The first of this process.
    """

    progress: Progress
    before: int
    sample: list[SourceId]
    rejects: list[SourceReject] = field(default_factory=list)


async def move(
    route: Route,
    *,
    batch_size: int,
    rejects: str | os.PathLike[str] | None,
    on_progress: Callable[[IngestProgress], object] | None,
    anew: bool,
) -> Moved:
    """Move all rows, or those that are left of an import that was stopped.

    Raises:
        ConflictError: Another process does the same at the same time.
    """
    work = f"import {route.source.label} into {route.target.label}"
    async with route.database.unit_of_work() as uow:
        checkpoints = CheckpointRepository(uow.executor)
        progress = await checkpoints.begin(work, anew=anew)
        state = progress.position
        if state is None:
            before = await route.target.of(uow).count()
            state = {
                "next": None,
                "before": before,
                "sample": [],
                "rejects": 0,
                "plan": _plan(route),
            }
            progress = await checkpoints.advance(progress, state)
        elif state["plan"] != _plan(route):
            raise ConflictError(
                f"What becomes what is not as it was when {shown(work)} was begun: say the same of "
                "document, payload and vectors again, or begin anew (--anew)."
            )
    file = await asyncio.to_thread(RejectsFile, rejects, state["rejects"])
    moved = Moved(progress, state["before"], state["sample"])
    pace = Pace()
    finished = False
    async for page in route.source.pages(state["next"], batch_size):
        async with route.database.unit_of_work() as uow:
            batch = _Batch(
                route.target.of(uow), uow, clears=route.further if moved.before else None
            )
            await batch.write(page, route.translator)
            await asyncio.to_thread(file.add, batch.rejects)
            moved.sample = _sampled(moved.sample, batch.taken)
            state = state | {
                "next": page.position,
                "sample": moved.sample,
                "rejects": file.size,
            }
            moved.progress = await CheckpointRepository(uow.executor).advance(
                moved.progress,
                state,
                read=len(page.rows) + len(page.rejects),
                written=batch.written,
                rejected=len(batch.rejects),
                is_finished=page.position is None,
            )
        finished = page.position is None
        moved.rejects = (moved.rejects + batch.rejects)[:KEPT_REASONS]
        await tell(
            on_progress,
            pace.progress(moved.progress.rows_read, moved.progress.rows_rejected),
        )
    if not finished:  # there was no page, or none that said it was the last
        async with route.database.unit_of_work() as uow:
            checkpoints = CheckpointRepository(uow.executor)
            moved.progress = await checkpoints.advance(moved.progress, state, is_finished=True)
    return moved


def _plan(route: Route) -> dict[str, Any]:
    """What must not change under an import."""
    plan = route.plan
    return {
        "vectors": dict(plan.vectors),
        "document": plan.document,
        "payload": plan.payload,
    }


_Record: TypeAlias = "tuple[SourceId, VectorRecord[Any]]"


class _Batch:
    """One page, in a transaction.

    Args:
        clears: The further vectors that rows of the table may have from before: what a row of the
            source lacks is then cleared. None where there were no rows.
    """

    def __init__(
        self, vectors: VectorRepository[Any], uow: UnitOfWork, *, clears: Sequence[str] | None
    ) -> None:
        self._clears = clears
        self._vectors = vectors
        self._uow = uow
        self.written = 0
        self.taken: list[SourceId] = []
        self.rejects: list[SourceReject] = []

    async def write(self, page: Page, translator: Translator) -> None:
        """Write its rows, and find those that are no good."""
        self.rejects += page.rejects
        records = []
        for row in page.rows:
            try:
                record = translator.record(row)
                if self._clears is not None:
                    record = _clearing(record, self._clears)
                records.append((row.id, record))
            except InvalidInputError as error:
                self._reject(row.id, error)
        await self._store(records)

    async def _store(self, rows: Sequence[_Record]) -> None:
        """Write records, and put aside those that are refused for what is in them."""

        async def write(some: Sequence[_Record]) -> int:
            # Zero vectors too: a source has them, and a row lost is worse than one not found.
            written = await self._vectors.upsert_with_zeros(record for _, record in some)
            self.taken += [given for given, _ in some]
            return written

        def put_aside(row: _Record, error: QortexDbError) -> None:
            self._reject(row[0], error)

        self.written += sum(await by_halves(self._uow.executor, rows, write, put_aside))

    def _reject(self, given: SourceId, error: QortexDbError) -> None:
        # Its place in a batch is nobody's.
        reason = with_rows_called(str(error), lambda _: "the row")
        self.rejects.append(SourceReject(str(given), reason))


def _clearing(record: VectorRecord[Any], further: Sequence[str]) -> VectorRecord[Any]:
    """A record that leaves nothing of what was there before it."""
    return VectorRecord(
        record.id,
        CLEAR if record.embedding is None else record.embedding,
        record.payload,
        CLEAR if record.document is None else record.document,
        {name: (record.vectors or {}).get(name) for name in further} or None,
    )


def _sampled(sample: list[SourceId], taken: Sequence[SourceId]) -> list[SourceId]:
    """Those whose hashes are the least: the same rows, however often an import was stopped."""
    return sorted({*sample, *map(plain_id, taken)}, key=_hashed)[:SAMPLED_ROWS]


def _hashed(given: SourceId) -> bytes:
    return hashlib.blake2b(str(given).encode(), digest_size=8).digest()
