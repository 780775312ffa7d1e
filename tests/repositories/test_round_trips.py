"""Exact costs: round trips, counted on the wire, on a warm connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qortex_db import Database, Settings, migrations
from qortex_db.testing.factories import VectorRecordFactory, embedding
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from support.roundtrips import RoundTrips

VECTOR = embedding(0, 8)


@pytest.fixture
async def wire(dsn: str) -> AsyncIterator[tuple[Database, RoundTrips]]:
    async with counted(dsn) as trips:
        settings = Settings(dsn=trips.dsn, pool_min_size=1, pool_max_size=1)
        async with Database.connect(settings) as db:
            record = VectorRecordFactory.build(id="a", dimensions=8, with_payload=True)
            await db.vectors.upsert([record])
            yield db, trips


CALLS: dict[str, Callable[[Database], Awaitable[object]]] = {
    "search": lambda db: db.vectors.search(VECTOR),
    "search with ef_search": lambda db: db.vectors.search(VECTOR, ef_search=100),
    "search for many": lambda db: db.vectors.search(VECTOR, limit=2_000),
    "search_many": lambda db: db.vectors.search_many([VECTOR, VECTOR]),
    "recommend": lambda db: db.vectors.recommend([VECTOR]),
    "recommend by the best score": lambda db: db.vectors.recommend([VECTOR], strategy="best_score"),
    "words alone": lambda db: db.vectors.hybrid_search(None, "text"),
    "exact search": lambda db: db.vectors.search(VECTOR, exact=True),
    "get": lambda db: db.vectors.get(["a"]),
    "upsert": lambda db: db.vectors.upsert([VectorRecordFactory.build(id="b", dimensions=8)]),
    "update": lambda db: db.vectors.update("a", document="text"),
    "delete": lambda db: db.vectors.delete(["b"]),
    "count": lambda db: db.vectors.count(),
    "facet": lambda db: db.vectors.facet("tags"),
    "scroll": lambda db: db.vectors.scroll(),
    "status": lambda db: db.status(),
    "factors.load": lambda db: db.factors.load(),
    "factors.adjust": lambda db: db.factors.adjust({"a": "accepted", "b": "rejected"}),
    "factors.save": lambda db: db.factors.save({"a": 1.0, "b": 2.0}),
    "factors.decay": lambda db: db.factors.decay(half_life=60),
    "factors.changes": lambda db: db.factors.changes(),
    "factors.summary": lambda db: db.factors.summary(),
    "edges.record": lambda db: db.edges.record("a", "b", score=0.5),
    "edges.record_many": lambda db: db.edges.record_many([("a", "b", 0.5), ("c", "d", 0.5)]),
    "edges.promote": lambda db: db.edges.promote(limit=10),
    "edges.summary": lambda db: db.edges.summary(),
    "edges.remove": lambda db: db.edges.remove([("a", "b")]),
    "arms.get": lambda db: db.arms.get("l", "a"),
    "arms.observe": lambda db: db.arms.observe("l", "a", reward=1.0),
    "arms.observe_many": lambda db: db.arms.observe_many("l", [("a", 1.0)] * 100),
    "arms.select": lambda db: db.arms.select("l", [f"arm{i}" for i in range(100)]),
    "arms.delete": lambda db: db.arms.delete("l", ["a"]),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_by_itself_is_one_round_trip(
    wire: tuple[Database, RoundTrips], name: str
) -> None:
    db, trips = wire
    await CALLS[name](db)  # prepares the statement
    async with trips.expect(1):
        await CALLS[name](db)


async def test_every_call_works_on_each_server(each_empty_dsn: str) -> None:
    settings = Settings(dsn=each_empty_dsn, dimensions=8)
    await migrations.upgrade(settings)
    async with Database.connect(settings) as db:
        for call in CALLS.values():
            await call(db)
        assert await db.factors.load() == pytest.approx({"a": 1.0, "b": 2.0}, rel=0.1)
        assert list(await db.edges.load()) == [("c", "d")]


async def test_a_unit_of_work_adds_begin_and_commit(wire: tuple[Database, RoundTrips]) -> None:
    db, trips = wire
    for expected in (None, 4):
        before = trips.count
        async with db.unit_of_work() as uow:
            await uow.arms.observe("l", "a", reward=1.0)
            await uow.factors.adjust({"a": "accepted"})
        assert expected is None or trips.count - before == expected


async def test_ingest_takes_a_round_trip_a_batch(wire: tuple[Database, RoundTrips]) -> None:
    db, trips = wire
    records = VectorRecordFactory.build_batch(100, dimensions=8)
    async with trips.expect(4 + 2):  # whether its words are counted is asked once a minute
        assert await db.vectors.ingest(records, batch_size=25) == 100
    async with trips.expect(4):
        assert await db.vectors.ingest(records, batch_size=25) == 100
