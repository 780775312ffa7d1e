"""PostgreSQL's binary COPY: cut into rows and fields, summed up, and put together again."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from qortex_db.errors import QortexDbError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qortex_db.transfer.archive.kinds import Field

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
_COUNT: Final = struct.Struct("!h")
_LENGTH: Final = struct.Struct("!i")
_NULL: Final = _LENGTH.pack(-1)
_DIGEST_BYTES: Final = 16


class RowDigest:
    """A checksum of rows, whatever their order: the sum of the hashes of each.

    Attributes:
        rows: How many there were.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: bytes) -> None:
        """One more, as it is sent."""
        self.rows += 1
        hashed = blake2b(row, digest_size=_DIGEST_BYTES).digest()
        self._sum += int.from_bytes(hashed, "big")

    def hexdigest(self) -> str:
        """Of all so far."""
        return f"{self._sum % (1 << 8 * _DIGEST_BYTES):032x}"


class RowCutter:
    """What a binary COPY sends, cut into rows.

    Args:
        digest: Of every row.
    """

    def __init__(self, digest: RowDigest) -> None:
        self._rest = b""
        self._begun = False
        self._ended = False
        self._digest = digest

    def cut(self, data: bytes) -> Iterator[list[Field]]:
        """The fields of each row that has come whole."""
        data = self._rest + data
        at = 0
        if not self._begun and len(data) >= len(HEADER):
            at, self._begun = len(HEADER), True
        if self._begun:
            while not self._ended:
                fields, after = _row(data, at)
                if fields is None:
                    self._ended = after > at
                    break
                self._digest.add(data[at:after])
                at = after
                yield fields
        self._rest = data[at:]

    def end(self) -> None:
        """See that all of it came.

        Raises:
            QortexDbError: It did not.
        """
        if not self._ended:
            raise QortexDbError("The server's COPY ended before its last row: run it again.")


def _row(data: bytes, at: int) -> tuple[list[Field] | None, int]:
    """A row's fields and where it ends; None where it is not whole, or is the end itself."""
    size = len(data)
    if size - at < _COUNT.size:
        return None, at
    (count,) = _COUNT.unpack_from(data, at)
    if count < 0:
        return None, at + _COUNT.size
    place = at + _COUNT.size
    fields: list[Field] = []
    for _ in range(count):
        start = place + _LENGTH.size
        if start > size:
            return None, at
        (length,) = _LENGTH.unpack_from(data, place)
        if length < 0:
            fields.append(None)
            place = start
        else:
            place = start + length
            if place > size:
                return None, at
            fields.append(data[start:place])
    return fields, place


def rows_of(columns: Sequence[Sequence[Field]]) -> bytes:
    """Rows as a binary COPY takes them, between its header and its trailer."""
    count = _COUNT.pack(len(columns))
    parts: list[bytes] = []
    for row in zip(*columns, strict=True):
        parts.append(count)
        for field in row:
            if field is None:
                parts.append(_NULL)
            else:
                parts.append(_LENGTH.pack(len(field)))
                parts.append(field)
    return b"".join(parts)
