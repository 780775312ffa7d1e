"""Fusion of dense, full-text and sparse branches, against answers computed in Python."""

from __future__ import annotations

import asyncio
import math
import re
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    VectorMixin,
    VectorSpec,
    vector_column,
)
from qortex_db.sample import load_sample
from qortex_db.types import SparseVector
from support import fusion
from support.catalogue import execute
from support.full_text import WORDS
from support.loading import indexed_at_the_end, rename_backwards
from support.roundtrips import counted
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from qortex_db import SearchHits
    from qortex_db.testing import Server

SAMPLE = load_sample()
TEXTS = [passage["text"] for passage in SAMPLE.passages]
IDS = [f"p{i:04}" for i in range(len(TEXTS))]
QUESTIONS = [question["text"] for question in SAMPLE.questions]
QUERIES = SAMPLE.question_embeddings
UNIT = SAMPLE.passage_embeddings / np.linalg.norm(SAMPLE.passage_embeddings, axis=1, keepdims=True)
DIMENSIONS = 5_000


class Host(DeclarativeBase):
    """A host's own base."""


class Passage(VectorMixin, Host):
    __tablename__ = "passages"
    __collection__ = Collection(VectorSpec(384), language="english")

    words: Mapped[Any | None] = vector_column(
        VectorSpec(DIMENSIONS, "inner_product", storage="sparse")
    )


class Small(VectorMixin, Host):
    __tablename__ = "small"
    __collection__ = Collection(VectorSpec(2))

    first: Mapped[Any | None] = vector_column(VectorSpec(4, "cosine", storage="sparse"))
    second: Mapped[Any | None] = vector_column(VectorSpec(4, "l2", storage="sparse"))


class Tenant(VectorMixin, Host):
    __tablename__ = "tenants"
    __collection__ = Collection(VectorSpec(2), namespace="tenant", namespace_in_key=True)

    words: Mapped[Any | None] = vector_column(VectorSpec(4, "cosine", storage="sparse"))


def positions(words: str) -> Counter[int]:
    return Counter(zlib.crc32(w.encode()) % DIMENSIONS for w in re.findall(r"\w+", words.lower()))


COUNTS = [positions(words) for words in TEXTS]
FREQUENCY = Counter(at for counts in COUNTS for at in counts)


def tf_idf(words: str) -> dict[int, float]:
    """In quarters, whose products float4 holds exactly."""
    return {
        at: min(count, 8) * round(4 * math.log(len(TEXTS) / (1 + FREQUENCY[at])) + 1) / 4
        for at, count in positions(words).items()
    }


SPARSE = [tf_idf(words) for words in TEXTS]


@pytest.fixture(scope="module")
def loaded(server: Server) -> Iterator[str]:
    async def load(dsn: str) -> None:
        await execute(dsn, "CREATE EXTENSION vector")
        async with (
            Database.connect(dsn) as db,
            indexed_at_the_end(db.engine, Host.metadata.sorted_tables),
            db.engine.begin() as connection,
        ):
            rows = [
                {"id": i, "vec": e, "document": t, "words": w, "payload": {"even": n % 2 == 0}}
                for n, (i, e, t, w) in enumerate(
                    zip(IDS, SAMPLE.passage_embeddings, TEXTS, SPARSE, strict=True)
                )
            ]
            await connection.execute(insert(Passage.__table__), rows)  # type: ignore[arg-type]

    with copied(server, "template0") as dsn:
        asyncio.run(load(dsn))
        yield dsn


@pytest.fixture
async def db(loaded: str) -> AsyncIterator[Database]:
    async with Database.connect(loaded) as database:
        yield database


def dense(number: int) -> dict[str, float]:
    return dict(zip(IDS, map(float, UNIT @ QUERIES[number]), strict=True))


def sparse(number: int) -> dict[str, float]:
    query = tf_idf(QUESTIONS[number])
    products = (sum(w * row.get(at, 0) for at, w in query.items()) for row in SPARSE)
    return {key: product for key, product in zip(IDS, products, strict=True) if product > 0}


