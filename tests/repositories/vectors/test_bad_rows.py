"""A row that is refused is named, wherever it stands, and nothing of its batch is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    Database,
    EdgeStats,
    InvalidInputError,
    PgVectorIndex,
    Settings,
    VectorMixin,
    VectorSpec,
    unit_of_work,
    vector_column,
)
from qortex_db.testing.factories import embedding
from support.tables import create

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.uow import Repositories

pytestmark = pytest.mark.slow

LANES = ("alone", "watched", "host", "watched host", "together", "session")
SECRET = "s3cr3t-välue"  # noqa: S105 - what must not be shown
ROWS = 400
POSITIONS = {"first": 0, "second part": 60, "middle": 200, "last": ROWS - 1}


class Base(DeclarativeBase):
    """A host's own."""


class Shelf(VectorMixin, Base):
    """With one of everything that a record writes, and a tenant's column in the key."""

    __tablename__ = "bad_row_shelf"
    __collection__ = Collection(VectorSpec(384), namespace="tenant", namespace_in_key=True)

    title: Mapped[Any | None] = vector_column(VectorSpec(3, "cosine", index=None))
    words: Mapped[Any | None] = vector_column(
        VectorSpec(100, "inner_product", "sparse", index=None)
    )
    year: Mapped[int | None] = mapped_column()


def _listen(engine: AsyncEngine) -> None:
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)


@asynccontextmanager
async def opened(dsn: str, lane: str) -> AsyncIterator[tuple[Database, Repositories]]:
    """A database, and one way of calling its repositories."""
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args={"command_timeout": 30})
    async with Database.connect(dsn) as own:
        db = Database.from_engine(engine) if "host" in lane else own
        if "watched" in lane:
            _listen(db.engine)
        if lane == "together":
            async with db.unit_of_work() as uow:
                yield db, uow
        elif lane == "session":
            async with AsyncSession(engine) as session, unit_of_work(session) as uow:
                yield db, uow
                await session.commit()
        else:
            yield db, db
    await engine.dispose()


def rows(count: int = ROWS) -> list[dict[str, Any]]:
    """In no order of their ids, so that a part is no stretch of the input."""
    return [
        {
            "id": f"v{number * 7 % count:05}",
            "embedding": embedding(number),
            "payload": {"text": SECRET},
            "document": SECRET,
        }
        for number in range(count)
    ]


def _nan(place: int) -> Any:
    vector = embedding(0).copy()
    vector[place] = float("nan")
    return vector


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"embedding": _nan(5)}, "NaN at position 5"),
    "nan in a list": ({"embedding": _nan(5).tolist()}, "NaN at position 5"),
    "dimension": ({"embedding": [1.0] * 383}, "383 dimensions"),
    "zero": ({"embedding": np.zeros(384)}, "zero vector"),
    "words": ({"embedding": [SECRET] * 384}, "str"),
    "payload": ({"payload": {"a": float("inf")}}, "JSON"),
    "payload of another type": ({"payload": [1]}, "payload"),
    "nul in a payload": ({"payload": {"a": "\x00" + SECRET}}, "NUL"),
    "nul": ({"document": "\x00" + SECRET}, "NUL"),
    "document": ({"document": 7}, "document"),
}
OF_A_COLLECTION: dict[str, tuple[dict[str, Any], str]] = {
    "vector": ({"vectors": {"title": [1.0, float("nan"), 0.0]}}, "NaN at position 1"),
    "vector's dimension": ({"vectors": {"title": [1.0]}}, "1 dimensions"),
    "sparse": ({"vectors": {"words": {100: 1.0}}}, "words"),
    "no vector": ({"vectors": {"titel": [1.0, 0.0, 0.0]}}, "titel"),
    "vectors": ({"vectors": [1.0]}, "list"),
    "attribute": ({"attributes": {"year": SECRET}}, "int"),
    "large attribute": ({"attributes": {"year": 2**40}}, "32 bits"),
    "no attribute": ({"attributes": {"yaer": 1}}, "yaer"),
    "tenant": ({"attributes": {"tenant": "other"}}, "tenant"),
}


async def refuses(side: Any, given: list[dict[str, Any]], place: int, match: str) -> None:
    key = given[place]["id"]
    for write in (side.upsert, side.ingest):
        with pytest.raises(InvalidInputError, match=match) as caught:
            await write(given)
        said = str(caught.value)
        assert f"row {place} (id '{key}')" in said
        assert "Earlier batches" not in said
        assert SECRET not in said
        assert caught.value.__context__ is None or caught.value.__suppress_context__
    with pytest.raises(InvalidInputError, match=match) as caught:
        await side.ingest(given, batch_size=190)
    assert f"row {place} (id '{key}')" in str(caught.value)
    assert ("Earlier batches" in str(caught.value)) is (place >= 190)


@pytest.mark.parametrize("lane", LANES)
async def test_a_bad_row_is_named_in_every_lane_wherever_it_stands(dsn384: str, lane: str) -> None:
    async with opened(dsn384, lane) as (_, side):
        for number, (change, match) in enumerate(BAD.values()):
            for place in POSITIONS.values() if number == 0 else (200,):
                given = rows()
                given[place] |= change
                await refuses(side.vectors, given, place, match)
                assert await side.vectors.count() == place // 190 * 190
                await side.vectors.delete([row["id"] for row in given])


@pytest.mark.parametrize("lane", LANES)
async def test_a_bad_row_of_a_collection_is_named(dsn384: str, lane: str) -> None:
    await create(dsn384, Base.metadata)
    async with opened(dsn384, lane) as (_, side):
        shelf = side.collection(Shelf, namespace="one")
        for change, match in OF_A_COLLECTION.values():
            given = rows()
            given[200] |= change
            await refuses(shelf, given, 200, match)
        assert await shelf.count() == 190


