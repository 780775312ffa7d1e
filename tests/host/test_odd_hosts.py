"""Collections on models that hosts really have: types of their own, defaults, inheritance."""

from __future__ import annotations

import enum
import functools
from collections import ChainMap
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    PickleType,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import INT4RANGE, JSONB, Range
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    QortexDbError,
    VectorMixin,
    VectorSpec,
    unit_of_work,
)
from qortex_db.testing.factories import VectorRecordFactory
from support.catalogue import execute, rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from qortex_db.repositories import VectorRepository

V = [1.0, 2.0, 3.0]
vector = functools.partial(VectorRecordFactory.build, dimensions=3)
NO_INDEX = Collection(VectorSpec(3, index=None), language=None, payload_index=False)


class Base(DeclarativeBase):
    """A host's own."""


class Mood(enum.Enum):
    CALM = "calm"
    WILD = "wild"


MOODS = Enum(Mood, name="mood", values_callable=lambda kind: [one.value for one in kind])


class Wrapped(TypeDecorator[Any]):
    """As those that validate a document."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else {"of": value}

    def process_result_value(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else value["of"]


class WrappedB(Wrapped):
    impl = JSONB
    cache_ok = True


class Sealed(TypeDecorator[str]):
    """As those that encrypt in Python."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else value[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else value[::-1]


class Outer(TypeDecorator[str]):
    impl = Sealed
    cache_ok = True


class ServerSealed(TypeDecorator[str]):
    """As those that encrypt on the server."""

    impl = Text
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.reverse(bindparam)

    def column_expression(self, column: Any) -> Any:
        return func.reverse(column)


class Tags(TypeDecorator[Any]):
    impl = ARRAY(Text)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else sorted(value)


class MoodType(TypeDecorator[Mood]):
    impl = MOODS
    cache_ok = True


class Typed(VectorMixin, Base):
    __tablename__ = "typed"
    __collection__ = NO_INDEX

    json: Mapped[Any] = mapped_column(Wrapped, nullable=True)
    jsonb: Mapped[Any] = mapped_column(WrappedB, nullable=True)
    sealed: Mapped[Any] = mapped_column(Sealed, nullable=True)
    outer: Mapped[Any] = mapped_column(Outer, nullable=True)
    server: Mapped[Any] = mapped_column(ServerSealed, nullable=True)
    tags: Mapped[Any] = mapped_column(Tags, nullable=True)
    mood: Mapped[Any] = mapped_column(MOODS, nullable=True)
    own_mood: Mapped[Any] = mapped_column(MoodType, nullable=True)
    span: Mapped[Any] = mapped_column(INT4RANGE, nullable=True)
    pickled: Mapped[Any] = mapped_column(PickleType, nullable=True)
    floating: Mapped[Any] = mapped_column(Numeric(asdecimal=False), nullable=True)
    exact: Mapped[Any] = mapped_column(Float(asdecimal=True), nullable=True)
    whole: Mapped[Any] = mapped_column(Integer, nullable=True)
    is_on: Mapped[Any] = mapped_column(Boolean, nullable=True)
    real: Mapped[Any] = mapped_column(Float, nullable=True)
    number: Mapped[Any] = mapped_column(Numeric, nullable=True)
    at: Mapped[Any] = mapped_column(Time(timezone=True), nullable=True)
    wholes: Mapped[Any] = mapped_column(ARRAY(Integer), nullable=True)
    floats: Mapped[Any] = mapped_column(ARRAY(Float), nullable=True)
    numbers: Mapped[Any] = mapped_column(ARRAY(Numeric), nullable=True)
    uids: Mapped[Any] = mapped_column(ARRAY(Uuid), nullable=True)
    blobs: Mapped[Any] = mapped_column(ARRAY(LargeBinary), nullable=True)
    moods: Mapped[Any] = mapped_column(ARRAY(MOODS), nullable=True)
    jsons: Mapped[Any] = mapped_column(ARRAY(JSONB), nullable=True)
    all_sealed: Mapped[Any] = mapped_column(ARRAY(Sealed), nullable=True)
    flags: Mapped[Any] = mapped_column(ARRAY(Boolean), nullable=True)
    times: Mapped[Any] = mapped_column(ARRAY(DateTime(timezone=True)), nullable=True)
    days: Mapped[Any] = mapped_column(ARRAY(Date), nullable=True)
    spans: Mapped[Any] = mapped_column(ARRAY(Interval), nullable=True)


