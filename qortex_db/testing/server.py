"""A server of tests', and databases on it that live as long as a test."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import re
import secrets
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from qortex_db import embedded
from qortex_db.errors import InvalidInputError
from qortex_db.settings import parse_dsn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a database's 300 files take 50 ms and more on a disk
ENOUGH_MEMORY: Final = 4 * 2**30
FAST: Final = ("fsync = off", "synchronous_commit = off", "full_page_writes = off")
_URL: Final = re.compile(r"(\w+(?:\+\w+)?://[^/?]*)(?:/[^?]*)?(\?.*)?", re.DOTALL)


class Server:
    """A PostgreSQL on which tests make databases; all that they made goes with `drop_all`.

    Nothing here is a coroutine, and everything may be called where an event loop runs.

    Args:
        dsn: A URL of it, for a role that may create databases. The database that it names is only
            connected to.
        files: How a database is copied: by its files, which is the fastest where nothing is synced
            to a disk, or through the log.
    """

    def __init__(self, dsn: str, *, files: bool = False) -> None:
        parse_dsn(dsn)
        found = _URL.fullmatch(dsn.strip())
        if found is None:
            raise InvalidInputError("A server of tests is given by a URL, postgresql://….")
        self._dsn = dsn.strip()
        self._place, self._query = found[1], found[2] or ""
        self._strategy = " STRATEGY FILE_COPY" if files else ""
        # Processes that share a server, as xdist's do, never meet.
        self._names = (f"qortex_test_{secrets.token_hex(4)}_{n}" for n in itertools.count())
        self._made: list[str] = []
        self._used: list[str] = []

    def dsn(self, database: str | None = None) -> str:
        """The URL of a database of it, by default of the one that was named."""
        return self._dsn if database is None else f"{self._place}/{database}{self._query}"

    def execute(self, *statements: str, database: str | None = None) -> None:
        """Run statements, each in a transaction of its own."""

        async def run() -> None:
            target = parse_dsn(self.dsn(database))
            engine = create_async_engine(
                target.url,
                connect_args=dict(target.connect_args),
                poolclass=NullPool,
                isolation_level="AUTOCOMMIT",
            )
            async with engine.connect() as connection:
                for statement in statements:
                    await connection.exec_driver_sql(statement)

        _in_a_thread(lambda: asyncio.run(run()))

    def create(self, template: str = "template0") -> str:
        """A new database, by its name.

        Args:
            template: What it is a copy of; the default has nothing in it.
        """
        name = next(self._names)
        dropped, self._used = self._used, []
        # With this connection: one for each of them would take as long as the copy.
        self.execute(
            *(f'DROP DATABASE IF EXISTS "{old}" WITH (FORCE)' for old in dropped),
            f'CREATE DATABASE "{name}" TEMPLATE "{template}"{self._strategy}',
        )
        self._made = [made for made in self._made if made not in dropped] + [name]
        return name

    def template(self, migrate: Callable[[str], Awaitable[None] | None]) -> str:
        """A new database that is migrated, to be copied, by its name.

        Args:
            migrate: Is given its DSN, in a thread without an event loop; a coroutine is awaited. It
                has to close what it connects.
        """
        name = self.create()

        async def run(result: Awaitable[None]) -> None:
            await result

        def work() -> None:
            result = migrate(self.dsn(name))
            if isawaitable(result):
                asyncio.run(run(result))

        _in_a_thread(work)
        return name

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """A database as long as the block, by its DSN; see `create`."""
        name = self.create(template)
        try:
            yield self.dsn(name)
        finally:
            self._used.append(name)

    def drop_all(self) -> None:
        """Drop every database that was made here."""
        made, self._made, self._used = self._made, [], []
        if made:
            self.execute(*(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)' for name in made))


@contextmanager
def throwaway(*, version: int = embedded.VERSION) -> Iterator[Server]:
    """A server in a temporary folder, in memory if there is room: nothing of it survives the block.

    Args:
        version: The major version, 18 or 16.

    Raises:
        UnavailableError: The extra `testing` is not installed, or the server can't start.
    """
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_MEMORY
    folder = Path(tempfile.mkdtemp(prefix="qortex-db-", dir=MEMORY if roomy else None))
    folder.chmod(0o755)  # under root the server has a user of its own
    # Not only below: the wheel's own end, registered later, makes its lock files once more.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        started = embedded.start(folder / str(version), version=version)
        try:
            server = Server(started.dsn(), files=True)
            settings = [f"ALTER SYSTEM SET {setting}" for setting in FAST]
            server.execute(*settings, "SELECT pg_reload_conf()")
            yield server
        finally:
            started.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_a_thread(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as thread:  # the caller may be inside an event loop
        thread.submit(work).result()
