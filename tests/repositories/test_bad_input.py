"""What is refused before it reaches the server, with nothing changed."""

from __future__ import annotations

import traceback
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qortex_db import (
    Database,
    DimensionMismatchError,
    InvalidInputError,
    Settings,
    UnavailableError,
)
from qortex_db.testing.factories import ArmStateFactory, EdgeStatsFactory, VectorRecordFactory
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from support.roundtrips import RoundTrips

GOOD = [1.0] * 8

EMBEDDINGS: dict[str, tuple[Any, str]] = {
    "too short": ([1.0, 2.0], "2 dimensions, the column holds 8"),
    "too long": ([1.0] * 9, "9 dimensions"),
    "empty": ([], "empty"),
    "nan": ([1.0] * 7 + [float("nan")], "NaN at position 7"),
    "infinity": ([float("inf")] + [1.0] * 7, "infinity.*position 0"),
    "infinite only in float32": ([1e300] * 8, "infinity"),
    "an integer beyond floats": ([10**400] + [1] * 7, "array|type"),
    "zero": ([0.0] * 8, "zero vector"),
    "zero only in float32": ([1e-300] * 8, "zero vector"),
    "too long for a cosine": ([3e38] * 8, "too long for a cosine"),
    "too short for a cosine": ([1e-30] * 8, "too short for a cosine"),
    "two-dimensional": (np.ones((2, 8)), "shape"),
    "nested lists": ([[1.0] * 8], "type list"),
    "a scalar": (1.0, "float"),
    "a numpy scalar": (np.float32(1), "0 dimensions"),
    "complex": (np.ones(8, dtype=complex), "complex"),
    "a masked array": (np.ma.masked_equal(np.arange(8.0), 3), "masked"),
    "complex elements": ([1j] * 8, "complex"),
    "strings": (["1.0"] * 8, "str"),
    "a string": ("[1,2,3,4,5,6,7,8]", "str"),
    "bytes": (b"12345678", "bytes"),
    "booleans": ([True] * 8, "bool"),
    "a boolean among floats": ([1.0] * 7 + [True], "bool"),
    "a boolean array": (np.ones(8, dtype=bool), "bool"),
    "objects": (np.array([1.0] * 8, dtype=object), "object"),
    "none": (None, "NoneType"),
    "none elements": ([None] * 8, "NoneType"),
    "a dict": ({1: 1.0}, "dict"),
    "a set": ({1.0}, "set"),
    "dates": (np.array(["2025-01-01"] * 8, dtype="datetime64[D]"), "datetime64"),
}

IDS: dict[str, Any] = {
    "empty": "",
    "too long": "x" * 1025,
    "too long in bytes": "é" * 513,
    "nul": "a\x00b",
    "lone surrogate": "a\ud800",
    "a number": 7,
    "none": None,
    "bytes": b"a",
}

PAYLOADS: dict[str, Any] = {
    "a list": [1],
    "a string": "{}",
    "nan": {"a": float("nan")},
    "infinity in a list": {"a": [1, float("inf")]},
    "nul": {"a": "b\x00"},
    "nul in a key": {"a\x00": 1},
    "lone surrogate": {"a": {"b": ["\udfff"]}},
    "a key that is no string": {1: 2},
    "a set": {"a": {1}},
    "bytes": {"a": b"x"},
    "a generator": {"a": (n for n in (1, 2))},
    "a span of time": {"a": timedelta(1)},
    "a decimal that is no number": {"a": Decimal("sNaN")},
    "no time": {"a": np.datetime64("NaT")},
    "an object": {"a": object()},
}


@pytest.fixture
async def wire(dsn: str) -> AsyncIterator[tuple[Database, RoundTrips]]:
    async with counted(dsn) as trips, Database.connect(trips.dsn) as db:
        await db.vectors.dimensions()
        yield db, trips


Call = tuple[str, "Callable[[Database], Any]", str]


