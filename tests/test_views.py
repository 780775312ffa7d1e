"""Views of a Database: settings for each transaction, and schemas as namespaces."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, Settings
from qortex_db.errors import DatabaseClosedError, InvalidInputError, QortexDbError
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
