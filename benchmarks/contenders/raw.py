"""asyncpg by hand, as fast as it goes: no reset of connections, a binary codec, the best SQL."""

from __future__ import annotations

import json
import struct
from typing import Any

import asyncpg
import numpy as np

_HEADER = struct.Struct(">HH")
GUARD = """
ON CONFLICT (id) DO UPDATE SET vec = excluded.vec, updated_at = excluded.updated_at
WHERE qortex_vectors.vec IS DISTINCT FROM excluded.vec"""
OBSERVE = """
INSERT INTO learning_arm_states AS t
    (learner_name, context_hash, arm_id, alpha, beta, pulls, total_reward)
SELECT $1, 'default', id, 1 + r, 1 + (n - r), n, r
FROM unnest($2::text[], $3::int[], $4::float8[]) AS rows(id, n, r)
ON CONFLICT (learner_name, context_hash, arm_id) DO UPDATE SET
    alpha = t.alpha + excluded.total_reward,
    beta = t.beta + (excluded.pulls - excluded.total_reward),
    pulls = t.pulls + excluded.pulls, total_reward = t.total_reward + excluded.total_reward,
    last_updated = excluded.last_updated
RETURNING arm_id, alpha, beta, pulls, total_reward, last_updated"""


def encode(vector: Any) -> bytes:
    if isinstance(vector, bytes):  # an array's elements have to come encoded
        return vector
    return _HEADER.pack(len(vector), 0) + vector.astype(">f4").tobytes()


def decode(data: bytes) -> Any:
    return np.frombuffer(data, ">f4", offset=4).astype(np.float32)


async def register(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "vector", schema="public", encoder=encode, decoder=decode, format="binary"
    )


async def keep(_: asyncpg.Connection) -> None:
    """Instead of the reset that a pool does on release, a round trip."""


class Contender:
    reset: Any = staticmethod(keep)

    async def open(self, dsn: str) -> None:
        options = {} if self.reset is None else {"reset": self.reset}
        self.pool = await asyncpg.create_pool(
            dsn, min_size=2, max_size=10, init=register, **options
        )

    async def close(self) -> None:
        await self.pool.close()

    async def search(self, query: Any) -> list[str]:
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id, 1 - (vec <=> $1) AS score, payload, document FROM qortex_vectors "
                "ORDER BY vec <=> $1 LIMIT $2",
                query,
                10,
            )
        return [row["id"] for row in rows]

    async def get(self, key: str) -> Any:
        async with self.pool.acquire() as connection:
            row = await connection.fetchrow(
                "SELECT id, vec, payload, document FROM qortex_vectors WHERE id = $1", key
            )
        return row["vec"]

    async def upsert(self, ids: list[str], rows: Any) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            for start in range(0, len(ids), 1_000):
                await connection.execute(
                    "INSERT INTO qortex_vectors (id, vec) "
                    "SELECT unnest($1::text[]), unnest($2::vector[])" + GUARD,
                    ids[start : start + 1_000],
                    [encode(row) for row in rows[start : start + 1_000]],
                )

    async def copy(self, ids: list[str], rows: Any) -> None:
        async with self.pool.acquire() as connection:
            for start in range(0, len(ids), 5_000):
                async with connection.transaction():
                    await connection.execute(
                        "CREATE TEMP TABLE staging (id text, vec vector) ON COMMIT DROP"
                    )
                    batch = zip(
                        ids[start : start + 5_000], rows[start : start + 5_000], strict=True
                    )
                    await connection.copy_records_to_table(
                        "staging", records=batch, columns=["id", "vec"]
                    )
                    await connection.execute(
                        "INSERT INTO qortex_vectors (id, vec) "
                        "SELECT id, vec FROM staging ORDER BY id" + GUARD
                    )

    async def stream(self, _: int) -> int:
        count, after = 0, ""
        while True:
            async with self.pool.acquire() as connection:
                rows = await connection.fetch(
                    "SELECT id, vec, payload, document FROM qortex_vectors WHERE id > $1 "
                    "ORDER BY id LIMIT 500",
                    after,
                )
            if not rows:
                return count
            count, after = count + len(rows), rows[-1]["id"]

    async def observe(self, learner: str, arm: str, reward: float) -> None:
        async with self.pool.acquire() as connection:
            await connection.fetchrow(OBSERVE, learner, [arm], [1], [reward])

    async def observe_many(self, learner: str, pairs: list[tuple[str, float]]) -> None:
        sums: dict[str, list[float]] = {}
        for arm, reward in pairs:
            entry = sums.setdefault(arm, [0, 0.0])
            entry[0] += 1
            entry[1] += reward
        keys = sorted(sums)
        async with self.pool.acquire() as connection:
            await connection.fetch(
                OBSERVE, learner, keys, [sums[k][0] for k in keys], [sums[k][1] for k in keys]
            )

    async def pulls(self, learner: str, _: list[str]) -> int:
        async with self.pool.acquire() as connection:
            return await connection.fetchval(
                "SELECT sum(pulls) FROM learning_arm_states WHERE learner_name = $1", learner
            )

    async def select(self, learner: str, arms: list[str]) -> Any:
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT arm_id, alpha, beta FROM learning_arm_states WHERE learner_name = $1 "
                "AND context_hash = 'default' AND arm_id = ANY($2::text[])",
                learner,
                arms,
            )
        known = {row["arm_id"]: (row["alpha"], row["beta"]) for row in rows}
        states = [known.get(arm, (1.0, 1.0)) for arm in arms]
        draws = np.random.default_rng().beta([s[0] for s in states], [s[1] for s in states])
        return arms[int(np.argmax(draws))]

    async def save_factors(self, weights: dict[str, float]) -> None:
        async with self.pool.acquire() as connection:
            await connection.execute(
                "INSERT INTO interoception_factors (node_id, weight) "
                "SELECT * FROM unnest($1::text[], $2::float8[]) ON CONFLICT (node_id) "
                "DO UPDATE SET weight = excluded.weight, updated_at = excluded.updated_at",
                list(weights),
                list(weights.values()),
            )

    async def load_factors(self) -> dict[str, float]:
        async with self.pool.acquire() as connection:
            rows = await connection.fetch("SELECT node_id, weight FROM interoception_factors")
        return {row["node_id"]: row["weight"] for row in rows}

    async def save_edges(self, edges: dict[tuple[str, str], list[float]]) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "CREATE TEMP TABLE staging (src_id text, tgt_id text, hit_count int, scores jsonb) "
                "ON COMMIT DROP"
            )
            await connection.copy_records_to_table(
                "staging",
                records=[(*key, 10, json.dumps(scores)) for key, scores in edges.items()],
            )
            await connection.execute(
                "INSERT INTO interoception_edge_buffer (src_id, tgt_id, hit_count, scores) "
                "SELECT * FROM staging ON CONFLICT (src_id, tgt_id) DO UPDATE SET "
                "hit_count = excluded.hit_count, scores = excluded.scores, "
                "last_seen = excluded.last_seen"
            )

    async def load_edges(self) -> Any:
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT src_id, tgt_id, hit_count, scores, last_seen FROM interoception_edge_buffer"
            )
        return {
            (row["src_id"], row["tgt_id"]): (
                row["hit_count"],
                json.loads(row["scores"]),
                row["last_seen"].isoformat(),
            )
            for row in rows
        }
