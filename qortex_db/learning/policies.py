"""Policies: how a bandit scores its candidates. The highest scores are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from qortex_db.checks import check_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qortex_db.learning.state import ArmState


class Policy(Protocol):
    """Scores candidates by their states; it keeps none of its own."""

    def scores(
        self, states: Sequence[ArmState], rng: np.random.Generator, rounds: int
    ) -> NDArray[np.float64]:
        """A row of scores for each round, a column for each state; no NaN."""
        ...


@dataclass(frozen=True, slots=True)
class ThompsonSampling:
    """A draw from each posterior: an arm is chosen as often as it is likely to be the best.

    Source:
        Thompson (1933), "On the likelihood that one unknown probability exceeds another".
    """

    def scores(
        self, states: Sequence[ArmState], rng: np.random.Generator, rounds: int
    ) -> NDArray[np.float64]:
        """One draw a round and state."""
        return drawn(
            [state.alpha for state in states], [state.beta for state in states], rng, rounds
        )


def drawn(
    alphas: Sequence[float], betas: Sequence[float], rng: np.random.Generator, rounds: int
) -> NDArray[np.float64]:
    """A row of draws for each round, a column for each Beta distribution."""
    return rng.beta(alphas, betas, size=(rounds, len(alphas)))


@dataclass(frozen=True, slots=True)
class UCB1:
    """The upper confidence bound: the posterior mean, and a bonus for arms that are little known.

    Nothing is drawn: the same states give the same scores, infinite ones for arms without pulls.

    Args:
        exploration: The bonus is the root of this times ln(all pulls) / pulls.

    Raises:
        InvalidInputError: `exploration` is no number, or negative.

    Source:
        Auer, Cesa-Bianchi and Fischer (2002), "Finite-time analysis of the multiarmed bandit
        problem"; with the posterior mean for the empirical one, so that seeds and decay count.
    """

    exploration: float = 2.0

    def __post_init__(self) -> None:
        check_number(self.exploration, name="exploration", low=0)

    def scores(
        self, states: Sequence[ArmState], rng: np.random.Generator, rounds: int
    ) -> NDArray[np.float64]:
        """The same row for each round."""
        del rng
        pulls = np.array([state.pulls for state in states], dtype=np.float64)
        known = pulls > 0
        bounds = np.full(len(states), np.inf)
        bonus = np.sqrt(self.exploration * np.log(max(pulls.sum(), 1.0)) / pulls[known])
        bounds[known] = _means(states)[known] + bonus
        return np.broadcast_to(bounds, (rounds, len(states)))


@dataclass(frozen=True, slots=True)
class EpsilonGreedy:
    """The highest posterior mean, except in a share of the rounds, in which chance chooses.

    Args:
        epsilon: That share, 0 to 1; `baseline_rate` comes on top of it.

    Raises:
        InvalidInputError: `epsilon` is not between 0 and 1.

    Source:
        Sutton and Barto (2018), "Reinforcement learning: an introduction", 2.2.
    """

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        check_number(self.epsilon, name="epsilon", low=0, high=1)

    def scores(
        self, states: Sequence[ArmState], rng: np.random.Generator, rounds: int
    ) -> NDArray[np.float64]:
        """The means, or chance."""
        exploring = rng.random((rounds, 1)) < self.epsilon
        return np.where(exploring, rng.random((rounds, len(states))), _means(states))


def _means(states: Sequence[ArmState]) -> NDArray[np.float64]:
    return np.array([state.mean for state in states], dtype=np.float64)