async def lexical(db: Database, words: str) -> dict[str, float]:
    """By PostgreSQL's own words, apart from any of our statements."""
    query = (
        "SELECT id, ts_rank_cd(d, q) FROM passages, "
        f"{WORDS} d, websearch_to_tsquery('english', $1) q WHERE d @@ q"
    )
    async with db.engine.connect() as connection:
        return {row[0]: row[1] for row in await connection.exec_driver_sql(query, (words,))}


def by_scores(
    branches: list[Mapping[str, float]],
    weights: list[float],
    similar: Mapping[str, float] = fusion.NO_QUERY,
) -> dict[str, float]:
    total: dict[str, float] = {}
    for scores, weight in zip(branches, weights, strict=True):
        kept = {key: scores[key] for key in fusion.best(scores, 100, similar)}
        low, high = min(kept.values()), max(kept.values())
        for key, score in kept.items():
            total[key] = total.get(key, 0) + weight * (score - low) / (high - low)
    return total


def assert_same(
    found: SearchHits, scores: Mapping[str, float], similar: Mapping[str, float] = fusion.NO_QUERY
) -> None:
    right = fusion.best(scores, found.requested, similar)
    assert [hit.id for hit in found] == right
    expected = [scores[key] for key in right]
    assert [hit.score for hit in found] == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("number", range(0, 40, 5))
async def test_three_branches_are_fused_by_weighted_reciprocal_ranks(
    db: Database, number: int
) -> None:
    words = " or ".join(re.findall(r"\w+", QUESTIONS[number]))
    branches = [dense(number), await lexical(db, words), sparse(number)]
    vectors = db.collection(Passage)
    query = tf_idf(QUESTIONS[number])
    plain = await vectors.hybrid_search(
        QUERIES[number], words, sparse=query, limit=30, exact=True, match="websearch"
    )
    near = branches[0]
    assert_same(plain, fusion.by_ranks(branches, [100] * 3, [1, 1, 1], similar=near), near)
    weighted = await vectors.hybrid_search(
        QUERIES[number],
        words,
        sparse=SparseVector(query, DIMENSIONS),
        limit=20,
        weights={"dense": 0.5, "sparse": 2},
        branch_limit={"text": 30, "sparse": 7},
        k=5,
        exact=True,
        match="websearch",
    )
    right = fusion.by_ranks(branches, [100, 30, 7], [0.5, 1, 2], k=5, similar=near)
    assert_same(weighted, right, near)
    only = await vectors.hybrid_search(
        QUERIES[number],
        words,
        sparse=query,
        branch_limit=3,
        limit=100,
        exact=True,
        match="websearch",
    )
    assert not only.complete
    assert {hit.id for hit in only} == {
        key for one in branches for key in fusion.best(one, 3, near)
    }


async def test_alpha_weighs_the_embedding_against_what_the_others_share(db: Database) -> None:
    words = "file or path or read"
    branches = [dense(3), await lexical(db, words), sparse(3)]
    query = tf_idf(QUESTIONS[3])
    vectors = db.collection(Passage)
    found = await vectors.hybrid_search(
        QUERIES[3], words, sparse=query, alpha=0.4, limit=20, exact=True, match="websearch"
    )
    near = branches[0]
    assert_same(found, by_scores(branches, [0.4, 0.3, 0.3], near), near)
    weighted = await vectors.hybrid_search(
        QUERIES[3],
        words,
        sparse=query,
        alpha=0.5,
        weights={"sparse": 3},
        limit=20,
        exact=True,
        match="websearch",
    )
    assert_same(weighted, by_scores(branches, [0.5, 0.25, 0.75], near), near)


async def test_any_two_branches_are_fused_and_one_alone_is_ranked(db: Database) -> None:
    words = "file or path"
    vectors = db.collection(Passage)
    query = tf_idf(QUESTIONS[7])
    branches = {"dense": dense(7), "text": await lexical(db, words), "sparse": sparse(7)}
    given: dict[str, Any] = {"dense": QUERIES[7], "text": words, "sparse": query}
    names = ["dense", "text", "sparse"]
    for chosen in (names[:2], names[1:], names[::2], *([name] for name in names)):
        one = {name: given[name] if name in chosen else None for name in names}
        found = await vectors.hybrid_search(
            one["dense"], one["text"], sparse=one["sparse"], limit=15, exact=True, match="websearch"
        )
        parts = [branches[name] for name in chosen]
        told_apart = next((name for name in ("dense", "sparse") if name in chosen), None)
        near = branches[told_apart] if told_apart else fusion.NO_QUERY
        right = fusion.by_ranks(parts, [100] * len(parts), [1] * len(parts), similar=near)
        assert_same(found, right, near)
    some = await vectors.hybrid_search(None, words, branch_limit=5, limit=5, match="websearch")
    assert some.complete
    nothing = await vectors.hybrid_search(None, "zzzz", match="websearch")
    assert (list(nothing), nothing.complete) == ([], True)


