"""What each call costs as the table grows."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from data import clustered
from entries import Entry
from pages import Curve, Page

if TYPE_CHECKING:
    from house import House

SIZES = (1_000, 10_000, 100_000, 1_000_000)
DIMENSIONS = 64
SECONDS = 13 * 60.0
"""A size is left out if by the one before it would end later than that."""
WORKS = {
    "search": {"count": 100},
    "search, 1 % match": {"count": 40, "where": {"percent": 1}, "how": "search_filtered"},
    "get": {"count": 100},
    "count": {"count": 3},
    "write one row": {"count": 50},
}
NAMES = {
    "search, 1 % match": "search_filtered",
    "count": "count_rows",
    "write one row": "write_one",
}


async def growth(house: House) -> Page:
    """The same calls on ever larger tables, of 64 dimensions, so that a million rows fit.

    A flat line does not depend on the table's size; a straight one that rises grows with it.
    """
    began = time.monotonic()
    curves: dict[str, dict[str, list[tuple[float, float, str]]]] = {work: {} for work in WORKS}
    loads: list[tuple[float, float, str]] = []
    spent, left_out = 0.0, ""
    for size in dict.fromkeys(house.rows(size) for size in SIZES):
        # An index's build grows a little faster than its rows.
        foretold = spent * 12 if loads else 0.0
        if time.monotonic() - began + foretold > SECONDS:
            left_out = f"{size:,} rows were left out: they would have taken some {foretold:,.0f} s."
            break
        start = time.monotonic()
        try:
            async with asyncio.timeout(SECONDS - (start - began)):
                await _measure(house, size, curves)
        except TimeoutError:
            left_out = f"{size:,} rows took longer than there was time for."
            break
        spent = time.monotonic() - start
        loads.append((size, spent, "data, COPY, indexes and all of these works"))
        print(f"  {size:,} rows: {spent:.0f} s", flush=True)
    parts: list[Curve | str] = [
        Curve(title, "rows", "median, ms", lines) for title, lines in curves.items()
    ]
    parts.append(Curve("All of it", "rows", "s", {"this page": loads}, note=left_out))
    return Page(parts)


async def _measure(
    house: House, size: int, curves: dict[str, dict[str, list[tuple[float, float, str]]]]
) -> None:
    vectors = clustered(size, dimensions=DIMENSIONS)
    await house.data(vectors, clustered(100, seed=5, dimensions=DIMENSIONS))
    del vectors
    for peer in ("raw", "ours"):
        await house.load(peer)
    for title, arguments in WORKS.items():
        entries = [
            Entry(peer, NAMES.get(title, title), dict(arguments)) for peer in ("raw", "ours")
        ]
        if "how" in arguments:  # by hand, the best of its ways at this share
            entries.insert(
                1, Entry("raw", "search_filtered", arguments | {"how": "search_matches"})
            )
            entries[1].note = "every match compared"
        await house.run(entries, rounds=3, apart=True)
        for entry in entries:
            curves[title].setdefault(entry.title, []).append((size, entry.median * 1e3, ""))
