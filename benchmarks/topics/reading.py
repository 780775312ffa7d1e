"""Reading by key, and reading everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import clustered
from entries import Entry
from pages import Page, Table

if TYPE_CHECKING:
    from house import House

ROWS = 50_000


async def get(house: House) -> Page:
    """One row by its key, and a hundred by theirs, with vector, payload and document."""
    await house.data(clustered(house.rows(ROWS)), clustered(10, seed=5))
    peers = ("raw", "raw_pool", "ours", "ours_host", "orm")
    for peer in peers:
        await house.load(peer, index=False)
    one = [Entry(peer, "get", {"count": 400}) for peer in peers]
    await house.run(one, rounds=9, apart=True)
    for entry in one:
        entry.columns["round trips"] = str(await house.round_trips(entry.peer, "get"))
    hundred = [
        Entry(peer, "get_many", {"count": 50, "size": 100}) for peer in ("raw", "ours", "ours_host")
    ]
    await house.run(hundred, rounds=9, apart=True)
    return Page(
        [
            Table("One row by its key", one, unit="µs"),
            Table("A hundred by their keys, one call", hundred, unit="µs"),
        ]
    )


async def stream(house: House) -> Page:
    """Reading everything, and what a row costs as the table grows."""
    tables = []
    for wanted in (10_000, ROWS):
        rows = house.rows(wanted)
        await house.data(clustered(rows), clustered(10, seed=5))
        entries = [Entry(peer, "stream", {"count": rows}) for peer in ("raw", "ours", "qortex")]
        for entry in entries:
            await house.load(entry.peer, index=False)
        await house.run(entries, rounds=3)
        tables.append(Table(f"Stream {rows:,} vectors", entries, unit="µs a row"))
        columns = [
            Entry(peer, "stream", {"count": rows, "how": "stream_batches"})
            for peer in ("raw", "ours")
        ]
        await house.run(columns, rounds=3)
        title = f"Ids and one matrix of each batch, of {rows:,} vectors"
        tables.append(Table(title, columns, unit="µs a row"))
    return Page(tables)
