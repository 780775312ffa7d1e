"""Ctrl-C and SIGTERM at any moment of a command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from support.commands import BIN

pytestmark = pytest.mark.slow

SCRIPT = [str(BIN / "qortex-db")]
MODULE = [sys.executable, "-m", "qortex_db"]
OTHERS = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> ALL($1)"""
RUNNING = """SELECT count(*) FROM pg_stat_activity
WHERE query ILIKE $1 AND state = 'active' AND pid <> pg_backend_pid()"""


def started(command: list[str], dsn: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PGVECTOR_DSN": dsn}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_is_one_line(dsn: str, number: signal.Signals) -> None:
    ended = []
    for command in (SCRIPT, MODULE):
        for seconds in (0, 0.05, 0.2, 0.4):
            with started([*command, "status"], dsn) as process:
                while not listens(process.pid):  # Python itself has to be there first
                    time.sleep(0.001)
                time.sleep(seconds)
                process.send_signal(number)
                _, error = process.communicate(timeout=60)
            ended.append((process.returncode, error))
    # It may be done before the last of them comes.
    assert set(ended) <= {(128 + number, b"Stopped.\n"), (0, b"")}, ended
    assert ended.count((128 + number, b"Stopped.\n")) >= 4


def listens(pid: int) -> bool:
    """Whether a process has a handler of SIGTERM of its own."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("command", "query"),
    [(["index", "rebuild"], "REINDEX%"), (["status"], "%count(%"), (["upgrade"], "%advisory%")],
)
async def test_a_signal_at_work_leaves_nothing_running_on_the_server(
    dsn: str, number: signal.Signals, command: list[str], query: str
) -> None:
    other = await asyncpg.connect(dsn)
    await other.execute("BEGIN")
    if command == ["upgrade"]:
        key = 0x71_6F_72_74_65_78_64_62
        await other.execute(f"SELECT pg_advisory_lock({key})")
    elif command == ["status"]:
        await other.execute("LOCK TABLE qortex_vectors IN ACCESS EXCLUSIVE MODE")
    else:
        await other.execute("LOCK TABLE qortex_vectors IN ROW EXCLUSIVE MODE")
    watcher = await asyncpg.connect(dsn)
    with started([*SCRIPT, *command], dsn) as process:
        if command == ["upgrade"]:
            time.sleep(2)  # noqa: ASYNC251 - it asks for the lock now and then
        else:
            while not await watcher.fetchval(RUNNING, query):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)  # noqa: ASYNC251 - nobody else is in this loop
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (128 + number, b"Stopped.\n")
    own = [other.get_server_pid(), watcher.get_server_pid()]
    for _ in range(40):
        if not await watcher.fetchval(OTHERS, own):
            break
        time.sleep(0.05)  # noqa: ASYNC251 - a backend takes a moment to end
    assert await watcher.fetchval(OTHERS, own) == 0
    await other.close()
    await watcher.close()
