"""`ingest`: what is put aside, what is written all the same, and what is told of how it goes."""

from __future__ import annotations

import json
import logging
import pickle
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import (
    ConflictError,
    Database,
    IngestProgress,
    InvalidInputError,
    QortexVector,
    QueryTimeoutError,
    RejectedRecord,
    Settings,
    VectorRecord,
    unit_of_work,
)
from qortex_db.repositories.vectors import ingest as module
from qortex_db.testing.factories import VectorRecordFactory, embedding
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from qortex_db.uow import Repositories

pytestmark = pytest.mark.slow

LANES = pytest.mark.parametrize("lane", ["alone", "watched", "together", "session"])
SECRET = "s3cr3t-välue"  # noqa: S105 - what must not be shown
COUNT = 500


@asynccontextmanager
async def opened(dsn: str, lane: str) -> AsyncIterator[Repositories]:
    async with Database.connect(dsn) as db:
        if lane == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        if lane == "together":
            async with db.unit_of_work() as uow:
                yield uow
        elif lane == "session":
            target = Settings(dsn=dsn).target()
            assert target is not None
            engine = create_async_engine(target.url)
            async with AsyncSession(engine) as session, unit_of_work(session) as uow:
                yield uow
            await engine.dispose()
        else:
            yield db


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def rows() -> list[Any]:
    return [
        {"id": f"v{n:05}", "embedding": embedding(n), "payload": {"n": n}, "document": SECRET}
        for n in range(COUNT)
    ]


def spoiled() -> tuple[list[Any], dict[int, str]]:
    """Rows of which some are bad in every way, and what is said of those."""
    given = rows()
    given[0]["embedding"] = [float("nan")] * 384
    given[7]["embedding"] = [1.0]
    given[8]["id"] = ""
    given[9] = 7
    given[10] = {"id": "v00010"}
    given[170]["document"] = "\x00" + SECRET
    given[171]["payload"] = {"a": float("inf")}
    given[COUNT - 1]["attributes"] = {SECRET: 1}
    said = {
        0: "has NaN",
        7: "1 dimensions",
        8: "id of row 8",
        9: "row 9 is a int",
        10: "lacks 'embedding'",
        170: "NUL",
        171: "JSON",
        COUNT - 1: "attributes",
    }
    return given, said


@LANES
@pytest.mark.parametrize("size", [5_000, 120, 1])
async def test_bad_rows_are_put_aside_and_the_rest_is_written(
    dsn384: str, lane: str, size: int, tmp_path: Path
) -> None:
    given, said = spoiled()
    rejects = tmp_path / "rejects.jsonl"
    rejects.write_text("of another run\n")
    seen: list[IngestProgress] = []
    async with opened(dsn384, lane) as side:
        stored = await side.vectors.ingest(
            iter(given), batch_size=size, on_error="skip", rejects=rejects, on_progress=seen.append
        )
        assert stored == COUNT - len(said)
        assert await side.vectors.count() == stored
        assert set(await side.vectors.get([f"v{n:05}" for n in said])) == set()
        told = [json.loads(line) for line in rejects.read_text().splitlines()]
        assert [one["row"] for one in told] == sorted(said)
        for one in told:
            assert one.keys() == {"row", "id", "reason"}
            row = given[one["row"]]
            assert one["id"] == (row["id"] if isinstance(row, dict) else None)
            if one["row"] != COUNT - 1:  # which names a column, that is no value
                assert SECRET not in one["reason"]
            assert said[one["row"]] in one["reason"]
        assert seen[-1] == COUNT
        assert seen[-1].rejected == len(said)
        asked: list[RejectedRecord] = []

        async def ask(one: RejectedRecord) -> None:
            asked.append(one)

        assert await side.vectors.ingest(given, on_error="skip", rejects=ask) == stored
        assert [one.row for one in asked] == sorted(said)
        assert await side.vectors.ingest(given, on_error="skip") == stored


@LANES
async def test_what_the_server_refuses_is_put_aside_too(dsn384: str, lane: str) -> None:
    await execute(
        dsn384,
        "ALTER TABLE qortex_vectors ADD CHECK (payload ->> 'n' NOT IN ('3', '499'))",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'not this one'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON qortex_vectors FOR EACH ROW "
        "WHEN (NEW.id = 'v00200') EXECUTE FUNCTION refuse()",
        "CREATE UNIQUE INDEX one_of_a_kind ON qortex_vectors ((payload ->> 'kind'))",
    )
    given = rows()
    given[50]["payload"] = given[250]["payload"] = {"kind": SECRET}
    given[100]["embedding"] = [1.0]
    told: list[RejectedRecord] = []
    async with opened(dsn384, lane) as side:
        await side.factors.save({"kept": 2.0})
        stored = await side.vectors.ingest(
            given, batch_size=300, on_error="skip", rejects=told.append
        )
        assert stored == COUNT - 5
        assert await side.vectors.count() == stored
        assert [one.row for one in told] == [3, 100, 200, 250, 499]
        assert [one.id for one in told] == [f"v{one.row:05}" for one in told]
        assert "RaiseError, in a function or trigger" in told[2].reason
        assert not any(SECRET in one.reason for one in told)
        assert await side.factors.load() == {"kept": 2.0}
        if lane in ("alone", "watched"):
            with pytest.raises(ConflictError, match="batch 1"):
                await side.vectors.ingest(given[3:4])


