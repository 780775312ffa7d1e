"""Diversity and groups: by the metric of each vector, and by values as filters know them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import insert
from sqlalchemy.orm import DeclarativeBase, Mapped

from qortex_db import Collection, Database, VectorMixin, VectorSpec, vector_column
from qortex_db.repositories.vectors.rows.diversity import most_diverse
from qortex_db.types import SparseVector
from support.catalogue import execute
from support.loading import indexed_at_the_end
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from numpy.typing import NDArray

    from qortex_db.models.vector_spec import Metric
    from qortex_db.repositories import VectorRepository
    from qortex_db.testing import Server


class Host(DeclarativeBase):
    """A host's own base."""


class Angle(VectorMixin, Host):
    __tablename__ = "angles"
    __collection__ = Collection(VectorSpec(2))


class Place(VectorMixin, Host):
    __tablename__ = "places"
    __collection__ = Collection(VectorSpec(2, "l2"))

    words: Mapped[Any | None] = vector_column(VectorSpec(1_000, "inner_product", storage="sparse"))
    away: Mapped[Any | None] = vector_column(VectorSpec(1_000, "l2", storage="sparse"))


class Product(VectorMixin, Host):
    __tablename__ = "products"
    __collection__ = Collection(VectorSpec(2, "inner_product"), namespace="tenant")


@pytest.fixture(scope="module")
def created(server: Server) -> Iterator[str]:
    async def create(dsn: str) -> None:
        await execute(dsn, "CREATE EXTENSION vector")
        async with (
            Database.connect(dsn) as db,
            indexed_at_the_end(db.engine, Host.metadata.sorted_tables),
        ):
            pass

    with copied(server, "template0") as dsn:
        asyncio.run(create(dsn))
        yield dsn


@pytest.fixture
async def db(created: str) -> AsyncIterator[Database]:
    async with Database.connect(created) as database:
        yield database
        async with database.engine.begin() as connection:
            for table in Host.metadata.sorted_tables:
                await connection.execute(table.delete())


async def store(db: Database, model: type[Any], rows: list[dict[str, Any]]) -> None:
    async with db.engine.begin() as connection:
        await connection.execute(insert(model.__table__), rows)


def ids(found: Any) -> list[str]:
    return [hit.id for hit in found]


@pytest.mark.parametrize("scale", [0.001, 1, 100, 1e6])
async def test_an_l2_collection_varies_by_l2_at_any_scale(db: Database, scale: float) -> None:
    points = {"a1": [1.2, 0], "a2": [1.1, 0], "a3": [1.05, 0], "b": [0, 3]}
    rows = [{"id": key, "vec": np.multiply(at, scale)} for key, at in points.items()]
    await store(db, Place, rows)
    query = np.multiply([1, 0], scale)
    for exact in (True, False):
        found = await db.collection(Place).mmr_search(query, limit=2, lambda_=0.3, exact=exact)
        assert ids(found) == ["a3", "b"]
    async with db.unit_of_work() as uow:
        similar = await uow.collection(Place).mmr_search(query, limit=4, lambda_=1.0)
        assert ids(similar) == ["a3", "a2", "a1", "b"]
        varied = await uow.collection(Place).mmr_search(query, limit=2, lambda_=0.3)
        assert ids(varied) == ["a3", "b"]


@pytest.mark.parametrize("scale", [0.01, 1, 1_000])
async def test_inner_products_of_any_size_are_weighed_alike(db: Database, scale: float) -> None:
    points = {"a": [3, 0], "same": [2.9, 0.1], "other": [1, 2], "zero": [0, 0]}
    rows = [{"id": key, "vec": np.multiply(at, scale), "tenant": "t"} for key, at in points.items()]
    await store(db, Product, rows)
    vectors = db.collection(Product, namespace="t")
    for query in ([1, 0], [50, 0]):
        found = await vectors.mmr_search(query, limit=4, lambda_=0.4)
        assert ids(found) == ["a", "other", "same", "zero"]
        assert not np.isnan([hit.score for hit in found]).any()
    assert ids(await vectors.mmr_search([0, 0], limit=2, lambda_=0.4))[0] != "zero"


async def test_a_zero_vector_is_a_point_like_any_other_by_l2(db: Database) -> None:
    points = {"a": [1, 1], "a2": [1.1, 1], "b": [4, 4], "zero": [0, 0]}
    await store(db, Place, [{"id": key, "vec": at} for key, at in points.items()])
    found = await db.collection(Place).mmr_search([1, 1], limit=4, lambda_=0.6)
    right = by_definition(np.array([1, 1]), list(points.values()), 4, 0.6, "l2")
    assert ids(found) == [list(points)[at] for at in right]


@pytest.mark.parametrize(("name", "metric"), [("words", "inner_product"), ("away", "l2")])
async def test_sparse_vectors_are_varied_by_their_own_metric(
    db: Database, name: str, metric: Metric
) -> None:
    random = np.random.default_rng(4)
    sparse = [
        {int(at): float(random.integers(1, 9)) for at in random.choice(1_000, 40, replace=False)}
        for _ in range(60)
    ]
    rows = [{"id": f"s{i:02}", "vec": [1, 1], name: one} for i, one in enumerate(sparse)]
    await store(db, Place, rows)
    query = dict.fromkeys(range(0, 1000, 3), 1.0)
    vectors = db.collection(Place)
    for given in (query, SparseVector(query, 1_000)):
        found = await vectors.mmr_search(
            given, using=name, limit=12, fetch_limit=60, lambda_=0.4, exact=True
        )
        near = ids(await vectors.search(given, using=name, limit=60, exact=True))
        embeddings = [whole(sparse[int(key[1:])]) for key in near]
        right = by_definition(whole(query), embeddings, 12, 0.4, metric)
        assert ids(found) == [near[at] for at in right]
    async with db.unit_of_work() as uow:
        some = await uow.collection(Place).mmr_search(
            query, using=name, limit=3, with_embedding=True
        )
        assert all(isinstance(hit.embedding, SparseVector) for hit in some)


