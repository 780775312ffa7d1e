"""A service that uses everything once, and prints what it serves to Prometheus."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from contextlib import suppress
from types import ModuleType
from typing import Any

import structlog
from opentelemetry import metrics

from qortex_db import Database, SerializationConflictError, Settings, UnitOfWork

VECTOR = [1.0] + [0.0] * 7


async def _meet_another(_: UnitOfWork) -> None:
    raise SerializationConflictError("another was first")


async def use(db: Database) -> None:
    await db.vectors.upsert([{"id": "a", "embedding": VECTOR}, {"id": "b", "embedding": VECTOR}])
    await db.vectors.search(VECTOR)
    await db.arms.observe_many("prompts", [("v1", 1.0), ("v2", 0.0)])
    await db.arms.select("prompts", ["v1", "v2"])
    await db.factors.save({"a": 0.5, "b": 1.5})
    await db.edges.record_many([("a", "b", 0.9)])
    await db.edges.record_many([("b", "c", 0.9)] * 3)
    await db.edges.promote()
    await db.vectors.recall_probe(sample=1)
    await db.embeddings.embed(["a"], model=lambda _: [VECTOR], name="m")
    async with db.unit_of_work() as uow:  # the pool has two
        await uow.factors.load()
        await asyncio.gather(*(db.factors.load() for _ in range(5)))
    with suppress(ValueError):
        await db.vectors.search([0.0] * 8)
    with suppress(SerializationConflictError):
        await db.run(_meet_another, max_attempts=2)
    await asyncio.sleep(0.6)  # so that the gauges are read after it


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


async def main(dsn: str, port: int, host: str) -> None:
    found: dict[str, Any] = {}
    if host == "has a provider":
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415

        metrics.set_meter_provider(MeterProvider())
    elif host == "is qortex":
        sys.modules["qortex.observe.emitter"] = ModuleType("qortex.observe.emitter")
    settings = Settings(dsn=dsn, pool_min_size=1, pool_max_size=2, metrics_seconds=0.2)
    settings = settings.model_copy(
        update={"prometheus_enabled": True, "prometheus_port": port, "slow_call_seconds": 0.0}
    )
    with structlog.testing.capture_logs() as told:
        async with Database.connect(settings) as db:
            await use(db)
            try:
                found["scrape"] = await asyncio.to_thread(scraped, port)
            except OSError:
                found["scrape"] = None
        async with Database.connect(settings):  # a second one of the process
            pass
    found["events"] = [each["event"] for each in told if each["event"] != "slow_call"]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
