"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["good", "warning", "wrong", "unknown"]


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


def size(count: float) -> str:
    """Bytes as PostgreSQL's settings are written."""
    for unit, of in (("GB", 2**30), ("MB", 2**20)):
        if count >= of:
            return f"{count / of:,.1f} {unit}"
    return f"{count / 2**10:,.0f} kB"
