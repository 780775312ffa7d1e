"""Batches that only insert, or only change: as one call for each row has it, in every lane."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray  # noqa: TC002 - SQLAlchemy resolves Mapped[...]
from sqlalchemy import JSON, String, event, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    CLEAR,
    Collection,
    ConflictError,
    Database,
    DimensionMismatchError,
    InvalidInputError,
    QortexVector,
    VectorMixin,
    VectorRecord,
    VectorSpec,
    vector_column,
)
from qortex_db.settings import Settings
from qortex_db.testing.factories import VectorRecordFactory, embedding
from qortex_db.types import SparseVector
from support.catalogue import execute
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qortex_db.uow import Repositories


class Base(DeclarativeBase):
    """A host's own."""


class Page(VectorMixin, Base):
    """A vector that is never NULL, of two bytes a component, and everything beside it."""

    __tablename__ = "pages"
    __collection__ = Collection(
        VectorSpec(384, storage="half", index=None),
        text="english",
        namespace="tenant",
        encrypted=("secret",),
    )

    words: Mapped[SparseVector | None] = vector_column(
        VectorSpec(50, "inner_product", "sparse", index=None)
    )
    title: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(2, "l2", index=None))
    name: Mapped[str | None] = mapped_column(String(8))
    tags: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=lambda: {"new": True})
    seen: Mapped[int] = mapped_column(default=0, onupdate=7)


LANES = ("own", "watched", "host", "limited", "together")


@pytest.fixture(params=LANES)
async def memory(request: pytest.FixtureRequest, dsn384: str) -> AsyncIterator[Repositories]:
    """A database, or a unit of work, in each of the ways that statements take."""
    lane = request.param
    async with Database.connect(dsn384) as setting_up, setting_up.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    options: dict[str, Any] = {"statement_timeout_seconds": 30} if lane == "limited" else {}
    settings = Settings(dsn=dsn384, **options)
    keys = ["A" * 43 + "="]
    if lane == "host":
        target = settings.target()
        assert target is not None
        engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
        yield Database.from_engine(engine, encryption_keys=keys)
        await engine.dispose()
        return
    async with Database.connect(settings, encryption_keys=keys) as db:
        if lane == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        if lane != "together":
            yield db
            return
        async with db.unit_of_work() as uow:
            yield uow


RECORDS = [
    VectorRecordFactory.build(
        id=f"v{number:05}",
        payload={"n": number, "secret": "s"} if number % 3 else None,
        with_document=number % 2 == 0,
    )
    for number in range(400)
]


