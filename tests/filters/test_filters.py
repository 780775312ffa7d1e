"""Filters over payloads: what they match, which indexes serve them, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from sqlalchemy import (
    Column,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import InvalidInputError, QortexVector, Settings
from qortex_db.filters import payload_index, read_filter
from qortex_db.filters.operators import ELEMENT, NEGATED, OPERATORS
from qortex_db.filters.reader import MAX_CONDITIONS, MAX_DEPTH
from qortex_db.filters.values import MAX_LIST, successor
from support import filter_oracle as oracle
from support.pages import BLOCK, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

EVERY = OPERATORS.keys() | NEGATED.keys() | {ELEMENT}
PAGE = Path(__file__).parents[2] / "docs/vectors/filters.md"


def notes(name: str = "notes") -> Table:
    """A table of its own, since an index stays declared on it."""
    return Table(
        name,
        MetaData(),
        Column("id", Text, primary_key=True),
        Column("payload", JSONB),
        Column("document", Text),
    )


def indexed_notes() -> Table:
    table = notes()
    payload_index(table, "", "containment")
    for path in ("a", "b", "a.b", "a.0"):
        for kind in ("keyword", "integer", "bool", "instant"):
            payload_index(table, path, kind)
        payload_index(table, path, "text")
    payload_index(table, "a.lat", "float")
    return table


@asynccontextmanager
async def connected(dsn: str, *tables: Table) -> AsyncIterator[AsyncConnection]:
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
    async with engine.connect() as connection:
        for table in tables:
            await connection.run_sync(table.metadata.drop_all)
            await connection.run_sync(table.metadata.create_all)
        await connection.commit()
        yield connection
    await engine.dispose()


async def found(connection: AsyncConnection, table: Table, where: Any) -> list[str]:
    """By the condition in each of the forms that statements have it in."""
    read = read_filter(where, table)
    answers = []
    for clause in (read.clause, read.planned_once, read.served):
        if clause is not None:
            statement = select(table.c.id).where(clause).order_by(table.c.id)
            answers.append(list((await connection.execute(statement, read.params)).scalars()))
    ids, by_plan, *by_index = answers
    assert by_plan == ids
    for each in by_index:  # what indexes serve may be a part of it
        assert set(ids) <= set(each)
    return ids


async def store(connection: AsyncConnection, table: Table, *payloads: Any) -> None:
    await connection.execute(delete(table))
    rows = [{"id": str(i), "payload": payload} for i, payload in enumerate(payloads)]
    await connection.execute(insert(table), rows)


def compare(dsn: str, strategy: Any, examples: int) -> None:
    """Documents and filters of a strategy, on the server and by the oracle; with indexes too."""
    tables = (notes("bare"), indexed_notes())
    with asyncio.Runner() as runner:
        context = connected(dsn, *tables)
        connection = runner.run(context.__aenter__())
        runner.run(connection.execute(text("SET enable_seqscan = off")))

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def check(case: tuple[list[Any], dict[str, Any]]) -> None:
            stored, where = case
            expected = [i for i, document in enumerate(stored) if oracle.holds(document, where)]
            for table in tables:
                runner.run(store(connection, table, *stored))
                got = runner.run(found(connection, table, where))
                assert sorted(map(int, got)) == expected, (table.name, stored, where)

        try:
            check()
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.mark.slow
@pytest.mark.parametrize("operator", oracle.ORACLE)
def test_an_operator_matches_what_the_oracle_says(operator: str, empty_dsn: str) -> None:
    compare(empty_dsn, oracle.cases(operator), 60)


@pytest.mark.slow
def test_combined_filters_match_what_the_oracle_says(empty_dsn: str) -> None:
    strategy = oracle.documents(oracle.VALUES).flatmap(
        lambda stored: oracle.TREES.map(lambda where: (stored, where))
    )
    compare(empty_dsn, strategy, 150)


def test_the_oracle_knows_every_operator() -> None:
    assert oracle.ORACLE.keys() == oracle.ARGUMENTS.keys() == EVERY


# ---- known answers -------------------------------------------------------------------------------

SHELF: dict[str, Any] = {
    "dune": {
        "title": "Dune",
        "year": 1965,
        "price": 9.5,
        "tags": ["desert", "politics"],
        "author": {"name": "Frank Herbert", "born": "1920-10-08"},
        "read": True,
        "editions": [{"year": 1965, "pages": 412}, {"year": 1984, "pages": 604}],
        "place": {"lat": 44.0, "lon": -124.1},
    },
    "solaris": {
        "title": "Solaris",
        "year": 1961.0,
        "price": None,
        "tags": ["ocean"],
        "author": {"name": "Stanisław Lem", "born": "1921-09-12"},
        "read": False,
        "editions": [],
        "place": {"lat": 50.06, "lon": 19.94},
        "added": "2024-05-01T10:00:00+00:00",
    },
    "fiasco": {
        "title": "Fiasco 100%",
        "year": "1986",
        "tags": [],
        "author": {"name": "stanisław lem"},
        "place": {"lat": "50", "lon": 19.9},
        "added": "2024-05-01T12:30:00+00:00",
    },
    "fiji": {"year": True, "tags": "ocean view", "place": {"lat": -17.7, "lon": 179.9}},
    "taveuni": {"tags": [["ocean"], None, 1], "place": {"lat": -16.9, "lon": -179.9}},
    "nothing": {},
    "null": {"year": None, "tags": None, "author": None, "a.b": 1, "$price": 5},
}
ALL = set(SHELF)
BERLIN = timezone(timedelta(hours=2))


def at(lat: float, lon: float) -> dict[str, float]:
    return {"lat": lat, "lon": lon}


PACIFIC = [at(-20, 175), at(-20, 190), at(-10, 190), at(-10, 175)]
# On its edge is not in it: Taveuni is, by more than that.
HOLE = [at(-17.7, 179.9), at(-17.7, 181), at(-16, 181), at(-16, 179.9)]
KNOWN: list[tuple[dict[str, Any], set[str]]] = [
    ({}, ALL),
    ({"title": "Dune"}, {"dune"}),
    ({"title": "dune"}, set()),
    ({"year": 1965}, {"dune"}),
    ({"year": 1961}, {"solaris"}),
    ({"year": 1965.0}, {"dune"}),
    ({"year": "1986"}, {"fiasco"}),
    ({"year": 1986}, set()),
    ({"year": True}, {"fiji"}),
    ({"year": 1}, set()),
    ({"read": True}, {"dune"}),
    ({"read": False}, {"solaris"}),
    ({"year": None}, {"taveuni", "nothing", "null"}),
    ({"year": {"$eq": None}}, {"taveuni", "nothing", "null"}),
    ({"year": {"$ne": None}}, {"dune", "solaris", "fiasco", "fiji"}),
    ({"year": {"$ne": 1965}}, ALL - {"dune"}),
    ({"year": {"$in": [1965, "1986", 7]}}, {"dune", "fiasco"}),
    ({"year": {"$in": [1965, None]}}, {"dune", "taveuni", "nothing", "null"}),
    ({"year": {"$in": []}}, set()),
    ({"year": {"$nin": [1965, "1986"]}}, ALL - {"dune", "fiasco"}),
    ({"year": {"$nin": [None]}}, {"dune", "solaris", "fiasco", "fiji"}),
    ({"year": {"$nin": []}}, ALL),
    ({"year": {"$gte": 1961, "$lt": 1965}}, {"solaris"}),
    ({"year": {"$gt": 1961}}, {"dune"}),
    ({"year": {"$gt": "1985"}}, {"fiasco"}),
    ({"year": {"$lte": 1e300}}, {"dune", "solaris"}),
    ({"year": {"$not": {"$gte": 1965}}}, ALL - {"dune"}),
    ({"year": {"$between": [1961, 1965]}}, {"dune", "solaris"}),
    ({"year": {"$between": [1965, 1961]}}, set()),
    ({"author.born": {"$lt": "1921"}}, {"dune"}),
    ({"author.born": {"$between": [date(1921, 1, 1), date(1921, 12, 31)]}}, {"solaris"}),
    ({"added": {"$gt": datetime(2024, 5, 1, 14, tzinfo=BERLIN)}}, {"fiasco"}),
    ({"added": datetime(2024, 5, 1, 10, tzinfo=UTC)}, {"solaris"}),
    ({"price": {"$exists": True}}, {"dune", "solaris"}),
    ({"price": {"$exists": False}}, ALL - {"dune", "solaris"}),
    ({"author.name": {"$exists": True}}, {"dune", "solaris", "fiasco"}),
    ({"tags": {"$contains": "ocean"}}, {"solaris", "fiji"}),
    ({"tags": {"$contains": ["ocean"]}}, {"taveuni"}),
    ({"tags": {"$contains": None}}, {"taveuni"}),
    ({"tags": {"$contains": 1}}, {"taveuni"}),
    ({"tags": {"$any": ["ocean", "desert"]}}, {"dune", "solaris"}),
    ({"tags": {"$any": []}}, set()),
    ({"tags": {"$all": ["politics", "desert"]}}, {"dune"}),
    ({"tags": {"$all": []}}, {"dune", "solaris", "fiasco", "taveuni"}),
    ({"tags": []}, {"fiasco"}),
    ({"tags": ["desert", "politics"]}, {"dune"}),
    ({"tags": ["politics", "desert"]}, set()),
    ({"tags": {"$ne": ["ocean"]}}, ALL - {"solaris"}),
    ({"author": {"$eq": {"name": "stanisław lem"}}}, {"fiasco"}),
    ({"author": {"$eq": {"name": "Frank Herbert"}}}, set()),
    ({"author": {"$in": [{"born": "1921-09-12", "name": "Stanisław Lem"}]}}, {"solaris"}),
    ({"author.name": {"$like": "%Lem"}}, {"solaris"}),
    ({"author.name": {"$like": "Stan%"}}, {"solaris"}),
    ({"author.name": {"$ilike": "%LEM"}}, {"solaris", "fiasco"}),
    ({"title": {"$like": r"%100\%"}}, {"fiasco"}),
    ({"title": {"$like": "D_ne"}}, {"dune"}),
    ({"tags": {"$text": "view -desert"}}, {"fiji"}),
    ({"title": {"$text": "dune or solaris"}}, {"dune", "solaris"}),
    ({"title": {"$text": {"$search": "dunes", "$language": "english"}}}, {"dune"}),
    ({"$text": "green"}, {"dune"}),
    ({"editions.0.year": 1965}, {"dune"}),
    ({"editions.-1.pages": {"$gt": 600}}, {"dune"}),
    ({"editions": {"$contains": {"pages": 604, "year": 1984}}}, {"dune"}),
    ({"editions": {"$contains": {"year": 1984}}}, set()),
    ({"a.b": 1}, set()),
    ({r"a\.b": 1}, {"null"}),
    ({r"\$price": {"$gte": 5}}, {"null"}),
    ({"place": {"$geo": {"lat": -17.0, "lon": 180, "radius_m": 100_000}}}, {"fiji", "taveuni"}),
    ({"place": {"$geo": {"lat": 50.06, "lon": 19.94, "radius_m": 0}}}, {"solaris"}),
    ({"place": {"$geo": {"lat": 90, "lon": 0, "radius_m": 4_442_000}}}, {"solaris"}),
    ({"place": {"$geo": {"lat": 90, "lon": 0, "radius_m": 4_440_000}}}, set()),
    (
        {"place": {"$geo": {"lat": 0, "lon": 0, "radius_m": 3e7}}},
        {"dune", "solaris", "fiji", "taveuni"},
    ),
    ({"tags": {"$size": 2}}, {"dune"}),
    ({"tags": {"$size": 0}}, {"fiasco"}),
    ({"tags": {"$size": {"$gte": 1, "$lt": 3}}}, {"dune", "solaris"}),
    ({"tags": {"$not": {"$size": 0}}}, ALL - {"fiasco"}),
    (
        {"place": {"$geo": {"min_lat": 40, "max_lat": 60, "min_lon": -130, "max_lon": 30}}},
        {"dune", "solaris"},
    ),
    (
        {"place": {"$geo": {"min_lat": -20, "max_lat": 0, "min_lon": 170, "max_lon": -170}}},
        {"fiji", "taveuni"},
    ),
    (
        {"place": {"$geo": {"min_lat": 44.0, "max_lat": 44, "min_lon": -124.1, "max_lon": 0}}},
        {"dune"},
    ),
    ({"title": {"$prefix": "Du"}}, {"dune"}),
    ({"title": {"$prefix": ""}}, {"dune", "solaris", "fiasco"}),
    ({"title": {"$prefix": "Dune"}}, {"dune"}),
    ({"title": {"$prefix": "Dune "}}, set()),
    ({"title": {"$prefix": "Fiasb"}}, set()),
    ({"title": {"$prefix": "Fiasco 100%"}}, {"fiasco"}),
    ({"year": {"$prefix": "19"}}, {"fiasco"}),
    ({"title": {"$prefix": "\U0010ffff"}}, set()),
    ({"title": {"$prefix": "D" * 300}}, set()),
    ({"title": {"$not": {"$prefix": "D"}}}, ALL - {"dune"}),
    ({"title": {"$regex": "^D.n"}}, {"dune"}),
    ({"title": {"$regex": r"\d+%$"}}, {"fiasco"}),
    ({"title": {"$regex": r"(?i)^(dune|SOL)"}}, {"dune", "solaris"}),
    ({"author.name": {"$regex": r"\bLem\b"}}, {"solaris"}),
    ({"title": {"$regex": ""}}, {"dune", "solaris", "fiasco"}),
    ({"title": {"$regex": "^Dune$"}}, {"dune"}),
    ({"editions[].pages": {"$gt": 600}}, {"dune"}),
    ({"editions[].year": 1984}, {"dune"}),
    ({"editions[].year": {"$in": [1984, 7]}}, {"dune"}),
    ({"editions[].year": {"$ne": 1984}}, {"dune"}),
    ({"editions[].pages": {"$gt": 412, "$lt": 604}}, set()),
    ({"$not": {"editions[].year": 1984}}, ALL - {"dune"}),
    ({"editions[].isbn": None}, {"dune"}),
    ({"editions": {"$elemMatch": {"year": 1984, "pages": 604}}}, {"dune"}),
    ({"editions": {"$elemMatch": {"year": 1984, "pages": 412}}}, set()),
    ({"editions[].year": 1984, "editions[].pages": 412}, {"dune"}),
    ({"editions": {"$elemMatch": {"year": 1984, "pages": {"$gte": 600}}}}, {"dune"}),
    ({"editions": {"$elemMatch": {"$or": [{"year": 1}, {"pages": 412}]}}}, {"dune"}),
    ({"editions": {"$elemMatch": {"$not": {"year": 1965}}}}, {"dune"}),
    ({"editions": {"$elemMatch": {}}}, {"dune"}),
    ({"tags[]": "ocean"}, {"solaris"}),
    ({"tags[]": {"$prefix": "p"}}, {"dune"}),
    ({"tags": {"$elemMatch": {"$gte": 1, "$lt": 2}}}, {"taveuni"}),
    ({"tags[]": None}, {"taveuni"}),
    ({"tags[][]": "ocean"}, {"taveuni"}),
    ({"tags[].0": "ocean"}, {"taveuni"}),
    ({"author[]": {"$exists": True}}, set()),
    (
        {"$min_should": {"conditions": [{"year": 1965}, {"read": True}, {"x": 1}], "min_count": 2}},
        {"dune"},
    ),
    (
        {
            "$min_should": {
                "conditions": [{"read": {"$ne": True}}, {"title": None}, {"tags[]": None}],
                "min_count": 2,
            }
        },
        {"fiji", "taveuni", "nothing", "null"},
    ),
    (
        {"$min_should": {"conditions": [{"year": 1965}, {"year": 1961}], "min_count": 1}},
        {"dune", "solaris"},
    ),
    ({"$min_should": {"conditions": [{"year": 1965}, {"read": False}], "min_count": 2}}, set()),
    ({"place": {"$geo": {"exterior": PACIFIC}}}, {"fiji", "taveuni"}),
    ({"place": {"$geo": {"exterior": [at(40, -99), at(40, -130), at(60, -130)]}}}, {"dune"}),
    ({"place": {"$geo": {"exterior": [*PACIFIC, PACIFIC[0]]}}}, {"fiji", "taveuni"}),
    ({"place": {"$geo": {"exterior": PACIFIC, "interiors": [HOLE]}}}, {"fiji"}),
    ({"place": {"$geo": {"exterior": [at(44, -125), at(44, -124), at(50, -124)]}}}, {"dune"}),
    ({"place": {"$geo": {"exterior": [at(44, -124.1), at(40, 0), at(50, 0)]}}}, {"dune"}),
    ({"place": {"$not": {"$geo": {"exterior": PACIFIC}}}}, ALL - {"fiji", "taveuni"}),
    ({"$id": ["dune", "fiji", "gone"]}, {"dune", "fiji"}),
    ({"$id": "dune"}, {"dune"}),
    ({"$id": []}, set()),
    ({"$not": {"$id": ["dune", "fiji"]}}, ALL - {"dune", "fiji"}),
    ({"$id": ["dune", "solaris"], "year": {"$lt": 1965}}, {"solaris"}),
    ({"$nor": [{"year": 1965}, {"read": False}]}, ALL - {"dune", "solaris"}),
    ({"$nor": [{"year": {"$gt": 0}}]}, ALL - {"dune", "solaris"}),
    ({"$or": [{"year": 1965}, {"read": False}]}, {"dune", "solaris"}),
    ({"$not": {"year": {"$gt": 1961}}}, ALL - {"dune"}),
    ({"$and": [{"read": {"$exists": True}}, {"$not": {"read": True}}]}, {"solaris"}),
    ({"read": True, "year": 1961}, set()),
]


async def test_filters_have_the_answers_that_are_known(each_empty_dsn: str) -> None:
    for table in (notes(), indexed_notes()):
        async with connected(each_empty_dsn, table) as connection:
            rows = [
                {"id": name, "payload": payload, "document": "green" if name == "dune" else None}
                for name, payload in SHELF.items()
            ]
            await connection.execute(insert(table), rows)
            if table.indexes:
                await connection.execute(text("SET enable_seqscan = off"))
            for where, expected in KNOWN:
                assert set(await found(connection, table, where)) == expected, where


async def test_a_row_without_a_payload_has_no_keys(empty_dsn: str) -> None:
    table = notes()
    async with connected(empty_dsn, table) as connection:
        await connection.execute(text("INSERT INTO notes VALUES ('a')"))
        for where in ({"x": None}, {"x": {"$ne": 1}}, {"x": {"$exists": False}}, {}):
            assert await found(connection, table, where) == ["a"], where
        for where in ({"x": 1}, {"x": {"$gt": 1}}, {"$text": "x"}):
            assert await found(connection, table, where) == [], where


async def test_expressions_of_sqlalchemy_mix_with_dictionaries(empty_dsn: str) -> None:
    table = notes()
    async with connected(empty_dsn, table) as connection:
        await store(connection, table, {"a": 1}, {"a": 2}, {"a": 3})
        first = table.c.id < "2"
        assert await found(connection, table, first) == ["0", "1"]
        assert await found(connection, table, {"$and": [{"a": {"$gt": 1}}, first]}) == ["1"]
        assert await found(connection, table, {"$or": [first, {"a": 3}]}) == ["0", "1", "2"]
        assert await found(connection, table, {"$not": first, "a": {"$ne": 1}}) == ["2"]
        assert await found(connection, table, table.c.document == "x") == []
    mixed = read_filter({"$and": [QortexVector.document, {"a": 1}]}, QortexVector.__table__)
    assert mixed.key is None
    assert mixed.params == {"row_where_0": '{"a":1}'}


async def test_an_expression_over_another_table_is_refused(empty_dsn: str) -> None:
    """It would meet each row once for each of the other's: a delete, all or none."""
    table, other = notes(), Table("others", MetaData(), Column("id", Text))
    alias = table.alias()
    for where in (
        other.c.id == "0",
        alias.c.id == "0",
        (table.c.id == "0") & (other.c.id == "0"),
        {"$or": [{"a": 1}, other.c.id == "0"]},
        func.jsonb_each(table.c.payload).table_valued("key").c.key == "a",
    ):
        with pytest.raises(InvalidInputError, match=r"^where.* looks at a table or alias beside"):
            read_filter(where, table)
    async with connected(empty_dsn, table) as connection:
        await store(connection, table, {"a": 1}, {"a": 2})
        same = alias.c.payload == table.c.payload
        for where in (
            select(alias.c.id).where(same, alias.c.id == "1").exists(),
            table.c.id.in_(select(alias.c.id).where(alias.c.id == "1")),
            table.c.id == select(func.max(alias.c.id)).scalar_subquery(),
            literal_column("id") == "1",
        ):
            assert await found(connection, table, where) == ["1"]


