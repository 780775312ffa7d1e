"""Hits that are similar to a query and differ among themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def most_diverse(
    embeddings: Sequence[NDArray[np.float32]],
    similarities: Sequence[float],
    limit: int,
    lambda_: float,
) -> list[int]:
    """Choose by maximal marginal relevance: one after another, similar but unlike those chosen.

    Args:
        embeddings: Of the candidates, best first; of any length but zero.
        similarities: To the query.
        limit: How many to choose.
        lambda_: 1.0 looks at similarity alone, 0.0 at difference alone.

    Returns:
        Positions, in the order of choice; of equals the first.

    Source:
        Carbonell and Goldstein, "The Use of MMR" (SIGIR 1998).
    """
    if not embeddings:
        return []
    matrix = np.stack(embeddings).astype(np.float64)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    relevance = lambda_ * np.asarray(similarities)
    nearest_chosen = np.full(len(matrix), -np.inf)
    chosen: list[int] = []
    for _ in range(min(limit, len(matrix))):
        gain = relevance if not chosen else relevance - (1 - lambda_) * nearest_chosen
        gain = gain.copy()
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        chosen.append(best)
        np.maximum(nearest_chosen, matrix @ matrix[best], out=nearest_chosen)
    return chosen
