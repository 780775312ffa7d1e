"""Run by the Python of a clean environment: is what was installed there whole?"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import tempfile
from pathlib import Path

import qortex_db
from qortex_db import Database, Settings


def base() -> None:
    """Without extras: what is public can be imported, and settings are read."""
    place = Path(qortex_db.__file__).resolve()
    assert place.is_relative_to(Path(sys.prefix).resolve()), place
    assert importlib.util.find_spec("typer") is None, "the environment is not clean"
    for name in qortex_db.__all__:
        getattr(qortex_db, name)
    settings = Settings(dsn="postgresql://somebody:secret@db.example/memory")
    target = settings.target()
    assert target is not None
    assert "secret" not in repr(settings)
    print(f"{qortex_db.__version__}: {len(qortex_db.__all__)} public names")


def server() -> None:
    """With an embedded server: migrated, written to, searched and learned from."""
    from qortex_db import embedded  # noqa: PLC0415 - its extra comes later

    with tempfile.TemporaryDirectory(prefix="qx-") as folder:
        Path(folder).chmod(0o755)  # under root the server has a user of its own
        started = embedded.start(Path(folder) / "data")
        try:
            asyncio.run(used(Settings(dsn=started.dsn())))
        finally:
            started.stop()


async def used(settings: Settings) -> None:
    """A database, from nothing to what was learned."""
    from qortex_db import migrations  # noqa: PLC0415 - not without a server
    from qortex_db.sample import load_sample  # noqa: PLC0415 - the same

    assert (await migrations.upgrade(settings)).is_current
    records = list(load_sample().records())
    async with Database.connect(settings) as db:
        assert await db.vectors.upsert(records) == len(records)
        hits = await db.vectors.search(records[0]["embedding"], limit=3)
        assert hits[0].id == records[0]["id"]
        assert (await db.arms.observe("smoke", "a", reward=1.0)).pulls == 1
    print(f"{len(records)} passages; the nearest to the first: {hits[0].id}")


if __name__ == "__main__":
    {"base": base, "server": server}[sys.argv[1]]()
