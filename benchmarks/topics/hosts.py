"""The engine that calls go over: our own, a host's, and with OpenTelemetry listening."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import clustered
from entries import Entry
from pages import Page, Table

if TYPE_CHECKING:
    from house import House

ROWS = 50_000
ENGINES = (
    *("raw", "ours", "ours_host", "ours_host_lifo"),
    *("ours_otel", "ours_otel_methods", "ours_host_otel"),
)
WORKS = (
    ("search", "A search", {"count": 200}),
    ("get", "One row by its key", {"count": 400}),
    ("observe", "observe, one after another", {"count": 300, "tasks": 1, "arms": 100}),
    ("observe", "observe, 16 tasks on 100 arms", {"count": 480, "tasks": 16, "arms": 100}),
)


async def hosts(house: House) -> Page:
    """The same calls over our own engine, over a host's, and where OpenTelemetry listens.

    SQLAlchemy's own queue gives the connection that was idle for longest (FIFO), whose backend is
    the coldest; `pool_use_lifo=True` gives the one that was used last, as our own engine does. The
    spans are made and batched, and thrown away.
    """
    await house.data(clustered(house.rows(ROWS)), clustered(200, seed=5))
    for peer in ENGINES:
        await house.load(peer)
    tables = []
    for work, title, arguments in WORKS:
        entries = [Entry(peer, work, arguments) for peer in ENGINES]
        await house.run(entries, rounds=9, apart=arguments.get("tasks", 1) == 1)
        tables.append(Table(title, entries, unit="µs"))
    return Page(tables)
