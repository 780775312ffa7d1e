"""Edges: pairs seen together, with hit counts and their newest scores."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import (
    ARRAY,
    DateTime,
    Integer,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    literal_column,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from qortex_db.errors import InvalidInputError
from qortex_db.models import InteroceptionEdge
from qortex_db.repositories import validation
from qortex_db.types import JsonText

if TYPE_CHECKING:
    from qortex_db.engine import Executor

MAX_SCORES: Final = 100
"""How many scores of an edge are kept, the newest."""
_PART_ROWS: Final = 250

_edges: Any = InteroceptionEdge.__table__
_STATS = (
    _edges.c.hit_count,
    type_coerce(cast(_edges.c.scores, Text), JsonText()),
    _edges.c.last_seen,
)


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
        return sum(self.scores) / len(self.scores) if self.scores else 0.0


class EdgeStatsLike(Protocol):
    """Any object with the attributes of `EdgeStats`, such as qortex's own."""

    @property
    def hit_count(self) -> int: ...
    @property
    def scores(self) -> list[float]: ...
    @property
    def last_seen(self) -> str: ...


@dataclass(frozen=True, slots=True)
class EdgeSummary:
    """The buffer at a glance."""

    count: int
    total_hits: int
    mean_hits: float
    max_hits: int


def _pairs() -> Any:
    return (
        func.unnest(cast(bindparam("srcs"), ARRAY(Text)), cast(bindparam("tgts"), ARRAY(Text)))
        .table_valued(column("src_id", Text), column("tgt_id", Text))
        .render_derived(name="pairs")
    )


def _upsert() -> Any:
    # In a select list unnest() streams; in FROM its rows are put aside first.
    arrays: dict[str, tuple[str, Any]] = {
        "src_id": ("srcs", Text),
        "tgt_id": ("tgts", Text),
        "hit_count": ("hits", Integer),
        "scores": ("scores", Text),
        "last_seen": ("times", DateTime(timezone=True)),
    }
    rows = select(
        *(
            func.unnest(cast(bindparam(name), ARRAY(kind)), type_=kind).label(column_name)
            for column_name, (name, kind) in arrays.items()
        )
    ).subquery("rows")
    return insert(_edges).from_select(
        ["src_id", "tgt_id", "hit_count", "scores", "last_seen"],
        select(
            rows.c.src_id,
            rows.c.tgt_id,
            rows.c.hit_count,
            cast(rows.c.scores, JSONB),
            func.coalesce(rows.c.last_seen, func.now()),
        ),
    )


def _save() -> Any:
    statement = _upsert()
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[_edges.c.src_id, _edges.c.tgt_id],
        set_={"hit_count": new.hit_count, "scores": new.scores, "last_seen": new.last_seen},
    )


def _record() -> Any:
    statement = _upsert()
    new = statement.excluded
    newest = func.jsonb_path_query_array(
        _edges.c.scores.op("||")(new.scores),
        literal_column(f"'$[last-{MAX_SCORES - 1} to last]'::jsonpath"),
        type_=JSONB,
    )
    return statement.on_conflict_do_update(
        index_elements=[_edges.c.src_id, _edges.c.tgt_id],
        set_={
            "hit_count": _edges.c.hit_count + new.hit_count,
            "scores": newest,
            "last_seen": new.last_seen,
        },
    ).returning(*_STATS)


_LOAD = select(_edges.c.src_id, _edges.c.tgt_id, *_STATS)
_GET = select(*_STATS).where(
    _edges.c.src_id == bindparam("src"), _edges.c.tgt_id == bindparam("tgt")
)
_SAVE = _save()
_RECORD = _record()
_listed = _pairs()
_LOCKED = (
    select(_edges.c.src_id, _edges.c.tgt_id)
    .where(tuple_(_edges.c.src_id, _edges.c.tgt_id).in_(select(_listed.c.src_id, _listed.c.tgt_id)))
    .order_by(_edges.c.src_id.collate("C"), _edges.c.tgt_id.collate("C"))
    .with_for_update()
    .cte("keys")
    .prefix_with("MATERIALIZED")
)
_REMOVE = delete(_edges).where(
    _edges.c.src_id == _LOCKED.c.src_id, _edges.c.tgt_id == _LOCKED.c.tgt_id
)
_SUMMARY = select(
    func.count(),
    func.sum(_edges.c.hit_count),
    func.avg(_edges.c.hit_count),
    func.max(_edges.c.hit_count),
)


def edge_key(src: object, tgt: object) -> tuple[str, str]:
    """The key of an undirected edge: the sorted pair."""
    first = validation.check_id(src, name="src_id")
    second = validation.check_id(tgt, name="tgt_id")
    return (first, second) if first <= second else (second, first)


