"""The wheel, installed elsewhere, upgrades and works from there."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import alembic
import pytest
from alembic import command
from alembic.config import Config

from qortex_db import Settings, migrations
from support.catalogue import BASELINE, LATER, catalogue, execute
from support.commands import ROOT, program

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/migrations/packaged.md").read_text()
(INI,) = re.findall(r"^```ini\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BUILD = "from hatchling.build import build_wheel; build_wheel(__import__('sys').argv[1])"
PROGRAM = """
import asyncio
import qortex_db
from qortex_db import Database, migrations

async def main():
    assert (await migrations.check()).is_current
    async with Database.connect() as db:
        await db.vectors.upsert([{"id": "a", "embedding": [1.0] * 384}])
        print(qortex_db.__file__, (await db.vectors.search([1.0] * 384))[0].id)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with ours in it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, check=True, timeout=100)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(folder / "site")
    assert len(names) == len(set(names))
    assert "qortex_db/_alembic/versions/0001_baseline.py" in names
    assert "qortex_db/py.typed" in names
    assert "pytest_qortex_db.py" in names
    assert "qortex_db/sample/LICENSE.txt" in names
    assert "qortex_db/report/style.css" in names
    assert not [name for name in names if name.startswith(("alembic/", "tests/"))]
    return folder / "site"


async def test_a_wheel_installed_elsewhere_upgrades_and_works(
    empty_dsn: str, site: Path, tmp_path: Path
) -> None:
    # Its own folder comes before the checkout that this environment has installed.
    environment = {"PYTHONPATH": str(site), "PGVECTOR_DSN": empty_dsn}
    command = (sys.executable, "-m", "qortex_db", "upgrade")
    done = await program(*command, cwd=tmp_path, **environment)
    assert migrations.head_revision() in done.out
    done = await program(sys.executable, "-c", PROGRAM, cwd=tmp_path, **environment)
    assert done.out.startswith(str(site)), done.err
    assert (await migrations.check(Settings(dsn=empty_dsn))).dimensions == 384


async def test_five_upgraders_from_the_wheel_all_succeed(
    empty_dsn: str, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "alembic.ini").write_text(INI)
    ours = (sys.executable, "-m", "qortex_db", "upgrade")
    alembic = (sys.executable, "-m", "alembic", "upgrade", "head")
    environment = {"PYTHONPATH": str(site), "PGVECTOR_DSN": empty_dsn}
    starts = (
        program(*command, cwd=tmp_path, **environment)
        for command in (ours, alembic, ours, alembic, ours)
    )
    done = await asyncio.gather(*starts)
    assert [one.code for one in done] == [0] * 5, [one.err for one in done]
    assert not [one.err for one in done if "Warning" in one.err]
    assert await catalogue(empty_dsn) == BASELINE | LATER


async def test_the_two_lines_of_the_page_are_all_that_alembic_needs(
    empty_dsn: str, site: Path, tmp_path: Path
) -> None:
    assert len(INI.splitlines()) == 2
    (tmp_path / "alembic.ini").write_text(INI)
    environment = {"PYTHONPATH": str(site), "PGVECTOR_DSN": empty_dsn}
    (shell,) = re.findall(r"^```shell\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in shell.splitlines():
        done = await program(sys.executable, "-m", *line.split(), cwd=tmp_path, **environment)
        assert done.code == 0, done.err
        assert "Warning" not in done.err
    assert migrations.head_revision() in done.out
    assert (await migrations.check(Settings(dsn=empty_dsn))).is_current


@pytest.mark.parametrize("form", ["frozen", "zipped"])
async def test_an_application_without_the_revisions_says_what_to_collect(
    empty_dsn: str, site: Path, tmp_path: Path, form: str
) -> None:
    place = tmp_path / "app"
    left_out = shutil.ignore_patterns("_alembic") if form == "frozen" else None
    shutil.copytree(site, place, ignore=left_out)
    # As in site-packages, where Alembic itself lies beside the package.
    shutil.copytree(Path(alembic.__file__).parent, place / "alembic")
    if form == "zipped":
        place = Path(shutil.make_archive(str(tmp_path / "zip"), "zip", place))
    environment = {"PYTHONPATH": str(place), "PGVECTOR_DSN": empty_dsn}
    for word in ("upgrade", "check"):
        done = await program(sys.executable, "-m", "qortex_db", word, cwd=tmp_path, **environment)
        assert done.code == 1, done.out
        assert done.err.startswith("error: The revisions are missing: "), done.err
        assert str(place) in done.err
        assert "--collect-all qortex_db" in done.err
        assert done.err.count("\n") == 1


MODELS = """
from sqlalchemy.orm import DeclarativeBase

from qortex_db import HNSW, Collection, VectorMixin, VectorSpec


class Base(DeclarativeBase):
    pass


class Note(VectorMixin, Base):
    __tablename__ = "notes"
    __collection__ = Collection(VectorSpec(3, storage="half"))
"""


@pytest.mark.parametrize("way", ["from the wheel, by its entry point", "from a checkout"])
async def test_a_host_whose_env_py_imports_nothing_of_ours_gets_a_revision_that_runs(
    empty_dsn: str, site: Path, tmp_path: Path, way: str
) -> None:
    environment = {"PYTHONPATH": str(site) if "wheel" in way else str(ROOT)}  # a fresh Python
    (tmp_path / "hosts.py").write_text(MODELS)
    url = empty_dsn.replace("postgresql://", "postgresql+asyncpg://").replace("%", "%%")

    async def alembic_does(*words: str) -> str:
        done = await program(sys.executable, "-m", "alembic", *words, cwd=tmp_path, **environment)
        assert done.code == 0, done.err
        return done.out + done.err

    def edit(file: str, old: str, new: str) -> None:
        text = (tmp_path / file).read_text()
        assert old in text
        (tmp_path / file).write_text(text.replace(old, new))

    none, models = (
        "target_metadata = None",
        "from hosts import Base\ntarget_metadata = Base.metadata",
    )
    with contextlib.chdir(tmp_path):
        config = Config(tmp_path / "alembic.ini", tmp_path / "pyproject.toml")
        command.init(config, "migrations", template="async")
    edit("alembic.ini", "driver://user:pass@localhost/dbname", url)
    edit("migrations/env.py", none, models)
    await execute(empty_dsn, "CREATE EXTENSION vector")
    await alembic_does("revision", "--autogenerate", "-m", "first")
    await alembic_does("upgrade", "head")
    # What commits by itself is a revision's own operation.
    edit("hosts.py", 'storage="half"', 'storage="half", index=HNSW(m=8)')
    await alembic_does("revision", "--autogenerate", "-m", "second")
    (second,) = (tmp_path / "migrations/versions").glob("*_second.py")
    assert "import qortex_db.migrations\n" in second.read_text()
    assert second.read_text().count("op.create_vector_index(") == 2
    # Where it runs, nothing else has to have imported it.
    edit("migrations/env.py", models, none)
    await alembic_does("upgrade", "head")
    edit("migrations/env.py", none, models)
    assert "No new upgrade operations" in await alembic_does("check")
