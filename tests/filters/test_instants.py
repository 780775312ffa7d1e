"""Moments in payloads: one is the same in every spelling, and what is none never matches."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, MetaData, Table, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, InvalidInputError, Settings, payload_index
from qortex_db.filters import operators
from support import filter_oracle as oracle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qortex_db.repositories import VectorRepository

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SPELLINGS = [
    "2024-05-01T12:00:00Z",
    "2024-05-01t12:00:00z",
    "2024-05-01T12:00:00+00:00",
    "2024-05-01T12:00:00-00:00",
    "2024-05-01T13:00:00+01:00",
    "2024-05-01T13:00:00+0100",
    "2024-05-01T13:00:00+01",
    "2024-05-01T17:30:00+05:30",
    "2024-05-01T08:30:00-03:30",
    "2024-05-01T08:30:00-0330",
    "2024-04-30T12:01:00-23:59",
    "2024-05-02T02:00:00+14:00",
    "2024-05-01 12:00:00Z",
    "2024-05-01 12:00:00+00",
    "2024-05-01 12:00:00 +0000",
    "2024-05-01T12:00Z",
    "2024-05-01T13:00+01:00",
    "2024-05-01T12:00:00.0Z",
    "2024-05-01T12:00:00.000Z",
    "2024-05-01T12:00:00,000Z",
    "2024-05-01T12:00:00.000000+00:00",
    "2024-05-01T12:00:00.000000000Z",
    "2024-05-01T11:59:60Z",
    "2024-05-01T11:59:59.9999999Z",
]
OTHERS = {
    "2024-05-01T12:00:00.000001Z": timedelta(microseconds=1),
    "2024-05-01T12:00:00.5+00:00": timedelta(milliseconds=500),
    "2024-05-01T11:59:59.999999Z": timedelta(microseconds=-1),
    "2024-05-01T12:00:00+01:00": timedelta(hours=-1),
    "2024-02-29T12:00:00Z": timedelta(days=-62),
    "0001-01-01T00:00:00+23:59": timedelta(days=-739_007),
}
NO_INSTANTS: list[Any] = [
    "2024-05-01T12:00:00",
    "2024-05-01",
    "2024-05-01Z",
    "2023-02-29T12:00:00Z",
    "1900-02-29T12:00:00Z",
    "2024-04-31T12:00:00Z",
    "2024-13-01T12:00:00Z",
    "2024-00-01T12:00:00Z",
    "2024-05-00T12:00:00Z",
    "0000-05-01T12:00:00Z",
    "2024-05-01T24:00:00Z",
    "2024-05-01T12:60:00Z",
    "2024-05-01T12:00:61Z",
    "2024-05-01T12:00:60.5Z",
    "2024-05-01T12:00:00+24:00",
    "2024-05-01T12:00:00+01:60",
    "2024-05-01T12:00:00+1:00",
    "2024-05-01T12:00:00Z+01:00",
    "2024-05-01T12:00:00 UTC",
    " 2024-05-01T12:00:00Z",
    "2024-05-01T12:00:00Z\n",
    "2024-05-01  12:00:00Z",
    "\uff12024-05-01T12:00:00Z",
    "20240501T120000Z",
    "-2024-05-01T12:00:00Z",
    "12024-05-01T12:00:00Z",
    "2024-W18-3T12:00:00Z",
    "noon",
    "",
    1714564800,
    None,
    True,
    ["2024-05-01T12:00:00Z"],
    {"at": "2024-05-01T12:00:00Z"},
]
STORED: list[Any] = [*SPELLINGS, *OTHERS, *NO_INSTANTS]


def matching(filtered: dict[str, Any]) -> set[int]:
    bounds = {
        name: bound.isoformat() if type(bound) is date else bound
        for name, bound in filtered.items()
    }
    return {i for i, value in enumerate(STORED) if oracle.holds({"at": value}, {"at": bounds})}


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn) as database:
        await database.vectors.upsert(
            [
                {"id": str(i), "embedding": [1.0] * 8, "payload": {"at": value}}
                for i, value in enumerate(STORED)
            ]
        )
        yield database


def test_the_oracle_knows_the_moments_by_heart() -> None:
    at = NOON.replace(tzinfo=None)
    assert [oracle.moment(one) for one in SPELLINGS] == [at] * 24
    assert [oracle.moment(one) for one in list(OTHERS)[:-1]] == [
        at + away for away in list(OTHERS.values())[:-1]
    ]
    assert [oracle.moment(one) for one in NO_INSTANTS] == [None] * len(NO_INSTANTS)


FILTERS: list[dict[str, Any]] = [
    {"$eq": NOON},
    {"$eq": NOON.astimezone(timezone(timedelta(hours=-7)))},
    {"$ne": NOON},
    {"$in": [NOON, NOON + timedelta(microseconds=1), "noon", None]},
    {"$nin": [NOON, None]},
    {"$gt": NOON},
    {"$gte": NOON},
    {"$lt": NOON},
    {"$lte": NOON},
    {"$between": [NOON - timedelta(microseconds=1), NOON]},
    {"$not": {"$gte": NOON}},
    {"$any": [NOON]},
    {"$any": ["noon", NOON]},
    {"$all": [NOON]},
    {"$all": [NOON, "noon"]},
    {"$contains": NOON},
    {"$gte": "2024-05-01T12", "$lt": "2024-05-01T12:00:00.1"},
    {"$gte": date(2024, 5, 1)},
    {"$eq": "2024-05-01T12:00:00Z"},
]


async def test_a_moment_is_one_in_every_lane(db: Database, dsn: str) -> None:
    async def check(vectors: VectorRepository) -> None:
        for filtered in FILTERS:
            where = {"at": filtered}
            # The year 1 before its beginning is a moment of the server's, but none of Python's.
            hits = await vectors.search([1.0] * 8, where=where, limit=100)
            found = {int(hit.id) for hit in hits}
            last = len(SPELLINGS) + len(OTHERS) - 1
            assert found - {last} == matching(filtered) - {last}, filtered
            assert await vectors.count(where=where) == len(found), filtered

    await check(db.vectors)
    async with db.unit_of_work() as uow:
        await check(uow.vectors)
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
    async with Database.from_engine(engine) as hosted:
        await check(hosted.vectors)
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
        await check(hosted.vectors)
    await engine.dispose()


async def test_every_spelling_is_found_and_nothing_else(db: Database) -> None:
    hits = await db.vectors.search([1.0] * 8, where={"at": NOON}, limit=100)
    assert {STORED[int(hit.id)] for hit in hits} == set(SPELLINGS)
    before = await db.vectors.count(where={"at": {"$lt": datetime(1, 1, 1, tzinfo=UTC)}})
    assert before == 1  # an offset puts it into the year before


FIRST, LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59)  # noqa: DTZ001 - put beside


@pytest.mark.parametrize("at", [FIRST, LAST])
async def test_what_is_beyond_the_calendar_in_utc_is_refused(db: Database, at: datetime) -> None:
    east = 1 if at == FIRST else -1
    beyond = at.replace(tzinfo=timezone(timedelta(hours=east)))
    for where in ({"at": beyond}, {"at": {"$in": [beyond]}}, {"at": {"$eq": [beyond]}}):
        with pytest.raises(InvalidInputError, match=r"\['at'\].*year 1 or after 9999"):
            await db.vectors.count(where=where)
    inside = at.replace(tzinfo=UTC)
    assert await db.vectors.count(where={"at": {"$gte" if east == 1 else "$lt": inside}}) > 0


async def test_inside_of_an_object_a_moment_is_compared_as_text(db: Database) -> None:
    stored = {"at": {"since": NOON.isoformat()}}
    await db.vectors.upsert([{"id": "x", "embedding": [1.0] * 8, "payload": stored}])
    east = NOON.astimezone(timezone(timedelta(hours=2)))
    assert await db.vectors.count(where={"at": {"$eq": {"since": east}}}) == 1
    assert await db.vectors.count(where={"at.since": east}) == 1


async def test_a_path_without_its_index_is_told_once(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    operators._log_unserved.cache_clear()
    with caplog.at_level(logging.INFO, "qortex_db"):
        for _ in range(3):
            await db.vectors.count(where={"at": {"$gte": NOON}})
            await db.vectors.count(where={"at": {"$lt": NOON}})
            await db.vectors.count(where={"at": {"$in": [NOON]}, "n": 1})
        await db.vectors.count(where={"other.at": NOON})
    lines = [one.getMessage() for one in caplog.records if "instant_without_index" in one.msg]
    assert len(lines) == 2
    assert "path='at'" in lines[0]
    assert "path='other.at'" in lines[1]
    assert not any("2024" in line for line in lines)


async def test_an_index_takes_any_payload(db: Database) -> None:
    """Its expression never raises, whatever a payload has at the path."""
    table = Table("qortex_vectors", MetaData(), Column("payload", JSONB))
    index = payload_index(table, "at", "instant", name="ix_of_moments")
    async with db.engine.begin() as connection:
        await connection.run_sync(index.create)
    rows = [
        {"id": f"new{i}", "embedding": [1.0] * 8, "payload": {"at": value}}
        for i, value in enumerate(STORED)
    ]
    assert await db.vectors.upsert(rows) == len(STORED)
    assert await db.vectors.count(where={"at": NOON}) == 2 * len(SPELLINGS)


async def test_the_last_moment_is_one_like_any_other(db: Database) -> None:
    """Asyncpg sends it as infinity, where it sends a datetime."""
    for key, at in (("first", FIRST), ("last", datetime.max)):  # noqa: DTZ901 - its zone is put beside
        moment = at.replace(tzinfo=UTC)
        row = {"id": key, "embedding": [1.0] * 8, "payload": {"of": moment.isoformat()}}
        await db.vectors.upsert([row])
        for where in (moment, {"$in": [moment]}, {"$gte": moment, "$lte": moment}):
            hits = await db.vectors.search([1.0] * 8, where={"of": where})
            assert [hit.id for hit in hits] == [key]
