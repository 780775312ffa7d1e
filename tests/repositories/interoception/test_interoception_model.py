"""Factors and edges beside plain Python models, through any sequence of calls."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from qortex_db import Database, EdgeStats, EdgeSummary, Promotion

pytestmark = pytest.mark.slow

HALF_LIFE = 1e8  # so long that what a test takes is nothing
DELTAS = {"accepted": 0.1, "rejected": -0.05, "partial": 0.03}
NODES = st.sampled_from(["a", "b", "c", "ä", "Z"])
PAIRS = st.tuples(NODES, NODES)
SCORES = st.floats(-1, 1)


class Machine(RuleBasedStateMachine):
    """Calls on one connection, each example on empty tables."""

    runner: asyncio.Runner
    db: Database

    def __init__(self) -> None:
        super().__init__()
        self.sql("TRUNCATE interoception_factors, interoception_edge_buffer")

    def call(self, awaitable: Any) -> Any:
        return self.runner.run(awaitable)

    def sql(self, statement: str, **params: object) -> None:
        async def run() -> None:
            async with self.db.unit_of_work() as uow:
                await uow.session.execute(text(statement), params)

        self.call(run())


class Factors(Machine):
    """The model: a weight by node, and how long ago it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, float] = {}
        self.elapsed: dict[str, float] = {}
        self.copy: dict[str, float] = {}
        self.cursor: str | None = None

    def decayed(self, node: str, half_life: float) -> float:
        distance = self.weights.get(node, 1.0) - 1
        return 1 + distance * 0.5 ** (self.elapsed.get(node, 0.0) / half_life)

    def write(self, node: str, weight: float) -> None:
        self.weights[node] = weight
        self.elapsed[node] = 0.0

    @rule(seconds=st.floats(0, 3 * HALF_LIFE))
    def time_passes(self, seconds: float) -> None:
        self.sql(
            "UPDATE interoception_factors SET updated_at = updated_at - make_interval(secs => :s)",
            s=seconds,
        )
        for node in self.elapsed:
            self.elapsed[node] += seconds

    @rule(weights=st.dictionaries(NODES, st.floats(0, 6)))
    def save(self, weights: dict[str, float]) -> None:
        self.call(self.db.factors.save(weights))
        for node, weight in weights.items():
            self.write(node, weight)

    @rule(
        outcomes=st.dictionaries(NODES, st.sampled_from(list(DELTAS))),
        half_life=st.sampled_from([None, HALF_LIFE]),
    )
    def adjust(self, outcomes: dict[str, str], half_life: float | None) -> None:
        given = self.call(self.db.factors.adjust(outcomes, half_life=half_life))
        for node, outcome in outcomes.items():
            weight = self.decayed(node, half_life or math.inf) + DELTAS[outcome]
            self.write(node, min(5.0, max(0.1, weight)))
        assert given == pytest.approx({node: self.weights[node] for node in outcomes}, rel=1e-5)

    @rule(nodes=st.none() | st.lists(NODES))
    def decay(self, nodes: list[str] | None) -> None:
        self.call(self.db.factors.decay(half_life=HALF_LIFE, node_ids=nodes))
        for node in self.weights.keys() & set(self.weights if nodes is None else nodes):
            self.write(node, self.decayed(node, HALF_LIFE))

    @rule(nodes=st.lists(NODES))
    def delete(self, nodes: list[str]) -> None:
        found = self.weights.keys() & set(nodes)
        assert self.call(self.db.factors.delete(nodes)) == len(found)
        for node in found:
            del self.weights[node], self.elapsed[node]

    @rule(nodes=st.lists(NODES, unique=True))
    def weigh_seeds(self, nodes: list[str]) -> None:
        shares = self.call(self.db.factors.weight_seeds(nodes))
        weights = {node: self.weights.get(node, 1.0) for node in nodes}
        total = sum(weights.values())
        assert list(shares) == nodes
        if total > 1e-6:
            expected = {node: weight / total for node, weight in weights.items()}
            assert shares == pytest.approx(expected, rel=1e-5, abs=1e-9)

    @rule()
    def follow(self) -> None:
        changes = self.call(self.db.factors.changes(self.cursor))
        self.copy |= changes.weights
        assert changes.count == len(self.weights)
        if len(self.copy) > changes.count:
            changes = self.call(self.db.factors.changes())
            self.copy = changes.weights
        self.cursor = changes.cursor
        assert self.copy == self.call(self.db.factors.load())

    @invariant()
    def same_weights_and_summary(self) -> None:
        stored = self.call(self.db.factors.load())
        assert stored == pytest.approx(self.weights, rel=1e-5, abs=1e-9)
        summary = self.call(self.db.factors.summary())
        weights = list(stored.values())
        total = sum(weights)
        entropy = -sum(w / total * math.log2(w / total) for w in weights if total and w / total)
        assert (summary.count, summary.min, summary.max) == (
            len(weights),
            min(weights, default=1.0),
            max(weights, default=1.0),
        )
        assert summary.boosted == sum(weight > 1 for weight in weights)
        assert summary.penalised == sum(weight < 1 for weight in weights)
        assert summary.mean == pytest.approx(total / len(weights) if weights else 1.0)
        assert summary.entropy == pytest.approx(entropy, abs=1e-9)


