"""What fused searches say beside scores, and of what they are made: against Python."""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped

from qortex_db import (
    BranchHit,
    Collection,
    Database,
    InvalidInputError,
    SearchHits,
    VectorMixin,
    VectorRecord,
    VectorSpec,
    vector_column,
)
from qortex_db.sample import load_sample
from support.catalogue import execute
from support.roundtrips import counted
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from qortex_db.testing import Server

pytestmark = pytest.mark.slow

SAMPLE = load_sample()
IDS = [passage["id"] for passage in SAMPLE.passages]
KINDS = {passage["id"]: passage["kind"] for passage in SAMPLE.passages}
QUERIES = SAMPLE.question_embeddings.astype(np.float32)
VECS = SAMPLE.passage_embeddings.astype(np.float32)
OTHERS = np.roll(VECS, 7, axis=0)
QUESTIONS = [question["text"] for question in SAMPLE.questions]
WEIGHT = 0.7


class Host(DeclarativeBase):
    """A host's own base."""


class Pair(VectorMixin, Host):
    __tablename__ = "pairs"
    __collection__ = Collection(VectorSpec(384), text="english")

    image: Mapped[Any | None] = vector_column(VectorSpec(384, "l2", quantization="half"))


@pytest.fixture(scope="module")
def loaded(server: Server) -> Iterator[str]:
    async def load(dsn: str) -> None:
        await execute(dsn, "CREATE EXTENSION vector")
        async with Database.connect(dsn) as db:
            async with db.engine.begin() as connection:
                await connection.run_sync(Host.metadata.create_all)
            await db.collection(Pair).ingest(
                {
                    "id": passage["id"],
                    "embedding": vec,
                    "vectors": {"image": image},
                    "document": passage["text"],
                    "payload": {"kind": passage["kind"], "at": [i % 3, float(i % 2)]},
                }
                for i, (passage, vec, image) in enumerate(
                    zip(SAMPLE.passages, VECS, OTHERS, strict=True)
                )
            )

    with copied(server, "template0") as dsn:
        asyncio.run(load(dsn))
        yield dsn


@pytest.fixture(params=["alone", "watched", "together"])
async def pairs(request: pytest.FixtureRequest, loaded: str) -> AsyncIterator[Any]:
    async with Database.connect(loaded) as db:
        if request.param == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        if request.param == "together":
            async with db.unit_of_work() as uow:
                yield uow.collection(Pair)
        else:
            yield db.collection(Pair)


def by_vec(query: Any, kind: str | None = None) -> dict[str, float]:
    unit = VECS / np.linalg.norm(VECS, axis=1, keepdims=True)
    scores = unit @ (query / np.linalg.norm(query))
    return {k: float(s) for k, s in zip(IDS, scores, strict=True) if kind in (None, KINDS[k])}


def by_image(query: Any, kind: str | None = None) -> dict[str, float]:
    scores = -np.linalg.norm(OTHERS - query, axis=1)
    return {k: float(s) for k, s in zip(IDS, scores, strict=True) if kind in (None, KINDS[k])}


def best(scores: Mapping[str, float], limit: int = 100) -> dict[str, BranchHit]:
    kept = sorted(scores, key=lambda key: -scores[key])[:limit]
    ranks = {key: 1 + sum(scores[other] > scores[key] for other in kept) for key in kept}
    return {key: BranchHit(ranks[key], scores[key]) for key in kept}


def fused(
    branches: Mapping[str, Mapping[str, BranchHit]], fusion: str, weights: Mapping[str, float]
) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for name, hits in branches.items():
        scores = [hit.score for hit in hits.values()]
        low, high = min(scores), max(scores)
        mean, spread = statistics.mean(scores), 3 * statistics.stdev(scores)
        for key, hit in hits.items():
            made = {
                "rrf": 1 / (60 + hit.rank),
                "relative": (hit.score - low) / (high - low),
                "dbsf": (hit.score - (mean - spread)) / (2 * spread),
                "sum": hit.score,
            }
            total[key] += weights.get(name, 1) * made[fusion]
    return total


