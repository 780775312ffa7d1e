"""A line of a table: a contender at a work, and what its rounds gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Entry:
    """A contender at a work.

    Attributes:
        before: Awaited before each round, untimed.
        columns: What its line tells beside the times.
    """

    peer: str
    work: str
    arguments: dict[str, Any]
    note: str = ""
    before: Callable[[], Any] | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What the table calls it."""
        return PEERS[self.peer].title + (f", {self.note}" if self.note else "")

    @property
    def rounds(self) -> list[float]:
        """Each round's median, in seconds."""
        return [float(np.median(answer["seconds"])) for answer in self.answers]

    @property
    def median(self) -> float:
        """The rounds' median, in seconds."""
        return float(np.median(self.rounds))

    def cpu(self, whose: str) -> float | None:
        """The median of what an operation takes of a CPU, in seconds, if it was measured."""
        spent = [answer[whose] for answer in self.answers if whose in answer]
        return float(np.median(spent)) if spent else None

    def told(self, name: str) -> float:
        """The rounds' median of something else that they told."""
        return float(np.median([answer[name] for answer in self.answers]))
