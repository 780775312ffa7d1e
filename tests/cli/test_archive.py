"""`export` and `restore` on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import archives
from support.commands import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table

own = MetaData()
Table("parent", own, Column("id", Integer, primary_key=True))
Table("a_child", own, Column("id", Integer, primary_key=True))
"""


async def test_an_export_is_restored_into_another_schema(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "hosts.py").write_text(MODELS)
    await archives.make_odd(dsn)
    await archives.fill_own(dsn, 70)
    given = {"PGVECTOR_DSN": dsn}
    told = run(
        "export", "kept", "--format", "jsonl", "--metadata", "hosts:own", cwd=tmp_path, **given
    )
    assert (told.code, told.err) == (0, "")
    assert "rows are in kept" in told.out
    assert max(map(len, told.out.splitlines())) <= 80
    again = run("export", "kept", cwd=tmp_path, **given)
    assert again.code == 1
    assert "not empty" in again.err
    early = run("restore", "kept", "--schema", "other", cwd=tmp_path, **given)
    assert early.code == 1
    assert "qortex-db upgrade" in early.err
    await archives.migrated(dsn, "other")
    await archives.make_odd(dsn, "other", filled=False)
    given["QORTEX_DB_SCHEMA"] = "other"
    few = run("restore", "kept", "--collection", "learning_arm_states", cwd=tmp_path, **given)
    assert few.code == 0
    assert "\n70 rows are there" in few.out
    for _ in range(2):  # the second finds all of it there
        told = run("restore", "kept", "--rebuild-indexes", cwd=tmp_path, **given)
        assert (told.code, told.err) == (0, "")
    names = (*archives.OWN, "parent", "a_child")
    before = await archives.rows_of(dsn, "public", names)
    assert await archives.rows_of(dsn, "other", names) == before


async def test_one_collection_goes_alone(dsn: str, tmp_path: Path) -> None:
    await archives.fill_own(dsn, 20)
    options = ("--collection", "interoception_factors", "--collection", "qortex_vectors")
    told = run("export", str(tmp_path / "kept"), *options, PGVECTOR_DSN=dsn)
    assert told.code == 0
    assert "40 rows" in told.out
    assert archives.files(tmp_path / "kept") == [
        "interoception_factors-00000.parquet",
        "manifest.json",
        "qortex_vectors-00000.parquet",
    ]
    wrong = run("export", str(tmp_path / "more"), "--format", "csv", PGVECTOR_DSN=dsn)
    assert wrong.code == 1
    assert "format has to be one of parquet, jsonl, jsonl.gz" in wrong.err