CHANGES: list[int] = []


def counted() -> int:
    CHANGES.append(len(CHANGES))
    return len(CHANGES)


class Stamped(VectorMixin, Base):
    """Columns that change whenever a row does."""

    __tablename__ = "stamped"
    __collection__ = NO_INDEX

    number: Mapped[int | None] = mapped_column(default=counted, onupdate=counted)
    text: Mapped[str | None] = mapped_column(onupdate="touched")
    at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), onupdate=func.clock_timestamp()
    )
    tags: Mapped[Any] = mapped_column(ARRAY(Text), nullable=True, onupdate=lambda: ["x"])
    row_id: Mapped[int | None]


class Halved(VectorMixin, Base):
    __tablename__ = "halved"
    __collection__ = Collection(VectorSpec(3, storage="half", index=None))


class Tenanted(VectorMixin, Base):
    __tablename__ = "tenanted"
    __collection__ = Collection(VectorSpec(3, index=None), namespace="tenant")

    author: Mapped[str | None]


class Page(VectorMixin, Base):
    """The parent of models that inherit, in its table and in tables of their own."""

    __tablename__ = "pages"
    __collection__ = NO_INDEX
    __mapper_args__: ClassVar[Any] = {"polymorphic_on": "kind", "polymorphic_identity": "page"}

    kind: Mapped[str] = mapped_column(server_default="page")


class Letter(Page):
    __mapper_args__: ClassVar[Any] = {"polymorphic_identity": "letter"}


class Report(Page):
    __tablename__ = "reports"
    __mapper_args__: ClassVar[Any] = {"polymorphic_identity": "report"}

    id: Mapped[str] = mapped_column(ForeignKey("pages.id"), primary_key=True)
    author: Mapped[str | None]


class Keyed(VectorMixin, Base):
    __tablename__ = "keyed"
    __collection__ = NO_INDEX

    author: Mapped[str | None] = mapped_column("by", key="writer")


class Organised(VectorMixin, Base):
    """Namespaces that are neither strings nor integers."""

    __tablename__ = "organised"
    __collection__ = Collection(
        VectorSpec(3),
        namespace="org",
        namespace_in_key=True,
        large_namespaces=("11111111-1111-1111-1111-111111111111",),
    )

    org: Mapped[UUID] = mapped_column(primary_key=True)


class PerSchema(DeclarativeBase):
    """Of a host with a schema for each tenant."""


class Placed(VectorMixin, PerSchema):
    __tablename__ = "placed"
    __collection__ = NO_INDEX
    __table_args__: ClassVar[Any] = {"schema": "tenant"}


@pytest.fixture
async def db(empty_dsn: str) -> AsyncIterator[Database]:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    async with Database.connect(empty_dsn) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


UID = UUID("11111111-1111-1111-1111-111111111111")
NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
# What is given, and what comes back where that is another.
TYPED: list[tuple[str, Any, Any]] = [
    ("json", {"a": [1]}, ...),
    ("jsonb", "text", ...),
    ("sealed", "secret", ...),
    ("outer", "secret", ...),
    ("server", "secret", ...),
    ("tags", ["b", "a"], ["a", "b"]),
    ("mood", Mood.WILD, ...),
    ("own_mood", Mood.WILD, ...),
    ("own_mood", "calm", Mood.CALM),
    ("span", Range(1, 5), ...),
    ("pickled", {"a": {1, 2}}, ...),
    ("floating", 1.5, ...),
    ("exact", Decimal("2.5"), ...),
    ("whole", np.int64(5), 5),
    ("is_on", np.True_, True),
    ("real", np.float32(0.5), 0.5),
    ("number", np.float64(0.5), Decimal("0.5")),
    ("number", Decimal("-Infinity"), ...),
    ("at", time(1, 2, tzinfo=UTC), ...),
    ("wholes", [1, None, np.int64(3)], [1, None, 3]),
    ("floats", [1, 0.1, float("inf"), Decimal("1.5"), None], [1.0, 0.1, float("inf"), 1.5, None]),
    ("numbers", [Decimal("1.10"), 2], [Decimal("1.10"), Decimal(2)]),
    ("uids", [UID, None], ...),
    ("blobs", [b"", b"\x00\\x\xff"], ...),
    ("moods", [Mood.CALM, "wild"], [Mood.CALM, Mood.WILD]),
    ("jsons", ["text", 1, {"a": None}, True], ...),
    ("all_sealed", ["ab", None], ...),
    ("flags", [True, False, None], ...),
    ("times", [NOW], ...),
    ("days", [date(1, 1, 2), date(9999, 12, 30)], ...),
    ("spans", [timedelta(days=-1, microseconds=7), timedelta(days=40_000)], ...),
]


