"""Recall against throughput, as ann-benchmarks shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data import clustered, nearest
from entries import Entry
from pages import Curve, Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from house import House

ROWS = 50_000
BREADTHS = (10, 20, 40, 80, 160, 320)
# qortex has no such option, and the ORM's users would set it on the session.
TUNED = ("raw", "ours", "ours_host", "langchain", "vecs")
PLAIN = ("qortex", "orm")


async def points(
    house: House,
    peers: Sequence[str],
    plain: Sequence[str],
    truth: list[set[str]],
    *,
    rounds: int = 5,
) -> dict[str, list[tuple[float, float, str]]]:
    """Recall and searches a second, of each contender at each breadth of the search."""
    count = len(truth)
    entries = [
        Entry(peer, "search_tuned", {"count": count, "ef": ef}) for peer in peers for ef in BREADTHS
    ]
    entries += [Entry(peer, "search", {"count": count}) for peer in plain]
    await house.run(entries, rounds=rounds, apart=True)
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for entry in entries:
        given: list[Any] = [entry.arguments["ef"]] if "ef" in entry.arguments else []
        recall = await house.recall(entry, truth, entry.work, *given)
        said = f"ef_search={given[0]}" if given else "as it comes"
        # The median call's rate: one client that waits for each answer.
        lines.setdefault(entry.title, []).append((recall, 1 / entry.median, said))
    return lines


async def curve(house: House) -> Page:
    """Searches a second, one after another by one client, against the share of the true neighbours.

    Up and to the right is better. The points of a line are `hnsw.ef_search`; who has no such option
    has one point. By hand, qortex-db and the ORM share one table and graph.
    """
    rows = house.rows(ROWS)
    vectors, queries = clustered(rows), clustered(100, seed=5)
    await house.data(vectors, queries)
    for peer in (*TUNED, *PLAIN):
        await house.load(peer)
    lines = await points(house, TUNED, PLAIN, nearest(vectors, queries))
    return Page([picture(f"Top 10 of {rows:,} × {vectors.shape[1]}", lines)])


def picture(title: str, lines: dict[str, list[tuple[float, float, str]]]) -> Curve:
    """The form of ann-benchmarks."""
    return Curve(title, "recall@10", "searches a second", lines, log="y")
