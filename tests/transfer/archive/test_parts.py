"""Single collections, changeovers, indexes, and files as others read them."""

from __future__ import annotations

import json
from decimal import Decimal  # noqa: TC003 - Mapped reads it
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import polars as pl
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    QortexVector,
    Settings,
    VectorMixin,
    VectorSpec,
    migrations,
    vector_column,
)
from qortex_db.migrations import add_embedding_column, pending_indexes
from qortex_db.models import Partitions
from qortex_db.transfer import export, restore
from support import archives, tables
from support.catalogue import rows

if TYPE_CHECKING:
    from pathlib import Path

    from qortex_db.testing import Server


pytestmark = pytest.mark.slow


async def test_one_collection_comes_alone(dsn: str, db: Database, tmp_path: Path) -> None:
    await archives.fill_own(dsn, 30)
    made = await export(db, tmp_path / "kept", collections=[QortexVector, "learning_arm_states"])
    assert [table.name for table in made.tables] == ["qortex_vectors", "learning_arm_states"]
    other = await archives.migrated(dsn, "other")
    async with Database.connect(other) as theirs:
        await restore(theirs, tmp_path / "kept", collections=["learning_arm_states"])
        assert await theirs.vectors.count() == 0
        await restore(theirs, tmp_path / "kept")
        assert await theirs.vectors.count() == 30


async def test_a_host_has_tables_in_a_schema_of_its_own(
    dsn: str, db: Database, tmp_path: Path
) -> None:
    await archives.make_odd(dsn, "crm")
    before = await archives.rows_of(dsn, "crm", archives.NAMES)
    given = [archives.metadata("crm"), MetaData()]
    made = await export(db, tmp_path / "kept", metadata=given)
    assert "crm.parent" in {table.fullname for table in made.tables}
    async with archives.connected(dsn) as connection:
        await connection.execute(
            'TRUNCATE crm."Odd ""on""e", crm.parent, crm.a_child, crm.split CASCADE'
        )
    await restore(db, tmp_path / "kept", collections=[f"crm.{name}" for name in archives.NAMES])
    assert await archives.rows_of(dsn, "crm", archives.NAMES) == before


async def test_a_changeover_goes_on_where_it_was(dsn: str, tmp_path: Path) -> None:
    other = await archives.migrated(dsn, "other")
    await archives.fill_own(dsn, 40)
    for settings in (Settings(dsn=dsn), other):
        await add_embedding_column("v2", 3, settings)
    async with archives.connected(dsn) as connection:
        await connection.execute(
            "UPDATE qortex_vectors SET v2 = ARRAY[random(), 1, 2]::vector, vec = vec "
            "WHERE vec IS NOT NULL; "
            "UPDATE qortex_db_changeovers SET is_switched = true, model = 'm'"
        )
    async with Database.connect(dsn) as db, Database.connect(other) as theirs:
        await export(db, tmp_path / "kept", format="jsonl", part_rows=15)
        await restore(theirs, tmp_path / "kept")
    names = [*archives.OWN, "qortex_vectors"]
    before = await archives.rows_of(dsn, "public", names)
    assert await archives.rows_of(dsn, "other", names) == before
    async with archives.connected(dsn, "other") as connection:
        row = await connection.fetchrow("SELECT * FROM qortex_db_changeovers")
        assert (row["table_name"], row["is_switched"], row["model"]) == (
            "other.qortex_vectors",
            True,
            "m",
        )
    third = await archives.migrated(dsn, "third")
    async with Database.connect(third) as lacking:
        with pytest.raises(InvalidInputError, match=r"no column 'v2'.*model add"):
            await restore(lacking, tmp_path / "kept")


async def test_a_changeover_that_the_export_lacks_is_refused(dsn: str, tmp_path: Path) -> None:
    other = await archives.migrated(dsn, "other")
    await add_embedding_column("v2", 3, other)
    async with Database.connect(dsn) as db, Database.connect(other) as theirs:
        await export(db, tmp_path / "kept")
        with pytest.raises(InvalidInputError, match="'qortex_vectors' changes its model here"):
            await restore(theirs, tmp_path / "kept")


async def test_vector_indexes_are_built_after_the_load(dsn: str, tmp_path: Path) -> None:
    await archives.fill_own(dsn, 60)
    other = await archives.migrated(dsn, "other")
    async with Database.connect(dsn) as db, Database.connect(other) as theirs:
        await export(db, tmp_path / "kept", part_rows=20)
        there: list[bool] = []

        async def look(_: object) -> None:
            async with archives.connected(dsn, "other") as connection:
                found = await connection.fetchval(
                    "SELECT to_regclass('other.ix_qortex_vectors_vec') IS NOT NULL"
                )
                there.append(found)

        await restore(theirs, tmp_path / "kept", rebuild_indexes=True, on_progress=look)
        assert False in there
        assert not await pending_indexes(other)
        hits = await theirs.vectors.search(np.ones(8), limit=5)
        assert len(hits) == 5
        await look(None)
        assert there[-1]
    assert await archives.rows_of(dsn, "other", archives.OWN) == await archives.rows_of(
        dsn, "public", archives.OWN
    )
    async with archives.connected(dsn, "other") as connection:
        # Without statistics filters are planned by guesses.
        analyzed = await connection.fetchval(
            "SELECT count(*) FROM pg_stats WHERE schemaname = 'other' AND tablename LIKE '%factors'"
        )
        assert analyzed == 3