def calls() -> list[Call]:  # noqa: C901 - a list of cases
    found: list[Call] = []

    def add(name: str, call: Callable[[Database], Any], match: str = "") -> None:
        found.append((name, call, match))

    for name, (value, match) in EMBEDDINGS.items():
        add(f"search {name}", lambda db, v=value: db.vectors.search(v), match)
        if value is not None:  # which is no vector, and leaves what is there
            add(
                f"upsert {name}",
                lambda db, v=value: db.vectors.upsert(
                    [{"id": "ok", "embedding": GOOD}, {"id": "bad", "embedding": v}]
                ),
                match,
            )
            add(f"update {name}", lambda db, v=value: db.vectors.update("a", embedding=v), match)
    for name, value in IDS.items():
        row = {"id": value, "embedding": GOOD}
        if name != "a number":  # as a vector's id it is taken
            add(f"upsert id {name}", lambda db, r=row: db.vectors.upsert([r]), "id of row 0")
            add(f"get id {name}", lambda db, v=value: db.vectors.get([v]))
            add(f"delete id {name}", lambda db, v=value: db.vectors.delete([v]))
        add(f"factors {name}", lambda db, v=value: db.factors.save({v: 1.0}))
        add(f"adjust {name}", lambda db, v=value: db.factors.adjust({v: "accepted"}))
        add(f"edge {name}", lambda db, v=value: db.edges.record("a", v, score=1.0))
        add(f"arm {name}", lambda db, v=value: db.arms.observe("l", v, reward=1.0))
        add(f"learner {name}", lambda db, v=value: db.arms.get_all(v))
    for name, value in PAYLOADS.items():
        row = {"id": "a", "embedding": GOOD, "payload": value}
        add(f"payload {name}", lambda db, r=row: db.vectors.upsert([r]), "payload")
        add(f"update payload {name}", lambda db, v=value: db.vectors.update("a", payload=v))
    for document in ("a\x00", "\ud800", 7):
        row = {"id": "a", "embedding": GOOD, "document": document}
        add(f"document {document!r}", lambda db, r=row: db.vectors.upsert([r]), "document")
    for limit in (0, -1, 10_001, 1.5, "10", True, None):
        add(f"limit {limit}", lambda db, v=limit: db.vectors.search(GOOD, limit=v), "limit")
        add(f"ef {limit}", lambda db, v=limit or 0: db.vectors.search(GOOD, ef_search=v))
        add(f"top {limit}", lambda db, v=limit: db.arms.top("l", k=v))
    for reward in (-0.1, 1.1, float("nan"), float("inf"), "1", None, True):
        add(f"reward {reward}", lambda db, v=reward: db.arms.observe("l", "a", reward=v), "reward")
        add(
            f"rewards {reward}",
            lambda db, v=reward: db.arms.observe_many("l", [("ok", 1.0), ("a", v)]),
            "reward",
        )
    for outcome in ("unknown", "", None, 1, "ACCEPTED"):
        add(
            f"outcome {outcome}",
            lambda db, v=outcome: db.factors.adjust({"ok": "accepted", "a": v}),
            "accepted, rejected, partial",
        )
    for number in (float("nan"), float("inf"), "1", None, True, 1j):
        add(f"weight {number}", lambda db, v=number: db.factors.save({"ok": 1.0, "a": v}), "weight")
        add(f"score {number}", lambda db, v=number: db.edges.record("a", "b", score=v), "score")
        add(f"min {number}", lambda db, v=number or "x": db.vectors.search(GOOD, min_score=v))
    naive = "2025-01-01T00:00:00"
    state = ArmStateFactory.build(last_updated=naive)
    add("naive state", lambda db: db.arms.put("l", "a", state), "time zone")
    add(
        "naive edge",
        lambda db: db.edges.save({("a", "b"): EdgeStatsFactory.build(last_seen=naive)}),
        "time zone",
    )
    add(
        "no date",
        lambda db: db.edges.save({("a", "b"): EdgeStatsFactory.build(last_seen="soon")}),
        "ISO 8601",
    )
    for bad in ({"alpha": 0.0}, {"beta": -1.0}, {"pulls": -1}, {"pulls": 2**31}, {"pulls": 1.5}):
        add(f"state {bad}", lambda db, b=bad: db.arms.put("l", "a", ArmStateFactory.build(**b)))
    add("ids as a str", lambda db: db.vectors.get("abc"), "even for one")
    add("delete a str", lambda db: db.vectors.delete("abc"), "even for one")
    add(
        "a record alone",
        lambda db: db.vectors.upsert({"id": "a", "embedding": GOOD}),
        "even for one",
    )
    add("no embedding", lambda db: db.vectors.upsert([{"id": "a"}]), "lacks")
    add(
        "a misspelt field", lambda db: db.vectors.upsert([{"id": "a", "embeding": GOOD}]), "unknown"
    )
    add("candidates as a str", lambda db: db.arms.select("l", "abc"), "even for one")
    add("candidates twice", lambda db: db.arms.select("l", ["a", "a"]), "twice")
    add("nothing to update", lambda db: db.vectors.update("a"), "Nothing to change")
    add("a context that is a str", lambda db: db.arms.get("l", "a", context="x"), "context")
    add("an edge key", lambda db: db.edges.remove(["ab"]), "pairs")
    return found


