"""`qortex-db vectors`: rows found, read, counted, stored and written out."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from qortex_db import Database
from qortex_db.testing import create_all
from qortex_db.types import SparseVector
from support.commands import Result, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MODELS = """
import enum
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from qortex_db import Collection, VectorMixin, VectorSpec, vector_column
from qortex_db.types import Embedding

class Base(DeclarativeBase):
    pass

class Colour(enum.Enum):
    RED = "rosso"

class Page(VectorMixin, Base):
    __tablename__ = "pages"
    __collection__ = Collection(VectorSpec(3))
    title: Mapped[object | None] = vector_column(VectorSpec(2, storage="half"))
    words: Mapped[object | None] = vector_column(
        VectorSpec(9, metric="inner_product", storage="sparse")
    )
    price: Mapped[Decimal | None]
    day: Mapped[date | None]
    at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    took: Mapped[timedelta | None]
    key: Mapped[UUID | None]
    data: Mapped[bytes | None]
    colour: Mapped[Colour | None]
    score: Mapped[float | None]

class Line(Base):
    __tablename__ = "lines"
    __collection__ = Collection(VectorSpec(3, column="vec"), id=("book", "number"))
    book: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    vec: Mapped[Any] = mapped_column(Embedding(3))

def embed(texts):
    return [[len(text), text.count("e"), 1.0] for text in texts]

def failing(texts):
    raise ValueError("away")

def embed8(texts):
    return [[len(text), text.count("e"), *[1.0] * 6] for text in texts]
"""


def fed(dsn: str, *arguments: str, given: bytes) -> Result:
    """A command with something on its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "qortex_db", *arguments],
        input=given,
        capture_output=True,
        env=os.environ | {"PGVECTOR_DSN": dsn, "COLUMNS": "100"},
        check=False,
        timeout=60,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ourpages.py").write_text(MODELS)
    return tmp_path


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def left(folder: Path) -> list[str]:
    """What an export leaves: no half of one."""
    return [each.name for each in folder.iterdir() if each.name.startswith("rows")]


def row(key: str, *first: float, **more: Any) -> dict[str, Any]:
    return {"id": key, "embedding": [*first, *[1.0] * (8 - len(first))], **more}


