"""pytest's fixtures of qortex-db, all named `qortex_db_…`.

pytest imports this module wherever the package is installed. So it stands beside the package, and
imports nothing of it until a fixture is asked for.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from qortex_db import Database, UnitOfWork
    from qortex_db.testing import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("qortex-db").addoption(
        "--qortex-db-dsn",
        metavar="DSN",
        help="a server to make databases on, in the place of a throwaway one; or set "
        "QORTEX_DB_TEST_DSN",
    )


@pytest.fixture(scope="session")
def qortex_db_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A throwaway server, or the one that is given."""
    from qortex_db import Settings  # noqa: PLC0415 - not before it is asked for
    from qortex_db.testing import Server, throwaway  # noqa: PLC0415

    given = request.config.getoption("--qortex-db-dsn")
    if given is None and (named := Settings().test_dsn) is not None:
        given = named.get_secret_value()
    if given is None:
        with throwaway() as server:
            yield server
        return
    server = Server(given)
    try:
        yield server
    finally:
        server.drop_all()


@pytest.fixture(scope="session")
def qortex_db_migrate() -> Callable[[str], Awaitable[None] | None]:
    """What migrates a database, given its DSN. Override it to have your own tables there."""
    from pydantic import SecretStr  # noqa: PLC0415 - not before it is asked for

    from qortex_db import Settings, migrations  # noqa: PLC0415

    async def migrate(dsn: str) -> None:
        await migrations.upgrade(Settings(dsn=SecretStr(dsn)))

    return migrate


@pytest.fixture(scope="session")
def qortex_db_template(
    qortex_db_server: Server, qortex_db_migrate: Callable[[str], Awaitable[None] | None]
) -> str:
    """The name of a migrated database, of which each test's is a copy."""
    return qortex_db_server.template(qortex_db_migrate)


@pytest.fixture
def qortex_db_dsn(qortex_db_server: Server, qortex_db_template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    with qortex_db_server.database(qortex_db_template) as dsn:
        yield dsn


@pytest.fixture
def qortex_db_url(qortex_db_dsn: str) -> str:
    """The same, as `create_async_engine` takes it."""
    from qortex_db.testing import asyncpg_url  # noqa: PLC0415 - not before it is asked for

    return asyncpg_url(qortex_db_dsn)


@pytest.fixture(scope="session")
def qortex_db_shared_dsn(qortex_db_server: Server, qortex_db_template: str) -> Iterator[str]:
    """A migrated database for tests that leave nothing in it."""
    with qortex_db_server.database(qortex_db_template) as dsn:
        yield dsn


def _on_the_loop(request: pytest.FixtureRequest, name: str) -> Any:
    """What a fixture opens on the event loop of the test, whichever plugin runs that."""
    plugin = "anyio" if "anyio_backend" in request.fixturenames else "asyncio"
    if not request.config.pluginmanager.hasplugin(plugin):
        pytest.fail(
            f"{request.fixturename} needs the test's event loop: install pytest-asyncio, or mark "
            "the test by pytest.mark.anyio.",
            pytrace=False,
        )
    return request.getfixturevalue(f"_{name}_by_{plugin}")


@pytest.fixture
def qortex_db_database(request: pytest.FixtureRequest) -> Database:
    """An open Database over a migrated database of the test's own."""
    opened: Database = _on_the_loop(request, "qortex_db_database")
    return opened


@pytest.fixture
def qortex_db_uow(request: pytest.FixtureRequest) -> UnitOfWork:
    """A unit of work, of which nothing is left after the test."""
    begun: UnitOfWork = _on_the_loop(request, "qortex_db_uow")
    return begun


def pytest_configure(config: pytest.Config) -> None:
    """Have each plugin that runs coroutines know the fixtures that are some."""
    manager = config.pluginmanager
    ways: dict[str, Any] = {"anyio": pytest.fixture}
    if manager.hasplugin("asyncio"):
        from pytest_asyncio import fixture  # noqa: PLC0415 - it may not be installed

        ways["asyncio"] = fixture
    for plugin, as_fixture in ways.items():
        holder = ModuleType(f"pytest_qortex_db_by_{plugin}")
        for function in _coroutines():
            name = f"_{function.__name__}_by_{plugin}"
            setattr(holder, name, as_fixture(name=name)(function))
        manager.register(holder)


def _coroutines() -> list[Callable[..., AsyncIterator[Any]]]:
    """Made anew for each plugin, which marks them."""

    async def qortex_db_database(qortex_db_dsn: str) -> AsyncIterator[Database]:
        from qortex_db import Database  # noqa: PLC0415 - not before it is asked for

        async with Database.connect(qortex_db_dsn) as db:
            yield db

    async def qortex_db_uow(qortex_db_shared_dsn: str) -> AsyncIterator[UnitOfWork]:
        from qortex_db.testing import rolled_back  # noqa: PLC0415 - not before it is asked for

        async with rolled_back(qortex_db_shared_dsn) as uow:
            yield uow

    return [qortex_db_database, qortex_db_uow]
