"""A matrix of numpy's, with what its rows are in a file of JSON lines beside it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.models.vector_spec import HNSW
from qortex_db.transfer.source import UNNAMED, Page, SourceDescription, SourceReject, SourceVector
from qortex_db.transfer.sources.in_files.row_parts import RowParts
from qortex_db.transfer.sources.in_files.source import FileSource, opened, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from qortex_db.models.vector_spec import Metric, Storage
    from qortex_db.transfer.source import Position, SourceRow


async def open_source(
    location: str,
    collection: str | None,
    *,
    api_key: str | None,
    metric: Metric = "cosine",
    rows: str | None = None,
    id: str | None = None,  # noqa: A002 - the key's name
) -> NumpyFiles:
    """A `.npy` file of shape (rows, dimensions).

    Args:
        metric: What its vectors are compared by, which a file does not say.
        rows: A file of JSON lines, an object for each row of the matrix, in its order.
        id: The key of these with the id; by default `id`, if there is one. Without, rows are
            counted from 0.
    """
    del api_key
    beside = None if rows is None else Path(rows)
    return await opened(collection, lambda: NumpyFiles(Path(location), beside, metric, id))


class NumpyFiles(FileSource):
    """A matrix that is mapped, not read, into memory."""

    def __init__(self, path: Path, beside: Path | None, metric: Metric, key: str | None) -> None:
        for each in (path, beside):
            if each is not None and not each.is_file():
                raise NotFoundError(f"There is no file {each}.")
        told = "" if beside is None else f" with {resolved(beside)}"
        super().__init__(f"numpy {resolved(path)}{told}")
        self._path = path
        self._beside = beside
        self._metric = metric
        try:
            matrix: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InvalidInputError(f"{path} is no .npy file of numbers.") from error
        if not isinstance(matrix, np.ndarray):  # an archive of several
            raise InvalidInputError(f"{path} is no .npy file of numbers.")
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":  # noqa: PLR2004 - rows, dimensions
            raise InvalidInputError(f"{path} has to hold numbers in rows of equal length.")
        self._matrix = matrix
        first = next(self._objects(0), {})
        self._parts = RowParts(key or ("id" if "id" in first else None), ())

    def read_description(self) -> SourceDescription:
        """Its shape."""
        rows, dimensions = self._matrix.shape
        storage: Storage = "half" if self._matrix.dtype == np.float16 else "full"
        vector = SourceVector(UNNAMED, dimensions, self._metric, storage, index=HNSW())
        return SourceDescription(rows, [vector])

    def _objects(self, start: int) -> Iterator[dict[str, Any]]:
        """What the rows are, from one on."""
        if self._beside is None:
            return
        with self._beside.open("rb") as file:
            for number, line in enumerate(itertools.islice(file, start, None), start + 1):
                if not line.strip() and not any(rest.strip() for rest in file):
                    return  # blank lines at the end
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError):
                    found = None
                if not isinstance(found, dict):  # its place is told by its number: it can't be left
                    raise InvalidInputError(f"Line {number} of {self._beside} is no JSON object.")
                yield found

    def read_pages(self, after: Position, size: int) -> Iterator[Page]:
        """Rows, from one on."""
        start = after or 0
        objects = self._objects(start)
        count = len(self._matrix)
        for begin in range(start, max(count, start + 1), size):
            rows: list[SourceRow] = []
            rejects: list[SourceReject] = []
            with np.errstate(over="ignore"):  # what is infinite then is told row by row
                part = np.asarray(self._matrix[begin : begin + size], dtype=np.float32)
            for number, vector in enumerate(part, begin):
                given = next(objects, None)
                if given is None and self._beside is not None:
                    raise InvalidInputError(
                        f"{self._beside} has {number:,} lines, {self._path} {count:,} rows."
                    )
                try:
                    row = self._parts.row(given or {}, number)
                except InvalidInputError as error:
                    rejects.append(SourceReject(f"row {number + 1}", str(error)))
                else:
                    rows.append(type(row)(row.id, {UNNAMED: vector}, row.payload))
            end = begin + size
            if end >= count and self._beside is not None and next(objects, None) is not None:
                raise InvalidInputError(
                    f"{self._beside} has more lines than the {count:,} rows of {self._path}."
                )
            yield Page(rows, end if end < count else None, rejects)
