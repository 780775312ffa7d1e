"""The wheel, installed elsewhere, upgrades and works from there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from qortex_db import Settings, migrations
from support.catalogue import BASELINE, LATER, catalogue
from support.commands import ROOT, program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

INI = "[alembic]\nscript_location = qortex_db:_alembic\n"
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
    assert await catalogue(empty_dsn) == BASELINE | LATER
