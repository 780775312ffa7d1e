"""LanceDB: columns in files, an HNSW graph over scalar-quantized vectors, an index for each key."""

from __future__ import annotations

from typing import Any

import lancedb as library
import pyarrow as pa

KEYS = ("group", "percent", "tenth", "half")


class Contender:
    async def open(self, place: str) -> None:
        self.db = library.connect(place)

    async def close(self) -> None:
        pass

    async def fill(self, ids: list[str], rows: Any, payloads: list[dict[str, int]]) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
        columns = {key: [payload[key] for payload in payloads] for key in KEYS}
        self.table = self.db.create_table(
            "items", pa.table({"id": ids, "vector": vectors, **columns})
        )
        self.table.create_index(
            metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=16, ef_construction=64
        )
        for key in ("id", *KEYS):
            self.table.create_scalar_index(key)

    async def search(self, query: Any) -> list[str]:
        return self._ids(self.table.search(query))

    async def search_tuned(self, query: Any, ef: int) -> list[str]:
        return self._ids(self.table.search(query).ef(ef))

    async def search_filtered(self, query: Any, where: dict[str, int]) -> list[str]:
        condition = " AND ".join(f"`{key}` = {value}" for key, value in where.items())
        return self._ids(self.table.search(query).where(condition, prefilter=True))

    def _ids(self, search: Any) -> list[str]:
        found = search.distance_type("cosine").select(["id", *KEYS, "_distance"]).limit(10)
        return [row["id"] for row in found.to_list()]

    async def get(self, key: str) -> Any:
        return self.table.search().where(f"id = '{key}'").limit(1).to_list()[0]["vector"]

    async def write_one(self, key: str, row: Any) -> None:
        self.table.update(where=f"id = '{key}'", values={"vector": row.tolist()})

    async def count(self) -> int:
        return self.table.count_rows()
