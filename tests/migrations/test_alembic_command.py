"""Alembic's own command line in the checkout, and a host whose history includes ours."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script

from qortex_db import SchemaVersionError, Settings, embedded, migrations
from qortex_db.migrations.connection import migration_engine, migration_lock
from support.catalogue import (
    BASELINE,
    LATER,
    VERSION_TABLE,
    catalogue,
    execute,
    relations,
    rows,
    run_script,
)
from support.commands import ROOT, Result, alembic, program
from support.hosting import HOST_ENV, HOST_REVISION

if TYPE_CHECKING:
    from pathlib import Path

    from qortex_db.testing import Server

pytestmark = pytest.mark.slow

HEAD = migrations.head_revision()

CALL = """
import sys
from alembic import command
from alembic.config import Config

getattr(command, sys.argv[1])(Config("alembic.ini"), *sys.argv[2:])
"""


async def called(*arguments: str, dsn: str, **environment: str) -> Result:
    """A command of Alembic's, called by a program."""
    command = (sys.executable, "-c", CALL, *arguments)
    return await program(*command, PGVECTOR_DSN=dsn, **environment)


async def test_upgrade_check_current_and_downgrade_work_from_the_checkout(
    each_empty_dsn: str,
) -> None:
    dsn = each_empty_dsn
    assert (await alembic("upgrade", "head", dsn=dsn)).code == 0
    assert await catalogue(dsn) == BASELINE | LATER
    assert (await alembic("current", dsn=dsn)).out.strip() == f"{HEAD} (head)"
    assert (await alembic("check", dsn=dsn)).code == 0
    assert (await alembic("downgrade", "base", dsn=dsn)).code == 0
    assert await relations(dsn) == {VERSION_TABLE, f"{VERSION_TABLE}_pkc"}


async def test_it_works_from_any_folder(empty_dsn: str, tmp_path: Path) -> None:
    done = await alembic(
        "-c", str(ROOT / "alembic.ini"), "upgrade", "head", dsn=empty_dsn, cwd=tmp_path
    )
    assert done.code == 0, done.err
    assert await catalogue(empty_dsn) == BASELINE | LATER


@pytest.mark.parametrize("command", [("upgrade", "head"), ("current",), ("downgrade", "base")])
async def test_with_nothing_given_it_fails_in_one_line(command: tuple[str, ...]) -> None:
    done = await alembic(*command, QORTEX_DB_EMBEDDED_PATH="/nowhere/at/all")
    assert done.code != 0
    assert "Traceback" not in done.err
    for word in ("PGVECTOR_DSN", "PGVECTOR_HOST", "DATABASE_URL", "-x embedded"):
        assert word in done.out + done.err


async def test_a_bad_dsn_is_one_line_without_its_password() -> None:
    done = await alembic("upgrade", "head", dsn="postgresql://u:s3cret@h/x?nope=1")
    assert done.code != 0
    assert "nope" in done.err
    assert not {"Traceback", "s3cret"} & set(done.err.replace(":", " ").split())


async def test_x_embedded_starts_the_embedded_server_and_leaves_it(folder: Path) -> None:
    path = folder / "embedded"
    done = await alembic("-x", "embedded", "upgrade", "head", QORTEX_DB_EMBEDDED_PATH=str(path))
    assert done.code == 0, done.err
    assert not (path / "postmaster.pid").exists()
    server = await asyncio.to_thread(embedded.start, path)
    try:
        assert await catalogue(server.dsn()) == BASELINE | LATER
    finally:
        await asyncio.to_thread(server.stop)


async def test_x_chooses_dimension_and_schema_of_a_first_upgrade(empty_dsn: str) -> None:
    options = ("-x", "dimensions=768", "-x", "schema=mine")
    done = await alembic(*options, "upgrade", "head", dsn=empty_dsn)
    assert done.code == 0, done.err
    assert "qortex_vectors.vec vector(768)" in await catalogue(empty_dsn, "mine")
    state = await migrations.check(Settings(dsn=empty_dsn, db_schema="mine"))
    assert (state.is_current, state.dimensions) == (True, 768)
    assert (await alembic(*options, "check", dsn=empty_dsn)).code == 0
    refused = await alembic(
        "-x", "schema=mine", "-x", "dimensions=3", "upgrade", "head", dsn=empty_dsn
    )
    assert refused.code != 0
    assert "768" in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(
    "option", ["dimensions=2001", "dimensions=abc", "schema=a b", "extension_schema=a;b"]
)
async def test_x_options_that_cannot_be_are_refused_in_one_line(
    empty_dsn: str, option: str
) -> None:
    for mode in ((), ("--sql",)):
        done = await alembic("-x", option, "upgrade", "head", *mode, dsn=empty_dsn)
        assert done.code != 0
        assert "Traceback" not in done.err
    assert await relations(empty_dsn) == set()