def whole(sparse: dict[int, float]) -> NDArray[np.float64]:
    row = np.zeros(1_000)
    row[list(sparse)] = list(sparse.values())
    return row


def by_definition(
    query: Any, rows: list[Any], limit: int, lambda_: float, metric: str
) -> list[int]:
    """One similarity at a time, as the definition is written."""
    most = max(float(np.linalg.norm(row)) for row in rows)

    def similarity(a: Any, b: Any, unit: float) -> float:
        a, b = np.asarray(a, float), np.asarray(b, float)
        if metric == "l2":
            return -float(np.sqrt(((a - b) ** 2).sum()))
        if metric == "l1":
            return -float(np.abs(a - b).sum())
        if metric == "inner_product":
            return float(a @ b) / (unit * most)
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    length = float(np.linalg.norm(query))
    chosen: list[int] = []
    while len(chosen) < min(limit, len(rows)):
        gains = {}
        for i, row in enumerate(rows):
            if i not in chosen:
                like = max((similarity(row, rows[j], most) for j in chosen), default=0.0)
                gain = lambda_ * similarity(query, row, length) - (1 - lambda_) * like
                gains[i] = round(gain, 9)
        chosen.append(max(gains, key=lambda i: gains[i]))
    return chosen


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product", "l1"])
@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_choices_are_those_of_the_definition(metric: Metric, lambda_: float) -> None:
    random = np.random.default_rng(7)
    query = random.normal(size=384).astype(np.float32)
    rows = sorted(
        (5 * random.normal(size=384).astype(np.float32) for _ in range(50)),
        key=lambda row: by_distance(query, row, metric),
    )
    found = most_diverse(query, rows, 20, lambda_, metric)
    assert found == by_definition(query, rows, 20, lambda_, metric)
    scaled = most_diverse(query, [row * np.float32(1024) for row in rows], 20, lambda_, metric)
    if metric in ("cosine", "inner_product"):
        assert scaled == found
    positions = range(384)
    sparse = [SparseVector(dict(zip(positions, row.tolist(), strict=True)), 384) for row in rows]
    like = SparseVector(dict(zip(positions, query.tolist(), strict=True)), 384)
    assert most_diverse(like, sparse, 20, lambda_, metric) == found
    assert most_diverse(query, [], 3, lambda_, metric) == []


def by_distance(query: NDArray[np.float32], row: NDArray[np.float32], metric: str) -> float:
    if metric in ("l1", "l2"):
        return float(np.linalg.norm(row - query, ord=1 if metric == "l1" else 2))
    return -float(row @ query / (np.linalg.norm(row) if metric == "cosine" else 1))


async def test_groups_take_values_as_filters_do(db: Database) -> None:
    values = [1, 1.0, 2, "1", True, [2, 3], [2, 2, 2.0], [], None, {"k": 1}, {"k": 1.0}, [None, 3]]
    rows = [
        {"id": f"g{i:02}", "vec": [100 - i, i], "payload": {"v": value}}
        for i, value in enumerate(values)
    ]
    rows.append({"id": "bare", "vec": [1, 0], "payload": {}})
    await store(db, Angle, rows)

    async def check(vectors: VectorRepository) -> None:
        found = await vectors.search_groups([1, 0], "v", limit=20, group_size=5)
        assert [(one.value, ids(one.hits)) for one in found] == [
            (1, ["g00", "g01"]),
            (2, ["g02", "g05", "g06"]),
            ("1", ["g03"]),
            (True, ["g04"]),
            (3, ["g05", "g11"]),
            ({"k": 1}, ["g09", "g10"]),
        ]
        assert found.complete
        for one in found:
            if not isinstance(one.value, dict):
                where = {"$or": [{"v": {"$eq": one.value}}, {"v": {"$contains": one.value}}]}
                matching = await vectors.search([1, 0], where=where, limit=20)
                assert ids(one.hits) == ids(matching)
        few = await vectors.search_groups([1, 0], "v", limit=2, group_size=1)
        assert [(one.value, ids(one.hits)) for one in few] == [(1, ["g00"]), (2, ["g02"])]

    await check(db.collection(Angle))
    async with db.unit_of_work() as uow:
        await check(uow.collection(Angle))


@pytest.mark.parametrize("exact", [True, False])
async def test_no_group_is_empty_where_rows_have_no_angle(db: Database, exact: bool) -> None:
    rows = [
        {"id": f"z{i}", "vec": [0, 0] if i % 2 else [1, i], "payload": {"v": f"v{i}"}}
        for i in range(8)
    ]
    rows += [{"id": "both", "vec": [0, 0], "payload": {"v": "v0"}}]
    await store(db, Angle, rows)
    found = await db.collection(Angle).search_groups([1, 0], "v", limit=5, exact=exact)
    assert [(one.value, ids(one.hits)) for one in found] == [
        (f"v{i}", [f"z{i}"]) for i in range(0, 8, 2)
    ]


async def test_facets_and_groups_know_the_same_values(db: Database) -> None:
    values = [1, 1.0, [1, 1, 2], [], "x", None, [None]]
    rows = [
        {"id": f"f{i}", "vec": [1, i], "payload": {"v": value}} for i, value in enumerate(values)
    ]
    rows.append({"id": "bare", "vec": [1, 0], "payload": {}})
    await store(db, Angle, rows)
    counts = {repr(one.value): one.count for one in await db.collection(Angle).facet("v")}
    assert counts == {"1": 3, "2": 1, "'x'": 1, "None": 2}