def test_what_is_stored_is_found_read_and_counted(dsn: str, folder: Path) -> None:
    given = lines(
        row("a", 1.0, payload={"lang": "en"}, document="An [bold] text"),
        row("b", 0.9, payload={"lang": "de"}),
        row("c", -9.0, -9.0),
    )
    stored = fed(dsn, "vectors", "ingest", given=given)
    assert (stored.code, stored.err) == (0, "3 lines were read, 3 rows stored, 0 were no good.\n")

    def do(*arguments: str) -> Any:
        done = run("vectors", *arguments, cwd=folder, PGVECTOR_DSN=dsn)
        assert done.code == 0, done.err
        return json.loads(done.out) if "--json" in arguments else done.out

    assert do("count") == "3\n"
    assert do("count", "--where", '{"lang": "en"}', "--json") == {"count": 1}
    shown = do("search", "--like", "a")
    assert shown.index(" b ") < shown.index(" c ")
    assert " a " not in shown
    numbers = json.dumps(row("", 1.0)["embedding"])
    (folder / "query.json").write_text(numbers)
    for query in (numbers, "query.json"):
        hits = do("search", "--embedding", query, "-n", "1", "--json")
        assert [(hit["id"], round(hit["score"], 5)) for hit in hits] == [("a", 1.0)]
        assert (hits[0]["payload"], hits[0]["document"]) == ({"lang": "en"}, "An [bold] text")
    scored = do("search", "--embedding", numbers, "--min-score", "0.9", "--json")
    assert [hit["id"] for hit in scored] == ["a", "b"]
    piped = fed(dsn, "vectors", "search", "--embedding", "-", "-n", "1", given=numbers.encode())
    assert "An [bold] text" in piped.out
    found = do("search", "eeee", "--embedder", "ourpages:embed8", "--json", "--where", "{}")
    assert len(found) == 3
    assert "An [bold] text" in do("get", "a", "b")
    assert do("get", "b", "--json")[0]["embedding"] == pytest.approx([0.9, *[1.0] * 7])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["get", "a"], 1, "a is not there."),
        (["search", "--like", "a"], 1, "not there"),
        (["search"], 2, "Pass one of a text, --embedding and --like."),
        (["search", "a", "--like", "b"], 2, "Pass one of"),
        (["search", "words"], 1, "embedder"),
        (["search", "--embedding", "[1, 2"], 2, "no JSON array"),
        (["search", "--embedding", "nowhere.json"], 2, "can't be opened"),
        (["search", "--embedding", "[1, 2]"], 1, "2 dimensions"),
        (["search", "--embedding", "/dev/zero"], 2, "has more than 4,194,304 bytes"),
        (["search", "--embedding", "[1, 2]", "--min-score", "1.5"], 1, "from -1 to 1."),
        (["search", "--embedding", "[1, 2]", "--min-score", "nan"], 1, "from -1 to 1."),
        (["search", "--like", "a", "--min-score", "0"], 2, "goes with a text or --embedding"),
        (["count", "--where", "[]"], 2, "--where is no JSON object"),
        (["count", "--where", '{"a": {"$no": 1}}'], 1, "$no"),
        (["count", "--model", "ourpages:Page", "--collection", "pages"], 2, "Pass one of"),
        (["count", "--model", "ourpages"], 2, "package.module:Name"),
        (["count", "--collection", "nothing"], 2, "No model with VectorMixin"),
        (["search", "a", "--embedder", "ourpages:no"], 2, "--embedder ourpages:no is not there"),
        (["get", "a", "--model", "ourpages:Line"], 2, "JSON array"),
        (["ingest", "nowhere.jsonl"], 1, "can't be opened"),
        (["export", "nowhere/rows.jsonl"], 1, "can't be opened"),
        (["export", "rows.parquet"], 2, "`qortex-db export` writes whole tables"),
        (["ingest", "rows.parquet"], 2, "`qortex-db import parquet` reads it"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    dsn: str, folder: Path, arguments: list[str], code: int, message: str
) -> None:
    done = run("vectors", *arguments, cwd=folder, PGVECTOR_DSN=dsn)
    assert done.code == code, done
    assert message in done.err
    assert "Traceback" not in done.err


