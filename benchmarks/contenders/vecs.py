"""vecs: synchronous, over psycopg2."""

from __future__ import annotations

import warnings
from typing import Any

import vecs as library


class Contender:
    async def open(self, dsn: str) -> None:
        warnings.simplefilter("ignore")
        self.client = library.create_client(
            dsn.replace("postgresql://", "postgresql+psycopg2://", 1)
        )
        self.items = self.client.get_or_create_collection(name="items", dimension=384)

    async def close(self) -> None:
        self.client.disconnect()

    async def search(self, query: Any) -> list[str]:
        return self.items.query(query, limit=10)

    async def search_tuned(self, query: Any, ef: int) -> list[str]:
        return self.items.query(query, limit=10, ef_search=ef)

    async def upsert(self, ids: list[str], rows: Any) -> None:
        self.items.upsert([(key, row, {}) for key, row in zip(ids, rows, strict=True)])
