"""Edges: pairs seen together, with hit counts and their newest scores."""

from __future__ import annotations

import itertools
import json
import operator
from collections import defaultdict
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from qortex_db import checks, messages, observability
from qortex_db.errors import InvalidInputError, counter_is_full
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.repositories import validation
from qortex_db.repositories.idempotency import check_claim, was_done
from qortex_db.repositories.interoception import edge_statements
from qortex_db.times import iso_when_read
from qortex_db.types import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from qortex_db.engine import Executor

MAX_SCORES: Final = 100
"""How many scores of an edge are kept unless told otherwise, the newest."""
MIN_HITS: Final = 3
MIN_AVG_SCORE: Final = 0.75
_PART_ROWS: Final = 250
_MOST_SCORES: Final = 10_000


@iso_when_read("last_seen")
@dataclass(slots=True)
class EdgeStats:
    """What was observed of an edge.

    Attributes:
        hit_count: How often.
        scores: The newest similarities, oldest first.
        last_seen: ISO 8601 in UTC, "" where unknown.
    """

    hit_count: int = 0
    scores: list[float] = field(default_factory=list)
    last_seen: str = ""

    @property
    def avg_score(self) -> float:
        """The mean of the stored scores, 0.0 without any."""
        # From left to right, as the server adds: sum() does otherwise since Python 3.12.
        return reduce(operator.add, self.scores) / len(self.scores) if self.scores else 0.0