def interoception_calls() -> list[Call]:
    found: list[Call] = []

    def add(name: str, call: Callable[[Database], Any], match: str) -> None:
        found.append((name, call, match))

    for mean in (float("nan"), float("inf"), "1", None, True):
        add(f"mean {mean}", lambda db, v=mean: db.edges.promote(min_avg_score=v), "min_avg_score")
        add(f"ready {mean}", lambda db, v=mean: db.edges.summary(min_avg_score=v), "min_avg_score")
    for count in (-1, 1.5, "3", True, None, 2**31):
        add(f"hits {count}", lambda db, v=count: db.edges.promote(min_hits=v), "min_hits")
        add(f"ready {count}", lambda db, v=count: db.edges.summary(min_hits=v), "min_hits")
    for limit in (0, -1, 1.5, "3", True, 2**31):
        add(f"promote {limit}", lambda db, v=limit: db.edges.promote(limit=v), "limit")
    for most in (0, -1, 1.5, "3", True, None, 10_001):
        options = {"max_scores": most}
        add(
            f"record {most}", lambda db, o=options: db.edges.record("a", "b", score=1.0, **o), "max"
        )
        add(
            f"many {most}",
            lambda db, o=options: db.edges.record_many([("a", "b", 1.0)], **o),
            "max",
        )
        add(f"save {most}", lambda db, o=options: db.edges.save({}, **o), "max_scores")
    for size in (1e101, -1e101, 10**101, 10**400):
        add(f"score {size}", lambda db, v=size: db.edges.record("a", "b", score=v), "score")
        edges = {("a", "b"): EdgeStatsFactory.build(scores=[0.5, size])}
        add(f"scores {size}", lambda db, e=edges: db.edges.save(e), "score")
        add(f"weight {size}", lambda db, v=size: db.factors.save({"a": 1.0, "b": v}), "weight")
        add(f"delta {size}", lambda db, v=size: db.arms.apply_deltas("l", {"a": (0, v)}), "beta")
        add(f"boost {size}", lambda db, v=size: db.arms.seed("l", ["a"], boost=v), "boost")
        for name in ("alpha", "beta", "total_reward"):
            state = ArmStateFactory.build(**{name: size})
            add(f"{name} {size}", lambda db, s=state: db.arms.put("l", "a", s), name)
    for seconds in (0, -1.0, float("nan"), float("inf"), "1", True, timedelta(0)):
        options = {"half_life": seconds}
        add(f"decay {seconds}", lambda db, o=options: db.factors.decay(**o), "half_life")
        add(f"adjust {seconds}", lambda db, o=options: db.factors.adjust({}, **o), "half_life")
    add("decay of a str", lambda db: db.factors.decay(half_life=1, node_ids="abc"), "even for one")
    add("decay of no id", lambda db: db.factors.decay(half_life=1, node_ids=["a", ""]), "empty")
    for since in ("", "soon", "1", "1@2", "-1@1.1", f"{10**18}@1.1", "\u0661@1.1", "\x00", 7, b"1"):
        add(f"since {since!r}", lambda db, v=since: db.factors.changes(v), "since")
    return found


