"""A process that changes rows in batches until it is done, or killed; it tells of each batch."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from qortex_db import ALL_CONTEXTS, Database, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WORKS: dict[str, Callable[..., Awaitable[int]]] = {
    "merge_payload": lambda db, **options: db.vectors.merge_payload(
        remove=["tags.0"], where={"half": 1}, **options
    ),
    "delete_where": lambda db, **options: db.vectors.delete_where({"half": 1}, **options),
    "decay": lambda db, **options: db.arms.decay(
        "bandit", factor=0.5, context=ALL_CONTEXTS, **options
    ),
}


async def work(dsn: str, name: str, **options: Any) -> int:
    """Do it, or what is left of it."""
    settings = Settings(dsn=dsn, learning_history=True, pool_min_size=1, pool_max_size=1)
    async with Database.connect(settings) as db:
        return await WORKS[name](db, batch_size=50, resume="once", **options)


async def main(dsn: str, name: str) -> None:
    def tell(line: object) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    tell(f"done {await work(dsn, name, on_progress=lambda rows: tell(int(rows)))}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
