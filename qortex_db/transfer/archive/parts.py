"""The files of one table, as an export writes them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import QortexDbError
from qortex_db.repositories.progress import tell
from qortex_db.transfer.archive import files
from qortex_db.transfer.archive.manifest import Column, Part, sealed, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qortex_db.transfer.archive.kinds import Field

BATCH_ROWS: Final = 2_500
BATCH_BYTES: Final = 8 * 2**20
"""What is in memory at a time, of a few such."""
PART_BYTES: Final = 512 * 2**20


@dataclass(frozen=True, slots=True)
class ArchiveProgress:
    """How far an export or a restore is.

    Attributes:
        table: Which one it is at.
        rows: How many of its rows are done.
        total: How many there are; of an export about, as the server guesses.
    """

    table: str
    rows: int
    total: int


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an export goes.

    Attributes:
        written: The files so far, finished or not.
    """

    folder: Path
    format: files.Format
    part_rows: int
    on_progress: Callable[[ArchiveProgress], object] | None
    written: list[Path] = field(default_factory=list)


class Parts:
    """The files of one table.

    Args:
        table: What messages and files call it.
        total: How many rows it has, about.
    """

    def __init__(self, to: Destination, table: str, columns: Sequence[Column], total: int) -> None:
        self.done: list[Part] = []
        self._to = to
        self._table = table
        self._columns = columns
        self._total = total
        self._writer: Any = None
        self._running: asyncio.Future[None] | None = None
        self._path = to.folder
        self._rows = self._bytes = self._all_rows = 0
        self._begin_batch()

    def _begin_batch(self) -> None:
        self._batch: list[list[Field]] = [[] for _ in self._columns]
        self._batch_rows = self._batch_bytes = 0

    def add(self, fields: list[Field]) -> bool:
        """Keep a row; True where there are enough of them to be written."""
        for column, each in zip(self._batch, fields, strict=True):
            column.append(each)
            if each is not None:
                self._batch_bytes += len(each)
        self._batch_rows += 1
        return (
            self._batch_rows >= BATCH_ROWS
            or self._batch_bytes >= BATCH_BYTES
            or self._rows + self._batch_rows >= self._to.part_rows
        )

    async def flush(self) -> None:
        """Begin to write what is kept, once what was before is written."""
        if self._batch_rows:
            await self._settle()
            self._running = asyncio.ensure_future(asyncio.to_thread(self._write, self._batch))
            self._rows += self._batch_rows
            self._all_rows += self._batch_rows
            self._bytes += self._batch_bytes
            self._begin_batch()
            if self._rows >= self._to.part_rows or self._bytes >= PART_BYTES:
                await self.close()
        progress = ArchiveProgress(self._table, self._all_rows, max(self._total, self._all_rows))
        await tell(self._to.on_progress, progress)

    async def close(self) -> None:
        """End a file."""
        await self._settle()
        if self._writer is not None:
            self._running = asyncio.ensure_future(asyncio.to_thread(self._end))
            await self._settle()
            self._rows = self._bytes = 0

    async def _settle(self) -> None:
        """Wait for the thread that writes."""
        if self._running is None:
            return
        try:
            await asyncio.shield(self._running)
        except OSError as error:
            raise QortexDbError(
                f"{self._path} can't be written ({error.strerror}); what was written is removed."
            ) from None
        self._running = None

    def _write(self, batch: Sequence[Sequence[Field]]) -> None:
        to = self._to
        if self._writer is None:
            name = files.name_of(self._table, len(self.done), to.format)
            self._path = to.folder / name
            to.written.append(self._path)
            self._writer = files.begin(to.format, self._path, self._columns)
        self._writer.write(batch)

    def _end(self) -> None:
        writer, self._writer = self._writer, None
        writer.__exit__(None, None, None)
        sync(self._path)
        size, digest = sealed(self._path)
        self.done.append(Part(self._path.name, self._rows, size, digest))

    async def abandon(self) -> None:
        """Let go of a file that is not finished; a thread that writes to it can't be stopped."""
        if self._running is not None:
            await asyncio.wait({self._running})
            self._running.exception()  # why it is not finished is told already
        if self._writer is not None:
            with suppress(OSError):
                self._writer.__exit__(None, None, None)
            self._writer = None
