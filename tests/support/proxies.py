"""A proxy before a server's socket, which goes silent as a network does."""

from __future__ import annotations

import asyncio
from typing import Self
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """TCP on loopback to a Unix socket.

    Attributes:
        dsn: The same database, through it.
        silent: Set, nothing passes any more, and no connection is closed.
        connections: How many there were.
        refuses: Whether new connections are closed at once.
        cuts: Whether the next that is sent closes its connection, once.
    """

    def __init__(self, dsn: str) -> None:
        self._parts = urlsplit(dsn)
        self.silent = asyncio.Event()
        self.dsn = ""
        self.connections = 0
        self.refuses = False
        self.cuts = False
        self._dropped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = self._parts.username or "postgres"
        self.dsn = f"postgresql://{user}@127.0.0.1:{port}{self._parts.path}?ssl=disable"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)

    def drop(self) -> None:
        """Go silent on the connections that there are, as a firewall that forgot them."""
        self._dropped.set()
        self._dropped = asyncio.Event()

    def close(self) -> None:
        """Close the connections that there are."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.connections += 1
        if self.silent.is_set():
            return
        if self.refuses:
            writer.close()
            return
        folder = parse_qs(self._parts.query)["host"][0]
        there, back = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        self._writers.append(back)
        for source, target in ((reader, back), (there, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, target, self._dropped)))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dropped: asyncio.Event
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if self.silent.is_set() or dropped.is_set():
                    await asyncio.sleep(3_600)
                if self.cuts:
                    self.cuts = False
                    self.close()
                    return
                writer.write(data)
        except OSError:
            pass
        if not self.silent.is_set() and not dropped.is_set():
            writer.close()
