"""A real server, migrated by Alembic; each test gets a database of its own, a copy."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import factories
from qortex_db import Database, Settings, migrations
from support.servers import copied, execute, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db.embedded import EmbeddedServer

DIMENSIONS = 8
MEMORY = Path("/dev/shm")  # noqa: S108 - a database's 300 files take 50 ms and more on a disk
ENOUGH_MEMORY = 4 * 2**30


def pytest_configure() -> None:
    # A shell's job in the background ignores Ctrl-C, and so would the commands under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported and collected stays: no collection of garbage looks through it


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PGVECTOR_", "QORTEX_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _sequences_begin_anew() -> None:
    """A test is given the same values whatever ran before it."""
    factories.begin_anew()


@pytest.fixture(scope="session")
def folder() -> Path:
    """A folder that the server's own user can enter, under root too; in memory if there is room."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_MEMORY
    path = Path(tempfile.mkdtemp(prefix="qortex-db-", dir=MEMORY if roomy else None))
    path.chmod(0o755)
    # Not here: the wheel's own end, registered later, makes its lock files once more.
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[EmbeddedServer]:
    """PostgreSQL 18."""
    started = start(folder / "18", 18)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def server16(folder: Path) -> Iterator[EmbeddedServer]:
    """PostgreSQL 16."""
    started = start(folder / "16", 16)
    yield started
    started.stop()


def _template(server: EmbeddedServer, name: str, dimensions: int) -> str:
    execute(server, f'CREATE DATABASE "{name}"')
    settings = Settings(dsn=server.dsn(name), dimensions=dimensions)
    asyncio.run(migrations.upgrade(settings))
    return name


@pytest.fixture(scope="session")
def template(server: EmbeddedServer) -> str:
    return _template(server, "template_small", DIMENSIONS)


@pytest.fixture(scope="session")
def template384(server: EmbeddedServer) -> str:
    return _template(server, "template_384", 384)


@pytest.fixture
def dsn(server: EmbeddedServer, template: str) -> Iterator[str]:
    """A migrated database whose vectors have 8 dimensions."""
    with copied(server, template) as dsn:
        yield dsn


@pytest.fixture
def dsn384(server: EmbeddedServer, template384: str) -> Iterator[str]:
    """A migrated database whose vectors have 384 dimensions."""
    with copied(server, template384) as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(server: EmbeddedServer) -> Iterator[str]:
    """A database without anything."""
    with copied(server, "template0") as dsn:
        yield dsn


@pytest.fixture(params=["server16", "server"], ids=["16", "18"])
def each_empty_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without anything, on each version of PostgreSQL."""
    with copied(request.getfixturevalue(request.param), "template0") as dsn:
        yield dsn


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn) as database:
        yield database
