"""docs/statements.md shows every statement, as it is sent."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import re
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from citus.rules import broken_rules
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import Database, Settings, UnitOfWork, migrations, unit_of_work
from qortex_db.filters.operators import NEGATED, OPERATORS
from qortex_db.repositories.statement_cache import STATEMENTS, built_once
from qortex_db.uow import Repositories
from support.servers import execute, new_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import ModuleType

    from qortex_db.testing import Server

pytestmark = pytest.mark.timeout(600)
DOCS = Path(__file__).parents[2] / "docs"
LITERAL = re.compile(r"('(?:[^']|'')*'|\"[^\"]*\")")


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DOCS))
    import generate_statements  # noqa: PLC0415

    yield generate_statements
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def builders() -> list[Any]:
    """What is cached by the repositories: what builds statements, and what these are built of."""
    cache = type(functools.lru_cache(len))
    gc.unfreeze()  # what the collector is told to pass over it does not list
    found: list[Any] = [one for one in gc.get_objects() if isinstance(one, cache)]
    gc.freeze()
    return [one for one in found if one.__module__.startswith("qortex_db.repositories")]


@pytest.fixture(scope="module")
def of_forms() -> tuple[set[Any], set[Any]]:
    """What is decorated with `built_once`, and what of it was called since."""
    getter = built_once(len).__code__
    gc.unfreeze()
    found: list[Any] = [one for one in gc.get_objects() if isinstance(one, FunctionType)]
    gc.freeze()
    builds = {one.__wrapped__ for one in found if one.__code__ is getter}  # type: ignore[attr-defined]
    return {build for build in builds if build is not len}, set()


@pytest.fixture(scope="module")
def page(
    server: Server, generator: Any, builders: list[Any], of_forms: tuple[set[Any], set[Any]]
) -> Iterator[Any]:
    name = "statements"

    async def execute(statement: str) -> None:
        connection = await asyncpg.connect(server.dsn())
        await connection.execute(statement)
        await connection.close()

    async def make() -> Any:
        await execute(f"CREATE DATABASE {name}")
        settings = Settings(dsn=server.dsn(name), dimensions=generator.DIMENSIONS)
        await migrations.upgrade(settings)
        return await generator.make_page(server.dsn(name))

    for builder in builders:
        builder.cache_clear()
    with pytest.MonkeyPatch.context() as patch:  # it does not keep all of them to the end
        patch.setattr(STATEMENTS, "get", lambda key: of_forms[1].add(key[0]))
        made = asyncio.run(make())
    yield made
    asyncio.run(execute(f"DROP DATABASE {name} WITH (FORCE)"))


def test_the_page_is_current(page: Any) -> None:
    assert (DOCS / "statements.md").read_text() == page.render()


def test_what_is_sent_on_citus_keeps_its_rules(page: Any) -> None:
    broken = {
        form: rules
        for form, statements in page.on_citus.items()
        if (rules := {rule for one in statements for rule in broken_rules(one)})
    }

    # docs/operations/citus.md says that Citus refuses these.
    refused = {
        ("`articles.upsert`", "all attributes, of some records"),
        ("`articles.update_many`", "further vectors and attributes of some"),
    }
    assert {form: rules for form, rules in broken.items() if form not in refused} == {}
    assert len(page.on_citus) > 300


def test_every_method_of_a_repository_has_an_entry(page: Any, generator: Any) -> None:
    repositories = Repositories(generator.Recorder(None))
    names = [n for n, v in vars(Repositories).items() if isinstance(v, functools.cached_property)]
    assert len(names) == 6
    methods = {
        f"{name}.{method}"
        for name in names
        for method, function in inspect.getmembers(type(getattr(repositories, name)))
        if not method.startswith("_")
        and (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function))
    }
    assert methods
    assert methods - page.methods == set()


def test_every_statement_of_a_module_is_shown(page: Any, generator: Any) -> None:
    made = [(generator.sql_of(one), *place) for *place, one in generator.constants()]
    assert len(made) > 70
    assert [place for sql, *place in made if sql not in page.shown] == []


def test_every_builder_of_statements_was_called(
    page: Any, builders: list[Any], of_forms: tuple[set[Any], set[Any]]
) -> None:
    assert builders
    left_out = [one.__wrapped__ for one in builders if one.cache_info().misses == 0]
    assert [(one, inspect.getclosurevars(one).nonlocals) for one in left_out] == []
    builds, called = of_forms
    assert len(builds) > 10
    assert builds - called == set()


def test_a_statement_is_laid_out_by_white_space_alone(page: Any, generator: Any) -> None:
    for sql in page.shown:
        if sql.startswith("DO "):  # a literal, shown as it is
            continue
        assert squeezed(generator.lay_out(sql)) == squeezed(sql)


def squeezed(sql: str) -> str:
    """Without the blanks beside parentheses, and one of all others; literals as they are.

    A literal on several lines is one: so SQL has it.
    """
    parts = LITERAL.split(re.sub(r"'\s+'", "", sql))
    parts[::2] = [re.sub(r" ?([()]) ?", r"\1", re.sub(r"\s+", " ", part)) for part in parts[::2]]
    return "".join(parts).strip()


def test_every_operator_of_filters_is_shown(generator: Any) -> None:
    shown = repr([*generator.FILTERS.values(), *generator.INDEXED_FILTERS.values()])
    # None and a value by itself are $eq too.
    assert [name for name in (*OPERATORS, *NEGATED) if f"'{name}'" not in shown] == []


# ---- in the other lanes --------------------------------------------------------------------------


@contextmanager
def _database(server: Server, generator: Any) -> Iterator[str]:
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
            await call(made_of(generator.repositories(recorder, history=history)))
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "lane", [together, watched, watched_together, hosted_together], ids=lambda lane: lane.__name__
)
def test_every_statement_runs_in_every_lane(
    server: Server, generator: Any, page: Any, lane: Any
) -> None:
    """The page is made by calls by themselves."""
    with _database(server, generator) as dsn:
        sent = asyncio.run(_sent(lane, dsn, generator))
    elsewhere = {generator.sql_of(one) for *_, one in generator.constants()}
    assert sent <= set(page.shown)
    on_citus = {generator.sql_of(one) for sent in page.on_citus.values() for one in sent}
    assert set(page.shown) - sent - on_citus <= elsewhere | page.of_status
    assert len(sent) > 300
