"""Rows that have no embedding, or lose it: stored, read, filtered and found by whatever else."""

from __future__ import annotations

import copy
import pickle
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Computed, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    CLEAR,
    HNSW,
    Collection,
    Database,
    InvalidInputError,
    NotFoundError,
    VectorMixin,
    VectorRecord,
    VectorSpec,
    fold_sparse,
    vector_column,
)
from qortex_db.testing.factories import embedding
from support.tables import create

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from qortex_db.repositories import VectorRepository
    from qortex_db.uow import Repositories

pytestmark = pytest.mark.slow

LANES = pytest.mark.parametrize("lane", ["alone", "watched", "together"])
COUNT = 300
"""Rows with a vector; as many have none."""


class Base(DeclarativeBase):
    """A host's own."""


class Shot(VectorMixin, Base):
    """What may lack every vector."""

    __tablename__ = "vectorless_shots"
    __collection__ = Collection(
        VectorSpec(384), language="english", namespace="tenant", namespace_in_key=True
    )

    image: Mapped[Any | None] = vector_column(VectorSpec(8, "l2", index=HNSW()))
    words: Mapped[Any | None] = vector_column(
        VectorSpec(1_000, "inner_product", "sparse", index=None)
    )
    year: Mapped[int | None]
    twice: Mapped[int | None] = mapped_column(Computed("year * 2", persisted=True))


class Strict(VectorMixin, Base):
    """What may lack none."""

    __tablename__ = "vectorless_strict"
    __collection__ = Collection(VectorSpec(8))

    embedding: Mapped[Any] = mapped_column("vec", VectorSpec(8).type, nullable=False)
    year: Mapped[int] = mapped_column(default=1)


@asynccontextmanager
async def opened(dsn: str, lane: str) -> AsyncIterator[Repositories]:
    await create(dsn, Base.metadata)
    async with Database.connect(dsn) as db:
        if lane == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        if lane == "together":
            async with db.unit_of_work() as uow:
                yield uow
        else:
            yield db


def records() -> list[VectorRecord]:
    """By turns with a vector and without."""
    found = []
    for number in range(2 * COUNT):
        has = number % 2 == 0
        payload = {"n": number, "has": has, "group": number % 3}
        vector = embedding(number) if has else None
        found.append(VectorRecord(f"v{number:05}", vector, payload, f"nice text {number}"))
    return found


def has_vector(key: str) -> bool:
    return int(key[1:]) % 2 == 0


QUERY = embedding(1)
NEAREST = sorted(
    (f"v{number:05}" for number in range(0, 2 * COUNT, 2)),
    key=lambda key: (-float(embedding(int(key[1:])) @ QUERY), key),
)
SEARCHES: dict[str, Callable[[VectorRepository], Any]] = {
    "search": lambda v: v.search(QUERY, limit=500),
    "exact": lambda v: v.search(QUERY, limit=500, exact=True),
    "few": lambda v: v.search(QUERY, limit=5, where={"has": False}),
    "by ef_search": lambda v: v.search(QUERY, limit=500, ef_search=600, with_embedding=True),
    "filtered": lambda v: v.search(QUERY, limit=500, where={"n": {"$gte": 0}}),
    "range": lambda v: v.range_search(QUERY, min_score=-1.0, limit=1_000),
    "mmr": lambda v: v.mmr_search(QUERY, limit=500, fetch_limit=600),
    "multi": lambda v: v.multi_search([QUERY, embedding(3)], limit=500),
    "recommend": lambda v: v.recommend([QUERY], [embedding(9)], limit=500),
    "best score": lambda v: v.recommend([QUERY], strategy="best_score", limit=500),
    "dense alone": lambda v: v.hybrid_search(QUERY, None, limit=500),
}


