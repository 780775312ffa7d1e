"""The server, the data and the contenders of one run."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import psutil
from loading import load
from peers import PEERS, Process
from pydantic import SecretStr

from qortex_db import Settings, migrations

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from entries import Entry
    from numpy.typing import NDArray

    from qortex_db.embedded import EmbeddedServer

QUIET = ("max_wal_size = '16GB'", "checkpoint_timeout = '1h'", "autovacuum = off")
"""Settings that keep checkpoints and vacuums out of the timings; the rest is as it comes."""
SHARED = "shared"
_WRITES = {"copy", "fill", "ingest", "ingest_lists", "upsert", "upsert_lists", "write_one"}


class House:
    """Everything that a topic needs.

    Args:
        most_rows: No table is larger; None for what the topics want.
        most_rounds: No work has more rounds.
    """

    def __init__(
        self,
        server: EmbeddedServer,
        folder: Path,
        *,
        most_rows: int | None = None,
        most_rounds: int | None = None,
    ) -> None:
        self.server = server
        self.folder = folder
        self.processes: dict[str, Process] = {}
        self.dimensions = 384
        self._most_rows = most_rows
        self.most_rounds = most_rounds
        self._databases: set[str] = set()
        self._loaded: set[tuple[str, bool]] = set()

    def rows(self, wanted: int) -> int:
        """That many, or the fewer that were asked for."""
        return wanted if self._most_rows is None else min(wanted, self._most_rows)

    async def data(self, vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
        """What the contenders find in their folder; those at work end."""
        await self.stop()
        self.dimensions = vectors.shape[1]
        held = self.folder / "vectors.npy"
        if not (held.exists() and np.array_equal(np.load(held, mmap_mode="r"), vectors)):
            self._loaded.clear()
            np.save(held, vectors)
        np.save(self.folder / "queries.npy", queries)

    async def stop(self) -> None:
        """End all contenders."""
        for process in self.processes.values():
            await process.stop()
        self.processes.clear()

    @asynccontextmanager
    async def connection(self, database: str = "postgres") -> AsyncIterator[asyncpg.Connection]:
        """An administrator's connection."""
        connection = await asyncpg.connect(self.server.dsn(database))
        try:
            yield connection
        finally:
            await connection.close()

    async def process(self, peer: str) -> Process:
        """A contender at work on its database."""
        if peer not in self.processes:
            place = await self.place(peer)
            self.processes[peer] = await Process.start(PEERS[peer], place, self.folder)
        return self.processes[peer]

    def database(self, peer: str) -> str:
        """Whose table it is: all share one, with its index, that can."""
        owner = peer if PEERS[peer].table else SHARED
        return f"bench_{owner}_{self.dimensions}"

    async def place(self, peer: str) -> str:
        """The DSN of a contender's database, or its folder; made at the first use."""
        if not PEERS[peer].is_server:
            folder = self.folder / "stores" / peer
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            return str(folder)
        name = self.database(peer)
        dsn = self.server.dsn(name)
        if name not in self._databases:
            self._databases.add(name)
            async with self.connection() as connection:
                await connection.execute(f"CREATE DATABASE {name}")
            async with self.connection(name) as connection:
                await connection.execute("CREATE EXTENSION vector")
            if not PEERS[peer].table:
                settings = Settings(dsn=SecretStr(dsn), dimensions=self.dimensions)
                await migrations.upgrade(settings)
        return dsn

    async def empty(self, peer: str, *, index: bool) -> None:
        """An empty table of vectors, with or without its vector index."""
        await self.load(peer, index=index, rows=0)

    async def load(self, peer: str, *, index: bool = True, rows: int | None = None) -> None:
        """The vectors, by COPY; once for all that share a table.

        Args:
            index: Whether there is a vector index on it.
            rows: How many of them; all by default.
        """
        await self.process(peer)  # it makes its table
        name = self.database(peer)
        key = (name, index)
        if rows is None and key in self._loaded:
            return
        self._loaded.discard((name, not index))
        self._loaded.discard(key)
        async with self.connection(name) as connection:
            await load(connection, PEERS[peer], self.folder / "vectors.npy", index=index, rows=rows)
        if rows is None:
            self._loaded.add(key)

    async def run(self, entries: Sequence[Entry], *, rounds: int, apart: bool = False) -> None:
        """Rounds in turn, so that what slows the machine slows everyone.

        Args:
            apart: Give the server a core and the contenders another one. Which of two cores wakes
                for an answer makes more of a difference than most of what is timed one by one.
        """
        rounds = rounds if self.most_rounds is None else min(rounds, self.most_rounds)
        for entry in entries:
            await self.process(entry.peer)
        self._separate(apart=apart)
        for number in range(rounds):
            for entry in entries if number % 2 == 0 else reversed(entries):
                await self.turn(entry)
            print(".", end="", flush=True)
        self._separate(apart=False)
        print()

    async def turn(self, entry: Entry) -> None:
        """One round of one contender."""
        if entry.before is not None:
            await entry.before()
        if entry.work in _WRITES:  # what was loaded is no longer what is there
            name = self.database(entry.peer)
            self._loaded = {each for each in self._loaded if each[0] != name}
        process = await self.process(entry.peer)
        before = self._server_seconds()
        answer = await process.do(entry.work, **entry.arguments)
        if PEERS[entry.peer].is_server:
            spent = self._server_seconds() - before
            answer["server"] = spent / answer.get("operations", 1)
        entry.answers.append(answer)

    def _server(self) -> psutil.Process:
        pid = (self.folder / "server/postmaster.pid").read_text().split()[0]
        return psutil.Process(int(pid))

    def _server_seconds(self) -> float:
        """What CPU the server has used, its backends and workers that ended too."""
        postmaster = self._server()
        times = postmaster.cpu_times()
        spent = times.children_user + times.children_system
        for process in (postmaster, *postmaster.children()):
            with suppress(OSError, psutil.Error):
                # In nanoseconds, where `stat` counts in hundredths of a second.
                schedule = Path(f"/proc/{process.pid}/schedstat").read_text()
                spent += int(schedule.split()[0]) / 1e9
        return spent

    def _separate(self, *, apart: bool) -> None:
        if not hasattr(os, "sched_setaffinity"):  # Linux only
            return
        cores = set(range(os.cpu_count() or 1))
        server = {max(cores)} if apart else cores
        clients = (cores - server or cores) if apart else cores
        postmaster = self._server()
        for process in (postmaster, *postmaster.children()):
            with suppress(ProcessLookupError):  # a worker of the server's own may end
                os.sched_setaffinity(process.pid, server)
        for contender in self.processes.values():
            os.sched_setaffinity(contender.pid, clients)

    async def round_trips(self, peer: str, work: str, **arguments: Any) -> int:
        """How often the server was waited for in one call, on a warm connection."""
        async with counted(await self.place(peer)) as trips:
            process = await Process.start(PEERS[peer], trips.dsn, self.folder)
            try:
                for _ in range(8):
                    await process.do(work, count=1, **arguments)
                before = trips.count
                await process.do(work, count=1, **arguments)
                return trips.count - before
            finally:
                await process.stop()

    async def recall(
        self, entry: Entry, truth: list[set[str]], how: str = "search", *arguments: Any
    ) -> float:
        """The share of the true neighbours that a contender finds."""
        process = await self.process(entry.peer)
        order = {"count": len(truth), "how": how, "arguments": list(arguments)}
        found = (await process.do("found", **order))["found"]
        hits = sum(len(true & set(ids)) for true, ids in zip(truth, found, strict=True))
        return hits / sum(len(true) for true in truth)
