"""Several answers in one round trip, pages both ways, and filters over documents everywhere."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text

from qortex_db import Database, InvalidInputError, QortexVector
from qortex_db.testing.factories import VectorRecordFactory, sample
from support.roundtrips import counted
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db.testing import Server

SAMPLE = sample()
TEXTS = [passage["text"] for passage in SAMPLE.passages]
EMBEDDINGS = SAMPLE.passage_embeddings
UNIT = EMBEDDINGS / np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True)
QUERIES = SAMPLE.question_embeddings
HAVING = [f"v{i:05}" for i, words in enumerate(TEXTS) if "file" in words]
FILE = {"$contains": "file"}


@pytest.fixture(scope="module")
def filled(server: Server, template384: str) -> str:
    """The sample, to be copied."""
    name = server.create(template384)

    async def fill() -> None:
        async with Database.connect(server.dsn(name)) as database:
            await database.vectors.ingest(
                VectorRecordFactory.build(payload={"n": number // 7}, with_document=True)
                for number in range(len(TEXTS))
            )

    asyncio.run(fill())
    return name


@pytest.fixture
def dsn384(server: Server, filled: str) -> Iterator[str]:
    with copied(server, filled) as dsn:
        yield dsn


@pytest.fixture
async def db(dsn384: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn384) as database:
        yield database


def nearest(query: Any, *, step: int = 1) -> list[str]:
    order = np.argsort(-(UNIT @ query), kind="stable")
    return [f"v{i:05}" for i in order if i % step == 0]


async def test_several_queries_get_their_own_answers(db: Database) -> None:
    queries = list(QUERIES[:32])
    answers = await db.vectors.search_many(queries, limit=7, exact=True)
    assert [[hit.id for hit in one] for one in answers] == [nearest(q)[:7] for q in queries]
    assert all(one.complete and one.requested == 7 for one in answers)
    for query, answer in zip(queries, answers, strict=True):
        alone = await db.vectors.search(query, limit=7, exact=True)
        assert [hit.score for hit in answer] == [hit.score for hit in alone]
    shares = []
    where = QortexVector.id.regexp_match("[02468]$")
    for query, answer in zip(queries, await db.vectors.search_many(queries), strict=True):
        shares.append(len({hit.id for hit in answer} & set(nearest(query)[:10])) / 10)
    for query, answer in zip(
        queries, await db.vectors.search_many(queries, where=where), strict=True
    ):
        shares.append(len({hit.id for hit in answer} & set(nearest(query, step=2)[:10])) / 10)
    assert np.mean(shares) >= 0.98


async def test_each_of_several_answers_is_full_narrowed_and_above_its_score(db: Database) -> None:
    few = await db.vectors.search_many(QUERIES[:3], where={"n": 3}, with_embedding=True)
    for answer in few:
        assert sorted(hit.id for hit in answer) == [f"v{i:05}" for i in range(21, 28)]
        for hit in answer:
            assert hit.embedding == pytest.approx(EMBEDDINGS[int(hit.id[1:])], abs=1e-6)
    above = await db.vectors.search_many(QUERIES[:3], min_score=0.3, limit=800)
    counts = [int((UNIT @ query >= 0.3).sum()) for query in QUERIES[:3]]
    assert [len(answer) for answer in above] == counts
    # A query without an answer has its place.
    none = await db.vectors.search_many(QUERIES[:3], where={"n": -1})
    assert [len(answer) for answer in none] == [0, 0, 0]
    bare = await db.vectors.search_many(QUERIES[:1], with_payload=False)
    assert bare[0][0].payload is None


async def test_several_searches_are_one_round_trip_and_leave_no_setting(
    db: Database, dsn384: str
) -> None:
    async with counted(dsn384) as trips, Database.connect(trips.dsn) as wired:
        for _ in range(2):
            before = trips.count
            await wired.vectors.search_many(QUERIES[:20], where={"n": {"$gt": 3}}, limit=50)
        assert trips.count - before == 1
    async with db.unit_of_work() as uow:
        await uow.session.execute(text("SET LOCAL hnsw.ef_search = 77"))
        await uow.vectors.search_many(QUERIES[:2], where={"n": {"$gt": 3}})
        shown = await uow.session.execute(text("SHOW hnsw.ef_search"))
        assert shown.scalar_one() == "77"


@pytest.mark.parametrize("order_by", [None, "n"])
@pytest.mark.parametrize("descending", [False, True])
async def test_pages_go_both_ways_over_the_matching_rows(
    db: Database, order_by: str | None, descending: bool
) -> None:
    seen: list[str] = []
    after = None
    while True:
        page = await db.vectors.scroll(
            limit=40,
            after=after,
            order_by=order_by,
            descending=descending,
            where_document=FILE,
            where={"n": {"$gte": 3}},
        )
        seen += [record.id for record in page.records]
        after = page.next
        if after is None:
            break
    right = [key for key in HAVING if int(key[1:]) // 7 >= 3]
    assert seen == sorted(right, reverse=descending)
    assert len(right) > 80


async def test_a_stream_is_narrowed_page_by_page(db: Database) -> None:
    found = [r async for r in db.vectors.stream(batch_size=50, where_document=FILE)]
    assert [record.id for record in found] == HAVING
    assert all(a.id < b.id for a, b in pairwise(found))
    assert found[0].embedding == pytest.approx(EMBEDDINGS[int(HAVING[0][1:])], abs=1e-6)
    few = db.vectors.stream(batch_size=5, where={"n": {"$in": [1, 3]}}, with_embedding=False)
    records = [record async for record in few]
    assert [int(record.id[1:]) // 7 for record in records] == [1] * 7 + [3] * 7
    assert records[0].embedding is None
    assert len([one async for one in db.vectors.stream(where=QortexVector.id < "v00010")]) == 10


async def test_documents_narrow_every_search_count_and_delete(db: Database) -> None:
    vectors, having = db.vectors, set(HAVING)
    query = QUERIES[0]
    lists = [
        await vectors.range_search(query, min_score=-1, where_document=FILE),
        await vectors.mmr_search(query, where_document=FILE),
        await vectors.multi_search(QUERIES[:2], where_document=FILE),
        await vectors.recommend(["v00000"], where_document=FILE),
        *(await vectors.search_many(QUERIES[:2], where_document=FILE)),
    ]
    groups = await vectors.search_groups(query, "n", where_document=FILE)
    lists += [group.hits for group in groups]  # type: ignore[misc]
    assert all(found and {hit.id for hit in found} <= having for found in lists)
    assert len(lists[0]) == len(having)
    plan = await vectors.explain(query, where_document=FILE)
    assert "strpos" in plan.text
    assert await vectors.count(where_document=FILE) == len(having)
    facets = await vectors.facet("n", where_document=FILE, limit=800)
    assert sum(one.count for one in facets) == len(having)
    both = {"where": {"n": {"$lt": 50}}, "where_document": FILE}
    matching = await vectors.count(**both)  # type: ignore[arg-type]
    assert 0 < matching == sum(int(key[1:]) // 7 < 50 for key in HAVING) < len(having)
    assert await vectors.delete_where(**both) == matching  # type: ignore[arg-type]
    assert await vectors.delete_where({}, where_document=FILE) == len(having) - matching
    assert await vectors.count() == len(TEXTS) - len(having)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda v: v.search_many([]), "number of embeddings"),
        (lambda v: v.search_many(QUERIES[:33]), "number of embeddings is 33"),
        (lambda v: v.search_many("abc"), "even for one"),
        (lambda v: v.search_many([QUERIES[0][:3]]), r"embeddings\[0\]"),
        (lambda v: v.search_many(QUERIES[:2], limit=0), "limit"),
        (lambda v: v.search_many(QUERIES[:2], min_score=2), "min_score"),
        (lambda v: v.search([list(QUERIES[0]), list(QUERIES[1])]), "search_many.*multi_search"),
        (lambda v: v.search(QUERIES[:2]), "search_many.*multi_search"),
        (lambda v: v.search(list(QUERIES[:2])), "search_many.*multi_search"),
        (lambda v: v.hybrid_search(QUERIES[:2], "a"), "search_many"),
        (lambda v: v.scroll(descending="yes"), "descending"),
        (lambda v: v.delete_where(), "every vector"),
        (lambda v: v.delete_where({}, where_document={}), "document"),
        (lambda v: v.count(where_document={"$like": "a"}), "document"),
    ],
)
async def test_bad_calls_are_refused_with_what_to_do(db: Database, call: Any, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        await call(db.vectors)
