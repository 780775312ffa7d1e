"""Several queries that are there at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import clustered
from entries import Entry
from pages import Page, Table

if TYPE_CHECKING:
    from house import House

ROWS = 50_000
WAYS = (
    ("raw", "loop", "one after another"),
    ("raw", "gather", "all at once, over the pool"),
    ("raw", "union", "one UNION ALL"),
    ("ours", "loop", "search, one after another"),
    ("ours", "gather", "search, all at once, over the pool"),
    ("ours", "search_many", "search_many"),
    ("ours", "multi_search", "multi_search (one ranking of all)"),
)


async def many(house: House) -> Page:
    """Top 10 of each of several queries, as a loop, at once over the pool, and by one call."""
    await house.data(clustered(house.rows(ROWS)), clustered(200, seed=5))
    for peer in ("raw", "ours"):
        await house.load(peer)
    tables = []
    for size in (8, 32):
        entries = [
            Entry(peer, "many", {"count": 6, "size": size, "how": how}, note)
            for peer, how, note in WAYS
        ]
        await house.run(entries, rounds=7)
        for entry in entries:
            trips = await house.round_trips(
                entry.peer, "many", size=size, how=entry.arguments["how"]
            )
            entry.columns["round trips"] = str(trips)
            entry.columns["queries a second"] = f"{size / entry.median:,.0f}"
        tables.append(Table(f"{size} queries", entries, unit="ms"))
    return Page(tables)
