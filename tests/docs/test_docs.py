"""Every example runs, and every generated page is current."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

import qortex_db
from qortex_db import Settings, migrations
from support.commands import ROOT
from support.pages import BLOCK, program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

COMING_FROM = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/coming_from/*.md"))


@pytest.mark.parametrize(
    "page",
    [
        "docs/collections.md",
        "docs/command_line.md",
        "docs/embedding_cache.md",
        "docs/learning.md",
        "docs/interoception.md",
        "docs/qortex.md",
        "docs/performance/choosing.md",
        "docs/quickstart.md",
        "docs/search.md",
        "docs/stores.md",
        *COMING_FROM,
    ],
)
async def test_the_examples_of_a_page_run(
    page: str, dsn384: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
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


def test_every_metric_is_named() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    source = (ROOT / "qortex_db/observability.py").read_text()
    named = set(re.findall(r"`(qortex_\w+)`", page))
    assert set(re.findall(r'"(qortex_\w+)"', source)) - {"qortex_db"} <= named


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


def test_the_schema_page_is_current() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import generate_schema  # noqa: PLC0415
    finally:
        sys.path.pop(0)
    assert (ROOT / "docs/schema.md").read_text() == generate_schema.render()


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs"), tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "quickstart.html").exists()
