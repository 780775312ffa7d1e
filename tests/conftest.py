"""A real server, migrated by Alembic; each test gets a database of its own, copied in 20 ms."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qortex_db import Database, Settings, migrations
from support.servers import execute, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db.embedded import EmbeddedServer

DIMENSIONS = 8


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PGVECTOR_", "QORTEX_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder that the server's own user can enter, under root too."""
    path = Path(tempfile.mkdtemp(prefix="qortex-db-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


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


_numbers = iter(range(1_000_000))


def _fresh(server: EmbeddedServer, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    # Test fixtures may run inside an event loop's thread only between tests: asyncio.run is fine.
    execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield server.dsn(name)
    execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def dsn(server: EmbeddedServer, template: str) -> Iterator[str]:
    """A migrated database whose vectors have 8 dimensions."""
    yield from _fresh(server, template)


@pytest.fixture
def dsn384(server: EmbeddedServer, template384: str) -> Iterator[str]:
    """A migrated database whose vectors have 384 dimensions."""
    yield from _fresh(server, template384)


@pytest.fixture
def empty_dsn(server: EmbeddedServer) -> Iterator[str]:
    """A database without anything."""
    yield from _fresh(server, "template0")


@pytest.fixture(params=["server16", "server"], ids=["16", "18"])
def each_empty_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without anything, on each version of PostgreSQL."""
    yield from _fresh(request.getfixturevalue(request.param), "template0")


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn) as database:
        yield database
