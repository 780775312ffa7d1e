"""Draw the dashboard of examples/observability over a service under load.

It takes Prometheus on the PATH, and matplotlib (extra `bench`). The service is a real one, on an
embedded server; Prometheus reads it each second and answers the dashboard's own queries; only the
drawing, docs/operations/observability.svg, is not Grafana's.

    python docs/generate_dashboard_picture.py
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from qortex_db import Database, Settings, migrations
from qortex_db.testing import throwaway
from qortex_db.testing.factories import embedding

ROOT = Path(__file__).parents[1]
SECONDS = 90
SERVICE, PROMETHEUS = 9464, 9097
COLOURS = ("#2a6fdb", "#d9822b", "#2e9e5b", "#b8405e", "#7a5bc7", "#3c9aa8", "#8a7a3a", "#777777")


async def serve(dsn: str) -> None:
    """A service whose load grows for a while, and whose pool is small."""
    settings = Settings(dsn=dsn, pool_max_size=4, metrics_seconds=2.0, slow_call_seconds=0.05)
    settings = settings.model_copy(update={"prometheus_enabled": True, "prometheus_port": SERVICE})
    async with Database.connect(settings) as db:
        rows = ({"id": str(i), "embedding": embedding(i, 384)} for i in range(4_000))
        await db.vectors.ingest(rows, batch_size=500)
        ends = time.monotonic() + SECONDS
        callers = [asyncio.create_task(_call(db, number, ends)) for number in range(12)]
        await asyncio.gather(*callers)
        await db.vectors.recall_probe(sample=20)
        await asyncio.sleep(4)


async def _call(db: Database, number: int, ends: float) -> None:
    chance = random.Random(number)  # noqa: S311 - no secret
    await asyncio.sleep(number * SECONDS / 24)
    while time.monotonic() < ends:
        key = chance.randrange(4_000)
        hits = await db.vectors.search(embedding(key, 384), limit=10)
        chosen = await db.arms.select("prompts", ["v1", "v2", "v3"])
        reward = float(chance.random() < {"v1": 0.3, "v2": 0.6, "v3": 0.5}[chosen.selected[0]])
        await db.arms.observe("prompts", chosen.selected[0], reward=reward)
        await db.factors.adjust({hits[0].id: chance.choice(("accepted", "accepted", "rejected"))})
        pair = hits[0].id, hits[1].id
        await db.edges.record_many([(*pair, 0.9)] * chance.randrange(1, 4))
        if not chance.randrange(20):
            await db.edges.promote()
        if not chance.randrange(5):
            await db.embeddings.embed(
                [f"query {chance.randrange(200)}"], model=_model, name="all-MiniLM-L6-v2"
            )
        await db.vectors.upsert([{"id": f"n{key}", "embedding": embedding(key + 1, 384)}])
        await asyncio.sleep(chance.random() / 20)


def _model(texts: list[str]) -> list[list[float]]:
    return [[*map(float, embedding(len(text), 384))] for text in texts]


def asked(query: str, began: float) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """What Prometheus answers to a query of the dashboard's, from then until now."""
    query = query.replace("$__rate_interval", "10s")
    options = {"query": query, "start": began, "end": time.time(), "step": 1}
    url = f"http://127.0.0.1:{PROMETHEUS}/api/v1/query_range?{urllib.parse.urlencode(options)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return [
        (one["metric"], [(at - began, float(value)) for at, value in one["values"]])
        for one in found
    ]


def draw(panels: list[Any], answers: list[Any]) -> None:
    """All panels as the dashboard has them, two in a row."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from matplotlib import pyplot as plt  # noqa: PLC0415 - an extra
    from pictures import save  # noqa: PLC0415 - an extra, and of the benchmarks

    rows = (len(panels) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(10, 2.1 * rows))
    for axis, panel, series in zip(axes.flat, panels, answers, strict=False):
        axis.set_title(panel["title"], fontsize=9, fontweight="normal")
        for number, (name, points) in enumerate(series[: len(COLOURS)]):
            axis.plot(*zip(*points, strict=True), color=COLOURS[number], label=name, linewidth=1.2)
        axis.set_ylim(0, axis.get_ylim()[1] * (1 + 0.12 * ((len(series) + 1) // 2)))  # for names
        axis.set_xlim(0, SECONDS + 10)
        axis.grid(linewidth=0.5)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        if series:
            axis.legend(fontsize=6, ncols=2, loc="upper left")
    figure.tight_layout()
    save(figure, ROOT / "docs" / "operations" / "observability.svg")


def _named(legend: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend


def main() -> None:
    """Run the service and Prometheus, ask what the dashboard asks, and draw it."""
    panels = json.loads((ROOT / "examples/observability/dashboard.json").read_text())["panels"]
    with tempfile.TemporaryDirectory() as folder, throwaway() as server, server.database() as dsn:
        asyncio.run(migrations.upgrade(Settings(dsn=dsn, dimensions=384)))
        config = Path(folder) / "prometheus.yaml"
        config.write_text(
            "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: qortex-db, static_configs: "
            f"[{{targets: ['127.0.0.1:{SERVICE}']}}]}}]\n"
        )
        began = time.time()
        reading = subprocess.Popen(  # noqa: S603 - our own
            [  # noqa: S607 - where it is installed
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
                "--log.level=warn",
            ]
        )
        try:
            subprocess.run([sys.executable, __file__, dsn], check=True, timeout=300)  # noqa: S603
            answers = [
                [
                    (_named(target["legendFormat"], labels), points)
                    for target in panel["targets"]
                    for labels, points in asked(target["expr"], began)
                ]
                for panel in panels
            ]
        finally:
            reading.terminate()
            reading.wait(30)
    draw(panels, answers)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(serve(sys.argv[1]))
    else:
        main()
