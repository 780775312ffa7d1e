"""Filling a contender's table: by COPY, with its indexes built afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from works.base import payload

from qortex_db import types

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg
    from peers import Peer

_INDEXES = """
SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition,
    a.amname = 'hnsw' AS is_vector
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = $1::text::regclass AND NOT i.indisunique
"""


async def load(
    connection: asyncpg.Connection, peer: Peer, vectors: Path, *, index: bool, rows: int | None
) -> None:
    """Empty a contender's table and fill it, alike for everybody.

    Args:
        index: Whether there is a vector index on it afterwards.
        rows: How many of the vectors; all by default.
    """
    table, column = peer.table or "qortex_vectors", peer.column
    found = await connection.fetch(_INDEXES, table)
    for each in found:
        await connection.execute(f"DROP INDEX {each['name']}")
    await connection.execute(f"TRUNCATE {table}")
    await _copy(connection, peer, table, np.load(vectors, mmap_mode="r")[:rows])
    await connection.execute("SET maintenance_work_mem = '1GB'")
    for each in found:
        if not each["is_vector"]:
            await connection.execute(each["definition"])
    if index:
        await connection.execute(
            f"CREATE INDEX bench_hnsw ON {table} USING hnsw ({column} vector_cosine_ops)"
        )
    await connection.execute(f"VACUUM ANALYZE {table}")
    await connection.execute("CHECKPOINT")


async def _copy(connection: asyncpg.Connection, peer: Peer, table: str, vectors: Any) -> None:
    await connection.set_type_codec(
        "vector", schema="public", encoder=bytes, decoder=bytes, format="binary"
    )
    schema, _, name = table.rpartition(".")
    columns, langchain = ["id", peer.column], peer.name == "langchain"
    has_payload = not peer.table
    columns += ["content"] if langchain else ["payload"] if has_payload else []
    for start in range(0, len(vectors), 5_000):
        encoded = types.encode_many(np.array(vectors[start : start + 5_000]))
        records = []
        for number, row in enumerate(encoded, start):
            rest = ("",) if langchain else (json.dumps(payload(number)),) if has_payload else ()
            records.append((f"doc:{number:08}", row, *rest))
        await connection.copy_records_to_table(
            name, schema_name=schema or None, columns=columns, records=records
        )
