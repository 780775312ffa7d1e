"""How many different ids there were among any number, in little memory."""

from __future__ import annotations

import io
import tempfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_IN_MEMORY: Final = 2**15  # bytes; what goes beyond is put into a file
_AT_ONCE: Final = 2**20  # ids that are compared
_READ: Final = 2**18


class DistinctIds:
    """Ids by their hashes of 64 bits, 8 bytes each in a temporary file.

    Of 100 million ids two have the same hash with a chance of about 1 in 4,000.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = io.BytesIO()
        self._seen = 0
        self._batches = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, ids: Sequence[Any]) -> None:
        """Some ids, none of them twice."""
        self._file.write(np.fromiter(map(hash, ids), np.int64, len(ids)).tobytes())
        self._seen += len(ids)
        self._batches += 1
        if isinstance(self._file, io.BytesIO) and self._file.tell() > _IN_MEMORY:
            with suppress(OSError):  # where files can't be written, memory has to do
                file: Any = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
                file.write(self._file.getvalue())
                self._file = file

    def count(self) -> int:
        """How many they were."""
        if self._batches < 2:  # noqa: PLR2004 - none of them twice
            return self._seen
        parts = -(-self._seen // _AT_ONCE)
        return sum(self._distinct(part, parts) for part in range(parts))

    def _distinct(self, part: int, parts: int) -> int:
        return len(np.unique(np.concatenate([some[some % parts == part] for some in self._all()])))

    def _all(self) -> Iterator[NDArray[np.int64]]:
        self._file.seek(0)
        while data := self._file.read(8 * _READ):
            yield np.frombuffer(data, np.int64)
