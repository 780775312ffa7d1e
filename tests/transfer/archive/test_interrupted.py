"""Exports and restores that are stopped: by Ctrl-C, by kill -9, and by a full disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import ConflictError, Database, InvalidInputError, QortexDbError
from qortex_db.transfer import ArchiveProgress, export, restore
from qortex_db.transfer.archive import parts
from support import archives
from support.commands import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

ROWS = 2_000


class StoppedError(Exception):
    """Raised by whoever is told of progress."""


def command(*arguments: str, dsn: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "qortex_db", *arguments],
        cwd=ROOT,
        env=os.environ | {"PGVECTOR_DSN": dsn} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_an_export_that_fails_leaves_nothing(
    dsn: str, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archives.fill_own(dsn, 200)

    def stop(progress: ArchiveProgress) -> None:
        if progress.table == "qortex_vectors" and progress.rows:
            raise StoppedError

    for format_ in ("parquet", "jsonl.gz"):
        with pytest.raises(StoppedError):
            await export(db, tmp_path, format=format_, part_rows=50, on_progress=stop)
        assert not archives.files(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts, "sync", full)
    with pytest.raises(QortexDbError, match=r"can't be written \(No space left"):
        await export(db, tmp_path)
    assert not archives.files(tmp_path)


async def test_an_export_that_is_cancelled_leaves_nothing_and_no_transaction(
    dsn: str, db: Database, tmp_path: Path
) -> None:
    await archives.fill_own(dsn, 2_000)
    for seconds in (0.0, 0.05, 0.1, 0.2):
        task = asyncio.create_task(export(db, tmp_path, part_rows=100))
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not archives.files(tmp_path)
    async with archives.connected(dsn) as connection:
        assert not await connection.fetch(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
    assert (await export(db, tmp_path)).rows > 2_000


async def test_a_restore_that_fails_goes_on_with_the_next_file(dsn: str, tmp_path: Path) -> None:
    await archives.fill_own(dsn, 100)
    await archives.make_odd(dsn)
    other = await archives.migrated(dsn, "other")
    await archives.make_odd(dsn, "other", filled=False)
    names = (*archives.OWN, *archives.NAMES)
    before = await archives.rows_of(dsn, "public", names)
    async with Database.connect(dsn) as db, Database.connect(other) as theirs:
        await export(db, tmp_path / "kept", metadata=archives.metadata(), part_rows=40)
        told: list[ArchiveProgress] = []
        while True:

            def stop(progress: ArchiveProgress) -> None:
                told.append(progress)
                raise StoppedError

            try:
                await restore(theirs, tmp_path / "kept", on_progress=stop)
                break
            except StoppedError:
                continue
    assert len(told) == len(set(told)) > 25
    assert await archives.rows_of(dsn, "other", names) == before


async def test_rows_and_their_checkpoint_are_one_transaction(dsn: str, tmp_path: Path) -> None:
    await archives.make_odd(dsn)
    other = await archives.migrated(dsn, "other")
    await archives.make_odd(dsn, "other", filled=False)
    before = await archives.rows_of(dsn, "public", ["keyless"])
    async with (
        Database.connect(dsn) as db,
        Database.connect(other) as theirs,
        archives.connected(dsn, "other") as connection,
    ):
        await export(db, tmp_path / "kept", collections=["keyless"], part_rows=200)
        await connection.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no'; END $$;
        CREATE TRIGGER refuses BEFORE UPDATE ON qortex_db_checkpoints
            FOR EACH ROW WHEN (NEW.rows_written = 400) EXECUTE FUNCTION refuse()
        """)
        for _ in range(2):
            with pytest.raises(QortexDbError, match="in a function or trigger"):
                await restore(theirs, tmp_path / "kept")
            assert await connection.fetchval("SELECT count(*) FROM keyless") == 200
        await connection.execute("DROP TRIGGER refuses ON qortex_db_checkpoints")
        await restore(theirs, tmp_path / "kept")
    assert await archives.rows_of(dsn, "other", ["keyless"]) == before


