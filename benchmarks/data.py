"""The vectors, and their true neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PYDOCS = Path(__file__).parent / "pydocs"
_PART = 50_000


def clustered(count: int, *, seed: int = 0, dimensions: int = 384) -> NDArray[np.float32]:
    """Unit vectors around 200 centres, as embeddings of real text lie."""
    centres = np.random.default_rng(1).normal(size=(200, dimensions))
    rng = np.random.default_rng(seed)
    points = np.empty((count, dimensions), np.float32)
    for start in range(0, count, _PART):  # in parts: a million in doubles are gigabytes
        size = min(_PART, count - start)
        part = centres[rng.integers(0, 200, size)] + rng.normal(size=(size, dimensions)) * 0.8
        points[start : start + size] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return points


def passages() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Real passages of Python's documentation and real questions, by all-MiniLM-L6-v2."""
    loaded = [
        np.load(PYDOCS / f"{name}.npy").astype(np.float32) for name in ("passages", "queries")
    ]
    first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in loaded)
    return first, second


def nearest(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    limit: int = 10,
    *,
    matches: Callable[[int], bool] | None = None,
) -> list[set[str]]:
    """The true neighbours' ids, of all rows or of those whose number matches."""
    numbers = np.arange(len(vectors))
    if matches is not None:
        numbers = np.array([number for number in numbers if matches(int(number))])
    limit = min(limit, len(numbers))
    among = vectors if matches is None else vectors[numbers]
    found = []
    for query in queries:  # one by one: the whole matrix would be gigabytes
        likeness = among @ query
        best = np.argpartition(-likeness, limit - 1)[:limit]
        found.append({f"doc:{numbers[i]:08}" for i in best})
    return found
