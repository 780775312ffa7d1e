"""A host's own columns in filters, facets, groups and pages: by their names, by their types."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import ARRAY, DateTime, Double, Index, Numeric, String, Text, event, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from qortex_db import (
    Collection,
    Database,
    FieldBoost,
    InvalidInputError,
    RecencyBoost,
    ValueBoost,
    VectorMixin,
    VectorSpec,
)
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Base(DeclarativeBase):
    """A host's own."""


class Mood(enum.Enum):
    CALM = "calm"
    WILD = "wild"


class Cents(TypeDecorator[Decimal]):
    """A host's own type: it stores a hundredth."""

    impl = Numeric
    cache_ok = True

    def process_bind_param(self, value: Any, _: Any) -> Any:
        return None if value is None else value / 100

    def process_result_value(self, value: Any, _: Any) -> Any:
        return None if value is None else value * 100


class Lowered(TypeDecorator[str]):
    """One that has SQL of its own."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.lower(bindparam)


class Columns:
    """Of every type."""

    slug: Mapped[str | None] = mapped_column(Lowered)

    price: Mapped[Decimal | None] = mapped_column(Numeric(8, 2))
    number: Mapped[int | None]
    weight: Mapped[float | None] = mapped_column(Double)
    name: Mapped[str | None] = mapped_column(String(20))
    is_new: Mapped[bool | None]
    day: Mapped[date | None]
    moment: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    took: Mapped[timedelta | None]
    owner: Mapped[UUID | None]
    mood: Mapped[Mood | None]
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    cents: Mapped[Decimal | None] = mapped_column(Cents)
    raw: Mapped[bytes | None]
    extra: Mapped[dict[str, Any] | None] = mapped_column(JSONB)


class Item(VectorMixin, Columns, Base):
    __tablename__ = "items"
    __collection__ = Collection(VectorSpec(2, index=None))
    __table_args__ = (
        Index("ix_items_number", "number"),
        Index("ix_items_name", "name", postgresql_ops={"name": "text_pattern_ops"}),
    )


Index("ix_items_slug", Item.__table__.c.slug.collate("C"))


class Bare(Columns, Base):
    """The same without a payload, and with a column that is called as ours are."""

    __tablename__ = "bare"
    __collection__ = Collection(VectorSpec(2, index=None, column="vector"), document="body")

    id: Mapped[int] = mapped_column(primary_key=True)
    vector: Mapped[Any] = mapped_column(VectorSpec(2).type)
    body: Mapped[str | None]
    document: Mapped[int | None]


ROWS: list[dict[str, Any]] = [
    {
        "price": Decimal("1.50"),
        "number": 7,
        "weight": 0.1,
        "name": "ant",
        "is_new": True,
        "day": date(2024, 1, 1),
        "moment": datetime(2024, 1, 1, tzinfo=UTC),
        "took": timedelta(hours=1),
        "owner": UUID(int=1),
        "mood": Mood.CALM,
        "tags": ["a", "b"],
        "cents": Decimal(100),
        "slug": "Ant",
    },
    {
        "price": Decimal("2.50"),
        "number": 8,
        "weight": 0.2,
        "name": "bee",
        "is_new": False,
        "day": date(2025, 1, 1),
        "moment": datetime(2025, 1, 1, tzinfo=UTC),
        "took": timedelta(hours=2),
        "owner": UUID(int=2),
        "mood": Mood.WILD,
        "tags": ["b", "c"],
        "cents": Decimal(200),
        "slug": "Bee",
    },
    {},
]
SECOND = ROWS[1]

# Of each filter, the rows that match.
MATCHES: list[tuple[dict[str, Any], set[int]]] = [
    *[({name: value}, {1}) for name, value in SECOND.items() if name != "tags"],
    *[({name: {"$ne": value}}, {0, 2}) for name, value in SECOND.items() if name != "tags"],
    *[({name: {"$in": [value, None]}}, {1, 2}) for name, value in SECOND.items() if name != "tags"],
    *[
        ({name: {"$gte": SECOND[name]}}, {1})
        for name in ("price", "number", "weight", "name", "day", "moment", "took", "owner")
    ],
    ({"price": {"$lt": 2.499}}, {0}),
    ({"price": Decimal("2.501")}, set()),  # no rounding to the column's own two digits
    ({"number": {"$lt": 2**40}}, {0, 1}),  # beyond the column's bits
    ({"number": {"$nin": [7, 9]}}, {1, 2}),
    ({"number": {"$in": [*range(8, 300)]}}, {1}),  # which is hashed
    ({"number": {"$in": []}}, set()),
    ({"number": None}, {2}),
    ({"number": {"$exists": True}}, {0, 1}),
    ({"number": {"$not": {"$gt": 7}}}, {0, 2}),
    ({"number": {"$between": [7, 7]}}, {0}),
    ({"number": np.int64(8)}, {1}),
    ({"name": "x" * 100}, set()),  # longer than the column
    ({"name": {"$like": "a%"}}, {0}),
    ({"name": {"$ilike": "B%"}}, {1}),
    ({"name": {"$contains": "ee"}}, {1}),
    ({"name": {"$prefix": "a"}}, {0}),
    ({"name": {"$prefix": ""}}, {0, 1}),
    ({"name": {"$prefix": "bee" * 9}}, set()),
    ({"name": {"$not": {"$prefix": "a"}}}, {1, 2}),
    ({"slug": {"$prefix": "be"}}, {1}),
    ({"name": {"$regex": "^[ab]..?$"}}, {0, 1}),
    ({"name": {"$regex": "^a.t"}}, {0}),
    ({"slug": {"$regex": "(?i)E{2}"}}, {1}),
    ({"tags": {"$any": ["a", *map(str, range(200))]}}, {0}),
    ({"tags": {"$not": {"$any": ["a", *map(str, range(200))]}}}, {1, 2}),
    (
        {
            "$min_should": {
                "conditions": [{"number": 7}, {"name": "ant"}, {"day": None}],
                "min_count": 2,
            }
        },
        {0},
    ),
    ({"name": {"$text": "ant or bear"}}, {0}),
    ({"tags": {"$contains": "b"}}, {0, 1}),
    ({"tags": {"$any": ["a", "x"]}}, {0}),
    ({"tags": {"$all": ["b", "c"]}}, {1}),
    ({"$or": [{"number": 7}, {"is_new": False}]}, {0, 1}),
    ({"$column": {"number": {"$gt": 7}, "name": "bee"}}, {1}),
    ({"$not": {"$column": {"number": 8}}}, {0, 2}),
    ({"extra": None}, {0, 1, 2}),
]


@pytest.fixture
async def db(empty_dsn: str) -> AsyncIterator[Database]:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    async with Database.connect(empty_dsn) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        for model in (Item, Bare):
            await database.collection(model).upsert(
                [
                    {"id": number, "embedding": [1, number], "attributes": row}
                    for number, row in enumerate(ROWS)
                ]
            )
        yield database


@pytest.mark.parametrize("model", [Item, Bare])
async def test_a_key_that_names_a_column_means_it(db: Database, model: Any) -> None:
    async with db.unit_of_work() as uow:
        for lane, some in ((db, MATCHES), (uow, MATCHES[::4])):
            items = lane.collection(model)
            for where, expected in some:
                page = await items.scroll(where=where)
                assert {int(record.id) for record in page.records} == expected, where
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)


@pytest.mark.parametrize("model", [Item, Bare])
async def test_facets_groups_and_pages_take_columns(db: Database, model: Any) -> None:
    items = db.collection(model)
    for name in ("price", "number", "weight", "name", "is_new", "day", "moment", "owner", "mood"):
        for place in (name, getattr(model, name)):
            low, high = sorted(
                (row[name] for row in ROWS[:2]), key=lambda value: getattr(value, "name", value)
            )
            counts = [(one.value, one.count) for one in await items.facet(place)]
            assert counts == [(low, 1), (high, 1)]
            groups = await items.search_groups([1, 0], place)
            assert {group.value for group in groups} == {low, high}
            assert [len(group.hits) for group in groups] == [1, 1]
            pages, after = [], None
            while after is not None or not pages:
                page = await items.scroll(limit=1, order_by=place, after=after, descending=True)
                pages.append([int(record.id) for record in page.records])
                after = page.next
            first = next(i for i, row in enumerate(ROWS) if row.get(name) == high)
            assert pages == [[first], [1 - first], []]
        assert [one.value for one in await items.facet(name, where={"number": 7})] == [
            ROWS[0][name]
        ]


async def test_a_payload_is_meant_where_it_is_said_so(db: Database) -> None:
    items = db.collection(Item)
    await items.merge_payload({"number": "seven", "other": 1}, ids=["0"])
    assert await items.count(where={"$payload": {"number": "seven"}}) == 1
    assert await items.count(where={"$payload": {"number": 7}}) == 0
    assert await items.count(where={"other": 1, "number": 7}) == 1
    # Ours are no columns of the host's: such keys are the payload's.
    assert await items.count(where={"created_at": {"$exists": True}}) == 0
    assert await items.count(where={"$column": {"created_at": {"$exists": True}}}) == 3


async def test_columns_that_are_called_as_ours_and_are_not(db: Database) -> None:
    bare = db.collection(Bare)
    await bare.upsert(
        [{"id": 9, "embedding": [1, 0], "document": "words", "attributes": {"document": 4}}]
    )
    assert await bare.count(where={"document": 4}) == 1
    assert await bare.count(where={"$column": {"body": "words"}}) == 1
    assert [one.value for one in await bare.facet(Bare.document)] == [4]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"number": "7"}, r"where\['number'\]\['\$eq'\] is a str; pass an int"),
    ({"number": {"$gt": 1.5}}, "is a float; pass an int"),
    ({"number": {"$prefix": "a"}}, "no operator of the column number"),
    ({"name": {"$regex": "(a"}}, r"\['\$regex'\] has, at character 1, a parenthesis"),
    ({"mood": {"$prefix": "a"}}, "no operator of the column mood"),
    ({"number": {"$like": "a"}}, "no operator of the column number, which is INTEGER; it has"),
    ({"number": {"$gt": None}}, "has no order"),
    ({"is_new": {"$gt": True}}, "no operator of the column is_new"),
    ({"mood": "angry"}, "has to be one of CALM, WILD"),
    ({"moment": datetime(2024, 1, 1)}, "has no time zone"),  # noqa: DTZ001
    ({"tags": ["a"]}, "no operator of the column tags"),
    ({"extra": {"$eq": {}}}, "no operator of the column extra"),
    ({"$column": {"none": 1}}, "names 'none'; the columns are"),
    ({"$column": 1}, "pass a dict"),
    ({"$column": {}}, "is empty"),
]


async def test_what_a_column_does_not_take_is_refused(db: Database) -> None:
    items, bare = db.collection(Item), db.collection(Bare)
    for where, says in REFUSED:
        with pytest.raises(InvalidInputError, match=says):
            await items.count(where=where)
    missing: Any
    for missing in ({"nam": "bee"}, {"extra.key": 1}):
        with pytest.raises(
            InvalidInputError, match=r"bare has no payload, and no column '(nam|ext)"
        ):
            await bare.count(where=missing)
    with pytest.raises(InvalidInputError, match="bare has none"):
        await bare.count(where={"$payload": {"a": 1}})
    for call in (bare.facet("nam"), bare.scroll(order_by="nam"), bare.search_groups([1, 0], "nam")):
        with pytest.raises(InvalidInputError, match="no column 'nam' to filter by; it has"):
            await call
    for place in (Item.extra, Item.tags, Item.embedding, Bare.number, Item.number + 1):
        with pytest.raises(InvalidInputError, match=r"no order|is no column"):
            await items.facet(place)


async def test_a_columns_own_index_finds_the_rows(db: Database) -> None:
    items = db.collection(Item)
    await items.upsert(
        [
            {
                "id": f"r{n}",
                "embedding": [1, n],
                "attributes": {"number": n, "name": f"n{n}", "slug": f"s{n}"},
            }
            for n in range(100, 3_000)
        ]
    )
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql("ANALYZE items")
    plan = await items.explain([1, 0], where={"number": {"$in": [150, 151]}})
    assert "ix_items_number" in plan.indexes
    for name, value in (("name", "n15"), ("slug", "s15")):
        for where in ({name: {"$prefix": value}}, {name: {"$regex": f"^{value}[0-9]$"}}):
            plan = await items.explain([1, 0], where=where)
            assert f"ix_items_{name}" in plan.indexes, (where, plan)
            counted = await items.count(where=where)
            assert counted == (10 if "$regex" in where[name] else 110)


AGGREGATES = ("min", "max", "mean", "median", "sum", "count", "distinct")
NUMBERS = ("price", "number", "weight", "cents")
OTHERS = ("name", "day", "moment", "took", "owner", "mood", "slug", "raw")


def made(number: int) -> dict[str, Any]:
    """A row's columns, some of them NULL, some the same."""
    day = timedelta(days=number * 7 % 11)
    row: dict[str, Any] = {
        "price": Decimal(number * 37 % 23) / 4,
        "number": (number * 7919 % 31 - 15) * 10**7,
        "weight": number % 13 / 10,
        "name": "zaxby"[number % 5],
        "is_new": number % 3 == 0,
        "day": date(2024, 1, 1) + day,
        # Across a change of clocks, where texts would have another order.
        "moment": datetime(2024, 10, 26, 22, tzinfo=UTC) + timedelta(minutes=number * 37 % 400),
        "took": timedelta(hours=number * 5 % 17),
        "owner": UUID(int=number * 10**37 % 2**128),
        "mood": [Mood.WILD, Mood.CALM][number % 2],
        "cents": Decimal(number % 19),
        "slug": "abc"[number % 3],
        "raw": bytes([number * 91 % 256, 0]),
    }
    return {key: value for place, (key, value) in enumerate(row.items()) if (number + place) % 6}


