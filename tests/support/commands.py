"""Programs run as a user runs them."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

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
    folder = tempfile.TemporaryDirectory(prefix="qx-")
    path = str(Path(folder.name) / "socket")
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("forkserver.py"), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    def stop() -> None:
        process.communicate()
        folder.cleanup()

    atexit.register(stop)
    return path


def _fork(
    arguments: tuple[str, ...],
    cwd: Path,
    environment: Mapping[str, str],
    out: IO[bytes],
    err: IO[bytes],
) -> socket.socket:
    """What the exit code can be read from at the program's end."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_forkserver())
    request = {
        "arguments": arguments,
        "folder": str(cwd),
        "environment": os.environ | environment,
    }
    with Path(os.devnull).open() as nothing:
        socket.send_fds(connection, [b" "], [nothing.fileno(), out.fileno(), err.fileno()])
    connection.sendall(json.dumps(request).encode())
    connection.shutdown(socket.SHUT_WR)
    return connection


def _result(code: bytes, out: IO[bytes], err: IO[bytes]) -> Result:
    out.seek(0)
    err.seek(0)
    return Result(int(code), out.read().decode(), err.read().decode())


async def program(*arguments: str, cwd: Path = ROOT, **environment: str) -> Result:
    """Run it to its end.

    Python is not started for its programs but forked, unless variables are for its start.
    """
    if arguments[0] == sys.executable and not any(
        name.startswith("PYTHON") for name in environment
    ):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            connection = _fork(arguments[1:], cwd, environment, out, err)
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            code = await reader.read()
            writer.close()
            return _result(code, out, err)
    process = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=cwd,
        env=os.environ | environment,
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


def run(*arguments: str, **environment: str) -> Result:
    """`qortex-db`, in tests that don't await; for 80 columns."""
    command = ("-m", "qortex_db", *arguments)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _fork(command, Path.cwd(), {"COLUMNS": "80"} | environment, out, err) as connection:
            connection.settimeout(100)
            code = connection.recv(10)
        return _result(code, out, err)
