"""qortex 0.8.1 at work on this package's stores: retrieval, feedback and learning in one process.

    pip install qortex==0.8.1 "qortex-db[embedded]"
    python examples/qortex_service.py

It starts a server of its own in .qortex/example, or works in the migrated database that
PGVECTOR_DSN names. It prints how many observations of qortex's own learner are still there after
sixteen tasks observed one arm at once, the same for `qortex_db.Learner`, and what a second service
finds after the first.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import qortex.core.pool
import qortex.hippocampus.pg_store
import qortex.learning
import qortex.learning.pg_store
import qortex.vec.pgvector
from qortex.core.memory import InMemoryBackend
from qortex.hippocampus.interoception import AsyncLocalInteroceptionProvider, InteroceptionConfig
from qortex.learning import LearnerConfig
from qortex.service import QortexService

import qortex_db
from qortex_db import Database, Settings, embedded, migrations

TASKS, ROUNDS = 16, 10
TOPICS = {
    "pool": "keep a pool of open database connections and reuse connections of the pool",
    "pooling": "a pool of open database connections that requests reuse from the pool",
    "index": "an index makes a search over many rows of a table fast",
    "backup": "copy the files of a server every night and try to restore them",
}
QUESTION = "reuse open database connections of a pool"


class Words:
    """Words as an embedding: enough for an example. qortex's own model is a download."""

    dimensions = 384

    def embed(self, texts: list[str]) -> list[list[float]]:
        """A row for each text, in which each word counts at its own place."""
        rows = [[0.0] * self.dimensions for _ in texts]
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[crc32(word.encode()) % self.dimensions] += 1.0
        return rows


# start: hand over
def hand_over(db: Database) -> None:
    """Have qortex make our stores wherever it makes its own: it looks these names up late."""

    async def shared_pool(_dsn: str, **_options: object) -> Database:
        return db

    qortex.core.pool.get_shared_pool = shared_pool  # for QortexService.async_from_env
    qortex.vec.pgvector.PgVectorIndex = qortex_db.PgVectorIndex
    qortex.hippocampus.pg_store.PostgresInteroceptionStore = qortex_db.PostgresInteroceptionStore
    qortex.learning.pg_store.PostgresLearningStore = qortex_db.PostgresLearningStore


def hand_over_learner() -> None:
    """Have qortex's service make our learner, too."""
    qortex.learning.Learner = qortex_db.Learner


@asynccontextmanager
async def service_on(db: Database) -> AsyncIterator[QortexService]:
    """The service of qortex, with a `Database` wherever it passes its pool."""
    interoception = AsyncLocalInteroceptionProvider(
        InteroceptionConfig(postgres_pool=db, teleportation_enabled=True)
    )
    await interoception.startup()  # reads all factors and edges into memory
    embedding = Words()
    yield QortexService(
        backend=InMemoryBackend(),
        vector_index=qortex.vec.pgvector.PgVectorIndex(
            dsn="", dimensions=embedding.dimensions, pool=db
        ),
        embedding_model=embedding,
        interoception=interoception,
        pg_pool=db,
    )
    # qortex starts saves that it never awaits, and one that comes late would overwrite a newer one.
    saves = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*saves)
    await interoception.shutdown()  # writes them back


# end: hand over


async def use(service: QortexService) -> None:
    """Search, and tell what was good: weights change, edges fill the buffer, and leave it."""
    await service.ingest_structured(
        [{"id": key, "name": key, "description": text} for key, text in TOPICS.items()], "topics"
    )
    for _ in range(4):
        found = await service.query(QUESTION, top_k=3)
        outcomes = {found["items"][0]["id"]: "accepted", found["items"][-1]["id"]: "rejected"}
        await service.feedback(found["query_id"], outcomes)


async def observe_at_once(service: QortexService, learner: str) -> dict[str, int]:
    """Sixteen tasks reward one arm, ten times each."""
    await service.learning_select(learner, [{"id": "prompt:v1"}, {"id": "prompt:v2"}])
    before = (await service.learning_metrics(learner))["total_pulls"]

    async def observe() -> None:
        for _ in range(ROUNDS):
            await service.learning_observe(learner, "prompt:v2", "accepted")

    await asyncio.gather(*(observe() for _ in range(TASKS)))
    after = (await service.learning_metrics(learner))["total_pulls"]
    return {"acknowledged": TASKS * ROUNDS, "counted": after - before}


async def work(db: Database) -> dict[str, Any]:
    """Two lives of a service, and what is to tell of them."""
    hand_over(db)
    report: dict[str, Any] = {}
    async with service_on(db) as service:
        await use(service)
        report["qortex's learner"] = await observe_at_once(service, "theirs")
        promoted = service.interoception.flush_buffer(service.backend)
        report["promoted"] = [[edge["source"], edge["target"]] for edge in promoted.details]
        report["factors"] = service.interoception.factors.factors

    hand_over_learner()
    async with service_on(db) as service:
        report["factors found again"] = service.interoception.factors.factors
        report["vectors found again"] = await service.vector_index.size()
        report["qortex_db.Learner"] = await observe_at_once(service, "ours")

        seeded = LearnerConfig(name="seeded", seed_arms=["prompt:v3"])  # qortex's own
        learner = await qortex_db.Learner.create(seeded, store=db)
        report["seeded"] = (await learner.posteriors())["prompt:v3"]["alpha"]
    report["edges left"] = len(await db.edges.load())
    return report


async def main() -> None:
    """On the database that is named, or on one of its own."""
    if os.environ.get("PGVECTOR_DSN"):
        async with Database.connect() as db:
            print(json.dumps(await work(db), indent=2))
        return
    server = await asyncio.to_thread(embedded.start, Path(".qortex") / "example")
    try:
        settings = Settings(dsn=server.dsn())
        await migrations.upgrade(settings)
        async with Database.connect(settings) as db:
            print(json.dumps(await work(db), indent=2))
    finally:
        server.stop()


if __name__ == "__main__":
    asyncio.run(main())