async def test_its_offline_sql_gives_the_same_database(empty_dsn: str) -> None:
    done = await alembic("-x", "dimensions=384", "upgrade", "head", "--sql")
    assert done.code == 0, done.err
    await run_script(empty_dsn, done.out)
    assert await catalogue(empty_dsn) == BASELINE | LATER
    assert (await migrations.check(Settings(dsn=empty_dsn))).is_current


async def test_five_at_once_all_succeed(empty_dsn: str) -> None:
    done = await asyncio.gather(*(alembic("upgrade", "head", dsn=empty_dsn) for _ in range(5)))
    assert [one.code for one in done] == [0] * 5, [one.err for one in done]
    assert await catalogue(empty_dsn) == BASELINE | LATER
    assert await rows(empty_dsn, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]


async def test_a_program_that_calls_alembic_waits_for_its_turn_too(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn)
    async with (
        migration_engine(settings, embedded=False) as engine,
        migration_lock(engine, timeout_seconds=1),
    ):
        seconds = {"QORTEX_DB_MIGRATION_TIMEOUT_SECONDS": "0.1"}
        waited = await called("upgrade", "head", dsn=empty_dsn, **seconds)
        looked = await called("current", dsn=empty_dsn, **seconds)
    assert "LockTimeoutError: Another process" in waited.err
    assert (looked.code, await relations(empty_dsn)) == (0, set())
    assert (await called("upgrade", "head", dsn=empty_dsn)).code == 0
    assert (await called("check", dsn=empty_dsn)).code == 0
    assert (await migrations.check(settings)).is_current


async def test_check_sees_drift_but_not_the_tables_of_others(empty_dsn: str) -> None:
    await alembic("upgrade", "head", dsn=empty_dsn)
    await execute(empty_dsn, "CREATE TABLE host (id int PRIMARY KEY)")
    assert (await alembic("check", dsn=empty_dsn)).code == 0
    await execute(empty_dsn, "ALTER TABLE interoception_factors ADD COLUMN extra int")
    done = await alembic("check", dsn=empty_dsn)
    assert done.code != 0
    assert "extra" in done.err


async def test_check_sees_what_alembic_alone_would_miss(empty_dsn: str) -> None:
    await alembic("upgrade", "head", dsn=empty_dsn)
    await execute(empty_dsn, "ALTER INDEX ix_qortex_vectors_vec SET (m = 32)")
    done = await alembic("check", dsn=empty_dsn)
    assert done.code != 0
    assert "index ix_qortex_vectors_vec: expected" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("schema", [None, "vectors"])
async def test_a_host_with_its_own_env_has_both_histories(
    server: Server, empty_dsn: str, tmp_path: Path, schema: str | None
) -> None:
    scripts = tmp_path / "host"
    (scripts / "versions").mkdir(parents=True)
    options = {"dimensions": 5, "schema": schema}
    (scripts / "env.py").write_text(HOST_ENV.format(options=options))
    prefix = f"{schema}." if schema else ""
    (scripts / "versions" / "host1.py").write_text(HOST_REVISION.format(schema=prefix))
    (tmp_path / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s/host\npath_separator = newline\n"
        f"version_locations =\n  %(here)s/host/versions\n  {migrations.locate() / 'versions'}\n"
    )
    url = empty_dsn.replace("postgresql://", "postgresql+asyncpg://")
    done = await alembic("upgrade", "heads", cwd=tmp_path, HOST_URL=url)
    assert done.code == 0, done.err
    expected = {
        line.replace("public.", f"{schema or 'public'}.").replace("(384)", "(5)")
        for line in BASELINE | LATER
    }
    assert expected <= await catalogue(empty_dsn, schema or "public")
    versions = set(await rows(empty_dsn, "SELECT version_num FROM alembic_version"))
    assert versions == {"host1", HEAD}
    done = await alembic("downgrade", "base", cwd=tmp_path, HOST_URL=url)
    assert done.code == 0, done.err
    assert {name for name in await relations(empty_dsn) if "qortex" in name} == set()