async def test_a_filter_works_in_a_delete_and_in_a_subquery(empty_dsn: str) -> None:
    table = notes()
    read = read_filter({"a": {"$any": [{"b": 1}]}}, table)
    async with connected(empty_dsn, table) as connection:
        await store(connection, table, {"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}, {})
        inner = select(table.c.id).where(read.clause).subquery()
        assert list((await connection.execute(select(inner.c.id), read.params)).scalars()) == ["0"]
        await connection.execute(delete(table).where(read.clause), read.params)
        assert await found(connection, table, {}) == ["1", "2"]


def test_what_comes_after_all_that_begins_with_a_text() -> None:
    for start, after in (
        ("a", "b"),
        ("a\ud7ff", "a\ue000"),
        ("a\U0010ffff", "b"),
        ("\U0010ffff" * 2, None),
        ("", None),
    ):
        assert successor(start) == after


# ---- shapes --------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a value": ({"a": 1}, {"a": "x"}),
    "a range": ({"a": {"$gte": 1, "$lt": 2}}, {"a": {"$gte": 3.5, "$lt": 4}}),
    "a list": ({"a": {"$in": [1]}}, {"a": {"$in": ["x", True, 3.5]}}),
    "elements": ({"a": {"$all": [1, 2]}}, {"a": {"$all": ["x"]}}),
    "a place": (
        {"a": {"$geo": {"lat": 90, "lon": 0, "radius_m": 1}}},
        {"a": {"$geo": {"lat": 1.5, "lon": 2, "radius_m": 1e7}}},
    ),
    "a box": (
        {"a": {"$geo": {"min_lat": 0, "max_lat": 1, "min_lon": 0, "max_lon": 1}}},
        {"a": {"$geo": {"min_lat": 2, "max_lat": 3.5, "min_lon": -8, "max_lon": 10}}},
    ),
    "a polygon": (
        {"a": {"$geo": {"exterior": [at(0, 0), at(0, 1), at(1, 1)]}}},
        {"a": {"$geo": {"exterior": PACIFIC, "interiors": [HOLE]}}},
    ),
    "a prefix": ({"a": {"$prefix": "x"}}, {"a": {"$prefix": "yz"}}),
    "an expression": ({"a": {"$regex": "x*"}}, {"a": {"$regex": "(a|b)"}}),
    "an element": ({"a[].b": 1}, {"a": {"$elemMatch": {"b": "x"}}}),
    "elements by bounds": ({"a[].b": {"$gt": 1}}, {"a": {"$elemMatch": {"b": {"$gt": 2.5}}}}),
    "ids": ({"$id": "a"}, {"$id": ["b", "c"]}),
    "a size": ({"a": {"$size": 1}}, {"a": {"$size": {"$eq": 3}}}),
    "a tree": (
        {"$or": [{"a.b": {"$ne": 1}}, {"$not": {"c": {"$like": "x%"}}}]},
        {"$or": [{"a.b": {"$ne": 2}}, {"$not": {"c": {"$like": "yz%"}}}]},
    ),
}


LISTED: tuple[Any, ...] = (
    *range(40),
    *(f"k{i}" for i in range(40)),
    [1, 2],
    {"x": 1},
    None,
    True,
    1.5,
    "k1" * 150,
)
"""Values that some lists have."""


@pytest.mark.parametrize("count", [1, 99, 100, 999, 1_000])
async def test_lists_of_any_length_mean_the_same(empty_dsn: str, count: int) -> None:
    lists: dict[str, list[Any]] = {
        "numbers": [i * 2 for i in range(count)],
        "strings": [f"k{i * 2}" for i in range(count)],
        "long strings": ["k1" * 150, *(f"k{i}" for i in range(count - 1))],
        "mixed": [[1, 2], *(i * 3 for i in range(count - 1))],
        "nested": [{"x": i} for i in range(count)],
        "null": [None, *range(count - 1)],
    }
    stored = [*({"a": value, "b": [value], "c": [[value, 9]]} for value in LISTED), {}]
    wheres = [
        {path: {operator: values}}
        for values in lists.values()
        for operator, paths in (("$in", ("a", "b.0", "c.0[]")), ("$any", ("b", "c.0")))
        for path in paths
    ]
    every = set(range(len(stored)))
    expected = []
    for where in wheres:
        right = [i for i, each in enumerate(stored) if oracle.holds(each, where)]
        expected += [(where, right), ({"$not": where}, sorted(every - set(right)))]
        ((path, condition),) = where.items()
        if "$in" in condition and "[]" not in path:
            expected.append(({path: {"$nin": condition["$in"]}}, expected[-1][1]))
    tables = (notes("bare"), indexed_notes())
    async with connected(empty_dsn, *tables) as connection:
        for table in tables:
            await store(connection, table, *stored)
            for where, right in expected:
                assert sorted(map(int, await found(connection, table, where))) == right
            ids = [str(i) for i in range(0, 2 * count, 2)]
            even = [str(i) for i in range(0, min(2 * count, len(stored)), 2)]
            assert set(await found(connection, table, {"$id": ids})) == set(even)
            left = await found(connection, table, {"$not": {"$id": ids}})
            assert len(left) == len(stored) - len(even)


async def test_a_long_list_is_hashed_where_plans_are_kept(empty_dsn: str) -> None:
    table = notes()
    wheres = (
        {"a": {"$nin": list(range(1_000))}},
        {"a": {"$nin": list(range(100))}},
        {"$not": {"$id": [str(i) for i in range(1_000)]}},
        {"a": {"$in": list(range(1_000))}},
        {"a": {"$any": list(range(1_000))}},
        {"a": {"$any": [MARCH + timedelta(days=i) for i in range(1_000)]}},
        {"a[].b": {"$in": list(range(1_000))}},
    )
    async with connected(empty_dsn, table) as connection:
        for where in wheres:
            shown = await plan(connection, table, where, "force_generic_plan")
            assert "hashed SubPlan" in shown
            assert "= ANY" not in shown
            assert "Join" not in shown


@pytest.mark.parametrize("name", SHAPES)
def test_filters_of_one_shape_share_a_key_and_a_clause(name: str) -> None:
    table = notes()
    first, second = (read_filter(where, table) for where in SHAPES[name])
    assert first.key is not None
    assert first.key == second.key
    assert hash(first.key) == hash(second.key)
    assert first.params.keys() == second.params.keys()
    assert first.params != second.params
    sql = [
        str(select(table.c.id).where(read.clause).compile(dialect=dialect()))
        for read in (first, second)
    ]
    assert sql[0] == sql[1]
    compiled = first.clause.compile(dialect=dialect())
    assert set(compiled.params) == set(first.params)
    assert not any(compiled.params.values())  # no value is in the clause


def test_filters_of_other_shapes_have_other_keys() -> None:
    table = indexed_notes()
    filters = [
        {},
        {"a": 1},
        {"a": "x"},
        {"b": 1},
        {"a.b": 1},
        {"a": None},
        {"a": {"$ne": 1}},
        {"a": {"$gt": 1}},
        {"a": {"$gt": "1"}},
        {"a": {"$gte": 1}},
        {"a": {"$eq": [1]}},
        {"a": {"$in": [1, None]}},
        {"a": 1, "b": 1},
        {"$or": [{"a": 1}, {"b": 1}]},
        {"$not": {"a": 1, "b": 1}},
        {"a": {"$text": "x"}},
        {"a": {"$text": {"$search": "x", "$language": "english"}}},
        {"$text": "x"},
        {"$id": "x"},
        {"$nor": [{"a": 1}, {"b": 1}]},
        {"a": {"$size": 1}},
        {"a": {"$size": {"$gt": 1}}},
        {"a": {"$geo": {"min_lat": 0, "max_lat": 1, "min_lon": 0, "max_lon": 1}}},
        {"a": {"$geo": {"min_lat": 0, "max_lat": 1, "min_lon": 1, "max_lon": 0}}},
        {"a": {"$geo": {"exterior": PACIFIC}}},
        {"a": {"$prefix": "x"}},
        {"a": {"$regex": "x"}},
        {"a": {"$regex": "^x"}},
        {"a[].b": 1},
        {"a[].b": {"$gt": 1}},
        {"a[].b": {"$gt": 1, "$lt": 1}},
        {"a": {"$elemMatch": {"b": 1, "c": 1}}},
        {"a": {"$any": list(range(100))}},
        *(
            {"$min_should": {"conditions": [{"a": 1}, {"b": 1}, {"c": 1}], "min_count": least}}
            for least in (1, 2, 3)
        ),
    ]
    assert len({read_filter(where, table).key for where in filters}) == len(filters)


# ---- refusals ------------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        where = {"$not": where}
    return where


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


SECRET = "s3cr3t"  # noqa: S105 - a value that no message may show
NAIVE = datetime(2025, 1, 1)  # noqa: DTZ001
REFUSED: dict[str, tuple[Any, str]] = {
    "no filter": (None, "where is a NoneType"),
    "a list": ([{"a": 1}], "where is a list"),
    "a string": (SECRET, "where is a str"),
    "text()": (text("id = 'a'"), "where is a TextClause"),
    "a key that is a number": ({1: 2}, "where has a key of type int"),
    "an unknown operator": ({"year": {"$near": 1}}, r"where\['year'\]\['\$near'\] is no operator"),
    "an operator without its dollar": ({"year": {"gte": 1}}, r"\['year'\]\['gte'\] is no op"),
    "an operator in capitals": ({"year": {"$GTE": 1}}, r"\['year'\]\['\$GTE'\]"),
    "a number as operator": ({"year": {1: 1}}, r"\['year'\] is no operator"),
    "no operator": ({"year": {}}, r"\['year'\] has no operator"),
    "an operator in place of a path": ({"$gt": 1}, r"where\['\$gt'\] is no operator"),
    "a path beside operators": ({"a": {"$gt": 1, "b": 2}}, r"\['a'\]\['b'\]"),
    "$and of nothing": ({"$and": []}, r"\['\$and'\] takes a list"),
    "$or of nothing": ({"$or": []}, r"\['\$or'\] takes a list"),
    "$or of a dict": ({"$or": {"a": 1}}, r"\['\$or'\] takes a list"),
    "$or of a string": ({"$or": SECRET}, r"\['\$or'\] takes a list"),
    "$or of strings": ({"$or": [{"a": 1}, SECRET]}, r"\['\$or'\]\[1\] is a str"),
    "$not of a list": ({"$not": [{"a": 1}]}, r"\['\$not'\] is a list"),
    "$or on a path": ({"a": {"$or": [1, 2]}}, r"\['a'\]\['\$or'\]"),
    "too deep": (nested(MAX_DEPTH + 1), "more than 16 levels"),
    "too deep on a path": ({"a": nested(MAX_DEPTH + 1)}, "more than 16 levels|is no operator"),
    "too many": ({"$or": [{"a": 1}] * (MAX_CONDITIONS + 1)}, r"\[256\].*more than 256 conditions"),
    "an empty path": ({"": 1}, "path '' has an empty key"),
    "an empty step": ({"a..b": 1}, r"'a\.\.b' has an empty key"),
    "a dot in front": ({".a": 1}, "empty key"),
    "a dot at the end": ({"a.": 1}, "empty key"),
    "a stray backslash": ({"a\\b": 1}, "stray backslash"),
    "a backslash at the end": ({"a\\": 1}, "stray backslash"),
    "a long path": ({"a" * 257: 1}, "has 257 characters"),
    "NUL in a path": ({"a\x00": 1}, r"a\\x00' contains NUL"),
    "a surrogate in a path": ({"a\ud800": 1}, "lone surrogate"),
    "NaN": ({"a": float("nan")}, r"\['a'\].*NaN"),
    "infinity": ({"a": {"$gt": float("inf")}}, r"\['a'\]\['\$gt'\] is NaN or infinite"),
    "NaN in a list": ({"a": {"$in": [1.0, float("nan")]}}, r"\['a'\]\['\$in'\] is NaN"),
    "NaN in an object": ({"a": {"$eq": {"b": [float("nan")]}}}, r"\['a'\].*\.b\[0\] is nan"),
    "a huge number": ({"a": 2**2000}, "1,024 bits"),
    "NUL": ({"a": SECRET + "\x00"}, r"\['a'\].*contains NUL"),
    "a surrogate": ({"a": {"$like": "\ud800"}}, r"\['a'\].*lone surrogate"),
    "a surrogate in an object": (
        {"a": {"$eq": {"\udfff": 1}}},
        r"\['a'\].* has a key.*lone surrogate",
    ),
    "a naive datetime": ({"a": NAIVE}, r"\['a'\].*time zone"),
    "a Decimal that is no number": ({"a": Decimal("NaN")}, r"\['a'\].* is NaN, which JSON can't"),
    "bytes": ({"a": b"x"}, r"\['a'\].*bytes"),
    "a set": ({"a": {1}}, r"\['a'\].*set"),
    "an expression as a value": (
        {"a": {"$gt": bindparam("x")}},
        r"\['a'\]\['\$gt'\].*BindParameter",
    ),
    "a key of an object that is a number": ({"a": {"$eq": {1: 1}}}, "key of type int"),
    "a deep value": ({"a": deep(101)}, r"\['a'\].*100 levels"),
    "$gt of a bool": ({"a": {"$gt": True}}, r"\['a'\]\['\$gt'\] is a bool"),
    "$gt of None": ({"a": {"$gt": None}}, "NoneType"),
    "$lt of a list": ({"a": {"$lt": [1]}}, r"\['a'\]\['\$lt'\] is a list"),
    "$lte of a dict": ({"a": {"$lte": {"b": 1}}}, "is a dict"),
    "$in of a string": ({"a": {"$in": SECRET}}, r"\['\$in'\] is a str; pass a list"),
    "$in of a dict": ({"a": {"$in": {"b": 1}}}, "is a dict; pass a list"),
    "$nin of a number": ({"a": {"$nin": 1}}, r"\['\$nin'\] is a int"),
    "$in of too many": ({"a": {"$in": list(range(MAX_LIST + 1))}}, "10,001 values; at most 10,000"),
    "$any of a string": ({"a": {"$any": SECRET}}, r"\['\$any'\] is a str"),
    "$all of None": ({"a": {"$all": None}}, r"\['\$all'\] is a NoneType"),
    "$between one": ({"a": {"$between": [1]}}, "list of two"),
    "$between a number": ({"a": {"$between": 1}}, "list of two"),
    "$between two types": ({"a": {"$between": [1, "2"]}}, "two types"),
    "$between bools": ({"a": {"$between": [False, True]}}, "is a bool"),
    "$exists of 1": ({"a": {"$exists": 1}}, r"\['\$exists'\] is a int"),
    "$like of a number": ({"a": {"$like": 1}}, r"\['\$like'\] is a int"),
    "$like that ends with the escape": ({"a": {"$like": "x\\"}}, r"\['\$like'\] ends with"),
    "$ilike that ends with the escape": ({"a": {"$ilike": "x\\\\\\"}}, "ends with"),
    "a long pattern": ({"a": {"$like": "x" * 1001}}, "1,001 characters"),
    "$text of a list": ({"a": {"$text": ["x"]}}, r"\['\$text'\] is a list"),
    "$text without a search": ({"a": {"$text": {"$language": "english"}}}, r"\$search"),
    "$text with more": ({"a": {"$text": {"$search": "x", "$case": 1}}}, r"\$search"),
    "$text in no language": (
        {"a": {"$text": {"$search": "x", "$language": "english'); DROP TABLE notes --"}}},
        r"\['\$language'\] is no name of a text search configuration",
    ),
    "$text of the document as a list": ({"$text": []}, r"where\['\$text'\] is a list"),
    "$geo without a radius": ({"a": {"$geo": {"lat": 1, "lon": 2}}}, "radius_m"),
    "$geo of a list": ({"a": {"$geo": [1, 2, 3]}}, "takes a dict of lat"),
    "$geo beyond the pole": (
        {"a": {"$geo": {"lat": 91, "lon": 2, "radius_m": 1}}},
        r"\['\$geo'\]\['lat'\] has to be",
    ),
    "$geo beyond the antimeridian": (
        {"a": {"$geo": {"lat": 1, "lon": -181, "radius_m": 1}}},
        r"\['lon'\] has to be",
    ),
    "$geo of NaN": ({"a": {"$geo": {"lat": float("nan"), "lon": 0, "radius_m": 1}}}, "NaN"),
    "$geo of a bool": ({"a": {"$geo": {"lat": True, "lon": 0, "radius_m": 1}}}, "bool"),
    "$geo of a box without a side": (
        {"a": {"$geo": {"min_lat": 1, "max_lat": 2, "min_lon": 3}}},
        "of min_lat, max_lat, min_lon, max_lon",
    ),
    "$geo of a box upside down": (
        {"a": {"$geo": {"min_lat": 2, "max_lat": 1, "min_lon": 3, "max_lon": 4}}},
        r"\['min_lat'\] is above",
    ),
    "$geo of a box beyond the pole": (
        {"a": {"$geo": {"min_lat": 2, "max_lat": 91, "min_lon": 3, "max_lon": 4}}},
        r"\['max_lat'\] has to be",
    ),
    "$size of a float": ({"a": {"$size": 1.0}}, r"\['\$size'\] has to be a whole number"),
    "$size of a bool": ({"a": {"$size": True}}, "whole number"),
    "$size below zero": ({"a": {"$size": -1}}, "whole number from 0"),
    "$size of too many": ({"a": {"$size": 2**31}}, "whole number from 0"),
    "$size of nothing": ({"a": {"$size": {}}}, r"a dict of \$eq"),
    "$size by another operator": ({"a": {"$size": {"$ne": 1}}}, r"a dict of \$eq"),
    "$id of a bool": ({"$id": True}, r"where\['\$id'\] is a bool; pass a list"),
    "$id of floats": ({"$id": [7.5]}, r"\['\$id'\] has a float among its ids; pass a str"),
    "$id of NUL": ({"$id": ["a\x00"]}, r"\['\$id'\] contains NUL"),
    "$id of a path": ({"a": {"$id": ["a"]}}, r"\['\$id'\] is no operator"),
    "$nor of nothing": ({"$nor": []}, r"\['\$nor'\] takes a list"),
    "$prefix of a number": ({"a": {"$prefix": 1}}, r"\['\$prefix'\] is a int; pass a string"),
    "$prefix of a kilobyte": ({"a": {"$prefix": "x" * 1001}}, "1,001 characters"),
    "$prefix of NUL": ({"a": {"$prefix": "\x00"}}, "contains NUL"),
    "$regex of NUL": ({"a": {"$regex": "a\x00"}}, "contains NUL"),
    "$regex of a kilobyte": ({"a": {"$regex": "x" * 1001}}, "1,001 characters"),
    "$min_should of nothing": (
        {"$min_should": {"conditions": [], "min_count": 1}},
        r"\['conditions'\] takes a list of at least one",
    ),
    "$min_should of a list": ({"$min_should": [{"a": 1}]}, "takes a dict of conditions"),
    "$min_should of more": (
        {"$min_should": {"conditions": [{"a": 1}], "min_count": 2}},
        r"\['min_count'\] has to be a whole number from 1 to 1",
    ),
    "$min_should of a bool": (
        {"$min_should": {"conditions": [{"a": 1}], "min_count": True}},
        "not a bool",
    ),
    "$min_should of a bad one": (
        {"$min_should": {"conditions": [{"a": {"$gt": SECRET, "$no": 1}}], "min_count": 1}},
        r"\['conditions'\]\[0\]\['a'\]\['\$no'\] is no operator",
    ),
    "$elemMatch of a value": ({"a": {"$elemMatch": SECRET}}, r"\['\$elemMatch'\].* dict"),
    "$elemMatch of ids": ({"a": {"$elemMatch": {"$id": "a"}}}, r"\['\$id'\] is no operator"),
    "$elemMatch of an expression": (
        {"a": {"$elemMatch": {"$and": [QortexVector.id == "a"]}}},
        r"\['\$and'\]\[0\] is an expression, which can't look at an element",
    ),
    "elements of nothing": ({"[].a": 1}, "has an empty key"),
    "elements amid a key": ({"a[]b": 1}, r"a \[\] that is not"),
    "a stray dot": ({"a[].": 1}, r"has an empty key"),
    "elements too deep": ({"a" + "[]" * 17: 1}, "nested more than 16"),
    "a polygon of two": (
        {"a": {"$geo": {"exterior": [at(0, 0), at(1, 1), at(0, 0)]}}},
        "fewer than 3",
    ),
    "a polygon of 1,001": ({"a": {"$geo": {"exterior": [at(0, 0)] * 1001}}}, "more than 1,000"),
    "holes of 1,001": (
        {"a": {"$geo": {"exterior": PACIFIC, "interiors": [PACIFIC] * 250}}},
        "more than 1,000",
    ),
    "a corner that is a list": (
        {"a": {"$geo": {"exterior": [[0, 0]] * 3}}},
        r"\['exterior'\]\[0\] takes",
    ),
    "a corner of strings": (
        {"a": {"$geo": {"exterior": [at("0", 1)] * 3}}},  # type: ignore[arg-type]
        r"\['exterior'\]\[0\]\['lat'\] is a str",
    ),
    "a corner too far": ({"a": {"$geo": {"exterior": [at(0, 361)] * 3}}}, "from -360 to 360"),
    "a polygon too wide": (
        {"a": {"$geo": {"exterior": [at(0, -200), at(0, 200), at(9, 0)]}}},
        "wider than 360 degrees",
    ),
    "a polygon with more": (
        {"a": {"$geo": {"exterior": PACIFIC, "radius": 1}}},
        "exterior and interiors",
    ),
    "a hole that is none": (
        {"a": {"$geo": {"exterior": PACIFIC, "interiors": [7]}}},
        r"\[0\] is a int",
    ),
    "$geo of a negative radius": (
        {"a": {"$geo": {"lat": 1, "lon": 0, "radius_m": -1}}},
        r"\['radius_m'\] has to be",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_place_and_no_value(name: str) -> None:
    where, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_filter(where, notes())
    assert SECRET not in str(caught.value)
    assert "\x00" not in str(caught.value)
    str(caught.value).encode()  # can be logged


def test_the_largest_filters_are_taken() -> None:
    table = notes()
    assert read_filter(nested(MAX_DEPTH), table).params
    assert len(read_filter({"$or": [{"a": 1}] * MAX_CONDITIONS}, table).params) == MAX_CONDITIONS
    assert read_filter({"a": {"$in": list(range(MAX_LIST))}, "a" * 256: deep(99)}, table).params
    assert read_filter({"a" + "[]" * MAX_DEPTH: {"$gt": 1}}, table).params
    assert read_filter(
        {"a": {"$geo": {"exterior": [at(i % 90, i % 7) for i in range(1000)]}}}, table
    )
    assert read_filter({"a": {"$text": "x" * 1000}, "b": -(2**1024) + 1}, table).params


def test_a_table_without_the_column_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="payload"):
        read_filter({"a": 1}, Table("bare", MetaData(), Column("id", Text)))
    with pytest.raises(InvalidInputError, match="document"):
        read_filter({"$text": "x"}, Table("bare", MetaData(), Column("payload", JSONB)))


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("a", "fulltext", "no kind of index"),
        ("a..b", "keyword", "has an empty key"),
        ("", "keyword", "is on a path"),
        ("a", "containment", "on the whole path"),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(path: str, kind: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        payload_index(notes(), path, kind)


@pytest.mark.parametrize(
    ("table", "says"),
    [(func.now(), "pass a Table"), (Table("t", MetaData(), Column("id", Text)), "no column")],
    ids=["a function", "no payload"],
)
def test_an_index_is_on_a_table_that_has_its_column(table: Any, says: str) -> None:
    for path, kind in (("a", "keyword"), ("", "document")):
        with pytest.raises(InvalidInputError, match=says):
            payload_index(table, path, kind)  # type: ignore[arg-type]


def test_a_repr_shows_no_values() -> None:
    assert SECRET not in repr(read_filter({"a": SECRET}, notes()))


EVIL = [
    "'; DROP TABLE notes; --",
    "a') OR ('1'='1",
    "$1",
    ":row_where_0",
    "%(row_where_0)s",
    "%s",
    "{}",
    '"',
    "\\'; DROP TABLE notes; --",
    "E'\\x27'",
    "]; --",
    "}'",
    "/*",
    "$$",
    "__[POSTCOMPILE_row_where_0]",
    "__[SCHEMA_public]",
]


async def test_keys_and_values_are_never_sql(empty_dsn: str) -> None:
    table = notes()
    async with connected(empty_dsn, table) as connection:
        for word in EVIL:
            await store(connection, table, {word: {"b": word, "c": [word]}}, {"x": 1})
            path = re.sub(r"([.\\$])", r"\\\1", word) + "."
            for where in (
                {path + "b": word},
                {path + "b": {"$in": [word]}},
                {path + "b": {"$gte": word}},
                {path + "c.0": word},
                {path + "c": {"$contains": word}},
                {path + "b": {"$exists": True}},
                {path + "b": {"$prefix": word}},
                {path + "b": {"$regex": f"^{re.escape(word)}$"}},
                {path + "c[]": word},
                {path + "c[]": {"$prefix": word[:1]}},
                {path[:-1]: {"$not": {"$elemMatch": {path + "x": word}}}, path + "b": word},
            ):
                assert await found(connection, table, where) == ["0"], where
            for operator in ("$like", "$ilike", "$text"):
                if not word.endswith("\\"):
                    await found(connection, table, {path + "b": {operator: word}})
            index = payload_index(notes(), path + "b", "keyword")
            await connection.run_sync(index.create)
            await connection.run_sync(index.drop)
            if word != "$1":
                sql = str(read_filter({"a": word}, table).clause.compile(dialect=dialect()))
                assert word not in sql


# ---- indexes -------------------------------------------------------------------------------------

ROWS = """
INSERT INTO notes SELECT i, jsonb_build_object(
    'kind', 'k' || i % 200, 'year', i % 125 + 1900, 'price', i / 7.0, 'flag', i % 100 = 0,
    'tags', jsonb_build_array('t' || i % 300, 'all'), 'title', 'title of number' || i,
    'added', to_char(timestamp '2024-01-01' + i * interval '1 hour', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    'author', jsonb_build_object('name', 'n' || i % 500),
    'half', i % 2,
    'parts', jsonb_build_array(jsonb_build_object('no', i % 900, 'size', i % 9)),
    'place', jsonb_build_object('lat', i % 180 - 90, 'lon', i % 360 - 180)
), 'document of number' || i FROM generate_series(1, 20000) AS i
"""
MARCH = datetime(2024, 3, 1, 5, tzinfo=UTC)
DECLARED = {
    ("kind", "keyword"): [
        {"kind": "k7"},
        {"kind": {"$in": ["k7", "k8"]}},
        {"kind": {"$gt": "k98"}},
        {"kind": {"$between": ["k98", "k99"]}},
        {"kind": {"$prefix": "k19"}},
        {"kind": {"$regex": "^k19[0-9]$"}},
        {
            "$min_should": {
                "conditions": [{"kind": "k1"}, {"kind": "k2"}, {"half": 1}],
                "min_count": 2,
            }
        },
    ],
    ("author.name", "keyword"): [{"author.name": "n7"}],
    ("year", "integer"): [
        {"year": 1950},
        {"year": {"$in": [1950, 1951.5]}},
        {"year": {"$lt": 1901}},
        {"year": {"$gte": 1950, "$lte": 1951}},
        {"year": {"$between": [1950, 1951]}},
        {"year": 1950, "title": {"$ne": "x"}},
    ],
    ("price", "float"): [{"price": {"$gt": 2850}}, {"price": {"$between": [7, 7.5]}}],
    ("added", "datetime"): [
        {"added": {"$lt": "2024-01-02"}},
        {"added": {"$in": ["2024-01-01T05:00:00Z", "2024-01-01T06:00:00Z"]}},
        {"added": {"$gte": "2024-03-01", "$lt": "2024-03-02"}},
    ],
    ("added", "instant"): [
        {"added": MARCH},
        {"added": {"$in": [MARCH, MARCH + timedelta(days=1)]}},
        {"added": {"$gte": MARCH, "$lt": MARCH + timedelta(days=1)}},
        {"added": {"$between": [MARCH, MARCH + timedelta(days=1)]}},
    ],
    ("flag", "bool"): [{"flag": True}],
    ("title", "text"): [{"title": {"$text": "number77"}}],
    ("place.lat", "float"): [
        {"place": {"$geo": {"lat": 52.5, "lon": 13.4, "radius_m": 50_000}}},
        {"place": {"$geo": {"min_lat": 52, "max_lat": 53, "min_lon": 170, "max_lon": -170}}},
        {"place": {"$geo": {"exterior": [at(52, 170), at(53, 180), at(52, 190)]}}},
    ],
    ("", "document"): [{"$text": "number77"}],
    ("", "containment"): [
        {"title": "title of number7"},
        {"title": {"$in": ["title of number5", "title of number6"]}},
        {"tags": {"$any": ["t7", "t8"]}},
        {"tags": {"$all": ["t7", "all"]}},
        {"tags": {"$contains": 7}},
        {"tags[]": "t7"},
        {"parts[].no": 77},
        {"parts[].no": {"$in": [77, 78]}},
        {"parts": {"$elemMatch": {"no": 77, "size": {"$gt": 1}}}},
        {"tags": {"$any": [f"x{i}" for i in range(100)]}},
        {"tags": {"$eq": ["t7", "all"]}},
        {"author": {"$eq": {"name": "n7"}}},
        {"$or": [{"tags": {"$any": ["t7"]}}, {"title": "title of number9"}]},
    ],
}
PREFIX = {"kind": {"$like": "k19%"}}
# A string's $contains looks at arrays and at strings, by an index for each.
SUBSTRING = {"tags": {"$contains": "t7"}}


async def load(connection: AsyncConnection) -> None:
    await connection.execute(text(ROWS))
    await connection.execute(text("REINDEX TABLE notes"))  # else a GIN's pending list is long
    await connection.execute(text("ANALYZE notes"))


async def plan(connection: AsyncConnection, table: Table, where: Any, mode: str) -> str:
    """How the server answers a filter whose values it sees (or, in a generic plan, does not)."""
    read = read_filter(where, table)
    compiled = select(table.c.id).where(read.clause).compile(dialect=connection.dialect)
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.execute(f"SET plan_cache_mode = {mode}")
    arguments = ", ".join(quoted(read.params[name]) for name in compiled.positiontup or ())
    await driver.execute(f"PREPARE q AS {compiled}")
    rows = await driver.fetch(f"EXPLAIN EXECUTE q{f'({arguments})' if arguments else ''}")
    await driver.execute("DEALLOCATE q")
    return "\n".join(row[0] for row in rows)


def quoted(value: Any) -> str:
    if isinstance(value, list):
        value = f"{{{','.join(json.dumps(item) for item in value)}}}"
    return "'" + str(value).replace("'", "''") + "'"


@pytest.mark.slow
async def test_every_kind_of_index_serves_its_operators(each_empty_dsn: str) -> None:
    table = notes()
    indexes = {key: payload_index(table, *key) for key in DECLARED}
    tags = payload_index(table, "tags", "keyword")
    async with connected(each_empty_dsn, table) as connection:
        await load(connection)
        for mode in ("force_custom_plan", "force_generic_plan"):
            for key, filters in DECLARED.items():
                for where in filters:
                    used = await plan(connection, table, where, mode)
                    assert str(indexes[key].name) in used, (where, used)
                    assert "Seq Scan" not in used
            used = await plan(connection, table, SUBSTRING, mode)
            assert str(indexes["", "containment"].name) in used
            assert str(tags.name) in used
        # A pattern has to be seen; the server prefers such plans by itself.
        used = await plan(connection, table, PREFIX, "force_custom_plan")
        assert str(indexes["kind", "keyword"].name) in used


@pytest.mark.slow
async def test_equality_goes_through_containment_where_no_index_of_the_path_is_declared(
    empty_dsn: str,
) -> None:
    table = notes()
    containment = payload_index(table, "", "containment")
    async with connected(empty_dsn, table) as connection:
        await load(connection)
        for where in ({"kind": "k7"}, {"year": 1950}, {"author.name": {"$in": ["n7", "n8"]}}):
            used = await plan(connection, table, where, "force_generic_plan")
            assert str(containment.name) in used, (where, used)


@pytest.mark.slow
async def test_the_planner_knows_how_many_rows_match(empty_dsn: str) -> None:
    """So that it chooses well between an index of the payload and one of the vectors."""
    for kinds in ((), (("half", "integer"), ("kind", "keyword"))):
        table = notes()
        payload_index(table, "", "containment")
        for key in kinds:
            payload_index(table, *key)
        async with connected(empty_dsn, table) as connection:
            await load(connection)
            for where, expected in (({"half": 1}, 10_000), ({"tags": {"$any": ["all"]}}, 20_000)):
                used = await plan(connection, table, where, "force_custom_plan")
                estimated = int(re.findall(r"rows=(\d+)", used)[0])
                assert expected / 3 < estimated < expected * 3, (where, used)


async def test_no_stored_value_is_too_much_for_an_index_or_a_cast(empty_dsn: str) -> None:
    table = indexed_notes()
    payload_index(table, "", "document")
    long = [chr(0x20000 + i * 7919 % 40_000) for i in range(300_000)]
    words = " ".join(f"{a}{b}-{b}{a}" for a, b in zip(long[::2], long[1::2], strict=True))
    stored = [
        """{"a": 1e400, "b": 1e-400}""",
        """{"a": {"lat": 1e-400, "lon": 1e-400}, "b": -1e100000}""",
        """{"a": {"lat": 1e400, "lon": 0}}""",
        """{"a": {"lat": 1e-300, "lon": 1e-16}}""",
        """{"a": {"lat": true, "lon": "x"}}""",
        """[1, 2, {"a": 1}]""",
        '"a"',
        "7",
        "null",
    ]
    async with connected(empty_dsn, table) as connection:
        for i, payload in enumerate(stored):
            statement = text("INSERT INTO notes VALUES (:id, CAST(CAST(:p AS text) AS jsonb))")
            await connection.execute(statement, {"id": str(i), "p": payload})
        big = {"a": "".join(long), "b": words}
        await connection.execute(insert(table), [{"id": "big", "payload": big, "document": words}])
        place = {"lat": 1e-200, "lon": -1e-300, "radius_m": 1}
        assert await found(connection, table, {"a": {"$geo": place}}) == ["1", "3"]
        assert await found(connection, table, {"a": big["a"]}) == ["big"]
        assert await found(connection, table, {"a": {"$gte": big["a"]}}) == ["big"]
        assert await found(connection, table, {"a": {"$gt": big["a"]}}) == []
        assert await found(connection, table, {"a": {"$gt": 1e308}}) == ["0"]
        assert await found(connection, table, {"b": {"$text": words.split()[5]}}) == ["big"]
        for word in (
            "x" * 1000,
            "a or " * 199,
            "-a " * 333,
            '"' * 1000,
            "-" * 16 + "a",
            "a-" * 500,
            "😀-" * 16,
        ):
            assert await found(connection, table, {"b": {"$text": word.strip()}}) in ([], ["big"])


async def test_alembic_finds_nothing_to_change_in_the_indexes(each_empty_dsn: str) -> None:
    table = notes()
    for path, kind in DECLARED:
        payload_index(table, path, kind)

    def differences(connection: Connection) -> Any:
        context = MigrationContext.configure(connection)
        return compare_metadata(context, table.metadata)

    async with connected(each_empty_dsn, table) as connection:
        assert await connection.run_sync(differences) == []


def test_an_index_has_a_name_of_its_own() -> None:
    table = notes()
    paths = ["a", "b", "a.b", "a_b", r"a\.b", "A", "é", "e" * 80, "e" * 81]
    names = [payload_index(table, path, "keyword").name for path in paths]
    names += [payload_index(table, "a", "text", language=name).name for name in ("simple", "dutch")]
    assert len(set(names)) == len(names)
    assert all(name and len(name.encode()) <= 63 for name in names)
    assert names[0] == "ix_notes_payload_a_keyword"
    assert payload_index(table, "z", "keyword", name="mine").name == "mine"


# ---- the page ------------------------------------------------------------------------------------


async def test_the_page_says_what_null_and_missing_keys_do(empty_dsn: str) -> None:
    table = notes()
    rows = re.findall(
        r"^\| `(\$\w+)` \| `(.+?)` \|.*\| (yes|no) \| (yes|no) \|$", PAGE.read_text(), re.MULTILINE
    )
    assert {operator for operator, *_ in rows} == EVERY
    async with connected(empty_dsn, table) as connection:
        for operator, example, null, missing in rows:
            where = eval(example)  # noqa: S307 - our own page
            (path,) = where
            assert operator in where[path]
            await store(connection, table, {path: None}, {"other": 1})
            expected = [i for i, says in (("0", null), ("1", missing)) if says == "yes"]
            assert await found(connection, table, where) == expected, example
            documents = [{path: None}, {"other": 1}]
            assert [str(i) for i in (0, 1) if oracle.holds(documents[i], where)] == expected


async def test_the_examples_of_the_page_run(dsn384: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    blocks = BLOCK.findall(PAGE.read_text())
    assert blocks
    await program(*blocks)()
