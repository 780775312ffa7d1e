"""FAISS: an HNSW graph in memory, the limit of what runs in one process; it keeps nothing."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np


class Contender:
    async def open(self, _: str) -> None:
        faiss.omp_set_num_threads(1)  # of searches; a build may have all

    async def close(self) -> None:
        pass

    async def fill(self, ids: list[str], rows: Any, payloads: list[dict[str, int]]) -> None:
        self.ids, self.payloads = ids, payloads
        self.values = {key: np.array([payload[key] for payload in payloads]) for key in payloads[0]}
        self.index = faiss.IndexHNSWFlat(rows.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 64
        faiss.omp_set_num_threads(2)
        self.index.add(rows)
        faiss.omp_set_num_threads(1)

    async def search(self, query: Any) -> list[str]:
        return await self.search_tuned(query, 40)

    async def search_tuned(self, query: Any, ef: int) -> list[str]:
        options = faiss.SearchParametersHNSW(efSearch=ef)
        return self._ids(self.index.search(query[None], 10, params=options))

    async def search_filtered(self, query: Any, where: dict[str, int]) -> list[str]:
        ((key, value),) = where.items()
        chosen = faiss.IDSelectorBatch(np.flatnonzero(self.values[key] == value))
        options = faiss.SearchParametersHNSW(sel=chosen, efSearch=40)
        return self._ids(self.index.search(query[None], 10, params=options))

    def _ids(self, found: Any) -> list[str]:
        scores, numbers = found
        hits = [
            (self.ids[number], float(score), self.payloads[number])
            for score, number in zip(scores[0], numbers[0], strict=True)
            if number >= 0
        ]
        return [hit[0] for hit in hits]

    async def get(self, key: str) -> Any:
        number = int(key.removeprefix("doc:"))
        return self.index.reconstruct(number), self.payloads[number]
