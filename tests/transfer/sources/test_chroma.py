"""Chroma's persistent folder by its own client, and its own server, which is in its wheel."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings

from qortex_db.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from qortex_db.models.vector_spec import HNSW
from qortex_db.transfer.source import SourceRow, SourceVector, SparseComponents
from qortex_db.transfer.sources import open_source
from qortex_db.transfer.sources.vendors import asking
from qortex_db.transfer.sources.vendors.chroma import ChromaSource
from support.sources.http import serving
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

pytestmark = pytest.mark.slow

ROWS = 10_000
VECTORS = unit_vectors(ROWS, 384)


def row_id(number: int) -> str:
    return f"ид/{number}" if number % 5 == 0 else str(number)


def metadata(number: int) -> dict[str, Any] | None:
    if number % 10 == 0:
        return None
    return {
        "n": number - 5_000,
        "float": float(number),
        "half": number / 2,
        "even": number % 2 == 0,
        "text": f"'\n🦉 {number}",
        "large": 2**63 - 1 - number,
        "tags": ["a", f"b{number}"],
        "levels": [1.0, 2.5],
        "a.b": "a dot in a key",
    }


def expected(number: int) -> SourceRow:
    payload = dict(metadata(number) or {})
    if number % 100 == 1:
        payload["chroma:uri"] = f"file:///{number}"
    document = None if number % 7 == 0 else ("" if number % 7 == 1 else f"Text {number}.")
    return SourceRow(row_id(number), {"": VECTORS[number]}, payload, document)


def client_of(folder: Path) -> Any:
    return chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chroma").resolve()
    client = client_of(path)
    filled = client.create_collection(
        "rows",
        metadata={"purpose": "odd"},
        configuration={"hnsw": {"space": "cosine", "max_neighbors": 24, "ef_construction": 120}},
        embedding_function=None,
    )
    for start in range(0, ROWS, 5_000):
        rows = [expected(number) for number in range(start, start + 5_000)]
        filled.add(
            ids=[row.id for row in rows],
            embeddings=VECTORS[start : start + 5_000],
            metadatas=[metadata(number) for number in range(start, start + 5_000)],
            documents=[row.document for row in rows],
            uris=[row.payload.get("chroma:uri") for row in rows],
        )
    small = client.create_collection(
        "small",
        metadata={"hnsw:space": "ip", "hnsw:M": 1, "hnsw:construction_ef": 3},
        embedding_function=None,
    )
    small.add(ids=[str(each) for each in range(30)], embeddings=[[each, 1.0] for each in range(30)])
    small.delete(ids=["0", "17"])
    small.add(ids=["17"], embeddings=[[17.0, 1.0]])
    small.update(ids=["3"], embeddings=[[3.5, 1.0]])
    client.create_collection("empty", embedding_function=None)
    client.close()
    return path


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the copies are made."""
    path = tmp_path / "copies"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


async def test_every_row_of_a_folder_is_read_once_and_as_it_was_written(
    folder: Path, copies: Path
) -> None:
    before = files_of(folder)
    source = await open_source("chroma", str(folder), "rows")
    try:
        assert files_of(copies)
        rows = await read_everywhere(source, (999, 2_500, 20_000))
        again = await source.get([row_id(3), row_id(10), "none"])
        assert await source.get([]) == []
    finally:
        await source.close()
    everything = {row_id(number): expected(number) for number in range(ROWS)}
    assert_rows(rows, everything, near=1e-6)
    assert_rows(again, {row_id(number): expected(number) for number in (3, 10)}, near=1e-6)
    assert files_of(folder) == before, "Chroma's client writes to what it opens: a copy"
    assert files_of(copies) == {}, "which is gone"


async def test_a_folder_tells_its_configuration(folder: Path) -> None:
    source = await open_source("chroma", str(folder), "rows")
    try:
        told = await source.describe()
    finally:
        await source.close()
    assert source.label == f"chroma {folder} default_tenant/default_database rows"
    assert (told.rows, told.ids) == (ROWS, "text")
    assert told.vectors == [
        SourceVector("", 384, "cosine", index=HNSW(m=24, ef_construction=120)),
    ]
    assert "own metadata" in told.left_out[0]
    notes = " ".join(told.notes)
    assert "length 1" in notes
    assert "chroma:uri" in notes


async def test_rows_that_were_deleted_added_again_or_changed_are_read_as_they_are(
    folder: Path,
) -> None:
    source = await open_source("chroma", str(folder), "small")
    try:
        rows = await read_everywhere(source, (1, 7, 28, 29, 100))
        told = await source.describe()
    finally:
        await source.close()
    assert [row.id for row in rows] == [*(str(n) for n in range(1, 30) if n != 17), "17"]
    assert list(rows[2].vectors[""]) == [3.5, 1.0]
    assert told.vectors == [
        SourceVector("", 2, "inner_product", index=HNSW(m=2, ef_construction=4)),
    ]
    assert "m=1" in told.notes[0]


async def test_a_collection_without_rows_is_read(folder: Path) -> None:
    source = await open_source("chroma", str(folder), "empty")
    try:
        assert (await read(source, 10))[0] == []
        told = await source.describe()
    finally:
        await source.close()
    assert told.rows == 0
    assert told.vectors == [
        SourceVector("", None, "l2", index=HNSW(m=16, ef_construction=100)),
    ]


