"""The wheel, installed elsewhere, upgrades and works from there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from qortex_db import Settings, migrations

ROOT = Path(__file__).parents[1]

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


def run(*command: str, **options: object) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_a_wheel_installed_elsewhere_upgrades_and_works(empty_dsn: str, tmp_path: Path) -> None:
    build = "from hatchling.build import build_wheel; build_wheel(__import__('sys').argv[1])"
    run(sys.executable, "-c", build, str(tmp_path), cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "qortex_db/_alembic/versions/0001_baseline.py" in names
    assert "qortex_db/py.typed" in names
    assert "qortex_db/cli/sample/LICENSE.txt" in names
    assert not [name for name in names if name.startswith(("alembic/", "tests/"))]

    # Its own folder comes before the checkout that this environment has installed.
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PGVECTOR_DSN": empty_dsn}
    options = {"cwd": tmp_path, "env": environment}
    printed = run(sys.executable, "-m", "qortex_db", "upgrade", **options)
    assert "qortex_db_0003" in printed
    printed = run(sys.executable, "-c", PROGRAM, **options)
    assert printed.startswith(str(tmp_path / "site"))
    assert asyncio.run(migrations.check(Settings(dsn=empty_dsn))).dimensions == 384
