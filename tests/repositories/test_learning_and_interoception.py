from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from qortex_db import ALL_CONTEXTS, Arm, ArmState, Database, EdgeStats, context_hash
from qortex_db.learning import select
from qortex_db.testing.factories import ArmStateFactory, EdgeStatsFactory, VectorRecordFactory


async def test_outcomes_move_weights_by_qortex_numbers_within_bounds(db: Database) -> None:
    outcomes = {"a": "accepted", "r": "rejected", "p": "partial"}
    assert await db.factors.adjust(outcomes) == {"a": 1.0 + 0.1, "r": 1.0 - 0.05, "p": 1.0 + 0.03}
    again = await db.factors.adjust(outcomes)
    assert again == {"a": 1.0 + 0.1 + 0.1, "r": 1.0 - 0.05 - 0.05, "p": 1.0 + 0.03 + 0.03}
    await db.factors.save({"a": 4.95, "r": 0.12})
    assert await db.factors.adjust({"a": "accepted", "r": "rejected"}) == {"a": 5.0, "r": 0.1}


async def test_factors_are_read_with_their_default(db: Database) -> None:
    await db.factors.save({"a": 3.0, "b": 0.0})
    assert await db.factors.load() == {"a": 3.0, "b": 0.0}
    assert await db.factors.get(["z", "a"]) == {"z": 1.0, "a": 3.0}
    assert await db.factors.weight_seeds(["z", "a"]) == {"z": 0.25, "a": 0.75}
    assert await db.factors.weight_seeds(["b"]) == {"b": 1.0}
    assert await db.factors.weight_seeds([]) == {}
    assert await db.factors.delete(["a", "nobody"]) == 1


async def test_the_summary_of_factors_is_arithmetic(db: Database) -> None:
    assert (await db.factors.summary()).count == 0
    weights = {"a": 2.0, "b": 1.0, "c": 0.5}
    await db.factors.save(weights)
    summary = await db.factors.summary()
    shares = [weight / 3.5 for weight in weights.values()]
    assert (summary.count, summary.min, summary.max) == (3, 0.5, 2.0)
    assert (summary.boosted, summary.penalised) == (1, 1)
    assert summary.mean == pytest.approx(3.5 / 3)
    assert summary.entropy == pytest.approx(-sum(p * math.log2(p) for p in shares))


async def test_an_edge_is_undirected_and_keeps_its_newest_hundred_scores(db: Database) -> None:
    assert await db.edges.get("a", "b") == EdgeStats()
    first = await db.edges.record("b", "a", score=0.5)
    assert (first.hit_count, first.scores) == (1, [0.5])
    scores = [i / 200 for i in range(150)]
    assert await db.edges.record_many([("a", "b", score) for score in scores]) == 1
    stats = await db.edges.get("b", "a")
    assert stats.hit_count == 151
    assert stats.scores == scores[-100:]
    await db.edges.record("a", "b", score=0.9)
    stats = (await db.edges.load())["a", "b"]
    assert stats.scores == [*scores[-99:], 0.9]
    assert stats.avg_score == pytest.approx(sum(stats.scores) / 100)
    assert stats.last_seen.endswith("+00:00")


async def test_edges_are_saved_over_what_is_there_and_removed(db: Database) -> None:
    old = EdgeStatsFactory.build(hit_count=3, old=True)
    await db.edges.save({("z", "a"): old})
    await db.edges.save({("c", "d"): EdgeStatsFactory.build()})
    loaded = await db.edges.load()
    assert loaded["a", "z"] == old
    assert (await db.edges.summary()).total_hits == 4
    assert await db.edges.remove([("z", "a"), ("no", "body")]) == 1
    assert list(await db.edges.load()) == [("c", "d")]


async def test_rewards_add_to_the_beta_posterior(db: Database) -> None:
    assert await db.arms.get("l", "x") == ArmState()
    assert await db.arms.contexts("l") == []
    state = await db.arms.observe("l", "x", reward=0.25)
    assert (state.alpha, state.beta, state.pulls, state.total_reward) == (1.25, 1.75, 1, 0.25)
    states = await db.arms.observe_many("l", [("x", 1), ("y", 0.5), ("x", 0)])
    assert (states["x"].alpha, states["x"].beta, states["x"].pulls) == (2.25, 2.75, 3)
    assert await db.arms.get("l", "x") == states["x"]
    assert await db.arms.get("other", "x") == ArmState()


async def test_contexts_partition_arms(db: Database) -> None:
    await db.arms.observe("l", "x", reward=1, context={"task": "a"})
    await db.arms.observe("l", "x", reward=0)
    assert (await db.arms.get("l", "x", context={"task": "a"})).alpha == 2
    assert (await db.arms.get("l", "x", context={})).alpha == 1
    hashes = [context_hash({"task": "a"}), "default"]
    assert await db.arms.contexts("l") == sorted(hashes)
    assert {key: list(arms) for key, arms in (await db.arms.get_all_states("l")).items()} == {
        key: ["x"] for key in hashes
    }
    assert await db.arms.delete("l") == 1
    assert await db.arms.delete("l", ["x"], context=ALL_CONTEXTS) == 1


