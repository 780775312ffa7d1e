"""Every example runs, and every generated page is current."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

import qortex_db
from qortex_db import Settings, migrations
from qortex_db.repositories.vectors import table_facts
from support.commands import ROOT
from support.pages import BLOCK, program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

COMING_FROM = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/coming_from/*.md"))


@pytest.mark.parametrize(
    "page",
    [
        "docs/architecture.md",
        "docs/command_line.md",
        "docs/errors.md",
        "docs/frameworks/frames.md",
        "docs/frameworks/haystack.md",
        "docs/frameworks/langchain.md",
        "docs/frameworks/llama_index.md",
        "docs/frameworks/others.md",
        "docs/host/scripts.md",
        "docs/index.md",
        "docs/learning/arms.md",
        "docs/learning/interoception.md",
        "docs/operations/backups.md",
        "docs/operations/large_tables.md",
        "docs/operations/replicas.md",
        "docs/performance/choosing.md",
        "docs/qortex/service.md",
        "docs/qortex/stores.md",
        "docs/quickstart.md",
        "docs/transfer/imports.md",
        "docs/vectors/changing_the_model.md",
        "docs/vectors/collections.md",
        "docs/vectors/embedding_cache.md",
        "docs/vectors/existing_tables.md",
        "docs/vectors/full_text.md",
        "docs/vectors/searching.md",
        *COMING_FROM,
    ],
)
async def test_the_examples_of_a_page_run(
    page: str, dsn384: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    monkeypatch.setattr(table_facts, "FACTS_SECONDS", 0.5)  # for which a change of models waits
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert blocks
    await program(*blocks)()


async def test_the_examples_of_the_readme_run(dsn384: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    setup = """
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from qortex_db import InteroceptionFactor, unit_of_work
engine = create_async_engine(Settings().target().url)
my_own_row = InteroceptionFactor(node_id="mine", weight=2.0)
"""
    first, second = BLOCK.findall((ROOT / "README.md").read_text())
    await program(first, setup, second, "await engine.dispose()")()
    target = Settings().target()
    assert target is not None
    engine = create_async_engine(target.url)
    async with engine.connect() as connection:
        ids = await connection.exec_driver_sql("SELECT id FROM qortex_vectors ORDER BY id")
        assert ids.scalars().all() == ["doc", "gzip", "smtp"]
        arms = await connection.exec_driver_sql("SELECT sum(pulls) FROM learning_arm_states")
        assert arms.scalar() == 1
    await engine.dispose()


async def test_the_quickstart_runs_where_no_server_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QORTEX_DB_EMBEDDED_PATH", str(folder / "data"))
    await migrations.upgrade(Settings(), embedded=True)
    blocks = BLOCK.findall((ROOT / "docs/quickstart.md").read_text())
    await program(*blocks)()


def test_every_variable_is_in_the_table_with_its_default() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`|unset) \|", page, re.MULTILINE))
    expected = {}
    for field in Settings.model_fields.values():
        default = field.default
        if hasattr(default, "get_secret_value"):
            default = default.get_secret_value()
        expected[str(field.validation_alias)] = "" if default is None else str(default)
    assert rows == expected


def test_every_public_name_is_on_a_page() -> None:
    pages = " ".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    words = set(re.findall(r"\w+", pages))
    errors = {name for name in qortex_db.__all__ if hasattr(qortex_db.errors, name)}
    assert set(qortex_db.__all__) - errors - {"__version__"} <= words


def test_what_is_written_from_the_code_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import generate_schema  # noqa: PLC0415
    import generate_sync  # noqa: PLC0415

    assert (ROOT / "docs/schema.md").read_text() == generate_schema.render()
    assert (ROOT / "qortex_db/sync/__init__.pyi").read_text() == generate_sync.stub()
