"""Chroma in the caller's process, on files."""

from __future__ import annotations

from typing import Any

import chromadb
from chromadb.config import Settings


class Contender:
    async def open(self, place: str) -> None:
        self.client = chromadb.PersistentClient(place, Settings(anonymized_telemetry=False))
        self.items = self.client.create_collection(
            "items",
            configuration={
                "hnsw": {
                    "space": "cosine",
                    "max_neighbors": 16,
                    "ef_construction": 64,
                    "ef_search": 40,
                }
            },
            embedding_function=None,
        )

    async def close(self) -> None:
        pass

    async def fill(self, ids: list[str], rows: Any, payloads: list[dict[str, int]]) -> None:
        most = self.client.get_max_batch_size()
        for start in range(0, len(ids), most):
            part = slice(start, start + most)
            self.items.add(ids=ids[part], embeddings=rows[part], metadatas=payloads[part])

    async def search(self, query: Any) -> list[str]:
        return self._ids(query)

    async def search_tuned(self, query: Any, ef: int) -> list[str]:
        if ef != getattr(self, "ef", 40):
            self.items.modify(configuration={"hnsw": {"ef_search": ef}})
            self.ef = ef
        return self._ids(query)

    async def search_filtered(self, query: Any, where: dict[str, int]) -> list[str]:
        return self._ids(query, where=where)

    def _ids(self, query: Any, **options: Any) -> list[str]:
        found = self.items.query(
            query_embeddings=[query], n_results=10, include=["metadatas", "distances"], **options
        )
        return found["ids"][0]

    async def get(self, key: str) -> Any:
        return self.items.get([key], include=["embeddings", "metadatas"])["embeddings"][0]

    async def write_one(self, key: str, row: Any) -> None:
        self.items.update(ids=[key], embeddings=[row])

    async def count(self) -> int:
        return self.items.count()
