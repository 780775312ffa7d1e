"""What sources in files share: a thread that reads, and no search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from qortex_db.errors import InvalidInputError
from qortex_db.transfer.source import plain_id
from qortex_db.transfer.sources.threads import OneThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from qortex_db.transfer.source import (
        Page,
        Position,
        SourceDescription,
        SourceId,
        SourceRow,
    )

_SCANNED_ROWS = 1_000
S = TypeVar("S", bound="FileSource")


class FileSource(ABC):
    """Rows in files: found by reading all of them."""

    def __init__(self, label: str) -> None:
        self._thread = OneThread()
        self._label = label

    @property
    def label(self) -> str:
        """The kind and the place."""
        return self._label

    @abstractmethod
    def read_description(self) -> SourceDescription:
        """As `describe`."""

    @abstractmethod
    def read_pages(self, after: Position, size: int) -> Iterator[Page]:
        """As `pages`."""

    async def describe(self) -> SourceDescription:
        """What the files say of themselves."""
        return await self._thread.run(self.read_description)

    async def pages(self, after: Position, size: int) -> AsyncIterator[Page]:
        """All rows from a position on."""
        async for page in self._thread.each(self.read_pages(after, size)):
            yield page

    async def get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        """These, by reading all of them."""
        wanted = set(map(plain_id, ids))
        found = {}
        async for page in self.pages(None, _SCANNED_ROWS):
            found.update({plain_id(row.id): row for row in page.rows if plain_id(row.id) in wanted})
        return list(found.values())

    async def nearest(self, vector: str, query: Any, limit: int) -> list[SourceId] | None:
        """A file has no search."""
        del vector, query, limit
        return None

    async def close(self) -> None:
        """End the thread."""
        self._thread.close()


async def opened(collection: str | None, make: Callable[[], S]) -> S:
    """Open files in a thread.

    Raises:
        InvalidInputError: A collection is named.
    """
    if collection is not None:
        raise InvalidInputError("Files have no collections: leave it out.")
    thread = OneThread()
    try:
        return await thread.run(make)
    finally:
        thread.close()


def resolved(path: Path) -> str:
    """A path as a label has it: the same wherever it is opened from."""
    return str(path.resolve())
