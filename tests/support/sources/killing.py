"""An import in a process that is killed, and gone on with until it is done."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from qortex_db import Database
from qortex_db.transfer import Choices, import_collection, open_source
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qortex_db.transfer import ImportReport, SourceRow

BATCH = 1_000
SCRIPT = """
import asyncio, json, sys
from qortex_db import Database
from qortex_db.transfer import Choices, import_collection, open_source

async def main():
    dsn, kind, location, name, options, left_out, batch = json.loads(sys.argv[1])
    source = await open_source(kind, location, name, **options)
    async with Database.connect(dsn) as db:
        await import_collection(
            db,
            source,
            batch_size=batch,
            choices=Choices(document="", payload="", leave_out=left_out),
            on_progress=lambda read: print(int(read), flush=True),
        )

asyncio.run(main())
"""


async def imported_with_kills(
    dsn: str,
    kind: str,
    location: str,
    name: str | None,
    *,
    kills: Sequence[int],
    leave_out: Sequence[str] = (),
    **options: Any,
) -> ImportReport:
    """The report of the process that comes to the end.

    Args:
        kills: After which batch of a process it is killed, whatever it does then.
    """
    await execute(dsn, "DROP INDEX IF EXISTS ix_qortex_vectors_vec")
    arguments = json.dumps([dsn, kind, location, name, options, list(leave_out), BATCH])
    done = 0
    for batches in kills:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", SCRIPT, arguments, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for each in range(batches):
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line, "it came to its end before"
            if each == 0:
                first = int(line)
                # What was committed after the last line that was read may be more.
                assert done < first, "it goes on where it was"
            done = int(line)
        # Somewhere in the next batch, or at the end of this one.
        await asyncio.sleep(0.013 * batches)
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
    source = await open_source(kind, location, name, **options)
    try:
        async with Database.connect(dsn) as db:
            read: list[int] = []
            report = await import_collection(
                db,
                source,
                batch_size=BATCH,
                choices=Choices(document="", payload="", leave_out=leave_out),
                on_progress=lambda rows: read.append(int(rows)),
            )
    finally:
        await source.close()
    assert read[0] > done
    return report


async def assert_stored(dsn: str, rows: Iterable[SourceRow], main: str, *, near: float) -> None:
    """Each of them is in `qortex_vectors`, with its main vector, and no other is."""
    expected = {str(row.id): row for row in rows}
    async with Database.connect(dsn) as db:
        assert await db.vectors.count() == len(expected)
        ids = list(expected)
        for start in range(0, len(ids), 1_000):
            found = await db.vectors.get(ids[start : start + 1_000])
            for key in ids[start : start + 1_000]:
                stored, row = found[key], expected[key]
                assert stored.payload == json.loads(json.dumps(row.payload, default=_plain)), key
                assert stored.document == row.document, key
                vector = row.vectors.get(main)
                if vector is None:
                    assert stored.embedding is None, key
                else:
                    np.testing.assert_allclose(stored.embedding, vector, rtol=near, atol=near)


def _plain(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    assert isinstance(value, UUID)
    return str(value)
