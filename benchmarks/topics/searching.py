"""Top 10, one after another and several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import clustered, nearest, passages
from entries import Entry
from pages import Page, Table

if TYPE_CHECKING:
    from house import House
    from numpy.typing import NDArray

ROWS = 50_000
EVERYONE = ("raw", "raw_pool", "ours", "ours_host", "qortex", "langchain", "vecs", "orm")


async def _searches(
    house: House, peers: tuple[str, ...], vectors: NDArray, queries: NDArray, title: str
) -> Table:
    await house.data(vectors, queries)
    for peer in peers:
        await house.load(peer)
    entries = [Entry(peer, "search", {"count": 200}) for peer in peers]
    await house.run(entries, rounds=9, apart=True)
    truth = nearest(vectors, queries)
    for entry in entries:
        entry.columns["recall@10"] = f"{await house.recall(entry, truth):.3f}"
    return Table(title, entries, unit="µs a search")


async def search(house: House) -> Page:
    """Top 10 of 50,000, with payload and document read, one after another and eight at once.

    Who works on tables of our form shares one, with one graph: by hand, qortex-db and the ORM.
    The others have a table and a graph of their own, of the same vectors and options.
    """
    rows = house.rows(ROWS)
    vectors, queries = clustered(rows), clustered(200, seed=5)
    one = await _searches(house, EVERYONE, vectors, queries, f"Top 10 of {rows:,}, clustered")
    for entry in one.entries:
        trips = await house.round_trips(entry.peer, "search")
        entry.columns["round trips"] = str(trips)
    tuned = Entry("ours", "search_tuned", {"count": 200, "ef": 100}, "ef_search=100")
    await house.run([tuned], rounds=9, apart=True)
    tuned.columns["round trips"] = str(await house.round_trips("ours", "search_tuned", ef=100))
    one.entries.append(tuned)
    at_once = [
        Entry(peer, "search_together", {"count": 400, "tasks": 8})
        for peer in EVERYONE
        if peer != "vecs"  # synchronous
    ]
    await house.run(at_once, rounds=9)
    for entry in at_once:
        entry.columns["a second"] = f"{1 / entry.median:,.0f}"
    together = Table("Eight at once", at_once, unit="µs a search")
    real, questions = passages()
    text = await _searches(
        house,
        ("raw", "ours", "qortex"),
        real,
        questions,
        f"Top 10 of {len(real):,} real passages (all-MiniLM-L6-v2), 40 real questions",
    )
    return Page([one, together, text])
