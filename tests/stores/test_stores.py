"""qortex 0.8.1's contract for its PostgreSQL stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import asyncpg
import numpy as np
import pytest

from qortex_db import (
    ArmState,
    Database,
    DimensionMismatchError,
    PgVectorIndex,
    PostgresInteroceptionStore,
    PostgresLearningStore,
    QueryTimeoutError,
    SchemaVersionError,
    Settings,
    status,
)
from qortex_db.stores import events, vec
from qortex_db.testing.factories import ArmStateFactory, VectorRecordFactory, embedding
from support.catalogue import execute


@dataclass
class TheirEdgeStats:
    """The shape of qortex's own class."""

    hit_count: int = 0
    scores: list[float] = field(default_factory=list)
    last_seen: str = ""


@pytest.fixture
async def index(db: Database) -> PgVectorIndex:
    async with db.unit_of_work() as uow:
        connection = await uow.session.connection()
        await connection.exec_driver_sql("CREATE TABLE parity (id text PRIMARY KEY, vec vector(3))")
    return PgVectorIndex(db, dimensions=3, table_name="parity")


async def test_the_index_adds_searches_and_removes(index: PgVectorIndex) -> None:
    assert await index.size() == 0
    await index.add(["a", "b", "c"], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    assert await index.size() == 3
    results = await index.search([0.8, 0.2, 0.0], top_k=2)
    assert [key for key, _ in results] == ["a", "c"]
    assert all(type(score) is float for _, score in results)
    assert results[0][1] == pytest.approx(0.8 / np.hypot(0.8, 0.2), abs=1e-6)
    await index.add(["a"], [[0.0, 0.0, 1.0]])
    assert await index.size() == 3
    assert (await index.search([0, 0, 1]))[0] == ("a", pytest.approx(1.0))
    await index.remove(["a", "nobody"])
    assert await index.size() == 2
    await index.persist()


async def test_what_a_running_qortex_is_told_fails_no_writing_and_is_of_the_own_table(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "are_heard", lambda: True)
    monkeypatch.setattr(events, "tell", lambda _, **fields: told.append(fields))
    await execute(
        dsn,
        "CREATE SCHEMA mem",
        "CREATE TABLE mem.qortex_vectors (LIKE public.qortex_vectors INCLUDING ALL)",
        "INSERT INTO public.qortex_vectors (id) SELECT n::text FROM generate_series(1, 9) n",
        "ANALYZE public.qortex_vectors",
    )
    monkeypatch.setattr(status, "ESTIMATED_ROWS", 5)  # of more the planner is asked
    async with Database.connect(Settings(dsn=dsn, db_schema="mem")) as db:
        index = PgVectorIndex(db, dimensions=8)
        await index.add(["a", "b"], [embedding(0, 8), embedding(1, 8)])
        assert [event["total_size"] for event in told] == [2]
        monkeypatch.setattr(vec, "read_tables", _late)
        await index.add(["c"], [embedding(2, 8)])
        assert await index.size() == 3
    assert len(told) == 1


async def _late(*_: object) -> None:
    raise QueryTimeoutError("counting took too long")


async def test_the_threshold_is_included(index: PgVectorIndex) -> None:
    await index.add(["same", "across", "against"], [[1, 0, 0], [0, 1, 0], [-1, 0, 0]])
    assert [key for key, _ in await index.search([1, 0, 0], threshold=1.0)] == ["same"]
    assert [key for key, _ in await index.search([1, 0, 0])] == ["same", "across"]
    assert len(await index.search([1, 0, 0], threshold=-1.0)) == 3
    assert await index.search([1, 0, 0], threshold=2.0) == []


async def test_zero_vectors_are_kept_and_counted_and_never_found(index: PgVectorIndex) -> None:
    await index.add(["zero", "one"], [[0, 0, 0], [1, 0, 0]])
    assert await index.size() == 2
    assert [key for key, _ in await index.search([1, 0, 0], threshold=-1)] == ["one"]
    assert await index.search([0.0, 0.0, 0.0]) == []


async def test_vectors_without_a_cosine_are_kept_as_zeros_are(index: PgVectorIndex) -> None:
    await index.add(["long", "short", "one"], [[3e38] * 3, [1e-30] * 3, [1, 0, 0]])
    assert await index.size() == 3
    assert await index.search([3e38, 3e38, 3e38]) == []
    assert await index.search([1e-30, 0.0, 0.0]) == []


async def test_iter_all_gives_batches_of_lists(index: PgVectorIndex) -> None:
    await index.add([f"v{i}" for i in range(7)], [[i, 1, 2] for i in range(7)])
    batches = [batch async for batch in index.iter_all(batch_size=3)]
    assert [len(ids) for ids, _ in batches] == [3, 3, 1]
    assert batches[0][0] == ["v0", "v1", "v2"]
    assert batches[0][1][1] == [1.0, 1.0, 2.0]
    assert type(batches[0][1][1][0]) is float


async def test_lengths_that_differ_are_refused_in_qortex_words(index: PgVectorIndex) -> None:
    with pytest.raises(ValueError, match=r"ids \(2\) and embeddings \(1\) must match"):
        await index.add(["a", "b"], [[1, 0, 0]])
    await index.add([], [])
    assert await index.size() == 0


async def test_the_default_table_keeps_its_payload_when_the_index_adds(db: Database) -> None:
    record = VectorRecordFactory.build(dimensions=8, with_payload=True)
    await db.vectors.upsert([record])
    index = PgVectorIndex(db, dimensions=8)
    await index.add([record.id], [embedding(1, 8)])
    assert (await db.vectors.get([record.id]))[record.id].payload == record.payload
    await index.close()  # the Database is not its own
    assert await db.vectors.count() == 1


async def test_a_missing_table_says_which_migration_to_write(db: Database) -> None:
    index = PgVectorIndex(db, dimensions=5, table_name="no_such")
    with pytest.raises(SchemaVersionError, match=r"CREATE TABLE no_such .*vector\(5\)"):
        await index.size()
    with pytest.raises(DimensionMismatchError, match=r"5.*8"):
        await PgVectorIndex(db, dimensions=5).size()
    for name in ('a"; DROP TABLE x', "UPPER", "1st", ""):
        with pytest.raises(ValueError, match="table_name"):
            PgVectorIndex(db, table_name=name)


async def test_an_index_of_its_own_database_opens_late_and_closes(dsn: str) -> None:
    index = PgVectorIndex(dsn, dimensions=8, pool_size=1)
    await index.add(["a"], [[1] * 8])
    await index.close()
    await index.close()
    assert await index.size() == 1  # and opens again
    await index.close()
    PgVectorIndex("postgresql://nobody@127.0.0.1:1/none")  # no I/O


async def test_the_interoception_store(db: Database) -> None:
    store = PostgresInteroceptionStore(db)
    await store.save_factor("node_a", 1.0)
    await store.save_factor("node_a", 2.0)
    await store.save_factors({f"node_{i}": float(i) for i in range(10)})
    await store.save_factors({})
    factors = await store.load_factors()
    assert len(factors) == 11
    assert (factors["node_a"], factors["node_5"]) == (2.0, 5.0)

    buffer = {
        ("a", "b"): TheirEdgeStats(3, [0.9, 0.8, 0.7], "2025-01-01"),
        ("c", "d"): TheirEdgeStats(1, [0.5], "t2"),
    }
    await store.save_edges(buffer)
    await store.save_edges({("c", "d"): TheirEdgeStats(5, [0.9])})
    await store.save_edges({})
    loaded = await store.load_edges()
    assert loaded["a", "b"].scores == [0.9, 0.8, 0.7]
    assert loaded["c", "d"].hit_count == 5
    assert loaded["a", "b"].last_seen > "2026"
    loaded["a", "b"].scores.append(1.0)  # qortex's buffer goes on counting in these objects
    loaded["a", "b"].hit_count += 1
    await store.remove_edges([("a", "b"), ("no", "body")])
    await store.remove_edges([])
    assert list(await store.load_edges()) == [("c", "d")]
    await store.close()
    assert await store.load_factors() == factors


async def test_the_learning_store(db: Database) -> None:
    store = PostgresLearningStore("learner", db)
    assert await store.get("nobody") == ArmState(1.0, 1.0, 0, 0.0, "")
    assert await store.get_all() == {}
    given = ArmStateFactory.build(pulled=True, old=True)
    await store.put("a", given)
    assert await store.get("a") == given
    assert (await store.get("a")).to_dict() == given.to_dict()
    await store.put("a", ArmStateFactory.build(pulls=10))
    assert (await store.get("a")).pulls == 10
    await store.put("a", given, {"task": "x"})
    assert set(await store.get_all_states()) == set(await store.get_all_contexts())
    assert len(await store.get_all_contexts()) == 2
    other = PostgresLearningStore("other", db)
    assert await other.get_all() == {}
    await store.save()
    await store.close()


@pytest.mark.parametrize(
    ("arguments", "count", "left"),
    [
        (([], None), 0, {"default": {"a", "b"}, "ctx": {"a"}}),
        (([], {"task": "x"}), 0, {"default": {"a", "b"}, "ctx": {"a"}}),
        ((None, None), 3, {}),
        ((None, {}), 2, {"ctx": {"a"}}),
        ((None, {"task": "x"}), 1, {"default": {"a", "b"}}),
        ((["a"], None), 1, {"default": {"b"}, "ctx": {"a"}}),
        ((["a", "nobody"], {"task": "x"}), 1, {"default": {"a", "b"}}),
    ],
)
async def test_delete_keeps_qortex_rule(
    db: Database, arguments: tuple[Any, Any], count: int, left: dict[str, set[str]]
) -> None:
    store = PostgresLearningStore("learner", db)
    keeper = PostgresLearningStore("other", db)
    state = ArmStateFactory.build()
    for arm in ("a", "b"):
        await store.put(arm, state)
        await keeper.put(arm, state)
    await store.put("a", state, {"task": "x"})
    assert await store.delete(*arguments) == count
    states = await store.get_all_states()
    assert {
        "default" if key == "default" else "ctx": set(arms) for key, arms in states.items()
    } == left
    assert len(await keeper.get_all()) == 2


async def test_unknown_times_are_empty_strings(db: Database, dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "INSERT INTO learning_arm_states VALUES ('l', 'default', 'a', 1, 1, 0, 0, NULL);"
        "INSERT INTO interoception_edge_buffer VALUES ('a', 'b', 1, '[0.5]', NULL)"
    )
    await connection.close()
    assert (await PostgresLearningStore("l", db).get("a")).last_updated == ""
    assert (await PostgresInteroceptionStore(db).load_edges())["a", "b"].last_seen == ""
