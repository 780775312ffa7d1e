"""Programs run as a user runs them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class Result(NamedTuple):
    code: int | None
    out: str
    err: str


async def program(*arguments: str, cwd: Path = ROOT, **environment: str) -> Result:
    """Run it to its end."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=cwd,
        env=os.environ | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Result(process.returncode, out.decode(), err.decode())


async def alembic(
    *arguments: str, dsn: str | None = None, cwd: Path = ROOT, **environment: str
) -> Result:
    """Alembic's own command line; by default in the checkout."""
    given = {} if dsn is None else {"PGVECTOR_DSN": dsn}
    strict = "-Werror::DeprecationWarning:alembic"
    command = (sys.executable, strict, "-m", "alembic", *arguments)
    return await program(*command, cwd=cwd, **given, **environment)


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "qortex_db", *arguments],
        env=os.environ | {"COLUMNS": "80"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr
