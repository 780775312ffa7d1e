from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text

from qortex_db import Database, InvalidInputError, VectorRecord
from qortex_db.sample import load_sample
from qortex_db.testing.factories import VectorRecordFactory, embedding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MATRIX = np.stack([embedding(number, 8) for number in range(300)])
IDS = [f"v{number:05}" for number in range(300)]


@pytest.fixture
def records() -> list[VectorRecord]:
    return VectorRecordFactory.build_batch(300, dimensions=8)


async def stored(db: Database, key: str) -> VectorRecord:
    return (await db.vectors.get([key]))[key]


@pytest.mark.parametrize(
    "kind",
    [list, tuple, np.float16, np.float32, np.float64, np.int8, np.int64, np.uint16],
    ids=str,
)
async def test_embeddings_of_any_numeric_form_come_back_as_float32(db: Database, kind: Any) -> None:
    numbers = [1, 2, 3, 4, 5, 6, 7, 8]
    given = kind(numbers) if kind in (list, tuple) else np.array(numbers, dtype=kind)
    await db.vectors.upsert([VectorRecord("a", given)])
    back = (await stored(db, "a")).embedding
    assert isinstance(back, np.ndarray)
    assert back.dtype == np.float32
    assert back.tolist() == [float(number) for number in numbers]


async def test_float32_values_survive_bit_for_bit(
    db: Database, records: list[VectorRecord]
) -> None:
    await db.vectors.upsert(iter(records))
    back = await db.vectors.get(iter(IDS))
    assert all(np.array_equal(back[record.id].embedding, record.embedding) for record in records)


async def test_upsert_counts_only_what_it_changed(db: Database) -> None:
    rows = VectorRecordFactory.build_batch(10, dimensions=8, with_payload=True, with_document=True)
    assert await db.vectors.upsert(rows) == 10
    assert await db.vectors.upsert(rows) == 0
    rows[3] = replace(rows[3], payload={"i": -1})
    assert await db.vectors.upsert(rows) == 1
    assert (await stored(db, IDS[3])).payload == {"i": -1}


async def test_the_last_of_a_repeated_id_wins(db: Database) -> None:
    first, other = VectorRecordFactory.build_batch(2, dimensions=8)
    twice = [first, replace(other, id=first.id, document="second")]
    assert await db.vectors.upsert(twice) == 1
    assert np.array_equal((await stored(db, first.id)).embedding, other.embedding)
    assert (await stored(db, first.id)).document == "second"


async def test_none_leaves_and_empty_clears_also_in_a_mixed_batch(
    db: Database, records: list[VectorRecord]
) -> None:
    await db.vectors.upsert(
        [replace(records[i], payload={"i": i}, document=f"d{i}") for i in range(4)]
    )
    await db.vectors.upsert(
        [
            replace(records[0], embedding=MATRIX[9]),
            replace(records[1], payload={}),
            replace(records[2], document=""),
            replace(records[5], id="new"),
        ]
    )
    rows = await db.vectors.get([*IDS[:4], "new"])
    kept = {key: (row.payload, row.document) for key, row in rows.items()}
    assert kept == {
        IDS[0]: ({"i": 0}, "d0"),
        IDS[1]: ({}, "d1"),
        IDS[2]: ({"i": 2}, ""),
        IDS[3]: ({"i": 3}, "d3"),
        "new": ({}, None),
    }
    assert np.array_equal(rows[IDS[0]].embedding, MATRIX[9])


async def test_unchanged_rows_are_not_rewritten(db: Database) -> None:
    where = text("SELECT xmin::text FROM qortex_vectors ORDER BY id")
    rows = VectorRecordFactory.build_batch(5, dimensions=8)
    await db.vectors.upsert(rows)
    before = (await db.executor.run(where, {})).rows
    await db.vectors.upsert(rows)
    assert (await db.executor.run(where, {})).rows == before


async def test_update_changes_what_is_given_of_an_existing_row(db: Database) -> None:
    await db.vectors.upsert([VectorRecordFactory.build(dimensions=8, document="d")])
    assert await db.vectors.update(IDS[0], payload={"b": 2})
    assert await db.vectors.update(IDS[0], embedding=MATRIX[1])
    assert not await db.vectors.update("nobody", document="x")
    row = await stored(db, IDS[0])
    assert (row.payload, row.document) == ({"b": 2}, "d")
    assert np.array_equal(row.embedding, MATRIX[1])
    assert await db.vectors.count() == 1


async def test_delete_counts_what_was_there(db: Database) -> None:
    await db.vectors.upsert(VectorRecordFactory.build_batch(5, dimensions=8))
    assert await db.vectors.delete([IDS[1], IDS[3], IDS[3], "nobody"]) == 2
    assert await db.vectors.delete([]) == 0
    assert sorted(await db.vectors.get(IDS[:5])) == [IDS[0], IDS[2], IDS[4]]


async def test_search_finds_the_exact_neighbours_best_first(
    db: Database, records: list[VectorRecord]
) -> None:
    await db.vectors.upsert(replace(record, payload={"i": i}) for i, record in enumerate(records))
    similarities = MATRIX @ MATRIX[7]
    expected = np.argsort(-similarities)[:10]
    hits = await db.vectors.search(MATRIX[7], exact=True)
    assert [hit.id for hit in hits] == [IDS[i] for i in expected]
    assert [hit.score for hit in hits] == pytest.approx(similarities[expected].tolist(), abs=1e-6)
    assert hits[0].payload == {"i": 7}
    assert hits[0].embedding is None
    assert (hits.requested, hits.complete) == (10, True)
    (best,) = await db.vectors.search(MATRIX[7], limit=1, with_embedding=True)
    assert np.array_equal(best.embedding, MATRIX[7])


@pytest.mark.parametrize("limit", [1, 40, 41, 150, 300])
async def test_no_limit_is_cut_short_by_the_index(
    db: Database, records: list[VectorRecord], limit: int
) -> None:
    await db.vectors.upsert(records)
    hits = await db.vectors.search(MATRIX[0], limit=limit)
    assert len(hits) == limit
    assert hits.complete
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_min_score_leaves_out_what_is_less_similar(
    db: Database, records: list[VectorRecord]
) -> None:
    await db.vectors.upsert(records)
    hits = await db.vectors.search(MATRIX[0], limit=300, min_score=0.5)
    everything = await db.vectors.search(MATRIX[0], limit=300, exact=True)
    assert [hit.id for hit in hits] == [hit.id for hit in everything if hit.score >= 0.5]
    assert hits.complete


@pytest.mark.parametrize(
    ("options", "indexed"), [({}, True), ({"ef_search": 50}, True), ({"exact": True}, False)]
)
async def test_the_index_is_used_unless_the_search_is_exact(
    db: Database, records: list[VectorRecord], options: dict[str, Any], indexed: bool
) -> None:
    await db.vectors.upsert(records)
    uses = text("SELECT pg_stat_get_xact_numscans('ix_qortex_vectors_vec'::regclass) AS scans")
    async with db.unit_of_work() as uow:
        await uow.session.execute(text("SET LOCAL enable_seqscan = off"))
        await uow.session.execute(text("SET LOCAL enable_sort = off"))
        await uow.vectors.search(MATRIX[0], limit=5, **options)
        assert ((await uow.session.execute(uses)).scalar_one() > 0) is indexed


async def test_a_tuned_search_leaves_the_transactions_settings_as_they_were(
    db: Database, records: list[VectorRecord]
) -> None:
    await db.vectors.upsert(records)
    show = text("SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')")
    async with db.unit_of_work() as uow:
        await uow.session.execute(text("SET LOCAL hnsw.ef_search = 77"))
        assert len(await uow.vectors.search(MATRIX[0], limit=200)) == 200
        assert tuple((await uow.session.execute(show)).one()) == ("77", "off")
        assert len(await uow.vectors.search(MATRIX[0], limit=50, ef_search=1)) == 50
        assert tuple((await uow.session.execute(show)).one()) == ("77", "off")


async def test_stream_reads_everything_in_pages_while_others_delete(db: Database) -> None:
    await db.vectors.upsert(VectorRecordFactory.build_batch(100, dimensions=8))
    seen = []
    async for row in db.vectors.stream(batch_size=10):
        seen.append(row.id)
        if len(seen) == 15:
            await db.vectors.delete(IDS[:5])
    assert seen == IDS[:100]


async def test_ingest_takes_iterables_of_both_kinds_and_reports_progress(db: Database) -> None:
    done: list[int] = []
    records = VectorRecordFactory.build_batch(50, dimensions=8)

    async def source() -> AsyncIterator[VectorRecord]:
        for record in records[25:]:
            yield record

    async def later(count: int) -> None:
        done.append(count)

    count = await db.vectors.ingest(iter(records[:25]), batch_size=10, on_progress=done.append)
    assert count == 25
    assert await db.vectors.ingest(source(), batch_size=20, on_progress=later) == 25
    assert done == [10, 20, 25, 20, 25]
    assert await db.vectors.count() == 50


async def test_a_failing_batch_is_named_and_earlier_ones_stay(db: Database) -> None:
    rows = VectorRecordFactory.build_batch(30, dimensions=8)
    good, rows[25] = rows[25], replace(rows[25], embedding=[float("nan")] * 8)
    with pytest.raises(InvalidInputError, match=r"batch 3 \(rows 20 to 29\).*row 25.*NaN"):
        await db.vectors.ingest(rows, batch_size=10)
    assert await db.vectors.count() == 20
    rows[25] = good
    assert await db.vectors.ingest(rows, batch_size=10) == 30
    assert await db.vectors.count() == 30


async def test_ingest_in_a_unit_of_work_is_undone_with_it(db: Database) -> None:
    async def work() -> None:
        async with db.unit_of_work() as uow:
            records = VectorRecordFactory.build_batch(30, dimensions=8)
            await uow.vectors.ingest(records, batch_size=10)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await work()
    assert await db.vectors.count() == 0


async def test_real_questions_find_their_exact_neighbours(dsn384: str) -> None:
    sample = load_sample()
    async with Database.connect(dsn384) as db:
        await db.vectors.ingest(sample.records())
        similarities = sample.question_embeddings @ sample.passage_embeddings.T
        found = 0
        for question, row in zip(sample.question_embeddings, similarities, strict=True):
            expected = {sample.passages[i]["id"] for i in np.argsort(-row)[:10]}
            found += len(expected & {hit.id for hit in await db.vectors.search(question)})
        assert found >= 0.97 * 10 * len(similarities)


def test_the_sample_carries_its_licence_and_is_small() -> None:
    import qortex_db.sample as package  # noqa: PLC0415

    folder = Path(package.__file__).parent
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in (folder / "LICENSE.txt").read_text()
    assert sum(file.stat().st_size for file in folder.glob("*.*")) < 1_500_000
    lines = (folder / "passages.jsonl").read_text("utf-8").splitlines()
    assert all(json.loads(line)["text"] for line in lines)
