"""Recommendations by the best score, against numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import insert
from sqlalchemy.orm import DeclarativeBase, Mapped

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    NotFoundError,
    VectorMixin,
    VectorSpec,
    vector_column,
)
from support.commands import ROOT
from support.loading import loaded_collections
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from numpy.typing import NDArray

    from qortex_db import SearchHits
    from qortex_db.testing import Server

PASSAGES = np.load(ROOT / "benchmarks" / "pydocs" / "passages.npy").astype(np.float32)[:2000]
QUERIES = np.load(ROOT / "benchmarks" / "pydocs" / "queries.npy").astype(np.float32)
UNIT = PASSAGES / np.linalg.norm(PASSAGES, axis=1, keepdims=True)
POSITIVE, NEGATIVE = [10, 500, 1_200], [700, 11]


class Host(DeclarativeBase):
    """A host's own base."""


class Cosine(VectorMixin, Host):
    __tablename__ = "cosine"
    __collection__ = Collection(VectorSpec(384))


class Euclid(VectorMixin, Host):
    __tablename__ = "euclid"
    __collection__ = Collection(VectorSpec(384, "l2"))


class Half(VectorMixin, Host):
    __tablename__ = "half"
    __collection__ = Collection(VectorSpec(384, "inner_product", storage="half"))


class Binary(VectorMixin, Host):
    __tablename__ = "binary"
    __collection__ = Collection(VectorSpec(384, quantization="binary"))


class Sparse(VectorMixin, Host):
    __tablename__ = "sparse"
    __collection__ = Collection(VectorSpec(2, index=None))

    words: Mapped[Any | None] = vector_column(VectorSpec(20_000, "inner_product", storage="sparse"))


SIMILARITIES: dict[type[Any], Any] = {
    Cosine: lambda q: UNIT @ (q / np.linalg.norm(q)),
    Euclid: lambda q: 1 / (1 + np.linalg.norm(PASSAGES - q, axis=1)),
    Half: lambda q: PASSAGES @ q,
    Binary: lambda q: UNIT @ (q / np.linalg.norm(q)),
}


@pytest.fixture(scope="module")
def loaded(server: Server) -> Iterator[str]:
    tables = Host.metadata.sorted_tables
    with loaded_collections(server, tables, SIMILARITIES, PASSAGES, "even") as dsn:
        yield dsn


@pytest.fixture
async def db(loaded: str) -> AsyncIterator[Database]:
    async with Database.connect(loaded) as database:
        yield database


def scores(
    model: type[Any], liked: Sequence[NDArray[np.float32]], disliked: Sequence[NDArray[np.float32]]
) -> NDArray[np.float64]:
    good = np.max([SIMILARITIES[model](one) for one in liked], axis=0)
    if not disliked:
        return good
    bad = np.max([SIMILARITIES[model](one) for one in disliked], axis=0)
    return np.where(good > bad, good, -(bad**2))


def best(given: NDArray[np.float64], examples: Sequence[int]) -> list[str]:
    order = np.argsort(-given, kind="stable")
    return [f"p{i:04}" for i in order if i not in examples]


@pytest.mark.parametrize("model", SIMILARITIES)
@pytest.mark.parametrize("negative", [[], NEGATIVE])
async def test_best_scores_are_those_of_the_definition(
    db: Database, model: type[Any], negative: list[int]
) -> None:
    vectors = db.collection(model)
    liked = [*(PASSAGES[i] for i in POSITIVE), QUERIES[4]]
    disliked = [PASSAGES[i] for i in negative]
    given = scores(model, liked, disliked)
    right = best(given, POSITIVE + negative)

    async def found(*, exact: bool, limit: int = 20) -> SearchHits:
        return await vectors.recommend(
            [*(f"p{i:04}" for i in POSITIVE), QUERIES[4]],
            [f"p{i:04}" for i in negative],
            strategy="best_score",
            limit=limit,
            exact=exact,
        )

    tolerance = 2e-3 if model is Half else 1e-4
    exact = await found(exact=True)
    expected = [float(given[int(key[1:])]) for key in right[:20]]
    assert [hit.score for hit in exact] == pytest.approx(expected, abs=tolerance)
    if model is not Half:  # whose scores are rounded
        assert [hit.id for hit in exact] == right[:20]
    approximate = await found(exact=False)
    assert len({hit.id for hit in approximate} & set(right[:20])) >= 19
    everything = await found(exact=True, limit=2_000)
    assert [hit.score for hit in everything] == pytest.approx(
        [float(given[int(key[1:])]) for key in right], abs=tolerance
    )


async def test_best_scores_are_narrowed_and_one_round_trip(loaded: str) -> None:
    async with counted(loaded) as trips, Database.connect(trips.dsn) as db:
        vectors = db.collection(Cosine)
        for exact in (True, False):
            for _ in range(2):
                before = trips.count
                found = await vectors.recommend(
                    ["p0010"],
                    [QUERIES[1]],
                    strategy="best_score",
                    where={"even": True},
                    with_embedding=True,
                    exact=exact,
                )
            assert trips.count - before == 1
            assert len(found) == 10
            assert all((hit.payload or {})["even"] for hit in found)
            given = scores(Cosine, [PASSAGES[10]], [QUERIES[1]])
            right = [key for key in best(given, [10]) if int(key[1:]) % 2 == 0]
            assert len({hit.id for hit in found} & set(right[:10])) >= 9
            number = int(found[0].id[1:])
            assert found[0].embedding == pytest.approx(PASSAGES[number], abs=1e-6)


async def test_both_strategies_take_a_sparse_vectors_examples(db: Database) -> None:
    async with db.unit_of_work() as uow:
        rows = [
            {"id": "a", "vec": [1, 0], "words": {3: 1.0}},
            {"id": "b", "vec": [1, 0], "words": {3: 0.5, 7: 2.0}},
            {"id": "c", "vec": [1, 0], "words": {7: 1.0}},
        ]
        await uow.session.execute(insert(Sparse.__table__), rows)  # type: ignore[arg-type]
        vectors = uow.collection(Sparse)
        found = await vectors.recommend(["a"], [{7: 1.0}], strategy="best_score", using="words")  # type: ignore[list-item]
        assert [(hit.id, hit.score) for hit in found] == [("c", -1.0), ("b", -4.0)]
        found = await vectors.recommend([{3: 1.0}], strategy="best_score", using="words")  # type: ignore[list-item]
        assert [(hit.id, hit.score) for hit in found] == [("a", 1.0), ("b", 0.5), ("c", 0.0)]
        await uow.session.rollback()


async def test_a_bad_strategy_and_too_many_examples_are_refused(db: Database) -> None:
    vectors = db.collection(Cosine)
    with pytest.raises(InvalidInputError, match="average, best_score"):
        await vectors.recommend(["p0001"], strategy="median")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="number of examples is 33"):
        await vectors.recommend(list(QUERIES[:33]), strategy="best_score")
    with pytest.raises(NotFoundError, match="2 of the examples"):
        await vectors.recommend(["p0001", "gone"], ["gone too"], strategy="best_score")
