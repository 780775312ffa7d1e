"""Hosts whose tests use ours: those of docs/host/testing.md, run by pytest as they would be."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import asyncpg
import pytest

from support.commands import program
from support.hosting import Page, Project

if TYPE_CHECKING:
    from pathlib import Path

    from qortex_db.testing import Server
    from support.commands import Result

pytestmark = pytest.mark.slow

PAGE = Page("testing")
OWN_ALEMBIC = PAGE.files["tests/conftest.py"][1]
STRICT = """[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = session
asyncio_default_test_loop_scope = session
filterwarnings = error
"""
AUTO = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
BY_ANYIO = "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
TESTS = 9  # what the page has
HEAVY = ("qortex_db", "sqlalchemy", "alembic", "numpy", "factory", "pydantic", "asyncpg")


async def run_pytest(folder: Path, *arguments: str, **environment: str) -> Result:
    # What LangChain brings for pytest is deprecated on Python 3.14, and no business of the page's.
    without = ("-p", "no:cacheprovider", "-p", "no:langsmith_plugin")
    command = (sys.executable, "-m", "pytest", "-q", *without, *arguments)
    # Not forked: a process that has everything imported could not show what a plugin imports.
    return await program(*command, cwd=folder, PYTHONDONTWRITEBYTECODE="1", **environment)


def write_host(folder: Path, ini: str, plugin: str) -> None:
    """The page's files; in strict mode, its coroutines are marked for a plugin."""
    (folder / "pytest.ini").write_text(ini + "pythonpath = .\n")
    for path, texts in PAGE.files.items():
        if not path.endswith(".py"):
            continue
        text = texts[0]
        if ini != AUTO and "test_" in path:
            text = text.replace("async def test_", f"@pytest.mark.{plugin}\nasync def test_")
            text = f"import pytest\nimport pytest_asyncio\n{text}"
            if plugin == "asyncio":
                text = text.replace("@pytest.fixture\nasync", "@pytest_asyncio.fixture\nasync")
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    if plugin == "anyio":
        with (folder / "tests/conftest.py").open("a") as conftest:
            conftest.write(BY_ANYIO)


async def databases(server: Server) -> set[str]:
    connection = await asyncpg.connect(server.dsn())
    try:
        return {row[0] for row in await connection.fetch("SELECT datname FROM pg_database")}
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("plugin", "ini", "without"),
    [
        ("asyncio", AUTO, ()),
        ("asyncio", STRICT, ()),
        ("anyio", STRICT, ()),
        ("anyio", "[pytest]\n", ("-p", "no:asyncio")),
    ],
    ids=["asyncio, auto", "asyncio, strict", "anyio beside asyncio", "anyio alone"],
)
async def test_the_pages_host_is_tested_on_a_server_of_its_own_and_leaves_nothing(
    server: Server, tmp_path: Path, plugin: str, ini: str, without: tuple[str, ...]
) -> None:
    write_host(tmp_path, ini, plugin)
    before = await databases(server)
    if ini == AUTO:
        done = await run_pytest(tmp_path, QORTEX_DB_TEST_DSN=server.dsn())
    else:
        done = await run_pytest(tmp_path, *without, "--qortex-db-dsn", server.dsn())
    assert f"{TESTS} passed" in done.out, done.out + done.err
    assert await databases(server) == before


async def test_workers_of_xdist_have_throwaway_servers(tmp_path: Path) -> None:
    write_host(tmp_path, AUTO, "asyncio")
    temporary = tmp_path / "temporary"
    temporary.mkdir(mode=0o755)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    done = await run_pytest(tmp_path, "-n", "2", TMPDIR=str(temporary))
    assert f"{TESTS} passed" in done.out, done.out + done.err


async def test_a_hosts_own_alembic_makes_the_template(
    server: Server, tmp_path: Path, empty_dsn: str
) -> None:
    project = Project(tmp_path, empty_dsn, "shared_history")
    project.page.files["myapp/models.py"] = Page("same_schema").files["myapp/models.py"]
    await project.start()
    ini = project.page.files["alembic.ini"][0]
    project.edit("alembic.ini", "path_separator = os\n", ini)
    await project.run_page()
    (tmp_path / "pytest.ini").write_text(AUTO + "pythonpath = .\n")
    project.write("tests/conftest.py", OWN_ALEMBIC)
    project.write(
        "tests/test_notes.py",
        "from sqlalchemy import text\n\n"
        "async def test_both_histories(qortex_db_uow):\n"
        "    found = await qortex_db_uow.session.execute(\n"
        "        text('SELECT count(*) FROM notes JOIN qortex_vectors v ON vector_id = v.id')\n"
        "    )\n"
        "    assert found.scalar() == 0\n",
    )
    done = await run_pytest(tmp_path, "--qortex-db-dsn", server.dsn())
    assert "1 passed" in done.out, done.out + done.err


async def test_a_coroutine_that_nobody_runs_is_told_what_is_missing(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(qortex_db_database): ...\n")
    done = await run_pytest(tmp_path, "-p", "no:asyncio", QORTEX_DB_TEST_DSN=server.dsn())
    assert "install pytest-asyncio, or mark the test by pytest.mark.anyio" in done.out


async def test_in_an_unrelated_project_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(): ...\n")
    for arguments in (["--co"], []):
        look = (
            "import sys, pytest; "
            # What LangChain brings imports pydantic.
            "options = ['-q', '-p', 'no:cacheprovider', '-p', 'no:langsmith_plugin']; "
            f"pytest.main([*options, *{arguments}]); "
            "assert 'pytest_qortex_db' in sys.modules; "
            f"print('imported:', *[name for name in {HEAVY} if name in sys.modules])"
        )
        done = await program(sys.executable, "-c", look, cwd=tmp_path, PYTHONDONTWRITEBYTECODE="1")
        assert "1 test collected" in done.out or "1 passed" in done.out, done.out + done.err
        assert done.out.splitlines()[-1] == "imported:"
