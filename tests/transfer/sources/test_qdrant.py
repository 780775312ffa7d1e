"""Qdrant's local folder by its own client; its server's REST interface by one of the tests.

That server answers with what the client's own local mode gives, in the documented JSON: there is no
Qdrant server to be had as a wheel.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qortex_db.errors import (
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from qortex_db.models.vector_spec import HNSW
from qortex_db.transfer.source import SourceIndex, SourceRow, SourceVector, SparseComponents
from qortex_db.transfer.sources import open_source
from qortex_db.transfer.sources.vendors import asking
from qortex_db.transfer.sources.vendors.qdrant_config import described
from support.sources.http import Request, serving
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

    from support.sources.http import Served

pytestmark = [
    pytest.mark.slow,
    # From Python 3.13 on: the client's own, as it makes a collection in a folder.
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
]

ROWS = 10_000
TEXT = unit_vectors(ROWS, 384)


def payload(number: int) -> dict[str, Any]:
    return {
        "n": number,
        "half": number / 2,
        "whole": float(number),
        "even": number % 2 == 0,
        "nothing": None,
        "day": f"2024-01-{number % 28 + 1:02}T10:00:00.123456+02:00",
        "deep": {"list": [1, 1.0, True, None, {"a": []}], "é\n": "🦉"},
        "large": 2**63 - 1 - number,
    } | ({"document": f"Text {number}"} if number % 3 else {})


def point_id(number: int) -> int | UUID:
    if number % 4 == 0:
        return UUID(int=number * 2**96 + 5)
    return 2**64 - 1 - number if number % 7 == 0 else number


def point_vectors(number: int) -> dict[str, Any]:
    vectors: dict[str, Any] = {}
    if number % 50:  # each fiftieth lacks its main vector
        vectors["text"] = TEXT[number]
    if number % 3 == 0:
        vectors["words"] = SparseComponents(
            [number, 4_294_967_295, 1_000_000_001 + number], [0.5, 1.25, float(number + 1)]
        )
    return vectors


EXPECTED = {
    point_id(number): SourceRow(point_id(number), point_vectors(number), payload(number))
    for number in range(ROWS)
}


def fill(client: QdrantClient) -> None:
    client.create_collection(
        "points",
        vectors_config={
            "text": models.VectorParams(
                size=384,
                distance=models.Distance.COSINE,
                hnsw_config=models.HnswConfigDiff(m=120, ef_construct=100),
            ),
            "tokens": models.VectorParams(
                size=4,
                distance=models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(
                    comparator=models.MultiVectorComparator.MAX_SIM
                ),
            ),
        },
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    # Its local mode commits each point by itself: no need to wait for the disk each time.
    client._client.collections["points"].storage.storage.execute("PRAGMA synchronous=OFF")
    points = []
    for number in range(ROWS):
        vectors: dict[str, Any] = {}
        for name, vector in point_vectors(number).items():
            vectors[name] = (
                models.SparseVector(indices=vector.indices, values=vector.values)
                if isinstance(vector, SparseComponents)
                else vector.tolist()
            )
        vectors["tokens"] = [[1.0, 0.0, 0.0, 0.0]]
        key = point_id(number)
        points.append(
            models.PointStruct(
                id=key if isinstance(key, int) else str(key),
                vector=vectors,
                payload=payload(number),
            )
        )
    client.upsert("points", points)
    client.create_collection(
        "plain", models.VectorParams(size=3, distance=models.Distance.MANHATTAN)
    )
    client.upsert(
        "plain",
        [
            models.PointStruct(id=1, vector=[1, 2, 3], payload=None),
            models.PointStruct(id=2, vector={}, payload={}),
        ],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qdrant").resolve()
    client = QdrantClient(path=str(path))
    fill(client)
    client.close()
    return path


async def test_every_point_of_a_folder_is_read_once_and_as_it_was_written(folder: Path) -> None:
    before = files_of(folder)
    source = await open_source("qdrant", str(folder), "points")
    try:
        rows = await read_everywhere(source, (1_999, 20_000))
        some = [3, 7, 8, 49, 50, 9_999]
        again = await source.get([point_id(number) for number in some] + [11**15])
    finally:
        await source.close()
    assert_rows(rows, EXPECTED, near=1e-6)
    assert_rows(again, {point_id(n): EXPECTED[point_id(n)] for n in some}, near=1e-6)
    assert files_of(folder) == before


async def test_a_folder_tells_its_vectors_and_what_does_not_come_over(folder: Path) -> None:
    source = await open_source("qdrant", str(folder), "points")
    try:
        told = await source.describe()
    finally:
        await source.close()
    assert source.label == f"qdrant {folder} points"
    assert (told.rows, told.ids) == (ROWS, "text")
    assert told.vectors == [
        SourceVector("text", 384, "cosine", index=HNSW(m=100, ef_construction=200)),
        SourceVector("words", None, "inner_product", "sparse"),
    ]
    assert "'tokens'" in told.left_out[0]
    notes = " ".join(told.notes)
    assert "m=120" in notes
    assert "length 1" in notes
    assert "no graph" in notes
    assert "integers and some are UUIDs" in notes


async def test_a_vector_without_a_name_and_a_point_without_one_are_read(folder: Path) -> None:
    source = await open_source("qdrant", str(folder), "plain")
    try:
        rows, _ = await read(source, 10)
        told = await source.describe()
        found = await source.nearest("", [1, 2, 4], 5)
    finally:
        await source.close()
    assert rows == [SourceRow(1, {"": [1.0, 2.0, 3.0]}, {}), SourceRow(2, {}, {})]
    assert told.ids == "integer"
    assert told.vectors == [
        SourceVector("", 3, "l1", index=HNSW(m=16, ef_construction=100)),
    ]
    assert found == [1]


async def test_its_own_search_is_exact(folder: Path) -> None:
    source = await open_source("qdrant", str(folder), "points")
    numbers = np.array([number for number in range(ROWS) if number % 50])
    try:
        for number in (1, 4_444, 9_999):
            best = numbers[np.argsort(-(TEXT[numbers] @ TEXT[number]))[:10]]
            found = await source.nearest("text", TEXT[number], 10)
            assert found[0] == point_id(number)
            assert overlap(found, [point_id(int(each)) for each in best]) >= 0.9
        sparse = await source.nearest("words", SparseComponents([4_294_967_295], [1.0]), 10)
    finally:
        await source.close()
    assert len(sparse) == 10


async def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotFoundError, match=r"meta\.json"):
            await open_source("qdrant", str(wrong))
    assert files_of(tmp_path) == {}


async def test_a_collection_has_to_be_named_where_there_are_several(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="'plain', 'points'"):
        await open_source("qdrant", str(folder))
    with pytest.raises(NotFoundError, match=r"no collection 'other'; there is 'plain', 'points'"):
        await open_source("qdrant", str(folder), "other")
    with pytest.raises(InvalidInputError, match="takes no api_key"):
        await open_source("qdrant", str(folder), "plain", api_key="k")


async def test_a_folder_that_another_client_holds_is_told(folder: Path) -> None:
    held = QdrantClient(path=str(folder))
    try:
        with pytest.raises(UnavailableError, match="holds the folder"):
            await open_source("qdrant", str(folder), "points")
    finally:
        held.close()


# What a server says of itself, in the words of its documentation.

CONFIGURATION: dict[str, Any] = {
    "status": "green",
    "optimizer_status": "ok",
    "segments_count": 1,
    "points_count": 5,
    "config": {
        "params": {
            "vectors": {
                "a": {"size": 768, "distance": "Cosine", "datatype": "float16"},
                "b": {
                    "size": 3000,
                    "distance": "Euclid",
                    "hnsw_config": {"m": 0, "payload_m": 16},
                    "quantization_config": {"scalar": {"type": "int8"}},
                },
                "c": {"size": 8, "distance": "Dot", "datatype": "uint8"},
                "d": {
                    "size": 64,
                    "distance": "Dot",
                    "hnsw_config": {"ef_construct": 20},
                    "quantization_config": {"binary": {"encoding": "two_bits"}},
                },
                "e": {
                    "size": 64,
                    "distance": "Dot",
                    "quantization_config": {"product": {"compression": "x16"}},
                },
            },
            "sparse_vectors": {"s": {"modifier": "idf", "index": {"datatype": "float16"}}},
            "sharding_method": "custom",
        },
        "hnsw_config": {"m": 32, "ef_construct": 128, "full_scan_threshold": 10000},
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
        "quantization_config": {"scalar": {"type": "int8", "quantile": 0.99}},
    },
    "payload_schema": {
        "tenant": {
            "data_type": "keyword",
            "params": {"type": "keyword", "is_tenant": True},
            "points": 5,
        },
        "deep.count": {"data_type": "integer", "points": 5},
        "price": {"data_type": "float", "points": 5},
        "on": {"data_type": "bool", "points": 5},
        "at": {"data_type": "datetime", "points": 5},
        "words": {"data_type": "text", "points": 5},
        "key": {"data_type": "uuid", "points": 5},
        "place": {"data_type": "geo", "points": 5},
        "offers[].price": {"data_type": "float", "points": 5},
    },
}


def test_a_servers_configuration_is_told_whole() -> None:
    told = described(models.CollectionInfo(**CONFIGURATION), 5, "uuid", local=False)
    wide = HNSW(m=32, ef_construction=128)
    assert told.vectors == [
        SourceVector("a", 768, "cosine", "half", None, wide),
        SourceVector("b", 3000, "l2", "full", None, None),
        SourceVector("c", 8, "inner_product", "half", None, wide),
        SourceVector("d", 64, "inner_product", "full", "binary", HNSW(m=32, ef_construction=64)),
        SourceVector("e", 64, "inner_product", "full", None, wide),
        SourceVector("s", None, "inner_product", "sparse"),
    ]
    assert told.indexes == [
        SourceIndex("tenant", "keyword"),
        SourceIndex("deep.count", "integer"),
        SourceIndex("price", "float"),
        SourceIndex("on", "bool"),
        SourceIndex("at", "instant"),
        SourceIndex("words", "text"),
        SourceIndex("key", "keyword"),
    ]
    left_out, notes = "\n".join(told.left_out), "\n".join(told.notes)
    for part in ("product", "idf", "geo index on 'place'", "offers", "shard keys", "tenant"):
        assert part in left_out
    for part in ("float16", "uint8", "m=0", "int8", "two_bits", "ef_construction=20"):
        assert part in notes


@pytest.fixture
def served() -> Iterator[Served]:
    """Some of the points behind Qdrant's REST interface."""
    client = QdrantClient(":memory:")
    client.create_collection("one", models.VectorParams(size=3, distance=models.Distance.EUCLID))
    client.upsert(
        "one",
        [
            models.PointStruct(id=number, vector=[number, 1, 2], payload={"n": number})
            for number in range(500)
        ],
    )

    def answer(request: Request) -> tuple[int, Any]:
        match request.path.split("/")[1:], request.body or {}:
            case ["collections"], _:
                result = client.get_collections()
            case ["aliases"], _:
                result = client.get_aliases()
            case ["collections", name], _:
                result = client.get_collection(name)
            case ["collections", name, "points", "scroll"], body:
                points, offset = client.scroll(
                    name,
                    limit=body["limit"],
                    offset=body.get("offset"),
                    with_vectors=body["with_vector"],
                )
                result = models.ScrollResult(points=points, next_page_offset=offset)
            case ["collections", name, "points", "count"], body:
                assert body["exact"]
                result = client.count(name)
            case ["collections", name, "points", "query"], body:
                assert body["params"]["exact"]
                result = client.query_points(
                    name, query=body["query"]["nearest"], limit=body["limit"]
                )
            case ["collections", name, "points"], body:
                found = client.retrieve(name, body["ids"], with_vectors=body["with_vector"])
                return 200, {"result": [json.loads(each.model_dump_json()) for each in found]}
            case _:
                return 404, {"status": {"error": "Not found"}}
        return 200, {"result": json.loads(result.model_dump_json()), "status": "ok", "time": 0.0}

    with serving(answer) as served:
        yield served
    client.close()


