"""Views of a Database: settings for each transaction, and schemas as namespaces."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, PostgresLearningStore, Settings, migrations
from qortex_db.errors import (
    DatabaseClosedError,
    InvalidInputError,
    QortexDbError,
    SchemaVersionError,
)
from qortex_db.observability import spans
from support.compilations import compilations
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CURRENT = text("SELECT current_setting('app.tenant', true)")
NASTY = "a'b\\c\\' $1 %(x)s :y __[SCHEMA__none] é \n; DROP TABLE qortex_vectors"
ROWS = [{"id": f"{i:05}", "embedding": [1.0, float(i)] + [1.0] * 6} for i in range(5_000)]


async def current(on: Any) -> Any:
    return (await on.executor.run(CURRENT, {})).rows[0][0]


@asynccontextmanager
async def hosted(dsn: str, **options: Any) -> AsyncIterator[Database]:
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args), **options)
    yield Database.from_engine(engine, settings={"app.tenant": "host"})
    await engine.dispose()


@asynccontextmanager
async def ours(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn) as db:
        yield db


@asynccontextmanager
async def in_autocommit(dsn: str) -> AsyncIterator[Database]:
    async with hosted(dsn, isolation_level="AUTOCOMMIT") as db:
        yield db


@pytest.mark.parametrize("lane", [ours, hosted, in_autocommit], ids=lambda lane: lane.__name__)
@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
async def test_settings_hold_for_a_call_and_for_nothing_after(
    dsn: str, lane: Any, *, watched: bool
) -> None:
    async with lane(dsn) as db:
        if watched:
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        own = None if lane is ours else "host"
        assert await current(db) == own
        view = db.with_settings({"app.tenant": NASTY, "app.other": 3})
        assert await current(view) == NASTY
        assert await current(view.with_settings({"APP.tenant": UUID(int=7)})) == str(UUID(int=7))
        assert await view.vectors.upsert(ROWS) == len(ROWS)  # parts, one after the other
        assert await view.vectors.ingest(iter(ROWS[:10])) == 10
        assert len([one async for one in view.vectors.stream(batch_size=2_000)]) == len(ROWS)
        assert (await view.arms.observe("l", "a", reward=1.0)).pulls == 1
        with pytest.raises(QortexDbError):
            await view.executor.run(text("SELECT 1 / 0"), {})
        with pytest.raises(InvalidInputError):
            await view.vectors.upsert([*ROWS, {"id": "z", "embedding": [float("nan")] * 8}])
        assert await current(view) == NASTY
        # PostgreSQL knows no way back to NULL.
        assert await current(db) in (own, "")
        if lane is in_autocommit:
            return
        async with view.unit_of_work() as uow:
            assert await current(uow) == NASTY
            await uow.session.commit()
            assert (await uow.session.execute(CURRENT)).scalar() == NASTY
        async with db.unit_of_work() as uow:
            assert (await uow.session.execute(CURRENT)).scalar() in (own, "")


async def test_a_batch_under_settings_is_whole_or_absent(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        view = db.with_settings({"app.tenant": "a"})
        refused = {"id": "z", "embedding": [float("nan")] * 8}
        with pytest.raises(InvalidInputError):
            await view.vectors.upsert([*ROWS, refused])
        assert await db.vectors.count() == 0
        async with db.engine.connect() as connection:
            held = await connection.get_raw_connection()
            assert not held.driver_connection.is_in_transaction()


async def test_tenants_at_once_never_see_each_others_settings(dsn: str) -> None:
    async with Database.connect(dsn) as db:

        async def ask(number: int) -> None:
            view = db.with_settings({"app.tenant": number})
            for _ in range(20):
                assert await current(view) == str(number)
                async with asyncio.timeout(0.001 * (number % 3)):
                    await view.vectors.count()

        done = await asyncio.gather(*(ask(i) for i in range(30)), return_exceptions=True)
        assert {type(one) for one in done} <= {type(None), TimeoutError}
        async with db.unit_of_work() as uow:
            assert (await uow.session.execute(CURRENT)).scalar() in (None, "")


async def test_the_text_of_settings_is_none_of_sql(dsn: str) -> None:
    """Also where a role's strings are not standard."""
    async with Database.connect(dsn) as db, db.unit_of_work() as uow:
        role = "ALTER DATABASE {} SET standard_conforming_strings = off"
        name = (await uow.session.execute(text("SELECT current_database()"))).scalar()
        await uow.session.execute(text(role.format(name)))
    async with Database.connect(dsn) as db:
        assert await current(db.with_settings({"app.tenant": NASTY})) == NASTY
        assert await current(db.with_settings({"app.tenant": "\\"})) == "\\"
        assert await db.vectors.count() == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"app.tenant'; --": "a"}, "name of settings"),
        ({"": "a"}, "name of settings"),
        ({"app..tenant": "a"}, "name of settings"),
        ({3: "a"}, "name of settings"),
        ({"app.tenant": None}, "pass a str"),
        ({"app.tenant": True}, "pass a str"),
        ({"app.tenant": 1.5}, "pass a str"),
        ({"app.tenant": "\x00secret"}, "NUL"),
        ({"app.tenant": "\ud800secret"}, "surrogate"),
        ("app.tenant", "pass a dict"),
        ({f"a.b{i}": "" for i in range(33)}, "at most 32"),
        ({"app.tenant": "secret" * 2_000}, "at most 8,192"),
    ],
)
def test_what_is_no_setting_is_refused(settings: Any, said: str) -> None:
    db = Database.connect("postgresql://localhost/x")
    with pytest.raises(InvalidInputError, match=re.escape(said)) as caught:
        db.with_settings(settings)
    assert "secret" not in str(caught.value)


