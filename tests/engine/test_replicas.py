"""Reads by themselves at replicas: what is asked beside a statement, tokens and their errors.

The primary is its own replica here; real standbys are in test_standby.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest
from sqlalchemy import event, text

from qortex_db import Database, InteroceptionFactor, InvalidInputError, QortexDbError, Settings
from qortex_db.engine import NO_OPTIONS
from qortex_db.engine.executor import written_tables
from qortex_db.engine.telling import AFTER, guarded, is_for_replicas, parted, seeing, telling, told
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from qortex_db import UnitOfWork
    from qortex_db.testing import Server

VECTOR = [1.0] * 8
CHANGES = re.compile(r"\b(INSERT INTO|UPDATE(?!')|DELETE FROM|FOR (NO KEY|SHARE|KEY))\b")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    import generate_statements  # noqa: PLC0415

    return generate_statements


def plain(value: Any) -> Any:
    """What compares by value."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)) or type(value).__name__ in {"Record", "Row"}:
        return [plain(each) for each in value]
    return repr(value)


@pytest.mark.slow
@pytest.mark.parametrize("watched", [False, True], ids=["by the driver", "watched"])
async def test_every_read_gives_the_same_with_something_told_beside_it(
    dsn: str, page: Any, watched: bool
) -> None:
    compared = 0

    class Comparing(page.Recorder):  # type: ignore[misc, name-defined]
        async def run(self, statement: Any, params: Any, **_: Any) -> Any:
            nonlocal compared
            if not is_for_replicas(statement) or "random()" in str(statement):
                return await super().run(statement, params)
            # What writes in a CTE, or locks, says so by the option `writes`.
            assert not CHANGES.search(page.sql_of(statement))
            lane = self._executor
            given = await lane.run_here(statement, params, NO_OPTIONS)
            for made, after in ((guarded, "3"), (seeing, "3")):
                asked = {**params, AFTER: after}
                beside, said = parted(await lane.run_here(made(statement), asked, NO_OPTIONS))
                assert plain(beside.rows) == plain(given.rows), page.sql_of(statement)
                assert said is True or int(said) > 3
            asked = {**params, AFTER: str(2**60 - 1)}
            late = await lane.run_here(guarded(statement), asked, NO_OPTIONS)
            assert (len(late.rows), parted(late)[1]) == (1, False), page.sql_of(statement)
            compared += 1
            return given

    settings = Settings(dsn=dsn, dimensions=8)
    async with Database.connect(settings, encryption_keys=page.ENCRYPTION_KEYS) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(page.Base.metadata.create_all)
        if watched:
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        await _call_all(db, page, Comparing(db.executor))
    assert compared > 150


@pytest.mark.slow
async def test_every_write_gives_the_same_with_its_number_beside_it(
    server: Server, template: str, page: Any
) -> None:
    numbers: list[str | None] = []

    class Telling(page.Recorder):  # type: ignore[misc, name-defined]
        tells = False

        async def run(self, statement: Any, params: Any, **_: Any) -> Any:
            writes = written_tables(statement) is not None
            asking = telling(statement) if writes and self.tells else None
            if asking is None:
                given = await self._executor.run_here(statement, params, NO_OPTIONS)
            else:
                # Or it would be sent again where a connection is lost.
                assert written_tables(asking) is not None
                beside = await self._executor.run_here(asking, params, NO_OPTIONS)
                given, number = told(statement, beside)
                numbers.append(number)
            if writes:
                gave.append((page.sql_of(statement), len(given.rows), given.rowcount))
            return given

    both = []
    for tells in (False, True):
        gave: list[tuple[str, int, int]] = []
        with server.database(template) as dsn:
            settings = Settings(dsn=dsn, dimensions=8)
            async with Database.connect(settings, encryption_keys=page.ENCRYPTION_KEYS) as db:
                async with db.engine.begin() as connection:
                    await connection.run_sync(page.Base.metadata.create_all)
                lane = Telling(db.executor)
                lane.tells = tells
                await _call_all(db, page, lane)
        both.append(gave)
    assert both[0] == both[1]
    known = [number for number in numbers if number is not None]
    assert min(map(int, known)) > 3
    assert len(known) > 80


