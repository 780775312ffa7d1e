"""Hits that are similar to a query and differ among themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qortex_db.types import SparseVector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qortex_db.models.vector_spec import Metric

Floats: TypeAlias = NDArray[np.float64]


def most_diverse(
    query: NDArray[np.float32] | SparseVector,
    embeddings: Sequence[NDArray[np.float32] | SparseVector],
    limit: int,
    lambda_: float,
    metric: Metric,
) -> list[int]:
    """Choose by maximal marginal relevance: one after another, similar but unlike those chosen.

    Both are measured by the metric, in float64, and neither the query's length nor the scale of
    the embeddings weighs one against the other.

    Args:
        query: As long as the embeddings, or sparse as they are.
        embeddings: Of the candidates, best first.
        limit: How many to choose.
        lambda_: 1.0 looks at similarity alone, 0.0 at difference alone.
        metric: By cosine and inner product a zero vector is like nothing, and is chosen last.

    Returns:
        Positions, in the order of choice; of equals the first.

    Source:
        Carbonell and Goldstein, "The Use of MMR" (SIGIR 1998).
    """
    if not embeddings:
        return []
    sparse = isinstance(query, SparseVector)
    rows: _Rows = (_Sparse if sparse else _Dense)([query, *embeddings])
    similarity = _Similarity(rows, metric)
    return _chosen(
        similarity.to(0)[1:],
        lambda place: similarity.to(place + 1)[1:],
        similarity.comparable[1:],
        limit,
        lambda_,
    )


def diversified(
    scores: Sequence[float],
    embeddings: Sequence[NDArray[np.float32] | SparseVector | None],
    limit: int,
    lambda_: float,
    metric: Metric,
) -> list[int]:
    """The same of hits that have a score already, whatever that is made of.

    Scores are scaled from 0, the worst, to 1, the best. Embeddings are compared by cosine, by inner
    products of the unit ball, or by 1 / (1 + distance).

    Args:
        embeddings: What has none is like nothing, and is chosen last.
    """
    there = [i for i, embedding in enumerate(embeddings) if embedding is not None]
    if not there:
        return list(range(len(scores)))[:limit]
    rows: Any = [embeddings[i] for i in there]
    sparse = isinstance(rows[0], SparseVector)
    similarity = _Similarity((_Sparse if sparse else _Dense)(rows), metric, has_query=False)
    own = np.asarray(scores, np.float64)[there]
    low, high = own.min(), own.max()
    relevance = (own - low) / (high - low) if high > low else np.ones(len(own))
    is_near = metric in ("l2", "l1")

    def like(place: int) -> Floats:
        found = similarity.to(place)
        return 1 / (1 - found) if is_near else found

    chosen = _chosen(relevance, like, similarity.comparable, limit, lambda_)
    rest = [i for i, embedding in enumerate(embeddings) if embedding is None]
    return ([there[place] for place in chosen] + rest)[:limit]


def _chosen(
    relevance: Floats,
    like: Callable[[int], Floats],
    comparable: NDArray[np.bool_],
    limit: int,
    lambda_: float,
) -> list[int]:
    relevance = lambda_ * relevance
    nearest_chosen = np.full(len(relevance), -np.inf)
    left = comparable.copy()
    chosen: list[int] = []
    while len(chosen) < limit and left.any():
        gain = relevance if not chosen else relevance - (1 - lambda_) * nearest_chosen
        best = int(np.where(left, gain, -np.inf).argmax())
        chosen.append(best)
        left[best] = False
        np.maximum(nearest_chosen, like(best), out=nearest_chosen)
    return (chosen + np.flatnonzero(~comparable).tolist())[:limit]


class _Similarity:
    """How similar rows are, a query the first of them: a distance is negative."""

    def __init__(self, rows: _Rows, metric: Metric, *, has_query: bool = True) -> None:
        self._rows = rows
        self._metric = metric
        angular = metric in ("cosine", "inner_product")
        lengths = np.sqrt(rows.squares()) if angular else np.ones(rows.count)
        self.comparable = lengths > 0
        if has_query:
            self.comparable[0] = True
        scale = np.where(lengths > 0, lengths, 1.0)
        if metric == "inner_product":  # products of any sizes as those of the unit ball
            others = slice(1 if has_query else 0, None)
            scale[others] = lengths[others].max() or 1.0
        self._scale = scale

    def to(self, row: int) -> Floats:
        """The similarity of each row to one of them."""
        if self._metric == "l2":
            return -self._rows.l2(row)
        if self._metric == "l1":
            return -self._rows.l1(row)
        similarities: Floats = self._rows.products(row) / (self._scale * self._scale[row])
        return similarities


class _Rows(Protocol):
    count: int

    def squares(self) -> Floats: ...
    def products(self, row: int) -> Floats: ...
    def l2(self, row: int) -> Floats: ...
    def l1(self, row: int) -> Floats: ...


class _Dense:
    def __init__(self, rows: Sequence[Any]) -> None:
        self.count = len(rows)
        self._matrix = np.stack(rows).astype(np.float64)

    def squares(self) -> Floats:
        squares: Floats = np.einsum("ij,ij->i", self._matrix, self._matrix)
        return squares

    def products(self, row: int) -> Floats:
        products: Floats = self._matrix @ self._matrix[row]
        return products

    def l2(self, row: int) -> Floats:
        distances: Floats = np.linalg.norm(self._matrix - self._matrix[row], axis=1)
        return distances

    def l1(self, row: int) -> Floats:
        distances: Floats = np.abs(self._matrix - self._matrix[row]).sum(axis=1)
        return distances


class _Sparse:
    """The components that are not zero, one after another, and the row and position of each."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.count = len(rows)
        self._row = np.repeat(np.arange(len(rows)), [len(row.indices()) for row in rows])
        positions = np.concatenate([np.asarray(row.indices(), np.int64) for row in rows])
        self._values = np.concatenate([np.asarray(row.values(), np.float64) for row in rows])
        used, self._at = np.unique(positions, return_inverse=True)
        self._width = len(used)

    def _sums(self, components: Floats) -> Floats:
        return np.bincount(self._row, components, self.count).astype(np.float64)

    def _whole(self, row: int) -> Floats:
        whole = np.zeros(self._width)
        mine = self._row == row
        whole[self._at[mine]] = self._values[mine]
        return whole

    def squares(self) -> Floats:
        return self._sums(self._values**2)

    def products(self, row: int) -> Floats:
        return self._sums(self._values * self._whole(row)[self._at])

    # Where a row has no component, the other's own counts: all of those, less the ones it meets.
    def l2(self, row: int) -> Floats:
        whole = self._whole(row)
        met = whole[self._at]
        squares = (whole**2).sum() + self._sums((self._values - met) ** 2 - met**2)
        distances: Floats = np.sqrt(np.maximum(squares, 0))
        return distances

    def l1(self, row: int) -> Floats:
        whole = self._whole(row)
        met = whole[self._at]
        distances: Floats = np.abs(whole).sum() + self._sums(
            np.abs(self._values - met) - np.abs(met)
        )
        return distances