async def test_top_orders_by_the_mean(db: Database) -> None:
    for arm, reward in (("good", 1), ("bad", 0), ("fair", 0.5)):
        await db.arms.observe("l", arm, reward=reward)
    assert [arm for arm, _ in await db.arms.top("l", k=2)] == ["good", "fair"]


async def test_put_overwrites_and_stamps(db: Database) -> None:
    old = ArmStateFactory.build(pulled=True, old=True)
    await db.arms.put("l", "x", old)
    assert await db.arms.get("l", "x") == old
    await db.arms.put("l", "x", ArmStateFactory.build())
    assert (await db.arms.get("l", "x")).last_updated.startswith("20")


def test_contexts_hash_as_qortex_stores_them() -> None:
    assert context_hash(None) == context_hash({}) == "default"
    assert context_hash({"task": "sql"}) == "974da0425b80e899"
    assert context_hash({"b": 1, "a": 2}) == context_hash({"a": 2, "b": 1})
    assert context_hash({"a": 1}) != context_hash({"a": 1.0})
    assert context_hash({"a": (1, 2)}) == context_hash({"a": [1, 2]})
    with pytest.raises(TypeError):
        context_hash({"a": {1}})


async def test_two_hundred_writers_of_one_key_are_each_counted(db: Database) -> None:
    n = 200
    await asyncio.gather(*(db.arms.observe("l", "x", reward=i % 2) for i in range(n)))
    await asyncio.gather(*(db.edges.record("a", "b", score=0.5) for _ in range(n)))
    await db.factors.save({"f": 1.0})
    outcomes = ["accepted"] * 30 + ["partial"] * 20
    await asyncio.gather(*(db.factors.adjust({"f": outcome}) for outcome in outcomes))
    state = await db.arms.get("l", "x")
    assert (state.alpha, state.beta, state.pulls, state.total_reward) == (101, 101, n, 100)
    assert (await db.edges.get("a", "b")).hit_count == n
    weights = await db.factors.get(["f"])
    assert weights["f"] == pytest.approx(1.0 + 30 * 0.1 + 20 * 0.03)


@pytest.mark.slow
async def test_batches_in_any_order_and_deletes_never_deadlock(db: Database) -> None:
    ids = [f"v{i:02}" for i in range(40)]

    async def write(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(ids)
        for _ in range(5):  # each time other embeddings
            rows = [VectorRecordFactory.build(id=str(key), dimensions=8) for key in order]
            await db.vectors.upsert(rows)
            await db.arms.observe_many("l", [(str(key), 1.0) for key in order])
            await db.vectors.delete([str(key) for key in order[:20]])

    await asyncio.gather(*(write(seed) for seed in range(8)))
    states = await db.arms.get_all("l")
    assert {state.pulls for state in states.values()} == {40}


async def test_a_seeded_selection_is_the_same_again(db: Database) -> None:
    await db.arms.observe_many("l", [("good", 1.0)] * 200 + [("bad", 0.0)] * 200)
    arms = ["bad", "good", "new"]
    one = await db.arms.select("l", arms, k=2, rng=np.random.default_rng(5))
    two = await db.arms.select("l", arms, k=2, rng=np.random.default_rng(5))
    assert one == two
    chosen = [
        (await db.arms.select("l", ["bad", "good"], baseline_rate=0)).selected[0] for _ in range(20)
    ]
    assert set(chosen) == {"good"}


ARMS = [Arm("a", 10), Arm("b", 20), Arm("c", 30)]
STATES = {"a": ArmState(9e6, 1, 9), "b": ArmState(5e6, 5e6, 9), "c": ArmState(1, 9e6, 0)}


@pytest.mark.parametrize(
    ("options", "selected", "tokens"),
    [
        ({"k": 1}, ("a",), 10),
        ({"k": 2}, ("a", "b"), 30),
        ({"k": 0}, ("a", "b", "c"), 60),
        ({"k": -1, "token_budget": 45}, ("a", "b"), 30),
        ({"k": 2, "token_budget": 40}, ("a", "b"), 30),
        ({"k": 3, "token_budget": 41}, ("a", "b"), 30),
        ({"k": 1, "min_pulls": 1}, ("c",), 30),
        ({"k": 2, "min_pulls": 1}, ("c", "a"), 40),
        ({"k": 2, "min_pulls": 1, "token_budget": 5}, ("c",), 30),
    ],
)
def test_selection_follows_qortex_rules(
    options: dict[str, int], selected: tuple[str, ...], tokens: int
) -> None:
    chosen = select(ARMS, STATES, baseline_rate=0, rng=np.random.default_rng(0), **options)
    assert (chosen.selected, chosen.used_tokens, chosen.is_baseline) == (selected, tokens, False)
    assert set(chosen.excluded) == {"a", "b", "c"} - set(selected)
    assert set(chosen.scores) == {"a", "b", "c"}


def test_a_baseline_round_chooses_by_chance() -> None:
    rng = np.random.default_rng(0)
    rounds = [select(ARMS, STATES, baseline_rate=1.0, rng=rng) for _ in range(300)]
    counts = {key: sum(chosen.selected == (key,) for chosen in rounds) for key in "abc"}
    assert all(chosen.is_baseline and set(chosen.scores.values()) == {0.5} for chosen in rounds)
    assert min(counts.values()) > 70