async def _call_all(db: Database, page: Any, executor: Any) -> None:
    """Call every method in every form."""
    for section in page.SECTIONS:
        if section.prelude is not None:
            await section.prelude(db)
        repository = section.repository(page.repositories(executor, history=section.history))
        for forms in section.calls.values():
            for call in forms.values():
                executor.begin()
                await call(repository)


LARGE = [{"id": f"l{i}", "embedding": VECTOR, "document": "word " * 10_000} for i in range(50)]
"""Several parts, which are one batch."""
TABLES = {
    "qortex_vectors": "id = 'a'",
    "interoception_factors": "node_id = 'a'",
    "interoception_edge_buffer": "tgt_id = 'a'",
    "learning_arm_states": "arm_id = 'a'",
}


async def _together(db: Any, work: Callable[[UnitOfWork], Any]) -> None:
    async with db.unit_of_work() as uow:
        await work(uow)


def _added(uow: UnitOfWork) -> Any:
    uow.session.add(InteroceptionFactor(node_id="a", weight=1.5))
    return uow.session.flush()


async def _on_its_connection(uow: UnitOfWork) -> None:
    connection = await uow.session.connection()
    await connection.execute(text("INSERT INTO interoception_factors VALUES ('a', 1.5)"))


RECORD = {"id": "a", "embedding": VECTOR}
WRITES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "one": ("qortex_vectors", lambda db: db.vectors.upsert([RECORD])),
    "a batch": ("qortex_vectors", lambda db: db.vectors.upsert([*LARGE, RECORD])),
    "rows that come back": ("qortex_vectors", lambda db: db.vectors.insert([RECORD])),
    "a number": ("interoception_factors", lambda db: db.factors.save({"a": 1.5})),
    "new weights": ("interoception_factors", lambda db: db.factors.adjust({"a": "accepted"})),
    "many edges": (
        "interoception_edge_buffer",
        lambda db: db.edges.record_many([("a", f"{i}", 0.5) for i in range(2_000)]),
    ),
    "an arm": ("learning_arm_states", lambda db: db.arms.observe("l", "a", reward=1.0)),
    "new arms": ("learning_arm_states", lambda db: db.arms.seed("l", ["a"])),
    "together": (
        "qortex_vectors",
        lambda db: _together(db, lambda uow: uow.vectors.upsert([RECORD])),
    ),
    "an object": ("interoception_factors", lambda db: _together(db, _added)),
    "a statement of the host's": (
        "interoception_factors",
        lambda db: _together(
            db,
            lambda uow: uow.session.execute(
                text("INSERT INTO interoception_factors VALUES ('a', 1.5)")
            ),
        ),
    ),
}


@pytest.mark.parametrize("history", [False, True], ids=["", "with the history"])
@pytest.mark.parametrize("watched", [False, True], ids=["by the driver", "watched"])
@pytest.mark.parametrize("name", WRITES)
async def test_a_token_is_the_number_of_the_writes_own_transaction(
    dsn: str, name: str, watched: bool, history: bool
) -> None:
    table, write = WRITES[name]
    settings = Settings(dsn=dsn, consistency="session", learning_history=history)
    async with Database.connect(settings) as db:
        if watched:
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        assert db.token() is None
        await write(db)
        wrote = await db.executor.run(
            text(f"SELECT CAST(CAST(xmin AS text) AS bigint) FROM {table} WHERE {TABLES[table]}"),
            {},
        )
        assert db.token() == f"q1-{max(row[0] for row in wrote.rows):x}"


async def test_a_write_whose_number_is_not_known_is_read_on_the_primary(dsn: str) -> None:
    settings = Settings(dsn=dsn, consistency="session")
    async with Database.connect(settings) as db:
        for lose in (
            lambda view: view.vectors.insert([RECORD]),
            lambda view: _together(view, _on_its_connection),
        ):
            await db.vectors.upsert([RECORD])
            view = db.reading_after(None)
            with contextlib.suppress(QortexDbError):
                await lose(view)
            assert view.token() == "q1-0"
            # It tells to another process that the primary has to be asked.
            assert db.reading_after("q1-0").token() == "q1-0"
            await view.vectors.count()
            known = view.token()
            assert known is not None
            assert int(known[3:], 16) > 3
        # What the Database itself has lost since is not known by what a view knows.
        assert db.token() == "q1-0"
        await db.vectors.count()
        assert db.token() != "q1-0"