async def test_a_view_is_as_open_as_its_database(dsn: str) -> None:
    db = Database.connect(dsn)
    view = db.with_settings({"app.tenant": "a"})
    vectors = view.vectors
    with pytest.raises(DatabaseClosedError):
        await vectors.count()
    with pytest.raises(DatabaseClosedError):
        view.unit_of_work()
    for _ in range(2):
        async with db:
            assert await vectors.count() == 0
            assert await current(view) == "a"
        with pytest.raises(DatabaseClosedError):
            await vectors.count()


async def test_a_call_under_settings_takes_three_round_trips(dsn: str) -> None:
    async with counted(dsn) as trips, Database.connect(trips.dsn) as db:
        view = db.with_settings({"app.tenant": "a"})
        await asyncio.gather(*(view.vectors.count() for _ in range(10)))  # prepared everywhere
        await asyncio.gather(*(db.vectors.count() for _ in range(10)))
        async with trips.expect(3):
            await view.vectors.count()
        async with trips.expect(1):
            await db.vectors.count()


SCHEMAS = ("acme", "globex", "Initech_2")


async def fill(on: Any, name: str) -> None:
    await on.vectors.upsert([{"id": name, "embedding": [1.0] * 8, "document": f"of {name}"}])
    await on.factors.save({name: 2.0})
    await on.edges.record(name, "z", score=0.5)
    await on.arms.observe("l", name, reward=1.0, context={"of": name})
    await on.embeddings.embed([name], model=_model, name="m", dimensions=8)


def _model(texts: list[str]) -> list[list[float]]:
    return [[float(len(text))] * 8 for text in texts]


async def held(on: Any) -> list[Any]:
    return [
        [hit.id for hit in await on.vectors.search([1.0] * 8)],
        [hit.id for hit in await on.vectors.hybrid_search([1.0] * 8, "of")],
        [row.id async for row in on.vectors.stream()],
        list(await on.factors.load()),
        [src for src, _ in await on.edges.load()],
        [arm for arms in (await on.arms.get_all_states("l")).values() for arm in arms],
        (await on.embeddings.stats()).rows,
    ]