def ranked(name: str, value: Any) -> Any:
    if name == "mood":
        return list(Mood).index(value)
    return value


def expected(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found = sorted((row[name] for row in rows if name in row), key=lambda one: ranked(name, one))
    told = dict.fromkeys(AGGREGATES) | {"count": len(found), "distinct": len(set(found))}
    if found and name != "is_new":
        told |= {"min": found[0], "max": found[-1]}
    if found and name in NUMBERS:
        exact = [Fraction(str(value)) for value in found]
        middle = (exact[(len(exact) - 1) // 2] + exact[len(exact) // 2]) / 2
        values = {"sum": sum(exact), "mean": sum(exact) / len(exact), "median": middle}
        told |= {key: pytest.approx(float(value), rel=1e-12) for key, value in values.items()}
    return told


def checked(told: Any, rows: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    assert told.count == len(rows)
    for name in names:
        of = dict(told.of[name])
        wanted = expected(rows, name)
        if name in NUMBERS and of["sum"] is not None:
            decimal = name in ("price", "cents")
            is_exact = [type(of[key]) is Decimal for key in ("min", "max", "sum", "mean", "median")]
            assert is_exact == [decimal] * 5, (name, of)
            assert name != "number" or type(of["sum"]) is int
            of = {key: float(value) if decimal else value for key, value in of.items()}
            wanted = {key: float(v) if type(v) is Decimal else v for key, v in wanted.items()}
        assert of == wanted, name
        given = tuple({type(row[name]) for row in rows if name in row})
        for end in ("min", "max"):
            assert told.of[name][end] is None or isinstance(told.of[name][end], given), name


@pytest.mark.parametrize("model", [Item, Bare])
async def test_aggregates_of_columns_are_those_of_python(db: Database, model: Any) -> None:
    rows = [made(number) for number in range(120)]
    items = db.collection(model)
    await items.delete_all()
    await items.upsert(
        [
            {"id": number, "embedding": [1, number], "attributes": row}
            for number, row in enumerate(rows)
        ]
    )
    names = (*NUMBERS, *OTHERS, "is_new")
    by_name = dict.fromkeys(names, AGGREGATES)
    by_attribute = {getattr(model, name): AGGREGATES for name in names}
    async with db.unit_of_work() as uow:
        for lane in (db, uow, db):
            items = lane.collection(model)
            for asked in (by_name, by_attribute):
                (told,) = await items.aggregate(asked)
                checked(told, rows, names)
            some = [row for row in rows if row.get("number", 0) > 0]
            (told,) = await items.aggregate(by_attribute, where={"number": {"$gt": 0}})
            checked(told, some, names)
            (told,) = await items.aggregate(by_attribute, where={"number": 1})
            checked(told, [], names)
            for place in ("mood", model.name, "moment", model.is_new):
                name = getattr(place, "key", place)
                groups = await items.aggregate({"price": AGGREGATES}, group_by=place)
                values = {row[name] for row in rows if name in row}
                assert {group.value for group in groups} == values
                for group in groups:
                    checked(group, [r for r in rows if r.get(name) == group.value], ("price",))
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    if model is Item:  # columns and a payload's values in one statement
        ids = [str(number) for number in range(120)]
        await items.merge_payload({"tags": [3, 4.5], "name": "payload"}, ids=ids)
        told, *_ = await items.aggregate(
            {Item.price: ["sum"], "tags.0": ["sum"], "deep": ["count"]}, group_by="name"
        )
        assert told.of["tags.0"] == {"sum": 3 * told.count}
    with pytest.raises(InvalidInputError, match=r"paths\['price'\] is asked for twice"):
        await items.aggregate({"price": ["sum"], model.price: ["sum"]})
    for place in (model.extra, model.tags, model.number + 1):
        with pytest.raises(InvalidInputError, match=r"no order|is a BinaryExpression|no column"):
            await items.aggregate({place: ["count"]})


@pytest.mark.parametrize("model", [Item, Bare])
async def test_boosts_take_columns_by_name_or_attribute(db: Database, model: Any) -> None:
    items = db.collection(model)
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    for name in ("price", "weight", "number"):
        for place in (name, getattr(model, name)):
            hits = await items.search([1, 0], boost=FieldBoost(place, weight=10))
            assert hits[0].attributes is not None
            assert hits[0].attributes[name] == ROWS[1][name]
    for place in ("mood", model.mood):
        hits = await items.search([1, 0], boost=ValueBoost(place, {"WILD": 5}))
        assert [hit.id for hit in hits][:1] == [type(hits[0].id)(1)]
    for place in ("moment", model.moment, "day", model.day):
        boost = RecencyBoost(place, timedelta(days=9), weight=5, now=moment)
        hits = await items.search([1, 0], boost=boost)
        assert [hit.id for hit in hits][:1] == [type(hits[0].id)(1)]
