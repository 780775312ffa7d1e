"""A proxy that refuses connections, and cuts them at a moment of one's choice."""

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


class Severing:
    """What the proxy does.

    Attributes:
        dsn: Leads through it.
        refuse: Whether new connections are ended before anything is said.
        refused: How many were.
        lose_answer_to: The next message of a client that holds this is sent on, and its answer is
            lost with the connection.
        lose: The next message of a client that holds this is lost, and the connection with it.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.refuse = False
        self.refused = 0
        self.lose_answer_to: bytes | None = None
        self.lose: bytes | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    async def cut(self) -> None:
        """End every connection."""
        for writer in list(self.writers):
            writer.transport.abort()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def severed(  # noqa: C901 - the two ways of a connection, and what ends it
    dsn: str,
) -> AsyncIterator[Severing]:
    parts = urlsplit(dsn)
    real = Path(parse_qs(parts.query)["host"][0]) / SOCKET
    folder = tempfile.TemporaryDirectory(prefix="qx-")
    state = Severing(urlunsplit(parts._replace(query=f"host={folder.name}")))
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if state.refuse:
            state.refused += 1
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(str(real))
        lost = asyncio.Event()

        async def forward() -> None:
            while data := await reader.read(1 << 16):
                if state.lose is not None and state.lose in data:
                    state.lose = None
                    return
                if state.lose_answer_to is not None and state.lose_answer_to in data:
                    state.lose_answer_to = None
                    lost.set()
                up_writer.write(data)
                await up_writer.drain()

        async def answer() -> None:
            while data := await up_reader.read(1 << 16):
                if lost.is_set():
                    return
                writer.write(data)
                await writer.drain()

        state.writers |= {writer, up_writer}
        pair = {asyncio.create_task(forward()), asyncio.create_task(answer())}
        tasks.update(pair)
        await asyncio.wait(pair, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, up_writer):
            end.transport.abort()
            state.writers.discard(end)

    proxy = await asyncio.start_unix_server(serve, path=str(Path(folder.name) / SOCKET))
    try:
        yield state
    finally:
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        folder.cleanup()
