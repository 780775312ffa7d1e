"""asyncpg by hand, as fast as it goes: no reset of connections, a binary codec, the best SQL."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_HEADER = struct.Struct(">HH")
TOP = """
SELECT id, 1 - (vec <=> $1) AS score, payload, document FROM qortex_vectors
ORDER BY vec <=> $1 LIMIT 10"""
# The planner's own choice; the vector index, read on until enough match; and the payload's index,
# with every match compared.
FILTERED = TOP.replace("ORDER", "WHERE payload @> $2 ORDER", 1)
ITERATIVE = TOP.replace("ORDER", "WHERE (payload @> $2) IS TRUE ORDER", 1)
MATCHES = """
WITH matches AS MATERIALIZED (
    SELECT id, vec <=> $1 AS distance, payload, document FROM qortex_vectors WHERE payload @> $2
) SELECT id, 1 - distance AS score, payload, document FROM matches ORDER BY distance LIMIT 10"""
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


def _hit(row: asyncpg.Record) -> Any:
    return (row["id"], row["score"], json.loads(row["payload"]), row["document"])


def _ids(rows: list[asyncpg.Record]) -> list[str]:
    """As much read of each row as ours returns."""
    return [_hit(row)[0] for row in rows]


class Contender:
    reset: Any = staticmethod(keep)

    async def open(self, dsn: str) -> None:
        options = {} if self.reset is None else {"reset": self.reset}
        self.dsn, self.tuned = dsn, {}
        self.pool = await asyncpg.create_pool(
            dsn, min_size=2, max_size=10, init=register, **options
        )

    async def close(self) -> None:
        for pool in (self.pool, *self.tuned.values()):
            await pool.close()

    async def search(self, query: Any) -> list[str]:
        async with self.pool.acquire() as connection:
            return _ids(await connection.fetch(TOP, query))

    async def search_tuned(self, query: Any, ef: int) -> list[str]:
        """A session's own setting, made once for each connection."""
        async with (await self._tuned(str(ef))).acquire() as connection:
            return _ids(await connection.fetch(TOP, query))

    async def search_filtered(self, query: Any, where: dict[str, int]) -> list[str]:
        async with self.pool.acquire() as connection:
            return _ids(await connection.fetch(FILTERED, query, json.dumps(where)))

    async def search_iterative(self, query: Any, where: dict[str, int]) -> list[str]:
        async with (await self._tuned("40")).acquire() as connection:
            return _ids(await connection.fetch(ITERATIVE, query, json.dumps(where)))

    async def search_matches(self, query: Any, where: dict[str, int]) -> list[str]:
        async with self.pool.acquire() as connection:
            return _ids(await connection.fetch(MATCHES, query, json.dumps(where)))

    async def _tuned(self, ef: str) -> asyncpg.Pool:
        if ef not in self.tuned:
            settings = {"hnsw.ef_search": ef, "hnsw.iterative_scan": "strict_order"}
            self.tuned[ef] = await asyncpg.create_pool(
                self.dsn,
                min_size=1,
                max_size=1,
                init=register,
                reset=keep,
                server_settings=settings,
            )
        return self.tuned[ef]

    async def loop(self, queries: list[Any]) -> Any:
        return [await self.search(query) for query in queries]

    async def gather(self, queries: list[Any]) -> Any:
        return await asyncio.gather(*map(self.search, queries))

    async def union(self, queries: list[Any]) -> Any:
        """One statement of as many searches."""
        parts = (
            f"(SELECT {i} AS place, id, 1 - (vec <=> ${i}) AS score, payload, document "
            f"FROM qortex_vectors ORDER BY vec <=> ${i} LIMIT 10)"
            for i in range(1, len(queries) + 1)
        )
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(" UNION ALL ".join(parts), *queries)
        found: list[list[Any]] = [[] for _ in queries]
        for row in rows:
            found[row["place"] - 1].append(_hit(row))
        return found

    async def search_unit(self, query: Any) -> list[str]:
        """BEGIN, a search, COMMIT."""
        async with self.pool.acquire() as connection, connection.transaction():
            return _ids(await connection.fetch(TOP, query))

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[Any]:
        async with self.pool.acquire() as connection, connection.transaction():

            async def search(query: Any) -> list[str]:
                return _ids(await connection.fetch(TOP, query))

            yield search

    async def count(self) -> int:
        async with self.pool.acquire() as connection:
            return await connection.fetchval("SELECT count(*) FROM qortex_vectors")

    async def get(self, key: str) -> Any:
        async with self.pool.acquire() as connection:
            row = await connection.fetchrow(
                "SELECT id, vec, payload, document FROM qortex_vectors WHERE id = $1", key
            )
        return (row["id"], row["vec"], json.loads(row["payload"]), row["document"])

    async def get_many(self, keys: list[str]) -> Any:
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id, vec, payload, document FROM qortex_vectors WHERE id = ANY($1::text[])",
                keys,
            )
        return {
            row["id"]: (row["vec"], json.loads(row["payload"]), row["document"]) for row in rows
        }

    async def write_one(self, key: str, row: Any) -> None:
        async with self.pool.acquire() as connection:
            await connection.execute(
                "INSERT INTO qortex_vectors (id, vec) VALUES ($1, $2)" + GUARD, key, row
            )

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

    async def stream_batches(self, _: int) -> int:
        count = 0
        async for rows in self._pages("id, vector_send(vec)"):
            ids = [row[0] for row in rows]
            sent = np.frombuffer(b"".join([row[1] for row in rows]), ">f4")
            count += len(sent.reshape(len(ids), -1)[:, 1:].astype(np.float32))
        return count

    async def stream(self, _: int) -> int:
        count = 0
        async for rows in self._pages("id, vec, payload, document"):
            for row in rows:
                _ = (row["id"], row["vec"], json.loads(row["payload"]), row["document"])
            count += len(rows)
        return count

    async def _pages(self, columns: str) -> AsyncIterator[list[asyncpg.Record]]:
        after = ""
        while True:
            async with self.pool.acquire() as connection:
                rows = await connection.fetch(
                    f"SELECT {columns} FROM qortex_vectors WHERE id > $1 ORDER BY id LIMIT 500",
                    after,
                )
            if not rows:
                return
            yield rows
            after = rows[-1]["id"]

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

    async def states(self, learner: str) -> Any:
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT arm_id, alpha, beta, pulls, total_reward, last_updated "
                "FROM learning_arm_states WHERE learner_name = $1 AND context_hash = 'default'",
                learner,
            )
        return {row[0]: (*row[1:5], row[5].isoformat()) for row in rows}

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