@pytest.mark.slow
async def test_what_a_hosts_type_makes_of_a_value_is_stored_on_every_way(
    db: Database, empty_dsn: str
) -> None:
    typed = db.collection(Typed)
    for name, value, back in TYPED:
        expected = value if back is ... else back
        record = vector(id="a", attributes={name: value})
        await typed.upsert([record, vector(id="b")])
        assert await typed.upsert([record]) == 0, name  # nothing of it would change
        await typed.update("b", attributes={name: value})
        async with db.unit_of_work() as uow:
            await uow.collection(Typed).upsert([replace(record, id="c")])
            uow.session.add(Typed(id="d", embedding=V, **{name: expected}))
            await uow.session.flush()
            inside = await uow.collection(Typed).get(["a", "b", "c", "d"])
        outside = await typed.get(["a", "b", "c", "d"])
        for found in (inside, outside):
            for key in "abcd":
                given = (found[key].attributes or {})[name]
                assert (given, type(given)) == (expected, type(expected)), (name, key)
        # A json is kept as it was spelled.
        kind = "jsonb" if name == "json" else "text"
        stored = await rows(empty_dsn, f'SELECT "{name}"::{kind}::text FROM typed')
        assert len(set(stored)) == 1, (name, stored)
        await typed.delete(["a", "b", "c", "d"])


async def test_a_type_that_seals_leaves_nothing_open(db: Database, empty_dsn: str) -> None:
    names = ("sealed", "outer", "server", "all_sealed")
    attributes = {name: ["secret"] if name == "all_sealed" else "secret" for name in names}
    await db.collection(Typed).upsert([vector(attributes=attributes)])
    stored = await rows(empty_dsn, 'SELECT (sealed, "outer", server, all_sealed)::text FROM typed')
    assert stored == ["(terces,terces,terces,{terces})"]


REFUSED: dict[str, list[Any]] = {
    "wholes": [["secret"], [2**40], [1.5], [True]],
    "floats": [["secret"], [10**400]],
    "uids": [["secret"]],
    "blobs": [["secret"]],
    "moods": [["secret"]],
    "own_mood": ["secret"],
    "flags": [["secret"], [1]],
    "times": [[NOW.replace(tzinfo=None)], ["secret"]],
    "tags": ["\x00", ["secret\x00"]],
    "sealed": ["secret\x00"],
    "real": ["secret", 10**400, Decimal("1e999"), Decimal("sNaN"), True],
    "number": ["secret", Decimal("1e200000"), 10**140_000],  # the driver would send 0
    "at": [time(1, 2)],
    "jsons": [["secret", float("nan")]],
}


async def test_what_a_type_does_not_hold_is_refused_without_being_quoted(db: Database) -> None:
    typed = db.collection(Typed)
    for name, values in REFUSED.items():
        for value in values:
            record = vector(id="a", attributes={name: value})
            for write in (typed.upsert([record]), typed.update("a", attributes={name: value})):
                with pytest.raises(InvalidInputError) as refused:
                    await write
                assert "secret" not in str(refused.value)
    assert await typed.count() == 0


