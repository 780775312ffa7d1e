"""Weaviate's own client against a server of the tests that speaks its REST and its gRPC.

There is no Weaviate server to be had as a wheel. The messages are those that come with the client;
what that server can't show is how Weaviate itself orders and times.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import numpy as np
import pytest

from qortex_db.errors import (
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from qortex_db.models.vector_spec import HNSW
from qortex_db.transfer.source import SourceIndex, SourceRow, SourceVector
from qortex_db.transfer.sources import open_source
from qortex_db.transfer.sources.vendors import asking
from support.sources.http import serving
from support.sources.killing import assert_stored, imported_with_kills
from support.sources.reading import (
    assert_rows,
    overlap,
    read,
    read_everywhere,
    unit_vectors,
)
from support.sources.weaviate import serving_collections

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ROWS = 10_000
VECTORS = unit_vectors(ROWS, 384)
PHONE = {
    "country_code": 49,
    "default_country": "de",
    "input": "01761234567",
    "international_formatted": "+49 176 1234567",
    "national": 1761234567,
    "national_formatted": "0176 1234567",
    "valid": True,
}


def key(number: int) -> UUID:
    return UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)


def stored(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    vectors: dict[str, Any] = {}
    if number % 50:
        vectors["text"] = VECTORS[number]
    if number % 3 == 0:
        vectors["small"] = np.array([number, 1, 2], np.float32)
    properties = {
        "count": ("int", 2**62 + number),
        "score": ("number", float(number)),
        "on": ("bool", number % 2 == 0),
        "body": ("text", f"é\n🦉 {number}"),
        "at": ("date", "2024-02-29T10:00:00.123456+02:00"),
        "owner": ("uuid", str(UUID(int=7))),
        "numbers": ("int[]", [1, 2**62]),
        "tags": ("text[]", ["a", "b"]),
        "place": ("geo", (52.5, 13.25)),
        "phone": ("phone", PHONE),
        "picture": ("blob", "aGVsbG8="),
        "deep": ("object", {"a": ("int", 1), "more": ("object", {"b": ("text", "x")})}),
        "list": ("object[]", [{"c": ("number", 1.0)}]),
    }
    if number % 4 == 0:
        properties["body"] = ("null", None)
    return vectors, properties


def expected(number: int) -> SourceRow:
    vectors, _ = stored(number)
    payload = {
        "count": 2**62 + number,
        "score": float(number),
        "on": number % 2 == 0,
        "body": None if number % 4 == 0 else f"é\n🦉 {number}",
        "at": datetime.fromisoformat("2024-02-29T10:00:00.123456+02:00"),
        "owner": UUID(int=7),
        "numbers": [1, 2**62],
        "tags": ["a", "b"],
        "place": {"lat": 52.5, "lon": 13.25},
        "phone": PHONE | {"number": PHONE["input"]},
        "picture": "aGVsbG8=",
        "deep": {"a": 1, "more": {"b": "x"}},
        "list": [{"c": 1.0}],
    }
    del payload["phone"]["input"]
    return SourceRow(key(number), vectors, payload)


def graph(**more: Any) -> dict[str, Any]:
    return {
        "distance": "cosine",
        "efConstruction": 128,
        "maxConnections": 32,
        "ef": -1,
        "cleanupIntervalSeconds": 300,
        "dynamicEfMin": 100,
        "dynamicEfMax": 500,
        "dynamicEfFactor": 8,
        "flatSearchCutoff": 40_000,
        "skip": False,
        "vectorCacheMaxObjects": 1,
        "filterStrategy": "sweeping",
    } | more


def schema(name: str, properties: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "class": name,
        "invertedIndexConfig": {
            "bm25": {"b": 0.75, "k1": 1.2},
            "cleanupIntervalSeconds": 60,
            "stopwords": {"preset": "en", "additions": None, "removals": None},
        },
        "multiTenancyConfig": {
            "enabled": False,
            "autoTenantCreation": False,
            "autoTenantActivation": False,
        },
        "properties": properties,
        "replicationConfig": {
            "factor": 1,
            "asyncEnabled": False,
            "deletionStrategy": "NoAutomatedResolution",
        },
        "shardingConfig": {
            "virtualPerPhysical": 128,
            "desiredCount": 1,
            "actualCount": 1,
            "desiredVirtualCount": 128,
            "actualVirtualCount": 128,
            "key": "_id",
            "strategy": "hash",
            "function": "murmur3",
        },
    } | more


def property_of(name: str, kind: str, *, ranges: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "dataType": [kind],
        "indexFilterable": True,
        "indexSearchable": kind == "text",
        "indexRangeFilters": ranges,
    } | more


PROPERTIES = [
    property_of("count", "int", ranges=True),
    property_of("score", "number", ranges=True),
    property_of("on", "boolean"),
    property_of("body", "text"),
    property_of("at", "date", ranges=True),
    property_of("owner", "uuid"),
    property_of("numbers", "int[]"),
    property_of("tags", "text[]"),
    property_of("place", "geoCoordinates"),
    property_of("phone", "phoneNumber"),
    property_of("picture", "blob"),
    property_of(
        "deep",
        "object",
        nestedProperties=[
            property_of("a", "int"),
            property_of("more", "object", nestedProperties=[property_of("b", "text")]),
        ],
    ),
    property_of("list", "object[]", nestedProperties=[property_of("c", "number")]),
    {"name": "links", "dataType": ["Few"]},
]


def named(**indexes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {
            "vectorIndexType": "hnsw",
            "vectorIndexConfig": each,
            "vectorizer": {"none": {}},
        }
        for name, each in indexes.items()
    }


SCHEMAS = [
    schema(
        "Odd",
        PROPERTIES,
        vectorConfig=named(
            text=graph(bq={"enabled": True, "rescoreLimit": 100}),
            small=graph(distance="l2-squared", maxConnections=128, efConstruction=100),
            tokens=graph(multivector={"enabled": True, "aggregation": "maxSim"}),
        ),
    ),
    schema(
        "Few",
        [property_of("n", "int")],
        vectorIndexType="hnsw",
        vectorIndexConfig=graph(distance="dot", sq={"enabled": True, "rescoreLimit": 20}),
        vectorizer="none",
    ),
    schema(
        "Shared",
        [property_of("n", "int")],
        vectorIndexType="flat",
        vectorIndexConfig={"distance": "manhattan", "vectorCacheMaxObjects": 1},
        vectorizer="none",
        multiTenancyConfig={
            "enabled": True,
            "autoTenantCreation": False,
            "autoTenantActivation": False,
        },
    ),
]


def few(*numbers: int) -> dict[UUID, Any]:
    return {key(each): ({"": [each, 1.0]}, {"n": ("int", each)}) for each in numbers}


@pytest.fixture(scope="module")
def weaviate_server() -> Iterator[tuple[Any, str, Any]]:
    collections = {
        ("Odd", ""): {key(number): stored(number) for number in range(ROWS)},
        ("Few", ""): few(*range(100)),
        ("Shared", "ann"): few(1, 2),
        ("Shared", "bob"): few(2, 3, 4),
    }
    with serving_collections(SCHEMAS, collections) as serving:
        yield serving


async def opened(server: tuple[Any, str, Any], name: str | None = None, **options: Any) -> Any:
    return await open_source("weaviate", server[0].url, name, grpc=server[1], **options)


async def test_every_object_is_read_once_and_as_it_is(weaviate_server: Any) -> None:
    source = await opened(weaviate_server, "odd")
    try:
        rows = await read_everywhere(source, (999,))
        some = [expected(number) for number in (0, 3, 50, 9_999)]
        again = await source.get([*(row.id for row in some), UUID(int=1)])
    finally:
        await source.close()
    assert rows[0].payload["at"].astimezone(UTC).hour == 8
    assert_rows(rows, {row.id: row for row in map(expected, range(ROWS))})
    assert_rows(again, {row.id: row for row in some})


async def test_a_collection_whose_vector_has_no_name_is_read(weaviate_server: Any) -> None:
    source = await opened(weaviate_server, "Few")
    try:
        rows = await read_everywhere(source, (1, 33, 100, 1_000))
        told = await source.describe()
        assert await source.nearest("", [1.0, 0.0], 2) == [key(99), key(98)]
    finally:
        await source.close()
    assert sorted(row.payload["n"] for row in rows) == list(range(100))
    assert list(rows[0].vectors) == [""]
    assert source.label == f"weaviate {weaviate_server[0].url} Few"
    assert told.vectors == [
        SourceVector("", 2, "inner_product", "full", "half", HNSW(m=32, ef_construction=128)),
    ]


async def test_a_schema_is_told_whole(weaviate_server: Any) -> None:
    source = await opened(weaviate_server, "Odd")
    try:
        told = await source.describe()
    finally:
        await source.close()
    assert (told.rows, told.ids) == (ROWS, "uuid")
    assert {each.name: each for each in told.vectors} == {
        "text": SourceVector(
            "text", 384, "cosine", "full", "binary", HNSW(m=32, ef_construction=128)
        ),
        "small": SourceVector("small", 3, "l2", index=HNSW(m=100, ef_construction=200)),
    }
    assert told.indexes == [
        SourceIndex("count", "integer"),
        SourceIndex("score", "float"),
        SourceIndex("at", "instant"),
    ]
    left_out, notes = "\n".join(told.left_out), "\n".join(told.notes)
    assert "'tokens'" in left_out
    assert "'links'" in left_out
    assert "m=128" in notes


async def test_a_tenant_is_an_import_of_its_own(weaviate_server: Any) -> None:
    with pytest.raises(InvalidInputError, match="tenant, one of 'ann', 'bob'"):
        await opened(weaviate_server, "Shared")
    with pytest.raises(NotFoundError, match="no tenant 'eve'"):
        await opened(weaviate_server, "Shared", tenant="eve")
    with pytest.raises(InvalidInputError, match="has no tenants"):
        await opened(weaviate_server, "Few", tenant="ann")
    source = await opened(weaviate_server, "Shared", tenant="bob")
    try:
        rows, _ = await read(source, 10)
        told = await source.describe()
    finally:
        await source.close()
    assert {row.payload["n"] for row in rows} == {2, 3, 4}
    assert source.label.endswith("Shared/bob")
    assert told.rows == 3
    assert told.vectors == [SourceVector("", 2, "l1")]
    assert any("tenants" in each for each in told.left_out)


async def test_its_own_search_finds_the_nearest(weaviate_server: Any) -> None:
    source = await opened(weaviate_server, "Odd")
    numbers = np.array([number for number in range(ROWS) if number % 50])
    try:
        best = numbers[np.argsort(-(VECTORS[numbers] @ VECTORS[77]))[:10]]
        found = await source.nearest("text", VECTORS[77], 10)
    finally:
        await source.close()
    assert overlap(found, [key(int(each)) for each in best]) >= 0.9


async def test_what_is_wrong_is_told_as_ours(
    weaviate_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSES", (0.01, 0.01))
    served, _, servicer = weaviate_server
    with pytest.raises(InvalidInputError, match="'Few', 'Odd', 'Shared'"):
        await opened(weaviate_server)
    with pytest.raises(NotFoundError, match="no collection 'Other'"):
        await opened(weaviate_server, "other")
    with pytest.raises(InvalidInputError, match="Pass a URL"):
        await open_source("weaviate", "some/folder")
    served.api_key = ("authorization", "Bearer right-secret")
    try:
        with pytest.raises(PermissionDeniedError) as caught:
            await opened(weaviate_server, "Few", api_key="wrong-secret")
        assert "secret" not in repr(caught.value)
        source = await opened(weaviate_server, "Few", api_key="right-secret")
        assert "secret" not in repr(source) + source.label
    finally:
        served.api_key = None
    servicer.failures = [grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert len((await read(source, 1_000))[0]) == 100
    servicer.failures = [grpc.StatusCode.PERMISSION_DENIED]
    with pytest.raises(PermissionDeniedError):
        await read(source, 1_000)
    await source.close()
    with serving(lambda _: (200, {})) as gone:
        url = gone.url
    with pytest.raises(UnavailableError, match=r"Weaviate at http://127\.0\.0\.1:\d+ can't be"):
        await open_source("weaviate", url)


@pytest.mark.faults
async def test_an_import_that_is_killed_goes_on_to_the_last_row(
    weaviate_server: Any, dsn384: str
) -> None:
    report = await imported_with_kills(
        dsn384,
        "weaviate",
        weaviate_server[0].url,
        "Odd",
        kills=(1, 4, 3),
        leave_out=["small"],
        grpc=weaviate_server[1],
    )
    assert report.is_good, report.faults
    assert (report.read, report.stored, report.rejected) == (ROWS, ROWS, 0)
    await assert_stored(dsn384, map(expected, range(ROWS)), "text", near=0)
