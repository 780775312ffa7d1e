"""langchain-postgres, its PGVectorStore."""

from __future__ import annotations

import contextlib
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_postgres import Column, PGEngine, PGVectorStore
from sqlalchemy.exc import ProgrammingError


class NoEmbeddings(Embeddings):
    """The vectors are given."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


class Contender:
    async def open(self, dsn: str) -> None:
        self.engine = PGEngine.from_connection_string(
            dsn.replace("postgresql://", "postgresql+asyncpg://", 1)
        )
        with contextlib.suppress(ProgrammingError):  # made by an earlier process
            await self.engine.ainit_vectorstore_table(
                "items", 384, id_column=Column("id", "TEXT", nullable=False)
            )
        self.store = await PGVectorStore.create(
            self.engine, NoEmbeddings(), "items", id_column="id"
        )

    async def close(self) -> None:
        await self.engine.close()

    async def search(self, query: Any) -> list[str]:
        found = await self.store.asimilarity_search_with_score_by_vector(query.tolist(), k=10)
        return [document.id for document, _ in found]

    async def upsert(self, ids: list[str], rows: Any) -> None:
        lists = rows if isinstance(rows, list) else rows.tolist()
        await self.store.aadd_embeddings([""] * len(ids), lists, ids=ids)
