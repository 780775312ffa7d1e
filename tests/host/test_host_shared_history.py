"""Hosts whose Alembic runs our revisions along with its own."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import alembic
import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from qortex_db import Settings, migrations
from support.catalogue import VERSION_TABLE, execute, relations, rows
from support.hosting import HEAD, Page, Project, declare, ours_is_current

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, empty_dsn: str) -> Project:
    return Project(tmp_path, empty_dsn, "shared_history")


async def shared(project: Project, template: str = "async") -> None:
    page = project.page
    page.files["myapp/models.py"] = Page("same_schema").files["myapp/models.py"]
    if template == "async":
        await project.start()
        ini = page.files["alembic.ini"][0]
        text = (project.folder / "alembic.ini").read_text()
        assert "\npath_separator = os\n" in text
        project.write("alembic.ini", text.replace("path_separator = os\n", ini))
    else:
        project.write("pyproject.toml", "")
        await project.start(template)
        text = (project.folder / "pyproject.toml").read_text()
        project.write("pyproject.toml", text + page.files["pyproject.toml"][0])


@pytest.mark.parametrize("template", ["async", "pyproject_async"])
async def test_in_a_shared_history_the_pages_commands_work(project: Project, template: str) -> None:
    if not (Path(alembic.__file__).parent / "templates" / template).is_dir():
        pytest.skip("this Alembic has no such template")
    await shared(project, template)
    project.edit("alembic/env.py", '"dimensions": 384', '"dimensions": 5')
    await project.run_page()
    versions = await rows(project.dsn, "SELECT version_num FROM alembic_version")
    assert len(versions) == 2
    assert HEAD in versions
    state = await migrations.check(Settings(dsn=project.dsn, version_table="alembic_version"))
    assert (state.is_current, state.dimensions) == (True, 5)
    refused = await project.run("qortex-db", "upgrade")
    assert refused.code == 1
    assert "Traceback" not in refused.out
    await project.succeed("alembic downgrade qortex_db@base")
    assert await relations(project.dsn) == {"alembic_version", "alembic_version_pkc"}
    await project.succeed("alembic upgrade heads")
    await project.succeed("alembic downgrade base")
    assert await relations(project.dsn) == {"alembic_version", "alembic_version_pkc"}


@pytest.mark.parametrize("way", ["by name", "with our metadata in a list"])
async def test_a_host_with_a_shared_history_declares_keys_into_our_tables(
    project: Project, way: str
) -> None:
    await shared(project)
    declare(project, way)
    await project.run_page()
    assert project.written() == [("create_table", "notes")]


@pytest.mark.parametrize("filters", [True, False])
async def test_a_host_that_compares_our_tables_too_finds_no_difference(
    project: Project, filters: bool
) -> None:
    await shared(project)
    declare(project, "with our metadata in a list")
    if not filters:
        for name in ("include_name", "include_object"):
            project.edit("alembic/env.py", f"    {name}=migrations.{name},\n", "")
    await project.run_page()
    await execute(project.dsn, "ALTER TABLE interoception_factors ADD COLUMN extra int")
    done = await project.run("alembic", "check")
    assert ("extra" in done.out, done.code == 0) == (not filters, filters)


async def test_a_revision_of_the_host_brings_ours_with_it(project: Project) -> None:
    await shared(project)
    (revision,) = project.page.files["alembic/versions/0001_notes.py"]
    project.write("alembic/versions/0001_notes.py", revision)
    await project.succeed("alembic upgrade myapp@head")
    assert await rows(project.dsn, "SELECT version_num FROM alembic_version") == ["myapp_0001"]
    assert "qortex_vectors" in await relations(project.dsn)
    assert not await ours_is_current(project, version_table="alembic_version")
    await project.succeed("alembic upgrade heads")
    assert await ours_is_current(project, version_table="alembic_version")


@pytest.mark.parametrize("schema", [None, "vectors"])
async def test_a_revision_of_the_host_may_depend_on_our_newest(
    project: Project, schema: str | None
) -> None:
    await shared(project)
    (revision,) = project.page.files["alembic/versions/0001_notes.py"]
    revision = revision.replace("qortex_db_0001", HEAD)
    if schema is not None:
        revision = revision.replace("qortex_vectors.id", f"{schema}.qortex_vectors.id")
        project.edit("alembic/env.py", '"dimensions": 384', f'"schema": "{schema}"')
    project.write("alembic/versions/0001_notes.py", revision)
    await project.succeed("alembic upgrade heads")
    # Alembic keeps no row of ours now.
    assert await rows(project.dsn, "SELECT version_num FROM alembic_version") == ["myapp_0001"]
    settings = Settings(dsn=project.dsn, version_table="alembic_version", db_schema=schema)
    assert (await migrations.check(settings)).is_current
    prefix = "" if schema is None else f"{schema}."
    await execute(project.dsn, f"ALTER TABLE {prefix}qortex_vectors DROP COLUMN document")
    assert (await migrations.check(settings)).current is None


async def test_in_a_hosts_env_our_revisions_do_not_wait_for_a_busy_table(project: Project) -> None:
    await shared(project)
    await project.succeed("alembic upgrade qortex_db_0001")
    holder = await asyncpg.connect(project.dsn)
    async with holder.transaction():
        await holder.execute("LOCK TABLE qortex_vectors IN ACCESS SHARE MODE")
        done = await asyncio.wait_for(project.run("alembic", "upgrade", "heads"), 30)
    await holder.close()
    assert done.code == 1
    assert "lock timeout" in done.out
    await project.succeed("alembic upgrade heads")


CONCURRENT = """
import os
from alembic import op
revision, down_revision, branch_labels, depends_on = "qortex_db_later", "{head}", None, None

