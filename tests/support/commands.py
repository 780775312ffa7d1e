"""Programs run as a user runs them."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class Result(NamedTuple):
    code: int | None
    out: str
    err: str


@cache
def _forkserver() -> str:
    """The socket of a process that forks Python programs; it ends with this one."""
    folder = tempfile.mkdtemp(prefix="qx-")  # no object, whose end in a fork would remove it
    path = str(Path(folder) / "socket")
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("forkserver.py"), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    def stop() -> None:
        process.communicate()
        shutil.rmtree(folder)

    atexit.register(stop)
    return path


async def _forked(arguments: tuple[str, ...], cwd: Path, environment: Mapping[str, str]) -> Result:
    with (
        tempfile.TemporaryFile() as nothing,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(_forkserver())
        streams = [stream.fileno() for stream in (nothing, out, err)]
        socket.send_fds(connection, [b" "], streams)
        request = {"arguments": arguments, "folder": str(cwd), "environment": dict(environment)}
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        connection.setblocking(False)
        code = await asyncio.get_running_loop().sock_recv(connection, 10)
        out.seek(0)
        err.seek(0)
        return Result(int(code), out.read().decode(), err.read().decode())


async def program(*arguments: str, cwd: Path = ROOT, **environment: str) -> Result:
    """Run it to its end; forked where it is Python's and no variable is for Python's start."""
    given = os.environ | environment
    afresh = any(name.startswith("PYTHON") for name in environment)
    if arguments[0] == sys.executable and not afresh:
        return await _forked(arguments[1:], cwd, given)
    process = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=cwd,
        env=given,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await process.communicate()
    return Result(process.returncode, printed.decode(), errors.decode())


async def alembic(
    *arguments: str, dsn: str | None = None, cwd: Path = ROOT, **environment: str
) -> Result:
    """Alembic's own command line; by default in the checkout."""
    given = {} if dsn is None else {"PGVECTOR_DSN": dsn}
    strict = "-Werror::DeprecationWarning:alembic"
    command = (sys.executable, strict, "-m", "alembic", *arguments)
    return await program(*command, cwd=cwd, **given, **environment)


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> Result:
    """`qortex-db`, for 80 columns, in tests that don't await."""
    command = (sys.executable, "-m", "qortex_db", *arguments)
    running = program(*command, cwd=cwd or Path.cwd(), COLUMNS="80", **environment)
    with ThreadPoolExecutor(1) as thread:  # the caller may be inside an event loop
        return thread.submit(asyncio.run, running).result()
