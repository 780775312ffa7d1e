"""Milvus Lite by its own client; what a server alone has is put into words by hand.

There is no Milvus server to be had as a wheel. Milvus Lite speaks the same protocol, over a socket.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from qortex_db.errors import InvalidInputError, NotFoundError, UnavailableError
from qortex_db.models.vector_spec import HNSW, IVFFlat
from qortex_db.transfer.source import SourceIndex, SourceRow, SourceVector, SparseComponents
from qortex_db.transfer.sources import open_source
from qortex_db.transfer.sources.vendors.milvus import _fault_of, _sent, _vector
from qortex_db.transfer.sources.vendors.milvus_config import described
from support.sources.killing import assert_stored, imported_with_kills
from support.sources.reading import (
    assert_rows,
    files_of,
    overlap,
    read,
    read_everywhere,
    unit_vectors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

ROWS = 10_000
VECTORS = unit_vectors(ROWS, 384)


def expected(number: int) -> SourceRow:
    key = number * 7_919 - 2**60
    vectors: dict[str, Any] = {
        "main": VECTORS[number],
        "words": SparseComponents([number, 4_294_967_294], [0.5, 2.0]),
    }
    if number % 3:
        vectors["small"] = np.array([number, 1, 2], np.float32)
    payload: dict[str, Any] = {
        "text": None if number % 4 == 0 else f"\"'\n🦉\\ {number}",
        "json": {"deep": [1, 1.0, None, True, {"n": 2**60 + number}]},
        "numbers": [number, 2**62],
        "flag": number % 2 == 0,
        "large": 2**62 + number,
        "double": number / 3,
        "at": "2024-01-01T10:00:00Z",
    }
    if number % 5 == 0:
        payload |= {"extra": {"x": 2**60 + 1}, "whole": 1.0, "one": 1, "none": None}
    return SourceRow(key, vectors, payload)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("milvus").resolve() / "m.db"
    client = MilvusClient(str(path))
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("key", DataType.INT64, is_primary=True)
    schema.add_field("main", DataType.FLOAT_VECTOR, dim=384)
    schema.add_field("small", DataType.FLOAT_VECTOR, dim=3, nullable=True)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("text", DataType.VARCHAR, max_length=100, nullable=True)
    schema.add_field("json", DataType.JSON)
    schema.add_field("numbers", DataType.ARRAY, element_type=DataType.INT64, max_capacity=5)
    schema.add_field("flag", DataType.BOOL)
    schema.add_field("large", DataType.INT64)
    schema.add_field("double", DataType.DOUBLE)
    schema.add_field("at", DataType.TIMESTAMPTZ)
    indexes = client.prepare_index_params()
    # Milvus Lite builds its graphs anew whenever it is opened: the large one is of lists.
    indexes.add_index("main", index_type="IVF_FLAT", metric_type="COSINE", params={"nlist": 64})
    indexes.add_index(
        "small", index_type="HNSW", metric_type="L2", params={"M": 8, "efConstruction": 64}
    )
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    indexes.add_index("large", index_type="INVERTED")
    indexes.add_index("text", index_type="INVERTED")
    client.create_collection("odd", schema=schema, index_params=indexes)
    numbers = list(range(ROWS))
    np.random.default_rng(5).shuffle(numbers)
    for start in range(0, ROWS, 2_500):
        rows = []
        for number in numbers[start : start + 2_500]:
            row = expected(number)
            vectors = {
                name: dict(zip(each.indices, each.values, strict=True))
                if isinstance(each, SparseComponents)
                else each.tolist()
                for name, each in row.vectors.items()
            }
            rows.append({"key": row.id, "small": None} | vectors | dict(row.payload))
        client.insert("odd", rows)
    client.create_collection("texts", schema=text_schema(), index_params=text_index(client))
    client.insert("texts", [{"id": key, "v": [1.0, 2.0]} for key in TEXT_KEYS])
    client.close()
    return path


TEXT_KEYS = ["b", "a'\"\\", "Ä", "🦉", "B", "a\n", "0", 'x" or "" == "', *map(str, range(50, 99))]


def text_schema() -> Any:
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=50)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=2)
    return schema


def text_index(client: MilvusClient) -> Any:
    indexes = client.prepare_index_params()
    indexes.add_index("v", index_type="AUTOINDEX", metric_type="IP")
    return indexes


async def test_every_row_of_a_file_is_read_once_and_as_it_was_written(place: Path) -> None:
    before = files_of(place)
    source = await open_source("milvus", str(place), "odd")
    try:
        rows = await read_everywhere(source, (4_000,))
        some = [expected(number) for number in (0, 3, 4, 9_999)]
        again = await source.get([*(row.id for row in some), 5])
    finally:
        await source.close()
    assert [row.id for row in rows] == [expected(number).id for number in range(ROWS)]
    assert_rows(rows, {row.id: row for row in map(expected, range(ROWS))})
    assert_rows(again, {row.id: row for row in some})
    assert files_of(place) == before


async def test_keys_that_are_texts_are_gone_on_behind_whatever_they_are(place: Path) -> None:
    source = await open_source("milvus", str(place), "texts")
    try:
        rows = await read_everywhere(source, (1, 7, 100))
        told = await source.describe()
    finally:
        await source.close()
    assert sorted(row.id for row in rows) == sorted(TEXT_KEYS)
    assert told.ids == "text"
    assert told.vectors == [SourceVector("v", 2, "inner_product", index=HNSW())]
    assert "AUTOINDEX" in told.notes[0]


async def test_a_file_tells_its_schema_and_its_indexes(place: Path) -> None:
    source = await open_source("milvus", str(place), "odd")
    try:
        told = await source.describe()
    finally:
        await source.close()
    assert source.label == f"milvus {place} default odd"
    assert (told.rows, told.ids) == (ROWS, "integer")
    main, small, words = told.vectors
    assert (main.dimensions, main.metric) == (384, "cosine")
    assert isinstance(main.index, IVFFlat)
    assert (small.dimensions, small.metric) == (3, "l2")
    assert isinstance(small.index, HNSW)
    assert words == SourceVector("words", None, "inner_product", "sparse")
    assert told.indexes == [SourceIndex("text", "keyword"), SourceIndex("large", "integer")]
    notes = " ".join(told.notes)
    assert "'small' may be null" in notes
    assert "Dynamic fields" in notes


async def test_its_own_search_finds_the_nearest(place: Path) -> None:
    source = await open_source("milvus", str(place), "odd")
    try:
        for number in (0, 5_001, 9_999):
            best = np.argsort(-(VECTORS @ VECTORS[number]))[:10]
            found = await source.nearest("main", VECTORS[number], 10)
            assert found[0] == expected(number).id
            assert overlap(found, [expected(int(each)).id for each in best]) >= 0.9
        query = SparseComponents([77], [1.0])
        assert await source.nearest("words", query, 1) == [expected(77).id]
    finally:
        await source.close()


async def test_rows_that_are_added_meanwhile_hide_no_other(tmp_path: Path) -> None:
    path = str(tmp_path / "m.db")
    client = MilvusClient(path)
    client.create_collection("texts", schema=text_schema(), index_params=text_index(client))
    client.insert("texts", [{"id": f"{n:03}", "v": [1.0, 2.0]} for n in range(100)])
    source = await open_source("milvus", path)
    try:
        ids, positions = [], []
        async for page in source.pages(None, 30):
            ids += [row.id for row in page.rows]
            positions.append(page.position)
            client.insert("texts", [{"id": "0000", "v": [0.0, 1.0]}, {"id": "~", "v": [0.0, 1.0]}])
        assert [each for each in ids if each not in ("0000", "~")] == [
            f"{n:03}" for n in range(100)
        ]
        rest, _ = await read(source, 30, positions[1])
        assert {row.id for row in rest} == {*(f"{n:03}" for n in range(60, 100)), "~"}
    finally:
        await source.close()
        client.close()


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    for wrong in (tmp_path, tmp_path / "none.db", tmp_path / "folder.db"):
        with pytest.raises(NotFoundError, match="Milvus Lite's"):
            await open_source("milvus", str(wrong))
    assert files_of(tmp_path) == {}


async def test_a_collection_has_to_be_named_where_there_are_several(place: Path) -> None:
    with pytest.raises(InvalidInputError, match="'odd', 'texts'"):
        await open_source("milvus", str(place))
    with pytest.raises(NotFoundError, match="no collection 'other'; there is 'odd', 'texts'"):
        await open_source("milvus", str(place), "other")


@contextmanager
def held(path: Path) -> Iterator[None]:
    script = (
        "import sys; from pymilvus import MilvusClient; c = MilvusClient(sys.argv[1]); "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


async def test_a_file_that_another_process_holds_is_told(tmp_path: Path) -> None:
    with held(tmp_path / "m.db"):
        (tmp_path / "m.db" / "collections").mkdir(exist_ok=True)
        with pytest.raises(UnavailableError, match="holds it"):
            await open_source("milvus", str(tmp_path / "m.db"), "odd")


async def test_a_server_that_is_not_there_is_unavailable_and_its_key_not_told() -> None:
    with pytest.raises(UnavailableError, match=r"Milvus at http://127\.0\.0\.1:9 can't") as caught:
        await open_source("milvus", "http://127.0.0.1:9", api_key="secret", timeout_seconds=1)
    assert "secret" not in repr(caught.value)


def test_a_servers_schema_is_told_whole() -> None:
    schema = {
        "collection_name": "c",
        "fields": [
            {"name": "id", "type": DataType.VARCHAR, "params": {}, "is_primary": True},
            {"name": "h", "type": DataType.FLOAT16_VECTOR, "params": {"dim": 8}},
            {"name": "bf", "type": DataType.BFLOAT16_VECTOR, "params": {"dim": "8"}},
            {"name": "i8", "type": DataType.INT8_VECTOR, "params": {"dim": 8}},
            {"name": "bits", "type": DataType.BINARY_VECTOR, "params": {"dim": 8}},
            {"name": "bm25", "type": DataType.SPARSE_FLOAT_VECTOR, "params": {}},
            {"name": "sq", "type": DataType.FLOAT_VECTOR, "params": {"dim": 8}},
            {"name": "pq", "type": DataType.FLOAT_VECTOR, "params": {"dim": 8}},
            {"name": "bit", "type": DataType.FLOAT_VECTOR, "params": {"dim": 8}},
            {
                "name": "text",
                "type": DataType.VARCHAR,
                "params": {"enable_match": True},
                "is_partition_key": True,
            },
            {"name": "on", "type": DataType.BOOL, "params": {}},
            {"name": "json", "type": DataType.JSON, "params": {}},
        ],
        "functions": [{"name": "f", "type": 1, "output_field_names": ["bm25"]}],
        "num_partitions": 16,
        "properties": {"collection.ttl.seconds": "60"},
    }
    indexes = {
        "h": {"index_type": "HNSW", "metric_type": "L2", "M": "120", "efConstruction": "360"},
        "bf": {"index_type": "FLAT", "metric_type": "COSINE"},
        "i8": {"index_type": "DISKANN", "metric_type": "IP"},
        "sq": {"index_type": "HNSW_SQ", "metric_type": "IP", "M": "8", "efConstruction": "64"},
        "pq": {"index_type": "IVF_PQ", "metric_type": "L2", "nlist": "99"},
        "bit": {"index_type": "IVF_RABITQ", "metric_type": "L2", "nlist": "10"},
        "on": {"index_type": "BITMAP"},
        "json": {"index_type": "INVERTED"},
    }
    told = described(schema, indexes, 3)
    assert told.vectors == [
        SourceVector("h", 8, "l2", "half", None, HNSW(m=100, ef_construction=360)),
        SourceVector("bf", 8, "cosine", "full", None, None),
        SourceVector("i8", 8, "inner_product", "half", None, HNSW()),
        SourceVector("sq", 8, "inner_product", "full", "half", HNSW(m=8, ef_construction=64)),
        SourceVector("pq", 8, "l2", "full", None, IVFFlat(lists=99)),
        SourceVector("bit", 8, "l2", "full", "binary", IVFFlat(lists=10)),
    ]
    assert told.indexes == [SourceIndex("text", "text"), SourceIndex("on", "bool")]
    left_out, notes = "\n".join(told.left_out), "\n".join(told.notes)
    for part in ("'bits'", "'bm25'", "IVF_PQ", "'json'", "16 partitions", "time to live", "'f'"):
        assert part in left_out
    for part in ("m=120", "DISKANN", "HNSW_SQ", "int8", "bfloat16", "RABITQ"):
        assert part in notes


def test_components_of_two_bytes_and_of_one_are_read_exactly() -> None:
    for kind, values in (
        (DataType.FLOAT16_VECTOR, [0.5, -2.0, 65_504.0]),
        (DataType.BFLOAT16_VECTOR, [0.5, -2.0, 2.0**100]),
        (DataType.INT8_VECTOR, [1.0, -128.0, 127.0]),
    ):
        sent = _sent(kind, values)
        stored = sent if isinstance(sent, bytes) else sent.tobytes()
        for given in (stored, [stored]):
            assert _vector({"type": kind}, given).tolist() == values


def test_an_error_of_a_server_is_told_by_its_kind() -> None:
    for code, words, fault in (
        (65535, "auth check failure, please check api key is correct", "denied"),
        (1, "permission deny to root", "denied"),
        (8, "request is rejected by grpc RateLimiter middleware", "busy"),
        (2, "Fail connecting to server", "away"),
        (100, "collection not found", "missing"),
        (65535, "field not found", None),
    ):
        assert _fault_of(MilvusException(code, words)) == fault


@pytest.mark.faults
async def test_an_import_that_is_killed_goes_on_to_the_last_row(
    place: Path, tmp_path: Path, dsn384: str
) -> None:
    mine = tmp_path / "m.db"  # this process still holds the other one
    shutil.copytree(place, mine)
    report = await imported_with_kills(
        dsn384, "milvus", str(mine), "odd", kills=(1, 4, 3), leave_out=["small", "words"]
    )
    assert report.is_good, report.faults
    assert (report.read, report.stored, report.rejected) == (ROWS, ROWS, 0)
    await assert_stored(dsn384, map(expected, range(ROWS)), "main", near=0)