def test_bad_lines_are_told_with_their_numbers_and_the_others_are_stored(
    dsn: str, folder: Path
) -> None:
    rows = [row(f"good{number}") for number in range(5)]
    given = lines(*rows[:2]) + b"\n" + b"no json\n" + lines(rows[2], {"embedding": [1]}, rows[3])
    given += lines({"id": "short", "embedding": [1, 2]}, rows[4], {"id": "x", "more": 1})
    given += lines(row("y", attributes={"nothing": 1}))
    file = folder / "rows.jsonl"
    file.write_bytes(given)
    done = run("vectors", "ingest", str(file), "--batch-size", "2", "--rejects", "bad.jsonl",
               cwd=folder, PGVECTOR_DSN=dsn)  # fmt: skip
    assert done.code == 1
    assert "11 lines were read, 5 rows stored, 5 were no good." in done.err
    bad = [json.loads(line) for line in (folder / "bad.jsonl").read_text().splitlines()]
    assert sorted((one["line"], one["id"]) for one in bad) == [
        (4, None),
        (6, None),
        (8, "short"),
        (10, "x"),
        (11, None),
    ]
    for one in bad:
        assert f"line {one['line']}: {one['reason']}" in done.err
        assert "row " not in one["reason"]
    assert bad[2]["reason"].startswith("embedding of line 8 (id 'short') has 2 dimensions")
    assert run("vectors", "count", PGVECTOR_DSN=dsn).out == "5\n"
    many = fed(dsn, "vectors", "ingest", given=b"no\n" * 50)
    assert many.code == 1
    assert many.err.count("It is no JSON.") == 20
    assert "--rejects has them all" in many.err


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
async def test_what_is_exported_is_ingested_as_it_was(
    dsn: str, empty_dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "ourpages", raising=False)
    ourpages: Any = importlib.import_module("ourpages")

    await create_all(dsn, ourpages.Base.metadata)
    full = {
        "price": Decimal("123456789012345678901234567890.000100"),
        "day": date(2024, 2, 29),
        "at": datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC),
        "took": timedelta(days=-3, microseconds=7),
        "key": UUID("0b1d0d4c-6f0f-4d0e-9c0c-1f6f5f0d7a11"),
        "data": b"\x00\xff",
        "colour": ourpages.Colour.RED,
        "score": float("inf"),
    }
    records = [
        {
            "id": "full",
            "embedding": [0.1, 1e-38, -3e18],
            "payload": {"text": "ü\n\u202e\x1b", "n": [1, 2.5, None, True], "deep": {"a": {}}},
            "document": "two\nlines",
            "vectors": {"title": [0.1, 65504.0], "words": SparseVector({0: 1.5, 8: -2.0}, 9)},
            "attributes": full,
        },
        {"id": "empty", "embedding": None},
    ]
    async with Database.connect(dsn) as db:
        await db.collection(ourpages.Page).upsert(records)
        await db.collection(ourpages.Line).upsert(
            [{"id": ("b", n), "embedding": [n, 1, 1]} for n in range(3)]
        )

    def do(*arguments: str) -> Result:
        done = run("vectors", *arguments, cwd=folder, PGVECTOR_DSN=dsn)
        assert done.code == 0, done.err
        return done

    async def rows(model: Any) -> list[tuple[Any, ...]]:
        async with Database.connect(dsn) as db:
            return [
                (one.id, str(one.embedding), one.payload, one.document, str(one.vectors),
                 dict(one.attributes or {}))
                async for one in db.collection(model).stream()
            ]  # fmt: skip

    for model, options in (
        (ourpages.Page, ["--collection", "pages", "--metadata", "ourpages:Base"]),
        (ourpages.Line, ["--model", "ourpages:Line"]),
    ):
        before = await rows(model)
        do("export", name, *options)
        async with Database.connect(dsn) as db:
            await db.collection(model).delete_all()
        assert await rows(model) == []
        do("ingest", name, *options, "--batch-size", "2")
        assert await rows(model) == before
        assert len(before) > 1
    assert await asyncio.to_thread(left, folder) == [name]
    read = gzip.decompress if name.endswith("gz") else bytes
    assert read((folder / name).read_bytes()).count(b"\n") == 3
    found = do("get", '["b", 1]', "--model", "ourpages:Line", "--json")
    assert json.loads(found.out)[0]["id"] == ["b", 1]


def test_documents_are_embedded_on_the_way_in(dsn: str, folder: Path) -> None:
    (folder / "rows.jsonl").write_bytes(lines({"id": "a", "document": "eel"}))
    options = ("--embedder", "ourpages:embed8")
    stored = run("vectors", "ingest", "rows.jsonl", *options, cwd=folder, PGVECTOR_DSN=dsn)
    assert stored.code == 0, stored.err
    found = json.loads(run("vectors", "get", "a", "--json", PGVECTOR_DSN=dsn).out)
    assert found[0]["embedding"] == [3.0, 2.0, *[1.0] * 6]
    (folder / "rows.jsonl").write_bytes(b"\n{\n" + lines({"id": "my row 0", "document": "eel"}))
    options = ("--embedder", "ourpages:failing")
    failed = run("vectors", "ingest", "rows.jsonl", *options, cwd=folder, PGVECTOR_DSN=dsn)
    assert "failed on documents of line 3 (id 'my row 0')" in failed.err


def test_a_signal_ends_an_ingest_that_waits_for_its_input(dsn: str) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "qortex_db", "vectors", "ingest", "--batch-size", "1"],
        env=os.environ | {"PGVECTOR_DSN": dsn},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(lines(*(row(str(number)) for number in range(100))))
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while run("vectors", "count", PGVECTOR_DSN=dsn).out != "100\n":
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, b"Stopped.\n")


def test_a_reader_that_goes_away_is_no_traceback(dsn: str) -> None:
    assert fed(dsn, "vectors", "ingest", given=lines(*map(row, "abcdefgh"))).code == 0
    command = f"{sys.executable} -m qortex_db vectors export --batch-size 1 | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command],  # noqa: S607 - wherever it is
        capture_output=True,
        env=os.environ | {"PGVECTOR_DSN": dsn},
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["id"] == "a"
    assert b"Traceback" not in done.stderr
