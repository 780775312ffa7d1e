"""A network that says nothing: it ends within its own limit, not within a statement's, or never."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qortex_db import Database, QortexDbError, Settings
from support.proxies import Proxy

pytestmark = pytest.mark.faults

VECTOR = [1.0] * 8


async def test_idle_connections_that_a_firewall_dropped_cost_one_short_ping(dsn: str) -> None:
    async with (
        Proxy(dsn) as proxy,
        Database.connect(
            Settings(
                dsn=proxy.dsn,
                pool_min_size=5,
                pool_max_size=5,
                idle_ping_seconds=0.05,
                network_timeout_seconds=2,
            )
        ) as db,
    ):
        for calls in (1, 20):
            await asyncio.sleep(0.1)
            proxy.drop()
            before = proxy.connections
            start = time.monotonic()
            for _ in range(calls):
                assert await db.factors.load() == {}
            assert time.monotonic() - start < 2  # a quarter of it, and a new connection
            assert proxy.connections <= before + 2  # one that asks the server to stop
        await asyncio.sleep(0.1)
        proxy.drop()
        start = time.monotonic()
        await asyncio.gather(*(db.factors.load() for _ in range(20)))
        assert time.monotonic() - start < 2
        async with db.unit_of_work() as uow:
            assert await uow.factors.load() == {}


async def test_a_server_that_is_gone_is_told_within_the_limit(dsn: str) -> None:
    async with Proxy(dsn) as proxy:
        db = Database.connect(
            Settings(
                dsn=proxy.dsn,
                pool_min_size=3,
                idle_ping_seconds=0.05,
                connect_timeout_seconds=1,
                network_timeout_seconds=2,
            )
        )
        await db.open()
        await asyncio.sleep(0.1)
        proxy.silent.set()

        async def unit() -> None:
            async with db.unit_of_work() as uow:
                await uow.vectors.search(VECTOR)

        for call in (db.factors.load, lambda: db.vectors.search(VECTOR), unit):
            start = time.monotonic()
            with pytest.raises(QortexDbError):
                await call()
            assert time.monotonic() - start < 4
        start = time.monotonic()
        await db.close()
        assert time.monotonic() - start < 5


async def test_closing_many_silent_connections_takes_as_long_as_one(dsn: str) -> None:
    async with Proxy(dsn) as proxy:
        db = Database.connect(Settings(dsn=proxy.dsn, pool_min_size=10))
        await db.open()
        proxy.silent.set()
        start = time.monotonic()
        await db.close()
        assert time.monotonic() - start < 5


PACKETS = """
import asyncio, ctypes, fcntl, os, socket, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x40000000):  # a network of its own
    sys.exit(77)


def loopback(up):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 0x49 if up else 0x8))


loopback(True)
from qortex_db import Database, Settings
from support.proxies import Proxy


async def relay(dsn, said):
    async with Proxy(dsn) as proxy:
        os.write(said, proxy.dsn.encode())
        await asyncio.sleep(60)


async def main(dsn):
    read, write = os.pipe()
    child = os.fork()  # what relays is another process, whose system answers for it
    if not child:
        asyncio.events._set_running_loop(None)
        asyncio.new_event_loop().run_until_complete(relay(dsn, write))
    try:
        settings = {"network_timeout_seconds": 4, "statement_timeout_seconds": 0}
        db = Database.connect(Settings(dsn=os.read(read, 1000).decode(), **settings))
        await db.open()
        asked = db._executor.run
        from sqlalchemy import text

        start = time.monotonic()
        await asked(text("SELECT pg_sleep(6)"), {})
        print("alive", time.monotonic() - start, flush=True)

        async def unit():
            async with db.unit_of_work() as uow:
                await uow.executor.run(text("SELECT pg_sleep(50)"), {})

        start = time.monotonic()
        calls = [asyncio.create_task(asked(text("SELECT pg_sleep(50)"), {})) for _ in range(2)]
        calls.append(asyncio.create_task(unit()))
        await asyncio.sleep(0.5)
        loopback(False)
        for each in await asyncio.gather(*calls, return_exceptions=True):
            print(type(each).__mro__[-4].__name__, time.monotonic() - start, flush=True)
    finally:
        os.kill(child, 9)
    os._exit(0)


asyncio.run(main(sys.argv[1]))
"""


def test_the_systems_own_silence_ends_a_statement_that_may_take_for_ever(dsn: str) -> None:
    """Packets are dropped by a network namespace, in which a live statement is let be."""
    done = subprocess.run(
        [sys.executable, "-c", PACKETS, dsn],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("this system does not let us make a network of our own")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines, done.stderr
    assert lines[0][0] == "alive", done.stderr
    assert float(lines[0][1]) > 5
    assert len(lines) == 4, done.stderr
    for kind, seconds in lines[1:]:
        assert kind == "QortexDbError"
        assert float(seconds) < 15
