"""Recall beside latency, for each kind of index and each of its settings."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from data import clustered, passages
from pages import Page
from pictures import Lines, draw_lines
from sqlalchemy import func, select, text
from sqlalchemy.orm import DeclarativeBase

from qortex_db import HNSW, Collection, Database, IVFFlat, VectorMixin, VectorSpec

if TYPE_CHECKING:
    from house import House
    from numpy.typing import NDArray

ROUNDS = 5
EF = [{"ef_search": value} for value in (10, 20, 40, 80, 160, 320)]
KINDS: dict[str, tuple[VectorSpec, list[dict[str, Any]]]] = {
    "HNSW, full": (VectorSpec(384), EF),
    "HNSW, half storage": (VectorSpec(384, storage="half"), EF),
    "HNSW, quantized to half": (VectorSpec(384, quantization="half"), EF),
    "HNSW, quantized to bits": (
        VectorSpec(384, quantization="binary"),
        [{"oversampling": value} for value in (4, 10, 20, 40, 80)],
    ),
    "IVFFlat": (
        VectorSpec(384, index=IVFFlat(lists=100)),
        [{"probes": value} for value in (1, 2, 5, 10, 20, 40)],
    ),
    "HNSW, m=32": (VectorSpec(384, index=HNSW(m=32, ef_construction=128)), EF),
}


@dataclass
class Kind:
    """One kind over one set of vectors."""

    name: str
    model: Any
    build_seconds: float
    table_bytes: int
    index_bytes: int
    points: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Recall@10 and median seconds, by setting."""


async def _build(db: Database, name: str, spec: VectorSpec, vectors: NDArray[np.float32]) -> Kind:
    base = type("Base", (DeclarativeBase,), {})
    space = {
        "__tablename__": "items",
        "__collection__": Collection(spec, language=None, payload_index=False),
    }
    model: Any = type("Item", (VectorMixin, base), space)
    table = model.__table__
    (index,) = table.indexes
    table.indexes.clear()  # built after the load, as one should
    async with db.engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS items"))
        await connection.run_sync(table.create)
    await db.collection(model).ingest(
        {"id": f"{i:08}", "embedding": row} for i, row in enumerate(vectors)
    )
    async with db.engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("SET maintenance_work_mem = '1GB'"))
        start = time.perf_counter()
        await connection.run_sync(index.create)
        seconds = time.perf_counter() - start
        await connection.execute(text("VACUUM ANALYZE items"))
        sizes = select(func.pg_table_size("items"), func.pg_relation_size(index.name))
        table_bytes, index_bytes = (await connection.execute(sizes)).one()
    return Kind(name, model, seconds, table_bytes, index_bytes)


async def _measure(
    db: Database,
    kind: Kind,
    queries: NDArray[np.float32],
    truth: list[set[str]],
    rounds: int,
) -> None:
    items = db.collection(kind.model)
    settings: list[dict[str, Any]] = [*KINDS[kind.name][1], {}]
    if kind.name == next(iter(KINDS)):  # alike for all
        settings.append({"exact": True})
    times: dict[str, list[float]] = {}
    found: dict[str, int] = {}
    for number in range(rounds):
        for setting in settings:
            key = ", ".join(f"{name}={value}" for name, value in setting.items()) or "default"
            for query, true in zip(queries, truth, strict=True):
                start = time.perf_counter()
                hits = await items.search(query, with_payload=False, **setting)
                times.setdefault(key, []).append(time.perf_counter() - start)
                if number == 0:
                    found[key] = found.get(key, 0) + len(true & {hit.id for hit in hits})
    for key, seconds in times.items():
        recall = found[key] / 10 / len(queries)
        kind.points[key] = (recall, float(np.median(seconds)))


def _nearest(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> list[set[str]]:
    order = np.argpartition(-(queries @ vectors.T), 10, axis=1)[:, :10]
    return [{f"{i:08}" for i in row} for row in order]


async def choosing(house: House) -> Page:
    """The page's tables and picture; the text around them is written by hand."""
    name = "bench_choosing"
    async with house.connection() as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    async with house.connection(name) as connection:
        await connection.execute("CREATE EXTENSION vector")
    real, questions = passages()
    rows = house.rows(50_000)
    real = real[: house.rows(len(real))]
    sets = {
        f"{len(real):,} passages of Python's documentation, 40 questions": (real, questions),
        f"{rows:,} clustered vectors, 100 queries": (clustered(rows), clustered(100, seed=5)),
    }
    rounds = min(ROUNDS, house.most_rounds or ROUNDS)
    results: dict[str, list[Kind]] = {}
    async with Database.connect(house.server.dsn(name)) as db:
        for title, (vectors, queries) in sets.items():
            truth = _nearest(vectors, queries)
            for kind_name, (spec, _) in KINDS.items():
                print(f"  {title}: {kind_name}", flush=True)
                kind = await _build(db, kind_name, spec, vectors)
                await _measure(db, kind, queries, truth, rounds)
                results.setdefault(title, []).append(kind)
    parts = [_table(title, kinds) for title, kinds in results.items()]
    panels = [_panel(title, kinds) for title, kinds in results.items()]
    return Page(
        parts,
        name="choosing_measured",
        is_whole=False,
        draw=lambda path: draw_lines(path, panels),
    )


def _table(title: str, kinds: list[Kind]) -> str:
    head = "| | table, MB | index, MB | build, s | setting | recall@10 | median, ms |"
    lines = [f"## {title}", "", head, "|---|---:|---:|---:|---|---:|---:|"]
    for kind in kinds:
        first = [
            kind.name,
            f"{kind.table_bytes / 1e6:,.1f}",
            f"{kind.index_bytes / 1e6:,.1f}",
            f"{kind.build_seconds:,.1f}",
        ]
        for key, (recall, seconds) in kind.points.items():
            cells = [*first, key, f"{recall:.3f}", f"{seconds * 1e3:.2f}"]
            lines.append("| " + " | ".join(cells) + " |")
            first = [""] * 4
    return "\n".join(lines)


def _panel(title: str, kinds: list[Kind]) -> Lines:
    lines = {
        kind.name: [
            (seconds * 1e3, recall)
            for key, (recall, seconds) in kind.points.items()
            if key not in {"default", "exact=True"}
        ]
        for kind in kinds
    }
    recall, seconds = kinds[0].points["exact=True"]
    lines["every row compared"] = [(seconds * 1e3, recall)]
    return Lines(title, "median latency, ms", "recall@10", lines, log="x")
