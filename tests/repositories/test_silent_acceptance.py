"""What was taken in silence, or raised an error of nobody's, is refused before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qortex_db import Database, InvalidInputError, SearchHits
from qortex_db.testing.factories import ArmStateFactory, EdgeStatsFactory
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from support.roundtrips import RoundTrips

pytestmark = pytest.mark.slow

Q = [1.0] * 8
EARLIEST = datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))
LATEST = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))
FLAG = np.array([True, False])


def nested(levels: int, key: str) -> Any:
    where: Any = {"a": 1}
    for _ in range(levels):
        where = {key: where} if key == "$not" else {key: [where]}
    return where


def values(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def stats(**given: Any) -> Any:
    return {("a", "b"): EdgeStatsFactory.build(**given)}


def state(**given: Any) -> Any:
    return ArmStateFactory.build(**given)


CASES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a generator of scores": (
        lambda db: db.edges.save(stats(scores=(n for n in (0.5, 0.6)))),
        "scores is a generator; pass a list",
    ),
    "an iterator of scores": (lambda db: db.edges.save(stats(scores=iter([0.5]))), "pass a list"),
    "bytes as scores": (lambda db: db.edges.save(stats(scores=b"ab")), "scores is a bytes"),
    "a text as scores": (lambda db: db.edges.save(stats(scores="12")), "scores is a str"),
    "no scores": (lambda db: db.edges.save(stats(scores=None)), "scores is a NoneType"),
    "memory of NaN": (
        lambda db: db.vectors.recommend_index(rows=5, memory_bytes=float("nan")),
        "memory_bytes has to be a whole number",
    ),
    "no records": (lambda db: db.vectors.upsert(None), "records is a NoneType; pass a list"),
    "no records to ingest": (lambda db: db.vectors.ingest(None), "records"),
    "no record": (lambda db: db.vectors.upsert([None]), "row 0 is a NoneType"),
    "no candidates": (lambda db: db.arms.select("l", None), "candidates is a NoneType"),
    "no candidate": (lambda db: db.arms.select("l", [None]), r"candidates\[0\] is a NoneType"),
    "no keys": (lambda db: db.edges.remove(None), "keys is a NoneType"),
    "no key": (lambda db: db.edges.remove([None]), "pairs"),
    "an array as payload": (
        lambda db: db.vectors.upsert([{"id": "a", "embedding": Q, "payload": FLAG}]),
        r"payload of row 0.* is a ndarray; pass a dict",
    ),
    "no ids": (lambda db: db.vectors.get(None), "ids is a NoneType"),
    "no nodes": (lambda db: db.factors.get(None), "node_ids is a NoneType"),
    "no seeds": (lambda db: db.factors.weight_seeds(None), "node_ids is a NoneType"),
    "no observations": (lambda db: db.edges.record_many(None), "observations is a NoneType"),
    "no rewards": (lambda db: db.arms.observe_many("l", None), "observations is a NoneType"),
    "no reward": (lambda db: db.arms.observe_many("l", [None]), "is a pair"),
    "no deltas": (lambda db: db.arms.apply_deltas("l", None), "deltas"),
    "no delta": (lambda db: db.arms.apply_deltas("l", {"a": None}), "is a pair"),
    "no state": (lambda db: db.arms.put("l", "a", None), "state is a NoneType"),
    "no edge": (lambda db: db.edges.save({("a", "b"): None}), "An edge is a NoneType"),
    "no texts": (lambda db: db.embeddings.embed(None, model=list), "texts is a NoneType"),
    "no paths": (lambda db: db.vectors.merge_payload({"a": 1}, remove=None, ids=["a"]), "remove"),
    "a list as using": (lambda db: db.vectors.search(Q, using=[]), "no vector of that name"),
    "a dict as using": (lambda db: db.vectors.explain(Q, using={}), "no vector of that name"),
    "an array as using": (lambda db: db.vectors.search(Q, using=FLAG), "no vector of that name"),
    "an unhashable scan": (
        lambda db: db.vectors.search(Q, iterative_scan=[]),
        "iterative_scan has to be one of relaxed, strict, off",
    ),
    "an array as strategy": (lambda db: db.vectors.recommend([Q], strategy=FLAG), "strategy"),
    "an array as exact": (lambda db: db.vectors.search(Q, exact=FLAG), "exact is a ndarray; pass"),
    "numpy's bool as exact": (
        lambda db: db.vectors.search(Q, exact=np.True_),
        r"exact is a numpy bool_?; pass True or False",
    ),
    "an array as with_payload": (
        lambda db: db.vectors.hybrid_search(Q, "x", with_payload=FLAG),
        "with_payload is a ndarray",
    ),
    "an array as descending": (lambda db: db.vectors.scroll(descending=FLAG), "descending"),
    "an array as unpulled": (lambda db: db.arms.seed("l", ["a"], unpulled=FLAG), "unpulled"),
    "the earliest time": (
        lambda db: db.arms.put("l", "a", state(last_updated=EARLIEST)),
        "last_updated of arm 'a' is beyond the years 1 to 9999 in UTC",
    ),
    "the earliest time as text": (
        lambda db: db.edges.save(stats(last_seen=EARLIEST.isoformat())),
        "last_seen of the edge .*is beyond the years 1 to 9999",
    ),
    "the latest time": (lambda db: db.arms.rebuild("l", until=LATEST), "until is beyond"),
    "the earliest time in a filter": (
        lambda db: db.vectors.count(where={"a": {"$gt": EARLIEST}}),
        "before the year 1",
    ),
    "an endless limit": (lambda db: db.vectors.search(Q, limit=10**5000), "limit has to be"),
    "an endless size": (lambda db: db.vectors.ingest([], batch_size=10**5000), "batch_size"),
    "an endless score": (lambda db: db.edges.record("a", "b", score=10**5000), "beyond"),
    "an endless number": (lambda db: db.vectors.count(where={"a": 10**5000}), "1,024 bits"),
    "a filter 10,000 deep": (
        lambda db: db.vectors.count(where=nested(10_000, "$not")),
        "nested more than 16 levels",
    ),
    "a list of filters 10,000 deep": (
        lambda db: db.vectors.delete_where(nested(10_000, "$or")),
        "nested more than 16 levels",
    ),
    "a value 10,000 deep": (
        lambda db: db.vectors.count(where={"a": values(10_000)}),
        "nested more than 100 levels",
    ),
    "a payload 10,000 deep": (
        lambda db: db.vectors.update("a", payload={"a": values(10_000)}),
        "nested more than 100 levels",
    ),
    "numpy's span of time": (
        lambda db: db.vectors.search(Q, min_score=np.timedelta64(1, "s")),
        "min_score is a timedelta64; pass a number",
    ),
    "no policy": (lambda db: db.arms.select("l", ["a"], policy="ucb"), r"without scores\(\)"),
    "no chance": (lambda db: db.arms.select("l", ["a"], rng=7), "default_rng"),
    "progress that can't be called": (
        lambda db: db.vectors.ingest([], on_progress=7),
        "on_progress is a int; pass what can be called",
    ),
    "ef_search beside exact": (
        lambda db: db.vectors.search(Q, exact=True, ef_search="many"),
        "ef_search has to be a whole number",
    ),
    "ef_search beyond, beside exact": (
        lambda db: db.vectors.search(Q, exact=True, ef_search=5_000),
        "ef_search is 5000",
    ),
    "probes beside exact": (lambda db: db.vectors.search(Q, exact=True, probes=-1), "probes"),
    "a scan beside exact": (
        lambda db: db.vectors.explain(Q, exact=True, iterative_scan="x"),
        "iterative_scan",
    ),
    "oversampling of a full index": (
        lambda db: db.vectors.search(Q, oversampling=float("nan")),
        "oversampling",
    ),
    "k beside alpha": (lambda db: db.vectors.hybrid_search(Q, "x", alpha=0.5, k=0), "k is 0"),
    "k that is no number, beside alpha": (
        lambda db: db.vectors.hybrid_search(Q, "x", alpha=0.5, k="60"),
        "k has to be a whole number",
    ),
}


@pytest.fixture
async def wire(dsn: str) -> AsyncIterator[tuple[Database, RoundTrips]]:
    async with counted(dsn) as trips, Database.connect(trips.dsn) as db:
        await db.vectors.dimensions()
        yield db, trips


@pytest.mark.parametrize("name", CASES)
async def test_it_is_refused_in_both_lanes_before_anything_is_sent(
    wire: tuple[Database, RoundTrips], name: str
) -> None:
    db, trips = wire
    call, message = CASES[name]
    async with trips.expect(0):
        with pytest.raises(InvalidInputError, match=message):
            await call(db)
    async with db.unit_of_work() as uow:
        with pytest.raises(InvalidInputError, match=message):
            await call(uow)


async def test_what_is_right_is_still_taken(db: Database) -> None:
    await db.edges.save(stats(scores=np.array([0.5, 0.6])))
    await db.edges.save(stats(scores=(0.5, 0.6)))
    assert (await db.edges.get("a", "b")).scores == [0.5, 0.6]
    at = datetime(2025, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    await db.arms.put("l", "a", state(last_updated=at))
    assert (await db.arms.get("l", "a")).last_updated == "2025-01-01T00:00:00+00:00"
    assert await db.vectors.upsert({"id": n, "embedding": Q} for n in range(3)) == 3
    assert await db.arms.rebuild("l", until=datetime.now(UTC)) == {}


async def test_what_a_generator_of_records_raises_is_its_own(db: Database) -> None:
    def records() -> Any:
        yield {"id": "a", "embedding": Q}
        raise TypeError("of the caller's")

    for call in (db.vectors.upsert(records()), db.vectors.ingest(records())):
        with pytest.raises(TypeError, match="of the caller's"):
            await call


async def test_a_scorer_has_to_be_called() -> None:
    with pytest.raises(InvalidInputError, match="scorer is a str; pass what can be called"):
        await SearchHits([], requested=1, complete=True).rerank("q", "x")  # type: ignore[arg-type]
