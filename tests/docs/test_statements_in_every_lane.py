"""Every statement of docs/statements.md is run in every lane, not only in the page's own."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import Database, Settings, UnitOfWork, migrations, unit_of_work
from qortex_db.uow import Repositories
from support.servers import execute, new_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import ModuleType

    from qortex_db.embedded import EmbeddedServer

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DOCS))
    import generate_statements  # noqa: PLC0415

    yield generate_statements
    sys.path.remove(str(DOCS))


@contextmanager
def _database(server: EmbeddedServer, generator: Any) -> Iterator[str]:
    """Migrated, with the host's tables."""
    name = new_name("lanes")
    execute(server, f'CREATE DATABASE "{name}"')
    settings = Settings(dsn=server.dsn(name), dimensions=generator.DIMENSIONS)

    async def make() -> None:
        await migrations.upgrade(settings)
        async with Database.connect(settings) as db, db.engine.begin() as connection:
            await connection.run_sync(generator.Base.metadata.create_all)

    asyncio.run(make())
    yield server.dsn(name)
    execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@asynccontextmanager
async def alone(dsn: str) -> AsyncIterator[tuple[Database, Callable[[], Any]]]:
    async with Database.connect(dsn) as db:
        yield db, lambda: _same(db.executor)


@asynccontextmanager
async def together(dsn: str) -> AsyncIterator[tuple[Database, Callable[[], Any]]]:
    async with Database.connect(dsn) as db:
        yield db, lambda: _executor_of(db.unit_of_work())


@asynccontextmanager
async def watched(dsn: str) -> AsyncIterator[tuple[Database, Callable[[], Any]]]:
    async with Database.connect(dsn) as db:
        event.listen(db.engine.sync_engine, "before_cursor_execute", _ignore)
        yield db, lambda: _same(db.executor)


@asynccontextmanager
async def watched_together(dsn: str) -> AsyncIterator[tuple[Database, Callable[[], Any]]]:
    async with Database.connect(dsn) as db:
        event.listen(db.engine.sync_engine, "before_cursor_execute", _ignore)
        yield db, lambda: _executor_of(db.unit_of_work())


@asynccontextmanager
async def hosted(dsn: str) -> AsyncIterator[tuple[Database, Callable[[], Any]]]:
    async with _host(dsn) as db:
        yield db, lambda: _same(db.executor)


@asynccontextmanager
async def hosted_together(dsn: str) -> AsyncIterator[tuple[Database, Callable[[], Any]]]:
    async with _host(dsn) as db:

        @asynccontextmanager
        async def joined() -> AsyncIterator[UnitOfWork]:
            async with (
                AsyncSession(db.engine) as session,
                session.begin(),
                unit_of_work(session) as uow,
            ):
                yield uow

        yield db, lambda: _executor_of(joined())


@asynccontextmanager
async def _host(dsn: str) -> AsyncIterator[Database]:
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
    async with Database.from_engine(engine) as db:
        yield db
    await engine.dispose()


@asynccontextmanager
async def _same(executor: Any) -> AsyncIterator[Any]:
    yield executor


@asynccontextmanager
async def _executor_of(unit: AbstractAsyncContextManager[UnitOfWork]) -> AsyncIterator[Any]:
    async with unit as uow:
        yield uow.executor


def _ignore(*_: object) -> None:
    """A listener: what is watched goes another way."""


async def _sent(lane: Any, dsn: str, generator: Any) -> set[str]:
    """The SQL of every call of the page."""
    sent: set[str] = set()

    async def send(call: Callable[[Any], Any], *, history: bool, made_of: Any) -> None:
        async with enter() as executor:
            recorder = generator.Recorder(executor)
            await call(made_of(Repositories(recorder, learning_history=history)))
        sent.update(map(generator.sql_of, recorder.statements))

    async with lane(dsn) as (db, enter):
        for section in generator.SECTIONS:
            if section.prelude is not None:
                await section.prelude(db)
            for forms in section.calls.values():
                for call in forms.values():
                    await send(call, history=section.history, made_of=section.repository)
        for model, filters in (
            (generator.QortexVector, generator.FILTERS),
            (generator.Indexed, generator.INDEXED_FILTERS),
        ):
            for where in filters.values():
                await send(
                    lambda vectors, where=where: vectors.count(where=where),
                    history=False,
                    made_of=lambda made, model=model: made.collection(model),
                )
    return sent


@pytest.fixture(scope="module")
def sent_alone(server: EmbeddedServer, generator: Any) -> set[str]:
    with _database(server, generator) as dsn:
        return asyncio.run(_sent(alone, dsn, generator))


LANES = [together, watched, watched_together, hosted, hosted_together]


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
def test_every_statement_runs(
    server: EmbeddedServer, generator: Any, sent_alone: set[str], lane: Any
) -> None:
    with _database(server, generator) as dsn:
        sent = asyncio.run(_sent(lane, dsn, generator))
    assert sent == sent_alone
    assert len(sent) > 300
