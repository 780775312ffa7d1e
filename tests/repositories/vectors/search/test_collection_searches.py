"""Declared collections, searched: each metric, storage and quantization against numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray  # noqa: TC002 - SQLAlchemy resolves Mapped[...]
from sqlalchemy import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    VectorMixin,
    VectorSpec,
    vector_column,
)
from qortex_db.types import SparseVector
from support.commands import ROOT
from support.loading import loaded_collections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db import SearchHits
    from qortex_db.testing import Server

pytestmark = pytest.mark.slow

PASSAGES = np.load(ROOT / "benchmarks" / "pydocs" / "passages.npy").astype(np.float32)[:3000]
QUERIES = np.load(ROOT / "benchmarks" / "pydocs" / "queries.npy").astype(np.float32)


class Host(DeclarativeBase):
    """A host's own base."""


class Euclid(VectorMixin, Host):
    __tablename__ = "euclid"
    __collection__ = Collection(VectorSpec(384, "l2"))


class Taxi(VectorMixin, Host):
    __tablename__ = "taxi"
    __collection__ = Collection(VectorSpec(384, "l1"))


class Inner(VectorMixin, Host):
    __tablename__ = "inner_product"
    __collection__ = Collection(VectorSpec(384, "inner_product"))


class Half(VectorMixin, Host):
    __tablename__ = "half"
    __collection__ = Collection(VectorSpec(384, storage="half"))


class HalfIndex(VectorMixin, Host):
    __tablename__ = "half_index"
    __collection__ = Collection(VectorSpec(384, quantization="half"))


class Binary(VectorMixin, Host):
    __tablename__ = "binary_index"
    __collection__ = Collection(VectorSpec(384, quantization="binary"))


class Several(VectorMixin, Host):
    __tablename__ = "several"
    __collection__ = Collection(VectorSpec(3))

    year: Mapped[int | None] = mapped_column()
    title: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(2, "l2"))
    words: Mapped[Any | None] = vector_column(VectorSpec(50, "inner_product", storage="sparse"))


UNIT = PASSAGES / np.linalg.norm(PASSAGES, axis=1, keepdims=True)
SCORES: dict[type[Any], Any] = {
    Euclid: lambda q: -np.linalg.norm(PASSAGES - q, axis=1),
    Taxi: lambda q: -np.abs(PASSAGES - q).sum(axis=1),
    Inner: lambda q: PASSAGES @ q,
    Half: lambda q: UNIT @ (q / np.linalg.norm(q)),
    HalfIndex: lambda q: UNIT @ (q / np.linalg.norm(q)),
    Binary: lambda q: UNIT @ (q / np.linalg.norm(q)),
}


@pytest.fixture(scope="module")
def loaded(server: Server) -> Iterator[str]:
    tables = Host.metadata.sorted_tables
    with loaded_collections(server, tables, SCORES, PASSAGES, "half") as dsn:
        yield dsn


@pytest.fixture
async def db(loaded: str) -> AsyncIterator[Database]:
    async with Database.connect(loaded) as database:
        yield database


def best(scores: NDArray[np.float32], *, even: bool = False) -> list[str]:
    order = np.argsort(-scores, kind="stable")
    return [f"p{i:04}" for i in order if not even or i % 2 == 0]


def recall(found: SearchHits, right: list[str]) -> float:
    return len({hit.id for hit in found} & set(right[: len(found)])) / len(found)


@pytest.mark.parametrize("model", SCORES)
@pytest.mark.parametrize("even", [False, True])
async def test_each_kind_of_collection_finds_its_nearest(
    db: Database, model: type[Any], even: bool
) -> None:
    vectors = db.collection(model)
    where = {"half": True} if even else None
    shares = []
    for query in QUERIES:
        scores = SCORES[model](query)
        found = await vectors.search(query, where=where)
        assert len(found) == 10
        shares.append(recall(found, best(scores, even=even)))
        right = [float(scores[int(hit.id[1:])]) for hit in found]
        tolerance = 2e-3 if model is Half else 1e-4
        assert [hit.score for hit in found] == pytest.approx(right, abs=tolerance, rel=1e-4)
        assert [hit.score for hit in found] == sorted((h.score for h in found), reverse=True)
    assert np.mean(shares) >= 0.97


@pytest.mark.parametrize("model", SCORES)
async def test_the_index_of_each_kind_is_read(db: Database, model: type[Any]) -> None:
    plan = await db.collection(model).explain(QUERIES[0])
    assert plan.indexes == (f"ix_{model.__tablename__}_vec",)
    assert not plan.compared_every_row


