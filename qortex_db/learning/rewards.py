"""Reward models: what an outcome is worth to a bandit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from qortex_db.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

_TERNARY: Final = {"accepted": 1.0, "partial": 0.5, "rejected": 0.0}


@runtime_checkable
class RewardModel(Protocol):
    """Turns an outcome into a reward; qortex's own models are some, too."""

    def compute(self, outcome: str) -> float:
        """The reward, 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class BinaryReward:
    """1 for "accepted", 0 for anything else."""

    def compute(self, outcome: str) -> float:
        """The reward."""
        return 1.0 if outcome == "accepted" else 0.0


@dataclass(frozen=True, slots=True)
class TernaryReward:
    """1 for "accepted", 0.5 for "partial", 0 for "rejected" and, as in qortex, anything else."""

    def compute(self, outcome: str) -> float:
        """The reward."""
        return _TERNARY.get(outcome, 0.0)


@dataclass(frozen=True, slots=True)
class CustomReward:
    """A function of your own as a reward model."""

    function: Callable[[str], float]

    def compute(self, outcome: str) -> float:
        """The reward.

        Raises:
            InvalidInputError: The function gave no number from 0 to 1.
        """
        reward = self.function(outcome)
        if isinstance(reward, bool) or not isinstance(reward, (int, float)):
            raise InvalidInputError(
                f"The reward function returned a {type(reward).__name__}, not a number."
            )
        if not (math.isfinite(reward) and 0 <= reward <= 1):
            raise InvalidInputError(f"The reward function returned {reward}, not 0 to 1.")
        return float(reward)
