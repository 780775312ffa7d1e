"""Servers for tests, and databases on them."""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg

from qortex_db import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator
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


_numbers = itertools.count()
_used: defaultdict[EmbeddedServer, list[str]] = defaultdict(list)


def new_name(beginning: str) -> str:
    """For a database of a module's: its fixture is set up again where tests change the worker."""
    return f"{beginning}_{next(_numbers)}"


@contextmanager
def copied(server: EmbeddedServer, template: str) -> Iterator[str]:
    """A database of one test's own."""
    name = f"test_{next(_numbers)}"
    # Test fixtures may run inside an event loop's thread only between tests: asyncio.run is fine.
    execute(
        server,
        *_used.pop(server, ()),
        # The other strategy writes all to the log as well, and leaves no relation cache behind.
        f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY',
    )
    yield server.dsn(name)
    # With the next one's connection; the last one ends with the server.
    _used[server].append(f'DROP DATABASE "{name}" WITH (FORCE)')
