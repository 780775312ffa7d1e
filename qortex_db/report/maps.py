"""Maps: embeddings on a plane, by principal components, and which of their fields colours them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

GROUPS: Final = 8
"""Colours, beside that of all others."""


@dataclass(frozen=True, slots=True)
class VectorMap:
    """A sample of rows on a plane.

    Attributes:
        points: Two coordinates of each, -1 to 1 from one end of what there is to the other.
        shares: How much of the variance each of the two axes shows, 0 to 1.
        field: What they are coloured by, a path in the payload; None where nothing suits.
        groups: Its values, the most frequent first.
        group: Of each point the place of its value among these; the number of them for any other.
        rows: How many rows there were to draw from.
    """

    points: NDArray[np.float32]
    shares: tuple[float, float]
    field: str | None
    groups: list[str]
    group: list[int]
    rows: int


def project(
    embeddings: Sequence[Any], *, by_angle: bool
) -> tuple[NDArray[Any], tuple[float, float]]:
    """The first two principal components of some vectors, and their shares of the variance.

    Args:
        embeddings: At least one, all of the same length.
        by_angle: Whether their lengths mean nothing.
    """
    matrix: NDArray[Any] = np.asarray(embeddings, np.float32)
    if by_angle:
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        matrix = matrix / np.where(norms == 0, 1, norms)
    matrix = (matrix - matrix.mean(axis=0)).astype(np.float64)
    # Of the products of the rows, which are fewer than the dimensions may be.
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    two = np.argsort(values)[::-1][:2]
    lengths = np.sqrt(np.clip(values[two], 0, None))
    points = vectors[:, two] * lengths
    if points.shape[1] < 2:  # noqa: PLR2004 - of a plane
        points = np.column_stack([points, np.zeros(len(points))])
    # An axis has no direction of its own: the same rows always look the same.
    at = np.abs(points).argmax(axis=0)
    points = points * np.where(points[at, [0, 1]] < 0, -1.0, 1.0)
    total = float(np.clip(values, 0, None).sum()) or 1.0
    shares = [float(max(value, 0)) / total for value in values[two]] + [0.0]
    low, high = points.min(axis=0), points.max(axis=0)
    half = np.where(high > low, (high - low) / 2, 1.0)
    placed = (points - (low + high) / 2) / half
    return placed.astype(np.float32), (shares[0], shares[1])


def most_even(payloads: Sequence[Mapping[str, str]]) -> str | None:
    """The key whose values part the rows most evenly into a few groups; None where none does."""
    found: dict[str, Counter[str]] = {}
    for payload in payloads:
        for key, value in payload.items():
            found.setdefault(key, Counter())[value] += 1
    told = {name: _evenness(values, len(payloads)) for name, values in sorted(found.items())}
    best = max(told, key=lambda name: told[name], default=None)
    return best if best is not None and told[best] > 0 else None


def _evenness(values: Counter[str], rows: int) -> float:
    """The bits that a key's colours tell of a row, of as many as there are colours; 0 to 1."""
    if len(values) < 2:  # noqa: PLR2004 - one value parts nothing
        return 0.0
    counts = [count for _, count in values.most_common(GROUPS)]
    if len(values) > GROUPS and sum(counts) < rows / 2:  # most would be of no colour
        return 0.0
    others = rows - sum(counts)
    shares = [count / rows for count in (*counts, *([others] if others else []))]
    return -sum(share * math.log(share) for share in shares) / math.log(GROUPS + 1)


def grouped(values: Sequence[str | None]) -> tuple[list[str], list[int]]:
    """The most frequent values, and of each row the place of its own among these."""
    counted = Counter(value for value in values if value is not None)
    groups = [value for value, _ in counted.most_common(GROUPS)]
    places = {value: place for place, value in enumerate(groups)}
    rest = len(groups)
    return groups, [rest if value is None else places.get(value, rest) for value in values]
