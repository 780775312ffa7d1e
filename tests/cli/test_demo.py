"""The demo, run as a person runs it; and the sample that it carries."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qortex_db.cli.overview.demonstration import VERDICTS
from qortex_db.sample import load_sample
from support.commands import run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "qortex_db", "demo"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that the server's own user can enter, under root too."""
    path = Path(tempfile.mkdtemp(prefix="qx-demo-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def demo(folder: Path, *arguments: str, **environment: str) -> str:
    done = run("demo", *arguments, cwd=folder, **environment)
    assert (done.code, done.err) == (0, "")
    return done.out


def test_it_goes_on_where_it_stopped_and_touches_no_given_database(
    open_folder: Path, empty_dsn: str
) -> None:
    given = {"PGVECTOR_DSN": empty_dsn, "QORTEX_DB_SCHEMA": "elsewhere"}
    first = demo(open_folder, **given)
    assert "800/800" in first
    assert "Round 1" in first
    assert "tempfile.TemporaryDirectory" in first
    assert "1.00 → 1.10   2 → 1" in first
    assert "What to type next" in first
    assert (open_folder / ".qortex" / "postgres").is_dir()

    second = demo(open_folder, **given)
    assert "there from before" in second
    assert "Round 2" in second
    assert "1.10 → 1.20" in second
    assert "0.90 to 1.20); 4 edges, 8 hits" in second
    assert "\x1b" not in second
    assert max(map(len, second.splitlines())) <= 80

    done = run("check", **given)
    assert done.code == 1
    assert "not there" in done.err  # nothing was made in the given database


def test_no_variable_stops_it_and_an_ascii_pipe_neither(open_folder: Path) -> None:
    printed = demo(
        open_folder,
        "--path",
        "elsewhere",
        QORTEX_STORE="mysql",
        PGVECTOR_PORT="none",
        QORTEX_VEC_DIMENSIONS="8",
        PYTHONIOENCODING="ascii",
    )
    assert "Round 1" in printed
    assert printed.isascii()
    assert (open_folder / "elsewhere" / "postgres").is_dir()
    assert not (open_folder / ".qortex").exists()


def test_ctrl_c_ends_it_without_traceback_and_the_next_run_goes_on(open_folder: Path) -> None:
    with subprocess.Popen(
        COMMAND,
        cwd=open_folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if b"The schema is" in line:
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == b"Stopped.\n"
    assert not (open_folder / ".qortex" / "postgres" / "postmaster.pid").exists()
    assert "Round 1" in demo(open_folder)


def test_the_sample_is_whole_small_and_licensed() -> None:
    sample = load_sample()
    ids = [passage["id"] for passage in sample.passages]
    assert len(ids) == len(set(ids)) == 800
    assert len({passage["module"].partition(".")[0] for passage in sample.passages}) > 100
    for embeddings, count in ((sample.passage_embeddings, 800), (sample.question_embeddings, 40)):
        assert embeddings.shape == (count, 384)
        assert embeddings.dtype == np.float32
        assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)
    files = [file for file in resources.files("qortex_db.sample").iterdir() if file.is_file()]
    assert sum(len(file.read_bytes()) for file in files) < 1_500_000
    (licence,) = [file.read_text("utf-8") for file in files if file.name == "LICENSE.txt"]
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in licence
    assert "all-MiniLM-L6-v2" in licence


@pytest.mark.parametrize("key", VERDICTS)
def test_what_is_judged_is_among_the_answers(key: str) -> None:
    sample = load_sample()
    number = [question["id"] for question in sample.questions].index(key)
    scores = sample.passage_embeddings @ sample.question_embeddings[number]
    best = [sample.passages[place]["id"] for place in np.argsort(-scores)[:5]]
    assert set(VERDICTS[key]) <= set(best)
    assert sorted(VERDICTS[key].values()) == ["accepted", "partial", "rejected"]