@pytest.mark.parametrize(
    "token", ["", "q1-", "q2-1", "q1-G", "q1-1 ", "q1-1\n", "q1-" + "f" * 16, 1, b"q1-1", "' OR 1"]
)
async def test_what_is_no_token_is_refused(dsn: str, token: Any) -> None:
    async with Database.connect(dsn) as db:
        with pytest.raises(InvalidInputError, match="The token is none that") as caught:
            db.reading_after(token)
        assert repr(token) not in str(caught.value)
        with pytest.raises(InvalidInputError, match="Writes are not noted here"):
            db.token()
        with pytest.raises(InvalidInputError, match="consistency has to be one of"):
            db.options(consistency="fresh")  # type: ignore[arg-type]


async def test_no_call_takes_a_round_trip_more(dsn: str) -> None:
    async with counted(dsn) as trips:
        settings = Settings(dsn=trips.dsn, consistency="session", pool_min_size=1, pool_max_size=1)
        async with Database.connect(settings, replicas=[trips.dsn]) as db:
            eventual = db.options(consistency="eventual")
            for view in (eventual, db):
                await view.vectors.upsert([RECORD])
                await view.vectors.get(["a"])
                await view.vectors.search(VECTOR)
                async with view.unit_of_work() as uow:
                    await uow.vectors.upsert([RECORD])
            for view, key in ((eventual, "b"), (db, "c")):
                async with trips.expect(1):
                    await view.vectors.upsert([{"id": key, "embedding": VECTOR}])
                async with trips.expect(1):
                    await view.vectors.upsert([{**each, "payload": {key: 1}} for each in LARGE])
                async with trips.expect(3), view.unit_of_work() as uow:
                    await uow.vectors.upsert([{"id": key + "u", "embedding": VECTOR}])
            caller = db.reading_after("q1-3")  # what every server has
            async with trips.expect(1):
                assert [*await caller.vectors.get(["b"])] == ["b"]
            async with trips.expect(1):
                assert len(await caller.vectors.search(VECTOR, limit=2)) == 2
            caller = db.reading_after("q1-0")
            async with trips.expect(1):
                assert [*await caller.vectors.get(["b"])] == ["b"]


async def test_closing_waits_for_what_a_replica_reads(dsn: str) -> None:
    holder = await asyncpg.connect(dsn)
    async with Database.connect(dsn, replicas=[dsn]) as db:
        await db.factors.save({"a": 1.5})
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("LOCK TABLE interoception_factors IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(db.factors.load())
        await asyncio.sleep(0.2)
        closing = asyncio.create_task(db.close(grace_seconds=10))
        await asyncio.sleep(0.2)
        assert not closing.done()
        await transaction.commit()

        assert await reading == {"a": 1.5}
        await closing
    await holder.close()


async def test_replicas_with_nothing_between_them_are_refused(dsn: str) -> None:
    with pytest.raises(ValueError, match="put spaces between"):
        Settings(dsn=dsn, replica_dsns=f"{dsn},{dsn}").replicas()


async def test_replicas_are_told_of_by_their_places(dsn: str) -> None:
    async with Database.connect(dsn, replicas=[dsn, dsn]) as db:
        for _ in range(6):
            await db.reading_after("q1-3").factors.get(["a"])
        told_of = (await db.status()).replicas
        assert [each["name"].split()[0] for each in told_of] == ["1", "2"]
        assert [each["reads"] for each in told_of] == [3, 3]
        assert all(each["is_ready"] for each in told_of)
    async with Database.connect(dsn) as db:
        assert (await db.status()).replicas == []


async def test_replicas_are_given_by_the_environment(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn)
    monkeypatch.setenv("QORTEX_DB_REPLICA_DSNS", f"{dsn} {dsn}\nhost=/nowhere dbname=x")
    monkeypatch.setenv("QORTEX_DB_CONSISTENCY", "eventual")
    async with Database.connect() as db:
        assert [each["is_ready"] for each in (await db.status()).replicas] == [True, True, False]
        assert (await db.factors.get(["a"])) == {"a": 1.0}
        with pytest.raises(InvalidInputError):
            db.token()
    for wrong in (["http://x"], [1]):
        with pytest.raises(InvalidInputError, match="replica"):
            Database.connect(dsn, replicas=wrong)  # type: ignore[arg-type]
