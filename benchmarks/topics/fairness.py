"""Many tasks at once: how much is done, how long each waits, and who waits longest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import clustered
from entries import Entry
from pages import Page, Table

if TYPE_CHECKING:
    from house import House

ROWS = 50_000
SECONDS = 2.0
PEERS = ("raw", "raw_pool", "ours", "ours_host")


async def fairness(house: House) -> Page:
    """Tasks that search again and again, over a pool of ten connections.

    A call's time has its wait for a connection in it. Where one task has many more calls than
    another, the pool gives connections to whoever comes first, and some wait for very long.
    """
    await house.data(clustered(house.rows(ROWS)), clustered(200, seed=5))
    for peer in PEERS:
        await house.load(peer)
    tables = []
    for tasks in (8, 16, 64):
        entries = [
            Entry(peer, "search_for", {"seconds": SECONDS, "tasks": tasks}) for peer in PEERS
        ]
        await house.run(entries, rounds=7)
        for entry in entries:
            entry.columns["a second"] = f"{1 / entry.median:,.0f}"
            for name in ("p50", "p99"):
                entry.columns[f"{name}, ms"] = f"{entry.told(name) * 1e3:.2f}"
            fewest, most = entry.told("fewest"), entry.told("most")
            entry.columns["calls of a task, fewest – most"] = f"{fewest:,.0f} – {most:,.0f}"
        tables.append(Table(f"{tasks} tasks at once", entries, unit="µs a search"))
    return Page(tables)
