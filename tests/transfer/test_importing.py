"""An import from files: what comes, what is refused, what goes on where it was stopped."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import BigInteger, event, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    HNSW,
    Checkpoint,
    Collection,
    ConflictError,
    Database,
    DimensionMismatchError,
    InvalidInputError,
    IVFFlat,
    NotFoundError,
    SchemaVersionError,
    VectorMixin,
    VectorSpec,
)
from qortex_db.transfer import (
    Choices,
    Page,
    SourceDescription,
    SourceRow,
    SourceVector,
    import_collection,
    open_source,
    plan_import,
)
from support.catalogue import execute
from support.framework_rows import matrix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

ROWS = 10_000
MATRIX = matrix(ROWS)


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def passages(count: int, dimensions: int = 8) -> list[dict[str, Any]]:
    return [
        {
            "id": f"p{number}",
            "embedding": MATRIX[number, :dimensions].tolist(),
            "text": f"Passage {number}",
            "metadata": {"number": number, "tags": ["a", None], "none": None},
        }
        for number in range(count)
    ]


@pytest.mark.slow
async def test_ten_thousand_rows_are_there_field_by_field(db384: Database, tmp_path: Path) -> None:
    rows = passages(ROWS, 384)
    source = await open_source("jsonl", str(written(tmp_path / "rows.jsonl", rows)))
    told: list[int] = []
    report = await import_collection(db384, source, on_progress=told.append)
    assert (report.read, report.written, report.rejected) == (ROWS, ROWS, 0)
    assert (report.stored, report.source_rows, report.sampled) == (ROWS, ROWS, 100)
    assert report.is_good, report.faults
    assert told[0] == 1_000
    assert told[-1] == ROWS
    for start in range(0, ROWS, 2_500):
        part = rows[start : start + 2_500]
        stored = await db384.vectors.get([row["id"] for row in part])
        for number, row in enumerate(part, start):
            found = stored[row["id"]]
            assert np.array_equal(np.asarray(found.embedding), MATRIX[number])
            assert (found.document, found.payload) == (row["text"], row["metadata"])
    again = await import_collection(db384, source)
    assert (again.read, again.written, again.stored) == (ROWS, 0, ROWS)
    assert again.is_good
    await source.close()


class StoppedError(Exception):
    """As a killed process stops."""


async def test_an_import_goes_on_after_its_last_batch(db: Database, tmp_path: Path) -> None:
    rows = passages(1_000)
    for at in (3, 400, 777):
        rows[at]["embedding"] = [1.0, 2.0]
    path = written(tmp_path / "rows.jsonl", rows)
    rejects = tmp_path / "rejects.jsonl"
    source = await open_source("jsonl", str(path))

    def stop(read: int) -> None:
        if read >= 500:
            raise StoppedError

    with pytest.raises(StoppedError):
        await import_collection(db, source, batch_size=100, rejects=rejects, on_progress=stop)
    assert await db.vectors.count() == 498
    # As if it had been killed between a batch's lines and its commit.
    with rejects.open("a") as file:
        file.write('{"row": "p7')
    read: list[int] = []
    report = await import_collection(
        db, source, batch_size=100, rejects=rejects, on_progress=read.append
    )
    assert read[0] == 600
    assert (report.read, report.written, report.rejected) == (1_000, 997, 3)
    assert report.faults == ["3 rows were no good, and are not here."]
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [each["row"] for each in told] == ["p3", "p400", "p777"]
    assert "2 dimensions" in told[0]["reason"]
    assert [each.where for each in report.rejects] == ["p777"]
    async with db.unit_of_work() as uow:
        (kept,) = (await uow.session.scalars(select(Checkpoint))).all()
    assert kept.work == f"import jsonl {path} into qortex_vectors"
    assert (kept.rows_read, kept.rows_written, kept.rows_rejected) == (1_000, 997, 3)
    assert kept.finished_at is not None


async def test_an_import_can_begin_anew(db: Database, tmp_path: Path) -> None:
    source = await open_source("jsonl", str(written(tmp_path / "a.jsonl", passages(300))))

    def stop(_: int) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        await import_collection(db, source, batch_size=100, on_progress=stop)
    report = await import_collection(db, source, batch_size=100, anew=True)
    assert (report.read, report.written, report.before) == (300, 200, 100)


@pytest.mark.parametrize("until", [200, 300], ids=["a batch further", "to the end"])
async def test_two_imports_of_the_same_at_once_are_not_both_let_go_on(
    db: Database, tmp_path: Path, until: int
) -> None:
    path = written(tmp_path / "rows.jsonl", passages(300))
    first, second = await open_source("jsonl", str(path)), await open_source("jsonl", str(path))

    def stop(read: int) -> None:
        if read == until:
            raise StoppedError

    async def other(read: int) -> None:
        if read == 100:
            with pytest.raises(StoppedError):
                await import_collection(db, second, batch_size=100, on_progress=stop)

    with pytest.raises(ConflictError, match="Somebody else goes on with"):
        await import_collection(db, first, batch_size=100, on_progress=other)
    assert await db.vectors.count() == until


async def test_rows_that_are_no_good_are_told_of(db: Database, tmp_path: Path) -> None:
    good = passages(1)[0]
    lines = [
        json.dumps(good),
        "{no json",
        "",
        "[1, 2]",
        json.dumps(good | {"id": None}),
        json.dumps(good | {"id": "zero", "embedding": [0.0] * 8}),
        json.dumps(good | {"id": "none", "embedding": None}),
        json.dumps(good | {"id": "nul", "text": "a\0b"}),
        '{"id": "nan", "embedding": [NaN, 1, 1, 1, 1, 1, 1, 1], "text": "x", "metadata": {}}',
        json.dumps(good | {"id": "text", "embedding": "1"}),
        json.dumps(good | {"id": "object", "embedding": {"indices": 1, "values": 2}}),
        json.dumps(good | {"id": "twice", "embedding": {"indices": [1, 1], "values": [2, 3]}}),
        json.dumps(good | {"id": "size", "embedding": 8}),
        json.dumps(good | {"id": "no text", "text": 7}),
        json.dumps(good | {"id": "other", "metadata": 7}),
        json.dumps(good | {"id": 7, "metadata": None}),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    source = await open_source("jsonl", str(path))
    report = await import_collection(db, source, choices=Choices(payload="metadata"))
    assert [(each.where, each.reason[:30]) for each in report.rejects] == [
        ("line 2", "It is no JSON."),
        ("line 4", "It is no object."),
        ("line 5", "id has to be a text, a whole n"),
        ("line 10", "embedding has to be a list of "),
        ("line 11", "embedding has to have indices "),
        ("line 12", "embedding has to have whole nu"),
        ("line 13", "embedding has to be a list of "),
        ("other", "metadata has to be an object."),
        ("nul", "document of the row (id 'nul')"),
        ("nan", "embedding of the row (id 'nan'"),
    ]
    assert (report.read, report.rejected, report.stored) == (15, 10, 5)
    assert report.faults == ["10 rows were no good, and are not here."]
    stored = await db.vectors.get(["zero", "none", "no text", 7])
    assert stored["none"].embedding is None
    assert np.asarray(stored["zero"].embedding).tolist() == [0.0] * 8
    assert (stored["7"].payload, stored["no text"].document) == ({}, None)


async def test_a_first_row_that_is_no_good_is_told_of_too(db: Database, tmp_path: Path) -> None:
    deep = '{"id": "deep", "a": ' + "[" * 200_000 + "]" * 200_000 + "}"
    (good,) = passages(1)
    for first in (deep, json.dumps(good | {"id": "first", "embedding": 8})):
        path = tmp_path / "rows.jsonl"
        path.write_text(f"{first}\n{json.dumps(good)}\n")
        source = await open_source("jsonl", str(path))
        report = await import_collection(db, source)
        assert [each.where for each in report.rejects] == ["line 1"]
        assert (report.read, report.rejected) == (2, 1)


async def test_ids_that_come_twice_are_a_fault_of_the_report(db: Database, tmp_path: Path) -> None:
    rows = passages(3)
    rows[2]["id"] = "p0"
    source = await open_source("jsonl", str(written(tmp_path / "rows.jsonl", rows)))
    report = await import_collection(db, source)
    assert report.faults == [
        "3 rows were taken, 2 are there: ids came more than once, or others write too."
    ]
    assert not report.is_good


class Listed:
    """A source in memory, whose search is told."""

    label = "listed"

    def __init__(
        self,
        rows: list[SourceRow],
        vectors: list[SourceVector],
        *,
        counted: int | None = None,
        **said: Any,
    ) -> None:
        self.rows = rows
        self.vectors = vectors
        self.said: dict[str, Any] = {"rows": counted or len(rows)} | said
        self.found: list[Any] | None = None

    async def describe(self) -> SourceDescription:
        return SourceDescription(vectors=self.vectors, **self.said)

    async def pages(self, after: Any, size: int) -> AsyncIterator[Page]:
        start = after or 0
        for begin in range(start, len(self.rows), size):
            end = begin + size
            yield Page(self.rows[begin:end], end if end < len(self.rows) else None)

    async def get(self, ids: Sequence[Any]) -> list[SourceRow]:
        wanted = set(map(str, ids))
        return [row for row in self.rows if str(row.id) in wanted]

    async def nearest(self, vector: str, query: Any, limit: int) -> list[Any] | None:
        del vector, query, limit
        return self.found

    async def close(self) -> None:
        pass


def listed(count: int = 30, **said: Any) -> Listed:
    rows = [SourceRow(f"p{at}", {"": MATRIX[at, :8]}, {"at": at}) for at in range(count)]
    return Listed(rows, [SourceVector("", 8, "cosine")], **said)


async def test_what_was_lost_on_the_way_is_a_fault(db: Database) -> None:
    source = listed(counted=31)
    report = await import_collection(db, source)
    assert report.faults == ["The source has 31 rows, 30 were read."]


async def test_fields_that_differ_are_a_fault(db: Database) -> None:
    source = listed()
    await import_collection(db, source)
    source.rows[3] = SourceRow("p3", source.rows[3].vectors, {"at": 3.5})
    changed = await import_collection(db, source)
    assert changed.is_good
    assert changed.written == 1
    stored = source.rows[4]

    async def get(ids: Sequence[Any]) -> list[SourceRow]:
        del ids
        return [
            SourceRow(stored.id, {"": MATRIX[9, :8]}, {"at": "4"}),
            SourceRow("gone", stored.vectors, {}),
        ]

    source.get = get  # type: ignore[method-assign]
    report = await import_collection(db, source)
    assert (report.sampled, report.unread) == (2, 28)
    assert [(each.id, each.fields) for each in report.differences] == [
        ("p4", ["embedding", "payload"]),
        ("gone", ["row"]),
    ]
    assert report.faults == [
        "28 rows were not compared: the source did not give them again by their ids.",
        "2 of 2 compared rows differ.",
    ]


async def test_what_the_source_does_not_give_again_is_a_fault(db: Database) -> None:
    source = listed()

    async def get(ids: Sequence[Any]) -> list[SourceRow]:
        del ids
        return []

    source.get = get  # type: ignore[method-assign]
    report = await import_collection(db, source)
    assert report.faults == [
        "30 rows were not compared: the source did not give them again by their ids."
    ]


async def test_what_the_source_does_not_have_is_a_difference(db: Database) -> None:
    rows = [SourceRow(name, {"": [1.0] * 8}, document=f"text {name}") for name in "ab"]
    source = Listed(rows, [SourceVector("", 8, "cosine")])

    async def get(ids: Sequence[Any]) -> list[SourceRow]:
        del ids
        return [SourceRow("a", {"": [1.0] * 8}), SourceRow("b", {}, document="text b")]

    source.get = get  # type: ignore[method-assign]
    report = await import_collection(db, source)
    assert [(each.id, each.fields) for each in report.differences] == [
        ("a", ["document"]),
        ("b", ["embedding"]),
    ]


async def test_large_floats_that_come_back_as_whole_numbers_are_the_same(db: Database) -> None:
    payload = {"a": [1e23, {"b": 1.7976931348623157e308}], "c": -0.0, "d": 5e-324, "e": 2**63}
    source = Listed([SourceRow("a", {"": [1.0] * 8}, payload)], [SourceVector("", 8, "cosine")])
    report = await import_collection(db, source)
    assert (report.is_good, report.sampled) == (True, 1)
    for other in ({**payload, "a": [1e24, payload["a"]]}, {**payload, "e": 2**63 + 1}, {}):
        changed = SourceRow("a", {"": [1.0] * 8}, other)

        async def get(ids: Sequence[Any], row: SourceRow = changed) -> list[SourceRow]:
            del ids
            return [row]

        source.get = get  # type: ignore[method-assign]
        assert [each.fields for each in (await import_collection(db, source)).differences] == [
            ["payload"]
        ]


async def test_searches_that_find_something_else_are_a_fault(db: Database) -> None:
    source = listed()
    source.found = [f"p{at}" for at in range(10)]  # whatever is asked
    report = await import_collection(db, source)
    assert report.overlaps[0].share is not None
    assert report.overlaps[0].share < 0.6
    assert "Searches by the vector find" in report.faults[0]


async def test_equal_scores_are_no_difference(db: Database) -> None:
    rows = [SourceRow(f"p{at}", {"": [1.0] * 8}, {}) for at in range(30)]
    source = Listed(rows, [SourceVector("", 8, "cosine")])
    source.found = [f"p{at}" for at in range(20, 30)]
    report = await import_collection(db, source)
    assert [each.share for each in report.overlaps] == [1.0]
    assert report.is_good


async def test_what_has_no_place_is_refused_before_a_row_is_read(db: Database) -> None:
    wide = Listed([SourceRow("a", {"": [1.0] * 9})], [SourceVector("", 9, "cosine")])
    with pytest.raises(DimensionMismatchError, match="8 dimensions, the source's '' has 9"):
        await import_collection(db, wide)
    two = Listed(
        [SourceRow("a", {"": [1.0] * 8, "title": [1.0] * 8})],
        [SourceVector("", 8, "l2"), SourceVector("title", 8, "cosine")],
    )
    with pytest.raises(InvalidInputError, match="has no vector title for the source's 'title'"):
        await import_collection(db, two)
    report = await import_collection(db, two, choices=Choices(leave_out=("title",)))
    (note,) = report.notes
    assert note.startswith("qortex_vectors.vec is compared by cosine, the source's '' by l2:")
    with pytest.raises(InvalidInputError, match="has no vector 'titel': it has '', 'title'"):
        await import_collection(db, two, choices=Choices(leave_out=("titel",)))


async def test_a_source_without_rows_is_done_at_once(db: Database) -> None:
    source = Listed([], [SourceVector("", 8, "cosine")])
    report = await import_collection(db, source)
    assert report.is_good
    async with db.unit_of_work() as uow:
        (kept,) = (await uow.session.scalars(select(Checkpoint))).all()
    assert kept.finished_at is not None


async def test_what_python_has_and_json_has_not_is_as_the_page_says(db: Database) -> None:
    when = datetime(2026, 11, 29, 12, 30, 0, 123456, tzinfo=UTC)
    given = {"when": when, "key": UUID(int=7), "large": 2**63, "one": np.int64(1)}
    source = Listed(
        [SourceRow(UUID(int=1), {"": MATRIX[0, :8]}, given)], [SourceVector("", 8, "cosine")]
    )
    report = await import_collection(db, source)
    assert report.is_good, report.differences
    (stored,) = (await db.vectors.get([UUID(int=1)])).values()
    assert stored.payload == {
        "when": "2026-11-29T12:30:00.123456+00:00",
        "key": str(UUID(int=7)),
        "large": 2**63,
        "one": 1,
    }


@pytest.mark.parametrize(
    ("payload", "document", "inner"),
    [
        ({"page_content": "a text", "metadata": {"a": 1}}, "page_content", "metadata"),
        ({"page_content": "a text", "metadata": {"a": 1}, "b": 2}, "page_content", None),
        ({"text": "a text", "content": "more", "metadata": {"a": 1}}, "text", None),
        ({"title": "short", "abstract": "x" * 200}, "abstract", None),
        ({"title": "short"}, None, None),
    ],
    ids=["a framework's", "more beside it", "two texts", "the longest text", "none"],
)
async def test_what_the_document_is_is_guessed_and_told(
    payload: dict[str, Any], document: str | None, inner: str | None
) -> None:
    source = Listed([SourceRow("a", {"": [1.0] * 8}, payload)], [SourceVector("", 8, "cosine")])
    plan = await plan_import(source)
    assert (plan.document, plan.payload) == (document, inner)
    assert set(plan.guessed) == {
        name for name, value in (("document", document), ("payload", inner)) if value
    }
    told = await plan_import(source, Choices(document="", payload=""))
    assert (told.document, told.payload, tuple(told.guessed)) == (None, None, ())
    with pytest.raises(InvalidInputError, match="None of the first rows has a key 'body'"):
        await plan_import(source, Choices(document="body"))


async def test_what_a_guess_would_lose_is_a_fault(db: Database) -> None:
    rows = [
        SourceRow(f"p{at}", {"": MATRIX[at, :8]}, {"text": "a text", "metadata": {"at": at}})
        for at in range(201)  # more than are looked at
    ]
    more = {"text": "a text", "metadata": None, "title": "a title", "none": None}
    source = Listed(
        [*rows, SourceRow("late", {"": [1.0] * 8}, more)], [SourceVector("", 8, "cosine")]
    )
    report = await import_collection(db, source)
    assert [each.where for each in report.rejects] == ["late"]
    assert report.rejects[0].reason.startswith("It has keys beside metadata")
    assert report.faults == ["1 rows were no good, and are not here."]
    told = await import_collection(db, source, choices=Choices(payload=""))
    assert told.is_good, told.faults
    kept = (await db.vectors.get(["late"]))["late"]
    assert kept.payload == {"metadata": None, "title": "a title", "none": None}


async def test_a_source_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for kind, name in (("jsonl", "a.jsonl"), ("numpy", "a.npy"), ("parquet", "a.parquet")):
        with pytest.raises(NotFoundError, match=f"There is no .*{name}"):
            await open_source(kind, str(tmp_path / name))
    with pytest.raises(InvalidInputError, match="There is no source 'redis': it is one of jsonl"):
        await open_source("redis", "")
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_source(db: Database, dsn: str) -> None:
    await execute(dsn, "DROP INDEX ix_qortex_vectors_vec")
    source = Listed([], [SourceVector("", 8, "cosine")], counted=12_000)
    peaks: list[int] = []

    async def pages(after: Any, size: int) -> AsyncIterator[Page]:
        for start in range(after or 0, 12_000, size):
            rows = [
                SourceRow(f"p{at}", {"": MATRIX[at % ROWS, :8]})
                for at in range(start, start + size)
            ]
            yield Page(rows, start + size if start + size < 12_000 else None)

    def measure(_: int) -> None:
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    source.pages = pages  # type: ignore[method-assign]
    tracemalloc.start()
    try:
        await import_collection(db, source, batch_size=600, on_progress=measure)
    finally:
        tracemalloc.stop()
    assert len(peaks) == 20
    assert max(peaks[-5:]) < 1.1 * max(peaks[2:7])


class Base(DeclarativeBase):
    """A host's."""


