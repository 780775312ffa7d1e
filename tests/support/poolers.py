"""A real PgBouncer in transaction mode, where there is one on the machine."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PGBOUNCER = shutil.which("pgbouncer")
_SETTINGS = """\
[databases]
* = host={host}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {size}
"""


@asynccontextmanager
async def pooled(dsn: str, role: str, size: int) -> AsyncIterator[str]:
    """The DSN of a role that leads through a pooler with so many connections of the server's."""
    assert PGBOUNCER is not None
    parts = urlsplit(dsn)
    with tempfile.TemporaryDirectory(prefix="qx-") as name:
        port, user = _prepare(Path(name), Path(parse_qs(parts.query)["host"][0]), role, size)
        process = await asyncio.create_subprocess_exec(
            PGBOUNCER, "-q", f"{name}/ini", user=user, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            for _ in range(100):
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
            caches = "statement_cache_size=0&prepared_statement_cache_size=0"
            yield f"postgresql://{role}@127.0.0.1:{port}{parts.path}?{caches}"
        finally:
            process.terminate()
            await process.wait()


def _prepare(folder: Path, server: Path, role: str, size: int) -> tuple[int, str | None]:
    """Its files; its port, and as whom it runs: it refuses to be root, and sockets are private."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.chmod(0o755)
    (folder / "users").write_text(f'"{role}" ""\n')
    (folder / "ini").write_text(_SETTINGS.format(host=server, port=port, folder=folder, size=size))
    return port, pwd.getpwuid(server.stat().st_uid).pw_name if os.getuid() == 0 else None
