"""What replicas have to have reached before they answer: the last write of whoever reads.

A write is known by the number of its transaction. A replica whose snapshot has no transaction up to
that number that is still open, or not heard of, has it; a position in the WAL would not do, since a
statement learns of one that lies before its own COMMIT.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from qortex_db.errors import InvalidInputError

Consistency: TypeAlias = Literal["eventual", "session", "strong"]
"""How fresh reads by themselves have to be, where there are replicas.

eventual: whatever a replica has. session: all that was written by whoever reads. strong: all that
was committed, so that no replica is asked.
"""
CONSISTENCIES: Final = ("eventual", "session", "strong")
_TOKEN: Final = re.compile(r"q1-([0-9a-f]{1,15})")
_NOT_KNOWN: Final = 0
"""A number that no transaction has: what was written is not known, so only the primary has it."""


class OwnWrites:
    """The writes of one caller, or of all of a Database's.

    Args:
        token: Of what was written before.
        outer: Of what these are a part.
    """

    __slots__ = ("_is_known", "_last", "_losses", "_outer")

    def __init__(self, token: str | None = None, outer: OwnWrites | None = None) -> None:
        self._last = _NOT_KNOWN if token is None else _read(token)
        self._is_known = token is None or self._last != _NOT_KNOWN
        self._losses = 0
        self._outer = outer

    @property
    def last(self) -> int | None:
        """The number that replicas have to have reached; 0 for any, None where it is not known."""
        return self._last if self._is_known else None

    @property
    def token(self) -> str | None:
        """What says so to another process, in a few letters; None where nothing was written."""
        if self._is_known and self._last == _NOT_KNOWN:
            return None
        return f"q1-{self._last if self._is_known else _NOT_KNOWN:x}"

    def begin(self) -> int:
        """Begin a write, or a read on the primary; return a mark for its end."""
        return self._losses

    def end(self, mark: int, number: int | str | None) -> None:
        """Note the number by which all is there that this write wrote and met, or this read saw.

        It holds for a write of before whose number is not known, and not for one of meanwhile.
        """
        if number is None:
            self.lose()
            return
        self._last = max(self._last, int(number))
        if self._losses == mark:
            self._is_known = True
        if self._outer is not None:
            self._outer.end(-1, number)

    def lose(self) -> None:
        """Note a write that may have happened, or met another's, without a number."""
        self._losses += 1
        self._is_known = False
        if self._outer is not None:
            self._outer.lose()


def _read(token: object) -> int:
    found = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    if found is None:
        raise InvalidInputError(
            "The token is none that db.token() gave: pass it on as it is, or None for a caller who "
            "has written nothing."
        )
    return int(found[1], 16)