class Note(VectorMixin, Base):
    __tablename__ = "notes_of_tenants"
    __collection__ = Collection(
        VectorSpec(8, index=None), namespace="tenant", namespace_in_key=True
    )

    stars: Mapped[int] = mapped_column(default=5)


@pytest.mark.parametrize("watched", [False, True])
async def test_rows_go_into_a_namespace_of_a_hosts_collection_on_its_engine(
    dsn: str, *, watched: bool
) -> None:
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"))
    if watched:
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with Database.from_engine(engine) as db:
        for tenant in ("a", "b"):
            report = await import_collection(db, listed(), into=Note, namespace=tenant)
            assert report.is_good, report.faults
            assert (report.into, report.stored) == (f"notes_of_tenants of {tenant}", 30)
        found = await db.collection(Note, namespace="b").get(["p7"])
        assert found["p7"].attributes == {"stars": 5}
    await engine.dispose()


async def test_a_table_that_is_not_there_is_told_of(empty_dsn: str) -> None:
    async with Database.connect(empty_dsn) as db:
        with pytest.raises(SchemaVersionError, match="qortex-db upgrade"):
            await import_collection(db, listed())


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            SourceVector("", 8, "l2", index=IVFFlat(lists=7)),
            VectorSpec(8, "l2", index=HNSW()),
        ),
        (
            SourceVector("", 3_000, "cosine", index=HNSW(m=8)),
            VectorSpec(3_000, quantization="half", index=HNSW(m=8)),
        ),
        (
            SourceVector("", 5_000, "cosine", "half", index=HNSW()),
            VectorSpec(5_000, storage="half", quantization="binary"),
        ),
        (
            SourceVector("", 3_000, "cosine", "half", "half", index=HNSW()),
            VectorSpec(3_000, storage="half"),
        ),
        (SourceVector("", 5_000, "cosine"), VectorSpec(5_000, index=None)),
    ],
    ids=["lists", "wide", "wider", "half of half", "no index"],
)
async def test_an_index_is_made_one_that_pgvector_has(
    given: SourceVector, wanted: VectorSpec
) -> None:
    size = given.dimensions or 0
    plan = await plan_import(Listed([SourceRow("a", {"": [1.0] * size})], [given]))
    assert plan.specs == {"vec": wanted}