def _edge_keys(keys: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    if isinstance(keys, (str, bytes)):
        raise InvalidInputError("keys has to be a list of (src_id, tgt_id) pairs.")
    return sorted({_edge_key(key) for key in keys})


def _edge_key(key: tuple[str, str]) -> tuple[str, str]:
    if isinstance(key, (str, bytes)) or len(key) != 2:  # noqa: PLR2004 - a pair
        raise InvalidInputError("keys has to be a list of (src_id, tgt_id) pairs.")
    return edge_key(*key)


def _scores(values: list[float]) -> list[float]:
    return values if validation.all_finite(values) else [_score(value) for value in values]


def _score(value: object) -> float:
    return validation.check_number(value, name="score")


class EdgeRepository:
    """The buffer of observed edges."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def load(self) -> dict[tuple[str, str], EdgeStats]:
        """Every buffered edge by its sorted pair."""
        rows = (await self._executor.run(_LOAD, {})).rows
        return {(row[0], row[1]): _stats(row[2:]) for row in rows}

    async def get(self, src: str, tgt: str) -> EdgeStats:
        """One edge, in either direction; zeros if it was never observed."""
        first, second = edge_key(src, tgt)
        rows = (await self._executor.run(_GET, {"src": first, "tgt": second})).rows
        return _stats(rows[0]) if rows else EdgeStats()

    async def save(self, edges: Mapping[tuple[str, str], EdgeStatsLike]) -> None:
        """Store edges over what is there; what is absent stays, and "" as `last_seen` means now.

        Raises:
            InvalidInputError: A key, count, score or time was refused; nothing was stored.
        """
        if not isinstance(edges, Mapping):
            raise InvalidInputError("edges has to be a mapping of pairs to EdgeStats.")
        rows: dict[tuple[str, str], list[Any]] = {}
        for key, stats in edges.items():
            rows[_edge_key(key)] = [
                validation.check_count(stats.hit_count, name="hit_count"),
                _scores(stats.scores)[-MAX_SCORES:],
                validation.check_time(stats.last_seen, name="last_seen"),
            ]
        if rows:  # in parts, the next made while the server works on those before
            keys = sorted(rows)
            parts = (
                _params(keys[start : start + _PART_ROWS], rows)
                for start in range(0, len(keys), _PART_ROWS)
            )
            await self._executor.run_all(_SAVE, parts)

    async def record(self, src: str, tgt: str, *, score: float) -> EdgeStats:
        """Count one observation of a pair, atomically.

        Args:
            src: One id.
            tgt: The other; the direction does not matter.
            score: The similarity, any finite number.

        Returns:
            The edge as it is now.
        """
        rows = await self._record({edge_key(src, tgt): [1, [_score(score)], None]})
        return _stats(rows[0])

    async def record_many(self, observations: Iterable[tuple[str, str, float]]) -> int:
        """Count many observations in one statement.

        Returns:
            How many edges were touched.
        """
        scores: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for item in observations:
            if isinstance(item, (str, bytes)) or len(item) != 3:  # noqa: PLR2004 - a triple
                raise InvalidInputError("An observation is a triple (src_id, tgt_id, score).")
            src, tgt, score = item
            scores[edge_key(src, tgt)].append(_score(score))
        rows = {key: [len(values), values[-MAX_SCORES:], None] for key, values in scores.items()}
        return len(await self._record(rows))

    async def remove(self, keys: Iterable[tuple[str, str]]) -> int:
        """Forget edges.

        Returns:
            How many were there; unknown ones are ignored.
        """
        pairs = _edge_keys(keys)
        if not pairs:
            return 0
        params = {"srcs": [pair[0] for pair in pairs], "tgts": [pair[1] for pair in pairs]}
        return (await self._executor.run(_REMOVE, params)).rowcount

    async def summary(self) -> EdgeSummary:
        """Counts over the buffer, by one statement."""
        count, total, mean, most = (await self._executor.run(_SUMMARY, {})).rows[0]
        return EdgeSummary(count, int(total or 0), float(mean or 0.0), int(most or 0))

    async def _record(self, rows: Mapping[tuple[str, str], list[Any]]) -> Sequence[Any]:
        if not rows:
            return ()
        return (await self._executor.run(_RECORD, _params(sorted(rows), rows))).rows


def _params(
    keys: list[tuple[str, str]], rows: Mapping[tuple[str, str], list[Any]]
) -> dict[str, Any]:
    return {
        "srcs": [key[0] for key in keys],
        "tgts": [key[1] for key in keys],
        "hits": [rows[key][0] for key in keys],
        "scores": [json.dumps(rows[key][1]) for key in keys],
        "times": [rows[key][2] for key in keys],
    }


def _stats(row: Any) -> EdgeStats:
    hit_count, scores, last_seen = row
    return EdgeStats(hit_count, scores, last_seen.isoformat() if last_seen else "")
