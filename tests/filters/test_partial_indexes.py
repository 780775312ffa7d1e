"""Partial indexes of a model's own, where a filter says what they hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Index, event, text
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.orm import DeclarativeBase, Mapped

from qortex_db import HNSW, Collection, Database, VectorMixin, VectorSpec, vector_index
from qortex_db.filters import read_filter
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Base(DeclarativeBase):
    """A host's own."""


class Item(VectorMixin, Base):
    __tablename__ = "items"
    __collection__ = Collection(VectorSpec(8, index=HNSW(where="kind = 'a'")), payload_index=False)
    __table_args__ = (
        Index(
            "ix_of_number", "name", postgresql_where=text("(number)::int = 7 AND name = 'it''s'")
        ),
        Index("ix_of_odd", "name", postgresql_where=text("lower(kind) = 'a' OR number > 3")),
    )

    kind: Mapped[str | None]
    number: Mapped[int | None]
    name: Mapped[str | None]
    is_new: Mapped[bool | None]
    took: Mapped[timedelta | None]


def partial(name: str, where: str) -> None:
    vector_index(Item.__table__, index=HNSW(where=where), name=name)


partial("ix_of_key", "(payload ->> 'lang') = 'en'")
partial("ix_of_part", """payload @> '{"of": {"lang": "en"}, "year": 1965}'""")
partial("ix_of_new", "is_new")
Index(
    "ix_of_expression",
    Item.updated_at,
    postgresql_where=Item.payload.op("@>")(text("""'{"x": true}'::jsonb""")),
)

# What a filter says, and the index that has it; None for none of them.
SAID: list[tuple[dict[str, Any], str | None]] = [
    ({"kind": "a"}, "ix_items_vec"),
    ({"kind": {"$eq": "a"}, "rest": {"$gt": 0}}, "ix_items_vec"),
    ({"$and": [{"$and": [{"$column": {"kind": "a"}}]}]}, "ix_items_vec"),
    ({"lang": "en"}, "ix_of_key"),
    ({"$payload": {"lang": "en"}}, "ix_of_key"),
    ({"of.lang": "en", "year": 1965.0}, "ix_of_part"),
    ({"is_new": True}, "ix_of_new"),
]
# As the first, and not said.
OTHERS: list[Any] = [
    {"kind": "b"},
    {"kind": {"$ne": "a"}},
    {"kind": {"$in": ["a"]}},
    {"$or": [{"kind": "a"}]},
    {"$not": {"kind": "a"}},
    {"$payload": {"kind": "a"}},
    {"lang": ["en"]},
    {"of.lang": "en"},
    {"of.lang": "en", "year": 1966},
    {"of": {"$eq": {"lang": "en"}}, "year": 1965},
    {"lang[]": "en"},
    {"number": 7},
    {"name": "it's"},
    {"is_new": False},
    {"x": 1},
    {"took": timedelta(hours=1)},
    {"lang": datetime(2025, 1, 1, tzinfo=UTC)},
    {"year": 1965.0000000000002, "of.lang": "en"},
    Item.kind == "a",
]


def count_said(where: Any) -> int:
    return len(read_filter(where, Item.__table__, own={name: name for name in OWN}).promises)


OWN = ("kind", "number", "name", "is_new", "took")


def test_a_filter_says_no_more_than_it_implies() -> None:
    assert [count_said(where) for where, _ in SAID] == [1] * len(SAID)
    assert [count_said(where) for where in OTHERS] == [0] * len(OTHERS)
    assert count_said({"number": 7, "name": "it's"}) == 1
    assert count_said({"x": True, "kind": "a"}) == 2
    keys = {read_filter(where, Item.__table__).key for where, _ in SAID}
    assert len(keys) == len(SAID) - 1  # of which two are the same
    said = read_filter({"lang": "en"}, Item.__table__)
    other = read_filter({"lang": "de"}, Item.__table__)
    assert said.key != other.key
    sql = str(said.planned_once.compile(dialect=dialect()))
    assert "(items.payload ->> CAST('lang' AS TEXT)) = 'en'" in sql


@pytest.fixture
async def db(each_empty_dsn: str) -> AsyncIterator[Database]:
    await execute(each_empty_dsn, "CREATE EXTENSION vector")
    # The rows are few: whether an index can be used is the question, not whether it is worth it.
    no_scan = "EXECUTE format('ALTER DATABASE %I SET enable_seqscan = off', current_database())"
    await execute(each_empty_dsn, f"DO $$ BEGIN {no_scan}; END $$")
    async with Database.connect(each_empty_dsn) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await database.collection(Item).upsert(
            {
                "id": f"{number}",
                "embedding": [number % each + 1 for each in (3, 5, 7, 11, 13, 17, 19, 23)],
                "payload": {
                    "lang": "en" if number % 4 else "de",
                    "of": {"lang": "en"},
                    "year": 1965 + number % 2,
                    "rest": 1,
                    "x": True,
                },
                "attributes": {"kind": "ab"[number % 2], "is_new": number % 3 > 0, "number": 7},
            }
            for number in range(900)
        )
        await execute(each_empty_dsn, "ANALYZE items")
        yield database


@pytest.mark.slow
async def test_a_search_uses_the_index_of_the_rows_that_its_filter_says(db: Database) -> None:
    async with db.unit_of_work() as uow:
        for lane, some in ((db, SAID), (uow, SAID[::3])):
            items = lane.collection(Item)
            for where, index in some:
                query = [2.0, 3, 4, 5, 6, 7, 8, 9]
                plan = await items.explain(query, where=where, limit=5)
                assert index in plan.indexes, (where, plan)
                found = await items.search(query, where=where, limit=5)
                exact = await items.search(query, where=where, limit=5, exact=True)
                assert [round(hit.score, 5) for hit in found] == [
                    round(hit.score, 5) for hit in exact
                ]
            for where in OTHERS[:3]:
                assert "ix_items_vec" not in (await items.explain(query, where=where)).indexes
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
