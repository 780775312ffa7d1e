"""Real PgBouncers, those that are on the machine, on loopback.

Others than Debian's are named by `QORTEX_DB_TEST_PGBOUNCER`: paths of programs, with colons
between them.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOT_THERE = "no PgBouncer is installed (make poolers), nor named by QORTEX_DB_TEST_PGBOUNCER"
_SETTINGS = """\
[databases]
* = host={host}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = {size}
{more}
"""


class Bouncer(NamedTuple):
    """A program.

    Attributes:
        version: As (1, 18, 0).
    """

    path: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def keeps_statements(self) -> bool:
        """Whether it brings prepared statements to whichever session runs them."""
        return self.version >= (1, 21)


def _bouncer(path: str) -> Bouncer:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)\.(\d+)", said)
    assert found is not None, said
    return Bouncer(path, tuple(map(int, found.groups())))


def _named() -> list[str]:
    given = os.environ.get("QORTEX_DB_TEST_PGBOUNCER", "")
    named = [path for path in given.split(os.pathsep) if path]
    # Debian puts it where only root's PATH leads.
    installed = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return [*([installed] if installed else []), *named]


BOUNCERS = [_bouncer(path) for path in _named()]


@asynccontextmanager
async def through(
    bouncer: Bouncer,
    dsn: str,
    role: str,
    *,
    size: int,
    mode: str = "transaction",
    more: str = "",
) -> AsyncIterator[str]:
    """The DSN of a role that leads through a pooler with so many connections of the server's.

    Args:
        mode: When a connection goes back: after a transaction, a session or a statement.
        more: Lines of its settings.
    """
    parts = urlsplit(dsn)
    with tempfile.TemporaryDirectory(prefix="qx-") as name:
        server = Path(parse_qs(parts.query)["host"][0])
        port = _free_port()
        settings = _SETTINGS.format(
            host=server, port=port, folder=name, size=size, mode=mode, more=more
        )
        user = _prepare(Path(name), settings, role, server)
        process = await asyncio.create_subprocess_exec(
            bouncer.path, "-q", f"{name}/ini", user=user, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await _listening(port)
            yield f"postgresql://{role}@127.0.0.1:{port}{parts.path}?sslmode=disable"
        finally:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def pooled(dsn: str, role: str, size: int) -> AsyncIterator[str]:
    """A DSN through Debian's in transaction mode, with what such an old one needs."""
    async with through(BOUNCERS[0], dsn, role, size=size) as there:
        yield f"{there}&statement_cache_size=0&prepared_statement_cache_size=0"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _prepare(folder: Path, settings: str, role: str, server: Path) -> str | None:
    """Write its files; as whom it runs: it refuses to be root, and the socket is private."""
    folder.chmod(0o755)
    (folder / "users").write_text(f'"{role}" ""\n')
    (folder / "ini").write_text(settings)
    return pwd.getpwuid(server.stat().st_uid).pw_name if os.getuid() == 0 else None


async def _listening(port: int) -> None:
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise AssertionError("PgBouncer does not listen.")