def assert_same(
    found: SearchHits,
    branches: Mapping[str, Mapping[str, BranchHit]],
    fusion: str,
    weights: Mapping[str, float] = {},
) -> None:
    scores = fused(branches, fusion, weights)
    right = sorted(scores.values(), reverse=True)[: found.requested]
    assert [hit.score for hit in found] == pytest.approx(right, rel=1e-4, abs=1e-6)
    for hit in found:
        assert hit.score == pytest.approx(scores[hit.id], rel=1e-4, abs=1e-6)
        own = {name: hits[hit.id] for name, hits in branches.items() if hit.id in hits}
        assert hit.branches is not None
        assert hit.branches.keys() == own.keys()
        for name, said in hit.branches.items():
            assert said.rank == own[name].rank
            assert said.score == pytest.approx(own[name].score, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("fusion", ["rrf", "relative", "dbsf", "sum"])
async def test_each_hit_says_which_branches_found_it_by_every_fusion(
    pairs: Any, fusion: Any
) -> None:
    for number in (0, 3, 11):
        query, words = QUERIES[number], QUESTIONS[number]
        alone = await pairs.hybrid_search(None, words, limit=100)
        text = {hit.id: hit.branches["text"] for hit in alone}
        branches = {"dense": best(by_vec(query)), "text": text}
        found = await pairs.hybrid_search(
            query, words, fusion=fusion, weights={"text": WEIGHT}, exact=True, limit=40
        )
        assert_same(found, branches, fusion, {"text": WEIGHT})
        floor = found[7].score
        least = await pairs.hybrid_search(
            query,
            words,
            fusion=fusion,
            weights={"text": WEIGHT},
            exact=True,
            limit=40,
            min_score=floor,
        )
        assert [hit.id for hit in least] == [hit.id for hit in found if hit.score >= floor]
        assert least.complete
    plain = await pairs.search(query)
    assert plain[0].branches is None


async def test_several_dense_vectors_are_fused_each_under_its_own_filter(pairs: Any) -> None:
    query, other = QUERIES[5], QUERIES[6]
    for fusion in ("rrf", "dbsf"):
        found = await pairs.hybrid_search(
            [query, other], using=("vec", "image"), exact=True, limit=30, fusion=fusion
        )
        branches = {"dense:vec": best(by_vec(query)), "dense:image": best(by_image(other))}
        assert_same(found, branches, fusion)
        # By the indexes, too: the second one compares halves.
        near = await pairs.hybrid_search(
            [query, other], using=["vec", "image"], limit=30, fusion=fusion
        )
        assert len({hit.id for hit in near} & {hit.id for hit in found}) >= 27
    own = {"dense:vec:2": {"kind": "class"}, "text": {"kind": {"$in": ["function", "method"]}}}
    twice = await pairs.hybrid_search(
        [query, query],
        QUESTIONS[5],
        using=("vec", "vec"),
        branch_where=own,
        exact=True,
        limit=60,
        branch_limit={"dense:vec": 40, "dense:vec:2": 20, "text": 30},
        weights={"dense:vec:2": WEIGHT},
    )
    words = [hit.id for hit in twice if "text" in (hit.branches or {})]
    assert words
    assert all(KINDS[key] in ("function", "method") for key in words)
    text = {hit.id: hit.branches["text"] for hit in twice if "text" in hit.branches}
    seconds = [hit for hit in twice if "dense:vec:2" in hit.branches]
    assert {hit.id for hit in seconds} <= {k for k, kind in KINDS.items() if kind == "class"}
    branches = {
        "dense:vec": best(by_vec(query), 40),
        "dense:vec:2": best(by_vec(query, "class"), 20),
        "text": text,
    }
    scores = fused(branches, "rrf", {"dense:vec:2": WEIGHT})
    for hit in twice:
        assert hit.score == pytest.approx(scores[hit.id], rel=1e-4)
    # By the index, under both filters, and an expression among them.
    by_index = await pairs.hybrid_search(
        [query, query],
        using=("vec", "vec"),
        where={"kind": {"$ne": "module"}},
        branch_where={"dense:vec:2": Pair.payload["kind"].astext == "class"},
        limit=30,
    )
    assert all(hit.payload["kind"] != "module" for hit in by_index)
    assert sum("dense:vec:2" in hit.branches for hit in by_index) >= 10


async def test_each_query_of_many_has_a_filter_of_its_own(pairs: Any, loaded: str) -> None:
    kinds = ["class", None, "function", "no such kind"]
    filters = [None if kind is None else {"kind": kind} for kind in kinds]
    for exact in (True, False):
        answers = await pairs.search_many(QUERIES[:4], where=filters, limit=12, exact=exact)
        for query, kind, hits in zip(QUERIES, kinds, answers, strict=False):
            right = best(by_vec(query, kind), 12)
            assert len(hits) == len(right)
            assert hits.complete
            assert all(kind in (None, hit.payload["kind"]) for hit in hits)
            same = len({hit.id for hit in hits} & right.keys())
            assert same == len(right) if exact else same >= len(right) - 1
    both = await pairs.search_many(
        QUERIES[:2],
        where=[Pair.payload["kind"].astext == "class", {"kind": ["class", "function"]}],
        where_document={"$contains": "the"},
        min_score=0.1,
        complete="never",
    )
    assert all(hit.payload["kind"] == "class" for hit in both[0])
    assert all("the" in hit.document and hit.score >= 0.1 for hits in both for hit in hits)
    with pytest.raises(InvalidInputError, match="1 filters"):
        await pairs.search_many(QUERIES[:2], where=[{}])
    async with counted(loaded) as trips, Database.connect(trips.dsn) as db:
        own = db.collection(Pair)
        await own.search_many(QUERIES[:4], where=filters)
        await own.hybrid_search([QUERIES[0]] * 2, QUESTIONS[0], using=("vec", "image"))
        async with trips.expect(2):
            await own.search_many(QUERIES[:4], where=filters)
            await own.hybrid_search([QUERIES[0]] * 2, QUESTIONS[0], using=("vec", "image"))


async def test_hits_of_any_search_are_diversified_and_grouped(pairs: Any) -> None:
    found = await pairs.hybrid_search(QUERIES[2], QUESTIONS[2], limit=60, with_embedding=True)
    first = found.diverse(limit=5, lambda_=1)
    assert [hit.id for hit in first] == [hit.id for hit in found[:5]]
    varied = found.diverse(limit=8, lambda_=0.3)
    assert varied[0].id == found[0].id
    assert len({hit.id for hit in varied}) == len(varied) == 8

    def likeness(hits: Any) -> float:
        rows = np.stack([hit.embedding / np.linalg.norm(hit.embedding) for hit in hits])
        return float((rows @ rows.T).mean())

    assert likeness(varied) < likeness(found[:8])
    # Chosen one after another, as it is defined.
    scores = np.array([hit.score for hit in found])
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    rows = np.stack([hit.embedding for hit in found]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = [0]
    while len(chosen) < 8:
        gain = 0.3 * scaled - 0.7 * (rows @ rows[chosen].T).max(axis=1)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
    assert [hit.id for hit in varied] == [found[i].id for i in chosen]

    # Groups are those of `search_groups`.
    hits = await pairs.search(QUERIES[2], limit=200)
    for path, options in (("kind", {}), ("at", {"limit": 4}), ("at.0", {"group_size": 2})):
        grouped = hits.grouped(path, **options)
        right = await pairs.search_groups(QUERIES[2], path, fetch_limit=200, **options)
        mine = [(group.value, [hit.id for hit in group.hits]) for group in grouped]
        theirs = [(group.value, [hit.id for hit in group.hits]) for group in right]
        if path == "at":  # a row may be the best of two groups
            mine, theirs = sorted(mine), sorted(theirs)
        assert mine == theirs
        assert grouped.complete == right.complete
    few = found.grouped("kind", limit=2, group_size=1)
    assert [len(group.hits) for group in few] == [1, 1]
    assert few[0].hits[0].id == found[0].id
    assert not found.grouped("nothing")
    best_two = await found.rerank("q", lambda _, hits: range(len(hits)), limit=2)
    assert best_two[0].branches == found[-1].branches
    with pytest.raises(InvalidInputError, match="with_embedding"):
        hits.diverse()
    assert not SearchHits([], requested=1, complete=True).diverse()
    for wrong in ({"limit": 0}, {"lambda_": 2}, {"metric": "hamming"}):
        with pytest.raises(InvalidInputError):
            found.diverse(**wrong)


async def test_what_can_not_be_fused_is_told(pairs: Any) -> None:
    query = QUERIES[0]
    for message, arguments, options in (
        ("1 embeddings", ([query],), {"using": ("vec", "image")}),
        ("no vector of that name", ([query],), {"using": ("words",)}),
        ("another branch", (query,), {"branch_where": {"text": {}}}),
        ("another branch", (query,), {"weights": {"dense:vec": 1}}),
        ("fusion", (query,), {"fusion": "max"}),
        ("min_score", (query,), {"min_score": "1"}),
        ("embedding", (query,), {"using": ("vec",)}),
    ):
        with pytest.raises(InvalidInputError, match=message):
            await pairs.hybrid_search(*arguments, **options)


async def test_rows_without_an_embedding_are_chosen_last(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        await db.vectors.upsert(
            [
                VectorRecord("words", None, document="sand sand"),
                *(VectorRecord(f"v{i}", VECS[i], document="sand") for i in range(3)),
            ]
        )
        found = await db.vectors.hybrid_search(VECS[0], "sand", with_embedding=True)
        assert {hit.id for hit in found} == {"words", "v0", "v1", "v2"}
        assert found.diverse()[-1].id == "words"