@LANES
async def test_no_search_by_the_vector_finds_what_has_none(dsn384: str, lane: str) -> None:
    async with opened(dsn384, lane) as side:
        vectors = side.vectors
        assert await vectors.upsert(records()) == 2 * COUNT
        assert await vectors.count() == 2 * COUNT
        assert await vectors.count(where={"has": False}) == COUNT
        for name, search in SEARCHES.items():
            hits = await search(vectors)
            assert all(has_vector(hit.id) for hit in hits), name
            wanted = 0 if name == "few" else COUNT
            assert len(hits) == wanted, name
            assert hits.complete, name
            if name in ("search", "exact", "by ef_search", "filtered", "range", "dense alone"):
                assert [hit.id for hit in hits[:20]] == NEAREST[:20], name
        for hits in await vectors.search_many([QUERY, embedding(3)], limit=400):
            assert len(hits) == COUNT
        groups = await vectors.search_groups(QUERY, "group", limit=5, group_size=100)
        assert sum(len(group.hits) for group in groups) == COUNT


@LANES
async def test_what_has_no_vector_is_found_by_all_else(dsn384: str, lane: str) -> None:
    async with opened(dsn384, lane) as side:
        await side.vectors.upsert(records())
        words = await side.vectors.hybrid_search(None, "nice", limit=1_000)
        assert len(words) == 2 * COUNT
        both = await side.vectors.hybrid_search(QUERY, "nice", limit=1_000)
        assert {hit.id for hit in both} == {record.id for record in records()}
        got = await side.vectors.get(["v00000", "v00001"])
        assert got["v00001"].embedding is None
        assert got["v00001"].document == "nice text 1"
        assert np.array_equal(got["v00000"].embedding, embedding(0))  # type: ignore[arg-type]
        page = await side.vectors.scroll(limit=1_000, with_embedding=True)
        assert [record.embedding is None for record in page.records] == [False, True] * COUNT
        assert (await side.vectors.facet("has", limit=5))[0].count == COUNT
        batches = [batch async for batch in side.vectors.stream_batches(batch_size=COUNT - 1)]
        assert [len(batch.ids) for batch in batches] == [COUNT - 1, 1]
        assert all(has_vector(key) for batch in batches for key in batch.ids)
        assert [b async for b in side.vectors.stream_batches(where={"has": False})] == []
        for strategy in ("average", "best_score"):
            for examples in (["v00000", "v00001"], ["v00001"]):
                with pytest.raises(NotFoundError, match="1 of the examples"):
                    await side.vectors.recommend(examples, strategy=strategy)  # type: ignore[arg-type]
            with pytest.raises(NotFoundError, match="1 of the examples"):
                await side.vectors.recommend(["v00000"], ["v00001"], strategy=strategy)  # type: ignore[arg-type]
        similar = await side.vectors.recommend(["v00000"], limit=1_000)
        assert len(similar) == COUNT - 1
        probe = await side.vectors.recall_probe(sample=20, limit=5, ef_search=400)
        assert probe.sample == 20
        assert probe.recall > 0.9
        with pytest.raises(InvalidInputError, match="embedding"):
            await side.vectors.search(None)  # type: ignore[arg-type]


@LANES
async def test_none_leaves_an_embedding_and_clear_takes_it(dsn384: str, lane: str) -> None:
    async with opened(dsn384, lane) as side:
        vectors = side.vectors
        await vectors.upsert(records())
        again = [VectorRecord(record.id, None, {"n": -1}) for record in records()]
        assert await vectors.upsert(again) == 2 * COUNT
        assert len(await vectors.search(QUERY, limit=1_000)) == COUNT
        assert await vectors.upsert(again) == 0
        cleared = [VectorRecord(f"v{number:05}", CLEAR) for number in range(0, 2 * COUNT, 4)]
        assert await vectors.upsert(cleared) == COUNT // 2
        hits = await vectors.search(QUERY, limit=1_000)
        assert {int(hit.id[1:]) % 4 for hit in hits} == {2}
        got = await vectors.get(["v00000"])
        assert (got["v00000"].embedding, got["v00000"].payload) == (None, {"n": -1})
        given = [VectorRecord(f"v{number:05}", embedding(number)) for number in range(2 * COUNT)]
        assert await vectors.ingest(given, batch_size=250) == 2 * COUNT
        assert len(await vectors.search(QUERY, limit=1_000)) == 2 * COUNT
        assert await vectors.update("v00000", embedding=CLEAR, document=CLEAR)
        got = await vectors.get(["v00000"])
        assert (got["v00000"].embedding, got["v00000"].document) == (None, None)


