"""The server, the data and the contenders of one run."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import psutil
from peers import PEERS, Peer, Process
from pydantic import SecretStr

from qortex_db import Settings, migrations, types

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from numpy.typing import NDArray

    from qortex_db.embedded import EmbeddedServer

QUIET = ("max_wal_size = '16GB'", "checkpoint_timeout = '1h'", "autovacuum = off")
"""Settings that keep checkpoints and vacuums out of the timings; the rest is as it comes."""


def clustered(count: int, *, seed: int = 0, dimensions: int = 384) -> NDArray[np.float32]:
    """Unit vectors around 200 centres, as embeddings of real text lie."""
    centres = np.random.default_rng(1).normal(size=(200, dimensions))
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(0, 200, count)] + rng.normal(size=(count, dimensions)) * 0.8
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def nearest(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], limit: int = 10
) -> list[set[str]]:
    """The true neighbours' ids."""
    order = np.argpartition(-(queries @ vectors.T), limit, axis=1)[:, :limit]
    return [{f"doc:{i:08}" for i in row} for row in order]


@dataclass
class Entry:
    """A line of a table: a contender at a work, and what its rounds gave.

    Attributes:
        before: Awaited before each round, untimed.
    """

    peer: str
    work: str
    arguments: dict[str, Any]
    note: str = ""
    before: Callable[[], Any] | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return PEERS[self.peer].title + (f", {self.note}" if self.note else "")

    @property
    def rounds(self) -> list[float]:
        """Each round's median, in seconds."""
        return [float(np.median(answer["seconds"])) for answer in self.answers]

    @property
    def median(self) -> float:
        return float(np.median(self.rounds))


class House:
    """Everything that a topic needs."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.processes: dict[str, Process] = {}
        self._databases: set[str] = set()

    async def data(self, vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
        """What the contenders find in their folder; those at work end."""
        await self.stop()
        np.save(self.folder / "vectors.npy", vectors)
        np.save(self.folder / "queries.npy", queries)

    async def stop(self) -> None:
        """End all contenders."""
        for process in self.processes.values():
            await process.stop()
        self.processes.clear()

    @asynccontextmanager
    async def connection(self, peer: str = "") -> AsyncIterator[asyncpg.Connection]:
        """An administrator's connection to a contender's database."""
        connection = await asyncpg.connect(self.server.dsn(f"bench_{peer}" if peer else "postgres"))
        try:
            yield connection
        finally:
            await connection.close()

    async def process(self, peer: str) -> Process:
        """A contender at work on its database."""
        if peer not in self.processes:
            dsn = await self._database(PEERS[peer])
            self.processes[peer] = await Process.start(PEERS[peer], dsn, self.folder)
        return self.processes[peer]

    async def _database(self, peer: Peer) -> str:
        dsn = self.server.dsn(f"bench_{peer.name}")
        if peer.name not in self._databases:
            self._databases.add(peer.name)
            async with self.connection() as connection:
                await connection.execute(f"CREATE DATABASE bench_{peer.name}")
            async with self.connection(peer.name) as connection:
                await connection.execute("CREATE EXTENSION vector")
            if peer.ours_schema:
                await migrations.upgrade(Settings(dsn=SecretStr(dsn), dimensions=384))
        return dsn

    async def empty(self, peer: str, *, index: bool) -> None:
        """An empty table of vectors, with or without its index."""
        await self.process(peer)
        table, column = PEERS[peer].table, PEERS[peer].column
        async with self.connection(peer) as connection:
            await connection.execute(f"TRUNCATE {table}")
            await self._index(connection, table, column, index=index)
            await connection.execute("CHECKPOINT")

    async def _index(
        self, connection: asyncpg.Connection, table: str, column: str, *, index: bool
    ) -> None:
        names = await connection.fetch(
            "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c "
            "ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
            "WHERE a.amname = 'hnsw' AND i.indrelid = $1::text::regclass",
            table,
        )
        if index and not names:
            await connection.execute("SET maintenance_work_mem = '1GB'")
            await connection.execute(
                f"CREATE INDEX bench_hnsw ON {table} USING hnsw ({column} vector_cosine_ops)"
            )
        elif not index:
            for name in names:
                await connection.execute(f"DROP INDEX {name[0]}")

    async def load(self, peer: str, *, index: bool = True) -> None:
        """All vectors, put there by COPY so that every contender has the same table and index."""
        await self.empty(peer, index=False)
        vectors = np.load(self.folder / "vectors.npy", mmap_mode="r")
        spec = PEERS[peer]
        async with self.connection(peer) as connection:
            await connection.set_type_codec(
                "vector", schema="public", encoder=bytes, decoder=bytes, format="binary"
            )
            schema, _, table = spec.table.rpartition(".")
            columns = ["id", spec.column] + (["content"] if peer == "langchain" else [])
            rest = ("",) if peer == "langchain" else ()
            for start in range(0, len(vectors), 5_000):
                rows = types.encode_many(vectors[start : start + 5_000])
                await connection.copy_records_to_table(
                    table,
                    schema_name=schema or None,
                    columns=columns,
                    records=[(f"doc:{start + i:08}", row, *rest) for i, row in enumerate(rows)],
                )
            await self._index(connection, spec.table, spec.column, index=index)
            await connection.execute(f"VACUUM ANALYZE {spec.table}")
            await connection.execute("CHECKPOINT")

    async def run(self, entries: Sequence[Entry], *, rounds: int, apart: bool = False) -> None:
        """Rounds in turn, so that what slows the machine slows everyone.

        Args:
            apart: Give the server a core and the contenders another one. Which of two cores wakes
                for an answer makes more of a difference than most of what is timed one by one.
        """
        for entry in entries:
            await self.process(entry.peer)
        self._place(apart=apart)
        for number in range(rounds):
            for entry in entries if number % 2 == 0 else reversed(entries):
                if entry.before is not None:
                    await entry.before()
                process = await self.process(entry.peer)
                entry.answers.append(await process.do(entry.work, **entry.arguments))
            print(".", end="", flush=True)
        self._place(apart=False)
        print()

    def _place(self, *, apart: bool) -> None:
        if not hasattr(os, "sched_setaffinity"):  # Linux only
            return
        cores = set(range(os.cpu_count() or 1))
        server = {max(cores)} if apart else cores
        clients = (cores - server or cores) if apart else cores
        postmaster = psutil.Process(
            int((self.folder / "server/postmaster.pid").read_text().split()[0])
        )
        for process in (postmaster, *postmaster.children()):
            with suppress(ProcessLookupError):  # a worker of the server's own may end
                os.sched_setaffinity(process.pid, server)
        for contender in self.processes.values():
            os.sched_setaffinity(contender.pid, clients)

    async def round_trips(self, peer: str, work: str, **arguments: Any) -> int:
        """How often the server was waited for in one call, on a warm connection."""
        async with counted(await self._database(PEERS[peer])) as trips:
            process = await Process.start(PEERS[peer], trips.dsn, self.folder)
            try:
                for _ in range(8):
                    await process.do(work, count=1, **arguments)
                before = trips.count
                await process.do(work, count=1, **arguments)
                return trips.count - before
            finally:
                await process.stop()