class EdgeStatsLike(Protocol):
    """Any object with the attributes of `EdgeStats`, such as qortex's own."""

    @property
    def hit_count(self) -> int: ...
    @property
    def scores(self) -> list[float]: ...
    @property
    def last_seen(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Promotion:
    """An edge that left the buffer for good.

    Attributes:
        src_id: The smaller id of the pair.
        tgt_id: The larger.
        hit_count: How often the pair was observed.
        avg_score: The mean of the scores that were stored.
    """

    src_id: str
    tgt_id: str
    hit_count: int
    avg_score: float


@dataclass(frozen=True, slots=True)
class EdgeSummary:
    """The buffer at a glance.

    Attributes:
        ready_to_promote: How many edges `promote` would take.
    """

    count: int
    total_hits: int
    mean_hits: float
    max_hits: int
    ready_to_promote: int


class _Row(NamedTuple):
    """What is written of an edge."""

    hits: int
    scores: list[float]
    last_seen: datetime | None = None  # now


def edge_key(src: object, tgt: object) -> tuple[str, str]:
    """The key of an undirected edge: the sorted pair."""
    first = validation.check_id(src, name="src_id")
    second = validation.check_id(tgt, name="tgt_id")
    return (first, second) if first <= second else (second, first)


def _edge_keys(keys: Iterable[tuple[str, str]], limits: Limits) -> list[tuple[str, str]]:
    of = "list of (src_id, tgt_id) pairs"
    listed = validation.check_list(keys, name="keys", of=of, limits=limits)
    return sorted({_edge_key(key) for key in listed})


def _edge_key(key: object) -> tuple[str, str]:
    of = "has to be a list of (src_id, tgt_id) pairs"
    pair = validation.check_tuple(key, 2, name="keys", of=of)
    return edge_key(*pair)


def _shown(pair: tuple[str, str]) -> str:
    return f"({messages.shown(pair[0])}, {messages.shown(pair[1])})"


def _row(stats: EdgeStatsLike, most: int, pair: tuple[str, str]) -> _Row:
    try:
        hits, scores, seen = stats.hit_count, stats.scores, stats.last_seen
    except AttributeError:
        raise InvalidInputError(
            f"An edge is a {type(stats).__name__} without the attributes of EdgeStats."
        ) from None
    of = f"of the edge {_shown(pair)}"
    return _Row(
        hits=checks.check_count(hits, name=f"hit_count {of}"),
        scores=_scores(scores)[-most:],
        last_seen=validation.check_time(seen, name=f"last_seen {of}"),
    )


def _plain_rows(given: Mapping[Any, Any], most: int) -> dict[tuple[str, str], _Row] | None:
    """The same of many edges, by a few passes; None where those can't vouch for one."""
    keys, stats = list(given), list(given.values())
    if not (
        set(map(type, keys)) == {tuple}
        and set(map(len, keys)) == {2}
        and set(map(type, stats)) == {EdgeStats}
    ):
        return None
    hits = [one.hit_count for one in stats]
    scores = [one.scores for one in stats]
    if not (
        validation.all_plain([key[0] for key in keys])
        and validation.all_plain([key[1] for key in keys])
        and set(map(type, hits)) == {int}
        and min(hits) >= 0
        and max(hits) <= checks.MAX_INT4
        and set(map(type, scores)) == {list}
        and validation.all_measures(list(itertools.chain.from_iterable(scores)))
    ):
        return None
    try:
        times = [validation.check_time(one.last_seen, name="last_seen") for one in stats]
    except InvalidInputError:  # said anew, with its edge
        return None
    return {
        (src, tgt) if src <= tgt else (tgt, src): _Row(count, listed[-most:], seen)
        for (src, tgt), count, listed, seen in zip(keys, hits, scores, times, strict=True)
    }


def _scores(values: object) -> list[float]:
    if not isinstance(values, (list, tuple, np.ndarray)):  # a generator has none left to store
        raise InvalidInputError(f"scores is a {type(values).__name__}; pass a list of numbers.")
    listed = list(values)
    return listed if validation.all_measures(listed) else [_score(value) for value in listed]


def _score(value: object) -> float:
    return validation.check_measure(value, name="score")


class EdgeRepository:
    """The buffer of observed edges."""

    def __init__(self, executor: Executor, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._executor = executor
        self._limits = limits

    async def load(self) -> dict[tuple[str, str], EdgeStats]:
        """Every buffered edge by its sorted pair."""
        rows = (await self._executor.run(edge_statements.load(), {})).rows
        lists = read_json([row[3] for row in rows])
        return {
            (src, tgt): EdgeStats(hits, scores, seen or "")
            for (src, tgt, hits, _, seen), scores in zip(rows, lists, strict=True)
        }

    async def get(self, src: str, tgt: str) -> EdgeStats:
        """One edge, in either direction; zeros if it was never observed."""
        first, second = edge_key(src, tgt)
        rows = (await self._executor.run(edge_statements.get(), {"src": first, "tgt": second})).rows
        return _stats(rows[0]) if rows else EdgeStats()

    async def save(
        self, edges: Mapping[tuple[str, str], EdgeStatsLike], *, max_scores: int = MAX_SCORES
    ) -> None:
        """Store edges over what is there; what is absent stays, and "" as `last_seen` means now.

        Args:
            edges: Stats by pair.
            max_scores: How many scores an edge keeps, the newest, 1 to 10,000.

        Raises:
            InvalidInputError: A key, count, score or time was refused; nothing was stored.
        """
        of = "mapping of pairs to EdgeStats"
        given = validation.check_dict(edges, name="edges", of=of, limits=self._limits)
        most = _max_scores(max_scores)
        rows = _plain_rows(given, most)
        if rows is None:
            rows = {}
            for key, stats in given.items():
                pair = _edge_key(key)
                rows[pair] = _row(stats, most, pair)
        if rows:  # in parts, the next made while the server works on those before
            keys = sorted(rows)
            parts = (
                _params(keys[start : start + _PART_ROWS], rows)
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
            CounterOverflowError: The edge has no room for another hit.
            IdempotencyKeyReusedError: The key was used for another call; nothing was counted.
        """
        most = _max_scores(max_scores)
        row = _Row(1, [_score(score)])
        rows = await self._record({edge_key(src, tgt): row}, most, idempotency_key)
        return _stats(rows[0]) if rows else EdgeStats()  # promoted or removed since

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
            CounterOverflowError: An edge has no room for so many hits; nothing was counted.
        """
        most = _max_scores(max_scores)
        scores: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        triple = "is a triple (src_id, tgt_id, score)"
        given = validation.check_list(observations, name="observations", limits=self._limits)
        for item in given:
            src, tgt, score = validation.check_tuple(item, 3, name="An observation", of=triple)
            scores[edge_key(src, tgt)].append(_score(score))
        rows = {key: _Row(len(values), values[-most:]) for key, values in scores.items()}
        await self._record(rows, most, idempotency_key)
        return len(rows)

    async def remove(self, keys: Iterable[tuple[str, str]]) -> int:
        """Forget edges.

        Returns:
            How many were there; unknown ones are ignored.
        """
        pairs = _edge_keys(keys, self._limits)
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
        """
        params = _thresholds(min_hits, min_avg_score) | {
            "limit": None
            if limit is None
            else validation.check_limit(limit, checks.MAX_INT4, name="limit")
        }
        rows = (await self._executor.run(edge_statements.promote(), params)).rows
        observability.edges_promoted_total.add(len(rows))
        promotions = [Promotion(*row) for row in rows]
        promotions.sort(key=lambda p: (-p.hit_count, -p.avg_score, p.src_id, p.tgt_id))
        return promotions

    async def summary(
        self, *, min_hits: int = MIN_HITS, min_avg_score: float = MIN_AVG_SCORE
    ) -> EdgeSummary:
        """Counts over the buffer, by one statement; the thresholds are those of `promote`."""
        params = _thresholds(min_hits, min_avg_score)
        row = (await self._executor.run(edge_statements.summary(), params)).rows[0]
        count, total, mean, most, ready = row
        return EdgeSummary(count, int(total or 0), float(mean or 0.0), int(most or 0), ready)

    async def _record(
        self, rows: Mapping[tuple[str, str], _Row], max_scores: int, idempotency_key: str | None
    ) -> Sequence[Any]:
        keys = sorted(rows)
        claim = None
        if idempotency_key is not None:
            observed = [(key, rows[key].hits, rows[key].scores) for key in keys]
            claim = check_claim(idempotency_key, ["edges.record", max_scores, *observed])
        if not rows:
            return ()
        params = _params(keys, rows) | {"newest": f"$[last-{max_scores - 1} to last]"}
        if claim is not None:
            params |= claim.params
        statement = edge_statements.record(one=len(keys) == 1, once=claim is not None)
        while not (recorded := (await self._executor.run(statement, params)).rows):
            done = await was_done(self._executor, claim)
            stored = (await self._executor.run(edge_statements.get_many(), params)).rows
            if done:
                return [row[2:] for row in stored]
            for src, tgt, hits, *_ in stored:
                if hits > checks.MAX_INT4 - rows[src, tgt].hits:
                    raise counter_is_full(f"hit_count of the edge {_shown((src, tgt))}")
        return recorded


def _max_scores(value: object) -> int:
    return validation.check_limit(value, _MOST_SCORES, name="max_scores")


def _thresholds(min_hits: object, min_avg_score: object) -> dict[str, Any]:
    return {
        "min_hits": checks.check_count(min_hits, name="min_hits"),
        "min_avg_score": checks.check_number(min_avg_score, name="min_avg_score"),
    }


def _params(keys: list[tuple[str, str]], rows: Mapping[tuple[str, str], _Row]) -> dict[str, Any]:
    return {
        "srcs": [key[0] for key in keys],
        "tgts": [key[1] for key in keys],
        "hits": [rows[key].hits for key in keys],
        # As json writes floats, in a third of the time.
        "scores": [f"[{','.join(map(repr, rows[key].scores))}]" for key in keys],
        "times": [rows[key].last_seen for key in keys],
    }


def _stats(row: Any) -> EdgeStats:
    hit_count, scores, last_seen = row
    return EdgeStats(hit_count, json.loads(scores), last_seen or "")