def only(*names: str) -> list[Any]:
    return [list(names)] * 6 + [len(names)]


@pytest.mark.slow
@pytest.mark.parametrize("lane", [ours, hosted], ids=lambda lane: lane.__name__)
async def test_a_namespace_has_its_own_of_everything(dsn: str, lane: Any) -> None:
    for name in SCHEMAS:
        await migrations.upgrade(Settings(dsn=dsn, dimensions=8, db_schema=name))
    async with lane(dsn) as db:
        for name in SCHEMAS[:2]:
            await fill(db.namespace(name), name)
        async with db.namespace(SCHEMAS[2]).unit_of_work() as uow:
            await fill(uow, SCHEMAS[2])
        for name in SCHEMAS:
            view = db.namespace(name).with_settings({"app.tenant": name})
            assert await held(db.namespace(name)) == only(name)
            assert await held(view) == only(name)
            async with view.unit_of_work() as uow:
                assert await held(uow) == only(name)
                assert await current(uow) == name
        assert await held(db) == only()
        store = PostgresLearningStore("l", db.namespace("acme"))
        assert list(await store.get_all(context={"of": "acme"})) == ["acme"]
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        assert await held(db.namespace("acme")) == only("acme")
        await db.namespace("acme").vectors.delete_all()
        assert await db.namespace("globex").vectors.count() == 1


@pytest.mark.parametrize("lane", [ours, hosted], ids=lambda lane: lane.__name__)
async def test_tenants_by_search_path_have_tables_of_their_own_dimensions(
    dsn: str, lane: Any
) -> None:
    async with ours(dsn) as db, db.engine.begin() as connection:
        for statement in (
            "CREATE SCHEMA acme",
            "CREATE TABLE acme.qortex_vectors (LIKE qortex_vectors INCLUDING ALL)",
            "ALTER TABLE acme.qortex_vectors DROP COLUMN vec, ADD COLUMN vec vector(4)",
        ):
            await connection.exec_driver_sql(statement)
    async with lane(dsn) as db:
        for path, size in (("public", 8), ("acme, public", 4), ("public", 8)):
            view = db.with_settings({"search_path": path})
            assert await view.vectors.dimensions() == size
            assert await view.vectors.upsert([{"id": path, "embedding": [1.0] * size}]) in (0, 1)
            async with view.unit_of_work() as uow:
                assert await uow.vectors.dimensions() == size
                assert [hit.id for hit in await uow.vectors.search([1.0] * size)] == [path]


async def test_a_unit_of_work_in_a_namespace_asks_no_more_than_another(dsn: str) -> None:
    await migrations.upgrade(Settings(dsn=dsn, dimensions=8, db_schema="acme"))
    async with counted(dsn) as trips, Database.connect(trips.dsn) as db:
        for on in (db, db.namespace("acme")):
            await on.vectors.dimensions()
            for _ in range(2):
                async with trips.expect(3), on.unit_of_work() as uow:
                    await uow.vectors.search([1.0] * 8)


async def test_thousands_of_namespaces_share_what_is_compiled(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "are_recorded", lambda: False)  # by tests of spans, in memory
    async with Database.connect(dsn) as db:
        await db.factors.load()
        compiled = compilations(db.engine)
        view = db.namespace("public")
        assert await view.factors.load() == {}
        assert len(await view.vectors.search([1.0] * 8)) == 0
        once = len(compiled)
        tracemalloc.start()
        for number in range(3_000):
            with pytest.raises(SchemaVersionError):
                await db.namespace(f"t{number}").factors.load()
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(compiled) == once
        assert grown < 2**20


@pytest.mark.parametrize("name", ["", 'a"b', "a.b", "é", "a" * 64, None, 3])
def test_a_namespace_is_the_name_of_a_schema(name: Any) -> None:
    with pytest.raises(InvalidInputError, match="identifier"):
        Database.connect("postgresql://localhost/x").namespace(name)
