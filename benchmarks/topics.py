"""The topics: which works are timed, on what, and what is counted beside the times."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from house import Entry, House, clustered, nearest
from pages import Table
from pydantic import SecretStr

from qortex_db import Settings, migrations

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

ROWS = 50_000
EVERYONE = ("raw", "raw_pool", "ours", "ours_host", "qortex", "langchain", "vecs", "orm")


async def _searches(
    house: House, peers: tuple[str, ...], vectors: Any, queries: Any, title: str
) -> Table:
    await house.data(vectors, queries)
    for peer in peers:
        await house.load(peer)
    entries = [Entry(peer, "search", {"count": 200}) for peer in peers]
    await house.run(entries, rounds=9, apart=True)
    truth = nearest(vectors, queries)
    for entry in entries:
        process = await house.process(entry.peer)
        found = (await process.do("found", count=len(queries)))["found"]
        hits = sum(len(true & set(ids)) for true, ids in zip(truth, found, strict=True))
        entry.columns["recall@10"] = f"{hits / 10 / len(queries):.3f}"
    return Table(title, entries, unit="µs a search")


async def search(house: House) -> list[Table]:
    """Top 10 of 50,000, one after another and eight at once."""
    vectors, queries = clustered(ROWS), clustered(200, seed=5)
    one = await _searches(house, EVERYONE, vectors, queries, "Top 10 of 50,000, clustered")
    for entry in one.entries:
        trips = await house.round_trips(entry.peer, "search")
        entry.columns["round trips"] = str(trips)
    tuned = Entry("ours", "search_tuned", {"count": 200}, "ef_search=100")
    await house.run([tuned], rounds=9, apart=True)
    tuned.columns["round trips"] = str(await house.round_trips("ours", "search_tuned"))
    one.entries.append(tuned)
    at_once = [
        Entry(peer, "search_together", {"count": 400, "tasks": 8})
        for peer in EVERYONE
        if peer != "vecs"  # synchronous
    ]
    await house.run(at_once, rounds=9)
    for entry in at_once:
        entry.columns["a second"] = f"{1 / entry.median:,.0f}"
    together = Table("Eight at once", at_once, unit="µs a search")
    real, questions = _pydocs()
    text = await _searches(
        house,
        ("raw", "ours", "qortex"),
        real,
        questions,
        f"Top 10 of {len(real):,} real passages (all-MiniLM-L6-v2), 40 real questions",
    )
    return [one, together, text]


def _pydocs() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    folder = Path(__file__).parent / "pydocs"
    return tuple(  # type: ignore[return-value]
        np.load(folder / f"{name}.npy").astype(np.float32) for name in ("passages", "queries")
    )


async def get(house: House) -> list[Table]:
    """One row by its key."""
    await house.data(clustered(ROWS), clustered(10, seed=5))
    peers = ("raw", "raw_pool", "ours", "ours_host", "orm")
    for peer in peers:
        await house.load(peer, index=False)
    entries = [Entry(peer, "get", {"count": 400}) for peer in peers]
    await house.run(entries, rounds=9, apart=True)
    for entry in entries:
        entry.columns["round trips"] = str(await house.round_trips(entry.peer, "get"))
    return [Table("One row by its key, with its vector", entries, unit="µs")]


async def bulk(house: House) -> list[Table]:
    """Writing many rows."""
    await house.data(clustered(ROWS), clustered(10, seed=5))

    def empty(peer: str) -> Callable[[], Any]:
        return lambda: house.empty(peer, index=False)

    def entry(peer: str, work: str, count: int, note: str = "") -> Entry:
        return Entry(peer, work, {"count": count}, note, empty(peer))

    fast = [
        entry("raw", "copy", ROWS, "COPY and merge"),
        entry("raw", "upsert", ROWS, "unnest"),
        entry("ours", "upsert", ROWS, "upsert"),
        entry("ours", "ingest", ROWS, "ingest"),
        entry("qortex", "upsert", ROWS),
        entry("orm", "upsert", 5_000),
        entry("vecs", "upsert", 5_000),
        entry("langchain", "upsert", 1_000),
    ]
    await house.run(fast[:5], rounds=5)
    await house.run(fast[5:], rounds=3)
    lists = [
        entry("qortex", "upsert_lists", ROWS),
        entry("ours", "upsert_lists", ROWS, "upsert"),
    ]
    await house.run(lists, rounds=5)
    for line in (*fast, *lists):
        line.columns["rows a second"] = f"{1 / line.median:,.0f}"
        cpu = float(np.median([answer["cpu"] for answer in line.answers]))
        line.columns["client CPU, µs a row"] = f"{cpu * 1e6:.1f}"
    return [
        Table(
            "Upsert of 50,000 new rows, no vector index, from numpy",
            fast,
            unit="µs a row",
            note="The ORM and vecs wrote 5,000 rows a round, langchain-postgres 1,000.",
        ),
        Table("The same from lists of floats", lists, unit="µs a row"),
    ]


async def hnsw(house: House) -> list[Table]:
    """Writing where an HNSW index is."""
    rows = 10_000
    await house.data(clustered(rows), clustered(10, seed=5))
    for peer in ("raw", "ours", "qortex"):
        await house.load(peer)
    unchanged = [
        Entry("raw", "upsert", {"count": rows}, "guarded"),
        Entry("ours", "upsert", {"count": rows}, "upsert"),
        Entry("qortex", "upsert", {"count": 1_000}),
    ]
    await house.run(unchanged, rounds=5)

    after = Entry("ours", "", {}, "rebuild_index(load=…)")
    during = Entry("ours", "", {}, "loaded into the index")
    for _ in range(3):
        for line in (after, during):
            line.answers.append(await _first_load(house, rows, indexed=line is during))
    return [
        Table(
            "Upsert of unchanged vectors, HNSW present",
            unchanged,
            unit="µs a row",
            note="qortex wrote 1,000 rows a round.",
        ),
        Table("First load of 10,000 rows with its HNSW index", [after, during], unit="s"),
    ]


async def _first_load(house: House, rows: int, *, indexed: bool) -> dict[str, Any]:
    await house.empty("ours", index=True)
    process = await house.process("ours")
    start = time.perf_counter()
    if indexed:
        await process.do("ingest", count=rows)
    else:
        await migrations.rebuild_index(
            Settings(dsn=SecretStr(house.server.dsn("bench_ours"))),
            load=lambda: process.do("ingest", count=rows),
        )
    return {"seconds": [time.perf_counter() - start]}


async def learning(house: House) -> list[Table]:
    """Counting rewards, and choosing."""
    await house.data(clustered(100), clustered(10, seed=5))
    tables = []
    for title, arguments in (
        ("observe, one after another", {"count": 300, "tasks": 1, "arms": 100}),
        ("observe, 16 tasks on one arm", {"count": 480, "tasks": 16, "arms": 1}),
        ("observe, 16 tasks on 100 arms", {"count": 480, "tasks": 16, "arms": 100}),
    ):
        entries = [Entry(peer, "observe", arguments) for peer in ("raw", "ours", "qortex", "orm")]
        await house.run(entries, rounds=9, apart=arguments["tasks"] == 1)
        for entry in entries:
            lost = float(np.median([answer["lost"] for answer in entry.answers]))
            entry.columns["lost"] = f"{lost:.0%}"
            entry.columns["a second"] = f"{1 / entry.median:,.0f}"
        tables.append(Table(title, entries, unit="µs a reward"))
    many = [Entry(peer, "observe_many", {"count": 800}) for peer in ("raw", "ours", "qortex")]
    await house.run(many, rounds=9, apart=True)
    for entry in many:
        entry.columns["a second"] = f"{1 / entry.median:,.0f}"
    select = [Entry(peer, "select", {"count": 50}) for peer in ("raw", "ours", "qortex")]
    await house.run(select, rounds=9, apart=True)
    for entry in select:
        entry.columns["round trips"] = str(await house.round_trips(entry.peer, "select"))
    return [
        *tables,
        Table("observe_many, 800 rewards of 100 arms by one call", many, unit="µs a reward"),
        Table("select among 100 candidates", select, unit="µs"),
    ]


async def interoception(house: House) -> list[Table]:
    """Saving and loading factors and edges."""
    await house.data(clustered(100), clustered(10, seed=5))
    tables = []
    for work, title in (
        ("save_factors", "Save 10,000 factors"),
        ("load_factors", "Load 10,000 factors"),
        ("save_edges", "Save 10,000 edges of 10 scores"),
        ("load_edges", "Load 10,000 edges of 10 scores"),
    ):
        entries = [Entry(peer, work, {"count": 10_000}) for peer in ("raw", "ours", "qortex")]
        await house.run(entries, rounds=9)
        tables.append(Table(title, entries, unit="ms"))
    return tables


async def stream(house: House) -> list[Table]:
    """Reading everything, and what a row costs as the table grows."""
    tables = []
    for rows in (10_000, ROWS):
        await house.data(clustered(rows), clustered(10, seed=5))
        entries = [Entry(peer, "stream", {"count": rows}) for peer in ("raw", "ours", "qortex")]
        for entry in entries:
            await house.load(entry.peer, index=False)
        await house.run(entries, rounds=3)
        tables.append(Table(f"Stream {rows:,} vectors", entries, unit="µs a row"))
    return tables


async def memory(house: House) -> list[Table]:
    """Peak memory of an ingest and a stream of 100,000 and of 1,000,000 rows."""
    await house.data(clustered(1_000), clustered(10, seed=5))
    tables = []
    for work in ("ingest", "stream"):
        entries = []
        for rows in (100_000, 1_000_000):
            if work == "ingest":
                await house.empty("ours", index=False)
            await house.stop()
            process = await house.process("ours")
            answer = await process.do("peak_memory", count=rows, of=work)
            entry = Entry("ours", work, {}, f"{work} of {rows:,} rows")
            entry.answers.append({"seconds": [answer["peak"] / 1e6]})
            entries.append(entry)
        tables.append(Table(f"Peak memory of {work}", entries, unit="MB"))
    return tables


TOPICS = {
    "search": ("Search", search),
    "get": ("Reading by key", get),
    "bulk": ("Writing in bulk", bulk),
    "hnsw": ("Writing with an index", hnsw),
    "learning": ("Bandits", learning),
    "interoception": ("Factors and edges", interoception),
    "stream": ("Reading everything", stream),
    "memory": ("Memory", memory),
}
