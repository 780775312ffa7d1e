"""Haystack's document store over our tables: documents as they were, filters, retrievers."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from haystack import Pipeline
from haystack.dataclasses import ByteStream, Document, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter
from sqlalchemy import BigInteger, Text, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    SchemaVersionError,
    Settings,
    VectorSpec,
)
from qortex_db.integrations.haystack import (
    QortexDocumentStore,
    QortexEmbeddingRetriever,
    QortexHybridRetriever,
    QortexKeywordRetriever,
)
from qortex_db.testing import asyncpg_url, create_all
from qortex_db.types import Embedding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

VECTORS = np.random.default_rng(5).normal(size=(4, 8)).astype("f4")
CONTENTS = ["apples grow on trees", "pears grow on trees", "trains run on rails", None]
METAS: list[dict[str, Any]] = [
    {"kind": "fruit", "price": 1.5, "made": {"year": 1960}, "at": "2024-01-01T00:00:00+00:00"},
    {"kind": "fruit", "price": 2, "tags": [], "at": "2024-01-01T02:00:00+02:00", "$odd[]": 1},
    {"kind": "vehicle", "price": -30, "note": None, "at": "2025-06-01T00:00:00Z"},
    {"made": 3, "a\\b": "x"},
]


def documents() -> list[Document]:
    return [
        Document(id=f"d{i}", content=CONTENTS[i], meta=METAS[i], embedding=VECTORS[i].tolist())
        for i in range(4)
    ]


class Base(DeclarativeBase):
    pass


class Page(Base):
    __tablename__ = "haystack_pages"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    emb: Mapped[Any] = mapped_column(Embedding(8), nullable=True)
    body: Mapped[str | None] = mapped_column(Text)
    meta: Mapped[Any] = mapped_column(JSONB, server_default="{}")


MAPPING = Collection(
    VectorSpec(8, column="emb"), id="number", document="body", payload="meta", updated_at=None
)


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[QortexDocumentStore]:
    store = QortexDocumentStore(dsn)
    assert await store.write_documents_async(documents()) == 4
    yield store
    await store.close_async()
    await asyncio.to_thread(store.close)


def ids(found: list[Document]) -> list[str]:
    return [document.id for document in found]


def one(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


async def test_documents_come_back_as_they_were(store: QortexDocumentStore, dsn: str) -> None:
    image = ByteStream(bytes(range(256)), meta={"width": 3}, mime_type="image/png")
    sparse = SparseEmbedding([3, 4_000_000_000], [0.5, -1.25])
    odd = [
        Document(id="blob", blob=image, meta={"kind": "image"}),
        Document(id="sparse", content="", sparse_embedding=sparse, embedding=VECTORS[0].tolist()),
        Document(id="bare"),
    ]
    await store.write_documents_async(odd)
    found = {document.id: document for document in await store.filter_documents_async()}
    assert found == {document.id: document for document in [*documents(), *odd]}
    assert await asyncio.to_thread(store.filter_documents) == list(found.values())
    async with Database.connect(dsn) as db:  # others see a row, and not what is Haystack's
        row = (await db.vectors.get(["d0"]))["d0"]
        assert (row.document, row.payload) == (CONTENTS[0], METAS[0])

    # What takes a document's place leaves nothing of it.
    await store.write_documents_async([Document(id="sparse")], DuplicatePolicy.OVERWRITE)
    (left,) = await store.filter_documents_async(one("id", "==", "sparse"))
    assert left == Document(id="sparse")


async def test_ids_that_are_there_follow_the_policy(store: QortexDocumentStore) -> None:
    new = [Document(id="d9", content="new"), Document(id="d1", content="changed")]
    for policy in (DuplicatePolicy.FAIL, DuplicatePolicy.NONE):
        with pytest.raises(DuplicateDocumentError, match=r"d1.*nothing was written"):
            await store.write_documents_async(new, policy)
    assert await store.count_documents_async() == 4  # none of them, the new one neither
    twice = [Document(id="d8", content="first"), Document(id="d8", content="last")]
    with pytest.raises(DuplicateDocumentError, match="d8"):
        await store.write_documents_async(twice)
    assert await store.write_documents_async([*new, *twice], DuplicatePolicy.SKIP) == 2
    found = {one.id: one.content for one in await store.filter_documents_async()}
    assert (found["d9"], found["d1"], found["d8"]) == ("new", CONTENTS[1], "first")
    assert await store.write_documents_async([*new, *twice], DuplicatePolicy.OVERWRITE) == 4
    found = {one.id: one.content for one in await store.filter_documents_async()}
    assert (found["d9"], found["d1"], found["d8"]) == ("new", "changed", "last")
    assert await store.write_documents_async([]) == 0

    wrong: Any = [Document(id="fine"), {"id": "x"}]
    with pytest.raises(InvalidInputError, match=r"documents\[1\] is a dict"):
        await store.write_documents_async(wrong)
    with pytest.raises(InvalidInputError, match="_haystack"):
        await store.write_documents_async([Document(meta={"_haystack": 1})])
    assert await store.count_documents_by_filter_async(one("id", "==", "fine")) == 0


@pytest.mark.slow
async def test_thousands_of_documents_come_by_pages(store: QortexDocumentStore) -> None:
    many = [Document(id=f"m{i:05}", meta={"n": i}) for i in range(12_000)]
    assert await store.write_documents_async(many) == 12_000
    found = await store.filter_documents_async(one("meta.n", ">=", 500))
    assert ids(found) == [f"m{i:05}" for i in range(500, 12_000)]


VALUES = {
    "meta.kind": ["fruit", None],
    "kind": ["vehicle"],
    "meta.price": [2, -30.0, None],
    "meta.made.year": [1960],
    "meta.made": [3],
    "meta.note": [None],
    "meta.$odd[]": [1],
    "meta.a\\b": ["x"],
    "meta.nobody": [1, None],
    "content": ["pears grow on trees", None],
    "id": ["d2"],
}
EQUALITIES = [
    *(one(field, op, value) for field in VALUES for value in VALUES[field] for op in ("==", "!=")),
    *(
        one(field, op, [*values, "x"])
        for field, values in VALUES.items()
        for op in ("in", "not in")
    ),
    *(one(field, "in", []) for field in VALUES),
]
ORDERS = [
    one(field, op, value)
    for op in (">", ">=", "<", "<=")
    for field, value in [
        ("meta.price", 1.5),
        ("meta.price", None),
        ("meta.nobody", 1),
        ("meta.at", "2024-01-01T01:00:00+01:00"),
    ]
]
PAIRS = list(itertools.product([*EQUALITIES[::7], *ORDERS[::5]], repeat=2))
COMPOUND = [
    {"operator": operator, "conditions": [first, {"operator": "NOT", "conditions": [second]}]}
    for operator, (first, second) in zip(itertools.cycle(["AND", "OR", "NOT"]), PAIRS, strict=False)
]


@pytest.mark.slow
async def test_filters_match_what_haystacks_own_match(store: QortexDocumentStore) -> None:
    every = documents()
    for filters in [*EQUALITIES, *ORDERS, *COMPOUND]:
        expected = [each.id for each in every if document_matches_filter(filters, each)]
        assert ids(await store.filter_documents_async(filters)) == expected, filters
    assert len(COMPOUND) > 100
    assert ids(await store.filter_documents_async({})) == ["d0", "d1", "d2", "d3"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"operator": "XOR", "conditions": []}, r"filters\['operator'\] has to be one of"),
        ({"operator": "AND", "conditions": {}}, "pass a list"),
        ({"operator": "AND", "conditions": [3]}, r"\['conditions'\]\[0\] is a int"),
        (one("meta.a", "~", 1), "none of =="),
        (one("meta.a", ">", True), "which has no order"),
        (one("meta.a", ">", "soon"), "no ISO 8601 date"),
        (one("id", ">", "d1"), "orders ids"),
        (one("embedding", "==", [1.0]), "no filter looks into"),
        ({"field": 3, "operator": "==", "value": 1}, "is a int"),
    ],
)
async def test_what_is_no_filter_is_refused(
    store: QortexDocumentStore, filters: dict[str, Any], message: str
) -> None:
    with pytest.raises(FilterError, match=message):
        await store.filter_documents_async(filters)
    with pytest.raises(InvalidInputError, match=message):
        await store.delete_by_filter_async(filters)


async def test_documents_change_and_go_by_filters(store: QortexDocumentStore) -> None:
    fruit = one("meta.kind", "==", "fruit")
    assert await store.update_by_filter_async(fruit, {"a.b": 1, "price": 9}) == 2
    assert await store.update_by_filter_async(fruit, {"a.b": 1, "price": 9}) == 0
    changed = await store.filter_documents_async(fruit)
    assert [document.meta["a.b"] for document in changed] == [1, 1]
    assert changed[0].meta["made"] == {"year": 1960}
    distinct = await store.count_unique_metadata_by_filter_async({}, ["kind", "meta.price", "no"])
    assert distinct == {"kind": 2, "meta.price": 2, "no": 0}
    assert await store.get_metadata_field_min_max_async("made.year") == {"min": 1960, "max": 1960}
    for refused in (store.delete_by_filter_async({}), store.update_by_filter_async({}, {"x": 1})):
        with pytest.raises(InvalidInputError, match=r"every row|all"):
            await refused
    with pytest.raises(InvalidInputError, match="_haystack"):
        await store.update_by_filter_async(fruit, {"_haystack": 1})
    assert await store.delete_by_filter_async(fruit) == 2
    await store.delete_documents_async(["d3", "nobody"])
    assert ids(await store.filter_documents_async()) == ["d2"]
    await store.delete_all_documents_async()
    assert await store.count_documents_async() == 0


async def test_retrievers_find_by_meaning_words_and_both(store: QortexDocumentStore) -> None:
    embedding = VECTORS[1].tolist()
    fruit, cheap = one("meta.kind", "==", "fruit"), one("meta.price", "<", 2)
    by_meaning = QortexEmbeddingRetriever(store, top_k=3, search_options={"exact": True})
    similar = VECTORS @ VECTORS[1] / np.linalg.norm(VECTORS, axis=1) / np.linalg.norm(VECTORS[1])
    found = (await by_meaning.run_async(embedding))["documents"]
    assert ids(found) == [f"d{i}" for i in np.argsort(-similar)[:3]]
    assert [each.score for each in found] == pytest.approx(sorted(similar, reverse=True)[:3], 1e-5)
    assert found == (await asyncio.to_thread(by_meaning.run, embedding))["documents"]
    assert found[0].embedding is None
    assert ids((await by_meaning.run_async(embedding, fruit, top_k=1))["documents"]) == ["d1"]

    by_words = QortexKeywordRetriever(store, fruit, return_embedding=True)
    (word,) = (await by_words.run_async("pears"))["documents"]
    assert (word.id, word.embedding) == ("d1", embedding)
    assert word == (await asyncio.to_thread(by_words.run, "pears"))["documents"][0]
    assert ids((await by_words.run_async("trains"))["documents"]) == []
    assert ids((await by_words.run_async("trains", cheap))["documents"]) == ["d2"]
    merged = QortexKeywordRetriever(store, fruit, filter_policy="merge")
    assert ids((await merged.run_async("trees trains", cheap))["documents"]) == ["d0"]
    assert set(ids((await by_words.run_async("trees trains", cheap))["documents"])) == {"d0", "d2"}

    both = QortexHybridRetriever(store, top_k=2)
    mixed = (await both.run_async("trains", embedding))["documents"]
    assert set(ids(mixed)) == {"d1", "d2"}
    assert mixed == (await asyncio.to_thread(both.run, "trains", embedding))["documents"]
    with pytest.raises(InvalidInputError, match="query_embedding, query, or both"):
        await store.retrieve_async()
    wrong: Any = None
    with pytest.raises(InvalidInputError, match="pass a QortexDocumentStore"):
        QortexKeywordRetriever(wrong)


async def test_pipelines_run_and_are_written_and_read_again(
    store: QortexDocumentStore, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIBRARY_DSN", dsn)
    own = QortexDocumentStore(Secret.from_env_var("LIBRARY_DSN"))
    pipeline = Pipeline()
    fruit = one("meta.kind", "==", "fruit")
    pipeline.add_component("words", QortexKeywordRetriever(own, fruit, 3, "merge"))
    pipeline.add_component("meaning", QortexEmbeddingRetriever(own, search_options={"exact": True}))
    pipeline.add_component("both", QortexHybridRetriever(own, return_embedding=True))
    written = pipeline.dumps()
    assert dsn not in written
    assert "LIBRARY_DSN" in written
    own_modules = ["qortex_db.integrations.haystack.*"]
    again = Pipeline.loads(written, allowed_modules=own_modules)
    assert again.to_dict() == pipeline.to_dict()
    embedding = VECTORS[0].tolist()
    data = {
        "words": {"query": "trees"},
        "meaning": {"query_embedding": embedding, "top_k": 1},
        "both": {"query": "rails", "query_embedding": embedding},
    }
    done = await again.run_async(data)
    assert sorted(ids(done["words"]["documents"])) == ["d0", "d1"]
    assert ids(done["meaning"]["documents"]) == ["d0"]
    assert {"d0", "d2"} <= set(ids(done["both"]["documents"]))
    waiting = Pipeline.loads(written, allowed_modules=own_modules)
    assert await asyncio.to_thread(waiting.run, data) == done
    for each in (again, waiting):
        for name in data:
            opened = each.get_component(name).document_store
            await opened.close_async()
            await asyncio.to_thread(opened.close)


async def test_no_secret_is_ever_written(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Database.connect(dsn) as db:
        for given in (dsn, Settings(dsn=dsn), db):
            with pytest.raises(InvalidInputError, match=r"Secret\.from_env_var") as refused:
                QortexDocumentStore(given).to_dict()
            assert dsn not in str(refused.value)
    with pytest.raises(ValueError, match="token"):
        QortexDocumentStore(Secret.from_token(dsn)).to_dict()
    monkeypatch.setenv("PGVECTOR_DSN", dsn)
    written = QortexDocumentStore(collection="qortex_vectors").to_dict()
    assert written["init_parameters"] == {
        "database": None,
        "collection": "qortex_vectors",
        "namespace": None,
    }
    assert QortexDocumentStore.from_dict(written).to_dict() == written
    with pytest.raises(InvalidInputError, match="haystack_pages"):
        QortexDocumentStore(collection=Page, mapping=MAPPING).to_dict()


async def test_a_hosts_own_table_is_a_store(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        store = QortexDocumentStore(db, collection=Page, mapping=MAPPING)
        with pytest.raises(SchemaVersionError, match="collections new haystack_pages"):
            await store.count_documents_async()
        await create_all(dsn, Base.metadata)
        numbers = ["1", "2", "-3", "4"]
        for document, number in zip(documents(), numbers, strict=True):
            own = Document(number, document.content, meta=document.meta, embedding=VECTORS[0])
            assert await store.write_documents_async([own]) == 1
        with pytest.raises(DuplicateDocumentError):
            await store.write_documents_async([Document(id="-3")])
        filters = one("id", "in", ["2", "-3", "7"])
        assert ids(await store.filter_documents_async(filters)) == ["-3", "2"]
        assert ids(await store.filter_documents_async(one("content", "==", None))) == ["4"]
        assert ids(await store.retrieve_async(query="rails")) == ["-3"]
        await store.delete_documents_async(["-3"])
        assert await asyncio.to_thread(store.count_documents) == 3
        await asyncio.to_thread(store.close)


async def test_retrieving_is_one_statement(dsn: str) -> None:
    engine = create_async_engine(asyncpg_url(dsn))
    store = QortexDocumentStore(Database.from_engine(engine))
    sent: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *c: sent.append(c[2]))
    embedding = VECTORS[0].tolist()
    works: list[Callable[[], Awaitable[object]]] = [
        lambda: store.retrieve_async(query_embedding=embedding, filters=one("meta.a", "==", 1)),
        lambda: store.retrieve_async(query="trees"),
        lambda: store.retrieve_async(query="trees", query_embedding=embedding),
        lambda: store.write_documents_async(documents(), DuplicatePolicy.OVERWRITE),
        lambda: store.write_documents_async(documents(), DuplicatePolicy.SKIP),
        store.filter_documents_async,
        lambda: store.update_by_filter_async(one("id", "==", "d1"), {"x": 1}),
    ]
    try:
        for work in works:
            await work()  # what is known of the table is looked up once
            sent.clear()
            await work()
            assert len(sent) == 1, sent
    finally:
        await engine.dispose()
