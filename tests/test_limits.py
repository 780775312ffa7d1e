"""The most of what one call may bring: each limit, in both lanes, on our engine and a host's."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import threading
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import (
    ArmState,
    Database,
    EdgeStats,
    LimitExceededError,
    Limits,
    OverloadedError,
    Settings,
    unit_of_work,
)
from qortex_db.limits import DEFAULT_LIMITS
from qortex_db.repositories.arms.arguments import QortexContext
from qortex_db.values.jsonable import to_json, writer_of
from qortex_db.values.plain_json import is_larger, plain_json

if TYPE_CHECKING:
    from qortex_db.uow import Repositories

VECTOR = [1.0] * 8
SMALL = {
    "max_payload_bytes": 70,
    "max_payload_depth": 3,
    "max_key_bytes": 20,
    "max_document_bytes": 40,
    "max_filter_values": 5,
    "max_filter_bytes": 90,
    "max_search_many_hits": 20,
    "max_items": 4,
    "max_context_bytes": 30,
}


def row(**further: Any) -> list[dict[str, Any]]:
    return [{"id": "a", "embedding": VECTOR, **further}]


FITS: dict[str, Any] = {"a": "x" * 45, "b": [[1]]}
BEYOND: dict[str, list[Any]] = {
    "max_payload_bytes": [
        lambda v: v.upsert(row(payload={"a": "x" * 70})),
        lambda v: v.upsert(row(payload={"a": "é" * 35})),
        lambda v: v.upsert(row(payload={"a": [0] * 40})),
        lambda v: v.ingest(row(payload={"a": "x" * 70})),
        lambda v: v.update("a", payload={"a": "x" * 70}),
        lambda v: v.merge_payload({"a": "x" * 70}, ids=["a"]),
        lambda v: v.merge_payload({"a.b": "x" * 70}, ids=["a"]),
    ],
    "max_payload_depth": [
        lambda v: v.upsert(row(payload={"a": [[[1]]]})),
        lambda v: v.update("a", payload={"a": {"b": {"c": {}}}}),
        lambda v: v.merge_payload({"a": [[[1]]]}, ids=["a"]),
    ],
    "max_key_bytes": [
        lambda v: v.upsert(row(payload={"k" * 21: 1})),
        lambda v: v.update("a", payload={"a": {"é" * 11: 1}}),
        lambda v: v.merge_payload({"k" * 21: 1}, ids=["a"]),
    ],
    "max_document_bytes": [
        lambda v: v.upsert(row(document="x" * 41)),
        lambda v: v.ingest(row(document="é" * 21)),
        lambda v: v.update("a", document="x" * 41),
    ],
    "max_filter_values": [
        lambda v: v.count(where={"a": {"$in": [1, 2, 3, 4, 5, 6]}}),
        lambda v: v.search(VECTOR, where={"a": {"$in": [1, 2, 3]}, "b": {"$all": [4, 5, 6]}}),
        lambda v: v.delete_where({"$id": list("abcdef")}),
        lambda v: v.search_many([VECTOR] * 2, where=[{"a": {"$in": [1, 2, 3]}}] * 2),
        lambda v: v.count(where={"a": {"$geo": {"exterior": CORNERS}}}),
        lambda v: v.count(where={"a[].b": {"$in": [1, 2, 3]}, "c": {"$in": [4, 5, 6]}}),
        lambda v: v.merge_payload({"a": 1}, where={"a": {"$in": [1, 2, 3, 4, 5, 6]}}),
    ],
    "max_filter_bytes": [
        lambda v: v.count(where={"a": "x" * 91}),
        lambda v: v.search(VECTOR, where={"$or": [{"a": "x" * 50}, {"b": "x" * 50}]}),
        lambda v: v.count(where_document={"$contains": "x" * 91}),
    ],
    "max_search_many_hits": [lambda v: v.search_many([VECTOR] * 3, limit=7)],
}


CORNERS = [{"lat": i % 3, "lon": i} for i in range(6)]
LISTED = list("abcde")
WEIGHTS = dict.fromkeys(LISTED, 1.0)
PAIRS = {(each, "z"): EdgeStats(1, [1.0], "") for each in LISTED}
TRIPLES = [(each, "z", 1.0) for each in LISTED]
LARGE: Any = {"a": "x" * 31}


def model(texts: list[str]) -> list[list[float]]:
    return [VECTOR for _ in texts]


BEYOND_ELSEWHERE: dict[str, list[Any]] = {
    "max_items": [
        lambda r: r.vectors.get(LISTED),
        lambda r: r.vectors.get(itertools.count()),
        lambda r: r.vectors.delete(LISTED),
        lambda r: r.vectors.merge_payload({"a": 1}, ids=LISTED),
        lambda r: r.vectors.upsert([{"id": each, "embedding": VECTOR} for each in LISTED]),
        lambda r: r.factors.get(LISTED),
        lambda r: r.factors.weight_seeds(LISTED),
        lambda r: r.factors.save(WEIGHTS),
        lambda r: r.factors.adjust(dict.fromkeys(LISTED, "accepted")),
        lambda r: r.factors.decay(half_life=1, node_ids=LISTED),
        lambda r: r.factors.delete(LISTED),
        lambda r: r.edges.save(PAIRS),
        lambda r: r.edges.record_many(TRIPLES),
        lambda r: r.edges.remove(PAIRS.keys()),
        lambda r: r.arms.get_all("l", LISTED),
        lambda r: r.arms.observe_many("l", [(each, 1.0) for each in LISTED]),
        lambda r: r.arms.observe_many("l", (("a", 1.0) for _ in itertools.count())),
        lambda r: r.arms.apply_deltas("l", dict.fromkeys(LISTED, (1.0, 1.0))),
        lambda r: r.arms.seed("l", LISTED),
        lambda r: r.arms.reset("l", LISTED),
        lambda r: r.arms.delete("l", LISTED),
        lambda r: r.arms.select("l", LISTED),
        lambda r: r.embeddings.embed(LISTED, model=model),
    ],
    "max_context_bytes": [
        lambda r: r.arms.get("l", "a", context=LARGE),
        lambda r: r.arms.get_all("l", context=LARGE),
        lambda r: r.arms.top("l", context=LARGE),
        lambda r: r.arms.posteriors("l", ["a"], context=LARGE),
        lambda r: r.arms.put("l", "a", ArmState(), context=LARGE),
        lambda r: r.arms.observe("l", "a", reward=1.0, context=LARGE),
        lambda r: r.arms.observe("l", "a", reward=1.0, context={"a": [1] * 20}),
        lambda r: r.arms.observe("l", "a", reward=1.0, context={"é" * 5: "é"}),
        lambda r: r.arms.observe("l", "a", reward=1.0, context=LARGE, idempotency_key="k"),
        lambda r: r.arms.observe("l", "a", reward=1.0, context=QortexContext(LARGE)),
        lambda r: r.arms.apply_deltas("l", {"a": (1.0, 1.0)}, context=LARGE),
        lambda r: r.arms.decay("l", context=LARGE),
        lambda r: r.arms.seed("l", ["a"], context=LARGE),
        lambda r: r.arms.reset("l", context=LARGE),
        lambda r: r.arms.delete("l", context=LARGE),
        lambda r: r.arms.select("l", ["a"], context=LARGE),
    ],
    "max_document_bytes": [lambda r: r.embeddings.embed(["é" * 21], model=model)],
}


async def meet(repositories: Repositories) -> None:
    """What fits is taken, and what is beyond is refused by the limit's name, without its values."""
    vectors = repositories.vectors
    four = LISTED[:4]
    assert await repositories.arms.observe_many(
        "l", [(each, 1.0) for each in four], context={"a": "x" * 22}
    )
    assert len(await repositories.embeddings.embed(["x" * 40, *four[1:]], model=model)) == 4
    assert len(await repositories.factors.get(four)) == 4
    assert await repositories.edges.record_many(TRIPLES[:4]) == 4
    assert await vectors.upsert(row(payload=FITS, document="x" * 40)) in (0, 1)
    assert len(json.dumps(FITS, separators=(",", ":"))) <= SMALL["max_payload_bytes"]
    assert await vectors.count(where={"a": {"$in": ["x" * 45, "1", "2", "3", "4"]}}) == 1
    assert len(await vectors.search_many([VECTOR] * 2, limit=10)) == 2
    every = [(name, call, vectors) for name, calls in BEYOND.items() for call in calls]
    for name, calls in BEYOND_ELSEWHERE.items():
        every += [(name, call, repositories) for call in calls]
    for name, call, on in every:
        with pytest.raises(LimitExceededError) as refused:
            await call(on)
        error = refused.value
        assert (error.limit, error.allowed) == (name, SMALL[name])
        assert error.actual > error.allowed
        assert f"{name} allows {SMALL[name]}" in str(error)
        assert f"QORTEX_DB_{name.upper()}" in str(error)
        assert "xxx" not in str(error)
    assert (await vectors.get(["a"]))["a"].payload == FITS


