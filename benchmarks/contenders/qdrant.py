"""qdrant-client's local mode: a Python double of the server for tests, which compares every row."""

from __future__ import annotations

import warnings
from typing import Any

from qdrant_client import QdrantClient, models


class Contender:
    async def open(self, _: str) -> None:
        warnings.simplefilter("ignore")  # it is not for as many points
        self.client = QdrantClient(":memory:")  # on files it commits each point by itself

    async def close(self) -> None:
        self.client.close()

    async def fill(self, ids: list[str], rows: Any, payloads: list[dict[str, int]]) -> None:
        self.client.create_collection(
            "items",
            vectors_config=models.VectorParams(size=rows.shape[1], distance=models.Distance.COSINE),
        )
        self.client.upload_collection(
            "items",
            vectors=rows,
            payload=[{"id": key, **payload} for key, payload in zip(ids, payloads, strict=True)],
            ids=range(len(ids)),
        )

    async def search(self, query: Any) -> list[str]:
        return self._found(query, None)

    async def search_filtered(self, query: Any, where: dict[str, int]) -> list[str]:
        conditions = [
            models.FieldCondition(key=key, match=models.MatchValue(value=value))
            for key, value in where.items()
        ]
        return self._found(query, models.Filter(must=conditions))

    def _found(self, query: Any, chosen: models.Filter | None) -> list[str]:
        found = self.client.query_points(
            "items", query=query.tolist(), limit=10, query_filter=chosen, with_payload=True
        )
        return [point.payload["id"] for point in found.points]

    async def get(self, key: str) -> Any:
        number = int(key.removeprefix("doc:"))
        return self.client.retrieve("items", [number], with_vectors=True)[0].vector

    async def write_one(self, key: str, row: Any) -> None:
        number = int(key.removeprefix("doc:"))
        self.client.update_vectors("items", [models.PointVectors(id=number, vector=row.tolist())])

    async def count(self) -> int:
        return self.client.count("items").count
