"""qortex's own metrics beside ours, in one process: prints what Prometheus reads there."""

from __future__ import annotations

import asyncio
import urllib.request

from qortex.service import QortexService
from qortex_service import hand_over, hand_over_learner

from qortex_db import Database, PgVectorIndex, Settings


async def main() -> None:
    settings = Settings(metrics_seconds=0.2)
    async with Database.connect(settings) as db:
        hand_over(db)
        hand_over_learner()
        service = await QortexService.async_from_env()
        service.interoception.report_outcome("q", {"node": "accepted"})
        await service.learning_select("prompts", [{"id": "v1"}, {"id": "v2"}])
        await service.learning_observe("prompts", "v1", "accepted")
        index = PgVectorIndex(pool=db, dimensions=8)
        await index.add(["b", "c"], [[1.0] * 8, [1.0, -1.0] * 4])
        await index.search([1.0] * 8)
        await db.factors.save({"a": 2.0})
        await db.vectors.upsert([{"id": "a", "embedding": [1.0] * 8}])
        await db.vectors.search([1.0] * 8)
        await asyncio.sleep(0.5)
        url = f"http://127.0.0.1:{settings.prometheus_port}/metrics"
        answer = await asyncio.to_thread(urllib.request.urlopen, url)
        print(answer.read().decode())  # noqa: T201 - what it is for
        await service.interoception.shutdown()


asyncio.run(main())