class Failure(Exception):  # noqa: N818 - a user's own
    """What a user's own code raises."""


class Stop(BaseException):
    """What only the outermost code is to catch."""


def failing(error: BaseException, place: int) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows()):
        if number == place:
            raise error
        yield row


async def failing_later(error: BaseException, place: int) -> AsyncIterator[dict[str, Any]]:
    for row in failing(error, place):
        yield row


ERRORS: dict[str, Callable[[], BaseException]] = {
    "an exception": lambda: Failure("mine"),
    "a refusal of its own": lambda: InvalidInputError("mine"),
    "a stop": Stop,
    "a cancellation": asyncio.CancelledError,
    "an interrupt": KeyboardInterrupt,
}


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("kind", ERRORS)
async def test_what_an_iterator_raises_comes_out_as_it_is(
    dsn384: str, lane: str, kind: str
) -> None:
    async with opened(dsn384, lane) as (_, side):
        await side.vectors.dimensions()
        for make in (failing, failing_later):
            for size in (5_000, 190):
                error = ERRORS[kind]()
                with pytest.raises(type(error)) as caught:
                    await side.vectors.ingest(make(error, 300), batch_size=size)
                assert caught.value is error
                assert str(error) in ("mine", "")
                assert await side.vectors.count() == (190 if size == 190 else 0)
            await side.vectors.delete([row["id"] for row in rows()])
        error = ERRORS[kind]()
        with pytest.raises(type(error)) as caught:
            await side.vectors.upsert(failing(error, 300))
        assert caught.value is error
        assert await side.vectors.count() == 0


class Trap(Mapping[str, Any]):
    """What raises when it is encoded, which is in the middle of sending."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, key: str) -> Any:
        raise self.error

    def __iter__(self) -> Iterator[str]:
        raise self.error

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("lane", LANES)
async def test_what_cannot_be_read_while_parts_are_on_their_way_is_named(
    dsn384: str, lane: str
) -> None:
    given = rows()
    given[200]["payload"] = Trap(Failure("mine"))
    async with opened(dsn384, lane) as (_, side):
        with pytest.raises(InvalidInputError, match=r"of row 200 .* is a Trap that can't be read"):
            await side.vectors.upsert(given)
        assert await side.vectors.count() == 0


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("kind", ["a stop", "a cancellation"])
async def test_what_is_raised_while_parts_are_on_their_way_comes_out_too(
    dsn384: str, lane: str, kind: str
) -> None:
    error = ERRORS[kind]()
    given = rows()
    given[200]["payload"] = {"a": Trap(error)}
    async with opened(dsn384, lane) as (db, side):
        await side.vectors.dimensions()
        expected = InvalidInputError if isinstance(error, Exception) else type(error)
        with pytest.raises(expected) as caught:
            async with asyncio.timeout(20):
                await side.vectors.upsert(given)
        if isinstance(error, Exception):  # it can't be read: the row, and why
            assert "row 200 (id '" in str(caught.value)
            assert "Failure" in str(caught.value)
        else:
            assert caught.value is error
        assert await side.vectors.count() == 0
        given[200]["payload"] = {}
        assert await side.vectors.upsert(given) == ROWS
        assert db.engine.pool.checkedout() == (side is not db and lane == "together")  # type: ignore[attr-defined]


@pytest.mark.parametrize("lane", LANES)
async def test_other_writes_of_many_rows_refuse_all_of_them(dsn: str, lane: str) -> None:
    good = {(f"a{i:05}", f"b{i:05}"): EdgeStats(1, [0.5]) for i in range(5_000)}
    bad = EdgeStats(1, [float("nan")])

    def triples() -> Iterator[tuple[str, str, float]]:
        yield "a", "b", 0.5
        raise Failure

    def rewards() -> Iterator[tuple[str, float]]:
        yield "a", 0.5
        raise Failure

    async with opened(dsn, lane) as (_, side):
        for key in (("a00000", "b00000"), ("a04999", "b04999"), ("a02500", "\x00")):
            with pytest.raises(InvalidInputError):
                await side.edges.save(good | {key: bad})
        with pytest.raises(Failure):
            await side.edges.record_many(triples())
        with pytest.raises(Failure):
            await side.arms.observe_many("l", rewards())
        with pytest.raises(InvalidInputError):
            await side.factors.save({f"n{i}": 1.0 for i in range(5_000)} | {"n": float("nan")})
        assert await side.edges.load() == {}
        assert await side.factors.load() == {}
        assert await side.arms.get_all("l") == {}
        await side.edges.save(good)
        assert len(await side.edges.load()) == 5_000


async def test_the_store_names_a_bad_row_too(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        index = PgVectorIndex(db)
        given: list[Any] = [embedding(number) for number in range(ROWS)]
        for bad in (_nan(5), [1.0] * 383, None):
            given[200] = bad
            with pytest.raises(InvalidInputError, match=r"row 200 \(id 'v00200'\)"):
                await index.add([f"v{i:05}" for i in range(ROWS)], given)
        assert await index.size() == 0


async def test_the_store_passes_by_rows_that_have_no_vector(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        await db.vectors.upsert([{"id": "a", "embedding": None}, {"id": "b", "embedding": _one()}])
        index = PgVectorIndex(db)
        assert [ids async for ids, _ in index.iter_all()] == [["b"]]
        assert [key for key, _ in await index.search(_one(), threshold=-1.0)] == ["b"]
        await index.add(["a"], [_one()])
        assert [ids async for ids, _ in index.iter_all()] == [["a", "b"]]


def _one() -> list[float]:
    return [1.0] * 384
