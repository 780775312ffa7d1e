"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Level: TypeAlias = Literal["good", "warning", "wrong", "unknown"]
ESSENTIAL: Final = frozenset({"connection", "server", "pgvector", "schema", "role"})
"""The checks without which nothing tells that a service would work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        check: What was looked at.
        level: "unknown" where it could not be read; `said` has the reason then.
        said: In a sentence.
        do: What to do, where something is to be done.
    """

    check: str
    level: Level
    said: str
    do: str = ""

    @property
    def fails(self) -> bool:
        """Whether something is wrong, or an essential thing not known."""
        return self.level == "wrong" or (self.level == "unknown" and self.check in ESSENTIAL)


def size(count: float) -> str:
    """Bytes as PostgreSQL's settings are written."""
    for unit, of in (("GB", 2**30), ("MB", 2**20)):
        if count >= of:
            return f"{count / of:,.1f} {unit}"
    return f"{count / 2**10:,.0f} kB"
