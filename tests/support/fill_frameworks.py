"""Fills the tables of langchain-postgres and LlamaIndex by their own packages, in their own venv.

Run by `.venv-peers/bin/python fill_frameworks.py KIND DSN COUNT`.
"""

from __future__ import annotations

import sys
from typing import Any

from framework_rows import DIMENSIONS, matrix, metadata, text

NAME = "odd notes"


def pgvector(dsn: str, count: int) -> None:
    """PGVector's two tables, with another collection beside ours."""
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_postgres import PGVector

    model = DeterministicFakeEmbedding(size=DIMENSIONS)
    url = dsn.replace("postgresql://", "postgresql+psycopg://")
    for name, sign in ((NAME, 1), ("another", -1)):
        store = PGVector(model, collection_name=name, connection=url, use_jsonb=True)
        number = count if sign == 1 else 10
        store.add_embeddings(
            [text(at) for at in range(number)],
            (sign * matrix(number)).tolist(),
            [metadata(at) for at in range(number)],
            [f"{name} {at}" for at in range(number)],
        )


def store(dsn: str, count: int) -> None:
    """PGVectorStore's table, with a metadata column of its own and an index."""
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_postgres import Column, PGEngine, PGVectorStore
    from langchain_postgres.v2.indexes import DistanceStrategy, HNSWIndex

    url = dsn.replace("postgresql://", "postgresql+psycopg://")
    engine = PGEngine.from_connection_string(url=url)
    columns = [Column("number", "INTEGER"), Column("topic", "TEXT")]
    engine.init_vectorstore_table("odd_notes", DIMENSIONS, metadata_columns=columns)
    made = PGVectorStore.create_sync(
        engine,
        DeterministicFakeEmbedding(size=DIMENSIONS),
        "odd_notes",
        metadata_columns=["number", "topic"],
        distance_strategy=DistanceStrategy.EUCLIDEAN,
    )
    from uuid import UUID

    made.add_embeddings(
        [text(at) for at in range(count)],
        matrix(count).tolist(),
        [metadata(at) for at in range(count)],
        [str(UUID(int=at)) for at in range(count)],
    )
    made.apply_vector_index(
        HNSWIndex(m=8, ef_construction=32, distance_strategy=DistanceStrategy.EUCLIDEAN)
    )


def llama_index(dsn: str, count: int) -> None:
    """LlamaIndex's PGVectorStore, hybrid, with its own index."""
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
    from llama_index.vector_stores.postgres import PGVectorStore

    made = PGVectorStore.from_params(
        connection_string=dsn.replace("postgresql://", "postgresql+psycopg2://"),
        async_connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://"),
        table_name="Odd_Notes",
        embed_dim=DIMENSIONS,
        hybrid_search=True,
        use_jsonb=True,
        hnsw_kwargs={"hnsw_m": 8, "hnsw_ef_construction": 32, "hnsw_ef_search": 40},
    )
    vectors = matrix(count)
    nodes: list[Any] = [
        TextNode(
            id_=f"node {at}",
            text=text(at),
            metadata=metadata(at),
            embedding=vectors[at].tolist(),
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"file {at // 10}")},
        )
        for at in range(count)
    ]
    made.add(nodes)


if __name__ == "__main__":
    kind, dsn, count = sys.argv[1:]
    globals()[kind](dsn, int(count))
