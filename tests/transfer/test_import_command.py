"""`qortex-db import`: what it says it will do, the model that it writes, and how it is stopped."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qortex_db import Database
from support.catalogue import execute, rows
from support.commands import BIN, program
from support.framework_rows import matrix
from support.hosting import Project

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 10_000
COMMAND = sys.executable, "-m", "qortex_db", "import"


def odd(path: Path, count: int) -> list[dict[str, Any]]:
    """Rows with three vectors, one of them sparse, whose indices no column holds."""
    vectors = matrix(count)
    made: list[dict[str, Any]] = []
    for at in range(count):
        row: dict[str, Any] = {
            "id": at,
            "embedding": vectors[at].tolist() if at % 50 else None,
            "Title-vector_embedding": vectors[at, :4].tolist() if at % 3 else None,
            "words_vec": {"indices": [at, 4_294_967_295], "values": [1.0, at / 2 + 1]},
            "page_content": f"Text {at}",
            "metadata": {"city": "Rome", "at": at, "none": None},
        }
        made.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return made


async def said(*arguments: str, code: int = 0, **environment: str) -> str:
    done = await program(*COMMAND, *arguments, **environment)
    assert done.code == code, done.out + done.err
    assert "Traceback" not in done.err
    return done.out + done.err


async def test_a_dry_run_tells_what_will_be_and_writes_nothing(dsn: str, tmp_path: Path) -> None:
    odd(tmp_path / "odd.jsonl", 120)
    told = await said(
        "jsonl", str(tmp_path / "odd.jsonl"), "--dry-run", PGVECTOR_DSN=dsn, COLUMNS="120"
    )
    for line in (
        "It has 120 rows.",
        "The document is the key page_content (a guess: say another).",
        "The payload is the key metadata (a guess: say another).",
        "Ids that are numbers become texts where the table's keys are: 7 is '7'.",
        "Indices of 'words_vec' from 1,000,000,000 on are taken modulo it",
    ):
        assert line in told
    assert "title_vector_embedding" in told
    assert await rows(dsn, "SELECT count(*)::text FROM qortex_db_checkpoints") == ["0"]
    plan = json.loads(
        await said("jsonl", str(tmp_path / "odd.jsonl"), "--dry-run", "--json", PGVECTOR_DSN=dsn)
    )
    assert plan["specs"]["vec"]["dimensions"] == 384
    assert plan["vectors"] == {
        "": "vec",
        "Title-vector_embedding": "title_vector_embedding",
        "words_vec": "words_vec",
    }
    refused = await said("jsonl", str(tmp_path / "odd.jsonl"), code=1, PGVECTOR_DSN=dsn)
    assert "has no vector title_vector_embedding" in refused or "384" in refused


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("redis", "x"), 1, "There is no source 'redis'"),
        (("jsonl", "nowhere.jsonl"), 1, "There is no file nowhere.jsonl"),
        (("jsonl", "pyproject.toml", "-o", "a"), 2, "has to be name=value"),
        (("jsonl", "CHANGELOG.md"), 1, "no line that is a JSON object"),
        (("numpy", "x.npy", "-o", "x=1"), 1, "takes no option 'x'"),
        (("numpy", "x.npy", "-o", "api_key=1"), 2, "--option api_key is no option of a source"),
        (("pgvector", "", "-o", "settings=1"), 2, "--option settings is no option of a source"),
        (("pgvector", ""), 1, "Say which table"),
    ],
)
async def test_what_can_not_be_is_told_in_a_line(
    dsn: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    told = await said(*arguments, code=code, PGVECTOR_DSN=dsn)
    assert message in " ".join(told.split())


async def test_a_table_of_this_database_needs_no_dsn(dsn: str) -> None:
    await execute(
        dsn,
        "CREATE TABLE notes (key int PRIMARY KEY, emb vector(8), body text)",
        "INSERT INTO notes SELECT n, array_fill(n, ARRAY[8])::vector, repeat('word ', 30) "
        "FROM generate_series(1, 20) n",
    )
    told = await said("pgvector", "", "notes", PGVECTOR_DSN=dsn)
    assert "20 rows were read, 20 written, 0 were no good; 20 are there." in told
    assert "20 rows were compared field by field: 0 differ." in told
    assert "Searches by the vector: 100.0% of what the source finds" in told
    documents = await rows(dsn, "SELECT DISTINCT document FROM qortex_vectors")
    assert documents == ["word " * 30]


async def test_rows_that_are_no_good_are_in_a_file_unasked(dsn: str, tmp_path: Path) -> None:
    lines = [{"id": at, "embedding": [1.0] * (8 - at % 2), "text": "a"} for at in range(30)]
    (tmp_path / "Some notes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = await program(
        *COMMAND, "jsonl", "Some notes.jsonl", cwd=tmp_path, PGVECTOR_DSN=dsn, COLUMNS="200"
    )
    assert done.code == 1
    assert "15 rows were no good, and are not here." in done.out
    assert "The document is the key text (a guess: say another)." in done.out
    assert "All that were no good are in some_notes.rejects.jsonl." in done.out
    told = (tmp_path / "some_notes.rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in told] == [str(at) for at in range(1, 30, 2)]


async def test_a_file_that_holds_no_rejects_is_not_written_over(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(json.dumps({"id": 1, "embedding": [1.0] * 8, "row": 1, "reason": 2}) + "\n")
    before = path.read_bytes()
    told = await said("jsonl", str(path), "--rejects", str(path), code=1, PGVECTOR_DSN=dsn)
    assert "holds something else than rejects, which would be lost" in told
    assert path.read_bytes() == before
    # What a killed import left of a line is written over.
    cut = tmp_path / "cut.rejects.jsonl"
    cut.write_text('{"row": "1", "rea')
    await said("jsonl", str(path), "--rejects", str(cut), PGVECTOR_DSN=dsn)
    assert cut.read_text() == ""


async def test_ids_that_no_terminal_shows_are_told_escaped(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    ids = ["\ud800", "\x1b[2J\0"]
    path.write_text(
        "".join(json.dumps({"id": each, "embedding": [1.0] * 8}) + "\n" for each in ids)
    )
    rejects = tmp_path / "bad.jsonl"
    told = await said("jsonl", str(path), "--rejects", str(rejects), code=1, PGVECTOR_DSN=dsn)
    assert "  - \\ud800: id of the row contains a lone surrogate" in told
    assert "  - \\x1b[2J\\x00: id of the row contains NUL" in told
    assert [json.loads(line)["row"] for line in rejects.read_text().splitlines()] == ids


@pytest.mark.faults
async def test_a_model_is_written_that_upgrades_as_it_is_and_a_killed_import_goes_on(
    empty_dsn: str, tmp_path: Path
) -> None:
    made = odd(tmp_path / "odd.jsonl", ROWS)
    (tmp_path / "host").mkdir()
    project = Project(tmp_path / "host", empty_dsn, "shared_history")
    await project.start()
    text = (project.folder / "alembic.ini").read_text()
    ini = project.page.files["alembic.ini"][0]
    project.write("alembic.ini", text.replace("path_separator = os\n", ini))
    source = "jsonl", str(tmp_path / "odd.jsonl")
    written = await project.run(
        "qortex-db", "import", *source, "--write-model", "notes.py", "--table", "odd_notes"
    )
    assert written.code == 0, written.out
    model = (project.folder / "notes.py").read_text()
    assert "title_vector_embedding: Mapped[NDArray[np.float32] | None] = vector_column(" in model
    project.edit("alembic/env.py", "from myapp.models import Base", "from notes import Base")
    await project.succeed("alembic upgrade heads")
    for vector in ("vec", "title_vector_embedding", "words_vec"):
        # They would take most of the time, and are not what this is about.
        await execute(empty_dsn, f"DROP INDEX ix_odd_notes_{vector}")
    checked = await program(
        *(str(BIN / "qortex-db"), "check", "--metadata", "notes:Base"),
        cwd=project.folder,
        PGVECTOR_DSN=empty_dsn,
    )
    assert "odd_notes" not in checked.out + checked.err
    chance = random.Random(7)  # noqa: S311
    arguments = (*COMMAND, *source, "--into", "notes:OddNotes", "--batch-size", "500", "--json")
    environment = {"PATH": str(BIN), "PGVECTOR_DSN": empty_dsn}
    for least in sorted(chance.sample(range(500, ROWS - 1_500), 4)):
        process = await _started(arguments, project.folder, environment)
        while await _rows_read(empty_dsn) < least:
            assert process.returncode is None, "it ended before it could be killed"
            await asyncio.sleep(0.01)
        await asyncio.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = await _started(arguments, project.folder, environment)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    report = json.loads(out)
    assert (report["read"], report["stored"]) == (ROWS, ROWS)
    # Killed while it compared, it is done: what comes then begins anew, and changes nothing.
    assert report["written"] in (ROWS, 0)
    assert [each["share"] for each in report["overlaps"]] == [None, None, None]
    (counted,) = await rows(
        empty_dsn,
        "SELECT concat_ws(' ', rows_read, rows_written, rows_rejected, finished_at IS NOT NULL) "
        "FROM qortex_db_checkpoints",
    )
    assert counted == f"{ROWS} {report['written']} 0 t"
    await _compare(empty_dsn, project.folder, made)
    again = json.loads((await program(*arguments, cwd=project.folder, PGVECTOR_DSN=empty_dsn)).out)
    assert (again["read"], again["written"], again["faults"]) == (ROWS, 0, [])


async def _started(
    arguments: tuple[str, ...], folder: Path, environment: dict[str, str]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *arguments,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _rows_read(dsn: str) -> int:
    found = await rows(dsn, "SELECT rows_read::text FROM qortex_db_checkpoints")
    return int(found[0]) if found else 0


async def _compare(dsn: str, folder: Path, made: list[dict[str, Any]]) -> None:
    sys.path.insert(0, str(folder))
    try:
        from notes import OddNotes  # noqa: PLC0415 - it was written just now
    finally:
        sys.path.remove(str(folder))
    async with Database.connect(dsn) as db:
        notes = db.collection(OddNotes)
        for start in range(0, ROWS, 2_500):
            part = made[start : start + 2_500]
            stored = await notes.get([row["id"] for row in part])
            for row in part:
                found = stored[str(row["id"])]
                for vector, given in (
                    (found.embedding, row["embedding"]),
                    (found.vectors["title_vector_embedding"], row["Title-vector_embedding"]),
                ):
                    assert (vector is None) is (given is None)
                    if given is not None:
                        assert np.array_equal(np.asarray(vector), np.asarray(given, np.float32))
                words = found.vectors["words_vec"]
                assert dict(zip(words.indices(), words.values(), strict=True)) == {
                    row["id"]: 1.0,
                    294_967_295: row["id"] / 2 + 1,
                }
                assert (found.document, found.payload) == (row["page_content"], row["metadata"])