def plain(record: VectorRecord) -> Any:
    def read(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return np.asarray(value, np.float16).tolist()
        return str(value) if isinstance(value, SparseVector) else value

    vectors = {name: read(value) for name, value in (record.vectors or {}).items()}
    attributes = dict(record.attributes or {})
    return read(record.embedding), record.payload, record.document, vectors, attributes


async def everything(vectors: Any) -> dict[str, Any]:
    return {record.id: plain(record) async for record in vectors.stream(batch_size=900)}


def changes(*, of_a_host: bool) -> list[dict[str, Any]]:
    """Each row its own: of several columns, of one, of none, and of rows that are not there."""
    made: list[dict[str, Any]] = []
    for number in range(0, 440, 2):
        one: dict[str, Any] = {"id": f"v{number:05}"}
        if number % 3 == 0:
            one["payload"] = {"changed": number, "secret": [number]}
        if number % 5 == 0:
            one["document"] = CLEAR if number % 10 else f"words {number}"
        if number % 7 == 0:
            one["embedding"] = embedding(number + 1)
        if of_a_host and number % 4 == 0:
            one["vectors"] = {"words": {number % 50: 1.0}, "title": None if number % 8 else [1, 2]}
            one["attributes"] = {"name": f"n{number}", "tags": {"n": number}}
        made.append(one)
    return [{"id": "v00000", "document": "outdone"}, *made[::-1], {"id": "v00002"}]


@pytest.mark.parametrize("of_a_host", [False, True])
async def test_a_batch_of_updates_is_as_one_update_after_the_other(
    memory: Repositories, of_a_host: bool
) -> None:
    def collection(namespace: str) -> Any:
        return memory.collection(Page, namespace=namespace) if of_a_host else memory.vectors

    batch = collection("a")
    records = [replace(record, id=record.id) for record in RECORDS]
    await batch.upsert(records)
    given = changes(of_a_host=of_a_host)
    before = await everything(batch)
    changed = await batch.update_many(given)
    after = await everything(batch)
    assert after.keys() == before.keys()
    assert changed == sum(after[key] != before[key] for key in after)
    assert await batch.update_many(given) == 0  # nothing would change
    if of_a_host:
        assert await collection("b").update_many(given) == 0
    await batch.delete_all()
    await batch.upsert(records)
    for one in given:
        fields = {name: value for name, value in one.items() if name != "id"}
        if fields and one.get("document") != "outdone":
            await batch.update(one["id"], **fields)
    assert await everything(batch) == after


async def test_an_insert_makes_what_is_new_and_tells_what_was_there(memory: Repositories) -> None:
    for vectors in (memory.vectors, memory.collection(Page, namespace="a")):
        await vectors.upsert(RECORDS[100:300])
        before = await everything(vectors)
        other = [replace(record, document="other", payload={"new": 1}) for record in RECORDS]
        told = await vectors.insert([*other[::-1], replace(other[0], document="the last")])
        assert told.new == [record.id for record in (*RECORDS[:100], *RECORDS[300:])]
        assert told.existing == [record.id for record in RECORDS[100:300]]
        after = await everything(vectors)
        assert {key: after[key] for key in before} == before
        assert (after["v00000"][2], after["v00000"][1]) == ("the last", {"new": 1})
        assert (after["v00399"][2], len(after)) == ("other", 400)
        assert (await vectors.insert([])).new == []


async def test_words_are_kept_and_loaded_rows_are_those_that_were_written(dsn384: str) -> None:
    async with Database.connect(dsn384) as db, db.unit_of_work() as uow:
        await uow.vectors.insert(RECORDS[:3])
        loaded = await uow.session.get_one(QortexVector, "v00000")
        stamp = loaded.updated_at
        assert await uow.vectors.update_many([{"id": "v00000", "document": "zebras run"}]) == 1
        assert loaded.document == "zebras run"
        assert loaded.updated_at >= stamp
        hits = await uow.vectors.hybrid_search(None, "zebra")
        assert [hit.id for hit in hits] == ["v00000"]
        await uow.session.rollback()
    async with Database.connect(dsn384) as db:
        assert await db.vectors.count() == 0


async def test_an_id_of_another_namespace_is_no_row_of_this_one(dsn384: str) -> None:
    async with Database.connect(dsn384, encryption_keys=["A" * 43 + "="]) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await db.collection(Page, namespace="a").insert(RECORDS[:2])
        mine = db.collection(Page, namespace="b")
        with pytest.raises(ConflictError, match="another namespace"):
            await mine.insert([replace(RECORDS[5], id="new"), RECORDS[0]])
        assert await mine.count() == 0


@pytest.mark.parametrize("method", ["insert", "update_many"])
async def test_what_is_refused_is_named_and_nothing_is_written(dsn384: str, method: str) -> None:
    async with Database.connect(dsn384) as db:
        await db.vectors.upsert(RECORDS[:200])
        before = await everything(db.vectors)
        for bad, says in (
            ({"embedding": [1.0] * 3}, r"row 250 \(id 'v00250'\) has 3 dimensions"),
            ({"payload": [1]}, r"row 250 \(id 'v00250'\)"),
            ({"document": 7}, r"row 250 \(id 'v00250'\)"),
        ):
            fields = {"embedding": embedding(1), "document": "changed", **bad}
            given = [{"id": record.id, "embedding": embedding(2)} for record in RECORDS[:250]]
            with pytest.raises(InvalidInputError, match=says):
                await getattr(db.vectors, method)([*given, {"id": "v00250", **fields}])
            assert await everything(db.vectors) == before
        for given, says in (
            ([{"id": "a", "embeding": [1]}], "unknown fields"),
            ("abc", "records is a str"),
            ([7], "row 0 is a int"),
        ):
            with pytest.raises(InvalidInputError, match=says):
                await getattr(db.vectors, method)(given)


async def test_a_vector_that_is_never_null_may_be_left_out_of_a_change_and_not_cleared(
    dsn384: str,
) -> None:
    await execute(dsn384, "ALTER TABLE qortex_vectors ALTER vec SET NOT NULL")
    async with Database.connect(dsn384) as db:
        await db.vectors.upsert(RECORDS[:100])
        given = [{"id": one.id, "document": "new"} for one in RECORDS[:100]]
        assert await db.vectors.update_many(given) == 100
        both = [{"id": "v00000", "embedding": embedding(9)}, {"id": "v00001", "document": "d"}]
        assert await db.vectors.update_many(both) == 2
        with pytest.raises(InvalidInputError, match=r"embedding of row 1 .* takes no NULL"):
            await db.vectors.update_many([both[0], {"id": "v00001", "embedding": CLEAR}])


async def test_dimensions_that_changed_meanwhile_are_seen(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        await db.vectors.insert(RECORDS[:1])
        await execute(
            dsn384,
            "DELETE FROM qortex_vectors",
            "DROP INDEX IF EXISTS ix_qortex_vectors_vec",
            "ALTER TABLE qortex_vectors ALTER vec TYPE vector(3)",
        )
        assert (await db.vectors.insert([{"id": "a", "embedding": [1, 2, 3]}])).new == ["a"]
        assert await db.vectors.update_many([{"id": "a", "embedding": [1, 2, 4]}]) == 1
        with pytest.raises(DimensionMismatchError):
            await db.vectors.update_many([{"id": "a", "embedding": [1, 2]}])


async def test_batches_over_the_same_rows_never_deadlock(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        await db.vectors.upsert(RECORDS)

        async def write(number: int) -> None:
            given = [{"id": one.id, "payload": {"by": number}} for one in RECORDS]
            await db.vectors.update_many(given[:: 1 if number % 2 else -1])

        await asyncio.gather(*map(write, range(8)))
        async with db.engine.connect() as connection:
            payloads = select(QortexVector.payload["by"].as_integer()).distinct()
            assert len((await connection.execute(payloads)).all()) == 1


async def test_each_is_one_round_trip(dsn384: str) -> None:
    async with counted(dsn384) as trips, Database.connect(trips.dsn) as db:
        await db.vectors.count()
        await db.vectors.dimensions()
        for call in (
            lambda: db.vectors.insert(RECORDS[:5]),
            lambda: db.vectors.update_many([{"id": "v00000", "document": "d"}]),
        ):
            counts = []
            for _ in range(3):
                before = trips.count
                await call()
                counts.append(trips.count - before)
            assert counts[-1] == 1
