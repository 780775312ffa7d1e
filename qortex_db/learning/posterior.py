"""What a Beta posterior says: its mean, its variance, and where the true rate probably is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from qortex_db.learning.state import ArmState

_TINY: Final = 1e-300
_HALVINGS: Final = 45
_MAX_TERMS: Final = 20_000
_SURE: Final = 1e6


@dataclass(frozen=True, slots=True)
class Posterior:
    """The belief about one arm's mean reward.

    Attributes:
        mean: The expected reward of the next pull.
        variance: Of the belief, not of the rewards.
        low: The lower end of the central credible interval.
        high: Its upper end.
        pulls: How many rewards it comes from.
    """

    mean: float
    variance: float
    low: float
    high: float
    pulls: int


def posteriors(states: Iterable[ArmState], *, level: float = 0.95) -> list[Posterior]:
    """The posteriors of states, in their order.

    Args:
        level: The probability, between 0 and 1, that the interval holds the true mean.
    """
    states = list(states)
    a = np.array([state.alpha for state in states], dtype=np.float64)
    b = np.array([state.beta for state in states], dtype=np.float64)
    mean = a / (a + b)
    variance = mean * (b / (a + b)) / (a + b + 1)
    ends = []
    # With so much evidence it is a normal distribution, and the fraction would hardly end.
    sure = (np.minimum(a, b) > _SURE) | (np.maximum(a, b) > _SURE**2)
    for probability in ((1 - level) / 2, (1 + level) / 2):
        end = np.clip(mean + NormalDist().inv_cdf(probability) * np.sqrt(variance), 0.0, 1.0)
        end[~sure] = _quantile(a[~sure], b[~sure], probability)
        ends.append(end)
    # Of 1e-16 or less, and beside 1e15, doubles can't tell a quantile: the mean is in it anyhow.
    low, high = np.minimum(ends[0], mean), np.maximum(ends[1], mean)
    columns = (mean.tolist(), variance.tolist(), low.tolist(), high.tolist())
    pulls = [state.pulls for state in states]
    return [Posterior(*row) for row in zip(*columns, pulls, strict=True)]


def _quantile(
    a: NDArray[np.float64], b: NDArray[np.float64], probability: float
) -> NDArray[np.float64]:
    """By bisection of the distribution function, all at once, to 1e-13."""
    low, high = np.zeros_like(a), np.ones_like(a)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = _distribution(a, b, middle) < probability
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def _distribution(
    a: NDArray[np.float64], b: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The regularised incomplete beta function.

    Source:
        Abramowitz and Stegun (1964), 26.5.8, evaluated by Lentz's method; beyond the mean by the
        symmetry 26.5.2, where the fraction converges fast.
    """
    swap = x > (a + 1) / (a + b + 2)
    a, b, x = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1 - x, x)
    logs = [
        math.lgamma(p + q) - math.lgamma(p) - math.lgamma(q)
        for p, q in zip(a.tolist(), b.tolist(), strict=True)
    ]
    with np.errstate(divide="ignore"):
        front = np.exp(np.array(logs) + a * np.log(x) + b * np.log1p(-x)) / a
    value = np.clip(front * _fraction(a, b, x), 0.0, 1.0)
    return np.where(swap, 1 - value, value)


def _fraction(
    a: NDArray[np.float64], b: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    c = np.ones_like(x)
    d = 1 / _off_zero(1 - (a + b) * x / (a + 1))
    result = d.copy()
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = result
        for term in (even, odd):
            d = 1 / _off_zero(1 + term * d)
            c = _off_zero(1 + term / c)
            result = result * d * c
        if np.all(np.abs(result - before) <= 1e-14 * np.abs(result)):
            break
    return result


def _off_zero(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(value) < _TINY, _TINY, value)
