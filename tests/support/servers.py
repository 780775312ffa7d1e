"""Servers for tests."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING

import asyncpg

from qortex_db import embedded

if TYPE_CHECKING:
    from pathlib import Path

    from qortex_db.embedded import EmbeddedServer

FAST = ("fsync = off", "synchronous_commit = off", "full_page_writes = off")


def execute(server: EmbeddedServer, *statements: str, database: str = "postgres") -> None:
    async def run() -> None:
        connection = await asyncpg.connect(server.dsn(database))
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


def start(path: Path, version: int) -> EmbeddedServer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = embedded.start(path, version=version)
    settings = [f"ALTER SYSTEM SET {setting}" for setting in FAST]
    execute(server, *settings, "SELECT pg_reload_conf()")
    return server
