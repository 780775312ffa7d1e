"""LlamaIndex's vector store over our tables: modes, filters, nodes as they were."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import (
    ImageNode,
    IndexNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from sqlalchemy import Text, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import Collection, Database, InvalidInputError, SchemaVersionError, VectorSpec
from qortex_db.integrations.llama_index import QortexVectorStore
from qortex_db.testing import asyncpg_url
from qortex_db.types import Embedding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llama_index.core.schema import BaseNode

VECTORS = np.random.default_rng(3).normal(size=(12, 8)).round(3)
TEXTS = ["apples grow", "pears grow", "trains run", "ships sail"]
METADATA: list[dict[str, Any]] = [
    {"kind": "fruit", "price": 1.5, "tags": ["a", "b"], "note": "Red 100%"},
    {"kind": "fruit", "price": 2, "tags": [], "note": ""},
    {"kind": "vehicle", "price": 30_000, "tags": ["b"], "a.b": "dotted"},
    {"kind": "vehicle", "note": None},
]


def nodes() -> list[BaseNode]:
    made: list[BaseNode] = []
    for i, text in enumerate(TEXTS * 3):
        node = TextNode(id_=f"n{i:02}", text=f"{text} {i}", metadata=dict(METADATA[i % 4]))
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc{i % 3}")
        node.embedding = VECTORS[i].tolist()
        made.append(node)
    return made


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[QortexVectorStore]:
    store = QortexVectorStore(database=dsn)
    assert await store.async_add(nodes()) == [f"n{i:02}" for i in range(12)]
    yield store
    await store.aclose()


def query(mode: VectorStoreQueryMode = VectorStoreQueryMode.DEFAULT, **given: Any) -> Any:
    given = {"query_embedding": VECTORS[0].tolist(), "similarity_top_k": 4} | given
    return VectorStoreQuery(mode=mode, **given)


def by_similarity(count: int) -> list[str]:
    scores = VECTORS @ VECTORS[0] / np.linalg.norm(VECTORS, axis=1)
    return [f"n{i:02}" for i in np.argsort(-scores)[:count]]


async def test_each_mode_in_both_ways_of_calling(store: QortexVectorStore) -> None:
    modes = VectorStoreQueryMode
    found = await store.aquery(query(), exact=True)
    assert found.ids == by_similarity(4)
    assert found.similarities == sorted(found.similarities or [], reverse=True)
    assert found == store.query(query(), exact=True)
    assert [node.node_id for node in found.nodes or ()] == found.ids

    words = await store.aquery(query(modes.TEXT_SEARCH, query_str="trains"))
    assert sorted(words.ids or ()) == ["n02", "n06", "n10"]
    sparse = await store.aquery(query(modes.SPARSE, query_str="trains", sparse_top_k=2))
    assert set(sparse.ids or ()) < {"n02", "n06", "n10"}
    for mode in (modes.HYBRID, modes.SEMANTIC_HYBRID):
        both = query(mode, query_str="trains", alpha=0.3, hybrid_top_k=6, sparse_top_k=3)
        assert {"n02", "n06", "n10", "n00"} <= set((await store.aquery(both)).ids or ())
        assert len(store.query(both).ids or ()) == 6
    alike = await store.aquery(query(modes.MMR, mmr_threshold=1.0))
    assert alike.ids == by_similarity(4)
    apart = await store.aquery(query(modes.MMR, mmr_threshold=0.0))
    assert (apart.ids or [""])[0] == "n00"
    assert apart.ids != alike.ids
    with pytest.raises(InvalidInputError, match="svm"):
        await store.aquery(query(modes.SVM))

    some = await store.aquery(query(doc_ids=["doc1"], similarity_top_k=9))
    assert sorted(some.ids or ()) == ["n01", "n04", "n07", "n10"]
    named = await store.aquery(query(node_ids=["n03", "n04", "x"], doc_ids=["doc1"]))
    assert named.ids == ["n04"]


async def test_each_mode_goes_by_filters_and_weights(store: QortexVectorStore) -> None:
    modes = VectorStoreQueryMode
    fruit = MetadataFilters(filters=[MetadataFilter(key="kind", value="fruit")])
    for mode in (modes.DEFAULT, modes.MMR, modes.HYBRID, modes.SEMANTIC_HYBRID, modes.SPARSE):
        asked = query(mode, query_str="grow trains", filters=fruit, similarity_top_k=12)
        found = await store.aquery(asked)
        assert sorted(found.ids or ()) == ["n00", "n01", "n04", "n05", "n08", "n09"], mode
    words = {"n02", "n06", "n10"}
    for alpha, expected in ((1.0, set(by_similarity(3))), (0.0, words)):
        both = query(modes.HYBRID, query_str="trains", alpha=alpha, similarity_top_k=3)
        assert set((await store.aquery(both)).ids or ()) == expected
    few = query(modes.HYBRID, query_str="trains", alpha=0.0, hybrid_top_k=12, sparse_top_k=1)
    assert len(words & set((await store.aquery(few)).ids or ()) - set(by_similarity(4))) <= 1
    every = await store.aquery(query(similarity_top_k=12), exact=True)
    assert every.ids == by_similarity(12)
    assert (await store.aquery(query(), offset=4, exact=True)).ids == by_similarity(8)[4:]  # ours


OPERATORS: list[tuple[FilterOperator, str, Any]] = [
    *((operator, "price", 2) for operator in (">", "<", "==", "!=", ">=", "<=")),  # type: ignore[misc]
    *((operator, "kind", "fruit") for operator in ("==", "!=")),  # type: ignore[misc]
    (FilterOperator.IN, "kind", ["fruit", "x"]),
    (FilterOperator.NIN, "kind", ["fruit", "x"]),
    (FilterOperator.IN, "price", [2, 30_000]),
    (FilterOperator.NIN, "price", [2]),
    (FilterOperator.ANY, "tags", ["a", "z"]),
    (FilterOperator.ALL, "tags", ["a", "b"]),
    (FilterOperator.CONTAINS, "tags", "b"),
    (FilterOperator.IS_EMPTY, "tags", None),
    (FilterOperator.IS_EMPTY, "note", None),
    (FilterOperator.TEXT_MATCH, "kind", "uit"),
    (FilterOperator.TEXT_MATCH, "note", "100%"),
    (FilterOperator.TEXT_MATCH, "note", "Red 1_0"),
    (FilterOperator.TEXT_MATCH_INSENSITIVE, "note", "rED"),
    (FilterOperator.EQ, "a.b", "dotted"),
    (FilterOperator.NE, "missing", 1),
]


def test_filters_match_what_llama_index_says(dsn: str) -> None:
    with_all = QortexVectorStore(database=dsn)
    with_all.add(nodes())
    kept = {node.node_id: node.metadata for node in nodes()}
    single = [MetadataFilter(key=k, operator=o, value=v) for o, k, v in OPERATORS]
    filters = [MetadataFilters(filters=[each]) for each in single]
    for one, other in itertools.combinations(single[::3], 2):
        filters += [
            MetadataFilters(filters=[one, other], condition=condition)
            for condition in FilterCondition
        ]
    for each in filters:
        matches = build_metadata_filter_fn(kept.__getitem__, each)
        expected = sorted(id_ for id_ in kept if matches(id_))
        got = sorted(node.node_id for node in with_all.get_nodes(filters=each))
        assert got == expected, each
    inner = MetadataFilters(filters=single[:2], condition=FilterCondition.OR)
    nested = MetadataFilters(filters=[inner, single[6]], condition=FilterCondition.NOT)
    price = {i for i, each in kept.items() if each.get("price", 2) != 2}
    fruit = {i for i, each in kept.items() if each["kind"] == "fruit"}
    got = {node.node_id for node in with_all.get_nodes(filters=nested)}
    assert got == set(kept) - price - fruit
    with pytest.raises(InvalidInputError, match="takes a string"):
        with_all.get_nodes(
            filters=MetadataFilters(
                filters=[MetadataFilter(key="kind", operator=FilterOperator.TEXT_MATCH, value=1)]
            )
        )
    with_all.close()


async def test_nodes_come_back_as_they_were(store: QortexVectorStore) -> None:
    odd: list[BaseNode] = [
        TextNode(
            id_="odd",
            text="ünï \n text",
            metadata={"deep": {"list": [1, None]}, "n": 1},
            excluded_embed_metadata_keys=["n"],
            start_char_idx=3,
            metadata_separator="|",
        ),
        IndexNode(id_="index", text="i", index_id="other"),
        ImageNode(id_="image", text="", image_url="http://localhost/x.png"),
    ]
    for node in odd:
        node.embedding = [1.0] * 8
    await store.async_add(odd)
    found = {node.node_id: node for node in await store.aget_nodes(["odd", "index", "image"])}
    for node in odd:
        node.embedding = None
        assert found[node.node_id] == node
        assert type(found[node.node_id]) is type(node)
    assert [node.node_id for node in store.get_nodes(["n01"])] == ["n01"]

    await store.adelete("doc0")
    assert {node.ref_doc_id for node in await store.aget_nodes()} == {"doc1", "doc2", None}
    store.delete("doc1")
    fruit = MetadataFilters(filters=[MetadataFilter(key="kind", value="fruit")])
    await store.adelete_nodes(["n05", "n11"], fruit)
    store.delete_nodes(["odd", "index", "image"])
    await store.adelete_nodes()
    assert [node.node_id for node in await store.aget_nodes()] == ["n02", "n08", "n11"]
    await store.aclear()
    assert store.get_nodes() == []
    with pytest.raises(InvalidInputError, match="no option"):
        await store.async_add([], batch=3)


class Base(DeclarativeBase):
    pass


class Missing(Base):
    __tablename__ = "missing_nodes"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    emb: Mapped[Any] = mapped_column(Embedding(8), nullable=True)
    meta: Mapped[Any] = mapped_column(JSONB, server_default="{}")


async def test_a_query_is_one_statement_and_a_missing_table_says_what_makes_it(dsn: str) -> None:
    engine = create_async_engine(asyncpg_url(dsn))
    try:
        store = QortexVectorStore(database=Database.from_engine(engine))
        await store.async_add(nodes())
        sent: list[str] = []
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *c: sent.append(c[2]))
        modes = VectorStoreQueryMode
        works: list[Callable[[], Awaitable[object]]] = [
            lambda: store.aquery(query()),
            lambda: store.aquery(query(modes.MMR)),
            lambda: store.aquery(query(modes.HYBRID, query_str="trains")),
            lambda: store.aquery(query(modes.TEXT_SEARCH, query_str="trains")),
            lambda: store.async_add(nodes()),
            lambda: store.aget_nodes(["n01"]),
        ]
        for work in works:
            await work()  # what is known of the table is looked up once
            sent.clear()
            await work()
            assert len(sent) == 1, sent
        mapping = Collection(
            VectorSpec(8, column="emb"), payload="meta", document=None, updated_at=None
        )
        missing = QortexVectorStore(
            database=Database.from_engine(engine), collection=Missing, mapping=mapping
        )
        with pytest.raises(SchemaVersionError, match="collections new missing_nodes"):
            await missing.aget_nodes()
    finally:
        await engine.dispose()


async def test_an_index_of_llama_index_works_on_it(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        store = QortexVectorStore(database=db)
        index = VectorStoreIndex(
            nodes=[TextNode(id_=f"t{i}", text=text) for i, text in enumerate(TEXTS)],
            storage_context=StorageContext.from_defaults(vector_store=store),
            embed_model=MockEmbedding(8),
        )
        found = await index.as_retriever(similarity_top_k=2).aretrieve("trains")
        assert len(found) == 2
        assert len(await asyncio.to_thread(index.as_retriever().retrieve, "trains")) == 2
        await store.aclose()
