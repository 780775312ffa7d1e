"""What does not fit is refused before the first row, and says what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import (
    ConflictError,
    Database,
    DimensionMismatchError,
    InvalidInputError,
    PermissionDeniedError,
    QortexDbError,
    SchemaVersionError,
    Settings,
    migrations,
)
from qortex_db.transfer import Manifest, export, restore
from support import archives

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

NOTES = "CREATE TABLE notes (id int PRIMARY KEY, body text, at timestamptz DEFAULT now())"


@pytest.fixture
async def kept(db: Database, dsn: str, tmp_path: Path) -> Path:
    """An export of few rows, in two files a table."""
    await archives.fill_own(dsn, 20)
    await export(db, tmp_path / "kept", format="jsonl", part_rows=12)
    return tmp_path / "kept"


async def refuses(dsn: str, folder: Path, kind: type[QortexDbError], words: str) -> None:
    """A restore into another schema is refused, and nothing was written."""
    other = await archives.migrated(dsn, "other")
    async with Database.connect(other) as db:
        with pytest.raises(kind, match=words):
            await restore(db, folder)
    rows = await archives.rows_of(dsn, "other", (*archives.OWN, "qortex_db_checkpoints"))
    assert not any(rows.values())


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / "manifest.json"
    given = json.loads(path.read_text())
    change(given)
    path.write_text(json.dumps(given))


async def test_a_folder_with_anything_in_it_is_left_alone(db: Database, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InvalidInputError, match="not empty"):
        await export(db, tmp_path)
    with pytest.raises(InvalidInputError, match="no folder"):
        await export(db, tmp_path / "mine")
    assert archives.files(tmp_path) == ["mine"]


async def test_without_a_manifest_it_is_no_export(dsn: str, kept: Path) -> None:
    (kept / "manifest.json").unlink()
    await refuses(dsn, kept, InvalidInputError, r"Remove the folder, and export again")


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "missing"])
async def test_a_damaged_file_is_named_before_the_first_row(
    dsn: str, kept: Path, damage: str
) -> None:
    path = kept / "qortex_vectors-00001.jsonl"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        del data[-1:]
    else:
        data += b"\n"
    path.write_bytes(data)
    if damage == "missing":
        path.unlink()
    words = r"qortex_vectors-00001\.jsonl, with 8 rows of qortex_vectors, is (damaged|missing)"
    await refuses(dsn, kept, InvalidInputError, words)


async def test_a_newer_format_names_the_version_that_reads_it(dsn: str, kept: Path) -> None:
    edit(kept, lambda given: given.update(format_version=2, package_version="9.1"))
    await refuses(dsn, kept, InvalidInputError, r"qortex-db 9\.1 wrote this export, in format 2")


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given.pop("tables"),
        lambda given: given.update(tables=3),
        lambda given: given["tables"][0].pop("checksum"),
        lambda given: given["tables"][0]["columns"][0].update(kind="x"),
        lambda given: given["tables"][0]["parts"].append(
            {"file": "../x", "rows": 1, "bytes": 1, "sha256": ""}
        ),
        lambda given: given.update(revision=5),
        lambda given: given.update(format="csv"),
        lambda given: given.update(id="a\0b"),
        lambda given: given["tables"][0].update(name=["a"]),
        lambda given: given["tables"][0].update(rows=None),
        lambda given: given["tables"][0].update(rows=-1),
        lambda given: given["tables"][0].update(rows=10**30),
        lambda given: given.update(format="parquet"),
        lambda given: given["tables"][0]["columns"][0].update(type=5),
        lambda given: given["tables"][0]["sequences"].append({"column": "a", "last_value": "x"}),
    ],
)
async def test_a_damaged_manifest_is_refused(
    dsn: str, kept: Path, change: Callable[[Any], object]
) -> None:
    edit(kept, change)
    await refuses(dsn, kept, InvalidInputError, r"manifest\.json is damaged")


async def test_a_manifest_that_is_too_deep_is_refused(dsn: str, kept: Path) -> None:
    (kept / "manifest.json").write_text("[" * 100_000)
    await refuses(dsn, kept, InvalidInputError, r"manifest\.json is damaged")


async def test_another_revision_names_the_command(dsn: str, kept: Path) -> None:
    edit(kept, lambda given: given.update(revision="qortex_db_0016"))
    await refuses(dsn, kept, SchemaVersionError, r"qortex-db downgrade qortex_db_0016")
    edit(kept, lambda given: given.update(revision="qortex_db_9999", package_version="9.1"))
    words = r"qortex-db upgrade qortex_db_9999.*install qortex-db 9\.1"
    await refuses(dsn, kept, SchemaVersionError, words)


async def test_another_dimension_is_told(dsn: str, dsn384: str, kept: Path) -> None:
    async with Database.connect(dsn384) as db:
        with pytest.raises(DimensionMismatchError, match="384 dimensions here, and 8 in") as told:
            await restore(db, kept)
        assert (told.value.expected, told.value.actual) == (384, 8)


async def test_a_restore_makes_no_tables(empty_dsn: str, kept: Path) -> None:
    async with Database.connect(empty_dsn) as db:
        with pytest.raises(SchemaVersionError, match="run `qortex-db upgrade`"):
            await restore(db, kept)
        with pytest.raises(SchemaVersionError, match="nothing to export"):
            await export(db, kept.parent / "other")
    assert not (kept.parent / "other").exists()


@pytest.mark.parametrize(
    ("made", "kind", "words"),
    [
        ("", SchemaVersionError, "no table 'notes': run your own migrations"),
        ("CREATE TABLE notes (id int PRIMARY KEY)", InvalidInputError, "no column 'body'"),
        (NOTES.replace("body text", "body int"), InvalidInputError, "integer here, and of text"),
        (
            NOTES.replace("body text", "body text, more int NOT NULL"),
            InvalidInputError,
            "needs a value in 'more'",
        ),
        (f"{NOTES}; INSERT INTO notes VALUES (9, 'mine')", InvalidInputError, "not empty.*1 rows"),
        (
            NOTES.replace("body text", "body text GENERATED ALWAYS AS ('x') STORED"),
            InvalidInputError,
            "no column 'body' here that can be written",
        ),
    ],
)
async def test_a_table_that_does_not_fit_is_refused(
    db: Database, tmp_path: Path, made: str, kind: type[QortexDbError], words: str
) -> None:
    assert db.settings is not None
    assert db.settings.dsn is not None
    dsn = db.settings.dsn.get_secret_value()
    async with archives.connected(dsn) as connection:
        await connection.execute(f"{NOTES}; INSERT INTO notes VALUES (1, 'x'), (2, NULL)")
        await export(db, tmp_path / "kept", collections=["notes"])
        await connection.execute("DROP TABLE notes")
        if made:
            await connection.execute(made)
        before = await archives.rows_of(dsn, "public", ["notes"] if made else [])
        with pytest.raises(kind, match=words):
            await restore(db, tmp_path / "kept")
        assert await archives.rows_of(dsn, "public", ["notes"] if made else []) == before


async def test_a_column_of_the_databases_own_is_filled_by_its_default(
    dsn: str, db: Database, tmp_path: Path
) -> None:
    async with archives.connected(dsn) as connection:
        await connection.execute(f"{NOTES}; INSERT INTO notes VALUES (1, 'x'), (2, NULL)")
        await export(db, tmp_path / "kept", collections=["notes"])
        await connection.execute("TRUNCATE notes; ALTER TABLE notes ADD more int DEFAULT 7")
        await restore(db, tmp_path / "kept")
        rows = await connection.fetch("SELECT id, body, more FROM notes ORDER BY id")
        assert [tuple(row) for row in rows] == [(1, "x", 7), (2, None, 7)]


async def test_what_is_there_already_is_not_loaded_again(db: Database, kept: Path) -> None:
    assert (await restore(db, kept)).rows > 100


async def test_keys_in_a_circle_are_refused(dsn: str, db: Database, tmp_path: Path) -> None:
    async with archives.connected(dsn) as connection:
        await connection.execute("""
        CREATE TABLE egg (id int PRIMARY KEY, of int);
        CREATE TABLE hen (id int PRIMARY KEY, of int REFERENCES egg (id));
        ALTER TABLE egg ADD FOREIGN KEY (of) REFERENCES hen (id)
        """)
        await export(db, tmp_path / "kept", collections=["egg", "hen"])
        with pytest.raises(InvalidInputError, match="refer to each other in a circle"):
            await restore(db, tmp_path / "kept")


async def test_a_trigger_that_changes_rows_is_found_out(
    dsn: str, db: Database, tmp_path: Path
) -> None:
    async with archives.connected(dsn) as connection:
        await connection.execute(f"{NOTES}; INSERT INTO notes VALUES (1, 'x'), (2, 'y')")
        await export(db, tmp_path / "kept", collections=["notes"])
        await connection.execute("""
        TRUNCATE notes;
        CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.body = upper(NEW.body); RETURN NEW; END $$;
        CREATE TRIGGER shouts BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION shout()
        """)
        with pytest.raises(ConflictError, match=r"2 rows after.*of which some are others"):
            await restore(db, tmp_path / "kept")
        with pytest.raises(InvalidInputError, match="not empty"):
            await restore(db, tmp_path / "kept")
        await connection.execute("TRUNCATE notes; DROP TRIGGER shouts ON notes")
        await restore(db, tmp_path / "kept")
        assert await connection.fetchval("SELECT string_agg(body, '') FROM notes") == "xy"


async def test_rows_that_a_policy_hides_are_not_left_out_silently(
    dsn: str, db: Database, tmp_path: Path
) -> None:
    async with archives.connected(dsn) as connection:
        await connection.execute(f"""
        {NOTES}; INSERT INTO notes VALUES (1, 'x'), (2, 'y');
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY few ON notes USING (id = 1) WITH CHECK (true);
        DROP ROLE IF EXISTS archivist; CREATE ROLE archivist LOGIN;
        """)
        given = dsn.replace("postgres:@", "archivist:@")
        try:
            async with Database.connect(given) as theirs:
                with pytest.raises(PermissionDeniedError, match="SELECT on every table"):
                    await export(theirs, tmp_path / "a", collections=["notes"])
                await connection.execute("GRANT ALL ON notes TO archivist")
                with pytest.raises(PermissionDeniedError, match="BYPASSRLS"):
                    await export(theirs, tmp_path / "b", collections=["notes"])
                await connection.execute("ALTER ROLE archivist BYPASSRLS")
                made = await export(theirs, tmp_path / "c", collections=["notes"])
                assert made.rows == 2
                await connection.execute("TRUNCATE notes; ALTER ROLE archivist NOBYPASSRLS")
                await connection.execute("GRANT ALL ON qortex_db_checkpoints TO archivist")
                with pytest.raises(PermissionDeniedError, match="BYPASSRLS"):
                    await restore(theirs, tmp_path / "c")
                await connection.execute("ALTER ROLE archivist BYPASSRLS")
                await restore(theirs, tmp_path / "c")
            assert await connection.fetchval("SELECT count(*) FROM notes") == 2
            assert not ((tmp_path / "a").exists())
            assert not ((tmp_path / "b").exists())
        finally:
            await connection.execute("DROP OWNED BY archivist; DROP ROLE archivist")


async def test_a_reader_exports_and_an_owner_restores(dsn: str, tmp_path: Path) -> None:
    await archives.fill_own(dsn, 30)
    other = await archives.migrated(dsn, "other")
    roles = {"reader": "kept_reader", "owner": "kept_owner"}
    async with archives.connected(dsn, "other") as connection:
        for role in roles.values():
            await connection.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN")
        try:
            await migrations.grant_roles(Settings(dsn=dsn), reader=roles["reader"])
            await migrations.grant_roles(other, owner=roles["owner"])
            as_reader = dsn.replace("postgres:@", f"{roles['reader']}:@")
            async with Database.connect(as_reader) as db:
                made = await export(db, tmp_path / "kept")
            events = next(table for table in made.tables if table.name == "learning_events")
            # A reader does not see where a sequence is: the rows' own numbers say it.
            assert [one.last_value for one in events.sequences] == [None]
            as_owner = dsn.replace("postgres:@", f"{roles['owner']}:@")
            async with Database.connect(Settings(dsn=as_owner, db_schema="other")) as db:
                await restore(db, tmp_path / "kept", rebuild_indexes=True)
            number = await connection.fetchval(
                "INSERT INTO learning_events (learner_name, context_hash, arm_id, kind) "
                "VALUES ('l', 'default', 'arm1', 'select') RETURNING id"
            )
            assert number == 31
        finally:
            for role in roles.values():
                await connection.execute(f"REASSIGN OWNED BY {role} TO postgres")
                await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_no_secret_is_in_a_manifest(server: Any, dsn: str, kept: Path) -> None:
    text = (kept / "manifest.json").read_text()
    assert "postgresql" not in text
    assert "host" not in text
    assert Manifest.read(kept).revision == migrations.head_revision()


async def test_collections_that_are_not_there_are_named(
    dsn: str, db: Database, kept: Path, tmp_path: Path
) -> None:
    with pytest.raises(SchemaVersionError, match="no table 'nothing'"):
        await export(db, tmp_path / "one", collections=["nothing"])
    with pytest.raises(InvalidInputError, match="The export has no 'nothing'"):
        await restore(db, kept, collections=["nothing"])
    wrong: Any
    for wrong in ("qortex_vectors", 3, [], [3]):
        with pytest.raises(InvalidInputError, match="collection"):
            await export(db, tmp_path / "one", collections=wrong)
    for wrong in ({"format": "csv"}, {"metadata": 3}, {"part_rows": 0}):
        with pytest.raises(InvalidInputError):
            await export(db, tmp_path / "one", **wrong)
