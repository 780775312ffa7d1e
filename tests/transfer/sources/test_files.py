"""Files as sources: Parquet and numpy; those of JSON lines are in test_importing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qortex_db import Database, InvalidInputError
from qortex_db.transfer import SparseComponents, import_collection, open_source
from support.framework_rows import matrix
from support.sources.reading import read_everywhere

if TYPE_CHECKING:
    from pathlib import Path


ROWS = 10_000
VECTORS = matrix(ROWS)


def parquet(folder: Path) -> None:
    """Three files of several groups each, with columns of many types."""
    when = datetime(2026, 11, 29, 12, tzinfo=UTC)
    for part, (start, end) in enumerate(((0, 4_000), (4_000, 4_001), (4_001, ROWS))):
        numbers = list(range(start, end))
        table = pa.table(
            {
                "id": pa.array([f"row {at}" for at in numbers]),
                "embedding": pa.FixedSizeListArray.from_arrays(
                    pa.array(VECTORS[start:end].ravel()), 384
                ),
                "text": [f"Text {at}" for at in numbers],
                "price": pa.array([Decimal(at) / 8 for at in numbers], pa.decimal128(12, 3)),
                "when": pa.array([when] * len(numbers), pa.timestamp("us", "UTC")),
                "tags": [["a", None] if at % 2 else None for at in numbers],
                "deep": [{"a": at} for at in numbers],
                "large": pa.array([2**63 + at for at in numbers], pa.uint64()),
            }
        )
        pq.write_table(table, folder / f"part-{part}.parquet", row_group_size=1_234)


@pytest.mark.slow
async def test_parquet_comes_with_its_types(db384: Database, tmp_path: Path) -> None:
    parquet(tmp_path)
    source = await open_source("parquet", str(tmp_path))
    rows = await read_everywhere(source, [999, 2 * 999])
    assert [row.id for row in rows] == [f"row {at}" for at in range(ROWS)]
    report = await import_collection(db384, source, batch_size=3_000)
    assert report.is_good, report.faults
    assert (report.plan.document, report.plan.guessed) == ("text", ("document",))
    assert report.stored == ROWS
    stored = await db384.vectors.get([f"row {at}" for at in range(ROWS)])
    for at in range(ROWS):
        found = stored[f"row {at}"]
        assert np.array_equal(np.asarray(found.embedding), VECTORS[at])
        assert found.document == f"Text {at}"
        assert found.payload == {
            "price": at / 8,
            "when": "2026-11-29T12:00:00+00:00",
            "tags": ["a", None] if at % 2 else None,
            "deep": {"a": at},
            "large": 2**63 + at,
        }
    await source.close()


async def test_parquet_of_vectors_of_every_kind(tmp_path: Path) -> None:
    table = pa.table(
        {
            "key": pa.array([1, 2], pa.int64()),
            "embedding": pa.array([[1.0, 2.0], None], pa.list_(pa.float32())),
            "title_embedding": pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.float16())),
            "words_vec": pa.array([{"indices": [7, 4_000_000_000], "values": [0.5, 1.0]}, None]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    source = await open_source("parquet", str(tmp_path / "a.parquet"))
    found = [(v.name, v.dimensions, v.storage) for v in (await source.describe()).vectors]
    assert found == [
        ("", None, "full"),
        ("title_embedding", None, "half"),
        ("words_vec", None, "sparse"),
    ]
    first, second = await source.get([1, 2])
    assert first.vectors["words_vec"] == SparseComponents([7, 4_000_000_000], [0.5, 1.0])
    assert (second.vectors[""], second.vectors["words_vec"], second.payload) == (None, None, {})
    await source.close()


@pytest.mark.parametrize("beside", [True, False])
async def test_a_matrix_comes_with_what_its_rows_are(
    db384: Database, tmp_path: Path, *, beside: bool
) -> None:
    np.save(tmp_path / "a.npy", VECTORS[:2_500].astype(np.float16))
    options: dict[str, Any] = {}
    if beside:
        lines = [json.dumps({"id": f"r{at}", "text": f"T{at}", "n": at}) for at in range(2_500)]
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        options = {"rows": str(tmp_path / "a.jsonl")}
    source = await open_source("numpy", str(tmp_path / "a.npy"), **options)
    assert len(await read_everywhere(source, [777, 2 * 777])) == 2_500
    report = await import_collection(db384, source)
    assert report.is_good, report.faults
    key = "r7" if beside else "7"
    (found,) = (await db384.vectors.get([key])).values()
    assert np.array_equal(np.asarray(found.embedding), VECTORS[7].astype(np.float16))
    assert (found.document, found.payload) == (("T7", {"n": 7}) if beside else (None, {}))
    await source.close()


async def test_files_that_do_not_fit_are_refused(db384: Database, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS[:9])
    np.save(tmp_path / "flat.npy", VECTORS[0])
    (tmp_path / "a.jsonl").write_text('{"id": "a"}\n{"id": "b"}\n')
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n')
    pq.write_table(pa.table({"id": [1], "emb": ["x"]}), tmp_path / "a.parquet")
    short = await open_source("numpy", str(tmp_path / "a.npy"), rows=str(tmp_path / "a.jsonl"))
    with pytest.raises(InvalidInputError, match=r"a.jsonl has 2 lines, .*a.npy 9 rows"):
        await import_collection(db384, short)
    await short.close()
    for kind, name, options, said in (
        ("numpy", "flat.npy", {}, "in rows of equal length"),
        ("numpy", "a.jsonl", {}, "is no .npy file"),
        ("parquet", "a.jsonl", {}, "is no Parquet file"),
        ("parquet", "a.parquet", {}, "is called as an embedding is: say which by embedding="),
        ("parquet", "a.parquet", {"embedding": "e"}, "has no 'e': it has 'emb', 'id'"),
        ("jsonl", "b.jsonl", {}, "is called as an embedding is"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            await open_source(kind, str(tmp_path / name), **options)
    wrong = await open_source("parquet", str(tmp_path / "a.parquet"), embedding="emb")
    with pytest.raises(InvalidInputError, match="The column emb holds no lists of numbers"):
        await import_collection(db384, wrong)
    await wrong.close()


async def test_damaged_and_odd_files_are_refused_in_the_package_own_words(
    db384: Database, tmp_path: Path
) -> None:
    vectors = pa.array(VECTORS[:2].tolist(), pa.list_(pa.float32()))
    columns = {"id": ["a", "b"], "embedding": vectors}
    pq.write_table(pa.table(columns), tmp_path / "whole.parquet")
    damaged = bytearray((tmp_path / "whole.parquet").read_bytes())
    damaged[4:60] = b"\xff" * 56
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    far = columns | {"at": pa.array([2**62, 1], pa.timestamp("us"))}
    pq.write_table(pa.table(far), tmp_path / "far.parquet")
    twice = pa.Table.from_arrays([*columns.values(), [1, 2], [3, 4]], ["id", "embedding", "x", "x"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "several.npz", a=VECTORS[:2])
    np.save(tmp_path / "two.npy", VECTORS[:2])
    lines = b'{"id": "a"}\n{"id": "b"}\n'
    beside = {
        "latin": b'{"id": "\xff"}\n',
        "deep": b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n",
        "gap": b'{"id": "a"}\n\n{"id": "b"}\n',
        "long": lines + b'{"id": "c"}\n',
    }
    for name, content in beside.items():
        (tmp_path / name).write_bytes(content)
    for kind, name, rows, said in (
        ("parquet", "damaged.parquet", None, "damaged.parquet: its group 0 of rows is damaged"),
        ("parquet", "far.parquet", None, "far.parquet: its group 0 of rows .*OverflowError"),
        ("parquet", "twice.parquet", None, "has several columns 'x'"),
        ("numpy", "empty.npy", None, "is no .npy file"),
        ("numpy", "several.npz", None, "is no .npy file"),
        ("numpy", "two.npy", "latin", "Line 1 of .*latin is no JSON object"),
        ("numpy", "two.npy", "deep", "Line 1 of .*deep is no JSON object"),
        ("numpy", "two.npy", "gap", "Line 2 of .*gap is no JSON object"),
        ("numpy", "two.npy", "long", "long has more lines than the 2 rows of .*two.npy"),
    ):
        options = {} if rows is None else {"rows": str(tmp_path / rows)}
        with pytest.raises(InvalidInputError, match=said):
            await import_collection(db384, await open_source(kind, str(tmp_path / name), **options))
    (tmp_path / "good").write_bytes(b"\xef\xbb\xbf" + lines + b"\n \n")  # as Windows writes it
    source = await open_source("numpy", str(tmp_path / "two.npy"), rows=str(tmp_path / "good"))
    assert (await import_collection(db384, source)).is_good


async def test_what_json_can_not_say_stays_behind_and_is_told(
    db384: Database, tmp_path: Path
) -> None:
    columns = {
        "id": ["a"],
        "embedding": VECTORS[:1].tolist(),
        "raw": [b"x"],
        "took": pa.array([1], pa.duration("s")),
        "kept": [1],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    source = await open_source("parquet", str(tmp_path / "a.parquet"))
    report = await import_collection(db384, source)
    assert report.plan.source.left_out == [
        "The column raw (binary) has no word in JSON.",
        "The column took (duration[s]) has no word in JSON.",
    ]
    assert report.is_good, report.faults
    assert (await db384.vectors.get(["a"]))["a"].payload == {"kept": 1}


async def test_numbers_too_large_for_a_vector_are_told_row_by_row(
    db384: Database, tmp_path: Path
) -> None:
    matrix = VECTORS[:2].astype(np.float64)
    matrix[1] = 1e300
    np.save(tmp_path / "a.npy", matrix)
    report = await import_collection(db384, await open_source("numpy", str(tmp_path / "a.npy")))
    assert [each.where for each in report.rejects] == ["1"]
    assert "infinity (in float32)" in report.rejects[0].reason
