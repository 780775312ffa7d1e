"""What values come to, however they are mixed, as Python's fractions have it."""

from __future__ import annotations

import random
from collections import defaultdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase

from qortex_db import Aggregate, Collection, Database, InvalidInputError, VectorMixin, VectorSpec
from support.compilations import compilations
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping


class Base(DeclarativeBase):
    """A host's own."""


class Shared(VectorMixin, Base):
    __tablename__ = "shared"
    __collection__ = Collection(VectorSpec(8), namespace="tenant", encrypted=("secret",))


SCALARS = (None, True, False, 0, 1, 1.0, -1.5, 10**30, 1e-5, "", "1", "a", "ä", "Z", "2025-01-01")
NAMES = ("min", "max", "mean", "median", "sum", "count", "distinct")
PATHS: dict[str, Any] = {
    "any": NAMES,
    "deep.er": ("median", "max"),
    "numbers": ("sum", "mean", "min", "sum"),
    "words": ("min", "max", "distinct"),
    "nowhere": NAMES,
    "tags": ("count",),
}
RNG = random.Random(7)  # noqa: S311 - no secret


def payload(number: int) -> dict[str, Any]:
    made: dict[str, Any] = {"even": number % 2 == 0, "words": RNG.choice(("b", "é", "Z"))}
    if number % 3:
        made["any"] = RNG.choice((*SCALARS, [*RNG.choices(SCALARS, k=3), []], []))
        made["deep"] = {"er": RNG.choice(SCALARS[3:9])}
    if number % 5:
        made["numbers"] = [RNG.randrange(-9, 9) / 4 for _ in range(number % 4)]
        made["tags"] = RNG.choice((["x", "y", "x"], ["y"], "x", [], None, 1, 1.0))
    return made


PAYLOADS = [payload(number) for number in range(700)]


def values(payload: Any, path: str) -> list[Any]:
    for step in path.split("."):
        payload = payload.get(step) if isinstance(payload, dict) else None
    listed = payload if isinstance(payload, list) else [payload]
    return [value for value in listed if value is not None]


def typed(value: Any) -> Any:
    """1 is 1.0, and not true."""
    return str(value) if isinstance(value, (bool, list)) else (value, isinstance(value, str))


def number(value: Fraction | None) -> Any:
    return None if value is None else pytest.approx(float(value), rel=1e-12)


def expected(payloads: Iterable[Any], path: str) -> dict[str, Any]:
    found = [value for payload in payloads for value in values(payload, path)]
    exact = sorted(Fraction(str(v)) for v in found if type(v) in (int, float))
    texts = sorted(v for v in found if isinstance(v, str))
    ends = [number(one) for one in (exact[0], exact[-1])] if exact else [*texts[:1], *texts[-1:]]
    low, high = ends or (None, None)
    total = sum(exact) if exact else None
    middle = (exact[(len(exact) - 1) // 2] + exact[len(exact) // 2]) / 2 if exact else None
    return {
        "min": low,
        "max": high,
        "mean": number(None if total is None else total / len(exact)),
        "median": number(middle),
        "sum": number(total),
        "count": len(found),
        "distinct": len(set(map(typed, found))),
    }


def of(payloads: list[Any], asked: Mapping[str, Any] = PATHS) -> dict[str, dict[str, Any]]:
    told = {path: expected(payloads, path) for path in asked}
    return {path: {name: told[path][name] for name in names} for path, names in asked.items()}


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn, encryption_keys=["A" * 43 + "="]) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        shared = (database.collection(Shared, namespace=one) for one in ("a", "b"))
        for prefix, vectors in zip("dab", (database.vectors, *shared), strict=True):
            payloads = PAYLOADS if prefix != "b" else [{"any": 10**9, "even": True}]
            await vectors.upsert(
                {"id": f"{prefix}{i}", "embedding": [1.0 + i] * 8, "payload": one}
                for i, one in enumerate(payloads)
            )
        yield database


@pytest.mark.parametrize("watched", [False, True])
async def test_aggregates_are_those_of_python_in_all_and_by_group(
    db: Database, watched: bool
) -> None:
    if watched:
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    async with db.unit_of_work() as uow:
        for vectors in (
            db.vectors,
            uow.vectors,
            db.collection(Shared, namespace="a"),
            uow.collection(Shared, namespace="a"),
        ):
            (everything,) = await vectors.aggregate(PATHS)
            assert everything == Aggregate(None, 700, of(PAYLOADS))
            some = [one for one in PAYLOADS if one["even"]]
            (halved,) = await vectors.aggregate(PATHS, where={"even": True})
            assert halved == Aggregate(None, 350, of(some))
            by_value: dict[Any, tuple[Any, list[Any]]] = defaultdict(lambda: (None, []))
            for one in PAYLOADS:
                for value in {typed(value): value for value in values(one, "tags")}.values():
                    by_value[typed(value)] = value, [*by_value[typed(value)][1], one]
            groups = await vectors.aggregate(PATHS, group_by="tags")
            assert {typed(group.value) for group in groups} == by_value.keys()
            for group in groups:
                _, members = by_value[typed(group.value)]
                assert group == Aggregate(group.value, len(members), of(members))
            sizes = [group.count for group in groups]
            assert sizes == sorted(sizes, reverse=True)
            assert await vectors.aggregate(PATHS, group_by="tags", limit=2) == groups[:2]


async def test_whole_numbers_stay_whole_and_large_ones_exact(db: Database) -> None:
    await db.vectors.delete_all()
    large = [10**400, 10**400 + 2, -(10**400), 3]
    await db.vectors.upsert(
        {"id": f"n{i}", "embedding": [1.0] * 8, "payload": {"n": n}} for i, n in enumerate(large)
    )
    (found,) = await db.vectors.aggregate({"n": ["min", "max", "sum"]})
    assert found.of["n"] == {"min": min(large), "max": max(large), "sum": sum(large)}
    assert all(type(value) is int for value in found.of["n"].values())


async def test_of_no_rows_there_is_nothing_to_tell(db: Database) -> None:
    assert await db.vectors.aggregate(PATHS, where={"even": 7}, group_by="tags") == []
    (nothing,) = await db.vectors.aggregate(PATHS, where={"even": 7})
    assert nothing == Aggregate(None, 0, of([]))


async def test_an_aggregate_is_one_round_trip_and_built_once(dsn: str) -> None:
    async with counted(dsn) as trips, Database.connect(trips.dsn) as db:
        compiled = compilations(db.engine)
        counts = []
        for even in (True, False, True):
            before = trips.count
            await db.vectors.aggregate(PATHS, where={"even": even}, group_by="words")
            counts.append(trips.count - before)
        assert counts[1:] == [1, 1]
        assert len(compiled) == 1


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ({}, "number of paths is 0"),
        ({f"p{i}": ["min"] for i in range(33)}, "number of paths is 33"),
        ({"a": []}, r"paths\['?a'?\] is empty"),
        ({"a": ["mode"]}, "min, max, mean"),
        ({"a": "min"}, "is a str"),
        ({"": ["min"]}, "empty key"),
        ({1: ["min"]}, "is a int"),
        (["a"], "is a list"),
    ],
)
async def test_what_can_not_be_aggregated_is_named(db: Database, paths: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        await db.vectors.aggregate(paths)


async def test_nothing_encrypted_is_aggregated(db: Database) -> None:
    shared = db.collection(Shared, namespace="a")
    for paths, group_by in (({"secret": ["min"]}, None), ({"any": ["min"]}, "secret.x")):
        with pytest.raises(InvalidInputError, match="stored encrypted"):
            await shared.aggregate(paths, group_by=group_by)
