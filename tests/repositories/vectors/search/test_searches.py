"""Every kind of search, against answers computed in numpy on real embeddings."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import false, literal, or_, text, true

from qortex_db import (
    Database,
    FieldBoost,
    InvalidInputError,
    NotFoundError,
    QortexVector,
    Settings,
    migrations,
)
from qortex_db.sample import load_sample
from support import fusion
from support.catalogue import execute
from support.commands import ROOT
from support.compilations import compilations
from support.full_text import WORDS
from support.roundtrips import counted
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from numpy.typing import NDArray

    from qortex_db import SearchHit, SearchHits
    from qortex_db.testing import Server
    from support.roundtrips import RoundTrips

SAMPLE = load_sample()
PASSAGES = np.load(ROOT / "benchmarks" / "pydocs" / "passages.npy").astype(np.float32)
UNIT = PASSAGES / np.linalg.norm(PASSAGES, axis=1, keepdims=True)
QUERIES = SAMPLE.question_embeddings
SHARES = {"all": 1.0, "half": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}


def payload(number: int) -> dict[str, Any]:
    place = (number * 7919) % 10_000 / 10_000  # spread over the rows, whatever they are about
    flags = {name: place < share for name, share in SHARES.items()}
    return {"n": number, "group": f"g{number % 23}", "tags": ["a", f"t{number % 3}"], **flags}


PAYLOADS = [payload(number) for number in range(len(PASSAGES))]
TEXTS = [passage["text"] for passage in SAMPLE.passages]


@pytest.fixture(scope="module")
def loaded(server: Server, template384: str) -> Iterator[str]:
    """The passages of pydocs, each with a payload, and documents where the sample has them."""

    async def load(dsn: str) -> None:
        async def fill() -> None:
            async with Database.connect(dsn) as db:
                await db.vectors.ingest(
                    {
                        "id": f"p{number:04}",
                        "embedding": embedding,
                        "payload": PAYLOADS[number],
                        "document": TEXTS[number] if number < len(TEXTS) else None,
                    }
                    for number, embedding in enumerate(PASSAGES)
                )

        await migrations.rebuild_index(Settings(dsn=dsn), load=fill)
        await execute(dsn, "ANALYZE")

    with copied(server, template384) as dsn:
        asyncio.run(load(dsn))
        yield dsn


@pytest.fixture
async def pydocs(loaded: str) -> AsyncIterator[Database]:
    async with Database.connect(loaded) as db:
        yield db


@pytest.fixture
async def wired(loaded: str) -> AsyncIterator[tuple[Database, RoundTrips]]:
    """What is known of the table is asked for already."""
    async with counted(loaded) as trips, Database.connect(trips.dsn) as db:
        await db.vectors.search(QUERIES[0])
        yield db, trips


def nearest(query: NDArray[np.float32], mask: Sequence[bool] | None = None) -> list[str]:
    """All ids that a mask leaves, nearest first."""
    order = np.argsort(-(UNIT @ query), kind="stable")
    return [f"p{i:04}" for i in order if mask is None or mask[i]]


def recall(found: SearchHits, right: list[str]) -> float:
    wanted = right[: found.requested]
    return len({hit.id for hit in found} & set(wanted)) / len(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("form", ["dictionary", "expression"])
async def test_a_filter_of_any_selectivity_gives_full_and_right_answers(
    pydocs: Database, share: str, form: str
) -> None:
    mask = [one[share] for one in PAYLOADS]
    where: Any = {share: True}
    if form == "expression":
        where = QortexVector.payload[share].as_boolean()
    recalls = []
    for query in QUERIES:
        found = await pydocs.vectors.search(query, where=where)
        assert len(found) == min(10, sum(mask))
        assert found.complete
        assert all((hit.payload or {})[share] for hit in found)
        assert [hit.score for hit in found] == sorted((h.score for h in found), reverse=True)
        recalls.append(recall(found, nearest(query, mask)))
    assert np.mean(recalls) >= 0.99


@pytest.mark.parametrize("limit", [1, 40, 41, 1_500, 10_000])
async def test_a_limit_beyond_what_the_index_keeps_is_filled(pydocs: Database, limit: int) -> None:
    for where in (None, {"half": True}):
        found = await pydocs.vectors.search(QUERIES[0], limit=limit, where=where)
        matching = sum(where is None or one["half"] for one in PAYLOADS)
        assert len(found) == min(limit, matching)
        assert found.complete


async def test_a_search_whose_rows_were_deleted_is_filled_from_the_rest(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        await db.vectors.ingest(
            {"id": f"p{i:04}", "embedding": row} for i, row in enumerate(PASSAGES[:600])
        )
        query = PASSAGES[0]
        assert len(await db.vectors.search(query)) == 10
        gone = [hit.id for hit in await db.vectors.search(query, limit=300, exact=True)]
        await db.vectors.delete(gone)  # the index still has them, until a vacuum
        found = await db.vectors.search(query)
        assert len(found) == 10
        assert not {hit.id for hit in found} & set(gone)


@pytest.mark.parametrize("scan", ["relaxed", "strict"])
async def test_the_iterative_scan_can_be_chosen_and_every_form_is_one_round_trip(
    loaded: str, scan: Any
) -> None:
    async with counted(loaded) as proxy, Database.connect(proxy.dsn) as db:
        vectors = db.vectors
        calls = {
            "plain": lambda: vectors.search(QUERIES[0]),
            "filtered": lambda: vectors.search(
                QUERIES[0], where={"half": True}, iterative_scan=scan
            ),
            "wide": lambda: vectors.search(QUERIES[0], limit=200, ef_search=300, probes=3),
            "range": lambda: vectors.range_search(QUERIES[0], min_score=0.3),
            "hybrid": lambda: vectors.hybrid_search(
                QUERIES[0], "file", where={"half": True}, match="websearch"
            ),
            "weighted": lambda: vectors.hybrid_search(
                QUERIES[0], "file", alpha=0.3, match="websearch"
            ),
            "mmr": lambda: vectors.mmr_search(QUERIES[0], where={"half": True}),
            "multi": lambda: vectors.multi_search(QUERIES[:3], where={"half": True}),
            "recommend": lambda: vectors.recommend(["p0001"], [QUERIES[1]]),
            "groups": lambda: vectors.search_groups(QUERIES[0], "group"),
            "facet": lambda: vectors.facet("group"),
            "scroll": lambda: vectors.scroll(order_by="n", where={"half": True}),
            "count": lambda: vectors.count(where={"half": True}),
        }
        for call in calls.values():
            await call()
        for name, call in calls.items():
            before = proxy.count
            await call()
            assert (name, proxy.count - before) == (name, 1)


async def test_settings_of_a_search_do_not_stay_in_its_transaction(pydocs: Database) -> None:
    async with pydocs.unit_of_work() as uow:
        await uow.session.execute(text("SET LOCAL hnsw.ef_search = 77"))
        for call in (
            uow.vectors.search(QUERIES[0], where={"half": True}),
            uow.vectors.multi_search(QUERIES[:2], where={"half": True}),
            uow.vectors.recommend(["p0001"]),
            uow.vectors.hybrid_search(QUERIES[0], "file", match="websearch"),
        ):
            await call
            shown = await uow.session.execute(text("SHOW hnsw.ef_search"))
            assert shown.scalar_one() == "77"


async def test_a_range_holds_all_that_are_similar_enough_and_no_other(pydocs: Database) -> None:
    similarities = UNIT @ QUERIES[3]
    found = await pydocs.vectors.range_search(QUERIES[3], min_score=0.25)
    assert len(found) == int((similarities >= 0.25).sum())
    assert found.complete
    some = await pydocs.vectors.range_search(QUERIES[3], min_score=0.25, limit=5)
    assert [hit.id for hit in some] == nearest(QUERIES[3])[:5]
    assert not some.complete


async def test_hybrid_search_fuses_by_reciprocal_rank(pydocs: Database) -> None:
    query, words = QUERIES[0], "compress gzip"
    found = await pydocs.vectors.hybrid_search(
        query, words, limit=20, exact=True, match="websearch"
    )
    lexical = await lexical_scores(pydocs, words)
    near = {f"p{i:04}": float(score) for i, score in enumerate(UNIT @ query)}
    scores = fusion.by_ranks([near, lexical], [100, 100], [1, 1], similar=near)
    right = fusion.best(scores, 20, near)
    assert [hit.id for hit in found] == right
    assert [hit.score for hit in found] == pytest.approx([scores[key] for key in right])


async def lexical_scores(db: Database, words: str) -> dict[str, float]:
    query = (
        f"SELECT id, ts_rank_cd(d, q) FROM qortex_vectors, {WORDS} d, "
        "websearch_to_tsquery('english', $1) q WHERE d @@ q"
    )
    async with db.engine.connect() as connection:
        return {row[0]: row[1] for row in await connection.exec_driver_sql(query, (words,))}


async def test_alpha_weighs_meaning_against_words(pydocs: Database) -> None:
    query, words = QUERIES[0], "compress"
    meaning = await pydocs.vectors.hybrid_search(
        query, words, alpha=1.0, exact=True, match="websearch"
    )
    assert [hit.id for hit in meaning] == nearest(query)[:10]
    assert meaning[0].score == pytest.approx(1.0)
    by_words = await pydocs.vectors.hybrid_search(
        query, words, alpha=0.0, exact=True, match="websearch"
    )
    lexical = await lexical_scores(pydocs, words)
    assert {hit.id for hit in by_words if hit.score > 0} <= set(lexical)
    assert lexical[by_words[0].id] == max(lexical.values())
    nothing = await pydocs.vectors.hybrid_search(query, "zzzz", exact=True, match="websearch")
    assert [hit.id for hit in nothing] == nearest(query)[:10]


async def test_hybrid_search_filters_both_branches(pydocs: Database) -> None:
    found = await pydocs.vectors.hybrid_search(
        QUERIES[0], "file", where={"tenth": True}, limit=50, match="websearch"
    )
    assert len(found) == 50
    assert all((hit.payload or {})["tenth"] for hit in found)


async def test_documents_are_filtered_by_their_words_through_their_index(
    pydocs: Database,
) -> None:
    found = await pydocs.vectors.search(QUERIES[0], where={"$text": "compressed files"}, limit=50)
    stemmed = await pydocs.vectors.count(where={"$text": "compress file"})
    assert len(found) == stemmed > 0
    plan = await pydocs.vectors.explain(QUERIES[0], where={"$text": "gzip"}, exact=True)
    assert "ix_qortex_vectors_words" in plan.indexes


async def test_mmr_search_is_the_plain_order_at_lambda_one_and_differs_below(
    pydocs: Database,
) -> None:
    plain = await pydocs.vectors.search(QUERIES[2], exact=True)
    same = await pydocs.vectors.mmr_search(QUERIES[2], lambda_=1.0, exact=True)
    assert [hit.id for hit in same] == [hit.id for hit in plain]
    assert same[0].embedding is None
    other = await pydocs.vectors.mmr_search(QUERIES[2], lambda_=0.2, with_embedding=True)
    assert other[0].id == plain[0].id

    def likeness(hits: SearchHits) -> float:
        matrix = np.stack([hit.embedding for hit in hits])
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        return float((matrix @ matrix.T).sum())

    near = await pydocs.vectors.search(QUERIES[2], with_embedding=True)
    assert likeness(other) < likeness(near)


async def test_multi_search_gives_each_row_once_by_its_best_score(pydocs: Database) -> None:
    queries = QUERIES[:4]
    found = await pydocs.vectors.multi_search(list(queries), limit=30, exact=True)
    best = (UNIT @ queries.T).max(axis=1)
    right = [f"p{i:04}" for i in np.argsort(-best, kind="stable")[:30]]
    assert [hit.id for hit in found] == right
    assert [hit.score for hit in found] == pytest.approx(sorted(best, reverse=True)[:30], abs=1e-4)
    approximate = await pydocs.vectors.multi_search(list(queries), limit=30, where={"half": True})
    assert recall(approximate, nearest_to_any(queries, "half")) >= 0.95


@pytest.mark.parametrize("lane", ["alone", "together"])
async def test_what_most_queries_find_comes_first_by_count_times_mean_score(
    pydocs: Database, lane: str
) -> None:
    queries = QUERIES[:6]
    scores = UNIT @ queries.T
    found_by = np.zeros_like(scores, dtype=bool)
    for number in range(len(queries)):
        found_by[np.argsort(-scores[:, number], kind="stable")[:100], number] = True
    total = np.where(found_by, scores, 0).sum(axis=1)
    right = [f"p{i:04}" for i in np.argsort(-total, kind="stable")[:30]]
    assert right != [hit.id for hit in await pydocs.vectors.multi_search(queries, limit=30)]
    async with pydocs.unit_of_work() as uow:
        vectors = (pydocs if lane == "alone" else uow).vectors
        found = await vectors.multi_search(queries, limit=30, rank="count", exact=True)
        assert [hit.id for hit in found] == right
        assert [hit.score for hit in found] == pytest.approx(np.sort(total)[::-1][:30], abs=1e-4)
        assert all(hit.payload == PAYLOADS[int(hit.id[1:])] for hit in found)
        by_index = await vectors.multi_search(queries, limit=30, rank="count")
        assert len({hit.id for hit in by_index} & set(right)) >= 27
        few = {"thousandth": True}
        bounded = await vectors.multi_search(
            queries, limit=30, rank="count", where=few, complete="never", with_embedding=True
        )
        whole = await vectors.multi_search(queries, limit=30, rank="count", where=few)
        assert len(whole) == sum(payload["thousandth"] for payload in PAYLOADS) < 30
        assert whole.complete
        assert [hit.id for hit in bounded] == [hit.id for hit in whole][: len(bounded)]
        assert all(hit.embedding is not None for hit in bounded)


PAGED: dict[str, Any] = {
    "search": lambda v, **o: v.search(QUERIES[0], exact=True, **o),
    "with a filter": lambda v, **o: v.search(QUERIES[0], where={"tenth": True}, exact=True, **o),
    "with a boost": lambda v, **o: v.search(
        QUERIES[0], boost=[FieldBoost("n", weight=1e-4)], fetch_limit=200, exact=True, **o
    ),
    "range_search": lambda v, **o: v.range_search(QUERIES[0], min_score=0.1, **o),
    "multi_search": lambda v, **o: v.multi_search(QUERIES[:3], exact=True, **o),
    "by count": lambda v, **o: v.multi_search(QUERIES[:3], rank="count", exact=True, **o),
    "hybrid_search": lambda v, **o: v.hybrid_search(
        QUERIES[0], "compress gzip", exact=True, branch_limit=300, **o
    ),
    "words": lambda v, **o: v.hybrid_search(None, "file", branch_limit=300, **o),
    "recommend": lambda v, **o: v.recommend(["p0001"], ["p0002"], exact=True, **o),
    "by best score": lambda v, **o: v.recommend(
        ["p0001"], ["p0002"], strategy="best_score", exact=True, **o
    ),
}


@pytest.mark.parametrize("name", PAGED)
async def test_pages_of_a_search_are_its_answer_in_parts(pydocs: Database, name: str) -> None:
    async with pydocs.unit_of_work() as uow:
        for vectors in (pydocs.vectors, uow.vectors):
            whole = await PAGED[name](vectors, limit=90)
            assert len(whole) == 90
            pages = [await PAGED[name](vectors, limit=30, offset=at) for at in (0, 30, 60)]
            assert [page.requested for page in pages] == [30] * 3
            # Of a range it says whether there is more.
            assert {page.complete for page in pages} == {name != "range_search"}
            parts = [hit for page in pages for hit in page]
            assert [(hit.id, hit.score, hit.payload) for hit in parts] == [
                (hit.id, hit.score, hit.payload) for hit in whole
            ]


async def test_pages_end_where_the_rows_do_and_each_query_has_its_own(
    wired: tuple[Database, RoundTrips],
) -> None:
    db, trips = wired
    few = {"thousandth": True}
    right = [hit.id for hit in await db.vectors.search(QUERIES[0], limit=50, where=few)]
    assert 4 < len(right) < 20
    for complete in ("always", "auto"):
        for offset in (0, 2, len(right) - 1):
            page = await db.vectors.search(
                QUERIES[0], where=few, offset=offset, limit=50, complete=complete
            )
            assert [hit.id for hit in page] == right[offset:]
            assert page.complete
    never = await db.vectors.search(QUERIES[0], where=few, offset=60, complete="never")
    assert (len(never), never.complete) == (0, False)
    beyond = await db.vectors.search(QUERIES[0], where=few, offset=60)
    assert (len(beyond), beyond.complete) == (0, True)
    many = await db.vectors.search_many(QUERIES[:3], limit=5, offset=7, exact=True)
    assert [[hit.id for hit in one] for one in many] == [nearest(q)[7:12] for q in QUERIES[:3]]
    last = await db.vectors.search(QUERIES[0], limit=1, offset=len(PASSAGES) - 1, exact=True)
    assert [hit.id for hit in last] == nearest(QUERIES[0])[-1:]
    everything = await db.vectors.range_search(QUERIES[0], min_score=-1, offset=6_000)
    assert [hit.id for hit in everything] == nearest(QUERIES[0])[6_000:]
    assert everything.complete
    by_index = await db.vectors.search(QUERIES[0], offset=500)
    assert len({hit.id for hit in by_index} & set(nearest(QUERIES[0])[480:530])) >= 9
    before = trips.count
    await db.vectors.search(QUERIES[0], offset=500)
    assert trips.count - before == 1
    for search in (*PAGED.values(), lambda v, **o: v.search_many(QUERIES[:2], **o)):
        with pytest.raises(InvalidInputError, match="10,001 together; at most 10,000 fit"):
            await search(db.vectors, limit=10, offset=9_991)
        with pytest.raises(InvalidInputError, match="offset"):
            await search(db.vectors, offset=-1)


@pytest.mark.parametrize("lane", ["alone", "together"])
async def test_a_stream_of_hits_loses_no_row_and_has_none_twice(
    pydocs: Database, lane: str
) -> None:
    half = [payload["half"] for payload in PAYLOADS]
    async with pydocs.unit_of_work() as uow:
        vectors = (pydocs if lane == "alone" else uow).vectors
        stream = vectors.stream_search(QUERIES[0], batch_size=1_000)
        hits = [hit async for hit in stream]
        assert sorted(hit.id for hit in hits) == sorted(nearest(QUERIES[0]))
        similarities = np.sort(UNIT @ QUERIES[0])[::-1]  # pgvector adds up in another order
        assert [hit.score for hit in hits] == pytest.approx(similarities, abs=1e-4)
        assert [hit.id for hit in hits[:500]] == nearest(QUERIES[0])[:500]
        assert hits[7].payload == PAYLOADS[int(hits[7].id[1:])]
        narrowed = vectors.stream_search(
            QUERIES[0],
            batch_size=333,
            where={"half": True},
            min_score=0.05,
            with_payload=False,
            with_embedding=True,
        )
        hits = [hit async for hit in narrowed]
        right = nearest(QUERIES[0], half)
        assert sorted(hit.id for hit in hits) == sorted(right[: len(hits)])
        assert len(hits) == int((UNIT[half] @ QUERIES[0] >= 0.05).sum())
        assert hits[0].payload is None
        assert hits[0].embedding is not None


def nearest_to_any(queries: NDArray[np.float32], share: str) -> list[str]:
    best = (UNIT @ queries.T).max(axis=1)
    return [f"p{i:04}" for i in np.argsort(-best, kind="stable") if PAYLOADS[i][share]]


async def test_recommend_searches_from_the_examples_and_leaves_them_out(pydocs: Database) -> None:
    query = QUERIES[5] / np.linalg.norm(QUERIES[5])
    found = await pydocs.vectors.recommend(["p0010", "p0011", query], ["p0500"], exact=True)
    liked = (UNIT[10] + UNIT[11] + query) / 3
    aim = liked + (liked - UNIT[500])
    examples = {"p0010", "p0011", "p0500"}
    right = [key for key in nearest(aim / np.linalg.norm(aim)) if key not in examples]
    assert [hit.id for hit in found] == right[:10]
    approximate = await pydocs.vectors.recommend(["p0010"])
    right = [key for key in nearest(UNIT[10]) if key != "p0010"]
    assert recall(approximate, right) >= 0.9
    assert len(approximate) == 10


async def test_recommend_says_which_examples_it_lacks(pydocs: Database) -> None:
    with pytest.raises(NotFoundError, match="2 of the examples"):
        await pydocs.vectors.recommend(["p0010", "gone"], ["gone too"])
    with pytest.raises(InvalidInputError, match="positive is empty"):
        await pydocs.vectors.recommend([], ["p0010"])


async def test_groups_hold_the_best_of_each_value(pydocs: Database) -> None:
    found = await pydocs.vectors.search_groups(
        QUERIES[7], "group", limit=5, group_size=2, exact=True
    )
    groups: dict[str, list[str]] = {}
    for key in nearest(QUERIES[7]):
        groups.setdefault(PAYLOADS[int(key[1:])]["group"], []).append(key)
    assert [(one.value, [hit.id for hit in one.hits]) for one in found] == [
        (value, keys[:2]) for value, keys in list(groups.items())[:5]
    ]
    assert found.complete
    few = await pydocs.vectors.search_groups(QUERIES[7], "group", limit=20, fetch_limit=10)
    assert not few.complete
    none = await pydocs.vectors.search_groups(QUERIES[7], "missing")
    assert (len(none), none.complete) == (0, False)


async def test_facets_count_values_and_elements(pydocs: Database) -> None:
    counts = [(one.value, one.count) for one in await pydocs.vectors.facet("tags")]
    expected = {"a": len(PASSAGES)}
    for one in PAYLOADS:
        expected[one["tags"][1]] = expected.get(one["tags"][1], 0) + 1
    assert dict(counts) == expected
    assert counts[0] == ("a", len(PASSAGES))
    tenth = sum(one["tenth"] for one in PAYLOADS)
    found = await pydocs.vectors.facet("tenth", limit=1, where={"tenth": True})
    assert [(one.value, one.count) for one in found] == [(True, tenth)]
    assert await pydocs.vectors.facet("missing") == []


@pytest.mark.parametrize("order_by", [None, "n", "group"])
async def test_scrolling_visits_every_matching_row_once_and_in_order(
    pydocs: Database, order_by: str | None
) -> None:
    seen: list[str] = []
    after = None
    while True:
        page = await pydocs.vectors.scroll(
            limit=100, after=after, order_by=order_by, where={"tenth": True}
        )
        seen += [record.id for record in page.records]
        after = page.next
        if after is None:
            break
    matching = [i for i, one in enumerate(PAYLOADS) if one["tenth"]]
    if order_by == "group":
        matching.sort(key=lambda i: (PAYLOADS[i]["group"], i))
    assert seen == [f"p{i:04}" for i in matching]


@pytest.mark.parametrize("after", ["", "x", "[]", "[1,2]", '["a"]', '["a", 1]', "null", 7])
async def test_a_cursor_that_is_none_is_refused_before_it_is_sent(
    wired: tuple[Database, RoundTrips], after: Any
) -> None:
    db, trips = wired
    async with trips.expect(0):
        with pytest.raises(InvalidInputError, match="after"):
            await db.vectors.scroll(after=after, order_by="n")


async def test_delete_where_removes_what_matches_and_nothing_else(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        await db.vectors.upsert(
            [{"id": f"v{i}", "embedding": [1.0] * 8, "payload": {"n": i}} for i in range(10)]
        )
        assert await db.vectors.delete_where({"n": {"$lt": 3}}) == 3
        assert await db.vectors.delete_where(QortexVector.id == "v9") == 1
        assert await db.vectors.count() == 6
        assert await db.vectors.count(where={"n": {"$gte": 5}}) == 4
        assert await db.vectors.delete_where({"$nor": [{}]}) == 0
        assert await db.vectors.count() == 6
        assert await db.vectors.delete_all() == 6
        assert await db.vectors.delete_all() == 0


OF_ALL_ROWS: list[Any] = [
    {},
    {"$and": [{}]},
    {"$and": [{}, {"$and": [{}, {}]}]},
    {"$or": [{"n": 1}, {}]},
    {"$nor": [{"$id": []}]},
    {"$not": {"$nor": [{}]}},
    {"n": {"$nin": []}},
    {"n": {"$not": {"$in": []}}},
    {"$not": {"n": {"$any": []}}},
    {"$or": [{"n": None}, {"n": {"$ne": None}}]},
    {"$or": [{"n": {"$exists": False}}, {"n": {"$exists": True}}]},
    {"$not": {"$and": [{"n": {"$exists": True}}, {"$not": {"n": {"$exists": True}}}]}},
    true(),
    literal(True),
    {"$not": literal(False)},
    {"$or": [{"n": 1}, true()]},
    {"$not": false()},
    or_(QortexVector.id == "v1", true()),
]
OF_SOME_ROWS: list[Any] = [
    {"$nor": [{}]},
    {"$id": []},
    {"n": {"$in": []}},
    {"n": {"$nin": [-1]}},
    {"$and": [{}, {"n": 1}]},
    {"$or": [{"$id": []}, {"n": 1}]},
    {"$or": [{"n": None}, {"m": {"$ne": None}}]},
    QortexVector.id.is_not(None),
    false(),
]


async def test_a_change_of_all_rows_is_not_taken_for_one_of_some(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        rows = [{"id": f"v{i}", "embedding": [1.0] * 8, "payload": {"n": i}} for i in range(3)]
        await db.vectors.upsert(rows)
        for where in OF_ALL_ROWS:
            assert await db.vectors.count(where=where) == 3, where
            async with db.unit_of_work() as uow:
                for vectors in (db.vectors, uow.vectors):
                    with pytest.raises(InvalidInputError, match=r"every row.*delete_all\(\)"):
                        await vectors.delete_where(where)
                    with pytest.raises(InvalidInputError, match=r"every row.*is_not\(None\)"):
                        await vectors.merge_payload({"m": 1}, where=where)
        stored = await db.vectors.get(["v0", "v1", "v2"])
        assert [record.payload for record in stored.values()] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_a_filter_that_may_leave_rows_out_changes_what_it_matches(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        rows = [{"id": f"v{i}", "embedding": [1.0] * 8, "payload": {"n": i}} for i in range(3)]
        for where in OF_SOME_ROWS:
            await db.vectors.upsert(rows)
            matching = await db.vectors.count(where=where)
            assert await db.vectors.merge_payload({"n": 7}, where=where) == matching, where
            await db.vectors.upsert(rows)
            assert await db.vectors.delete_where(where) == matching, where
            assert await db.vectors.count() == 3 - matching, where


async def test_a_filters_statement_is_built_once_for_its_shape(loaded: str) -> None:
    async with Database.connect(loaded) as db:
        compiled = compilations(db.engine)
        await db.vectors.search(QUERIES[0], where={"n": {"$gt": 1}, "half": True})
        before = len(compiled)
        for number in range(5):
            await db.vectors.search(QUERIES[number], where={"n": {"$gt": number}, "half": True})
        assert len(compiled) == before
        await db.vectors.search(QUERIES[0], where={"n": {"$lt": 1}, "half": True})
        assert len(compiled) == before + 1


async def test_no_search_prepares_a_statement_for_each_list_of_values(loaded: str) -> None:
    async with Database.connect(Settings(dsn=loaded, pool_min_size=1, pool_max_size=1)) as db:
        for size in range(1, 6):
            await db.vectors.search(QUERIES[0], where={"n": {"$in": list(range(size))}})
        async with db.engine.connect() as connection:
            prepared = await connection.execute(
                text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'WITH _be%'")
            )
            assert prepared.scalar_one() == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda v: v.search(QUERIES[0], where="module = 'x'"), "where is a str"),
        (lambda v: v.search(QUERIES[0], where={"a": {"$nope": 1}}), r"\['\$nope'\] is no operator"),
        (lambda v: v.search(QUERIES[0], probes=0), "probes is 0"),
        (lambda v: v.search(QUERIES[0], iterative_scan="always"), "iterative_scan has to be"),
        (lambda v: v.range_search(QUERIES[0], min_score=2), "min_score is 2"),
        (lambda v: v.hybrid_search(QUERIES[0], 3), "text is a int"),
        (lambda v: v.hybrid_search(QUERIES[0], "a\x00b"), "text contains NUL"),
        (lambda v: v.hybrid_search(QUERIES[0], "a", alpha=1.5), "alpha is 1.5"),
        (lambda v: v.hybrid_search(QUERIES[0], "a", k=0), "k is 0"),
        (lambda v: v.mmr_search(QUERIES[0], limit=60), "limit is 60"),
        (lambda v: v.mmr_search(QUERIES[0], lambda_=-0.1), "lambda_ is -0.1"),
        (lambda v: v.multi_search([]), "number of embeddings is 0"),
        (lambda v: v.multi_search(QUERIES[:33]), "number of embeddings is 33"),
        (lambda v: v.multi_search("abc"), "embeddings is a str"),
        (lambda v: v.multi_search(QUERIES[:2], rank="mean"), "rank"),
        (lambda v: v.recommend("p0001"), "positive is a str"),
        (lambda v: v.recommend([QUERIES[0][:3]]), r"positive\[0\] has 3 dimensions"),
        (lambda v: v.search_groups(QUERIES[0], ""), "path '' has an empty key"),
        (lambda v: v.search_groups(QUERIES[0], "a", group_size=0), "group_size is 0"),
        (lambda v: v.facet("a..b"), "has an empty key"),
        (lambda v: v.facet(3), "path is a int"),
        (lambda v: v.delete_where("x"), "where is a str"),
        (lambda v: v.delete_where(None), "every vector"),
        (lambda v: v.search(QUERIES[0], with_payload="a"), "with_payload is a str"),
        (
            lambda v: v.hybrid_search(QUERIES[0], "a", with_embedding="yes"),
            "with_embedding is a str",
        ),
        (lambda v: v.count(where=[]), "where is a list"),
    ],
)
async def test_bad_searches_are_refused_before_they_are_sent(
    wired: tuple[Database, RoundTrips], call: Any, says: str
) -> None:
    db, trips = wired
    looks_again = "dimensions" in says  # at the column
    async with trips.expect(int(looks_again)):
        with pytest.raises(InvalidInputError, match=says):
            await call(db.vectors)


async def test_a_plan_says_which_index_was_read_and_quotes_no_value(pydocs: Database) -> None:
    plan = await pydocs.vectors.explain(QUERIES[0])
    assert plan.indexes == ("ix_qortex_vectors_vec",)
    assert not plan.compared_every_row
    assert "ix_qortex_vectors_vec" in plan.text
    filtered = await pydocs.vectors.explain(QUERIES[0], where={"thousandth": True})
    assert "ix_qortex_vectors_payload" in filtered.indexes
    assert filtered.rows_visited < 200  # a sample of about 100 rows, and those that match
    assert "thousandth" not in filtered.text
    assert "[" not in plan.text + filtered.text
    every = await pydocs.vectors.explain(QUERIES[0], exact=True)
    assert every.compared_every_row
    assert every.rows_visited == len(PASSAGES)


async def test_documents_are_filtered_by_substrings(pydocs: Database) -> None:
    def matching(*, having: str, lacking: str) -> set[str]:
        texts = TEXTS + [None] * (len(PASSAGES) - len(TEXTS))
        return {
            f"p{i:04}"
            for i, one in enumerate(texts)
            if one is not None and having in one and lacking not in one
        }

    where_document = {"$and": [{"$contains": "file"}, {"$not_contains": "the"}]}
    found = await pydocs.vectors.search(QUERIES[0], where_document=where_document, limit=1000)
    assert {hit.id for hit in found} == matching(having="file", lacking="the")
    with_payload = await pydocs.vectors.search(
        QUERIES[0], where={"half": True}, where_document={"$contains": "file"}, limit=1000
    )
    assert {hit.id for hit in with_payload} == {
        key for key in matching(having="file", lacking="\x00") if PAYLOADS[int(key[1:])]["half"]
    }
    hybrid = await pydocs.vectors.hybrid_search(
        QUERIES[0], "read", where_document={"$contains": "file"}, match="websearch"
    )
    assert all("file" in (hit.document or "") for hit in hybrid)
    lacking = await pydocs.vectors.count(where={"$document": {"$not_contains": "file"}})
    assert lacking == len(PASSAGES) - len(matching(having="file", lacking="\x00"))


@pytest.mark.parametrize(
    "where_document",
    [
        {},
        {"$like": "a"},
        {"$contains": 3},
        {"$and": []},
        {"$or": "a"},
        "a",
        {"$contains": "a", "$or": []},
    ],
)
async def test_a_bad_document_filter_is_refused_before_it_is_sent(
    wired: tuple[Database, RoundTrips], where_document: Any
) -> None:
    db, trips = wired
    async with trips.expect(0):
        with pytest.raises(InvalidInputError, match="document"):
            await db.vectors.search(QUERIES[0], where_document=where_document)


async def test_hits_are_ranked_anew_by_any_scorer(pydocs: Database) -> None:
    hits = await pydocs.vectors.search(QUERIES[0], limit=20)

    def shortest(query: str, candidates: Sequence[SearchHit]) -> list[float]:
        assert query == "short"
        return [-len(hit.document or "") for hit in candidates]

    async def later(query: str, candidates: Sequence[SearchHit]) -> NDArray[np.float64]:
        return np.array(shortest(query, candidates), dtype=np.float64)

    lengths = sorted(len(hit.document or "") for hit in hits)[:5]
    for scorer in (shortest, later):
        best = await hits.rerank("short", scorer, limit=5)
        assert [len(hit.document or "") for hit in best] == lengths
        assert [hit.score for hit in best] == [-float(length) for length in lengths]
        assert best.requested == 5
    assert len(await hits.rerank("short", shortest)) == 20


@pytest.mark.parametrize(
    "scorer",
    [lambda _q, _h: [1.0], lambda _q, h: [float("nan")] * len(h), lambda _q, h: "a" * len(h)],
)
async def test_a_scorer_that_scores_wrongly_is_refused(pydocs: Database, scorer: Any) -> None:
    hits = await pydocs.vectors.search(QUERIES[0])
    with pytest.raises(InvalidInputError, match="scorer"):
        await hits.rerank("q", scorer)


async def test_a_measurement_ends_in_time_and_says_what_it_measured(pydocs: Database) -> None:
    assert (await pydocs.vectors.recall_probe(sample=20, max_seconds=0.001)).sample < 20
    assert (await pydocs.vectors.recall_probe(sample=20)).sample == 20
    assert await pydocs.vectors.tune(target_recall=0.1, sample=20, max_seconds=0.001)
    for call in (pydocs.vectors.recall_probe, pydocs.vectors.tune):
        for wrong in (0, -1, float("nan"), 86_401, "1"):
            with pytest.raises(InvalidInputError, match="max_seconds"):
                await call(max_seconds=wrong)  # type: ignore[arg-type]


async def test_the_recall_of_the_index_is_measured_against_exact_answers(pydocs: Database) -> None:
    probe = await pydocs.vectors.recall_probe(sample=20, ef_search=10)
    wide = await pydocs.vectors.recall_probe(sample=20, ef_search=400)
    assert 0.8 <= probe.recall <= 1.0  # another sample each time
    assert 0.97 <= wide.recall <= 1.0
    assert (probe.sample, probe.limit, probe.ef_search) == (20, 10, 10)


@pytest.mark.slow
async def test_tuning_finds_the_smallest_ef_search_that_reaches_the_recall(
    pydocs: Database,
) -> None:
    tuning = await pydocs.vectors.tune(target_recall=0.97, sample=30)
    assert tuning.recall >= 0.97
    assert tuning.tried[tuning.ef_search] == tuning.recall
    below = [recall for ef, recall in tuning.tried.items() if ef < tuning.ef_search]
    assert all(recall < 0.97 for recall in below)
    with pytest.raises(NotFoundError, match="no ef_search"):
        await pydocs.vectors.tune(target_recall=1.0, sample=100, max_ef_search=1)


async def test_advice_names_an_index_its_size_and_reasons(pydocs: Database, dsn: str) -> None:
    advice = await pydocs.vectors.recommend_index()
    assert (advice.method, advice.storage) == ("none", "full")
    assert advice.reasons
    large = await pydocs.vectors.recommend_index(rows=5_000_000, memory_bytes=4 * 2**30)
    assert (large.method, large.storage) == ("hnsw", "binary")
    middle = await pydocs.vectors.recommend_index(rows=1_000_000, memory_bytes=64 * 2**30)
    assert (middle.method, middle.storage) == ("hnsw", "full")
    assert 1_000_000 * 384 * 4 < middle.index_bytes < 1_000_000 * 384 * 12
    async with Database.connect(dsn) as empty:
        assert (await empty.vectors.recommend_index()).method == "none"


async def test_the_estimate_of_an_index_is_near_its_real_size(pydocs: Database) -> None:
    advice = await pydocs.vectors.recommend_index(rows=len(PASSAGES))
    async with pydocs.engine.connect() as connection:
        size = await connection.exec_driver_sql("SELECT pg_relation_size('ix_qortex_vectors_vec')")
        assert advice.index_bytes == pytest.approx(size.scalar_one(), rel=0.35)


@pytest.mark.parametrize(
    "where",
    [
        QortexVector.id == "v1",
        QortexVector.id.in_(["v1", "x"]),
        ~QortexVector.id.in_(["v0", "v2"]),
        {"$and": [{"n": 1}, QortexVector.id.in_(["v1", "v2"])]},
    ],
    ids=["equality", "list", "negated list", "list and dictionary"],
)
async def test_an_expression_over_a_model_narrows_in_both_lanes(dsn: str, where: Any) -> None:
    async with Database.connect(dsn) as db, db.unit_of_work() as uow:
        await db.vectors.upsert(
            [{"id": f"v{i}", "embedding": [1.0] * 8, "payload": {"n": i}} for i in range(3)]
        )
        for vectors in (db.vectors, uow.vectors):
            assert [hit.id for hit in await vectors.search([1.0] * 8, where=where)] == ["v1"]
            assert await vectors.count(where=where) == 1
            page = await vectors.scroll(where=where, with_embedding=True)
            assert list(page.records[0].embedding) == [1.0] * 8
        assert await uow.vectors.delete_where(where) == 1
        assert await uow.vectors.count() == 2
