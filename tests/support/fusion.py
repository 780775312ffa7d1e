"""Reciprocal rank fusion, apart from any of our statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NO_QUERY: dict[str, float] = {}


def best(
    scores: Mapping[str, float], limit: int, similar: Mapping[str, float] = NO_QUERY
) -> list[str]:
    """Of equal scores the more similar first, then by id."""
    return sorted(scores, key=lambda key: (-scores[key], -similar.get(key, 0), key))[:limit]


def ranks(kept: Mapping[str, float]) -> dict[str, int]:
    """Equal scores have an equal rank: one more than there are better ones."""
    return {key: 1 + sum(other > score for other in kept.values()) for key, score in kept.items()}


def by_ranks(
    branches: Sequence[Mapping[str, float]],
    limits: Sequence[int],
    weights: Sequence[float],
    k: int = 60,
    similar: Mapping[str, float] = NO_QUERY,
) -> dict[str, float]:
    shares: dict[str, list[float]] = {}
    for scores, limit, weight in zip(branches, limits, weights, strict=True):
        kept = {key: scores[key] for key in best(scores, limit, similar)}
        for key, rank in ranks(kept).items():
            shares.setdefault(key, []).append(weight / (k + rank))
    return {key: sum(sorted(given)) for key, given in shares.items()}