def shown(record: VectorRecord) -> Any:
    vectors = {
        name: value.tolist() if isinstance(value, np.ndarray) else repr(value)
        for name, value in (record.vectors or {}).items()
    }
    data = None if record.embedding is None else np.asarray(record.embedding).tolist()
    return record.id, data, record.payload, record.document, vectors, record.attributes


@LANES
async def test_what_is_streamed_is_ingested_again(dsn384: str, lane: str) -> None:
    async with opened(dsn384, lane) as side:
        one = side.collection(Shot, namespace="one")
        other = side.collection(Shot, namespace="other")
        given = [
            VectorRecord(
                record.id,
                record.embedding,
                record.payload,
                record.document if number % 5 else None,
                {
                    "image": embedding(number, 8) if number % 3 else None,
                    "words": {number: 1.0} if number % 7 else None,
                },
                {"year": number if number % 11 else None},
            )
            for number, record in enumerate(records())
        ]
        assert await one.upsert(given) == 2 * COUNT
        assert await other.ingest(one.stream(batch_size=70), batch_size=190) == 2 * COUNT
        mine = [shown(record) async for record in one.stream()]
        assert [shown(record) async for record in other.stream()] == mine
        assert len(mine) == 2 * COUNT
        found = await other.search(embedding(5, 8), using="image", limit=1_000)
        assert {hit.id for hit in found} == {f"v{n:05}" for n in range(2 * COUNT) if n % 3}
        sparse = await other.search({5: 1.0}, using="words", limit=1)
        assert sparse[0].id == "v00005"  # which has no embedding
        # In the default table too.
        plain = [VectorRecord(r.id, r.embedding, r.payload, r.document) async for r in one.stream()]
        await side.vectors.ingest(plain)
        stored = [shown(record) async for record in side.vectors.stream()]
        assert [row[:4] for row in stored] == [row[:4] for row in mine]


@LANES
async def test_where_a_column_takes_no_null_it_is_refused_by_row_and_id(
    dsn384: str, lane: str
) -> None:
    async with opened(dsn384, lane) as side:
        strict = side.collection(Strict)
        for said in (None, CLEAR):
            for place in (0, 1_500):
                given = [VectorRecord(f"v{n:05}", embedding(n, 8)) for n in range(1_600)]
                given[place] = VectorRecord(given[place].id, said)
                named = rf"embedding of row {place} \(id 'v{place:05}'\) is (None|CLEAR)"
                with pytest.raises(InvalidInputError, match=named):
                    await strict.upsert(given)
        await strict.upsert([VectorRecord("a", [1.0] * 8)])
        with pytest.raises(InvalidInputError, match="embedding is CLEAR"):
            await strict.update("a", embedding=CLEAR)
        with pytest.raises(InvalidInputError, match=r"year.* of row 0 \(id 'a'\) is CLEAR"):
            await strict.upsert([VectorRecord("a", [1.0] * 8, attributes={"year": CLEAR})])
        assert await strict.count() == 1


@LANES
async def test_clear_leaves_null_in_what_may_be_null(dsn384: str, lane: str) -> None:
    whole = VectorRecord(
        "a",
        embedding(0),
        {"a": 1},
        "nice text",
        {"image": [1.0] * 8, "words": {1: 2.0}},
        {"year": 7},
    )
    async with opened(dsn384, lane) as side:
        shots = side.collection(Shot, namespace="one")
        changes: list[dict[str, Any]] = [
            {"embedding": CLEAR},
            {"document": CLEAR},
            {"vectors": {"image": CLEAR}},
            {"vectors": {"words": CLEAR}},
            {"attributes": {"year": CLEAR}},
        ]
        for change in changes:
            results = []
            for way in ("upsert", "ingest", "update"):
                await shots.upsert([whole])
                if way == "update":
                    assert await shots.update("a", **change)
                else:
                    await getattr(shots, way)([{"id": "a", "embedding": None} | change])
                results.append(shown((await shots.get(["a"]))["a"]))
            assert results[0] == results[1] == results[2]
            before = shown(whole)[:2]
            (field,) = change
            if field == "embedding":
                assert results[0][1] is None
            else:
                assert results[0][:2] == before
            assert (results[0][3] is None) is (field == "document")
        assert await shots.hybrid_search(None, "nice") != []
        await shots.update("a", document=CLEAR)
        assert list(await shots.hybrid_search(None, "nice")) == []