CALLS = calls() + interoception_calls()


async def test_bad_input_is_refused_before_the_server_and_changes_nothing(
    wire: tuple[Database, RoundTrips],
) -> None:
    db, trips = wire
    for name, call, match in CALLS:
        before = trips.count
        with pytest.raises(InvalidInputError, match=match or None) as caught:
            pytest.fail(f"{name} was accepted: {await call(db)}")
        assert isinstance(caught.value, ValueError)
        # Before dimensions are refused, the column is looked at again; the input itself stays here.
        assert trips.count - before == isinstance(caught.value, DimensionMismatchError), name
    status = await db.status()
    assert {name: table["rows"] for name, table in status.tables.items()} == dict.fromkeys(
        status.tables, 0
    )


async def test_an_error_names_row_id_and_position(db: Database) -> None:
    rows = VectorRecordFactory.build_batch(5, dimensions=8)
    rows[3] = replace(rows[3], embedding=[1.0, 1.0, float("nan"), *[1.0] * 5])
    with pytest.raises(InvalidInputError, match=r"row 3 \(id 'v00003'\) has NaN at position 2"):
        await db.vectors.upsert(rows)
    with pytest.raises(DimensionMismatchError) as caught:
        await db.vectors.search([1.0])
    assert (caught.value.expected, caught.value.actual) == (8, 1)


async def test_the_largest_allowed_input_is_taken(db: Database) -> None:
    key = "é" * 512
    await db.vectors.upsert([{"id": key, "embedding": GOOD, "payload": {"a": ["\\u0000", "é"]}}])
    assert (await db.vectors.get([key]))[key].payload == {"a": ["\\u0000", "é"]}
    await db.edges.record(key, "x" * 1024, score=1)
    await db.arms.observe("l" * 1024, key, reward=1)
    assert len(await db.vectors.search(GOOD, limit=10_000)) == 1


SECRET = "s3cr3t-pässwörd"  # noqa: S105 - what must not be shown


async def test_no_password_or_value_is_in_an_error(dsn: str, caplog: Any) -> None:
    shown = []
    for bad in (
        f"postgresql://u:{SECRET}@127.0.0.1:1/db",
        f"postgresql://u:{SECRET}@127.0.0.1:99999/db",
        f"mysql://u:{SECRET}@h/db",
        f"postgresql://u:{SECRET}@h/db?sslmode=bogus",
        f"postgresql://u:{SECRET}@h/db?channel_binding=require",
    ):
        with pytest.raises((UnavailableError, ValueError)) as caught:
            async with Database.connect(bad):
                pass
        shown += traceback.format_exception(caught.value)
    settings = Settings(dsn=f"postgresql://u:{SECRET}@h/db")
    shown += [
        repr(settings),
        str(settings),
        repr(settings.target()),
        str(Database.connect(settings)),
    ]
    async with Database.connect(dsn) as db:
        with pytest.raises(InvalidInputError) as refused:
            await db.vectors.upsert(
                [{"id": "a", "embedding": [float("nan")] * 8, "payload": {"k": SECRET}}]
            )
        shown += traceback.format_exception(refused.value)
        async with db.unit_of_work() as uow:
            await (await uow.session.connection()).exec_driver_sql("DROP TABLE qortex_vectors")
        with pytest.raises(Exception, match="upgrade") as missing:
            await db.vectors.upsert([{"id": SECRET, "embedding": GOOD, "document": SECRET}])
        shown += traceback.format_exception(missing.value)
    assert not [text for text in [*shown, caplog.text] if SECRET in text]
