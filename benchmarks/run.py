"""Times qortex-db beside asyncpg by hand and its peers: `python benchmarks/run.py [topic ...]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from house import QUIET, House
from pages import machine, write
from topics import TOPICS

from qortex_db import embedded

WRITTEN = Path(__file__).parents[1] / "docs" / "performance"
TRIED = Path(__file__).parent / "results"
SECONDS = 15 * 60.0
"""No topic takes longer."""


async def main(arguments: argparse.Namespace) -> bool:
    """Run topics; whether all of them came to their end."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="qortex-db-bench-") as folder:
        path = Path(folder)
        os.chmod(folder, 0o755)  # noqa: PTH101 - the server's user has to enter it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = await asyncio.to_thread(embedded.start, path / "server", version=18)
        try:
            house = House(server, path, most_rows=arguments.rows, most_rounds=arguments.rounds)
            async with house.connection() as connection:
                for setting in QUIET:
                    await connection.execute(f"ALTER SYSTEM SET {setting}")
                await connection.execute("SELECT pg_reload_conf()")
                where = machine(await connection.fetchval("SHOW server_version"))
            for name in arguments.topics or TOPICS:
                title, topic = TOPICS[name]
                print(f"{title} ...", flush=True)
                start = time.monotonic()
                try:
                    async with asyncio.timeout(SECONDS):
                        page = await topic(house)
                except Exception as error:
                    failed.append(name)
                    print(f"{name} failed: {type(error).__name__}: {error}", flush=True)
                    if arguments.topics:
                        raise
                    continue
                finally:
                    await house.stop()
                lead = "\n".join(line.strip() for line in (topic.__doc__ or "").splitlines())
                print(write(arguments.out, name, title, lead.strip(), page, where))
                print(f"({time.monotonic() - start:.0f} s)\n", flush=True)
        finally:
            await asyncio.to_thread(server.stop)
    print(f"The pages are in {arguments.out}.")
    return not failed


def _read() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="topic", help=", ".join(TOPICS))
    parser.add_argument(
        "--write",
        action="store_const",
        dest="out",
        const=WRITTEN,
        default=TRIED,
        help="write into docs/performance, not into benchmarks/results",
    )
    parser.add_argument("--rows", type=int, help="no table is larger: to try a topic")
    parser.add_argument("--rounds", type=int, help="no work has more rounds: to try a topic")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.topics if name not in TOPICS]:
        parser.error(f"There is no topic {unknown[0]}; there are {', '.join(TOPICS)}.")
    return arguments


if __name__ == "__main__":
    # As Ctrl-C does, SIGTERM too ends the server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(not asyncio.run(main(_read())))
