"""Writing many rows, without and with an index; and the memory that it takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from data import clustered
from entries import Entry
from pages import Page, Table
from pydantic import SecretStr

from qortex_db import Settings, migrations

if TYPE_CHECKING:
    from collections.abc import Callable

    from house import House

ROWS = 50_000


def _fresh(house: House, peer: str) -> Callable[[], Any]:
    return lambda: house.empty(peer, index=False)


async def bulk(house: House) -> Page:
    """Writing many rows."""
    rows = house.rows(ROWS)
    await house.data(clustered(rows), clustered(10, seed=5))

    def entry(peer: str, work: str, count: int, note: str = "") -> Entry:
        return Entry(peer, work, {"count": min(count, rows)}, note, _fresh(house, peer))

    fast = [
        entry("raw", "copy", rows, "COPY and merge"),
        entry("raw", "upsert", rows, "unnest"),
        entry("ours", "upsert", rows, "upsert"),
        entry("ours", "ingest", rows, "ingest"),
        entry("qortex", "upsert", rows),
        entry("orm", "upsert", 5_000),
        entry("vecs", "upsert", 5_000),
        entry("langchain", "upsert", 1_000),
    ]
    await house.run(fast[:5], rounds=5)
    await house.run(fast[5:], rounds=3)
    lists = [
        entry("qortex", "upsert_lists", rows),
        entry("ours", "upsert_lists", rows, "upsert"),
        entry("ours", "ingest_lists", rows, "ingest"),
    ]
    await house.run(lists, rounds=5)
    for line in (*fast, *lists):
        line.columns["rows a second"] = f"{1 / line.median:,.0f}"
    return Page(
        [
            Table(
                f"Upsert of {rows:,} new rows, no vector index, from numpy",
                fast,
                unit="µs a row",
                note="The ORM and vecs wrote at most 5,000 rows a round, langchain-postgres 1,000.",
            ),
            Table("The same from lists of floats", lists, unit="µs a row"),
        ]
    )


async def hnsw(house: House) -> Page:
    """Writing where an HNSW index is."""
    rows = house.rows(10_000)
    await house.data(clustered(rows), clustered(10, seed=5))
    for peer in ("raw", "ours", "qortex"):
        await house.load(peer)
    few = min(rows, 1_000)
    unchanged = [
        Entry("raw", "upsert", {"count": rows}, "guarded"),
        Entry("ours", "upsert", {"count": rows}, "upsert"),
        Entry("qortex", "upsert", {"count": few}),
    ]
    await house.run(unchanged, rounds=5)
    single = [Entry(peer, "write_one", {"count": 100}) for peer in ("raw", "ours")]
    await house.run(single, rounds=5)

    after = Entry("ours", "", {}, "rebuild_index(load=…)")
    during = Entry("ours", "", {}, "loaded into the index")
    for _ in range(3):
        for line in (after, during):
            line.answers.append(await _first_load(house, rows, indexed=line is during))
    return Page(
        [
            Table(
                "Upsert of unchanged vectors, HNSW present",
                unchanged,
                unit="µs a row",
                note=f"qortex wrote {few:,} rows a round.",
            ),
            Table("One changed vector a call, committed, HNSW present", single, unit="µs a row"),
            Table(f"First load of {rows:,} rows with its HNSW index", [after, during], unit="s"),
        ]
    )


async def _first_load(house: House, rows: int, *, indexed: bool) -> dict[str, Any]:
    await house.empty("ours", index=True)
    process = await house.process("ours")
    start = time.perf_counter()
    if indexed:
        await process.do("ingest", count=rows)
    else:
        await migrations.rebuild_index(
            Settings(dsn=SecretStr(await house.place("ours"))),
            load=lambda: process.do("ingest", count=rows),
        )
    return {"seconds": [time.perf_counter() - start]}


async def memory(house: House) -> Page:
    """Peak memory of an ingest and a stream of many rows, and of ten times as many."""
    await house.data(clustered(1_000), clustered(10, seed=5))
    tables = []
    for work in ("ingest", "stream"):
        entries = []
        for rows in (house.rows(100_000), 10 * house.rows(100_000)):
            if work == "ingest":
                await house.empty("ours", index=False)
            await house.stop()
            process = await house.process("ours")
            answer = await process.do("peak_memory", count=rows, of=work)
            entry = Entry("ours", work, {}, f"{work} of {rows:,} rows")
            entry.answers.append({"seconds": [answer["peak"] / 1e6]})
            entries.append(entry)
        tables.append(Table(f"Peak memory of {work}", entries, unit="MB"))
    return Page(tables)
