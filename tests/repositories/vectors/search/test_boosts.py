"""Scores by more than distance, compared with the same in Python."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    Database,
    Factor,
    FieldBoost,
    InvalidInputError,
    QortexVector,
    RecencyBoost,
    ValueBoost,
    VectorMixin,
    VectorSpec,
)
from qortex_db.settings import parse_dsn
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qortex_db.repositories import VectorRepository
    from qortex_db.testing import Server

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
MONTH = timedelta(days=30)
ROWS = 400


class Host(DeclarativeBase):
    """A host's own base."""


class Item(VectorMixin, Host):
    __tablename__ = "items"
    __collection__ = Collection(VectorSpec(384), namespace="tenant", namespace_in_key=True)

    tenant: Mapped[str] = mapped_column(primary_key=True)
    price: Mapped[float | None]
    stock: Mapped[int | None]
    shelf: Mapped[str | None]
    sold_on: Mapped[date | None]
    seen_at: Mapped[datetime | None]


class Far(VectorMixin, Host):
    __tablename__ = "fars"
    __collection__ = Collection(VectorSpec(2, "l2"))


def embedding(i: int) -> Any:
    rng = np.random.default_rng(i)
    return rng.normal(size=384) + np.eye(384)[0] * 30


def payload(i: int) -> dict[str, Any]:
    """Numbers, their likes and what is none; values and lists of them; times, and others."""
    likes: list[Any] = [i, -i / 7, None, "many", True, 10**120, 1e-300, [i]]
    at = (NOW - timedelta(days=i % 90)).isoformat()
    return {
        "stats": {"likes": likes[i % 8]},
        "tags": [["a", "b"], "a", 2, True, None, []][i % 6],
        "at": [at, at.replace("+00:00", "Z"), "yesterday", None, i][i % 5],
    }


def columns(i: int) -> dict[str, Any]:
    return {
        "price": None if i % 5 == 0 else i * 1.5,
        "stock": None if i % 7 == 0 else i,
        "shelf": "abc"[i % 3],
        "sold_on": None if i % 4 == 0 else NOW.date() - timedelta(days=i % 50),
        "seen_at": None if i % 6 == 0 else (NOW - timedelta(hours=i)).replace(tzinfo=None),
    }


