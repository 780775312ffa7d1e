"""The commands about a host's own tables, by `--metadata` and `QORTEX_DB_METADATA`."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import QortexVector, Settings, migrations, payload_index
from qortex_db.testing import asyncpg_url, create_all
from support.catalogue import execute
from support.commands import run

if TYPE_CHECKING:
    from pathlib import Path

    from support.commands import Result

pytestmark = pytest.mark.slow

MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from qortex_db import Collection, VectorMixin, VectorSpec

class Base(DeclarativeBase):
    pass

class Page(VectorMixin, Base):
    __tablename__ = "pages"
    __collection__ = Collection(VectorSpec(8))

class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)

class Empty(DeclarativeBase):
    pass
"""
OURS = "--metadata", "myapp.models:Base"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp/__init__.py").touch()
    (tmp_path / "myapp/models.py").write_text(MODELS)
    return tmp_path


async def make_tables(folder: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    for name in ("myapp", "myapp.models"):  # another test's
        monkeypatch.delitem(sys.modules, name, raising=False)
    await create_all(dsn, importlib.import_module("myapp.models").Base.metadata)


def told(done: Result) -> str:
    return " ".join((done.out + done.err).split())


async def test_a_database_with_a_hosts_tables_alone(
    folder: Path, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def do(*arguments: str, **environment: str) -> Result:
        return run(*arguments, cwd=folder, PGVECTOR_DSN=empty_dsn, **environment)

    lacking = do("check", *OURS)
    assert lacking.code == 1
    assert "authors, pages of myapp.models:Base are not there" in told(lacking).replace(
        "pages, authors", "authors, pages"
    )
    await make_tables(folder, empty_dsn, monkeypatch)
    await execute(empty_dsn, "INSERT INTO authors DEFAULT VALUES")
    unnamed = do("check")
    assert (unnamed.code, "qortex-db upgrade" in told(unnamed)) == (1, True)
    for done in (do("check", *OURS), do("check", QORTEX_DB_METADATA="myapp.models:Base")):
        assert done.code == 0, done.err
        assert "2 tables of myapp.models:Base are there" in told(done)
        assert "upgrade" not in told(done)
    assert do("check", "--drift", *OURS).code == 0
    status = do("status", "--json", *OURS)
    assert status.code == 0, status.err
    report = json.loads(status.out)
    assert report["schema"] is None
    assert {name: one["rows"] for name, one in report["tables"].items()} == {
        "authors": 1,
        "pages": 0,
    }
    shown = do("status", *OURS)
    assert (shown.code, "pages" in shown.out) == (0, True)
    page = do("report", *OURS)
    assert (page.code, "`qortex-db status` tells of yours" in told(page)) == (1, True)
    await execute(empty_dsn, "DROP INDEX ix_pages_vec")
    drifted = do("check", "--drift", *OURS)
    assert (drifted.code, "pages, index ix_pages_vec" in drifted.out) == (1, True)


async def test_a_database_with_ours_and_a_hosts(
    folder: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def do(*arguments: str) -> Result:
        return run(*arguments, cwd=folder, PGVECTOR_DSN=dsn)

    await make_tables(folder, dsn, monkeypatch)
    for command in ("check", "status"):
        done = do(command, *OURS)
        assert done.code == 0, done.err
        assert migrations.head_revision() in done.out
    report = json.loads(do("status", "--json", *OURS).out)
    assert {"pages", "authors", "qortex_vectors"} < report["tables"].keys()
    assert do("check", "--drift", *OURS).code == 0
    written = do("report", "-o", "-", *OURS)
    assert (written.code, "pages" in written.out) == (0, True)
    assert "pages" not in do("report", "-o", "-").out
    await execute(
        dsn, "ALTER TABLE pages ADD extra int", "ALTER TABLE qortex_vectors ADD extra int"
    )
    done = do("check", "--drift", *OURS)
    assert (done.code, done.out.count("column extra")) == (1, 2)
    await execute(dsn, "UPDATE qortex_db_alembic_version SET version_num = 'qortex_db_0001'")
    behind = do("check", *OURS)
    assert (behind.code, "qortex-db upgrade" in told(behind)) == (1, True)


@pytest.mark.parametrize("command", ["check", "status", "report"])
async def test_what_qortex_filled_is_to_be_adopted(
    folder: Path, empty_dsn: str, command: str
) -> None:
    await execute(
        empty_dsn,
        "CREATE TABLE interoception_factors (node_id text PRIMARY KEY, weight float8 NOT NULL)",
    )
    done = run(command, cwd=folder, PGVECTOR_DSN=empty_dsn)
    assert done.code == 1
    assert "qortex-db adopt" in told(done)
    assert "upgrade" not in told(done)


async def test_a_payload_index_made_as_the_page_says_is_no_drift(dsn: str) -> None:
    """On a copy: the process that looks for drift knows of no declaration."""
    engine = create_async_engine(asyncpg_url(dsn))
    table = QortexVector.__table__.to_metadata(type(QortexVector.metadata)())
    made = [
        payload_index(table, "", "containment"),
        payload_index(table, "", "document", language="german"),
        payload_index(table, "a.very.long.path" * 5, "keyword"),
        payload_index(table, "author's name", "text"),
        *(payload_index(table, "at", kind) for kind in ("integer", "datetime", "instant", "bool")),
    ]
    async with engine.begin() as connection:
        for index in made:
            await connection.run_sync(index.create)
    await engine.dispose()
    assert await migrations.drift(Settings(dsn=dsn)) == []
    assert run("check", "--drift", PGVECTOR_DSN=dsn).code == 0
    await execute(
        dsn,
        "CREATE UNIQUE INDEX ix_qortex_vectors_payload_one ON qortex_vectors ((payload ->> 'a'))",
        "CREATE INDEX ix_qortex_vectors_payload_two ON qortex_vectors (created_at)",
        "CREATE INDEX other ON qortex_vectors ((payload ->> 'a'))",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = "
        "'ix_qortex_vectors_payload_at_integer'::regclass",
        "DROP INDEX ix_qortex_vectors_payload",
    )
    assert {one.object for one in await migrations.drift(Settings(dsn=dsn))} == {
        "index ix_qortex_vectors_payload_one",
        "index ix_qortex_vectors_payload_two",
        "index other",
        "index ix_qortex_vectors_payload_at_integer",
        "index ix_qortex_vectors_payload",
    }


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("myapp.models", 2, "has to be package.module:Base"),
        ("nowhere.models:Base", 1, "There is no module nowhere"),
        ("myapp.nowhere:Base", 1, "There is no module myapp.nowhere"),
        ("myapp.models:Missing", 1, "neither a declarative base nor a MetaData"),
        ("myapp.models:Empty", 1, "declares no table"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_a_line(
    folder: Path, name: str, code: int, message: str
) -> None:
    done = run("check", "--metadata", name, cwd=folder, PGVECTOR_DSN="postgresql://h/d")
    assert (done.code, message in told(done)) == (code, True), done
    assert "Traceback" not in done.err
