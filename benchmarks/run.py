"""Times qortex-db beside asyncpg by hand and its peers: `python benchmarks/run.py [topic ...]`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from choosing import choosing
from house import QUIET, House
from imports import imports
from pages import machine, write
from topics import TOPICS

from qortex_db import embedded

PAGES = {"choosing": choosing, "imports": imports}  # they compare no contenders
RESULTS = Path(__file__).parents[1] / "docs" / "performance"


async def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="qortex-db-bench-") as folder:
        path = Path(folder)
        os.chmod(folder, 0o755)  # noqa: PTH101 - the server's user has to enter it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = await asyncio.to_thread(embedded.start, path / "server", version=18)
        try:
            house = House(server, path)
            async with house.connection() as connection:
                for setting in QUIET:
                    await connection.execute(f"ALTER SYSTEM SET {setting}")
                await connection.execute("SELECT pg_reload_conf()")
                where = machine(await connection.fetchval("SHOW server_version"))
            for name in names:
                if name in PAGES:
                    print(await PAGES[name](house, RESULTS, where), flush=True)
                    continue
                title, topic = TOPICS[name]
                print(f"{title} ...", flush=True)
                start = time.monotonic()
                try:
                    tables = await topic(house)
                finally:
                    await house.stop()
                write(RESULTS, name, title, topic.__doc__ or "", tables, where)
                print("\n\n".join(table.markdown() for table in tables))
                print(f"\n({time.monotonic() - start:.0f} s)\n", flush=True)
        finally:
            await asyncio.to_thread(server.stop)


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if name] or [*TOPICS, *PAGES]
    if unknown := [name for name in chosen if name not in {*TOPICS, *PAGES}]:
        sys.exit(f"There is no topic {unknown[0]}; there are {', '.join([*TOPICS, *PAGES])}.")
    asyncio.run(main(chosen))