async def test_two_restores_at_once_load_each_file_once(dsn: str, tmp_path: Path) -> None:
    await archives.fill_own(dsn, 500)
    await archives.make_odd(dsn)
    other = await archives.migrated(dsn, "other")
    await archives.make_odd(dsn, "other", filled=False)
    names = (*archives.OWN, "keyless")
    before = await archives.rows_of(dsn, "public", names)
    async with Database.connect(dsn) as db, Database.connect(other) as theirs:
        await export(db, tmp_path / "kept", metadata=archives.metadata(), part_rows=50)
        done = await asyncio.gather(
            *(restore(theirs, tmp_path / "kept") for _ in range(3)), return_exceptions=True
        )
        refused = [one for one in done if isinstance(one, BaseException)]
        assert len(refused) < 3
        assert all(isinstance(one, ConflictError) for one in refused), refused
    assert await archives.rows_of(dsn, "other", names) == before


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
async def test_a_restore_that_is_killed_again_and_again_goes_on(
    dsn: str, tmp_path: Path, format_: Any
) -> None:
    await archives.fill_own(dsn, ROWS)
    await archives.make_odd(dsn)
    await archives.migrated(dsn, "other")
    await archives.make_odd(dsn, "other", filled=False)
    names = (*archives.OWN, *archives.NAMES)
    before = await archives.rows_of(dsn, "public", names)
    async with Database.connect(dsn) as db:
        folder = tmp_path / "kept"
        await export(db, folder, format=format_, metadata=archives.metadata(), part_rows=150)
    chance = random.Random(7)  # noqa: S311 - no secret
    killed, total = 0, sum(map(len, before.values()))
    while True:
        process = command("restore", str(folder), dsn=dsn, QORTEX_DB_SCHEMA="other")
        seen = await _loaded(dsn, names)
        wanted = seen + chance.randrange(1, 3_000)
        while process.poll() is None and killed < 12:
            if wanted <= await _loaded(dsn, names) < total:
                await asyncio.sleep(chance.random() / 50)
                process.kill()
                killed += 1
                break
            await asyncio.sleep(0.002)
        _, errors = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, errors.decode()
            break
        async with archives.connected(dsn, "other") as connection:
            counted = {
                row["work"].split(" ", 2)[2]: row["rows_written"]
                for row in await connection.fetch("SELECT * FROM qortex_db_checkpoints")
            }
            for table, rows in counted.items():
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == rows
    assert killed >= 5
    assert await archives.rows_of(dsn, "other", names) == before


async def _begun(folder: Path, process: subprocess.Popen[bytes]) -> None:
    while not list(folder.glob("*-00000.*")):  # noqa: ASYNC240 - a folder of a few files
        assert process.poll() is None
        await asyncio.sleep(0.002)


async def _loaded(dsn: str, names: Any) -> int:
    async with archives.connected(dsn, "other") as connection:
        counts = ", ".join(
            '(SELECT count(*) FROM other."{}")'.format(name.replace('"', '""')) for name in names
        )
        return sum((await connection.fetchrow(f"SELECT {counts}")).values())


@pytest.mark.faults
async def test_an_export_that_is_killed_is_no_export(dsn: str, tmp_path: Path) -> None:
    await archives.fill_own(dsn, 20_000)
    folder = tmp_path / "kept"
    process = command("export", str(folder), "--format", "jsonl", dsn=dsn)
    await _begun(folder, process)
    process.kill()
    process.communicate()
    assert archives.files(folder)
    assert "manifest.json" not in archives.files(folder)
    async with Database.connect(dsn) as db:
        with pytest.raises(InvalidInputError, match="stopped before its end"):
            await restore(db, folder)
        with pytest.raises(InvalidInputError, match=r"not empty.*that was stopped"):
            await export(db, folder)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_both_and_leaves_no_half(
    dsn: str, tmp_path: Path, number: signal.Signals
) -> None:
    await archives.fill_own(dsn, 20_000)
    folder = tmp_path / "kept"
    process = command("export", str(folder), "--format", "jsonl", dsn=dsn)
    await _begun(folder, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, b"Stopped.\n")
    assert not folder.exists()
    other = await archives.migrated(dsn, "other")
    async with Database.connect(dsn) as db:
        await export(db, folder, part_rows=2_000)
    process = command("restore", str(folder), dsn=dsn, QORTEX_DB_SCHEMA="other")
    while process.poll() is None:
        async with archives.connected(dsn, "other") as connection:
            if await connection.fetchval("SELECT count(*) FROM qortex_db_checkpoints"):
                break
        await asyncio.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, b"Stopped.\n")
    async with Database.connect(other) as theirs:
        await restore(theirs, folder)
    before = await archives.rows_of(dsn, "public", archives.OWN)
    assert await archives.rows_of(dsn, "other", archives.OWN) == before
