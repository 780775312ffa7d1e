"""The vectors of qortex in SQLite, in the tables of sqlite-vec.

They are read from the tables that sqlite-vec itself keeps (its 0.1), since many a Python's SQLite
can't load an extension.
"""

from __future__ import annotations

import re
import sqlite3
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.models.vector_spec import HNSW
from qortex_db.transfer.source import UNNAMED, Page, SourceDescription, SourceRow, SourceVector
from qortex_db.transfer.sources.threads import OneThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from numpy.typing import NDArray

    from qortex_db.transfer.source import Position, SourceId

VECTORS: Final = "vectors.db"
_OPEN_CHUNKS: Final = 64
_NOTE: Final = (
    "A score of qortex's SQLite index is 1 - the L2 distance; here it is the similarity by the "
    "metric of the table: thresholds have to be chosen anew."
)
_PAGE: Final = """
SELECT m.id, r.chunk_id, r.chunk_offset FROM vec_meta m
LEFT JOIN vec_index_rowids r ON r.rowid = m.row_id
WHERE m.id > ? ORDER BY m.id LIMIT ?"""
_ONE: Final = _PAGE.replace("m.id > ? ORDER BY m.id LIMIT ?", "m.id = ?")
_CHUNKS: Final = "SELECT rowid, _rowid_ FROM vec_index_vector_chunks00"


async def open_source(
    location: str, collection: str | None, *, api_key: str | None
) -> QortexVectors:
    """Qortex's vectors.

    Args:
        location: The folder where qortex keeps its memory, as ~/.qortex, or its `vectors.db`.
    """
    del api_key
    if collection is not None:
        raise InvalidInputError("qortex has one collection of vectors: leave it out.")
    thread = OneThread()
    try:
        return await thread.run(QortexVectors, Path(location), thread)
    except BaseException:
        thread.close()
        raise


def opened(path: Path) -> sqlite3.Connection:
    """A database of SQLite, to be read."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


class QortexVectors:
    """Rows of `vec_meta`, with the vectors of `vec_index`."""

    def __init__(self, location: Path, thread: OneThread) -> None:
        path = location.expanduser()
        path = path / VECTORS if path.is_dir() else path
        if not path.is_file():
            raise NotFoundError(f"There is no {path}.")
        self._path = path
        self._thread = thread
        self._connection = opened(path)
        try:
            self._dimensions = self._declared()
            self._chunks = dict(self._connection.execute(_CHUNKS).fetchall())
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise InvalidInputError(
                f"{path} has no vectors as qortex keeps them in SQLite."
            ) from error
        self._blobs: OrderedDict[int, sqlite3.Blob] = OrderedDict()

    def _declared(self) -> int:
        query = "SELECT sql FROM sqlite_master WHERE name = 'vec_index'"
        row = self._connection.execute(query).fetchone()
        found = re.search(r"embedding float\[(\d+)\]", row[0]) if row else None
        if found is None:
            raise sqlite3.DatabaseError
        return int(found[1])

    @property
    def label(self) -> str:
        """The file."""
        return f"qortex-sqlite {self._path.resolve()}"

    async def describe(self) -> SourceDescription:
        """By its table; ids are texts."""
        rows = await self._thread.run(self._count)
        vector = SourceVector(UNNAMED, self._dimensions, "l2", index=HNSW())
        return SourceDescription(rows, [vector], "text", notes=[_NOTE])

    def _count(self) -> int:
        (count,) = self._connection.execute("SELECT count(*) FROM vec_meta").fetchone()
        return int(count)

    async def pages(self, after: Position, size: int) -> AsyncIterator[Page]:
        """Rows in the order of their ids."""
        async for page in self._thread.each(self._pages(after, size)):
            yield page

    def _pages(self, after: Position, size: int) -> Iterator[Page]:
        last, begun = after or "", after is not None
        while True:
            # An id may be empty: the first page is of all that are not before it.
            query = _PAGE if begun else _PAGE.replace("m.id > ?", "m.id >= ?")
            found = self._connection.execute(query, (last, size)).fetchall()
            is_last = len(found) < size
            last, begun = (found[-1][0] if found else last), True
            yield Page([self._row(*each) for each in found], None if is_last else last)
            if is_last:
                return

    def _row(self, key: str, chunk: int | None, offset: int | None) -> SourceRow:
        if chunk is None or offset is None:
            return SourceRow(key)
        return SourceRow(key, {UNNAMED: self._vector(chunk, offset)})

    def _vector(self, chunk: int, offset: int) -> NDArray[np.float32]:
        """A few bytes of a blob of some megabytes."""
        blob = self._blobs.pop(chunk, None)
        if blob is None:
            if chunk not in self._chunks:  # made since this was opened
                self._chunks = dict(self._connection.execute(_CHUNKS).fetchall())
            blob = self._connection.blobopen(
                "vec_index_vector_chunks00", "vectors", self._chunks[chunk], readonly=True
            )
        self._blobs[chunk] = blob
        if len(self._blobs) > _OPEN_CHUNKS:
            self._blobs.popitem(last=False)[1].close()
        size = 4 * self._dimensions
        try:
            blob.seek(offset * size)
            return np.frombuffer(blob.read(size), np.float32)
        except sqlite3.OperationalError:  # a row of its was written meanwhile: open it anew
            del self._blobs[chunk]
            blob.close()
            return self._vector(chunk, offset)

    async def get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        """These, by their ids."""
        return await self._thread.run(self._get, ids)

    def _get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        found = []
        for key in ids:
            row = self._connection.execute(_ONE, (str(key),)).fetchone()
            found += [] if row is None else [self._row(*row)]
        return found

    async def nearest(self, vector: str, query: Any, limit: int) -> list[SourceId] | None:
        """By comparing with each, as sqlite-vec's own search does."""
        del vector
        wanted = np.asarray(query, np.float32)
        best: list[tuple[float, SourceId]] = []
        async for page in self.pages(None, 1_000):
            rows = [row for row in page.rows if UNNAMED in row.vectors]
            if rows:
                matrix = np.stack([row.vectors[UNNAMED] for row in rows])
                distances = np.linalg.norm(matrix - wanted, axis=1)
                keys = [row.id for row in rows]
                best = sorted([*best, *zip(distances.tolist(), keys, strict=True)], key=_distance)
                best = best[:limit]
        return [key for _, key in best]

    async def close(self) -> None:
        """Close the file."""
        await self._thread.run(self._close)
        self._thread.close()

    def _close(self) -> None:
        for blob in self._blobs.values():
            blob.close()
        self._connection.close()


def _distance(found: tuple[float, SourceId]) -> float:
    return found[0]
