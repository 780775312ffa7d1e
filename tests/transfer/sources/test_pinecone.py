"""Pinecone's own client against a server of the tests that speaks its documented REST.

It has no server to run at home. What that server can't show is how Pinecone itself orders, counts
and times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qortex_db.errors import (
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from qortex_db.models.vector_spec import HNSW
from qortex_db.transfer.source import SourceRow, SourceVector, SparseComponents
from qortex_db.transfer.sources import open_source
from qortex_db.transfer.sources.vendors import asking
from support.sources.http import serving
from support.sources.killing import assert_stored, imported_with_kills
from support.sources.pinecone import serving_index
from support.sources.reading import (
    assert_rows,
    overlap,
    read,
    read_everywhere,
    unit_vectors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.sources.http import Served

pytestmark = pytest.mark.slow

ROWS = 10_000
VECTORS = unit_vectors(ROWS, 384)
KEY = "right-secret"


def expected(number: int) -> SourceRow:
    vectors: dict[str, Any] = {}
    if number % 50:
        vectors[""] = VECTORS[number]
    if number % 4 == 0 or number % 50 == 0:  # one of the two has to be there
        vectors["sparse"] = SparseComponents([number, 4_294_967_295], [0.5, 2.0])
    payload = {} if number % 10 == 0 else {"n": float(number), "s": "é\n🦉", "on": True, "l": ["a"]}
    return SourceRow(f"{number}#{'x' * (number % 300)}&=%", vectors, payload)


def sent(row: SourceRow) -> dict[str, Any]:
    vector: dict[str, Any] = {"id": row.id, "values": []}
    if "" in row.vectors:
        vector["values"] = [float(each) for each in row.vectors[""]]
    if "sparse" in row.vectors:
        sparse = row.vectors["sparse"]
        vector["sparseValues"] = {"indices": sparse.indices, "values": sparse.values}
    if row.payload:
        vector["metadata"] = dict(row.payload)
    return vector


@pytest.fixture(scope="module")
def index() -> Iterator[Served]:
    rows = [expected(number) for number in range(ROWS)]
    namespaces = {
        "__default__": {row.id: sent(row) for row in rows},
        "few": {row.id: sent(row) for row in rows[1:4]},
    }
    with serving_index(namespaces, dimension=384, metric="dotproduct") as served:
        served.api_key = ("Api-Key", KEY)
        yield served


async def test_every_row_of_a_namespace_is_read_once_and_as_it_is(index: Served) -> None:
    source = await open_source("pinecone", index.url, "", api_key=KEY)
    try:
        rows = await read_everywhere(source, (4_999,))
        some = [expected(number) for number in (1, 50, 9_999)]
        again = await source.get([*(row.id for row in some), "none"])
    finally:
        await source.close()
    assert_rows(rows, {row.id: row for row in map(expected, range(ROWS))})
    assert_rows(again, {row.id: row for row in some})


async def test_pages_of_any_size_are_read(index: Served) -> None:
    source = await open_source("pinecone", index.url, "few", api_key=KEY)
    try:
        rows = await read_everywhere(source, (1, 2, 3, 100))
    finally:
        await source.close()
    assert_rows(rows, {row.id: row for row in map(expected, (1, 2, 3))})


async def test_an_index_tells_what_its_host_and_its_rows_say(index: Served) -> None:
    source = await open_source("pinecone", index.url, "__default__", api_key=KEY)
    try:
        told = await source.describe()
    finally:
        await source.close()
    assert source.label == f"pinecone {index.url} __default__"
    assert (told.rows, told.ids) == (ROWS, "text")
    assert told.vectors == [
        SourceVector("", 384, "inner_product", index=HNSW()),
        SourceVector("sparse", None, "inner_product", "sparse", index=HNSW()),
    ]
    assert told.left_out == ["The namespace 'few' of 3 rows: each is an import of its own."]


async def test_a_metric_that_is_not_told_is_said_or_guessed() -> None:
    rows = {"__default__": {"a": {"id": "a", "values": [1.0]}}}
    with serving_index(rows, dimension=1) as served:
        for options, metric in (({}, "cosine"), ({"metric": "euclidean"}, "l2")):
            source = await open_source("pinecone", served.url, api_key=KEY, **options)
            told = await source.describe()
            assert [each.metric for each in told.vectors] == [metric]
            assert any("does not tell the metric" in note for note in told.notes) != bool(options)
            await source.close()
        with pytest.raises(InvalidInputError, match="metric"):
            await open_source("pinecone", served.url, api_key=KEY, metric="l1")
    with serving_index(rows, vectorType="sparse", metric="dotproduct") as served:
        source = await open_source("pinecone", served.url, api_key=KEY)
        assert [each.name for each in (await source.describe()).vectors] == ["sparse"]
        await source.close()


async def test_its_own_search_finds_the_nearest(index: Served) -> None:
    source = await open_source("pinecone", index.url, "", api_key=KEY)
    numbers = np.array([number for number in range(ROWS) if number % 50])
    try:
        best = numbers[np.argsort(-(VECTORS[numbers] @ VECTORS[77]))[:10]]
        found = await source.nearest("", VECTORS[77], 10)
    finally:
        await source.close()
    assert overlap(found, [expected(int(each)).id for each in best]) >= 0.9


async def test_rows_that_are_added_or_deleted_meanwhile_hide_no_other() -> None:
    rows = {f"{number:03}": {"id": f"{number:03}", "values": [1.0]} for number in range(100)}
    with serving_index({"only": rows}, dimension=1, metric="cosine") as served:
        source = await open_source("pinecone", served.url, api_key=KEY)
        ids = []
        async for page in source.pages(None, 30):
            ids += [row.id for row in page.rows]
            rows["000a"] = {"id": "000a", "values": [1.0]}
            rows.pop("005", None)
        assert ids == [f"{number:03}" for number in range(100)]
        rest, _ = await read(source, 100)
        assert len(rest) == 100
        await source.close()


async def test_what_is_wrong_is_told_as_ours(
    index: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSES", (0.01, 0.01))
    # Its client tries again too, with pauses of its own.
    monkeypatch.setattr("pinecone._internal.http_client._retry_sleep", lambda _: None)
    with pytest.raises(InvalidInputError, match="asks for a key"):
        await open_source("pinecone", index.url)
    with pytest.raises(PermissionDeniedError) as caught:
        await open_source("pinecone", index.url, api_key="wrong-secret")
    assert "secret" not in repr(caught.value)
    with pytest.raises(InvalidInputError, match="'__default__', 'few'"):
        await open_source("pinecone", index.url, api_key=KEY)
    with pytest.raises(NotFoundError, match="no namespace 'other'"):
        await open_source("pinecone", index.url, "other", api_key=KEY)
    source = await open_source("pinecone", index.url, "few", api_key=KEY)
    index.statuses = [429, 503, 0]
    assert len((await read(source, 10))[0]) == 3
    assert index.statuses == []
    assert "secret" not in repr(source)
    await source.close()
    with serving(lambda _: (200, {})) as gone:
        url = gone.url
    with pytest.raises(UnavailableError, match=r"Pinecone at http://127\.0\.0\.1:\d+ can't be"):
        await open_source("pinecone", url, api_key=KEY)


@pytest.mark.faults
async def test_an_import_that_is_killed_goes_on_to_the_last_row(index: Served, dsn384: str) -> None:
    report = await imported_with_kills(
        dsn384,
        "pinecone",
        index.url,
        "",
        kills=(1, 4, 3),
        leave_out=["sparse"],
        api_key=KEY,
    )
    assert report.is_good, report.faults
    assert (report.read, report.stored, report.rejected) == (ROWS, ROWS, 0)
    await assert_stored(dsn384, map(expected, range(ROWS)), "", near=0)
