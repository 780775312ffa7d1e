"""Searches among the rows that match a filter of the payload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import clustered, nearest
from entries import Entry
from pages import Curve, Page, Table

if TYPE_CHECKING:
    from house import House

ROWS = 200_000
SHARES = {"group": 1000, "percent": 100, "tenth": 10, "half": 2}
WAYS = (
    ("raw", "search_filtered", "the planner's choice"),
    ("raw", "search_iterative", "the vector index, read on"),
    ("raw", "search_matches", "every match compared"),
    ("ours", "search_filtered", ""),
    ("ours", "search_never_complete", "not completed"),
)


async def filters(house: House) -> Page:
    """Top 10 of the rows whose payload has a value, with the default index of payloads.

    By hand there are three ways, and which is best depends on the share that matches: what the
    planner takes; the vector index, with pgvector's iterative scan; or the payload's index, with
    all matches compared. Recall is against the true neighbours among the matches.
    """
    rows = house.rows(ROWS)
    vectors, queries = clustered(rows), clustered(40, seed=5)
    await house.data(vectors, queries)
    for peer in ("raw", "ours"):
        await house.load(peer)
    tables = []
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for key, parts in SHARES.items():
        where = {key: 1}
        entries = [
            Entry(peer, "search_filtered", {"count": 40, "where": where, "how": how}, note)
            for peer, how, note in WAYS
        ]
        await house.run(entries, rounds=5, apart=True)
        truth = nearest(vectors, queries, matches=lambda i, parts=parts: i % parts == 1)
        for entry, (_, how, _) in zip(entries, WAYS, strict=True):
            recall = await house.recall(entry, truth, how, where)
            entry.columns["recall@10"] = f"{recall:.3f}"
            lines.setdefault(entry.title, []).append(
                (100 / parts, entry.median * 1e3, f"recall {recall:.3f}")
            )
        title = f"{100 / parts:g} % of {rows:,} rows match ({rows // parts:,})"
        tables.append(Table(title, entries, unit="ms"))
    nothing = _nothing(rows)
    await house.run(nothing, rounds=3, apart=True)
    tables.append(Table("No row matches", nothing, unit="ms"))
    curve = Curve("Time by the share that matches", "rows that match, %", "median, ms", lines)
    return Page([curve, *tables])


def _nothing(rows: int) -> list[Entry]:
    """A value that no row has."""
    return [
        Entry(peer, "search_filtered", {"count": 10, "where": {"group": rows}, "how": how}, note)
        for peer, how, note in WAYS
    ]
