"""The file of rows that could not be taken, each told once though an import is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qortex_db.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qortex_db.transfer.source import SourceReject

_BEGINNING: Final = b'{"row": '
_LONGEST: Final = 2**20
"""Bytes of a line."""


class RejectsFile:
    """Lines of JSON, which a checkpoint knows the size of.

    A batch's lines are written before it is committed; going on, what was written of a batch that
    was not is cut off.

    Args:
        path: None for nowhere.
        size: How much of it the last checkpoint has; 0 for an import that begins.
    """

    def __init__(self, path: str | os.PathLike[str] | None, size: int) -> None:
        self._path = None if path is None else Path(path)
        self.size = size
        if self._path is None or not (size or self._path.exists()):
            return
        try:
            with self._path.open("a+b") as file:
                if file.tell() < size:
                    raise InvalidInputError(
                        f"{self._path} is not the file of rejects that this import has written so "
                        "far: put it back, or begin anew."
                    )
                file.seek(0)
                if not _is_ours(file.readline(_LONGEST)):  # it may be the source itself
                    raise InvalidInputError(
                        f"{self._path} holds something else than rejects, which would be lost: "
                        "name another file."
                    )
                file.truncate(size)
        except OSError as error:
            raise self._unwritable(error) from error

    def add(self, rejects: Sequence[SourceReject]) -> None:
        """Write some, down to the disk."""
        if self._path is None or not rejects:
            return
        # In ASCII: an id may have a lone surrogate, which is no character of UTF-8.
        lines = "".join(
            json.dumps({"row": each.where, "reason": each.reason}) + "\n" for each in rejects
        )
        try:
            with self._path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
                self.size = file.tell()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InvalidInputError:
        return InvalidInputError(f"{self._path} can't be written ({error.strerror}).")


def _is_ours(line: bytes) -> bool:
    """Whether a file whose first line it is may be written over."""
    if not line.endswith(b"\n"):  # nothing, or killed while it was written
        return line.startswith(_BEGINNING) or _BEGINNING.startswith(line)
    try:
        return list(json.loads(line)) == ["row", "reason"]
    except (ValueError, TypeError, RecursionError):
        return False
