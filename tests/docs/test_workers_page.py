"""The page on workers, tests and notebooks: each example runs as it would there."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import Database, Settings
from support.commands import ROOT, program
from support.pages import BLOCK

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/host/workers.md").read_text()
FILES = {block.splitlines()[0].removeprefix("# "): block for block in BLOCK.findall(PAGE)}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, block in FILES.items():
        if name.endswith(".py"):
            (tmp_path / name).write_text(block)
    return tmp_path


async def test_workers_and_threads_share_one_database(project: Path, dsn: str) -> None:
    printed = "[1.1, 1.1, 1.1]"
    for name in ("prefork.py", "threads.py"):
        given = {"PGVECTOR_DSN": dsn, "PYTHONPATH": f"{project}:{ROOT}"}
        done = await program(sys.executable, "-Werror", str(project / name), **given)
        assert (done.code, done.out.strip(), done.err) == (0, printed, "")
    async with Database.connect(Settings(dsn=dsn)) as db:
        assert set(await db.factors.load()) == {"parent", *"abcdef"}


async def test_tests_have_a_loop_each(project: Path, dsn: str) -> None:
    done = await program(
        *(sys.executable, "-m", "pytest", "-q", "-Werror", "-p", "no:xdist", "--rootdir", "."),
        *("-o", "asyncio_default_fixture_loop_scope=function", "test_memory.py"),
        cwd=project,
        PGVECTOR_DSN=dsn,
        PYTHONPATH=f"{project}:{ROOT}",
    )
    assert "2 passed" in done.out, done.out + done.err


def test_a_service_opens_in_each_worker(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn)
    space: dict[str, Any] = {}
    exec(FILES["service.py"], space)  # noqa: S102 - our own

    async def worker() -> None:
        async with space["lifespan"](None):
            assert await space["db"].factors.load() == {}

    for _ in range(2):
        asyncio.run(worker())


async def test_cells_run_in_a_loop_that_goes_on(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn)
    space: dict[str, Any] = {}
    cells = [name for name in FILES if name.startswith("In [")]
    assert len(cells) == 3
    for name in cells:  # as IPython does it
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(FILES[name], name, "exec", flags=flags, dont_inherit=True)
        given = eval(code, space)  # noqa: S307 - our own
        if inspect.isawaitable(given):
            await given
    assert space["weights"] == {}


def test_what_is_not_run_is_python_at_least() -> None:
    assert set(FILES) >= {"memory.py", "tasks.py", "celery_app.py"}
    compile(FILES["celery_app.py"], "celery_app.py", "exec", dont_inherit=True)