class Numbered(VectorMixin, Base):
    __tablename__ = "numbered"
    __collection__ = Collection(VectorSpec(8, index=None))

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)  # type: ignore[assignment]


async def test_an_id_that_is_refused_is_not_compared_as_its_number(
    db: Database, tmp_path: Path
) -> None:
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=[Numbered.__table__])
    rows = [{"id": each, "embedding": [1.0] * 8} for each in (1, "1", 2)]
    source = await open_source("jsonl", str(written(tmp_path / "rows.jsonl", rows)))
    report = await import_collection(db, source, into=Numbered)
    assert [each.where for each in report.rejects] == ["1"]
    assert (report.stored, report.sampled, report.unread) == (2, 2, 0)
    assert report.differences == []


async def test_what_a_row_has_no_more_is_cleared_by_another_import(db: Database) -> None:
    row = SourceRow("a", {"": MATRIX[0, :8]}, {"n": 1}, "a text")
    source = Listed([row], [SourceVector("", 8, "cosine")])
    await import_collection(db, source)
    source.rows[0] = SourceRow("a", {}, {"n": 2})
    report = await import_collection(db, source)
    assert report.is_good, report.differences
    (found,) = (await db.vectors.get(["a"])).values()
    assert (found.embedding, found.payload, found.document) == (None, {"n": 2}, None)


async def test_an_import_that_goes_on_keeps_to_its_plan(db: Database, tmp_path: Path) -> None:
    source = await open_source("jsonl", str(written(tmp_path / "rows.jsonl", passages(300))))

    def stop(_: int) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        await import_collection(db, source, batch_size=100, on_progress=stop)
    other = Choices(document="")
    with pytest.raises(ConflictError, match=r"say the same .* or begin anew \(--anew\)"):
        await import_collection(db, source, choices=other)
    report = await import_collection(db, source, choices=other, anew=True)
    assert report.is_good, report.faults
    assert await db.vectors.count(where={"text": {"$exists": True}}) == 300


class Strict(VectorMixin, Base):
    __tablename__ = "strict_notes"
    __collection__ = Collection(VectorSpec(8, index=None))

    stars: Mapped[int]


async def test_a_column_that_needs_a_value_is_told_before_a_row_is_read(db: Database) -> None:
    async with db.engine.begin() as connection:
        await connection.run_sync(Strict.__table__.create)
    with pytest.raises(InvalidInputError, match=r"strict_notes\.stars is NOT NULL and has no"):
        await import_collection(db, listed(), into=Strict)
