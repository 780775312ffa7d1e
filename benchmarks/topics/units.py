"""What a transaction around it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import clustered
from entries import Entry
from pages import Page, Table

if TYPE_CHECKING:
    from house import House

ROWS = 50_000
PEERS = ("raw", "ours", "ours_host")


async def units(house: House) -> Page:
    """A search by itself, in a transaction of its own, and in one that is open.

    By hand it is BEGIN, the search and COMMIT on a connection of the pool.
    """
    await house.data(clustered(house.rows(ROWS)), clustered(200, seed=5))
    for peer in (*PEERS, "orm"):
        await house.load(peer)
    tables = []
    for title, how, peers in (
        ("A search by itself", "search", PEERS),
        ("Begin, search, commit", "search_unit", (*PEERS, "orm")),
        ("A search in an open transaction", "search_in_unit", PEERS),
    ):
        entries = [Entry(peer, "unit", {"count": 200, "how": how}) for peer in peers]
        await house.run(entries, rounds=9, apart=True)
        if how != "search_in_unit":
            for entry in entries:
                trips = await house.round_trips(entry.peer, "unit", how=how)
                entry.columns["round trips"] = str(trips)
        tables.append(Table(title, entries, unit="µs a search"))
    return Page(tables)
