"""Named vectors and a host's own columns, written and read by the repository."""

from __future__ import annotations

import enum
import functools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray  # noqa: TC002 - SQLAlchemy resolves Mapped[...]
from sqlalchemy import (
    ARRAY,
    JSON,
    Computed,
    DateTime,
    Double,
    Enum,
    Identity,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    func,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import Text, TypeDecorator

from qortex_db import (
    Collection,
    ConflictError,
    Database,
    DimensionMismatchError,
    Embedding,
    InvalidInputError,
    VectorMixin,
    VectorRecord,
    VectorSpec,
    unit_of_work,
    vector_column,
)
from qortex_db.testing.factories import VectorRecordFactory
from qortex_db.types import SparseVector
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MADE: list[int] = []
item_record = functools.partial(VectorRecordFactory.build, dimensions=3)


class Base(DeclarativeBase):
    """A host's own."""


class Mood(enum.Enum):
    CALM = "calm"
    WILD = "wild"


class Shouted(TypeDecorator[str]):
    """A host's own type."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else value.upper()

    def process_result_value(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else value + "!"


def numbered() -> int:
    MADE.append(len(MADE))
    return len(MADE)


class Item(VectorMixin, Base):
    __tablename__ = "items"
    __collection__ = Collection(VectorSpec(3), language=None, payload_index=False)

    title: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(2, "l2", index=None))
    small: Mapped[NDArray[np.float32] | None] = vector_column(
        VectorSpec(2, storage="half", index=None)
    )
    words: Mapped[SparseVector | None] = vector_column(
        VectorSpec(50, "inner_product", storage="sparse", index=None)
    )
    year: Mapped[int | None]
    rank: Mapped[int] = mapped_column(SmallInteger, server_default="7")
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    ratio: Mapped[float | None]
    name: Mapped[str | None] = mapped_column(String(20), server_default="it's a name")
    seen: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    local: Mapped[datetime | None]
    day: Mapped[date | None]
    lasts: Mapped[timedelta | None]
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    scores: Mapped[list[int] | None] = mapped_column(ARRAY(SmallInteger))
    extra: Mapped[Any | None] = mapped_column(JSON)
    mood: Mapped[Mood | None]
    raw: Mapped[bytes | None]
    uid: Mapped[UUID | None]
    is_on: Mapped[bool | None]
    shout: Mapped[str | None] = mapped_column(Shouted)
    number: Mapped[int] = mapped_column(default=numbered)
    colour: Mapped[str | None] = mapped_column(default="red")
    stamped: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), default=func.statement_timestamp()
    )
    twice: Mapped[int | None] = mapped_column(Computed("year * 2", persisted=True))
    serial: Mapped[int] = mapped_column(Identity())
    score: Mapped[float | None] = mapped_column("score, of 100%: x", server_default=text("1.5"))
    value: Mapped[int | None]
    plain: Mapped[NDArray[np.float32] | None] = mapped_column(Embedding(2))
    row_id: Mapped[int | None] = mapped_column("key")


@pytest.fixture
async def db(empty_dsn: str) -> AsyncIterator[Database]:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    async with Database.connect(empty_dsn) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


ALL: dict[str, Any] = {
    "year": 1843,
    "rank": -3,
    "price": Decimal("12.50"),
    "ratio": 0.25,
    "name": "Ada's",
    "seen": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "local": datetime(2026, 1, 2, 3, 4),  # noqa: DTZ001 - what the column holds
    "day": date(1815, 12, 10),
    "lasts": timedelta(days=1, microseconds=7),
    "tags": ["a,b", '"c"', "{d}", None, "", "é"],
    "scores": [1, -2, 3],
    "extra": {"a": [1, None, "x"]},
    "mood": Mood.WILD,
    "raw": b"\x00\xff",
    "uid": uuid4(),
    "is_on": True,
    "shout": "HI",
    "number": 5,
    "colour": "blue",
    "stamped": datetime(2020, 1, 1, tzinfo=UTC),
    "score, of 100%: x": 2.5,
    "value": 9,
    "plain": [1.0, 0.0],
    "key": 8,
}
VECTORS: dict[str, Any] = {
    "title": [1.0, 2.0],
    "small": np.array([0.5, -65_504.0]),
    "words": {3: 0.5, 49: -2.0},
}


EXPECTED = ALL | {"shout": "HI!"}


def given(record: VectorRecord) -> dict[str, Any]:
    """What a record has of what was given."""
    return {name: read((record.attributes or {})[name]) for name in ALL}


def read(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, SparseVector):
        return dict(zip(value.indices(), value.values(), strict=True))
    return value


async def test_everything_that_is_given_comes_back(db: Database) -> None:
    items = db.collection(Item)
    record = {"id": "a", "embedding": [1, 2, 3], "vectors": VECTORS, "attributes": ALL}
    assert await items.upsert([record]) == 1
    assert await items.upsert([record]) == 0  # nothing of it would change
    (found,) = (await items.get(["a"])).values()
    assert {name: read(value) for name, value in (found.vectors or {}).items()} == {
        "title": [1.0, 2.0],
        "small": [0.5, -65_504.0],
        "words": {3: 0.5, 49: -2.0},
    }
    attributes = dict(found.attributes or {})
    assert attributes.pop("twice") == 3686
    assert attributes.pop("serial") == 1
    assert {name: read(value) for name, value in attributes.items()} == EXPECTED
    async with AsyncSession(db.engine) as session:
        loaded = await session.get_one(Item, "a")
        assert (loaded.year, loaded.mood, loaded.tags) == (1843, Mood.WILD, ALL["tags"])
        assert loaded.row_id == 8


async def test_a_unit_of_work_writes_and_reads_the_same(db: Database) -> None:
    async with db.unit_of_work() as uow:
        items = uow.collection(Item)
        await items.upsert([item_record(id="a", vectors=VECTORS, attributes=ALL)])
        (found,) = (await items.get(["a"])).values()
        assert given(found) == EXPECTED
        assert await items.update("a", vectors={"words": None}, attributes={"year": 1})
        (found,) = (await items.get(["a"])).values()
        assert found.vectors is not None
        assert found.vectors["words"] is None
        assert found.vectors["title"].tolist() == [1.0, 2.0]


async def test_what_is_not_named_stays_and_a_new_row_gets_its_defaults(db: Database) -> None:
    items = db.collection(Item)
    record = item_record(id="a", attributes=ALL, vectors=VECTORS)
    await items.upsert([record])
    MADE.clear()
    # "a" is there, "b" and "c" are new; each names other columns.
    await items.upsert(
        [
            replace(record, attributes={"year": 1}, vectors={}),
            item_record(id="b", attributes={"name": None, "tags": []}),
            item_record(id="c", vectors={"title": [5, 5]}),
        ]
    )
    found = await items.get(["a", "b", "c"])
    a, b, c = (dict(found[key].attributes or {}) for key in "abc")
    assert given(found["a"]) == EXPECTED | {"year": 1}
    assert (b["year"], b["name"], b["rank"], b["tags"]) == (None, None, 7, [])
    assert (c["year"], c["name"], c["rank"], c["tags"]) == (None, "it's a name", 7, None)
    assert (c["score, of 100%: x"], c["colour"]) == (1.5, "red")
    assert isinstance(c["stamped"], datetime)
    assert {b["number"], c["number"]} == {2, 3}  # one of each row's own; "a" drew 1 and kept 5
    assert a["number"] == 5
    vectors = found["a"].vectors or {}
    assert vectors["title"].tolist() == [1.0, 2.0]
    assert (found["c"].vectors or {})["title"].tolist() == [5.0, 5.0]
    assert (found["b"].vectors or {})["title"] is None


async def test_records_that_name_nothing_of_it_change_nothing_of_it(db: Database) -> None:
    items = db.collection(Item)
    record = item_record(id="a", attributes=ALL, vectors=VECTORS)
    await items.upsert([record])
    assert await items.upsert([replace(record, attributes=None, vectors=None)]) == 0
    assert await items.upsert([item_record(id="a", payload={"x": 1})]) == 1
    (found,) = (await items.get(["a"])).values()
    assert (found.attributes or {})["number"] == 5
    assert found.payload == {"x": 1}


@pytest.mark.slow
async def test_what_was_streamed_can_be_ingested_again(db: Database) -> None:
    items = db.collection(Item)
    given = [
        item_record(
            attributes={"year": i, "tags": [str(i)]} if i % 3 else None,
            vectors={"title": [i, 1], "words": {i % 50: 1.0}} if i % 2 else None,
        )
        for i in range(2_500)
    ]
    assert await items.ingest(given, batch_size=1_000) == 2_500
    kept = [record async for record in items.stream(batch_size=700)]
    assert [record.id for record in kept] == [record.id for record in given]
    computed = {"twice", "serial"}
    async with db.unit_of_work() as uow:
        again = uow.collection(Item)
        await again.delete([record.id for record in kept])
        await again.upsert(
            VectorRecord(
                record.id,
                record.embedding,
                vectors=record.vectors,
                attributes={
                    k: v
                    for k, v in (record.attributes or {}).items()
                    if k not in computed | {"shout"}
                },
            )
            for record in kept
        )
    after = {record.id: record async for record in items.stream()}
    for record in kept:
        other = after[record.id]
        for name, value in (record.attributes or {}).items():
            assert name in computed or read((other.attributes or {})[name]) == read(value)
        for name, value in (record.vectors or {}).items():
            assert read((other.vectors or {})[name]) == read(value)


async def test_hits_carry_the_attributes_of_their_rows(db: Database) -> None:
    items = db.collection(Item)
    await items.upsert(
        {"id": f"i{i}", "embedding": [1, i, 3], "document": "some words", "attributes": {"year": i}}
        for i in range(20)
    )
    searches: dict[str, Callable[[], Any]] = {
        "search": lambda: items.search([1, 4, 3], limit=3),
        "exact": lambda: items.search([1, 4, 3], limit=3, exact=True, with_embedding=True),
        "where": lambda: items.search([1, 4, 3], limit=3, where=Item.year < 15),
        "hybrid": lambda: items.hybrid_search([1, 4, 3], "words", limit=3),
        "range": lambda: items.range_search([1, 4, 3], min_score=0.99),
        "mmr": lambda: items.mmr_search([1, 4, 3], limit=3),
        "multi": lambda: items.multi_search([[1, 4, 3], [1, 5, 3]], limit=3),
        "recommend": lambda: items.recommend(["i4"], limit=3),
    }
    for name, search in searches.items():
        for hit in await search():
            assert hit.attributes is not None, name
            assert hit.attributes["year"] == int(hit.id[1:]), name
            assert (hit.embedding is not None) is (name == "exact")
    (hit,) = await items.search([1, 4, 3], limit=1, with_payload=False)
    assert hit.attributes is None
    page = await items.scroll(limit=2)
    assert [record.attributes["year"] for record in page.records if record.attributes] == [0, 1]
    assert page.records[0].vectors is None
    groups = await items.search_groups([1, 4, 3], "missing")
    assert len(groups) == 0
    async with db.unit_of_work() as uow:
        found = await uow.collection(Item).search([1, 4, 3], limit=3)
        assert [hit.attributes["year"] for hit in found if hit.attributes] == [4, 5, 3]


async def test_one_row_is_changed_by_update(db: Database) -> None:
    items = db.collection(Item)
    await items.upsert([item_record(id="a", document="d")])
    assert await items.update("a", vectors=VECTORS, attributes=ALL, payload={"k": 1})
    (found,) = (await items.get(["a"])).values()
    assert given(found) == EXPECTED
    assert read((found.vectors or {})["small"]) == [0.5, -65_504.0]
    assert (found.document, found.payload) == ("d", {"k": 1})
    assert await items.update("a", attributes={"year": None, "tags": None}, vectors={"title": None})
    (found,) = (await items.get(["a"])).values()
    assert (found.attributes or {})["year"] is None
    assert (found.vectors or {})["title"] is None
    assert not await items.update("missing", attributes={"year": 1})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown attribute": ({"attributes": {"yaer": 1}}, "names 'yaer'"),
    "unknown vector": ({"vectors": {"titel": [1, 2]}}, "it has title, small, words"),
    "own vector": ({"vectors": {"vec": [1, 2, 3]}}, "names 'vec'"),
    "computed": ({"attributes": {"twice": 2}}, "can't write"),
    "identity": ({"attributes": {"serial": 2}}, "can't write"),
    "no mapping": ({"attributes": [1]}, "attributes of row 0 is a list; pass a dict"),
    "vectors no mapping": ({"vectors": [1.0]}, "vectors of row 0 is a list"),
    "text for a number": ({"attributes": {"year": "1"}}, "pass an int"),
    "bool for a number": ({"attributes": {"year": True}}, "is a bool"),
    "too large": ({"attributes": {"rank": 40_000}}, "16 bits"),
    "naive time": ({"attributes": {"seen": datetime(2026, 1, 1)}}, "no time zone"),  # noqa: DTZ001
    "aware time": ({"attributes": {"local": datetime(2026, 1, 1, tzinfo=UTC)}}, "has a time zone"),
    "too long": ({"attributes": {"name": "x" * 21}}, "21 characters"),
    "NUL": ({"attributes": {"name": "\x00"}}, "NUL"),
    "no such member": ({"attributes": {"mood": "happy"}}, "CALM, WILD"),
    "nested array": ({"attributes": {"tags": [["a"]]}}, "nested"),
    "string for an array": ({"attributes": {"tags": "a"}}, "pass a list"),
    "no JSON": ({"attributes": {"extra": object()}}, "JSON"),
    "NULL where none may be": ({"attributes": {"rank": None}}, "takes no NULL"),
    "no UUID": ({"attributes": {"uid": "x"}}, "pass a UUID"),
    "dimensions": ({"vectors": {"title": [1, 2, 3]}}, "vectors['title'] of row 0"),
    "NaN": ({"vectors": {"title": [1, float("nan")]}}, "NaN"),
    "zero by cosine": ({"vectors": {"small": [0, 0]}}, "zero vector"),
    "beyond half": ({"vectors": {"small": [1, 70_000]}}, "65,504"),
    "sparse position": ({"vectors": {"words": {50: 1.0}}}, "vectors['words'] of row 0"),
    "dense for sparse": ({"vectors": {"words": [1.0]}}, "SparseVector"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_a_column_does_not_take_is_refused_by_name_and_nothing_written(
    db: Database, what: str
) -> None:
    further, says = REFUSED[what]
    items = db.collection(Item)
    good = item_record(**further)
    with pytest.raises((InvalidInputError, DimensionMismatchError)) as refused:
        await items.upsert([good, item_record(id="other")])
    assert says in str(refused.value)
    with pytest.raises((InvalidInputError, DimensionMismatchError)):
        await items.update("other", **further)
    assert await items.count() == 0


async def test_a_column_without_a_default_has_to_be_given(db: Database) -> None:
    class Strict(VectorMixin, Base):
        __tablename__ = "strict"
        __collection__ = Collection(VectorSpec(3, index=None), language=None, payload_index=False)

        author: Mapped[str]

    async with db.engine.begin() as connection:
        await connection.run_sync(Strict.__table__.create)  # type: ignore[attr-defined]
    strict = db.collection(Strict)
    with pytest.raises(ConflictError, match="author"):
        await strict.upsert([item_record()])
    await strict.upsert([item_record(attributes={"author": "Ada"})])
    Base.metadata.remove(Strict.__table__)  # type: ignore[arg-type]


async def test_merging_changes_single_keys_and_leaves_the_others(db: Database) -> None:
    items = db.collection(Item)
    payload = {"a": 1, "b": {"c": 2, "d": 3}, "tags": ["x", "y"]}
    await items.upsert(item_record(id=key, payload=payload | {"id": key}) for key in "pqr")
    assert (
        await items.merge_payload({"a": 9, "new": None}, remove=["b.c"], ids=["p", "q", "z"]) == 2
    )
    found = await items.get(["p", "q", "r"])
    changed = {"a": 9, "b": {"d": 3}, "tags": ["x", "y"], "new": None}
    assert found["p"].payload == changed | {"id": "p"}
    assert found["r"].payload == payload | {"id": "r"}
    # By a filter; what would not change is left alone.
    assert await items.merge_payload({"a": 9}, where={"a": {"$gte": 1}}) == 1
    assert await items.merge_payload({"a": 9}, where={"a": {"$gte": 1}}) == 0
    assert await items.merge_payload(remove=["tags", "b"], where=Item.id == "r") == 1
    assert (await items.get(["r"]))["r"].payload == {"a": 9, "id": "r"}
    assert await items.upsert([item_record(id="s", payload={"a": 1}, document="of spice")]) == 1
    spice = {"$contains": "spice"}
    assert await items.merge_payload({"z": 1}, where_document=spice) == 1
    assert await items.merge_payload({"z": 2}, where={"a": 2}, where_document=spice) == 0
    async with db.unit_of_work() as uow:
        loaded = await uow.session.get_one(Item, "r")
        assert await uow.collection(Item).merge_payload({"z": 1}, where={"id": "r"}) == 1
        assert loaded.payload["z"] == 1


async def test_a_merge_says_what_it_needs(db: Database) -> None:
    items = db.collection(Item)
    calls: dict[str, dict[str, Any]] = {
        "Nothing to change": {"ids": ["a"]},
        "by ids, or by where": {"values": {"a": 1}},
        "ids, or by where": {"values": {"a": 1}, "ids": ["a"], "where": {}},
        "or by where": {"values": {"a": 1}, "ids": ["a"], "where_document": {"$contains": "a"}},
        "remove is a str": {"remove": "a", "ids": ["a"]},
        "64 fit": {"remove": ["a"] * 65, "ids": ["a"]},
        "empty key": {"remove": ["a..b"], "ids": ["a"]},
        "NaN|nan": {"values": {"a": float("nan")}, "ids": ["a"]},
        "pass a list of ids": {"values": {"a": 1}, "ids": "a"},
    }
    for says, options in calls.items():
        with pytest.raises(InvalidInputError, match=says):
            await items.merge_payload(**options)


async def test_the_orm_sees_what_the_repository_wrote(db: Database) -> None:
    await db.collection(Item).upsert([item_record(id="a", vectors={"title": [1, 2]})])
    async with AsyncSession(db.engine) as session:
        row = (await session.execute(select(Item.title, Item.words).where(Item.id == "a"))).one()
        assert row.title.tolist() == [1.0, 2.0]
        assert row.words is None


class Touched(VectorMixin, Base):
    __tablename__ = "touched"
    __collection__ = Collection(VectorSpec(3), language=None, payload_index=False)

    title: Mapped[str | None]
    edited_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), onupdate=lambda: ALL["seen"]
    )


async def test_what_the_model_says_of_every_update_holds_in_both_lanes(db: Database) -> None:
    long_ago = {"edited_at": ALL["stamped"]}
    for number, change in enumerate(
        (
            lambda touched, key: touched.update(key, attributes={"title": "x"}),
            lambda touched, key: touched.merge_payload({"a": 1}, ids=[key]),
        )
    ):
        keys = [f"{number}-alone", f"{number}-together"]
        touched = db.collection(Touched)
        await touched.upsert([item_record(id=key, attributes=long_ago) for key in keys])
        await change(touched, keys[0])
        async with db.unit_of_work() as uow:
            await change(uow.collection(Touched), keys[1])
        found = await touched.get(keys)
        times = [(found[key].attributes or {})["edited_at"] for key in keys]
        assert times == [ALL["seen"]] * 2


class Tags(TypeDecorator[list[str]]):
    """A host's own type over an array."""

    impl = ARRAY(Text)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else sorted(value)


class Settings(TypeDecorator[dict[str, Any]]):
    """A host's own type over JSON."""

    impl = JSON
    cache_ok = True


class Made(VectorMixin, Base):
    __tablename__ = "made"
    __collection__ = Collection(VectorSpec(3), language=None, payload_index=False)

    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    extra: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    mood: Mapped[Mood] = mapped_column(default=Mood.CALM)
    moods: Mapped[list[Mood] | None] = mapped_column(ARRAY(Enum(Mood, native_enum=False)))
    raws: Mapped[list[bytes] | None] = mapped_column(ARRAY(LargeBinary))
    ratios: Mapped[list[float] | None] = mapped_column(ARRAY(Double))
    rate: Mapped[float | None] = mapped_column(Numeric(10, 2, asdecimal=False))
    exact: Mapped[Decimal | None] = mapped_column(Double(asdecimal=True))
    sorted_tags: Mapped[list[str] | None] = mapped_column(Tags)
    settings: Mapped[dict[str, Any] | None] = mapped_column(Settings)


async def test_numbers_are_read_alike_in_both_lanes(db: Database) -> None:
    made = db.collection(Made)
    given = {"rate": 0.25, "exact": 0.5, "ratios": [0.1, 2.0]}
    await made.upsert([item_record(id="a", attributes=given)])
    alone = (await made.get(["a"]))["a"].attributes or {}
    async with db.unit_of_work() as uow:
        together = (await uow.collection(Made).get(["a"]))["a"].attributes or {}
    for read in (alone, together):
        assert {name: read[name] for name in given} == given
        assert (type(read["rate"]), type(read["exact"])) == (float, Decimal)


async def test_what_the_model_makes_for_a_new_row_is_sent_as_any_value_is(db: Database) -> None:
    made = db.collection(Made)
    await made.upsert([item_record(id="a")])
    found = (await made.get(["a"]))["a"].attributes or {}
    assert (found["tags"], found["extra"], found["mood"]) == ([], {}, Mood.CALM)


@pytest.mark.parametrize("ids", [["a"], ["a", "b"]])
async def test_arrays_and_types_of_ones_own_over_them_are_stored_as_the_orm_does(
    db: Database, ids: list[str]
) -> None:
    given: dict[str, Any] = {
        "moods": [Mood.WILD, None],
        "raws": [b"\x00\xff", b""],
        "ratios": [0.1, float("inf"), 1],
        "sorted_tags": ["b", "a"],
        "settings": {"a": [1]},
    }
    made = db.collection(Made)
    records = [item_record(id=key, attributes=given) for key in ids]
    await made.upsert(records)
    assert await made.update(ids[0], attributes=given)
    assert await made.upsert(records) == 0
    async with AsyncSession(db.engine) as session:
        for row in await session.scalars(select(Made)):
            stored = {name: getattr(row, name) for name in given}
            assert stored == given | {"sorted_tags": ["a", "b"]}


@pytest.mark.parametrize(
    "bad",
    [
        {"moods": ["no mood"]},
        {"raws": ["text"]},
        {"ratios": ["0.1"]},
        {"ratios": [10**400]},
        {"tags": [object()]},
        {"tags": [3]},
        {"sorted_tags": [3]},
        {"settings": {"a": object()}},
    ],
)
async def test_an_element_that_the_column_does_not_take_is_refused(
    db: Database, bad: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(bad))):
        await db.collection(Made).upsert([item_record(attributes=bad)])


@pytest.mark.parametrize("bad", ["text", True, 10**400])
async def test_a_float_that_is_none_is_refused(db: Database, bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="ratio"):
        await db.collection(Item).upsert([item_record(attributes={"ratio": bad})])


async def test_what_a_savepoint_took_back_is_gone_from_objects_of_a_hosts_own_model(
    db: Database,
) -> None:
    await db.collection(Item).upsert([item_record(id="a", payload={"n": 1})])

    async def change_and_fail(session: AsyncSession, item: Item) -> None:
        async with unit_of_work(session) as uow:
            async with unit_of_work(session) as inner:
                await inner.collection(Item).update("a", attributes={"year": 1843})
            await uow.collection(Item).merge_payload({"n": 2}, ids=["a"])
            assert (item.payload, item.year) == ({"n": 2}, 1843)
            raise RuntimeError("stop")

    async with AsyncSession(db.engine) as session:
        item = await session.get(Item, "a")
        assert item is not None
        with pytest.raises(RuntimeError, match="stop"):
            await change_and_fail(session, item)
        assert (item.payload, item.year) == ({"n": 1}, None)