async def test_a_server_is_read_like_a_folder(served: Served) -> None:
    source = await open_source("qdrant", served.url)
    try:
        rows = await read_everywhere(source, (7, 100, 1_000))
        told = await source.describe()
        assert await source.nearest("", [7, 1, 2], 1) == [7]
        assert [row.id for row in await source.get([5, 999])] == [5]
    finally:
        await source.close()
    assert rows[9] == SourceRow(9, {"": [9.0, 1.0, 2.0]}, {"n": 9})
    assert (len(rows), told.rows, told.ids) == (500, 500, "integer")
    assert not any("folder" in note for note in told.notes)


async def test_a_busy_server_is_asked_again_and_a_dead_one_is_told(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSES", (0.01, 0.01, 0.01))
    source = await open_source("qdrant", served.url)
    try:
        served.statuses = [429, 503, 0]
        rows, _ = await read(source, 500)
        assert len(rows) == 500
        served.statuses = [500] * 4
        with pytest.raises(UnavailableError, match=r"last of 4 tries .*goes on where"):
            await read(source, 500)
    finally:
        await source.close()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")  # on loopback
async def test_a_wrong_key_is_told_without_it(served: Served) -> None:
    served.api_key = ("api-key", "right-secret")
    with pytest.raises(PermissionDeniedError, match="refuses the key") as caught:
        await open_source("qdrant", served.url, api_key="wrong-secret")
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    address = served.url.replace("//", "//user:hidden@")
    source = await open_source("qdrant", address, api_key="right-secret")
    assert source.label == f"qdrant {served.url} one"
    assert "secret" not in repr(source)
    await source.close()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with serving(lambda _: (200, {})) as gone:
        url = gone.url
    with pytest.raises(UnavailableError, match=r"Qdrant at http://127\.0\.0\.1:\d+ can't be"):
        await open_source("qdrant", url)
    with (
        serving(lambda _: (200, {"no": "qdrant"})) as other,
        pytest.raises(InvalidInputError, match="does not take the request"),
    ):
        await open_source("qdrant", other.url)


@pytest.mark.faults
async def test_an_import_that_is_killed_goes_on_to_the_last_row(folder: Path, dsn384: str) -> None:
    report = await imported_with_kills(
        dsn384, "qdrant", str(folder), "points", kills=(1, 4, 3), leave_out=["words"]
    )
    assert report.is_good, report.faults
    assert (report.read, report.stored, report.rejected) == (ROWS, ROWS, 0)
    await assert_stored(dsn384, EXPECTED.values(), "text", near=1e-6)
