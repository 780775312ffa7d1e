"""LangChain's vector store over our tables: filters, scores, retrievers, hosts' own tables."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from sqlalchemy import BigInteger, Text, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import Collection, Database, InvalidInputError, SchemaVersionError, VectorSpec
from qortex_db.integrations.langchain import QortexVectorStore
from qortex_db.testing import asyncpg_url, create_all
from qortex_db.types import Embedding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

TEXTS = ["apples grow on trees", "pears grow on trees", "trains run on rails", "ships sail"]
METADATAS: list[dict[str, Any]] = [
    {"kind": "fruit", "price": 1.5, "tags": ["a", "b"], "at": None},
    {"kind": "fruit", "price": 2, "tags": [], "ripe": True},
    {"kind": "vehicle", "price": 30_000_000_000, "made": {"year": 1_960}},
    {"kind": "vehicle"},
]
IDS = ["apple", "pear", "train", "ship"]


class Words(Embeddings):
    """Texts that share words are similar."""

    def __init__(self) -> None:
        self.calls = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls += 1
        fake = DeterministicFakeEmbedding(size=8)
        words = [[fake.embed_query(word) for word in text.split()] for text in texts]
        return [[sum(numbers) for numbers in zip(*each, strict=True)] for each in words]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    emb: Mapped[Any] = mapped_column(Embedding(8), nullable=True)
    body: Mapped[str | None] = mapped_column(Text)
    meta: Mapped[Any] = mapped_column(JSONB, server_default="{}")


class Missing(Base):
    __tablename__ = "missing_articles"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    emb: Mapped[Any] = mapped_column(Embedding(8), nullable=True)


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[QortexVectorStore]:
    store = QortexVectorStore(Words(), database=dsn)
    assert await store.aadd_texts(TEXTS, METADATAS, ids=IDS) == IDS
    yield store
    await store.aclose()


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


async def test_searches_in_both_ways_of_calling(store: QortexVectorStore) -> None:
    query = "trees grow"
    embedding = store.embeddings.embed_query(query)
    found = await store.asimilarity_search_with_score(query, k=4)
    assert ids([document for document, _ in found])[:2] == ["pear", "apple"] or ids(
        [document for document, _ in found]
    )[:2] == ["apple", "pear"]
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert found == store.similarity_search_with_score(query, k=4)
    assert found == store.similarity_search_with_score_by_vector(embedding, k=4)
    by_vector = await store.asimilarity_search_by_vector(embedding, k=4)
    assert by_vector == store.similarity_search_by_vector(embedding, k=4)
    assert by_vector == await store.asimilarity_search(query) == store.similarity_search(query)
    assert by_vector == [document for document, _ in found]

    assert await store.asimilarity_search(query, k=4, offset=1) == by_vector[1:]  # ours
    few = await store.amax_marginal_relevance_search(query, k=3, fetch_k=1, lambda_mult=1.0)
    assert few == by_vector[:3]
    exact = await store.asimilarity_search(query, k=2, exact=True, filter={"kind": "vehicle"})
    assert {document.metadata["kind"] for document in exact} == {"vehicle"}
    cheap = store.similarity_search(query, k=4, filter={"price": {"$lt": 2}})
    assert ids(cheap) == ["apple"]

    relevant = await store.asimilarity_search_with_relevance_scores(query, k=4)
    assert relevant == store.similarity_search_with_relevance_scores(query, k=4)
    assert [score for _, score in relevant] == [min(1, max(0, score)) for score in scores]
    floor = (relevant[1][1] + relevant[2][1]) / 2
    some = await store.asimilarity_search_with_relevance_scores(query, k=4, score_threshold=floor)
    assert some == relevant[:2]

    first, second = await store.amax_marginal_relevance_search(query, k=2, lambda_mult=0.0)
    assert first == by_vector[0]
    assert second != by_vector[1]
    chosen = store.max_marginal_relevance_search(query, k=2, lambda_mult=0.0)
    assert chosen == store.max_marginal_relevance_search_by_vector(embedding, k=2, lambda_mult=0.0)
    assert chosen == [first, second]


async def test_metadata_keeps_its_types_and_documents_their_ids(store: QortexVectorStore) -> None:
    found = await store.aget_by_ids([*reversed(IDS), "nobody"])
    assert {document.id: document.metadata for document in found} == dict(
        zip(IDS, METADATAS, strict=True)
    )
    assert sorted(ids(store.get_by_ids(IDS)), key=str) == sorted(IDS)
    at = datetime(2026, 1, 2, tzinfo=UTC)
    (made,) = await store.aadd_documents([Document(page_content="x", metadata={"at": at})])
    (again,) = await store.aget_by_ids([made])
    assert datetime.fromisoformat(again.metadata["at"]) == at
    assert await store.adelete(filter={"kind": "fruit"})
    assert store.delete(["ship"])
    assert {document.id for document in await store.asimilarity_search("x", k=9)} == {"train", made}
    assert await store.adelete()
    assert await store.asimilarity_search("x") == []
    with pytest.raises(InvalidInputError, match="4 texts and 3 ids"):
        await store.aadd_texts(TEXTS, ids=IDS[:3])
    with pytest.raises(InvalidInputError, match="no option 'timeout'"):
        await store.aadd_texts(TEXTS, timeout=3)


async def test_retrievers_find_by_meaning_variety_and_words(store: QortexVectorStore) -> None:
    plain = store.as_retriever(search_kwargs={"k": 1, "filter": {"kind": "vehicle"}})
    assert await plain.ainvoke("trains") == plain.invoke("trains")
    assert ids(plain.invoke("trains run on rails")) == ["train"]
    relevant = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.99}
    )
    assert ids(await relevant.ainvoke("ships sail")) == ["ship"]
    assert len(store.as_retriever(search_type="mmr", search_kwargs={"k": 3}).invoke("ships")) == 3

    hybrid = store.as_hybrid_retriever(k=1, alpha=0.0)
    assert ids(await hybrid.ainvoke("rails")) == ids(hybrid.invoke("rails")) == ["train"]
    both = await store.ahybrid_search_with_score("ships", k=4, filter={"kind": "vehicle"})
    assert [document.id for document, _ in both] == ["ship", "train"]


async def test_a_search_is_one_statement(dsn: str) -> None:
    engine = create_async_engine(asyncpg_url(dsn))
    store = QortexVectorStore(Words(), database=Database.from_engine(engine))
    try:
        await store.aadd_texts(TEXTS, METADATAS, ids=IDS)
        embedding = store.embeddings.embed_query("trees")
        await store.asimilarity_search("trees")
        sent: list[str] = []
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *c: sent.append(c[2]))
        works: list[Callable[[], Awaitable[object]]] = [
            lambda: store.asimilarity_search("trees"),
            lambda: store.asimilarity_search_with_relevance_scores("trees", filter={"kind": "a"}),
            lambda: store.asimilarity_search_by_vector(embedding),
            lambda: store.amax_marginal_relevance_search("trees", k=2),
            lambda: store.ahybrid_search_with_score("trees"),
            lambda: store.aadd_texts(TEXTS, METADATAS, ids=IDS),
            lambda: store.aget_by_ids(IDS),
        ]
        for work in works:
            await work()  # what is known of the table is looked up once
            sent.clear()
            await work()
            assert len(sent) == 1, sent
        with pytest.raises(InvalidInputError, match="async methods alone"):
            await asyncio.to_thread(store.similarity_search, "trees")
    finally:
        await engine.dispose()


async def test_a_hosts_own_table_is_a_store(dsn: str) -> None:
    await create_all(dsn, Base.metadata)
    mapping = Collection(
        VectorSpec(8, column="emb"), id="number", document="body", payload="meta", updated_at=None
    )
    async with Database.connect(dsn) as db:
        store = QortexVectorStore(Words(), database=db, collection=Article, mapping=mapping)
        numbers = ["1", "2", "-3", "4"]
        assert await store.aadd_texts(TEXTS, METADATAS, ids=numbers) == numbers
        assert ids(await store.asimilarity_search("trains run on rails", k=1)) == ["-3"]
        assert ids(await asyncio.to_thread(store.get_by_ids, ["2", "9"])) == ["2"]
        with pytest.raises(InvalidInputError, match="are numbers"):
            await store.aadd_texts(["x"])
        await asyncio.to_thread(store.close)


async def test_a_table_that_is_not_there_is_made_by_a_revision(dsn: str) -> None:
    mapping = Collection(VectorSpec(8, column="emb"), payload=None, document=None, updated_at=None)
    async with Database.connect(dsn) as db:
        store = QortexVectorStore(Words(), database=db, collection=Missing, mapping=mapping)
        with pytest.raises(SchemaVersionError, match="collections new missing_articles"):
            await store.asimilarity_search("x")


async def test_no_text_is_embedded_twice_where_the_model_has_a_name(dsn: str) -> None:
    words = Words()
    async with Database.connect(dsn) as db:
        store = await QortexVectorStore.afrom_texts(
            TEXTS, words, METADATAS, ids=IDS, database=db, cache_as="words"
        )
        await store.asimilarity_search("trees grow")
        calls = words.calls
        await store.aadd_texts(TEXTS, ids=IDS)
        found = await store.asimilarity_search("trees grow")
        assert words.calls == calls
        assert found == await QortexVectorStore(words, database=db).asimilarity_search("trees grow")


def test_from_documents_waits(dsn: str) -> None:
    documents = [Document(id=str(uuid4()), page_content=text) for text in TEXTS]
    store = QortexVectorStore.from_documents(documents, Words(), database=dsn)
    assert store.similarity_search("ships sail", k=1) == [documents[3]]
    store.close()