async def test_loaded_objects_show_what_is_stored_after_a_batch_was_tried_again(dsn: str) -> None:
    await execute(dsn, "ALTER TABLE qortex_vectors ADD CHECK (document <> 'bad')")
    first = VectorRecordFactory.build_batch(3, dimensions=8)
    async with Database.connect(dsn) as db, db.unit_of_work() as uow:
        await uow.vectors.upsert(first)
        loaded = await uow.session.get_one(QortexVector, first[0].id)
        changed = [
            VectorRecord(first[0].id, None, document="bad"),
            VectorRecord(first[1].id, None, document="good"),
        ]
        assert await uow.vectors.ingest(changed, on_error="skip") == 1
        assert loaded.document is None
        assert (await uow.vectors.get([first[1].id]))[first[1].id].document == "good"


async def test_what_is_no_rows_fault_is_raised(dsn: str) -> None:
    await execute(
        dsn,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(30); RETURN NEW; END $$",
        "CREATE TRIGGER slow BEFORE INSERT ON qortex_vectors FOR EACH ROW "
        "WHEN (NEW.id = 'v00003') EXECUTE FUNCTION slow()",
    )
    records = VectorRecordFactory.build_batch(10, dimensions=8)
    async with Database.connect(Settings(dsn=dsn, statement_timeout_seconds=0.3)) as db:
        with pytest.raises(QueryTimeoutError):
            await db.vectors.ingest(records, on_error="skip")

        def failing() -> Any:
            yield records[0]
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await db.vectors.ingest(failing(), on_error="skip")

        def refusing(_: RejectedRecord) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await db.vectors.ingest([{}], on_error="skip", rejects=refusing)
        for options in (
            {"on_error": "ignore"},
            {"on_error": None},
            {"rejects": print},
            {"on_error": "skip", "rejects": 7},
        ):
            with pytest.raises(InvalidInputError, match=r"on_error|rejects"):
                await db.vectors.ingest(records, **options)


async def test_what_was_put_aside_is_logged_without_values(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [{"id": SECRET, "embedding": [1.0], "document": SECRET}] * 3
    with caplog.at_level(logging.INFO, "qortex_db"):
        assert await db.vectors.ingest(bad, on_error="skip") == 0
    assert caplog.text.count("ingest_rejected") == 1
    assert "rows=3" in caplog.text
    assert SECRET not in caplog.text


async def test_progress_is_an_int_that_tells_more(db: Database) -> None:
    seen: list[IngestProgress] = []
    ints: list[int] = []

    def note(done: int) -> None:
        ints.append(done)

    records = VectorRecordFactory.build_batch(250, dimensions=8)
    await db.vectors.ingest(records, batch_size=100, on_progress=seen.append)
    await db.vectors.ingest(records, batch_size=100, on_progress=note)
    assert seen == ints == [100, 200, 250]
    assert all(one.rows_per_second > 0 and one.seconds > 0 and one.rejected == 0 for one in seen)
    assert sorted(one.seconds for one in seen) == [one.seconds for one in seen]
    assert f"{seen[-1]}" == str(seen[-1]) == "250"
    assert f"{seen[-1]:,}" == json.dumps(seen[-1]) == "250"
    assert repr(seen[-1]).startswith("IngestProgress(250, rejected=0, rows_per_second=")
    again = pickle.loads(pickle.dumps(seen[-1]))  # noqa: S301 - our own
    assert (again, again.rows_per_second) == (250, seen[-1].rows_per_second)


@LANES
async def test_the_first_slow_batch_names_the_rebuild_once(
    dsn: str, lane: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = VectorRecordFactory.build_batch(40, dimensions=8)
    async with opened(dsn, lane) as side:
        with caplog.at_level(logging.INFO, "qortex_db"):
            await side.vectors.ingest(records, batch_size=10)
            assert "ingest_into_live_index" not in caplog.text
            monkeypatch.setattr(module, "SLOW_SECONDS", 0.0)
            monkeypatch.setattr(module, "SLOW_ROWS_PER_SECOND", 0.0)
            await side.vectors.ingest(records, batch_size=10)
            assert "ingest_into_live_index" not in caplog.text
            monkeypatch.setattr(module, "SLOW_ROWS_PER_SECOND", float("inf"))
            await side.vectors.ingest(records, batch_size=10)
        told = [record for record in caplog.messages if "ingest_into_live_index" in record]
        assert len(told) == 1
        assert "index rebuild --load" in told[0]
        assert "qortex_vectors" in told[0]
        assert "rows_per_second=" in told[0]


async def test_a_table_without_a_vector_index_has_nothing_said_of_one(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(module, "SLOW_ROWS_PER_SECOND", float("inf"))
    records = VectorRecordFactory.build_batch(40, dimensions=8)
    async with counted(dsn) as trips, Database.connect(Settings(dsn=trips.dsn)) as db:
        async with db.engine.begin() as connection:
            await connection.execute(text("DROP INDEX ix_qortex_vectors_vec"))
        await db.vectors.ingest(records)
        with caplog.at_level(logging.INFO, "qortex_db"):
            async with trips.expect(4 + 1):  # it is asked once
                await db.vectors.ingest(records, batch_size=10)
        assert "ingest_into_live_index" not in caplog.text
