"""Several records of one id are one after the other, whatever the size of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    CLEAR,
    Collection,
    Database,
    InvalidInputError,
    VectorMixin,
    VectorRecord,
    VectorSpec,
    vector_column,
)
from qortex_db.testing.factories import embedding
from support.tables import create

if TYPE_CHECKING:
    from qortex_db.repositories import VectorRepository

pytestmark = pytest.mark.slow


class Base(DeclarativeBase):
    """A host's own."""


class Thing(VectorMixin, Base):
    __tablename__ = "repeated_things"
    __collection__ = Collection(VectorSpec(8))

    title: Mapped[Any | None] = vector_column(VectorSpec(3, index=None))
    words: Mapped[Any | None] = vector_column(VectorSpec(50, "l2", "sparse", index=None))
    year: Mapped[int | None]
    colour: Mapped[str | None] = mapped_column(default="red")
    place: Mapped[str | None] = mapped_column(server_default="here")


def maybe(*values: Any) -> Any:
    return st.sampled_from([None, *values])


def named(**values: Any) -> Any:
    return st.none() | st.fixed_dictionaries({}, optional=values)


RECORDS = st.lists(
    st.builds(
        VectorRecord,
        id=st.sampled_from("abcdefgh"),
        embedding=maybe(*(embedding(number, 8) for number in range(3)), [1.0] * 8, CLEAR),
        payload=maybe({}, {"a": 1}, {"b": [None]}),
        document=maybe("", "one", "two", CLEAR),
        vectors=named(
            title=maybe([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], CLEAR), words=maybe({1: 2.0}, CLEAR)
        ),
        attributes=named(
            year=maybe(1, 2, CLEAR), colour=maybe("blue", CLEAR), place=maybe("there", CLEAR)
        ),
    ),
    max_size=30,
)


def shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else repr(value)


async def content(things: VectorRepository) -> dict[str, Any]:
    return {
        record.id: [
            shown(part)
            for part in (
                record.embedding,
                dict(record.payload or {}),
                record.document,
                dict(record.vectors or {}),
                dict(record.attributes or {}),
            )
        ]
        async for record in things.stream()
    }


async def test_the_size_of_a_batch_changes_nothing(dsn: str) -> None:
    await create(dsn, Base.metadata)
    async with Database.connect(dsn) as db:
        things = db.collection(Thing)

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(RECORDS)
        def check(records: list[VectorRecord]) -> None:
            import asyncio  # noqa: PLC0415

            future = asyncio.run_coroutine_threadsafe(compare(records), loop)
            future.result(60)

        async def compare(records: list[VectorRecord]) -> None:
            outcomes = []
            for size in (1, 2, 7, 5_000):
                number = await things.ingest(records, batch_size=size)
                assert number == len({record.id for record in records})
                outcomes.append(await content(things))
                await things.delete(list("abcdefgh"))
            assert all(outcome == outcomes[0] for outcome in outcomes)
            assert await things.upsert(records) == len(outcomes[0])
            assert await content(things) == outcomes[0]
            await things.upsert(records)  # on what is there
            after = await content(things)
            for record in records:
                await things.upsert([record])
            assert await content(things) == after
            await things.delete(list("abcdefgh"))

        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(check)


@pytest.mark.parametrize("lane", ["alone", "together"])
async def test_what_is_outdone_is_checked_as_by_itself(dsn: str, lane: str) -> None:
    await create(dsn, Base.metadata)
    async with Database.connect(dsn) as db, db.unit_of_work() as uow:
        things = (db if lane == "alone" else uow).collection(Thing)
        good = {"id": "a", "embedding": [1.0] * 8, "document": "d"}
        bad: list[tuple[dict[str, Any], str]] = [
            ({"embedding": [float("nan")] * 8}, r"embedding of row 1 \(id 'a'\) has NaN"),
            ({"document": "\x00"}, r"document of row 1 \(id 'a'\)"),
            ({"vectors": {"title": [1.0]}}, r"title.* of row 1 \(id 'a'\)"),
            ({"attributes": {"year": "x"}}, r"year.* of row 1 \(id 'a'\)"),
        ]
        rest = {"vectors": {"title": [1.0] * 3}, "attributes": {"year": 1}}
        for change, match in bad:
            for records in ([good, good | change, good | rest], [good, good | change]):
                with pytest.raises(InvalidInputError, match=match):
                    await things.upsert(records)
        assert await things.count() == 0


async def test_a_repeated_id_keeps_what_an_earlier_record_gave_at_real_sizes(dsn384: str) -> None:
    first = [VectorRecord(f"v{i:05}", embedding(i), {"n": i}, f"text {i}") for i in range(600)]
    then = [VectorRecord(f"v{i:05}", embedding(i + 1)) for i in range(0, 600, 3)]
    last = [VectorRecord(f"v{i:05}", None, {"n": -i}) for i in range(0, 600, 5)]
    async with Database.connect(dsn384) as db:
        assert await db.vectors.ingest([*first, *then, *last]) == 600
        stored = await db.vectors.get([record.id for record in first])
        for i, record in enumerate(first):
            got = stored[record.id]
            assert np.array_equal(got.embedding, embedding(i if i % 3 else i + 1))  # type: ignore[arg-type]
            assert got.payload == {"n": i if i % 5 else -i}
            assert got.document == f"text {i}"
