"""A proxy that counts how often a server said that it is ready: its round trips."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SOCKET = ".s.PGSQL.5432"


class RoundTrips:
    """The count so far, and the DSN that leads through the proxy.

    Attributes:
        silent: Whether what is sent gets lost on its way, as where a network drops it.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.count = 0
        self.silent = False

    @asynccontextmanager
    async def expect(self, number: int) -> AsyncIterator[None]:
        before = self.count
        yield
        assert self.count - before == number, self.count - before


@asynccontextmanager
async def counted(dsn: str) -> AsyncIterator[RoundTrips]:
    parts = urlsplit(dsn)
    real = Path(parse_qs(parts.query)["host"][0]) / SOCKET
    folder = tempfile.TemporaryDirectory(prefix="qx-")
    trips = RoundTrips(urlunsplit(parts._replace(query=f"host={folder.name}")))
    tasks: set[asyncio.Task[None]] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if trips.silent:
                continue
            writer.write(data)
            await writer.drain()
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            trips.count += head[:1] == b"Z"
            writer.write(head + body)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(str(real))
        pair = {
            asyncio.create_task(forward(reader, upstream_writer)),
            asyncio.create_task(answer(upstream_reader, writer)),
        }
        tasks.update(pair)
        await asyncio.wait(pair, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, upstream_writer):
            end.close()

    proxy = await asyncio.start_unix_server(serve, path=str(Path(folder.name) / SOCKET))
    try:
        yield trips
    finally:
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        folder.cleanup()
