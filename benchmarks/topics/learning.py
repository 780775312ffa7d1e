"""Bandits, and what interoception keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import clustered
from entries import Entry
from pages import Page, Table

if TYPE_CHECKING:
    from house import House


async def learning(house: House) -> Page:
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
            entry.columns["lost"] = f"{entry.told('lost'):.0%}"
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
    states = [Entry(peer, "states", {"count": 50}) for peer in ("raw", "ours")]
    await house.run(states, rounds=9, apart=True)
    return Page(
        [
            *tables,
            Table("observe_many, 800 rewards of 100 arms by one call", many, unit="µs a reward"),
            Table("select among 100 candidates", select, unit="µs"),
            Table("get_all of 100 arms", states, unit="µs"),
        ]
    )


async def interoception(house: House) -> Page:
    """Saving and loading factors and edges."""
    await house.data(clustered(100), clustered(10, seed=5))
    tables = []
    count = house.rows(10_000)
    for work, title in (
        ("save_factors", f"Save {count:,} factors"),
        ("load_factors", f"Load {count:,} factors"),
        ("save_edges", f"Save {count:,} edges of 10 scores"),
        ("load_edges", f"Load {count:,} edges of 10 scores"),
    ):
        entries = [Entry(peer, work, {"count": count}) for peer in ("raw", "ours", "qortex")]
        await house.run(entries, rounds=9)
        tables.append(Table(title, entries, unit="ms"))
    return Page(tables)