async def test_the_indexes_of_both_vectors_find_what_exact_search_finds(db: Database) -> None:
    vectors = db.collection(Passage)
    shares = []
    for number in range(40):
        query = tf_idf(QUESTIONS[number])
        for where in (None, {"even": True}):
            right, found = [
                await vectors.hybrid_search(
                    QUERIES[number],
                    QUESTIONS[number],
                    sparse=query,
                    where=where,
                    exact=exact,
                    match="websearch",
                )
                for exact in (True, False)
            ]
            assert len(found) == len(right) == 10
            shares.append(len({h.id for h in found} & {h.id for h in right}) / 10)
            if where:
                assert all((hit.payload or {})["even"] for hit in found)
    assert np.mean(shares) >= 0.97


async def test_a_sparse_branch_brings_in_only_what_shares_a_position(db: Database) -> None:
    vectors = db.collection(Passage)
    rare = next(at for at, count in FREQUENCY.items() if count == 3)
    found = await vectors.hybrid_search(None, sparse={rare: 1.0}, limit=50)
    assert {hit.id for hit in found} == {
        i for i, row in zip(IDS, SPARSE, strict=True) if rare in row
    }
    assert len(await vectors.hybrid_search(None, sparse={})) == 0


async def test_a_zero_vector_is_no_hit_of_a_fused_search(db: Database) -> None:
    async with db.unit_of_work() as uow:
        small = uow.collection(Small)
        await small.upsert_with_zeros(
            [{"id": "zero", "embedding": [0, 0]}, {"id": "one", "embedding": [1, 1]}]
        )
        assert [hit.id for hit in await small.hybrid_search([1, 2])] == ["one"]
        await uow.session.rollback()


async def test_equal_scores_are_in_the_order_of_similarity_then_of_ids(db: Database) -> None:
    assert 1 / 3 + 1 / 4 + 1 / 5 < 1 / 5 + 1 / 3 + 1 / 4  # as floats are
    async with db.unit_of_work() as uow:
        rows = [  # ranks 1, 2, 3 in each order
            {"id": "a", "vec": [2, 0], "first": {0: 2, 1: 1}, "document": "red"},
            {"id": "c", "vec": [2, 1], "first": {0: 1}, "document": "red red red"},
            {"id": "b", "vec": [0, 1], "first": {0: 1, 1: 1}, "document": "red red"},
        ]
        await uow.session.execute(insert(Small.__table__), rows)  # type: ignore[arg-type]
        found = await uow.collection(Small).hybrid_search(
            [1, 0],
            "red",
            sparse={0: 1, 1: 1},
            sparse_using="first",
            k=2,
            exact=True,
            match="websearch",
        )
        assert [hit.id for hit in found] == ["a", "c", "b"]
        assert len({hit.score for hit in found}) == 1
        # Where a branch is cut among equals, the first ids stay.
        same = [{"id": f"s{i}", "vec": [1, 0]} for i in range(9, 0, -1)]
        await uow.session.execute(insert(Small.__table__), same)  # type: ignore[arg-type]
        cut = await uow.collection(Small).hybrid_search([1, 0], branch_limit=3, exact=True)
        assert [hit.id for hit in cut] == ["a", "s1", "s2"]
        await uow.session.rollback()


async def test_documents_of_one_text_are_told_apart_by_the_embedding(db: Database) -> None:
    rows = [
        {"id": f"{i:03}", "vec": [100 - i, i], "document": "one text", "payload": {"i": i}}
        for i in range(100)
    ]
    async with db.unit_of_work() as uow:
        await uow.session.execute(insert(Small.__table__), rows)  # type: ignore[arg-type]
        small = uow.collection(Small)
        for options in ({}, {"alpha": 0.5}, {"branch_limit": {"text": 20}}, {"exact": True}):
            found = await small.hybrid_search(
                [0, 1], "text", limit=100, **options, match="websearch"
            )
            assert [hit.id for hit in found] == [f"{i:03}" for i in range(99, -1, -1)]
        await uow.session.rollback()