async def test_a_history_shared_with_a_host_finds_our_branch(dsn: str) -> None:
    await execute(
        dsn,
        "CREATE TABLE alembic_version (version_num text)",
        f"INSERT INTO alembic_version VALUES ('host1'), ('{HEAD}')",
    )
    state = await migrations.check(Settings(dsn=dsn, version_table="alembic_version"))
    assert (state.current, state.is_current) == (HEAD, True)


async def test_our_upgrade_leaves_a_shared_history_to_the_host(dsn: str) -> None:
    await execute(
        dsn,
        "CREATE TABLE alembic_version (version_num text)",
        f"INSERT INTO alembic_version VALUES ('host1'), ('{HEAD}')",
    )
    with pytest.raises(SchemaVersionError, match="its own Alembic upgrades both"):
        await migrations.upgrade(Settings(dsn=dsn, version_table="alembic_version"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Our history, to be added to."""
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    return tmp_path


def next_ids(count: int) -> list[str]:
    number = int(HEAD.removeprefix("qortex_db_"))
    return [f"qortex_db_{number + i:04}" for i in range(1, count + 1)]


async def test_a_revision_made_as_contributing_says_is_the_next_of_the_series(
    dsn: str, checkout: Path
) -> None:
    said = re.search(r"`alembic (revision -m) \"...\"`", (ROOT / "CONTRIBUTING.md").read_text())
    assert said is not None
    for message in ("Edges have an origin", "And a place"):  # no server is asked
        done = await alembic(*said[1].split(), message, cwd=checkout)
        assert done.code == 0, done.err
    first, second = next_ids(2)
    names = {path.name for path in (checkout / "alembic" / "versions").glob("00*.py")}
    assert f"{first.removeprefix('qortex_db_')}_edges_have_an_origin.py" in names
    upgraded = await alembic("upgrade", "head", cwd=checkout, dsn=dsn)
    assert upgraded.code == 0, upgraded.err
    assert await rows(dsn, f"SELECT version_num FROM {VERSION_TABLE}") == [second]
    down = await alembic("downgrade", HEAD, cwd=checkout, dsn=dsn)
    assert down.code == 0, down.err


async def test_autogenerate_numbers_its_revision_too(dsn: str, checkout: Path) -> None:
    done = await alembic("revision", "--autogenerate", "-m", "nothing", cwd=checkout, dsn=dsn)
    assert done.code == 0, done.err
    assert f"{next_ids(1)[0][-4:]}_nothing.py" in done.out


async def test_ids_that_are_given_and_revisions_of_a_hosts_own_are_left_alone(
    checkout: Path,
) -> None:
    given = await alembic("revision", "--rev-id", "mine", "-m", "given", cwd=checkout)
    assert given.code == 0, given.err
    hosts = ("revision", "--head", "base", "--branch-label", "myapp", "-m", "notes")
    own = await alembic(*hosts, cwd=checkout)
    assert own.code == 0, own.err
    written = {path.name for path in (checkout / "alembic" / "versions").glob("*.py")}
    assert "mine_given.py" in written
    assert not any(name.startswith(next_ids(1)[0][-4:]) for name in written)
    further = await alembic("revision", "--head", "myapp@head", "-m", "more", cwd=checkout)
    assert further.code == 0, further.err
    assert "qortex_db" not in further.out.rpartition("/")[2]


@pytest.mark.parametrize(
    "arguments", [("history",), ("history", "-r", "base:head"), ("merge", "heads"), ("heads",)]
)
async def test_what_is_about_the_revisions_alone_asks_no_server(
    checkout: Path, arguments: tuple[str, ...]
) -> None:
    done = await alembic(*arguments, cwd=checkout)
    assert done.code == 0, done.err


async def test_a_history_that_says_where_the_database_is_asks_it(dsn: str, checkout: Path) -> None:
    done = await alembic("history", "--indicate-current", cwd=checkout, dsn=dsn)
    assert "(head) (current)" in done.out, done.err
    assert (await alembic("history", "--indicate-current", cwd=checkout)).code != 0


@pytest.mark.parametrize("given", [None, "mine"])
def test_a_program_makes_a_revision_as_the_command_line_does(
    checkout: Path, given: str | None
) -> None:
    config = Config(str(checkout / "alembic.ini"))
    made = command.revision(config, message="Made by a program", rev_id=given)
    assert isinstance(made, Script)
    assert made.revision == (given or next_ids(1)[0])
