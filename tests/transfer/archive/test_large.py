"""100,000 rows of 384 dimensions: one snapshot while others write, in memory that is bounded."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import Database
from qortex_db.transfer import export, restore
from support import archives
from support.commands import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PEAK = """
import asyncio, resource, sys
from qortex_db import Database
from qortex_db.transfer import export, restore
from support.archives import metadata

async def main(work, folder, format):
    async with Database.connect() as db:
        if work == "export":
            await export(db, folder, format=format, metadata=metadata())
        else:
            await restore(db, folder)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

asyncio.run(main(*sys.argv[1:]))
"""


def peak(*arguments: str, **environment: str) -> float:
    """MiB of a process that does it."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


async def _write(dsn: str, stop: asyncio.Event) -> int:
    """Pairs of rows in two tables, each pair in one transaction; and rows that go."""
    pairs = 0
    async with archives.connected(dsn) as connection:
        while not stop.is_set():
            pairs += 1
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO interoception_factors VALUES ($1, 0.5)", f"pair{pairs}"
                )
                await connection.execute(
                    "INSERT INTO learning_arm_states (learner_name, context_hash, arm_id) "
                    "VALUES ('pairs', 'default', $1)",
                    f"pair{pairs}",
                )
                await connection.execute(
                    "UPDATE qortex_vectors SET document = $1 WHERE id = 'v1'", f"pair{pairs}"
                )
            await connection.execute(
                "DELETE FROM qortex_db_idempotency_keys WHERE key = $1", f"k{pairs}"
            )
    return pairs


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
async def test_an_export_is_of_one_moment_while_others_write(
    dsn: str, tmp_path: Path, format_: Any
) -> None:
    await archives.fill_own(dsn, 4_000)
    other = await archives.migrated(dsn, "other")
    stop = asyncio.Event()
    writers = asyncio.create_task(_write(dsn, stop))
    async with Database.connect(dsn) as db, Database.connect(other) as theirs:
        await asyncio.sleep(0.1)
        async with archives.connected(dsn) as connection:
            before = await connection.fetchval(
                "SELECT count(*) FROM interoception_factors WHERE node_id LIKE 'pair%'"
            )
        await export(db, tmp_path / "kept", format=format_, part_rows=1_000)
        stop.set()
        pairs = await writers
        await restore(theirs, tmp_path / "kept")
    assert pairs - before > 10, "the writers were to go on during the export"
    async with archives.connected(dsn, "other") as connection:
        counts = await connection.fetchrow("""
        SELECT (SELECT count(*) FROM interoception_factors WHERE node_id LIKE 'pair%'),
            (SELECT count(*) FROM learning_arm_states WHERE arm_id LIKE 'pair%'),
            (SELECT substr(document, 5)::int FROM qortex_vectors WHERE id = 'v1'),
            (SELECT 4000 - count(*) FROM qortex_db_idempotency_keys)
        """)
        factors, arms, last, gone = counts
        assert factors == arms == last
        assert last - gone in {0, 1}
        assert before <= factors < pairs


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("format_", "many"), [("parquet", 100_000), ("jsonl", 20_000)])
async def test_rows_come_back_one_by_one_in_bounded_memory(
    dsn384: str, tmp_path: Path, format_: str, many: int
) -> None:
    await archives.make_odd(dsn384)
    await archives.migrated(dsn384, "other", 384)
    await archives.make_odd(dsn384, "other", filled=False)
    async with archives.connected(dsn384) as connection:
        for schema in ("public", "other"):
            await connection.execute(f"DROP INDEX {schema}.ix_qortex_vectors_vec")
    names = (*archives.OWN, *archives.NAMES)
    peaks = []
    for rows in (many // 5, many):
        folder = tmp_path / str(rows)
        async with archives.connected(dsn384) as connection:
            for schema, tables in (("public", archives.OWN), ("other", names)):
                quoted = ('"{}"'.format(name.replace('"', '""')) for name in tables)
                listed = ", ".join(f"{schema}.{name}" for name in quoted)
                await connection.execute(f"TRUNCATE {listed}, {schema}.qortex_db_word_frequencies")
        await archives.fill_own(dsn384, rows, 384)
        stop = asyncio.Event()
        writers = asyncio.create_task(_write(dsn384, stop))
        exporting = await asyncio.to_thread(
            peak, "export", str(folder), format_, PGVECTOR_DSN=dsn384
        )
        stop.set()
        assert await writers > 10
        restoring = await asyncio.to_thread(
            peak, "restore", str(folder), format_, PGVECTOR_DSN=dsn384, QORTEX_DB_SCHEMA="other"
        )
        peaks.append((exporting, restoring))
        for schema in ("public", "other"):  # what was written meanwhile
            async with archives.connected(dsn384, schema) as connection:
                await connection.execute("""
                DELETE FROM interoception_factors WHERE node_id LIKE 'pair%';
                DELETE FROM learning_arm_states WHERE arm_id LIKE 'pair%';
                DELETE FROM qortex_vectors WHERE id = 'v1';
                TRUNCATE qortex_db_idempotency_keys
                """)
        before = await archives.rows_of(dsn384, "public", names)
        assert len(before["qortex_vectors"]) == rows - 1
        assert len(before["learning_events"]) == rows
        assert await archives.rows_of(dsn384, "other", names) == before
    (few, few_back), (many, many_back) = peaks
    assert many < few + 64, peaks
    assert many_back < few_back + 64, peaks
