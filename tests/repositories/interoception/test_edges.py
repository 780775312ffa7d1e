"""Edges: promotions, each to exactly one caller, while others record."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qortex_db import Database, EdgeStats, EdgeSummary, Promotion
from qortex_db.testing.factories import EdgeStatsFactory
from support.commands import program


class UndoneError(Exception):
    """What a promoter of these tests fails with."""


def keys(promotions: list[Promotion]) -> list[tuple[str, str]]:
    return [(promotion.src_id, promotion.tgt_id) for promotion in promotions]


async def fill(db: Database, count: int) -> list[tuple[str, str]]:
    """Edges that are ready, with more hits from the first to the last."""
    pairs = [("a", f"b{number:03}") for number in range(count)]
    stats = (EdgeStatsFactory.build(ready=True, hit_count=3 + number) for number in range(count))
    await db.edges.save(dict(zip(pairs, stats, strict=True)))
    return pairs


async def test_edges_at_or_above_both_thresholds_are_promoted_and_removed(db: Database) -> None:
    await db.edges.save(
        {
            ("a", "exact"): EdgeStats(3, [0.5, 1.0, 0.75]),
            ("b", "many"): EdgeStats(9, [0.8]),
            ("c", "few"): EdgeStats(2, [0.9, 0.9]),
            ("d", "low"): EdgeStats(30, [0.7, 0.74]),
            ("e", "empty"): EdgeStats(5, []),
        }
    )
    assert await db.edges.summary() == EdgeSummary(5, 49, 9.8, 30, 2)
    assert await db.edges.promote() == [
        Promotion("b", "many", 9, 0.8),
        Promotion("a", "exact", 3, 0.75),
    ]
    assert {pair[0] for pair in await db.edges.load()} == {"c", "d", "e"}
    assert await db.edges.promote() == []
    assert (await db.edges.summary(min_hits=5, min_avg_score=0.0)).ready_to_promote == 2
    promoted = await db.edges.promote(min_hits=5, min_avg_score=0.0)
    assert [(p.src_id, p.avg_score) for p in promoted] == [("d", 0.72), ("e", 0.0)]
    assert keys(await db.edges.promote(min_hits=0, min_avg_score=-1.0)) == [("c", "few")]


async def test_a_limit_takes_most_hits_first_then_the_best_then_by_key(db: Database) -> None:
    await db.edges.save(
        {
            ("a", "Z"): EdgeStats(5, [0.8]),
            ("a", "c"): EdgeStats(5, [0.8]),
            ("a", "d"): EdgeStats(5, [0.9]),
            ("a", "e"): EdgeStats(7, [0.75]),
            ("a", "f"): EdgeStats(4, [1.0]),
        }
    )
    taken = [keys(await db.edges.promote(limit=2)) for _ in range(4)]
    assert taken == [[("a", "e"), ("a", "d")], [("Z", "a"), ("a", "c")], [("a", "f")], []]


SCORES = st.lists(st.floats(-1e6, 1e6), max_size=120)


def test_the_mean_is_that_of_edge_stats_to_the_last_digit(dsn: str) -> None:
    with asyncio.Runner() as runner:
        db = runner.run(Database.connect(dsn).open())

        @settings(
            max_examples=100,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(SCORES)
        def check(scores: list[float]) -> None:
            runner.run(db.edges.save({("a", "b"): EdgeStatsFactory.build(scores=scores)}))
            stats = runner.run(db.edges.get("a", "b"))
            # It is what decides, too: at the mean itself the edge is ready, above it is not.
            options = {"min_hits": 1, "min_avg_score": stats.avg_score}
            assert runner.run(db.edges.summary(**options)).ready_to_promote == 1
            assert runner.run(db.edges.promote(**options)) == [
                Promotion("a", "b", 1, stats.avg_score)
            ]

        try:
            check()
        finally:
            runner.run(db.close())


async def test_a_promotion_that_fails_leaves_the_edges(db: Database) -> None:
    await fill(db, 3)
    before = await db.edges.load()
    with suppress(UndoneError):
        async with db.unit_of_work() as uow:
            assert len(await uow.edges.promote()) == 3
            await uow.factors.adjust({"a": "accepted"})
            raise UndoneError
    assert await db.edges.load() == before
    assert await db.factors.load() == {}
    async with db.unit_of_work() as uow:
        promoted = await uow.edges.promote(limit=2)
        await uow.factors.save({promotion.tgt_id: promotion.avg_score for promotion in promoted})
    assert await db.factors.load() == {"b001": 0.9, "b002": 0.9}
    assert list(await db.edges.load()) == [("a", "b000")]


async def test_promoters_do_not_wait_for_one_another(db: Database) -> None:
    pairs = await fill(db, 5)
    async with db.unit_of_work() as slow:
        first = await slow.edges.promote(limit=3)
        second = await asyncio.wait_for(db.edges.promote(), 5)
        assert await asyncio.wait_for(db.edges.promote(), 5) == []
    assert keys(first) + keys(second) == pairs[::-1]


async def test_an_edge_that_is_being_recorded_is_left_to_a_later_call(db: Database) -> None:
    await fill(db, 2)
    async with db.unit_of_work() as uow:
        await uow.edges.record("a", "b001", score=0.9)
        assert keys(await asyncio.wait_for(db.edges.promote(), 5)) == [("a", "b000")]
    assert [(p.tgt_id, p.hit_count) for p in await db.edges.promote()] == [("b001", 5)]


@pytest.mark.parametrize("is_committed", [True, False])
async def test_what_is_recorded_during_a_promotion_is_counted_after_it(
    db: Database, is_committed: bool
) -> None:
    await fill(db, 1)
    with suppress(UndoneError):
        async with db.unit_of_work() as uow:
            [promotion] = await uow.edges.promote()
            recording = asyncio.ensure_future(db.edges.record("a", "b000", score=0.5))
            await asyncio.sleep(0.1)
            assert not recording.done()
            if not is_committed:
                raise UndoneError
    recorded = await asyncio.wait_for(recording, 5)
    assert promotion.hit_count == 3
    assert (recorded.hit_count, recorded.scores) == (
        (1, [0.5]) if is_committed else (4, [0.9, 0.5])
    )


async def test_many_promoters_share_the_edges_among_them(db: Database) -> None:
    pairs = await fill(db, 200)
    taken: list[tuple[str, str]] = []

    async def promote(number: int) -> None:
        while promotions := await db.edges.promote(limit=1 + number % 7):
            taken.extend(keys(promotions))

    await asyncio.gather(*(promote(number) for number in range(16)))
    assert sorted(taken) == pairs
    assert await db.edges.load() == {}


@pytest.mark.slow
async def test_every_hit_of_many_processes_is_promoted_once_or_still_there(
    dsn: str, db: Database
) -> None:
    worker = str(Path(__file__).with_name("interoception_worker.py"))
    done = await asyncio.gather(
        *(program(sys.executable, worker, dsn, str(seed)) for seed in range(3))
    )
    hits: Counter[str] = Counter()
    accounted: Counter[str] = Counter()
    for result in done:
        assert result.code == 0, result.err
        told = json.loads(result.out)
        assert told["taken"]
        hits.update(told["hits"])
        accounted.update(told["taken"])
    for pair, stats in (await db.edges.load()).items():
        accounted[" ".join(pair)] += stats.hit_count
    assert accounted == hits
    assert hits.total() > 200


async def test_an_edge_keeps_as_many_scores_as_it_is_told(db: Database) -> None:
    scores = [number / 300 for number in range(300)]
    await db.edges.record_many([("a", "b", score) for score in scores], max_scores=250)
    stats = await db.edges.record("b", "a", score=1.0, max_scores=250)
    assert (stats.hit_count, stats.scores) == (301, [*scores[-249:], 1.0])
    stats = await db.edges.record("a", "b", score=0.5, max_scores=1)
    assert (stats.hit_count, stats.scores) == (302, [0.5])
    await db.edges.save({("a", "b"): EdgeStatsFactory.build(scores=scores)}, max_scores=200)
    assert (await db.edges.get("a", "b")).scores == scores[-200:]
