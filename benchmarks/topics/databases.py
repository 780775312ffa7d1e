"""Beside other databases that a package index carries, on the same data and queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import clustered, nearest
from entries import Entry
from pages import Page, Table

from topics.curve import picture, points

if TYPE_CHECKING:
    from house import House
    from numpy.typing import NDArray

ROWS = 20_000
INSIDE = ("chroma", "milvus", "lancedb", "sqlite_vec", "qdrant", "faiss")
TUNED = ("ours", "chroma", "milvus", "lancedb", "faiss")
PLAIN = ("sqlite_vec",)
FEW = {"qdrant": 3}
"""How many filtered searches a round has; each takes a second."""
WORDS = """
## What is compared

Each works as its documentation says, at HNSW's `m` of 16 and `ef_construction` of 64 where it has
such a graph, and at a breadth of 40 where nothing else is said. Speed is to be read beside
recall: sqlite-vec and qdrant-client's local mode have no such graph and compare every row, so
they find every neighbour, and what they take grows with the table. LanceDB's graph holds vectors
of a byte a dimension.

They are of different kinds. FAISS is an index in memory and no database: it is the limit of what
a process can do that keeps nothing. Chroma, Milvus Lite, LanceDB, sqlite-vec and the local mode
are libraries in the caller's process, on its files: no call leaves the process, and no other
process, or one alone, writes. qortex-db's calls go to a server: each pays for a message there and
back and for the server's work on a row, and for that any number of processes write at once, a
unit of work is all or nothing over vectors, learned states and a host's own rows, and what is
committed is on the disk. Chroma's, Milvus's and Qdrant's own servers were not run here.

A graph that is searched at a fixed breadth and filtered on its way can miss most of what a rare
filter matches: the recall of the filtered searches says where.

## What the transaction costs

The last tables are about it: a commit that waits for the disk beside one that does not
(`synchronous_commit = off`: what was committed last may be lost with the machine, and nothing
gets torn), and a search that begins and commits beside one by itself. How far a library's write
is on the disk when its call returns is its own affair; sqlite-vec was told to wait (`synchronous
= FULL`).
""".strip()


async def databases(house: House) -> Page:
    """Chroma, Milvus Lite, LanceDB, sqlite-vec, Qdrant's local mode and FAISS beside qortex-db."""
    rows = house.rows(ROWS)
    vectors, queries = clustered(rows), clustered(100, seed=5)
    await house.data(vectors, queries)
    await house.load("raw")
    fill, left_out = await _filled(house, rows)
    inside = tuple(entry.peer for entry in fill)
    mine = Entry("ours", "fill", {"count": rows}, "rebuild_index(load=…)")
    mine.before = lambda: house.empty("ours", index=True)
    await house.turn(mine)
    mine.columns["rows a second"] = f"{1 / mine.median:,.0f}"
    await house.load("ours")

    everybody = ("raw", "ours", *inside)
    search = [Entry(peer, "search", {"count": 50}) for peer in everybody]
    await house.run(search, rounds=3)
    truth = nearest(vectors, queries)
    for entry in search:
        entry.columns["recall@10"] = f"{await house.recall(entry, truth):.3f}"
    tables = [Table(f"Top 10 of {rows:,}", search, unit="ms")]
    for key, parts in (("group", 1000), ("percent", 100), ("half", 2)):
        tables.append(await _filtered(house, everybody, key, parts, (vectors, queries)))
    tables.append(await _table(house, "One row by its key", "get", 100, everybody))
    tables.append(
        Table(f"Filling with {rows:,} rows, payloads and index", [mine, *fill], unit="µs a row")
    )
    curves = picture(
        f"Recall and throughput, top 10 of {rows:,}",
        await points(
            house,
            [peer for peer in TUNED if peer in everybody],
            [peer for peer in PLAIN if peer in everybody],
            truth,
            rounds=3,
        ),
    )
    # Last, since it changes what the others find.
    writers = ("ours", "ours_unsynced", *(peer for peer in inside if peer != "faiss"))
    tables.append(await _table(house, "One changed vector a call", "write_one", 20, writers))
    units = [
        Entry("ours", "unit", {"count": 50, "how": how}, note)
        for how, note in (
            ("search", "search by itself"),
            ("search_unit", "begin, search, commit"),
            ("search_in_unit", "search in an open unit of work"),
        )
    ]
    await house.run(units, rounds=5)
    tables.append(Table("A search and its transaction", units, unit="ms"))
    return Page([WORDS, *left_out, curves, *tables])


async def _filled(house: House, rows: int) -> tuple[list[Entry], list[str]]:
    """Those that could be filled, each once, and what kept the others."""
    filled, left_out = [], []
    for entry in [Entry(peer, "fill", {"count": rows}) for peer in INSIDE]:
        print(f"  {entry.title}", flush=True)
        try:
            await house.turn(entry)
        except Exception as error:
            left_out.append(f"{entry.title} was left out: {type(error).__name__}.")
            continue
        entry.columns["rows a second"] = f"{1 / entry.median:,.0f}"
        filled.append(entry)
    return filled, left_out


async def _table(house: House, title: str, work: str, count: int, peers: tuple[str, ...]) -> Table:
    entries = [Entry(peer, work, {"count": count}) for peer in peers]
    await house.run(entries, rounds=3)
    return Table(title, entries, unit="ms")


async def _filtered(
    house: House, peers: tuple[str, ...], key: str, parts: int, data: tuple[NDArray, NDArray]
) -> Table:
    where = {key: 1}
    how = "search_filtered"
    entries = [
        Entry(peer, how, {"count": FEW.get(peer, 20), "where": where, "how": how}) for peer in peers
    ]
    await house.run(entries, rounds=3)
    vectors, queries = data
    truth = nearest(vectors, queries[:20], matches=lambda i: i % parts == 1)
    for entry in entries:
        recall = await house.recall(entry, truth[: entry.arguments["count"]], how, where)
        entry.columns["recall@10"] = f"{recall:.3f}"
    return Table(f"Top 10 of the {100 / parts:g} % that match", entries, unit="ms")
