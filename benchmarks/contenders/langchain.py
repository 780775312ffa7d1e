"""langchain-postgres, its PGVectorStore."""

from __future__ import annotations

import contextlib
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_postgres import Column, PGEngine, PGVectorStore
from langchain_postgres.v2.indexes import HNSWQueryOptions
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
        self.store = await self._store()
        self.tuned: dict[int, PGVectorStore] = {}

    async def _store(self, **options: Any) -> PGVectorStore:
        return await PGVectorStore.create(
            self.engine, NoEmbeddings(), "items", id_column="id", **options
        )

    async def close(self) -> None:
        await self.engine.close()

    async def search_tuned(self, query: Any, ef: int) -> list[str]:
        if ef not in self.tuned:
            options = HNSWQueryOptions(ef_search=ef)
            self.tuned[ef] = await self._store(index_query_options=options)
        return await self._searched(self.tuned[ef], query)

    async def search(self, query: Any) -> list[str]:
        return await self._searched(self.store, query)

    async def _searched(self, store: PGVectorStore, query: Any) -> list[str]:
        found = await store.asimilarity_search_with_score_by_vector(query.tolist(), k=10)
        return [document.id for document, _ in found]

    async def upsert(self, ids: list[str], rows: Any) -> None:
        lists = rows if isinstance(rows, list) else rows.tolist()
        await self.store.aadd_embeddings([""] * len(ids), lists, ids=ids)