def upgrade():
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("CREATE TABLE before_it (id int)")
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY later ON qortex_vectors (created_at)")

def downgrade():
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY later")
    op.execute("DROP TABLE before_it")
"""


async def test_in_a_hosts_env_a_revision_builds_an_index_concurrently(project: Project) -> None:
    await shared(project)
    project.edit(
        "alembic.ini", "    qortex_db:_alembic", "    %(here)s/later\n    qortex_db:_alembic"
    )
    project.write("later/later.py", CONCURRENT.format(head=HEAD))
    await project.succeed("alembic upgrade heads")
    assert {"later", "before_it"} <= await relations(project.dsn)
    await project.succeed("alembic downgrade base")
    assert not {"later", "before_it"} & await relations(project.dsn)


async def test_a_host_goes_from_the_same_schema_to_a_shared_history(project: Project) -> None:
    await migrations.upgrade(Settings(dsn=project.dsn))
    await shared(project)
    (revision,) = project.page.files["alembic/versions/0001_notes.py"]
    project.write("alembic/versions/0001_notes.py", revision)
    (stamp,) = [line for line in project.page.commands if "stamp" in line]
    assert HEAD in stamp
    await project.succeed(stamp)
    await execute(project.dsn, f"DROP TABLE {VERSION_TABLE}")
    await project.succeed("alembic upgrade heads")
    await project.succeed("alembic current")
    assert await ours_is_current(project, version_table="alembic_version")


async def test_os_as_separator_loses_our_revisions_as_the_page_warns(project: Project) -> None:
    await shared(project)
    text = (project.folder / "alembic.ini").read_text()
    (ini,) = project.page.files["alembic.ini"]
    package = "%(here)s/alembic/versions:qortex_db:_alembic/versions"
    path = f"%(here)s/alembic/versions:{migrations.locate() / 'versions'}"
    for locations, found in [(package, False), (path, True)]:
        lines = f"path_separator = os\nversion_locations = {locations}\n"
        project.write("alembic.ini", text.replace(ini, lines))
        with contextlib.chdir(project.folder):
            scripts = ScriptDirectory.from_config(Config("alembic.ini"))
            assert (HEAD in scripts.get_heads()) is found
