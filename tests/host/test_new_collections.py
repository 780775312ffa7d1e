"""`qortex-db collections`: from an idea to a table in a host's own history."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from support.catalogue import execute, relations
from support.commands import program
from support.hosting import Page, Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

NEW = "collections", "new", "--base", "myapp.models:Base", "--dimensions", "8"
USE = """
import asyncio
from myapp.passages import Passages
from qortex_db import Database

async def main():
    async with Database.connect("{dsn}") as db:
        notes = db.collection(Passages)
        await notes.upsert([{{"id": "a", "embedding": [1.0] * 8, "document": "running dogs"}}])
        found = await notes.hybrid_search([1.0] * 8, "dog")
        print(found[0].id, len(found))

asyncio.run(main())
"""


async def a_host(tmp_path: Path, dsn: str, way: str) -> Project:
    """With its models in `myapp.models`, and nothing migrated."""
    project = Project(tmp_path, dsn, way)
    project.page.files["myapp/models.py"] = Page("same_schema").files["myapp/models.py"]
    await project.start()
    if way == "shared_history":
        text = (project.folder / "alembic.ini").read_text()
        ini = project.page.files["alembic.ini"][0]
        project.write("alembic.ini", text.replace("path_separator = os\n", ini))
    return project


@pytest.mark.parametrize("way", ["shared_history", "same_schema"])
async def test_a_new_collection_is_a_model_and_a_revision_that_upgrades_as_they_are(
    tmp_path: Path, empty_dsn: str, way: str
) -> None:
    project = await a_host(tmp_path, empty_dsn, way)
    if way == "same_schema":
        await project.succeed("qortex-db upgrade")
    project.edit("alembic/env.py", "from myapp.models import Base", "from myapp.all import Base")
    project.write(
        "myapp/all.py", "import myapp.passages, myapp.user_notes\nfrom myapp.models import Base"
    )
    options = "--language", "english", "--metric", "l2"
    done = await project.run("qortex-db", *NEW, "passages", *options)
    assert done.code == 0, done.out
    project.write("myapp/user_notes.py", "")
    made = (project.folder / "myapp/passages.py").read_text()
    assert 'Collection(VectorSpec(8, metric="l2"), language="english")' in made
    (revision,) = (project.folder / "alembic/versions").glob("*_passages.py")
    depends = "'qortex_db_0001'" if way == "shared_history" else "None"
    assert f"depends_on: Union[str, Sequence[str], None] = {depends}" in revision.read_text()
    await project.succeed("alembic upgrade heads")
    (project.folder / "myapp/user_notes.py").unlink()
    done = await project.run("qortex-db", *NEW, "user_notes")  # follows the first
    assert done.code == 0, done.out
    await project.succeed("alembic upgrade heads")
    project.write("use.py", USE.format(dsn=empty_dsn))
    used = await program(sys.executable, "use.py", cwd=project.folder)
    assert (used.out.split(), used.err) == (["a", "1"], "")
    # What the host's own models declare besides is no part of it.
    for table in ("notes",):
        await execute(empty_dsn, f"DROP TABLE IF EXISTS {table}")
    checked = (await project.run("alembic", "check")).out
    assert "passages" not in checked
    assert "user_notes" not in checked
    listed = await project.run(
        "qortex-db", "collections", "list", "--json", "--metadata", "myapp.all:Base"
    )
    assert [one["table"] for one in json.loads(listed.out)] == [
        "qortex_vectors",
        "passages",
        "user_notes",
    ]
    described = await project.run(
        "qortex-db", "collections", "describe", "passages", "--metadata", "myapp.all:Base"
    )
    assert "hnsw (vec vector_l2_ops)" in described.out
    await project.succeed(
        "alembic downgrade -2" if way == "same_schema" else "alembic downgrade base"
    )
    assert not {"passages", "user_notes"} & await relations(empty_dsn)


async def test_a_new_collection_in_partitions_upgrades_is_used_and_has_no_drift(
    tmp_path: Path, empty_dsn: str
) -> None:
    project = await a_host(tmp_path, empty_dsn, "shared_history")
    project.edit("alembic/env.py", "from myapp.models import Base", "from myapp.all import Base")
    project.write("myapp/all.py", "import myapp.passages\nfrom myapp.models import Base")
    options = "--language", "english", "--partitions", "3"
    done = await project.run("qortex-db", *NEW, "passages", *options)
    assert done.code == 0, done.out
    assert "partitions=Partitions(3)" in (project.folder / "myapp/passages.py").read_text()
    (revision,) = (project.folder / "alembic/versions").glob("*_passages.py")
    assert "op.create_partitions('passages', modulus=3)" in revision.read_text()
    await project.succeed("alembic upgrade heads")
    assert {f"passages_{n}" for n in range(3)} < await relations(empty_dsn)
    project.write("use.py", USE.format(dsn=empty_dsn))
    used = await program(sys.executable, "use.py", cwd=project.folder)
    assert (used.out.split(), used.err) == (["a", "1"], "")
    await execute(empty_dsn, "DROP TABLE IF EXISTS notes")  # of a host's own, which is found anew

    async def is_as_declared() -> None:
        proposed = (await project.run("alembic", "check")).out.partition("INFO")[0]  # what it says
        assert "FAILED" in proposed
        assert "passages" not in proposed

    await is_as_declared()
    await project.succeed("qortex-db index rebuild --table passages")
    await is_as_declared()
    await project.succeed("alembic downgrade base")
    assert not {"passages", "passages_0"} & await relations(empty_dsn)


async def test_what_can_not_be_written_leaves_nothing(tmp_path: Path, empty_dsn: str) -> None:
    project = await a_host(tmp_path, empty_dsn, "shared_history")

    async def refused(*arguments: str) -> str:
        done = await project.run("qortex-db", *arguments)
        assert done.code, done.out
        assert "Traceback" not in done.out
        assert not list((project.folder / "alembic/versions").glob("*.py"))
        return " ".join(done.out.split())

    assert "plain name" in await refused(*NEW, "My-Table")
    assert "longer than 63" in await refused(*NEW, "a" * 64)
    for taken in ("qortex_vectors", "base", "collection"):
        assert "choose another name" in await refused(*NEW, taken)
    assert "no module elsewhere" in await refused(*NEW, "--base", "elsewhere:Base", "passages")
    assert "where your alembic.ini is" in await refused(*NEW, "--config", "a.ini", "passages")
    assert "whole number from 1" in await refused(*NEW, "--dimensions", "100000", "passages")
    assert "metric" in await refused(*NEW, "--metric", "taxi", "passages")
    assert "has a table notes already" in await refused(*NEW, "notes")
    assert "no revision" in await refused(*NEW, "--head", "nowhere", "passages")
    assert "could not be written" in await refused(*NEW, "--model", "none/at/all.py", "passages")
    assert not (project.folder / "myapp/passages.py").exists()
    assert "No collection passages" in await refused("collections", "describe", "passages")
    project.write("myapp/passages.py", "")
    assert "is there already" in await refused(*NEW, "passages")