REFUSED: dict[str, Callable[[VectorRepository], Any]] = {
    "a payload": lambda v: v.upsert([VectorRecord("a", [1.0] * 8, CLEAR)]),  # type: ignore[arg-type]
    "a value of a payload": lambda v: v.upsert([VectorRecord("a", [1.0] * 8, {"a": CLEAR})]),
    "an id": lambda v: v.upsert([{"id": CLEAR, "embedding": [1.0] * 8}]),
    "vectors": lambda v: v.upsert([VectorRecord("a", [1.0] * 8, vectors=CLEAR)]),  # type: ignore[arg-type]
    "attributes": lambda v: v.upsert([VectorRecord("a", [1.0] * 8, attributes=CLEAR)]),  # type: ignore[arg-type]
    "a payload in update": lambda v: v.update("a", payload=CLEAR),  # type: ignore[arg-type]
    "values to merge": lambda v: v.merge_payload({"a": CLEAR}, ids=["a"]),
    "all values to merge": lambda v: v.merge_payload(CLEAR, ids=["a"]),  # type: ignore[arg-type]
    "a query": lambda v: v.search(CLEAR),  # type: ignore[arg-type]
    "a filter": lambda v: v.search([1.0] * 8, where={"a": CLEAR}),
    "a list's element": lambda v: v.upsert([VectorRecord("a", [CLEAR] * 8)]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("what", REFUSED)
async def test_clear_is_refused_elsewhere(db: Database, what: str) -> None:
    with pytest.raises(InvalidInputError):
        await REFUSED[what](db.vectors)
    assert await db.vectors.count() == 0


def test_clear_is_one_object() -> None:
    assert repr(CLEAR) == "qortex_db.CLEAR"
    assert pickle.loads(pickle.dumps(CLEAR)) is CLEAR  # noqa: S301 - our own
    assert copy.deepcopy(VectorRecord("a", CLEAR)).embedding is CLEAR  # type: ignore[comparison-overlap]


async def test_the_server_says_whether_a_vector_may_be_null(dsn: str) -> None:
    async with Database.connect(dsn) as owner, owner.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE qortex_vectors ALTER vec SET NOT NULL"))
    async with Database.connect(dsn) as db:
        with pytest.raises(InvalidInputError, match=r"row 0 \(id 'a'\) is None"):
            await db.vectors.upsert([VectorRecord("a", None)])


async def test_large_sparse_positions_are_refused_by_name_or_folded(dsn384: str) -> None:
    await create(dsn384, Base.metadata)
    far = 2**32 - 1
    async with Database.connect(dsn384) as db:
        shots = db.collection(Shot, namespace="one")
        with pytest.raises(InvalidInputError, match=r"row 0 \(id 'a'\).* 0 to 999.*fold_sparse"):
            await shots.upsert([{"id": "a", "embedding": None, "vectors": {"words": {far: 1.0}}}])
        given = {far: 1.0, 295: 0.5, 7: 2.0}
        folded = fold_sparse(given, 1_000)
        assert dict(zip(folded.indices(), folded.values(), strict=True)) == {295: 1.5, 7: 2.0}
        await shots.upsert([{"id": "a", "embedding": None, "vectors": {"words": folded}}])
        hits = await shots.search(fold_sparse({far: 2.0}, 1_000), using="words", limit=1)
        assert (hits[0].id, hits[0].score) == ("a", 3.0)
    for bad in ({-1: 1.0}, {0.5: 1.0}, {1: float("nan")}, [1.0], {1: 1e38, 11: 3e38}):
        with pytest.raises(InvalidInputError):
            fold_sparse(bad, 10)  # type: ignore[arg-type]
    for size in (0, 10**9 + 1, 1.5):
        with pytest.raises(InvalidInputError):
            fold_sparse({1: 1.0}, size)  # type: ignore[arg-type]