async def test_without_an_embedding_they_are_told_apart_by_the_sparse_one(db: Database) -> None:
    rows = [
        {"id": f"{i:03}", "vec": [1, 0], "first": {0: 1 + i, 1: 1}, "document": "one text"}
        for i in range(100)
    ]
    rows.append({"id": "none", "vec": [1, 0], "first": None, "document": "one text"})
    async with db.unit_of_work() as uow:
        await uow.session.execute(insert(Small.__table__), rows)  # type: ignore[arg-type]
        found = await uow.collection(Small).hybrid_search(
            None,
            "text",
            sparse={0: 1},
            sparse_using="first",
            limit=30,
            branch_limit={"text": 20, "sparse": 30},
            exact=True,
        )
        assert [hit.id for hit in found] == [f"{i:03}" for i in range(99, 69, -1)]
        assert found[19].score == 1 / 61 + 1 / 80
        assert found[20].score == 1 / 81
        await uow.session.rollback()


async def test_ids_order_nothing_but_what_is_equal_in_all_else(db: Database) -> None:
    """Passages are renamed, in the opposite order; two of them that say the same are equal."""
    vectors = db.collection(Passage)
    async with db.unit_of_work() as uow:
        await rename_backwards(uow.session, "passages")
        renamed = uow.collection(Passage)
        for number in range(0, 40, 5):
            words = " or ".join(re.findall(r"\w+", QUESTIONS[number]))
            query = tf_idf(QUESTIONS[number])
            for options in ({}, {"sparse": query}, {"alpha": 0.3}):
                before, after = [
                    await one.hybrid_search(
                        QUERIES[number], words, limit=10, exact=True, **options, match="websearch"
                    )
                    for one in (vectors, renamed)
                ]
                assert [hit.document for hit in before] == [hit.document for hit in after]
        await uow.session.rollback()


async def test_every_form_of_it_is_one_round_trip_and_leaves_no_setting(loaded: str) -> None:
    query = tf_idf(QUESTIONS[0])
    async with counted(loaded) as trips, Database.connect(trips.dsn) as db:
        vectors = db.collection(Passage)
        for options in (
            {"sparse": query},
            {"sparse": query, "alpha": 0.5, "where": {"even": True}},
            {"sparse": query, "branch_limit": {"sparse": 500}},
        ):
            await vectors.hybrid_search(QUERIES[0], "file", **options, match="websearch")
            async with trips.expect(1):
                await vectors.hybrid_search(QUERIES[0], "file", **options, match="websearch")
        async with db.unit_of_work() as uow:
            await uow.session.execute(text("SET LOCAL hnsw.ef_search = 77"))
            await uow.collection(Passage).hybrid_search(
                QUERIES[0], "file", sparse=query, match="websearch"
            )
            shown = await uow.session.execute(text("SHOW hnsw.ef_search"))
            assert shown.scalar_one() == "77"