def timeless(stats: EdgeStats) -> EdgeStats:
    """All but the server's time."""
    return replace(stats, last_seen="")


class Edges(Machine):
    """The model: stats by sorted pair."""

    def __init__(self) -> None:
        super().__init__()
        self.edges: dict[tuple[str, str], EdgeStats] = {}

    def observe(self, pair: tuple[str, str], score: float, most: int) -> EdgeStats:
        first, second = sorted(pair)
        stats = self.edges.setdefault((first, second), EdgeStats())
        stats.hit_count += 1
        stats.scores = [*stats.scores, score][-most:]
        return stats

    @rule(pair=PAIRS, score=SCORES, most=st.integers(1, 5))
    def record(self, pair: tuple[str, str], score: float, most: int) -> None:
        given = self.call(self.db.edges.record(*pair, score=score, max_scores=most))
        expected = self.observe(pair, score, most)
        assert timeless(given) == timeless(expected)

    @rule(observations=st.lists(st.tuples(NODES, NODES, SCORES), max_size=20))
    def record_many(self, observations: list[tuple[str, str, float]]) -> None:
        touched = {tuple(sorted((src, tgt))) for src, tgt, _ in observations}
        assert self.call(self.db.edges.record_many(observations)) == len(touched)
        for src, tgt, score in observations:
            self.observe((src, tgt), score, 100)

    @rule(pair=PAIRS, hits=st.integers(0, 9), scores=st.lists(SCORES, max_size=4))
    def save(self, pair: tuple[str, str], hits: int, scores: list[float]) -> None:
        self.call(self.db.edges.save({pair: EdgeStats(hits, scores)}))
        first, second = sorted(pair)
        self.edges[first, second] = EdgeStats(hits, scores)

    @rule(pairs=st.lists(PAIRS, max_size=3))
    def remove(self, pairs: list[tuple[str, str]]) -> None:
        found = self.edges.keys() & {tuple(sorted(pair)) for pair in pairs}
        assert self.call(self.db.edges.remove(pairs)) == len(found)
        for pair in found:
            del self.edges[pair]

    def ready(self, min_hits: int, min_avg_score: float) -> list[Promotion]:
        found = [
            Promotion(*pair, stats.hit_count, stats.avg_score)
            for pair, stats in sorted(self.edges.items())
            if stats.hit_count >= min_hits and stats.avg_score >= min_avg_score
        ]
        return sorted(found, key=lambda p: (-p.hit_count, -p.avg_score))

    @rule(
        min_hits=st.integers(0, 9),
        min_avg_score=st.sampled_from([-1.0, 0.0, 0.25, 0.75]),
        limit=st.none() | st.integers(1, 4),
        is_kept=st.booleans(),
    )
    def promote(
        self, min_hits: int, min_avg_score: float, limit: int | None, *, is_kept: bool
    ) -> None:
        async def run() -> list[Promotion]:
            options: Any = {"min_hits": min_hits, "min_avg_score": min_avg_score, "limit": limit}
            async with self.db.unit_of_work() as uow:
                given = await uow.edges.promote(**options)
                if not is_kept:
                    await uow.session.rollback()
                return given

        expected = self.ready(min_hits, min_avg_score)[:limit]
        assert self.call(run()) == expected
        if is_kept:
            for promotion in expected:
                del self.edges[promotion.src_id, promotion.tgt_id]

    @invariant()
    def same_edges_and_summary(self) -> None:
        stored = self.call(self.db.edges.load())
        assert {pair: timeless(stats) for pair, stats in stored.items()} == {
            pair: timeless(stats) for pair, stats in self.edges.items()
        }
        hits = [stats.hit_count for stats in self.edges.values()]
        assert self.call(self.db.edges.summary(min_hits=2, min_avg_score=0.25)) == EdgeSummary(
            len(hits),
            sum(hits),
            pytest.approx(sum(hits) / len(hits) if hits else 0.0),
            max(hits, default=0),
            len(self.ready(2, 0.25)),
        )


@pytest.mark.parametrize("machine", [Factors, Edges])
def test_any_sequence_of_calls_does_what_the_model_does(dsn: str, machine: type[Machine]) -> None:
    with asyncio.Runner() as runner:
        machine.runner, machine.db = runner, runner.run(Database.connect(dsn).open())
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=40,
                    stateful_step_count=20,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(machine.db.close())