@pytest.mark.parametrize("lane", ["by itself", "in a unit of work"])
async def test_a_changed_row_gets_what_onupdate_gives(db: Database, lane: str) -> None:
    async def run(work: Callable[[VectorRepository], Awaitable[object]]) -> dict[str, Any]:
        if lane == "by itself":
            await work(db.collection(Stamped))
        else:
            async with db.unit_of_work() as uow:
                await work(uow.collection(Stamped))
        return dict((await db.collection(Stamped).get(["a"]))["a"].attributes or {})

    mine = {"number": -1, "text": "mine", "at": None, "tags": ["mine"], "row_id": 7}
    record = {"id": "a", "embedding": V, "attributes": mine}
    other = {"id": "b", "embedding": V, "attributes": {"row_id": 1}}
    changes: dict[str, Callable[[VectorRepository], Awaitable[object]]] = {
        "update": lambda v: v.update("a", document="x"),
        "merge": lambda v: v.merge_payload({"a": 1}, ids=["a"]),
        "merge where": lambda v: v.merge_payload({"a": 2}, where={"a": 1}),
        "upsert": lambda v: v.upsert([{"id": "a", "embedding": V, "document": "y"}]),
        "some give them": lambda v: v.upsert(
            [{"id": "a", "embedding": V, "document": "z"}, other | {"attributes": mine}]
        ),
    }
    for name, change in changes.items():
        assert await run(lambda v: v.upsert([record])) == mine, name
        assert await run(lambda v: v.upsert([record])) == mine, name  # it did not change
        found = await run(change)
        assert found["number"] > 0, name
        assert (found["text"], found["tags"], found["row_id"]) == ("touched", ["x"], 7), name
        assert found["at"] is not None, name
    given = await run(lambda v: v.update("a", attributes=mine))
    assert given == mine
    mixed = [record | {"document": "new"}, {"id": "b", "embedding": V}]
    assert await run(lambda v: v.upsert(mixed)) == mine


async def test_vectors_of_half_precision_are_updated_and_checked(db: Database) -> None:
    halved = db.collection(Halved)
    await halved.upsert([vector(id="a")])
    assert await halved.update("a", embedding=[0.5, 0, 0])
    async with db.unit_of_work() as uow:
        assert await uow.collection(Halved).update("a", embedding=[0.5, 0.25, 0])
    assert (await halved.get(["a"]))["a"].embedding.tolist() == [0.5, 0.25, 0]
    beyond = [70_123.0, 1, 1]
    for call in (
        halved.update("a", embedding=beyond),
        halved.search(beyond),
        halved.search_many([beyond]),
        halved.recommend([beyond]),
        halved.recommend([beyond], strategy="best_score"),
    ):
        with pytest.raises(InvalidInputError, match="65,504") as refused:
            await call
        assert "70" not in str(refused.value)


async def test_an_or_in_a_hosts_own_sql_stays_in_its_namespace(db: Database) -> None:
    mine, theirs = (db.collection(Tenanted, namespace=name) for name in "ab")
    for vectors, key in ((mine, "mine"), (theirs, "theirs")):
        await vectors.upsert([vector(id=key, payload={"x": 1}, document="w")])
    everything = literal_column("true OR true", Boolean)
    assert [hit.id for hit in await mine.search(V, where=everything)] == ["mine"]
    assert [hit.id for hit in await mine.search(V, where=everything, exact=True)] == ["mine"]
    assert [hit.id for hit in await mine.hybrid_search(V, "w", where=everything)] == ["mine"]
    assert [one.id for one in (await mine.scroll(where=everything)).records] == ["mine"]
    assert await mine.count(where=everything) == 1
    assert (await mine.facet("x", where=everything))[0].count == 1
    assert await mine.merge_payload({"y": 1}, where=everything) == 1
    assert await mine.delete_where(everything) == 1
    assert (await theirs.get(["theirs"]))["theirs"].payload == {"x": 1}


async def test_loaded_objects_of_models_that_inherit_are_refreshed(db: Database) -> None:
    async with db.unit_of_work() as uow:
        uow.session.add_all([Report(id="r", embedding=V), Letter(id="l", embedding=V)])
    async with db.unit_of_work() as uow:
        loaded = [await uow.session.get_one(Report, "r"), await uow.session.get_one(Letter, "l")]
        await uow.collection(Page).merge_payload({"read": True}, ids=["r", "l"])
        assert [one.payload for one in loaded] == [{"read": True}] * 2