async def test_more_oversampling_finds_more(db: Database) -> None:
    vectors = db.collection(Binary)
    shares = {}
    for factor in (1, 20):
        found = [await vectors.search(query, oversampling=factor) for query in QUERIES]
        right = [best(SCORES[Binary](query)) for query in QUERIES]
        shares[factor] = np.mean([recall(f, r) for f, r in zip(found, right, strict=True)])
    assert shares[1] < 0.9
    assert shares[20] >= 0.97


@pytest.mark.parametrize("model", SCORES)
async def test_every_other_search_works_on_each_kind(db: Database, model: type[Any]) -> None:
    vectors = db.collection(model)
    scores = SCORES[model](QUERIES[0])
    order = best(scores)
    least = float(np.sort(scores)[-20])
    tolerance = 2e-3 if model is Half else 1e-5
    within = await vectors.range_search(QUERIES[0], min_score=least - tolerance)
    assert set(order[:20]) <= {hit.id for hit in within}
    assert len(within) < 40
    several = await vectors.multi_search(QUERIES[:3])
    assert len(several) == 10
    twice = await vectors.multi_search([QUERIES[0]] * 2, limit=100, rank="count", exact=True)
    assert len(twice) == 100
    by_distance = vectors._vectors.vector.metric in ("l2", "l1")
    for hit in twice[:5]:
        score = float(scores[int(hit.id[1:])])
        similarity = 1 / (1 - score) if by_distance else score
        assert hit.score == pytest.approx(2 * similarity, abs=2 * tolerance)
    like = await vectors.recommend([order[0]], [order[-1]])
    assert order[0] not in {hit.id for hit in like}
    assert len(like) == 10
    hybrid = await vectors.hybrid_search(QUERIES[0], "nothing has a document")
    assert len({hit.id for hit in hybrid} & set(order[:10])) >= 9
    varied = await vectors.mmr_search(QUERIES[0], lambda_=1.0, with_embedding=True)
    assert varied[0].id == order[0]
    number = int(order[0][1:])
    assert varied[0].embedding == pytest.approx(PASSAGES[number], abs=1e-3)
    groups = await vectors.search_groups(QUERIES[0], "half", group_size=2)
    assert [len(group.hits) for group in groups] == [2, 2]


async def test_further_vectors_are_searched_by_their_names(db: Database) -> None:
    rows = [
        {"id": "a", "vec": [1, 0, 0], "title": [0, 1], "words": {3: 1.0}, "year": 1999},
        {"id": "b", "vec": [0, 1, 0], "title": [5, 5], "words": {3: 0.5, 7: 2.0}, "year": 2009},
    ]
    async with db.engine.begin() as connection:
        await connection.execute(insert(Several.__table__), rows)  # type: ignore[arg-type]
    vectors = db.collection(Several)
    assert (await vectors.search([0, 1, 0]))[0].id == "b"
    by_title = await vectors.search([0, 2], using="title")
    assert [(hit.id, hit.score) for hit in by_title] == [("a", -1.0), ("b", -np.sqrt(34))]
    by_words = await vectors.search(SparseVector({3: 2.0, 7: 1.0}, 50), using="words")
    assert [(hit.id, hit.score) for hit in by_words] == [("b", 3.0), ("a", 2.0)]
    async with db.unit_of_work() as uow:
        await uow.collection(Several).upsert([{"id": "c", "embedding": [1, 1, 1]}])
        (titles,) = [b async for b in uow.collection(Several).stream_batches(using="title")]
        assert (titles.ids, titles.embeddings.tolist()) == (["a", "b"], [[0, 1], [5, 5]])
        with pytest.raises(InvalidInputError, match="Sparse vectors are no matrix"):
            await anext(uow.collection(Several).stream_batches(using="words"))
        assert len(await uow.collection(Several).search([0, 2], using="title")) == 2
        assert len(await uow.collection(Several).search([0, 2, 2])) == 3
        await uow.collection(Several).delete(["c"])
    recent = await vectors.search([0, 2], using="title", where=Several.year > 2000)
    assert [hit.id for hit in recent] == ["b"]
    with pytest.raises(InvalidInputError, match="vec, title, words"):
        await vectors.search([0, 2], using="missing")
    with pytest.raises(InvalidInputError, match="dimensions"):
        await vectors.search([0, 2, 3], using="title")


@pytest.mark.parametrize("oversampling", [0, 0.5, 101, "2"])
async def test_oversampling_has_bounds(db: Database, oversampling: Any) -> None:
    with pytest.raises(InvalidInputError, match="oversampling"):
        await db.collection(Binary).search(QUERIES[0], oversampling=oversampling)
