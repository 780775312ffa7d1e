"""Edges as they are given, stored and returned."""

from __future__ import annotations

import itertools
import json
import operator
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from qortex_db import checks, messages
from qortex_db.errors import InvalidInputError
from qortex_db.repositories import validation
from qortex_db.times import iso_when_read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from qortex_db.limits import Limits


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


class EdgeRow(NamedTuple):
    """What is written of an edge."""

    hits: int
    scores: list[float]
    last_seen: datetime | None = None  # now


def edge_key(src: object, tgt: object) -> tuple[str, str]:
    """The key of an undirected edge: the sorted pair."""
    first = validation.check_id(src, name="src_id")
    second = validation.check_id(tgt, name="tgt_id")
    return (first, second) if first <= second else (second, first)


def edge_keys(keys: Iterable[tuple[str, str]], limits: Limits) -> list[tuple[str, str]]:
    of = "list of (src_id, tgt_id) pairs"
    listed = validation.check_list(keys, name="keys", of=of, limits=limits)
    return sorted({edge_key_of(key) for key in listed})


def edge_key_of(key: object) -> tuple[str, str]:
    of = "has to be a list of (src_id, tgt_id) pairs"
    pair = validation.check_tuple(key, 2, name="keys", of=of)
    return edge_key(*pair)


def shown_pair(pair: tuple[str, str]) -> str:
    return f"({messages.shown(pair[0])}, {messages.shown(pair[1])})"


def edge_row(stats: EdgeStatsLike, most: int, pair: tuple[str, str]) -> EdgeRow:
    try:
        hits, scores, seen = stats.hit_count, stats.scores, stats.last_seen
    except AttributeError:
        raise InvalidInputError(
            f"An edge is a {type(stats).__name__} without the attributes of EdgeStats."
        ) from None
    of = f"of the edge {shown_pair(pair)}"
    return EdgeRow(
        hits=checks.check_count(hits, name=f"hit_count {of}"),
        scores=_scores(scores)[-most:],
        last_seen=validation.check_time(seen, name=f"last_seen {of}"),
    )


def plain_rows(given: Mapping[Any, Any], most: int) -> dict[tuple[str, str], EdgeRow] | None:
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
        (src, tgt) if src <= tgt else (tgt, src): EdgeRow(count, listed[-most:], seen)
        for (src, tgt), count, listed, seen in zip(keys, hits, scores, times, strict=True)
    }


def _scores(values: object) -> list[float]:
    if not isinstance(values, (list, tuple, np.ndarray)):  # a generator has none left to store
        raise InvalidInputError(f"scores is a {type(values).__name__}; pass a list of numbers.")
    listed = list(values)
    return listed if validation.all_measures(listed) else [score_of(value) for value in listed]


def score_of(value: object) -> float:
    return validation.check_measure(value, name="score")


def edge_params(
    keys: list[tuple[str, str]], rows: Mapping[tuple[str, str], EdgeRow]
) -> dict[str, Any]:
    return {
        "srcs": [key[0] for key in keys],
        "tgts": [key[1] for key in keys],
        "hits": [rows[key].hits for key in keys],
        # As json writes floats, in a third of the time.
        "scores": [f"[{','.join(map(repr, rows[key].scores))}]" for key in keys],
        "times": [rows[key].last_seen for key in keys],
    }


def edge_stats(row: Any) -> EdgeStats:
    hit_count, scores, last_seen = row
    return EdgeStats(hit_count, json.loads(scores), last_seen or "")