@pytest.mark.slow
async def test_any_number_of_loaded_objects_is_refreshed(db: Database) -> None:
    halved = db.collection(Halved)
    await halved.ingest({"id": f"{i}", "embedding": V} for i in range(33_000))
    async with db.unit_of_work() as uow:
        loaded = (await uow.session.scalars(select(Halved).order_by(Halved.id))).all()
        await uow.collection(Halved).update(loaded[-1].id, document="new")
        assert loaded[-1].document == "new"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Letter, "the table of Page"),
        (Report, "no column"),
        (Keyed, "another key"),
    ],
)
async def test_what_is_no_collection_of_its_own_is_refused(
    db: Database, model: Any, says: str
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        db.collection(model)


async def test_a_large_namespace_may_be_a_uuid(db: Database) -> None:
    large = db.collection(Organised, namespace=UID)
    small = db.collection(Organised, namespace=UUID(int=7))
    assert large._vectors.scope is not small._vectors.scope
    for vectors in (small, large):
        async with db.unit_of_work() as uow:
            inside = uow.collection(Organised, namespace=vectors._vectors.namespace)
            await inside.upsert([vector(id=key) for key in "ab"])
            assert await inside.update("a", document="x")
            assert await inside.merge_payload({"x": 1}, where={"$id": "a"}) == 1
            assert await inside.merge_payload({"x": 2}, ids=["a"]) == 1
            assert await inside.delete(["b"]) == 1
        assert await vectors.count() == 1
        assert (await vectors.search(V))[0].payload == {"x": 2}


@pytest.mark.parametrize("names", ["acme", ["a"], ("a", "a"), (1, "1"), ("a\x00",), ("\ud800",)])
def test_large_namespaces_are_distinct_names_in_a_tuple(names: Any) -> None:
    with pytest.raises(InvalidInputError, match="large_namespaces"):
        Collection(VectorSpec(3), namespace="tenant", large_namespaces=names)


@pytest.mark.parametrize("order_by", [None, "x"])
async def test_a_cursor_that_no_page_gave_is_refused(db: Database, order_by: str | None) -> None:
    halved = db.collection(Halved)
    deep = "[" * 100_000
    cursors = [deep, "[1, 2]", "null", '["\\u0000", null]']
    if order_by:
        cursors += [f'["a", "{deep}"]', '["a", "NaN"]', '["a", "[Infinity]"]']
    for cursor in cursors:
        with pytest.raises(InvalidInputError, match="after"):
            await halved.scroll(after=cursor, order_by=order_by)


@pytest.mark.parametrize("lane", ["by itself", "in a unit of work"])
async def test_no_error_quotes_what_is_stored(db: Database, lane: str) -> None:
    both = [db.collection(Tenanted, namespace=name) for name in "ab"]
    for vectors, key in zip(both, "xy", strict=True):
        await vectors.upsert([vector(id=key, attributes={"author": 'Se"cret'})])

    async def run(work: Callable[[VectorRepository], Awaitable[object]]) -> object:
        if lane == "by itself":
            return await work(both[0])
        async with db.unit_of_work() as uow:
            return await work(uow.collection(Tenanted, namespace="a"))

    works: list[Callable[[VectorRepository], Awaitable[object]]] = [
        lambda v: v.count(where=cast(Tenanted.author, Integer) == 1),
        lambda v: v.upsert([vector(id="y", attributes={"author": 'Se"cret'})]),
    ]
    for work in works:
        with pytest.raises(QortexDbError) as raised:
            await run(work)
        error: BaseException | None = raised.value
        while error is not None:
            assert "cret" not in f"{error} {error.args} {vars(error)}"
            error = error.__cause__ or error.__context__


async def test_a_schema_that_a_host_translates_is_looked_up_where_it_is(empty_dsn: str) -> None:
    await execute(empty_dsn, "CREATE EXTENSION vector", "CREATE SCHEMA acme")
    url = empty_dsn.replace("postgresql://", "postgresql+asyncpg://")
    plain = create_async_engine(url)
    schemas = {"schema_translate_map": {"tenant": "acme"}}
    engine = plain.execution_options(**schemas)
    async with engine.begin() as connection:
        await connection.run_sync(PerSchema.metadata.create_all)
    async with Database.from_engine(engine) as db:
        vectors = db.collection(Placed)
        await vectors.upsert([vector(id="a")])
        assert (await vectors.recommend_index()).method == "none"
    async with AsyncSession(plain) as session, session.begin():
        await session.connection(execution_options=schemas)
        async with unit_of_work(session) as uow:
            assert (await uow.collection(Placed).recommend_index()).method == "none"
            assert [hit.id for hit in await uow.collection(Placed).search(V)] == ["a"]
    await plain.dispose()


async def test_a_payload_is_any_mapping(db: Database) -> None:
    halved = db.collection(Halved)
    payload = MappingProxyType({"a": ChainMap({"b": 1}, {"c": [2]})})
    await halved.upsert([vector(id="a", payload=payload)])
    assert (await halved.get(["a"]))["a"].payload == {"a": {"b": 1, "c": [2]}}
