"""Many rows: one round trip, bounded memory, resumable, and nothing half done."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qortex_db import Database, InvalidInputError, Settings, VectorRecord
from qortex_db.testing.factories import QortexVectorFactory, edges
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

MATRIX = np.random.default_rng(3).normal(size=(5_000, 8)).astype(np.float32)


def records(count: int) -> Iterator[VectorRecord]:
    return (VectorRecord(f"r{i:06}", MATRIX[i % len(MATRIX)]) for i in range(count))


async def versions(db: Database) -> dict[str, int]:
    """Which transaction wrote each row last."""
    async with db.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT id, xmin::text::bigint FROM qortex_vectors")
        return {row[0]: row[1] for row in rows}


async def test_thousands_of_rows_are_one_round_trip_and_one_transaction(dsn: str) -> None:
    async with counted(dsn) as trips:
        settings = Settings(dsn=trips.dsn, pool_min_size=1, pool_max_size=1)
        async with Database.connect(settings) as db:
            await db.vectors.upsert(list(records(4_000)))
            async with trips.expect(1):
                assert await db.vectors.upsert(list(records(5_000))) == 1_000
            seen = edges(2_000)
            await db.edges.save(seen)
            async with trips.expect(1):
                await db.edges.save(seen)
            written = await versions(db)
            assert (len(written), len(set(written.values()))) == (5_000, 2)
            assert len(await db.edges.load()) == 2_000


async def test_what_was_stored_is_what_was_given(db: Database) -> None:
    shuffled = list(records(3_000))
    np.random.default_rng(1).shuffle(shuffled)  # type: ignore[arg-type]
    assert await db.vectors.upsert(shuffled) == 3_000
    got = {record.id: record.embedding async for record in db.vectors.stream()}
    assert list(got) == sorted(got)
    assert np.array_equal(np.stack(list(got.values())), MATRIX[:3_000])


@pytest.mark.parametrize("kind", ["arrays", "lists", "mixed"])
async def test_a_bad_row_among_thousands_is_named_and_nothing_is_written(
    db: Database, kind: str
) -> None:
    rows: list[Any] = [list(map(float, row)) for row in MATRIX[:3_000]]
    if kind == "arrays":
        rows = list(MATRIX[:3_000])
    elif kind == "mixed":
        rows[::2] = list(MATRIX[:3_000:2])
    rows[2_500] = [float("nan")] * 8
    given = [{"id": f"r{i:06}", "embedding": row} for i, row in enumerate(reversed(rows))]
    with pytest.raises(InvalidInputError, match=r"row 499 \(id 'r000499'\) has NaN at position 0"):
        await db.vectors.upsert(given)
    assert await db.vectors.count() == 0
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_a_bad_row_leaves_none_of_its_batch_in_a_unit_of_work(db: Database) -> None:
    rows = [*records(3_000), VectorRecord("z", [True] * 8)]
    async with db.unit_of_work() as uow:
        with pytest.raises(InvalidInputError, match=r"row 3000 \(id 'z'\) has elements"):
            await uow.vectors.upsert(rows)
        uow.session.add(QortexVectorFactory.build(id="mine", dimensions=8))
    assert [record.id async for record in db.vectors.stream()] == ["mine"]


async def test_ingest_reads_no_further_than_the_batch_at_hand(db: Database) -> None:
    read, ahead = 0, []

    def source() -> Iterator[VectorRecord]:
        nonlocal read
        for record in records(1_050):
            read += 1
            yield record

    total = await db.vectors.ingest(
        source(), batch_size=100, on_progress=lambda done: ahead.append(read - done)
    )
    assert total == 1_050
    assert ahead == [0] * 11


async def test_an_interrupted_ingest_is_resumed_by_running_it_again(db: Database) -> None:
    def breaking() -> Iterator[VectorRecord]:
        for i, record in enumerate(records(1_000)):
            if i == 750:
                raise OSError("the disk is gone")
            yield record

    with pytest.raises(OSError, match="the disk is gone"):
        await db.vectors.ingest(breaking(), batch_size=200)
    before = await versions(db)
    assert len(before) == 600
    assert await db.vectors.ingest(records(1_000), batch_size=200) == 1_000
    after = await versions(db)
    assert {key: after[key] for key in before} == before
    assert len(after) == 1_000


async def test_memory_does_not_grow_with_the_rows(db: Database) -> None:
    async def ingest(count: int) -> None:
        await db.vectors.ingest(records(count), batch_size=1_000)

    async def stream(count: int) -> None:
        seen = 0
        async for _record in db.vectors.stream(batch_size=500):
            seen += 1
            if seen == count:
                break

    async def peak(work: Any, count: int) -> int:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        await work(count)
        return tracemalloc.get_traced_memory()[1] - before

    for work in (ingest, stream):
        await work(2_000)
        tracemalloc.start()
        try:
            few, many = await peak(work, 5_000), await peak(work, 20_000)
        finally:
            tracemalloc.stop()
        assert many < few * 1.5  # four times the rows