async def test_others_read_the_files_as_they_are(dsn: str, db: Database, tmp_path: Path) -> None:
    await archives.fill_own(dsn, 30)
    await archives.make_odd(dsn)
    await export(db, tmp_path / "a", metadata=archives.metadata())
    await export(db, tmp_path / "b", metadata=archives.metadata(), format="jsonl")
    frame = pd.read_parquet(tmp_path / "a/qortex_vectors-00000.parquet").set_index("id")
    async with archives.connected(dsn) as connection:
        text = await connection.fetchval("SELECT vec::text FROM qortex_vectors WHERE id = 'v7'")
    expected = np.asarray(json.loads(text), np.float32)
    assert frame.loc["v7", "vec"].dtype == np.float32
    np.testing.assert_array_equal(frame.loc["v7", "vec"], expected)
    assert json.loads(frame.loc["v7", "payload"])["n"] == 7
    assert frame["created_at"].dt.tz is not None
    polars = pl.read_parquet(tmp_path / "a/qortex_vectors-00000.parquet")
    assert polars.schema["vec"] == pl.Array(pl.Float32, 8)
    assert polars["vec"].null_count() == 0
    odd = next((tmp_path / "a").glob("odd__on_e*.parquet"))
    assert pl.read_parquet(odd)["exact"][0] == "123456789012345678901234567890.000100"
    text = (tmp_path / "b/qortex_vectors-00000.jsonl").read_text()
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    assert {line["id"]: line["payload"]["n"] for line in lines}["v7"] == 7
    np.testing.assert_array_equal(
        np.asarray({line["id"]: line["vec"] for line in lines}["v7"], np.float32), expected
    )


class Base(DeclarativeBase):
    pass


class Note(VectorMixin, Base):
    __tablename__ = "notes"
    __collection__ = Collection(
        VectorSpec(8, storage="half"),
        text="english",
        namespace="tenant",
        namespace_in_key=True,
        encrypted=("secret",),
        partitions=Partitions(3),
    )

    terms = vector_column(VectorSpec(50, storage="sparse", index=None))
    price: Mapped[Decimal | None]


async def test_a_hosts_collection_is_what_it_was_on_an_older_server(
    dsn: str, server16: Server, tmp_path: Path
) -> None:
    await tables.create(dsn, Base.metadata)
    keys = [Fernet.generate_key().decode()]
    rng = np.random.default_rng(2)
    records = [
        {
            "id": f"n{n}",
            "embedding": rng.normal(size=8),
            "vectors": {"terms": {n % 50: 1.5}},
            "payload": {"n": n, "secret": f"hidden {n}"},
            "document": f"the {n}th word",
        }
        for n in range(60)
    ]
    async with Database.connect(dsn, encryption_keys=lambda: keys) as db:
        for tenant in ("a", "b"):
            await db.collection(Note, namespace=tenant).upsert(records)
        made = await export(db, tmp_path / "kept", metadata=Base)
    entry = next(table for table in made.tables if table.name == "notes")
    assert entry.rows == 120
    assert "document_words" not in {column.name for column in entry.columns}
    frames = [pd.read_parquet(tmp_path / "kept" / part.file) for part in entry.parts]
    assert "hidden" not in str(pd.concat(frames)["payload"].tolist())
    name = server16.template(lambda given: migrations.upgrade(Settings(dsn=given, dimensions=8)))
    with server16.database(name) as older:
        await tables.create(older, Base.metadata)
        async with Database.connect(older, encryption_keys=lambda: keys) as db:
            await restore(db, tmp_path / "kept", metadata=Base)
            mine = db.collection(Note, namespace="a")
            assert (await mine.get(["n7"]))["n7"].payload == {"n": 7, "secret": "hidden 7"}
            assert (await mine.search(records[7]["embedding"], limit=1))[0].id == "n7"
            hits = await mine.hybrid_search(records[7]["embedding"], "7th", limit=1)
            assert [hit.id for hit in hits] == ["n7"]
        assert await archives.rows_of(older, "public", ["notes"]) == await archives.rows_of(
            dsn, "public", ["notes"]
        )


async def test_the_vector_indexes_of_partitions_are_built_after_the_load_too(
    dsn: str, server: Server, template: str, tmp_path: Path
) -> None:
    keys = [Fernet.generate_key().decode()]
    rng = np.random.default_rng(3)
    records = [{"id": f"n{n}", "embedding": rng.normal(size=8)} for n in range(60)]
    await tables.create(dsn, Base.metadata)
    async with Database.connect(dsn, encryption_keys=lambda: keys) as db:
        await db.collection(Note, namespace="a").upsert(records)
        await export(db, tmp_path / "kept", metadata=Base, part_rows=20)
    look = (
        "SELECT c.relname || pg_get_indexdef(c.oid) || i.indisvalid FROM pg_index i "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE a.amname = 'hnsw' ORDER BY 1"
    )
    with server.database(template) as theirs:
        await tables.create(theirs, Base.metadata)
        before = await rows(theirs, look)
        assert len([line for line in before if "notes" in line]) == 4
        seen: list[list[str]] = []

        async def see(_: object) -> None:
            seen.append([line for line in await rows(theirs, look) if "notes" in line])

        async with Database.connect(theirs, encryption_keys=lambda: keys) as db:
            await restore(
                db, tmp_path / "kept", metadata=Base, rebuild_indexes=True, on_progress=see
            )
            assert await db.collection(Note, namespace="a").count() == 60
        assert [] in seen
        assert await rows(theirs, look) == before
        assert not await pending_indexes(Settings(dsn=theirs))
