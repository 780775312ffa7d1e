"""Edges: pairs seen together, with hit counts and their newest scores."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from qortex_db import checks
from qortex_db.engine import on_primary
from qortex_db.errors import counter_is_full
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.models import InteroceptionEdge
from qortex_db.observability import Subject, metrics, observed
from qortex_db.repositories import validation
from qortex_db.repositories.idempotency import check_claim, was_done
from qortex_db.repositories.interoception import edge_statements
from qortex_db.repositories.interoception.edge_records import (
    EdgeRow,
    EdgeStats,
    EdgeStatsLike,
    EdgeSummary,
    Promotion,
    edge_key,
    edge_key_of,
    edge_keys,
    edge_params,
    edge_row,
    edge_stats,
    plain_rows,
    score_of,
    shown_pair,
)
from qortex_db.types import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qortex_db.engine import Executor

MAX_SCORES: Final = 100
"""How many scores of an edge are kept unless told otherwise, the newest."""
MIN_HITS: Final = 3
MIN_AVG_SCORE: Final = 0.75
_PART_ROWS: Final = 250
_MOST_SCORES: Final = 10_000


@observed("edges", writes=("promote", "record", "record_many", "remove", "save"))
class EdgeRepository:
    """The buffer of observed edges."""

    def __init__(self, executor: Executor, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._executor = executor
        self._limits = limits
        self._subject = Subject(InteroceptionEdge.__tablename__, limits.slow_call_seconds)

    async def load(self) -> dict[tuple[str, str], EdgeStats]:
        """Every buffered edge by its sorted pair."""
        rows = (await self._executor.run(edge_statements.load(), {})).rows
        lists = read_json([row[3] for row in rows])
        return {
            (src, tgt): EdgeStats(hits, scores, seen or "")
            for (src, tgt, hits, _, seen), scores in zip(rows, lists, strict=True)
        }

    async def get(self, src: str, tgt: str) -> EdgeStats:
        """One edge, in either direction; zeros if it was never observed.

        Raises:
            InvalidInputError: An id was refused.
        """
        first, second = edge_key(src, tgt)
        rows = (await self._executor.run(edge_statements.get(), {"src": first, "tgt": second})).rows
        return edge_stats(rows[0]) if rows else EdgeStats()

    async def save(
        self, edges: Mapping[tuple[str, str], EdgeStatsLike], *, max_scores: int = MAX_SCORES
    ) -> None:
        """Store edges over what is there; what is absent stays, and "" as `last_seen` means now.

        Args:
            edges: Stats by pair.
            max_scores: How many scores an edge keeps, the newest, 1 to 10,000.

        Raises:
            InvalidInputError: A key, count, score or time was refused; nothing was stored.
            LimitExceededError: There are more edges than a limit allows.
        """
        of = "mapping of pairs to EdgeStats"
        given = validation.check_dict(edges, name="edges", of=of, limits=self._limits)
        most = _max_scores(max_scores)
        rows = plain_rows(given, most)
        if rows is None:
            rows = {}
            for key, stats in given.items():
                pair = edge_key_of(key)
                rows[pair] = edge_row(stats, most, pair)
        if rows:  # in parts, the next made while the server works on those before
            keys = sorted(rows)
            parts = (
                edge_params(keys[start : start + _PART_ROWS], rows)
                for start in range(0, len(keys), _PART_ROWS)
            )
            await self._executor.run_all(edge_statements.save(), parts)

    async def record(
        self,
        src: str,
        tgt: str,
        *,
        score: float,
        max_scores: int = MAX_SCORES,
        idempotency_key: str | None = None,
    ) -> EdgeStats:
        """Count one observation of a pair, atomically.

        Args:
            src: One id.
            tgt: The other; the direction does not matter.
            score: The similarity; any number up to 1e100.
            max_scores: How many scores the edge keeps, the newest, 1 to 10,000.
            idempotency_key: Text that is this observation's own: however often the call is repeated
                with it, it counts once.

        Returns:
            The edge as it is now.

        Raises:
            InvalidInputError: An id, the score or `max_scores` was refused; nothing was counted.
            CounterOverflowError: The edge has no room for another hit.
            IdempotencyKeyReusedError: The key was used for another call; nothing was counted.
        """
        most = _max_scores(max_scores)
        row = EdgeRow(1, [score_of(score)])
        rows = await self._record({edge_key(src, tgt): row}, most, idempotency_key)
        return edge_stats(rows[0]) if rows else EdgeStats()  # promoted or removed since

    async def record_many(
        self,
        observations: Iterable[tuple[str, str, float]],
        *,
        max_scores: int = MAX_SCORES,
        idempotency_key: str | None = None,
    ) -> int:
        """Count many observations in one statement.

        Args:
            observations: Triples (src_id, tgt_id, score), the oldest first.
            max_scores: How many scores an edge keeps, the newest, 1 to 10,000.
            idempotency_key: As of `record`, for all of them.

        Returns:
            How many edges were touched, by this call or by the one that it repeats.

        Raises:
            InvalidInputError: An observation was refused; nothing was counted.
            LimitExceededError: There are more observations than a limit allows.
            IdempotencyKeyReusedError: The key was used for another call; nothing was counted.
            CounterOverflowError: An edge has no room for so many hits; nothing was counted.
        """
        most = _max_scores(max_scores)
        scores: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        triple = "is a triple (src_id, tgt_id, score)"
        given = validation.check_list(observations, name="observations", limits=self._limits)
        for item in given:
            src, tgt, score = validation.check_tuple(item, 3, name="An observation", of=triple)
            scores[edge_key(src, tgt)].append(score_of(score))
        rows = {key: EdgeRow(len(values), values[-most:]) for key, values in scores.items()}
        await self._record(rows, most, idempotency_key)
        return len(rows)

    async def remove(self, keys: Iterable[tuple[str, str]]) -> int:
        """Forget edges.

        Returns:
            How many were there; unknown ones are ignored.

        Raises:
            InvalidInputError: A key is no pair of ids.
            LimitExceededError: There are more keys than a limit allows.
        """
        pairs = edge_keys(keys, self._limits)
        if not pairs:
            return 0
        params = {"srcs": [pair[0] for pair in pairs], "tgts": [pair[1] for pair in pairs]}
        return (await self._executor.run(edge_statements.remove(), params)).rowcount

    async def promote(
        self,
        *,
        min_hits: int = MIN_HITS,
        min_avg_score: float = MIN_AVG_SCORE,
        limit: int | None = None,
    ) -> list[Promotion]:
        """Take the edges out of the buffer that were seen often and found similar.

        Each goes to exactly one caller, however many promote at once, and they don't wait for one
        another. In a unit of work it goes with what is written there, or stays if that fails; by
        itself it has left the buffer when the call returns. An edge that someone is writing at
        this moment is left to a later call; one that is observed after it starts anew.

        Args:
            min_hits: The fewest observations, included.
            min_avg_score: The smallest mean of the stored scores, included; without any it is 0.
            limit: How many at most; None means all.

        Returns:
            Most hits first, then the highest mean, then by key; `limit` cuts in this order.

        Raises:
            InvalidInputError: A threshold or the limit was refused.
        """
        params = _thresholds(min_hits, min_avg_score) | {
            "limit": None
            if limit is None
            else validation.check_limit(limit, checks.MAX_INT4, name="limit")
        }
        rows = (await self._executor.run(edge_statements.promote(), params)).rows
        metrics.edges_promoted_total.add(len(rows))
        promotions = [Promotion(*row) for row in rows]
        promotions.sort(key=lambda p: (-p.hit_count, -p.avg_score, p.src_id, p.tgt_id))
        return promotions

    async def summary(
        self, *, min_hits: int = MIN_HITS, min_avg_score: float = MIN_AVG_SCORE
    ) -> EdgeSummary:
        """Counts over the buffer, by one statement; the thresholds are those of `promote`.

        Raises:
            InvalidInputError: A threshold was refused.
        """
        params = _thresholds(min_hits, min_avg_score)
        row = (await self._executor.run(edge_statements.summary(), params)).rows[0]
        count, total, mean, most, ready = row
        return EdgeSummary(count, int(total or 0), float(mean or 0.0), int(most or 0), ready)

    async def _record(
        self, rows: Mapping[tuple[str, str], EdgeRow], max_scores: int, idempotency_key: str | None
    ) -> Sequence[Any]:
        keys = sorted(rows)
        claim = None
        if idempotency_key is not None:
            observed = [(key, rows[key].hits, rows[key].scores) for key in keys]
            claim = check_claim(idempotency_key, ["edges.record", max_scores, *observed])
        if not rows:
            return ()
        params = edge_params(keys, rows) | {"newest": f"$[last-{max_scores - 1} to last]"}
        if claim is not None:
            params |= claim.params
        statement = edge_statements.record(one=len(keys) == 1, once=claim is not None)
        while not (recorded := (await self._executor.run(statement, params)).rows):
            done = await was_done(self._executor, claim)
            there = on_primary(edge_statements.get_many())
            stored = (await self._executor.run(there, params)).rows
            if done:
                return [row[2:] for row in stored]
            for src, tgt, hits, *_ in stored:
                if hits > checks.MAX_INT4 - rows[src, tgt].hits:
                    raise counter_is_full(f"hit_count of the edge {shown_pair((src, tgt))}")
        return recorded


def _max_scores(value: object) -> int:
    return validation.check_limit(value, _MOST_SCORES, name="max_scores")


def _thresholds(min_hits: object, min_avg_score: object) -> dict[str, Any]:
    return {
        "min_hits": checks.check_count(min_hits, name="min_hits"),
        "min_avg_score": checks.check_number(min_avg_score, name="min_avg_score"),
    }