async def test_its_own_search_finds_the_nearest(folder: Path) -> None:
    source = await open_source("chroma", str(folder), "rows")
    try:
        for number in (0, 5_001, 9_999):
            best = np.argsort(-(VECTORS @ VECTORS[number]))[:10]
            found = await source.nearest("", VECTORS[number], 10)
            assert found[0] == row_id(number)
            assert overlap(found, [row_id(int(each)) for each in best]) >= 0.9
    finally:
        await source.close()


async def test_rows_that_are_added_or_deleted_meanwhile_hide_no_other(
    folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    source = await open_source("chroma", str(mine), "small", in_place=True)
    client = client_of(mine)
    collection = client.get_collection("small", embedding_function=None)
    read_ids = []
    try:
        position = None
        async for page in source.pages(None, 10):
            read_ids += [row.id for row in page.rows]
            if len(read_ids) == 10:
                collection.delete(ids=["2", "5"])
                collection.add(ids=["00"], embeddings=[[0.0, 0.0]])
                position = page.position
        left = [*(str(n) for n in range(1, 30) if n != 17), "17", "00"]
        assert read_ids == left
        collection.delete(ids=["10"])
        with pytest.raises(ConflictError, match=r"'10' .* was deleted"):
            await read(source, 10, position)
    finally:
        await source.close()
        client.close()


async def test_sparse_vectors_in_the_metadata_are_vectors_where_the_schema_says_so() -> None:
    """Its cloud alone stores them: what it gives is put into words by hand."""
    sparse = chromadb.SparseVector(indices=[1, 4_000_000_000], values=[0.5, 0.25])
    source = ChromaSource.__new__(ChromaSource)
    source._sparse = {"words"}
    row = source._row("a", np.array([1.0]), None, {"words": sparse, "other": sparse}, None)
    assert row.vectors["words"] == SparseComponents([1, 4_000_000_000], [0.5, 0.25])
    assert row.payload == {"other": {"indices": [1, 4_000_000_000], "values": [0.5, 0.25]}}


async def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotFoundError, match=r"chroma\.sqlite3"):
            await open_source("chroma", str(wrong))
    assert files_of(tmp_path) == {}


async def test_a_collection_has_to_be_named_where_there_are_several(
    folder: Path, copies: Path
) -> None:
    with pytest.raises(InvalidInputError, match="'empty', 'rows', 'small'"):
        await open_source("chroma", str(folder))
    with pytest.raises(NotFoundError, match="no collection 'other'; there is 'empty', 'rows'"):
        await open_source("chroma", str(folder), "other")
    with pytest.raises(InvalidInputError, match="takes no api_key"):
        await open_source("chroma", str(folder), "rows", api_key="k")
    assert files_of(copies) == {}


@pytest.fixture(scope="module")
def chroma_server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Chroma's own, over a copy of the folder."""
    path = tmp_path_factory.mktemp("served") / "data"
    shutil.copytree(folder, path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).with_name("chroma")
    process = subprocess.Popen(
        [command, "run", "--path", path, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


async def test_a_server_is_read_like_a_folder(chroma_server: str) -> None:
    source = await open_source("chroma", chroma_server, "rows")
    try:
        rows = await read_everywhere(source, (4_000,))
        told = await source.describe()
        found = await source.nearest("", VECTORS[9], 10)
    finally:
        await source.close()
    assert_rows(rows, {row_id(number): expected(number) for number in range(ROWS)}, near=1e-6)
    assert told.vectors == [
        SourceVector("", 384, "cosine", index=HNSW(m=24, ef_construction=120)),
    ]
    assert found[0] == row_id(9)
    with pytest.raises(NotFoundError, match="no collection 'other'; there is 'empty'"):
        await open_source("chroma", chroma_server, "other")
    with pytest.raises(NotFoundError):
        await open_source("chroma", chroma_server, "rows", database="elsewhere")


async def test_what_a_server_refuses_is_told_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSES", (0.01, 0.01))
    with serving(lambda _: (404, {"error": "NotFoundError", "message": "none"})) as served:
        served.api_key = ("Authorization", "Bearer right")
        for status in (401, 403):
            served.statuses = [status]
            with pytest.raises(PermissionDeniedError, match="refuses the key") as caught:
                await open_source("chroma", served.url, api_key="secret")
            assert "secret" not in repr(caught.value)
        served.statuses = [503] * 9
        with pytest.raises(UnavailableError):
            await open_source("chroma", served.url)
        served.statuses = []
        with pytest.raises(NotFoundError):
            await open_source("chroma", served.url, api_key="right", key_header="Authorization")
        url = served.url
    with pytest.raises(UnavailableError, match=r"Chroma at http://127\.0\.0\.1:\d+ can't be"):
        await open_source("chroma", url)


@pytest.mark.faults
async def test_an_import_that_is_killed_goes_on_to_the_last_row(
    folder: Path, dsn384: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a killed process leaves its copy
    report = await imported_with_kills(dsn384, "chroma", str(folder), "rows", kills=(1, 4, 3))
    assert report.is_good, report.faults
    assert (report.read, report.stored, report.rejected) == (ROWS, ROWS, 0)
    await assert_stored(dsn384, map(expected, range(ROWS)), "", near=1e-6)
