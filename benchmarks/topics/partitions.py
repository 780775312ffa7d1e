"""Searches of partitioned tables: what each more partition costs, and when it pays."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from data import clustered
from pages import Page
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase

from qortex_db import Collection, Database, Partitions, VectorMixin, VectorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from house import House
    from numpy.typing import NDArray

    from qortex_db.repositories import VectorRepository

ROWS = 60_000
"""Of a partition with less than some 3,000 the planner reads every row."""
ROUNDS = 5
TENANTS = 16
LADDER = (5, 10, 20, 40, 80)
COUNTS = (1, 4, 16)
WORKS: dict[str, dict[str, Any]] = {
    "top 10": {},
    "top 100": {"limit": 100},
    "1 % match": {"where": {"percent": 1}},
    "half match": {"where": {"half": 1}},
}


@dataclass
class Line:
    """A table, and what its works gave.

    Attributes:
        seconds: By the work, of all rounds.
        recall: By the work, against all rows compared.
    """

    name: str
    vectors: VectorRepository
    build_seconds: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)

    def median(self, work: str) -> float:
        return float(np.median(self.seconds[work]))


class Base(DeclarativeBase):
    """Of the tables below."""


def _model(name: str, **options: Any) -> Any:
    collection = Collection(VectorSpec(384), language=None, **options)
    space = {"__tablename__": name, "__collection__": collection}
    return type(name, (VectorMixin, Base), space)


async def partitions(house: House) -> Page:
    """The same rows in one table, and in 4 and 16 partitions of it, each with an index of its own.

    A search asks each partition's index and merges what they give, in one statement. More of them
    are asked than one, and together they find more: so each table is also asked with the least
    `ef_search` at which it finds what one table finds by default.
    """
    rows = house.rows(ROWS)
    vectors, queries = clustered(rows), clustered(100, seed=5)
    hashed = {f"{n} by hash": _model(f"hash_{n}", partitions=Partitions(n)) for n in COUNTS[1:]}
    models = {"one table": _model("hash_1"), **hashed}
    lists = Partitions(values={str(n): [str(n)] for n in range(TENANTS)})
    own = {"namespace": "tenant", "namespace_in_key": True}
    tenants = {
        "one table, a namespace": _model("tenants_1", **own),
        f"{TENANTS} partitions by list": _model("tenants_16", partitions=lists, **own),
    }
    rounds = min(ROUNDS, house.most_rounds or ROUNDS)
    name = "bench_partitions"
    async with house.connection() as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    async with house.connection(name) as connection:
        await connection.execute("CREATE EXTENSION vector")
    async with Database.connect(house.server.dsn(name)) as db:
        lines = [await _fill(db, title, model, vectors) for title, model in models.items()]
        for work, options in WORKS.items():
            await _measure(lines, work, options, queries, rounds, truth=lines[0].vectors)
        least = {}
        wanted = lines[0].recall["top 10"]
        for line in lines:
            least[line.name] = await _least(line, wanted, lines[0].vectors, queries)
        await _measure(lines, "equal", {"ef_search": least}, queries, rounds)
        spaces = [await _fill(db, title, model, vectors) for title, model in tenants.items()]
        await _measure(spaces, "top 10", {}, queries, rounds, truth=spaces[0].vectors)
    parts = [
        _table(f"{rows:,} rows of 384 dimensions", lines, [*WORKS]),
        _equal(lines, least),
        _table(f"One tenant's {rows // TENANTS:,} rows of {rows:,}", spaces, ["top 10"]),
    ]
    return Page(parts)


async def _fill(db: Database, title: str, model: Any, vectors: NDArray[np.float32]) -> Line:
    table = model.__table__
    (index,) = [each for each in table.indexes if each.name.endswith("_vec")]
    table.indexes.remove(index)  # built after the load, as one should
    async with db.engine.begin() as connection:
        await connection.run_sync(table.create)
    spaces = [str(n) for n in range(TENANTS)] if "tenants" in table.name else [None]
    for number, space in enumerate(spaces):
        records = (
            {
                "id": f"{i:08}",
                "embedding": vectors[i],
                "payload": {"percent": i % 100, "half": i % 2},
            }
            for i in range(number, len(vectors), len(spaces))
        )
        await db.collection(model, namespace=space).ingest(records)
    async with db.engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("SET maintenance_work_mem = '1GB'"))
        start = time.perf_counter()
        await connection.run_sync(index.create)
        seconds = time.perf_counter() - start
        await connection.execute(text(f"VACUUM ANALYZE {table.name}"))
    return Line(title, db.collection(model, namespace=spaces[-1]), seconds)


async def _measure(
    lines: Sequence[Line],
    work: str,
    options: dict[str, Any],
    queries: NDArray[np.float32],
    rounds: int,
    *,
    truth: VectorRepository | None = None,
) -> None:
    right = await _found(truth, queries, exact=True, **options) if truth is not None else []
    for number in range(rounds):
        for line in lines if number % 2 == 0 else reversed(lines):
            spent = line.seconds.setdefault(work, [])
            for query in queries:
                start = time.perf_counter()
                await line.vectors.search(query, **_of(line, options))
                spent.append(time.perf_counter() - start)
    for line in lines if right else ():
        line.recall[work] = _recall(await _found(line.vectors, queries, **options), right)


def _of(line: Line, options: dict[str, Any]) -> dict[str, Any]:
    """Options of which each table has its own."""
    return {k: v[line.name] if k == "ef_search" else v for k, v in options.items()}


async def _found(
    vectors: VectorRepository, queries: NDArray[np.float32], **options: Any
) -> list[set[str]]:
    return [{hit.id for hit in await vectors.search(query, **options)} for query in queries]


def _recall(found: list[set[str]], right: list[set[str]]) -> float:
    hits = sum(len(one & true) for one, true in zip(found, right, strict=True))
    return hits / sum(len(true) for true in right)


async def _least(
    line: Line, wanted: float, truth: VectorRepository, queries: NDArray[np.float32]
) -> int:
    """The least `ef_search` of the ladder with at least this recall."""
    right = await _found(truth, queries, exact=True)
    for ef_search in LADDER:
        recall = _recall(await _found(line.vectors, queries, ef_search=ef_search), right)
        if recall >= wanted or ef_search == LADDER[-1]:
            line.recall["equal"] = recall
            break
    return ef_search


def _table(title: str, lines: Sequence[Line], works: Sequence[str]) -> str:
    shown = [f"## {title}", "", "| | | × the first | median, ms | recall | index built, s |"]
    shown.append("|---|---|---:|---:|---:|---:|")
    for work in works:
        for line in lines:
            median, first = line.median(work), lines[0].median(work)
            cells = [work if line is lines[0] else "", line.name, f"{median / first:.2f}"]
            cells += [f"{median * 1e3:.2f}", f"{line.recall[work]:.3f}"]
            cells.append(f"{line.build_seconds:.1f}" if work == works[0] else "")
            shown.append("| " + " | ".join(cells) + " |")
    return "\n".join(shown)


def _equal(lines: Sequence[Line], least: dict[str, int]) -> str:
    shown = ["## Top 10 at equal recall", "", "| | ef_search | median, ms | × the first | recall |"]
    shown.append("|---|---:|---:|---:|---:|")
    for line in lines:
        ratio = line.median("equal") / lines[0].median("equal")
        cells = [line.name, str(least[line.name]), f"{line.median('equal') * 1e3:.2f}"]
        cells += [f"{ratio:.2f}", f"{line.recall['equal']:.3f}"]
        shown.append("| " + " | ".join(cells) + " |")
    return "\n".join(shown)