def similarities(query: Any) -> dict[str, float]:
    vectors = np.array([embedding(i).astype(np.float32) for i in range(ROWS)], np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    plain = query.astype(np.float32).astype(np.float64)
    likeness = vectors @ (plain / np.linalg.norm(plain))
    return {f"i{i}": float(score) for i, score in enumerate(likeness)}


def halved(age: timedelta, half_life: timedelta) -> float:
    return float(0.5 ** (max(age, timedelta(0)) / half_life))


def expected(i: int, similarity: float, own: bool) -> float:
    """The score of row i by all terms of `terms`."""
    said = payload(i)
    score = similarity * (0.5 + i % 3 if i % 2 else 1.25)
    likes = said["stats"]["likes"]
    countable = isinstance(likes, (int, float)) and not isinstance(likes, bool)
    score += 0.001 * (likes if countable and abs(likes) <= 1e100 else 3.0)
    tags = said["tags"] if isinstance(said["tags"], list) else [said["tags"]]
    weights = {"a": 0.02, "b": -0.05}
    score += sum(weights.get(tag, 0.0) for tag in tags if isinstance(tag, str))
    score += 0.03 if said["tags"] is True else 0.0
    score += 0.01 if type(said["tags"]) is int else 0.0
    if i % 5 < 2:
        score += 0.1 * halved(timedelta(days=i % 90), MONTH)
    if own:
        mine = columns(i)
        score += 0.0001 * (mine["price"] or 0.0) - 0.0002 * (mine["stock"] or 0)
        score += {"a": 0.01, "b": 0.02}.get(mine["shelf"], 0.0)
        if mine["sold_on"]:
            noon = datetime.combine(mine["sold_on"], datetime.min.time(), UTC)
            score += 0.05 * halved(NOW - noon, MONTH)
        if mine["seen_at"]:
            score += 0.05 * halved(NOW - mine["seen_at"].replace(tzinfo=UTC), MONTH / 30)
    return score


def terms(own: bool) -> list[Any]:
    found: list[Any] = [
        FieldBoost("stats.likes", 0.001, missing=3.0),
        ValueBoost("tags", {"a": 0.02, "b": -0.05, True: 0.03, 2: 0.01, "absent": 9.0}),
        RecencyBoost("at", MONTH, 0.1, now=NOW),
        Factor(missing=1.25),
    ]
    if own:
        found += [
            FieldBoost("price", 0.0001),
            FieldBoost(Item.stock, -0.0002),
            ValueBoost(Item.shelf, {"a": 0.01, "b": 0.02}),
            RecencyBoost("sold_on", MONTH, 0.05, now=NOW.replace(tzinfo=None)),
            RecencyBoost(Item.seen_at, MONTH / 30, 0.05, now=NOW),
        ]
    return found


@pytest.fixture
async def filled(server: Server, template384: str) -> AsyncIterator[Database]:
    with copied(server, template384) as dsn:
        engine = create_async_engine(parse_dsn(dsn).url)
        async with engine.begin() as connection:
            await connection.run_sync(Host.metadata.create_all)
        await engine.dispose()
        async with Database.connect(dsn) as db:
            rows = [
                {"id": f"i{i}", "embedding": embedding(i), "payload": payload(i)}
                for i in range(ROWS)
            ]
            await db.vectors.ingest(rows)
            for tenant in ("ours", "theirs"):
                mine = db.collection(Item, namespace=tenant)
                await mine.ingest([{**row, "attributes": columns(i)} for i, row in enumerate(rows)])
            await db.factors.save({f"i{i}": 0.5 + i % 3 for i in range(1, ROWS, 2)})
            yield db


@pytest.mark.parametrize("own", [False, True], ids=["default", "collection"])
@pytest.mark.parametrize("host", ["own", "host", "watched"])
async def test_scores_are_those_of_python_in_both_lanes(
    filled: Database, own: bool, host: str
) -> None:
    query = embedding(5_000)
    likeness = similarities(query)
    score = {key: expected(int(key[1:]), likeness[key], own) for key in likeness}
    best = sorted(score, key=lambda key: -score[key])[:20]
    engine = create_async_engine(filled.engine.url)
    if host == "watched":
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
    db = filled if host == "own" else Database.from_engine(engine)

    def of(lanes: Any) -> VectorRepository:
        found: VectorRepository
        found = lanes.collection(Item, namespace="ours") if own else lanes.vectors
        return found

    async def check(vectors: VectorRepository) -> None:
        options: dict[str, Any] = {"limit": 20, "boost": terms(own), "fetch_limit": ROWS}
        hits = await vectors.search(query, **options)
        assert [hit.id for hit in hits] == best
        assert [hit.score for hit in hits] == pytest.approx([score[key] for key in best], rel=1e-5)
        assert hits[0].payload == payload(int(best[0][1:]))
        assert hits.complete
        for more in ({"exact": True}, {"complete": "never"}, {"with_embedding": True}):
            again = await vectors.search(query, **options, **more)
            assert [hit.id for hit in again] == best
        fewer = await vectors.search(query, **options, where={"tags": {"$contains": "b"}})
        assert [hit.id for hit in fewer] == [
            key for key in sorted(score, key=lambda key: -score[key]) if int(key[1:]) % 6 == 0
        ][:20]

    await check(of(db))
    async with db.unit_of_work() as uow:
        await check(of(uow))
    await engine.dispose()


async def test_only_the_most_similar_are_boosted_and_the_least_score_is_one_of_similarity(
    filled: Database,
) -> None:
    query = embedding(5_000)
    likeness = similarities(query)
    nearest = sorted(likeness, key=lambda key: -likeness[key])
    far = {nearest[150]: 100.0, nearest[30]: 2.0}
    await filled.factors.save(far)
    boost = Factor()
    found = await filled.vectors.search(query, limit=3, boost=boost)
    assert nearest[150] not in {hit.id for hit in found}
    found = await filled.vectors.search(query, limit=3, boost=[boost], fetch_limit=200)
    assert found[0].id == nearest[150]
    assert found[0].score == pytest.approx(100 * likeness[nearest[150]], rel=1e-5)
    floor = (likeness[nearest[30]] + likeness[nearest[31]]) / 2
    found = await filled.vectors.search(
        query, limit=40, min_score=floor, boost=boost, fetch_limit=200
    )
    assert {hit.id for hit in found} == set(nearest[:31])


async def test_what_can_not_be_said_so_is_refused(filled: Database) -> None:
    vectors, items = filled.vectors, filled.collection(Item, namespace="ours")
    bad: list[Any] = [
        [],
        "likes",
        [FieldBoost("a")] * 17,
        [Factor(), Factor()],
        [object()],
        [FieldBoost("a", float("nan"))],
        [FieldBoost("a", 1e101)],
        [FieldBoost("")],
        [FieldBoost(7)],  # type: ignore[arg-type]
        [FieldBoost(Item.price)],
        [FieldBoost(QortexVector.document)],
        [ValueBoost("a", {None: 1.0})],  # type: ignore[dict-item]
        [ValueBoost("a", [("b", 1.0)])],  # type: ignore[arg-type]
        [ValueBoost("a", {"b": "c"})],  # type: ignore[dict-item]
        [RecencyBoost("a", timedelta(0))],
        [RecencyBoost("a", 30)],  # type: ignore[arg-type]
        [RecencyBoost("a", MONTH, now="today")],  # type: ignore[arg-type]
        [Factor(-1.0)],
    ]
    for boost in bad:
        with pytest.raises(InvalidInputError):
            await vectors.search(embedding(1), boost=boost)
    for boost in ([FieldBoost("shelf")], [RecencyBoost(Item.price, MONTH)], [FieldBoost(Far.id)]):
        with pytest.raises(InvalidInputError):
            await items.search(embedding(1), boost=boost)
    with pytest.raises(InvalidInputError, match="use it with cosine"):
        await filled.collection(Far).search([1.0, 0.0], boost=Factor())
    for limit in (5, 0, 10_001):
        with pytest.raises(InvalidInputError, match="fetch_limit"):
            await vectors.search(embedding(1), limit=10, boost=Factor(), fetch_limit=limit)
    with pytest.raises(InvalidInputError, match="pass boost as well"):
        await vectors.search(embedding(1), fetch_limit=50)


async def test_numbers_at_the_ends_of_a_double_are_no_error(filled: Database) -> None:
    ends = [1e100, -1e100, 1e-100, 1e-301, 5e-324, 1.7e308, 0.0]
    await filled.vectors.upsert(
        [
            {"id": f"i{i}", "embedding": embedding(i), "payload": {"x": x}}
            for i, x in enumerate(ends)
        ]
    )
    await filled.factors.save({f"i{i}": abs(x) for i, x in enumerate(ends) if abs(x) <= 1e100})
    for weight in (1e100, 1e-100, 1e-300, -1e100):
        boost = [
            Factor(),
            FieldBoost("x", weight),
            RecencyBoost("at", timedelta.resolution, weight),
        ]
        hits = await filled.vectors.search(embedding(3), boost=boost, fetch_limit=ROWS)
        assert len(hits) == 10
        assert all(np.isfinite(hit.score) for hit in hits)
