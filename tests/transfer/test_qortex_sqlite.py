"""qortex's SQLite databases come over: vectors, factors, edges, and arms' states."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qortex_db import Database, InvalidInputError, NotFoundError
from qortex_db.transfer import import_collection, import_qortex_memory, open_source
from support.catalogue import execute
from support.commands import BIN, ROOT, program
from support.framework_rows import matrix

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 10_000
PEERS = ROOT / ".venv-peers" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PEERS.exists(), reason="sqlite-vec is not there: make peers"),
]


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ~/.qortex, with an odd name."""
    folder = tmp_path_factory.mktemp("my qortex#?")
    script = ROOT / "tests" / "support" / "fill_sqlite.py"
    done = asyncio.run(program(str(PEERS), str(script), str(folder), str(ROWS)))
    assert done.code == 0, done.err
    return folder


async def test_vectors_come_as_they_are(memory: Path, db384: Database) -> None:
    source = await open_source("qortex-sqlite", str(memory))
    report = await import_collection(db384, source, batch_size=3_000)
    # Vectors of unit length: by their distance they are in the order of their similarity.
    assert report.is_good, report.faults
    assert (report.source_rows, report.stored) == (ROWS, ROWS)
    assert "1 - the L2 distance" in report.notes[0]
    vectors = matrix(ROWS)
    for start in range(0, ROWS, 2_500):
        keys = [f"node {number}" for number in range(start, start + 2_500)]
        stored = await db384.vectors.get(keys)
        for number, key in enumerate(keys, start):
            assert np.array_equal(np.asarray(stored[key].embedding), vectors[number])
    assert await source.nearest("", vectors[5], 3) == [
        hit.id for hit in await db384.vectors.search(vectors[5], limit=3, exact=True)
    ]
    await source.close()


async def test_what_was_learned_comes_with_its_faults_told(memory: Path, db: Database) -> None:
    parts = await import_qortex_memory(db, str(memory))
    assert [(part.into, part.rows, part.written, len(part.rejects)) for part in parts] == [
        ("interoception_factors", 2_000, 2_000, 0),
        ("interoception_edge_buffer", 2_000, 2_000, 0),
        ("learning_arm_states", 2_000, 1_999, 1),
    ]
    assert [part.is_good for part in parts] == [True, True, False]
    assert all(not part.differing for part in parts)
    assert parts[2].rejects[0].where == "prompts default arm 11"
    factors = await db.factors.load()
    assert factors == {f"node {at}": 0.5 + at / 8 for at in range(2_000)}
    edges = await db.edges.load()
    assert len(edges) == 2_000
    seven, five = edges["a7", "b7"], edges["a5", "b5"]
    assert (seven.hit_count, seven.scores, seven.last_seen) == (7, [1.75], "")
    assert five.scores == []
    assert edges["a3", "b3"].last_seen == "2026-11-29T12:00:00+00:00"
    states = await db.arms.get_all("prompts")
    assert len(states) == 1_999
    assert (states["arm 7"].alpha, states["arm 7"].pulls) == (4.5, 7)
    again = await import_qortex_memory(db, str(memory))
    assert [part.written for part in again] == [0, 0, 0]
    await db.factors.save({"node 3": 9.0})
    changed = await import_qortex_memory(db, str(memory))
    assert changed[0].written == 1


async def test_one_command_brings_all_of_it(memory: Path, dsn384: str) -> None:
    await execute(dsn384, "DROP INDEX ix_qortex_vectors_vec")
    command = str(BIN / "qortex-db"), "import", "qortex-sqlite", str(memory), "--json"
    done = await program(*command, PGVECTOR_DSN=dsn384)
    assert done.code == 1  # one arm is no good
    told = json.loads(done.out)
    assert (told["stored"], told["faults"]) == (ROWS, [])
    assert [part["written"] for part in told["memory"]] == [2_000, 2_000, 1_999]
    plain = await program(*command[:-1], PGVECTOR_DSN=dsn384)
    assert "2,000 rows, 0 written into interoception_factors" in plain.out
    assert "arm 11" in plain.out


async def test_what_is_none_of_qortex_is_said_so(db: Database, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"There is no .*vectors.db"):
        await open_source("qortex-sqlite", str(tmp_path))
    with pytest.raises(NotFoundError, match="neither interoception"):
        await import_qortex_memory(db, str(tmp_path))
    (tmp_path / "vectors.db").write_text("no database")
    with pytest.raises(InvalidInputError, match="has no vectors as qortex"):
        await open_source("qortex-sqlite", str(tmp_path))
    (tmp_path / "interoception.db").write_text("no database")
    with pytest.raises(InvalidInputError, match="no database of qortex's"):
        await import_qortex_memory(db, str(tmp_path))
