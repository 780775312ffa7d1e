"""A cluster of Citus that a run is pointed at, by `make test-citus DSN=…`."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import asyncpg
import pytest

from qortex_db import Settings, migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DSN = "QORTEX_DB_TEST_CITUS_DSN"


@pytest.fixture(scope="session")
def cluster() -> str:
    """The coordinator's DSN; a superuser's, with citus and vector in the database."""
    dsn = os.environ.get(DSN)
    if not dsn:
        pytest.skip(f"Citus is no package: {DSN} names a cluster, as `make test-citus DSN=…` does.")
    return dsn


@pytest.fixture
async def schema(cluster: str) -> AsyncIterator[str]:
    """A schema of a test's own, with nothing in it."""
    name = f"qortex_db_test_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(cluster)
    try:
        await connection.execute(f"CREATE SCHEMA {name}")
        yield name
    finally:
        await connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
        await connection.close()


@pytest.fixture
def settings(cluster: str, schema: str) -> Settings:
    return Settings(dsn=cluster, dimensions=8, db_schema=schema)


@pytest.fixture
async def migrated(settings: Settings) -> Settings:
    """The same once it has the tables, on one node."""
    await migrations.upgrade(settings)
    return settings
