"""Milvus Lite: Milvus's engine in the caller's process, on a file."""

from __future__ import annotations

from typing import Any

from pymilvus import DataType, MilvusClient

KEYS = ("group", "percent", "tenth", "half")


class Contender:
    async def open(self, place: str) -> None:
        self.client = MilvusClient(f"{place}/items.db")

    async def close(self) -> None:
        self.client.close()

    async def fill(self, ids: list[str], rows: Any, payloads: list[dict[str, int]]) -> None:
        schema = self.client.create_schema(auto_id=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.shape[1])
        for key in KEYS:
            schema.add_field(key, DataType.INT64)
        indexes = self.client.prepare_index_params()
        indexes.add_index(
            "vector",
            index_type="HNSW",
            metric_type="COSINE",
            params={"M": 16, "efConstruction": 64},
        )
        self.client.create_collection("items", schema=schema, index_params=indexes)
        for start in range(0, len(ids), 5_000):
            self.client.insert(
                "items",
                [
                    {"id": ids[i], "vector": rows[i], **payloads[i]}
                    for i in range(start, min(start + 5_000, len(ids)))
                ],
            )
        self.client.flush("items")
        self.client.load_collection("items")

    async def search(self, query: Any) -> list[str]:
        return self._ids(query, 40)

    async def search_tuned(self, query: Any, ef: int) -> list[str]:
        return self._ids(query, ef)

    async def search_filtered(self, query: Any, where: dict[str, int]) -> list[str]:
        condition = " and ".join(f"{key} == {value}" for key, value in where.items())
        return self._ids(query, 40, filter=condition)

    def _ids(self, query: Any, ef: int, **options: Any) -> list[str]:
        found = self.client.search(
            "items",
            data=[query],
            limit=10,
            output_fields=list(KEYS),
            search_params={"metric_type": "COSINE", "params": {"ef": ef}},
            **options,
        )
        return [hit["id"] for hit in found[0]]

    async def get(self, key: str) -> Any:
        return self.client.get("items", [key], output_fields=["vector"])[0]["vector"]

    async def write_one(self, key: str, row: Any) -> None:
        (held,) = self.client.get("items", [key], output_fields=list(KEYS))
        values = {name: held[name] for name in KEYS}
        self.client.upsert("items", [{"id": key, "vector": row, **values}])

    async def count(self) -> int:
        return self.client.query("items", output_fields=["count(*)"])[0]["count(*)"]