async def test_each_limit_holds_in_both_lanes_and_on_a_hosts_engine(dsn: str) -> None:
    async with Database.connect(Settings(dsn=dsn, **SMALL)) as db:
        await meet(db)
        async with db.unit_of_work() as uow:
            await meet(uow)
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"))
    host = Database.from_engine(engine, limits=Limits(**SMALL))
    await meet(host)
    async with (
        AsyncSession(engine) as session,
        session.begin(),
        unit_of_work(session, limits=Limits(**SMALL)) as uow,
    ):
        await meet(uow)
    await engine.dispose()


async def test_a_skipping_ingest_puts_aside_what_is_too_much(dsn: str) -> None:
    async with Database.connect(Settings(dsn=dsn, **SMALL)) as db:
        rejected: list[Any] = []
        rows = [*row(payload=FITS), {"id": "b", "embedding": VECTOR, "document": "x" * 41}]
        assert await db.vectors.ingest(rows, on_error="skip", rejects=rejected.append) == 1
        assert [one.id for one in rejected] == ["b"]


class Seen(Mapping[str, int]):
    """A mapping that tells by which threads it was read."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def __getitem__(self, key: str) -> int:
        self.threads.add(threading.get_ident())
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(["one"])

    def __len__(self) -> int:
        return 1


async def test_what_takes_long_to_check_is_checked_beside_the_event_loop(db: Database) -> None:
    here = threading.get_ident()
    large = "x" * 200_000
    await db.vectors.upsert(row())
    for call in (
        lambda seen: db.vectors.upsert(row(payload={"large": large, "seen": seen})),
        lambda seen: db.vectors.ingest(row(payload={"large": large, "seen": seen})),
        lambda seen: db.vectors.update("a", payload={"large": large, "seen": seen}),
        lambda seen: db.vectors.merge_payload({"large": large, "seen": seen}, ids=["a"]),
        lambda seen: db.vectors.count(where={"large": large, "seen": {"$eq": seen}}),
    ):
        seen = Seen()
        await call(seen)
        assert seen.threads
        assert here not in seen.threads
    small = Seen()
    await db.vectors.update("a", payload={"seen": small})
    assert small.threads == {here}


@pytest.mark.faults
@pytest.mark.timeout(120)
async def test_a_flood_of_large_calls_holds_what_it_sends_and_nothing_after(dsn: str) -> None:
    """A call that waits for the pool holds what it sends, once; a flood leaves nothing behind."""
    callers, size = 1_000, 200_000
    large = "x" * size

    async def call(db: Database, number: int) -> None:
        if number % 4 == 0:
            await db.vectors.upsert([{"id": str(number), "embedding": VECTOR, "document": large}])
        elif number % 4 == 1:
            await db.vectors.update("w", payload={"a": large, "n": number})
        elif number % 4 == 2:
            await db.vectors.count(where={"a": {"$in": [large, number]}})
        else:
            async with db.unit_of_work() as uow:
                await uow.vectors.merge_payload({"b": large}, ids=["w"])

    async with Database.connect(Settings(dsn=dsn)) as db:
        await db.vectors.upsert([{"id": "w", "embedding": VECTOR, "payload": {}}])
        for number in range(4):
            await call(db, number)
        gc.collect()
        tracemalloc.start()
        calls = (call(db, number) for number in range(callers))
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(one) for one in done} <= {type(None), OverloadedError}
        assert sum(one is None for one in done) > callers / 2
        del done
        gc.collect()
        left, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 1.5 * callers * size
    assert left < 8 * 2**20


TEXT = st.text("ab\\u0é\n", max_size=5)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_both_ways_of_writing_json_say_the_same(value: dict[str, Any]) -> None:
    written = writer_of(DEFAULT_LIMITS).text(value, "value")
    assert plain_json(value, name="value", limits=DEFAULT_LIMITS) in (written, None)
    assert to_json(value, name="value") == written
    assert is_larger(value, len(written)) is False


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, 2**31])
def test_a_limit_is_a_whole_number(bad: Any) -> None:
    with pytest.raises(ValueError, match="max_key_bytes has to be"):
        Limits(max_key_bytes=bad)


def test_the_environment_sets_each_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(f"QORTEX_DB_{name.upper()}", str(value))
    assert Settings().limits == Limits(**SMALL)
    assert Limits(**SMALL) != DEFAULT_LIMITS
