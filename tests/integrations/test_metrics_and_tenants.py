"""What adapters make of a collection's own: its metric, its namespace."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from langchain_core.embeddings import Embeddings
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from sqlalchemy.orm import DeclarativeBase

from qortex_db import Collection, Database, VectorMixin, VectorSpec
from qortex_db.integrations import haystack, langchain, llama_index
from qortex_db.testing import create_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TEXTS = ["apples", "pears", "trains", "ships"]


class Base(DeclarativeBase):
    pass


class ByCosine(VectorMixin, Base):
    __tablename__ = "by_cosine"
    __collection__ = Collection(VectorSpec(8))


class ByInnerProduct(VectorMixin, Base):
    __tablename__ = "by_inner_product"
    __collection__ = Collection(VectorSpec(8, metric="inner_product"))


class ByL2(VectorMixin, Base):
    __tablename__ = "by_l2"
    __collection__ = Collection(VectorSpec(8, metric="l2"))


class ByL1(VectorMixin, Base):
    __tablename__ = "by_l1"
    __collection__ = Collection(VectorSpec(8, metric="l1"))


class Shared(VectorMixin, Base):
    __tablename__ = "shared_by_tenants"
    __collection__ = Collection(VectorSpec(8), namespace="tenant", namespace_in_key=True)


class Units(Embeddings):
    """Each text has a direction of its own."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = np.random.default_rng(zlib.crc32(text.encode())).normal(size=8)
        return (vector / np.linalg.norm(vector)).tolist()  # type: ignore[no-any-return]


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    await create_all(dsn, Base.metadata)
    async with Database.connect(dsn) as db:
        yield db


async def test_relevance_is_from_0_to_1_by_each_metric(db: Database) -> None:
    model = Units()
    vectors, query = np.array(model.embed_documents(TEXTS)), np.array(model.embed_query("x"))
    inner = np.clip(vectors @ query, 0, 1)
    expected = {
        ByCosine: inner,
        ByInnerProduct: inner,
        # As LangChain has it for unit vectors: 1 where they are equal, 0 where they are orthogonal.
        ByL2: np.clip(1 - np.linalg.norm(vectors - query, axis=1) / np.sqrt(2), 0, 1),
        ByL1: 1 / (1 + np.abs(vectors - query).sum(axis=1)),
    }
    for table, relevance in expected.items():
        store = langchain.QortexVectorStore(model, database=db, collection=table)
        await store.aadd_texts(TEXTS, ids=TEXTS)
        found = await store.asimilarity_search_with_relevance_scores("x", k=4)
        assert {document.page_content: score for document, score in found} == pytest.approx(
            dict(zip(TEXTS, relevance, strict=True)), abs=1e-5
        )
        (best,) = await store.asimilarity_search_with_relevance_scores("ships", k=1)
        assert (best[0].id, round(best[1], 3)) == ("ships", 1.0)


async def test_a_namespace_sees_its_own_alone(db: Database) -> None:
    vector = Units().embed_query("x")
    for tenant in ("a", "b"):
        options: dict[str, Any] = {"database": db, "collection": Shared, "namespace": tenant}
        store = langchain.QortexVectorStore(Units(), **options)
        await store.aadd_texts([f"of {tenant}"], ids=["one"])
        assert [each.page_content for each in await store.asimilarity_search("x")] == [
            f"of {tenant}"
        ]
        nodes = llama_index.QortexVectorStore(**options)
        await nodes.async_add([TextNode(id_="node", text=f"node {tenant}", embedding=vector)])
        found = await nodes.aquery(VectorStoreQuery(vector, node_ids=["node"]))
        assert [node.get_content() for node in found.nodes or ()] == [f"node {tenant}"]
        documents = haystack.QortexDocumentStore(**options)
        assert await documents.count_documents_async() == 2
        assert await documents.write_documents_async([Document(id="two", content=tenant)]) == 1
        with pytest.raises(DuplicateDocumentError):
            await documents.write_documents_async([Document(id="two")])
        written = documents.retrieve_async(query_embedding=vector, top_k=9)
        assert {document.id for document in await written} == {"one", "node"}
    assert await db.collection(Shared, namespace="a").delete_all() == 3
    assert await documents.count_documents_async() == 3
