"""What `qortex-db plan` computes with: sizes, builds and searches of real tables.

`python benchmarks/planning.py` writes `qortex_db/planning/measured.json`, in some ten minutes, by a
server of its own. Times are what the server took of a processor, whatever else the machine did.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from data import clustered
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase

from qortex_db import HNSW, Collection, Database, Settings, VectorMixin, VectorSpec
from qortex_db.testing import throwaway

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MEASURED = Path(__file__).parents[1] / "qortex_db/planning/measured.json"
QUERIES = 50
SETTINGS = {
    "full": ("ef_search", (10, 20, 40, 80, 160, 320)),
    "half": ("ef_search", (10, 20, 40, 80, 160, 320)),
    "binary": ("oversampling", (5, 10, 20, 40, 80)),
}
GROWTH = (5_000, 20_000, 60_000)
"""Rows of 384 dimensions."""
OTHERS = [
    (5_000, 768, "full", 16), (5_000, 768, "half", 16), (5_000, 768, "binary", 16),
    (5_000, 1_536, "full", 16), (5_000, 1_536, "half", 16), (5_000, 1_536, "binary", 16),
]  # fmt: skip
PARTITIONS = [{"count": 4, "ratio": 1.76}, {"count": 16, "ratio": 3.69}]
"""Of a search of ten, by `make bench TOPIC=partitions`: 60,000 rows of 384 dimensions."""
_NO_LONGER = re.compile(r"no longer fits into maintenance_work_mem after (\d+) tuples")


class Base(DeclarativeBase):
    """Of the tables below."""


def _model(name: str, dimensions: int, storage: str, m: int) -> Any:
    spec = VectorSpec(
        dimensions, quantization=None if storage == "full" else storage, index=HNSW(m=m)
    )
    space = {"__tablename__": name, "__collection__": Collection(spec, language=None)}
    return type(name, (VectorMixin, Base), space)


def _spent(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


class Bench:
    """A database, and what was measured on it so far."""

    def __init__(self, db: Database, database_version: str) -> None:
        self.db = db
        self.found: dict[str, Any] = {
            "on": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {_processor()}, {database_version}",
            "partitions": PARTITIONS,
            "builds": [],
            "searches": [],
        }

    async def table(self, rows: int, dimensions: int, storages: tuple[str, ...], m: int) -> None:
        """The same rows under each index; exact answers first."""
        vectors = clustered(rows, dimensions=dimensions)
        queries = clustered(QUERIES, seed=5, dimensions=dimensions)
        models = {
            one: _model(f"t{rows}_{dimensions}_{one}_{m}", dimensions, one, m) for one in storages
        }
        right: list[set[str]] = []
        for storage, model in models.items():
            table = model.__table__
            (index,) = [each for each in table.indexes if each.name.endswith("_vec")]
            table.indexes.remove(index)
            async with self.db.engine.begin() as connection:
                await connection.run_sync(table.create)
            records = ({"id": f"{i:036}", "embedding": v} for i, v in enumerate(vectors))
            await self.db.collection(model).ingest(records)
            what = {"rows": rows, "dimensions": dimensions, "storage": storage, "m": m}
            if not right:
                right = await self.searched(model, what, queries, {"exact": True}, [])
            await self.build(table, index, what)
            name, values = SETTINGS[storage]
            for value in values:
                await self.searched(model, what, queries, {name: value}, right)
            async with self.db.engine.begin() as connection:
                await connection.execute(text(f"DROP TABLE {table.name}"))
            sys.stdout.write(f"{what}\n")
            MEASURED.write_text(json.dumps(self.found, indent=1) + "\n")

    async def build(self, table: Any, index: Any, what: dict[str, Any]) -> None:
        """In memory, and with a little of it: how much a row takes, and what it costs without."""
        tight = what["rows"] == GROWTH[1] and what["storage"] != "binary"
        for memory in ("24MB", "3GB") if tight else ("3GB",):
            async with self.db.engine.connect() as plain:
                connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
                driver = (await connection.get_raw_connection()).driver_connection
                notices: list[Any] = []
                driver.add_log_listener(hear := _heard(notices))
                pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar()
                await connection.execute(text(f"SET maintenance_work_mem = '{memory}'"))
                await connection.execute(text("SET max_parallel_maintenance_workers = 0"))
                await connection.execute(text("SET statement_timeout = 0"))
                await connection.execute(text(f"DROP INDEX IF EXISTS {index.name}"))
                await connection.execute(text(f"VACUUM ANALYZE {table.name}"))
                before = _spent(pid)
                await connection.run_sync(index.create)
                seconds = _spent(pid) - before
                sizes = await connection.execute(
                    text(
                        "SELECT pg_table_size(CAST(:table AS regclass)), "
                        "pg_relation_size(CAST(:index AS regclass))"
                    ),
                    {"table": table.name, "index": index.name},
                )
                driver.remove_log_listener(hear)
            fitted = [int(hit[1]) for each in notices if (hit := _NO_LONGER.search(each.message))]
            table_bytes, index_bytes = sizes.one()
            self.found["builds"].append(
                {
                    **what,
                    "core_seconds": round(seconds, 2),
                    "fitted": fitted[0] if fitted else what["rows"],
                    "memory_bytes": {"24MB": 24 << 20, "3GB": 3 << 30}[memory],
                    "table_bytes": table_bytes,
                    "index_bytes": index_bytes,
                }
            )

    async def searched(
        self,
        model: Any,
        what: dict[str, Any],
        queries: NDArray[np.float32],
        options: dict[str, Any],
        right: list[set[str]],
    ) -> list[set[str]]:
        """The answers; what a search took of the server's processor, and how many are right."""
        vectors = self.db.collection(model)
        async with self.db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            pid = driver.get_server_pid()
        for query in queries[:10]:
            await vectors.search(query, **options)
        before = _spent(pid)
        repeats = 1 if "exact" in options else 4
        for _ in range(repeats):
            found = [{hit.id for hit in await vectors.search(q, **options)} for q in queries]
        seconds = (_spent(pid) - before) / len(queries) / repeats
        ((name, value),) = options.items()
        shares = [len(a & b) / len(b) for a, b in zip(found, right or found, strict=True)]
        self.found["searches"].append(
            {
                **(what if right else {**what, "storage": "none"}),
                "setting": name,
                "value": int(value),
                "recall": round(float(np.mean(shares)), 4),
                "core_seconds": round(seconds, 6),
            }
        )
        return found


def _heard(notices: list[Any]) -> Callable[[Any, Any], None]:
    def hear(_: Any, message: Any) -> None:
        notices.append(message)

    return hear


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


async def _measure(dsn: str) -> None:
    settings = Settings(dsn=dsn, pool_min_size=1, pool_max_size=1, statement_timeout_seconds=0)
    async with Database.connect(settings) as db:
        async with db.engine.begin() as connection:
            await connection.execute(text("CREATE EXTENSION vector"))
            version = (await connection.execute(text("SHOW server_version"))).scalar()
        bench = Bench(db, f"PostgreSQL {version}")
        limit = int(sys.argv[1]) if len(sys.argv) > 1 else GROWTH[-1]
        for rows, dimensions, storage, m in OTHERS:
            await bench.table(min(rows, limit), dimensions, (storage,), m)
        for rows in GROWTH:
            if rows <= limit:
                await bench.table(rows, 384, ("full", "half", "binary"), 16)


if __name__ == "__main__":
    with throwaway() as server, server.database() as dsn:
        asyncio.run(_measure(dsn))