async def test_both_indexes_are_read(db: Database) -> None:
    """By what the server counts: the statement has no explain of its own."""

    async def scans() -> dict[str, int]:
        query = "SELECT indexrelname, idx_scan FROM pg_stat_user_indexes WHERE relname = 'passages'"
        async with db.engine.connect() as connection:
            await connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
            return {row[0]: row[1] for row in await connection.exec_driver_sql(query)}

    before = await scans()
    async with db.unit_of_work() as uow:
        await uow.session.execute(text("SET LOCAL enable_seqscan = off"))
        await uow.collection(Passage).hybrid_search(
            QUERIES[0], "gzip", sparse=tf_idf(QUESTIONS[0]), match="websearch"
        )
        await uow.session.execute(text("SELECT pg_stat_force_next_flush()"))
    after = await scans()
    for name in ("vec", "words", "document"):
        used = [key for key in after if f"_{name}" in key and after[key] > before[key]]
        assert used, name


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda v: v.hybrid_search(None), "Pass an embedding"),
        (lambda v: v.hybrid_search(None, None), "Pass an embedding"),
        (
            lambda v: v.hybrid_search(
                QUERIES[0], sparse_using="words", sparse=[1.0], match="websearch"
            ),
            "mapping",
        ),
        (lambda v: v.hybrid_search(QUERIES[0], sparse={-1: 1.0}), "position"),
        (lambda v: v.hybrid_search(QUERIES[0], sparse={0: "x"}), "component"),
        (lambda v: v.hybrid_search(QUERIES[0], sparse=SparseVector({0: 1}, 7)), "dimensions"),
        (lambda v: v.hybrid_search(QUERIES[0], sparse={0: 1}, sparse_using="vec"), "words"),
        (lambda v: v.hybrid_search(QUERIES[0], sparse={0: 1}, sparse_using="nope"), "words"),
        (
            lambda v: v.hybrid_search(QUERIES[0], sparse_using="words", match="websearch"),
            "no sparse embedding",
        ),
        (
            lambda v: v.hybrid_search(QUERIES[0], weights={"text": 1}, match="websearch"),
            "another branch",
        ),
        (lambda v: v.hybrid_search(QUERIES[0], weights={"dense": -1}), "weights"),
        (lambda v: v.hybrid_search(QUERIES[0], weights={"dense": 0}), "all branches are 0"),
        (lambda v: v.hybrid_search(QUERIES[0], weights={"dense": float("nan")}), "weights"),
        (lambda v: v.hybrid_search(QUERIES[0], weights=[1]), "dict by branch"),
        (lambda v: v.hybrid_search(None, "a", alpha=1), "all branches are 0"),
        (
            lambda v: v.hybrid_search(QUERIES[0], branch_limit={"text": 5}, match="websearch"),
            "another branch",
        ),
        (lambda v: v.hybrid_search(QUERIES[0], branch_limit={"dense": 0}), "branch_limit"),
        (lambda v: v.hybrid_search(QUERIES[0], branch_limit="5"), "branch_limit"),
    ],
)
async def test_a_bad_branch_is_refused_in_both_lanes(db: Database, call: Any, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        await call(db.collection(Passage))
    async with db.unit_of_work() as uow:
        with pytest.raises(InvalidInputError, match=match):
            await call(uow.collection(Passage))
        assert await uow.collection(Passage).count() == len(TEXTS)  # the transaction goes on


async def test_the_sparse_vector_is_named_where_there_are_several(db: Database) -> None:
    with pytest.raises(InvalidInputError, match="first, second: pass sparse_using"):
        await db.collection(Small).hybrid_search([1, 0], sparse={0: 1})
    assert not await db.collection(Small).hybrid_search([1, 0], sparse={0: 1}, sparse_using="first")


class Word(Host):
    __tablename__ = "word"

    id: Mapped[str] = mapped_column(primary_key=True)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Word, "Word has no column 'vec'"),
        (Host, "no mapped model"),
        ("Word", "No model with VectorMixin"),
    ],
)
async def test_a_model_that_is_no_collection_is_refused(
    db: Database, model: Any, match: str
) -> None:
    with pytest.raises(InvalidInputError, match=match):
        db.collection(model)
    async with db.unit_of_work() as uow:
        with pytest.raises(InvalidInputError, match=match):
            uow.collection(model)


async def test_every_branch_stays_in_its_namespace(db: Database) -> None:
    async with db.unit_of_work() as uow:
        for name, text_of in (("one", "red"), ("two", "red red")):
            await uow.collection(Tenant, namespace=name).upsert(
                [
                    {
                        "id": key,
                        "embedding": [1, 0],
                        "document": text_of,
                        "payload": {"of": name},
                        "vectors": {"words": {0: 1.0}},
                    }
                    for key in ("a", name)
                ]
            )
        for options in ({"exact": True}, {"exact": False}):
            found = await uow.collection(Tenant, namespace="one").hybrid_search(
                [1, 0], "red", sparse={0: 1.0}, limit=5, **options, match="websearch"
            )
            assert [hit.id for hit in found] == ["a", "one"]
            assert [hit.payload for hit in found] == [{"of": "one"}] * 2
        await uow.session.rollback()
