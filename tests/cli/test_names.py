"""No name or value of a database is a command to the terminal that it is printed on."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from qortex_db import Database, migrations
from qortex_db.cli import app, shell
from qortex_db.settings import Settings
from qortex_db.testing import create_all
from support.catalogue import execute
from support.commands import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qortex_db.testing import Server

HOSTILE = "e\x1b[2J\x9b3m\u202eno\u2066p\u2028\u200f\x07\r\nerror: [red]x[/]"
RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
TABLE = "t\x1b[2J\u202ename"  # a name has 63 bytes
MODELS = f"""
from sqlalchemy import Index
from sqlalchemy.orm import DeclarativeBase
from qortex_db import Collection, VectorMixin, VectorSpec

class Base(DeclarativeBase):
    pass

class Odd(VectorMixin, Base):
    __tablename__ = {TABLE!r}
    __collection__ = Collection(VectorSpec(3))
    __table_args__ = (Index("ix{TABLE}", "document"),)
"""
FOUND = {  # what tells that what was planted is on the way to being printed
    "arms top", "arms show", "edges list", "edges promote", "vectors search", "vectors get",
    "vectors export", "collections list", "collections describe", "status", "report", "roles",
    "export", "doctor", "restore", "check", "index rebuild",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def role(server: Server, dsn: str) -> Iterator[str]:
    name = "r\x1b[2J\u202ele"
    server.execute(f'CREATE ROLE "{name}"')
    yield name
    server.execute(f'DROP OWNED BY "{name}"', database=dsn.partition("?")[0].rpartition("/")[2])
    server.execute(f'DROP ROLE "{name}"')


async def plant(dsn: str, folder: Path) -> None:
    async with Database.connect(dsn) as db:
        await db.arms.observe(HOSTILE, HOSTILE, reward=1.0)
        await db.arms.observe(HOSTILE, HOSTILE, reward=1.0, context={HOSTILE: HOSTILE})
        await db.factors.save({HOSTILE: 2.0, f"{HOSTILE}2": 0.5})
        await db.edges.record_many([(HOSTILE, f"{HOSTILE}2", 0.9)] * 4)
        await db.edges.record(HOSTILE, f"{HOSTILE}3", score=0.1)
        rows = [
            {"id": key, "embedding": [1.0] * 8, "payload": {HOSTILE: HOSTILE}, "document": HOSTILE}
            for key in (HOSTILE, f"{HOSTILE}2")
        ]
        await db.vectors.upsert(rows)
    await create_all(dsn, importlib.import_module("oddmodels").Base.metadata)
    index = f'"ix{TABLE}"'
    await execute(
        dsn,
        f'CREATE INDEX {index[:-1]}2" ON qortex_vectors (document)',
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass",
        f'ALTER TABLE qortex_vectors ADD "{TABLE}" int',
    )
    (folder / "rows.jsonl").write_text(
        json.dumps({"id": HOSTILE, HOSTILE: 1, "embedding": [1.0] * 8}) + "\n"
        + json.dumps({"id": HOSTILE, "embedding": [1.0]}) + "\n"
    )  # fmt: skip


def test_what_a_terminal_obeys_is_shown_instead(
    dsn: str,
    empty_dsn: str,
    role: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "oddmodels.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    asyncio.run(plant(dsn, tmp_path))
    ours = ("--metadata", "oddmodels:Base")
    model = ("--model", "oddmodels:Odd")
    context = ("--context", json.dumps({HOSTILE: HOSTILE}))
    commands: list[tuple[str, ...]] = [
        ("status",), ("status", *ours), ("check", *ours), ("check", "--drift", *ours),
        ("doctor",), ("doctor", *ours), ("adopt", "--dry-run"), ("upgrade",),
        ("arms", "top", HOSTILE), ("arms", "top", HOSTILE, *context), ("arms", "top", "nobody"),
        ("arms", "show", HOSTILE, HOSTILE), ("arms", "decay", HOSTILE, "--factor", "0.9"),
        ("factors", "summary"), ("edges", "list"), ("edges", "list", "--json"),
        ("vectors", "search", "--like", HOSTILE), ("vectors", "search", "--like", f"{HOSTILE}2"),
        ("vectors", "get", HOSTILE, f"no {HOSTILE}"), ("vectors", "get", HOSTILE, "--json"),
        ("vectors", "count", "--where", json.dumps({HOSTILE: HOSTILE})),
        ("vectors", "count", "--where", json.dumps({"$" + HOSTILE: 1})),
        ("vectors", "export"), ("vectors", "ingest", "rows.jsonl"),
        ("vectors", "count", "--collection", HOSTILE), ("vectors", "count", *model),
        ("collections", "list", *ours), ("collections", "describe", TABLE, *ours),
        ("collections", "describe", HOSTILE, *ours), ("model", "status"),
        ("model", "switch", HOSTILE), ("index", "rebuild", "--table", TABLE),
        ("index", "rebuild", "--table", HOSTILE), ("roles", "--reader", role),
        ("roles", "--reader", HOSTILE), ("report", "-o", "-"), ("report", "-o", "-", *ours),
        ("import", "jsonl", "rows.jsonl", "--dry-run"), ("import", "jsonl", "rows.jsonl"),
        ("export", "files", "--format", "jsonl", *ours), ("export", HOSTILE),
        ("arms", "reset", HOSTILE, "--yes"), ("count-words",),
    ]  # fmt: skip
    seen: set[str] = set()

    def do(*command: str, **environment: str) -> None:
        shell.out.cache_clear()
        shell.err.cache_clear()
        done: Any = CliRunner().invoke(app, command, env={"COLUMNS": "120"} | environment)
        assert isinstance(done.exception, (SystemExit, type(None))), (command, done.exception)
        look(command, done.output)

    def look(command: tuple[str, ...], told: str) -> None:
        assert not (raw := RAW.search(told)), (command, told[max(raw.start() - 40, 0) :][:80])
        assert not re.search(r"^error: x$|^error: \[red\]x", told, re.MULTILINE), command
        if any(shown in told for shown in ("\\x1b", "\\u001b", "\\u202e")):
            seen.add(" ".join(word for word in command[:2] if word.isalpha()))

    for command in commands:
        do(*command, PGVECTOR_DSN=dsn)
    asyncio.run(migrations.upgrade(Settings(dsn=empty_dsn, dimensions=8)))
    do("restore", "files", PGVECTOR_DSN=empty_dsn)
    promoted = run("edges", "promote", PGVECTOR_DSN=dsn)  # which wants a real output
    look(("edges", "promote"), promoted.out + promoted.err)
    do("restore", "files", *ours, PGVECTOR_DSN=empty_dsn)
    assert {name for name in FOUND if not any(one.startswith(name) for one in seen)} == set(), seen
