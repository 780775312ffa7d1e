"""Hosts with a history of their own beside ours, in our schema or in theirs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from qortex_db import migrations
from support.catalogue import VERSION_TABLE, execute, relations, rows
from support.hosting import HEAD, OURS, Project, declare, ours_is_current

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, empty_dsn: str, request: pytest.FixtureRequest) -> Project:
    return Project(tmp_path, empty_dsn, request.param)


def on(page: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("project", [page], indirect=True)


PLAIN_MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Plain(Base):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
"""
PLAIN_REVISION = """
from alembic import op
import sqlalchemy as sa
revision, down_revision, branch_labels, depends_on = "plain", None, None, None

def upgrade():
    op.create_table("plain", sa.Column("id", sa.Integer, primary_key=True))

def downgrade():
    op.drop_table("plain")
"""


async def plain(project: Project) -> None:
    """A host whose tables do not refer to ours."""
    await project.start()
    project.write("myapp/models.py", PLAIN_MODELS)
    project.write("alembic/versions/plain.py", PLAIN_REVISION)


UPGRADES = ["qortex-db upgrade", "alembic upgrade head"]
ORDERS = pytest.mark.parametrize("order", [UPGRADES, UPGRADES[::-1]], ids=["ours", "theirs"])


# A schema of our own


@on("own_schema")
@ORDERS
async def test_in_a_schema_of_our_own_a_host_needs_no_filter(
    project: Project, order: list[str]
) -> None:
    project.page.files["alembic/env.py"][1] = (
        "context.configure(connection=connection, target_metadata=target_metadata)"
    )
    await plain(project)
    assert "filter" not in (project.folder / "alembic/env.py").read_text()
    project.environment["QORTEX_DB_SCHEMA"] = "qortex"
    for line in [*order, "alembic check", "qortex-db check"]:
        await project.succeed(line)
    await project.succeed("alembic downgrade base")
    assert await ours_is_current(project, db_schema="qortex")
    await project.succeed("alembic upgrade head")
    await project.succeed("qortex-db downgrade base")
    assert "plain" in await relations(project.dsn)
    await project.succeed("alembic check")


@on("own_schema")
async def test_a_key_into_our_schema_is_made_and_then_found(project: Project) -> None:
    await project.start()
    project.environment["QORTEX_DB_SCHEMA"] = "qortex"
    await project.succeed("qortex-db upgrade")
    await project.succeed("alembic revision --autogenerate -m notes")
    for line in project.page.commands[1:]:
        await project.succeed(line)
    key = "SELECT confrelid::regclass::text FROM pg_constraint WHERE conrelid = 'notes'::regclass"
    assert "qortex.qortex_vectors" in await rows(project.dsn, key)


@on("own_schema")
async def test_a_host_that_looks_at_all_schemas_leaves_ours_alone_by_name(
    project: Project,
) -> None:
    await plain(project)
    project.environment["QORTEX_DB_SCHEMA"] = "qortex"
    for line in UPGRADES:
        await project.succeed(line)
    object_filter = "include_object=migrations.include_object"
    project.edit("alembic/env.py", object_filter, "include_schemas=True")
    done = await project.run("alembic", "check")
    assert "qortex_vectors" in done.out
    name_filter = "include_schemas=True, include_name=migrations.include_name"
    project.edit("alembic/env.py", "include_schemas=True", name_filter)
    await project.succeed("alembic check")


# The same schema


@on("same_schema")
@ORDERS
async def test_in_the_same_schema_neither_side_touches_the_other(
    project: Project, order: list[str]
) -> None:
    await plain(project)
    for line in [*order, "alembic check", "qortex-db check"]:
        await project.succeed(line)
    assert await rows(project.dsn, "SELECT version_num FROM alembic_version") == ["plain"]
    assert await rows(project.dsn, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]
    await project.succeed("alembic downgrade base")
    assert await ours_is_current(project)
    await project.succeed("alembic upgrade head")
    await project.succeed("qortex-db downgrade base")
    await project.succeed("alembic check")


@on("same_schema")
async def test_without_the_filter_a_host_would_drop_our_tables(project: Project) -> None:
    await plain(project)
    for line in UPGRADES:
        await project.succeed(line)
    for name in ("include_name", "include_object"):
        project.edit("alembic/env.py", f"    {name}=migrations.{name},\n", "")
    assert set(await project.proposed()) == {("drop_table", table) for table in OURS}


WAYS = pytest.mark.parametrize(
    "way",
    ["by model", "by name", "by model, named by a convention", "with our metadata in a list"],
)


@on("same_schema")
@WAYS
async def test_a_host_beside_us_declares_keys_into_our_tables(project: Project, way: str) -> None:
    await project.start()
    declare(project, way)
    await project.succeed("qortex-db upgrade")
    await project.succeed("alembic revision --autogenerate -m notes")
    assert project.written() == [("create_table", "notes")]
    for line in project.page.commands:
        await project.succeed(line)
    key = "SELECT confdeltype::text FROM pg_constraint WHERE confrelid = 'qortex_vectors'::regclass"
    assert await rows(project.dsn, key) == ["c"]


@on("same_schema")
async def test_a_hosts_own_filter_asks_ours(project: Project) -> None:
    await plain(project)
    for line in UPGRADES:
        await project.succeed(line)
    await execute(project.dsn, "CREATE TABLE legacy_orders (id int)", "CREATE TABLE stray (id int)")
    (composed,) = [text for text in project.page.files[""] if "legacy_" in text]
    project.edit(
        "alembic/env.py", "def run_migrations_offline", f"{composed}\n\ndef run_migrations_offline"
    )
    project.edit(
        "alembic/env.py", "include_name=migrations.include_name", "include_name=include_name"
    )
    assert await project.proposed() == [("drop_table", "stray")]


def test_the_filter_leaves_out_exactly_our_tables() -> None:
    parents = {"schema_name": None}
    assert {name for name in OURS if not migrations.include_name(name, "table", parents)} == OURS
    for name, kind in [("notes", "table"), ("alembic_version", "table"), (None, "schema")]:
        assert migrations.include_name(name, kind, parents)
    column = parents | {"table_name": "notes", "schema_qualified_table_name": "notes"}
    assert migrations.include_name("qortex_vectors", "column", column)


def test_a_hosts_model_on_our_base_is_not_taken_for_ours() -> None:
    program = """
from sqlalchemy.orm import Mapped, mapped_column
from qortex_db.models import Base
class Host(Base):
    __tablename__ = "host"
    id: Mapped[int] = mapped_column(primary_key=True)
from qortex_db import migrations
assert migrations.include_name("host", "table", {})
assert not migrations.include_name("qortex_vectors", "table", {})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
