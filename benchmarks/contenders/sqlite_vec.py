"""sqlite-vec: compares every row; one file, kept when a call returns."""

from __future__ import annotations

from typing import Any

import apsw
import numpy as np
import sqlite_vec

KEYS = ("group", "percent", "tenth", "half")


def _column(key: str) -> str:
    """It takes no quoted names, and "group" is SQL's."""
    return f"of_{key}"


class Contender:
    async def open(self, place: str) -> None:
        self.db = apsw.Connection(f"{place}/items.db")
        self.db.enable_load_extension(True)  # noqa: FBT003 - apsw's form
        self.db.load_extension(sqlite_vec.loadable_path())
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")  # each commit is on the disk

    async def close(self) -> None:
        self.db.close()

    async def fill(self, ids: list[str], rows: Any, payloads: list[dict[str, int]]) -> None:
        columns = ", ".join(f"{_column(key)} integer" for key in KEYS)
        self.db.execute(
            "CREATE VIRTUAL TABLE items USING vec0(id text primary key, "
            f"embedding float[{rows.shape[1]}] distance_metric=cosine, {columns})"
        )
        names = ", ".join(map(_column, KEYS))
        with self.db:
            self.db.executemany(
                f"INSERT INTO items (id, embedding, {names}) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (key, row.tobytes(), *(payload[name] for name in KEYS))
                    for key, row, payload in zip(ids, rows, payloads, strict=True)
                ),
            )

    async def search(self, query: Any) -> list[str]:
        return self._found("", query)

    async def search_filtered(self, query: Any, where: dict[str, int]) -> list[str]:
        ((key, value),) = where.items()
        return self._found(f"AND {_column(key)} = ?", query, value)

    def _found(self, condition: str, query: Any, *values: Any) -> list[str]:
        names = ", ".join(map(_column, KEYS))
        rows = self.db.execute(
            f"SELECT id, distance, {names} FROM items "
            f"WHERE embedding MATCH ? AND k = 10 {condition}",
            (query.tobytes(), *values),
        )
        return [(row[0], dict(zip(KEYS, row[2:], strict=True)))[0] for row in rows]

    async def get(self, key: str) -> Any:
        names = ", ".join(map(_column, KEYS))
        ((vector, *values),) = self.db.execute(
            f"SELECT embedding, {names} FROM items WHERE id = ?", (key,)
        )
        return np.frombuffer(vector, np.float32), dict(zip(KEYS, values, strict=True))

    async def write_one(self, key: str, row: Any) -> None:
        self.db.execute("UPDATE items SET embedding = ? WHERE id = ?", (row.tobytes(), key))

    async def count(self) -> int:
        ((count,),) = self.db.execute("SELECT count(*) FROM items")
        return count
