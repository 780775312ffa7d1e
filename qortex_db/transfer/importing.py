"""An import from its beginning to its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qortex_db import observability
from qortex_db.repositories import validation
from qortex_db.repositories.vectors.ingest import MAX_BATCH_SIZE
from qortex_db.transfer.comparing import (
    LEAST_OVERLAP,
    Difference,
    Overlap,
    compare_rows,
    compare_searches,
)
from qortex_db.transfer.moving import Moved, move
from qortex_db.transfer.planning import Choices, ImportPlan, plan_import
from qortex_db.transfer.route import Route
from qortex_db.transfer.target import Target
from qortex_db.transfer.translating import Translator

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from typing import Any

    from qortex_db.database import Database
    from qortex_db.models import Collection
    from qortex_db.repositories.progress import IngestProgress
    from qortex_db.transfer.source import Source, SourceReject


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did, and how what is here compares with what was there.

    Attributes:
        source: Its label.
        into: The collection.
        plan: What was done with each row.
        source_rows: How many the source counts now; None where it can't.
        read: Rows of the source that were read, by earlier processes of this import too.
        written: How many of them changed something.
        rejected: How many were no good.
        stored: How many rows the collection has now.
        before: How many it had when the import began.
        rejects: The first of them, of this process.
        sampled: How many rows were compared.
        unread: How many were to be compared too, and the source did not give them again.
        differences: Those of them that differ.
        overlaps: Of each vector, how well searches agree.
        notes: What is otherwise than it was.
    """

    source: str
    into: str
    plan: ImportPlan
    source_rows: int | None
    read: int
    written: int
    rejected: int
    stored: int
    before: int
    rejects: Sequence[SourceReject]
    sampled: int
    unread: int
    differences: Sequence[Difference]
    overlaps: Sequence[Overlap]
    notes: Sequence[str]

    @property
    def faults(self) -> list[str]:
        """What is not as it should be, a sentence each; none of a good import."""
        found = []
        if self.source_rows is not None and self.source_rows != self.read:
            found.append(f"The source has {self.source_rows:,} rows, {self.read:,} were read.")
        taken = self.read - self.rejected
        if self.rejected:
            found.append(f"{self.rejected:,} rows were no good, and are not here.")
        if self.before == 0 and self.stored != taken:
            found.append(
                f"{taken:,} rows were taken, {self.stored:,} are there: ids came more than "
                "once, or others write too."
            )
        elif self.stored < taken:
            found.append(f"{taken:,} rows were taken, only {self.stored:,} are there.")
        if self.unread:
            found.append(
                f"{self.unread} rows were not compared: the source did not give them again by "
                "their ids."
            )
        if self.differences:
            found.append(f"{len(self.differences)} of {self.sampled} compared rows differ.")
        found += [
            f"Searches by {each.vector or 'the vector'} find {each.share:.0%} of what the source "
            f"finds, less than {LEAST_OVERLAP:.0%}."
            for each in self.overlaps
            if each.share is not None and each.share < LEAST_OVERLAP
        ]
        return found

    @property
    def is_good(self) -> bool:
        """Whether counts and fields agree, and searches well enough."""
        return not self.faults


async def import_collection(
    database: Database,
    source: Source,
    *,
    into: type[object] | str | None = None,
    mapping: Collection | None = None,
    namespace: Any = None,
    choices: Choices | None = None,
    batch_size: int = 1_000,
    rejects: str | os.PathLike[str] | None = None,
    anew: bool = False,
    on_progress: Callable[[IngestProgress], object] | None = None,
) -> ImportReport:
    """Bring a source's rows into a collection, and compare what came with what there was.

    Each batch is a transaction with its checkpoint, in `qortex_db_checkpoints`: an import that was
    stopped goes on where it was, whatever stopped it. One that is done begins anew, and changes
    nothing where nothing changed.

    Args:
        source: From `open_source`; it stays the caller's to close.
        into: A model, or the name of its table; by default `qortex_vectors`.
        mapping: Which columns are what, of a model that does not say so.
        namespace: Of a collection that declares one.
        choices: What is not to be guessed.
        batch_size: Rows of a transaction, 1 to 100,000.
        rejects: A file, for the rows that are no good: a line of JSON each. Without one, the report
            has the first of them.
        anew: Whether to begin anew where an import was stopped.
        on_progress: Called, and awaited if need be, after each batch, with the rows read so far.

    Raises:
        InvalidInputError: The source has a vector that the collection has no place for.
        DimensionMismatchError: The source's vectors have another length than the column.
        SchemaVersionError: A table is not there.
        ConflictError: Another process does the same at the same time.
    """
    size = validation.check_limit(batch_size, MAX_BATCH_SIZE, name="batch_size")
    if on_progress is not None:
        validation.check_callable(on_progress, name="on_progress")
    target = Target(
        **({} if into is None else {"model": into}), mapping=mapping, namespace=namespace
    )
    plan = await plan_import(source, choices)
    notes = [*plan.notes, *await target.check(database, plan)]
    route = Route(source, database, target, plan, Translator(plan, target.specs))
    moved = await move(route, batch_size=size, rejects=rejects, on_progress=on_progress, anew=anew)
    report = await _compared(route, moved, notes)
    observability.log.info(
        "imported",
        table=report.into,
        read=report.read,
        written=report.written,
        rejected=report.rejected,
        is_good=report.is_good,
    )
    return report


async def _compared(route: Route, moved: Moved, notes: list[str]) -> ImportReport:
    rows = await route.source.get(moved.sample) if moved.sample else []
    return ImportReport(
        source=route.source.label,
        into=route.target.label,
        plan=route.plan,
        source_rows=(await route.source.describe()).rows,
        read=moved.progress.rows_read,
        written=moved.progress.rows_written,
        rejected=moved.progress.rows_rejected,
        stored=await route.vectors.count(),
        before=moved.before,
        rejects=moved.rejects,
        sampled=len(rows),
        unread=max(0, len(moved.sample) - len(rows)),
        differences=await compare_rows(route, rows),
        overlaps=await compare_searches(route, rows),
        notes=notes,
    )
