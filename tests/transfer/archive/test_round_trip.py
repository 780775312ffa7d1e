"""What is exported and restored is row by row what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from qortex_db import Database
from qortex_db.transfer import ArchiveProgress, export, restore
from qortex_db.transfer.archive.files import Format
from support import archives

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

FORMATS = get_args(Format)


@pytest.mark.parametrize("format_", FORMATS)
async def test_every_type_comes_back_as_it_was_in_another_schema(
    dsn: str, tmp_path: Path, format_: Format
) -> None:
    await archives.make_odd(dsn)
    await archives.fill_own(dsn, 70)
    other = await archives.migrated(dsn, "Other_One")
    await archives.make_odd(dsn, "Other_One", filled=False)
    told: list[ArchiveProgress] = []
    async with Database.connect(dsn) as db:
        manifest = await export(
            db,
            tmp_path / "kept",
            format=format_,
            metadata=archives.metadata(),
            part_rows=30,
            on_progress=told.append,
        )
    assert manifest.rows == sum(table.rows for table in manifest.tables) > 500
    assert {table.name for table in manifest.tables} >= {*archives.OWN, *archives.NAMES}
    assert "seen" not in {table.name for table in manifest.tables}
    assert told[-1].rows == told[-1].total
    async with Database.connect(other) as db:
        assert await restore(db, tmp_path / "kept") == manifest
    names = (*archives.OWN, *archives.NAMES)
    before = await archives.rows_of(dsn, "public", names)
    after = await archives.rows_of(dsn, "Other_One", names)
    assert after == before
    async with archives.connected(dsn, "Other_One") as connection:
        assert await connection.fetchval("SELECT count(*) FROM qortex_db_checkpoints") == 0
        # Numbers go on where they were.
        number = await connection.fetchval("INSERT INTO a_child DEFAULT VALUES RETURNING id")
        assert number == 51
        row = await connection.fetchrow(
            'INSERT INTO "Odd ""on""e" (tenant, "the id") VALUES (\'z\', gen_random_uuid()) '
            "RETURNING number, serial_number"
        )
        assert tuple(row) == (7001, 42)
        words = await connection.fetch("SELECT * FROM qortex_db_word_frequencies ORDER BY 1")
        assert [tuple(each)[:4] for each in words] == [
            ('"Other_One".qortex_vectors', "word", 3, None),
            ("elsewhere.notes", "", 3, 2.5),
        ]
