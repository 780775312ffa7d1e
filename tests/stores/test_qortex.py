"""qortex 0.8.1 itself, in an environment of its own, on our stores: the slow part."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tarfile
import venv
from pathlib import Path

import pytest

from qortex_db import Database
from support.commands import ROOT, program

pytestmark = [pytest.mark.qortex, pytest.mark.timeout(600)]

QORTEX = "qortex==0.8.1"
FOLDER = ROOT / ".venv-qortex"
PYTHON = FOLDER / "bin" / "python"
CONSTRAINTS = ROOT / "constraints-qortex.txt"
BESIDE = Path(__file__).with_name("qortex_beside_ours.py")
METRICS = Path(__file__).with_name("qortex_metrics.py")
OURS = f"{ROOT}[prometheus]"
EXAMPLE = ROOT / "examples" / "qortex_service.py"
TOOLS = ("pytest", "pytest-asyncio", "pytest-timeout")

FROM_THE_ENVIRONMENT = """
import asyncio
from qortex.service import QortexService
from qortex_db import Database
from qortex_service import hand_over, hand_over_learner

async def main():
    async with Database.connect() as db:
        hand_over(db)
        service = await QortexService.async_from_env()
        service.interoception.report_outcome("q", {"node": "accepted"})
        await service.learning_observe("prompts", "v1", "accepted")
        hand_over_learner()
        await service.learning_observe("tools", "grep", "partial", context={"task": "c"})
        session = await service.learning_session_start("tools", "name")
        assert "ended_at" in await service.learning_session_end(session["session_id"])
        await service.interoception.shutdown()

        from qortex.mcp import server
        learner = await server._get_or_create_learner("mcp", seed_arms=["v1"])
        await learner.close()
        for learner in service.learners.values():
            print(type(learner).__module__, type(learner.store).__module__)

asyncio.run(main())
"""
LEARNER_TESTS = ("test_learner.py",)
STORE_TESTS = (
    *("test_learning_store.py", "test_learning_strategy.py", "test_learning_events.py"),
    *("test_pg_learning_store.py", "test_pg_interoception_store.py"),
)
NOT_OURS = {
    "TestNameSanitization": "a learner's name is no file's name here: any text will do",
    "test_lazy_connection": "it looks for SQLite's file",
    "test_returns_nested_dict": "it asks for qortex's class; ours has its attributes",
    "test_put_then_get": "its time is no time, which PostgreSQL refuses, under qortex too",
    "TestSqliteConcurrency": "the same; test_learner.py asks for more",
}


def pip(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def qortex() -> Path:
    """The Python that has qortex and this checkout; the folder is made once, and not in git."""
    stamp = FOLDER / "constraints"
    if not stamp.is_file() or stamp.read_text() != CONSTRAINTS.read_text():
        venv.create(FOLDER, with_pip=True, clear=True)
        # Its tests come with its source only.
        options = ("--no-deps", "--no-binary", "qortex", "--dest", FOLDER)
        if (done := pip("download", *options, QORTEX)).returncode:
            pytest.skip(f"{QORTEX} can't be downloaded, which needs a package index: {done.stderr}")
        done = pip("install", "--constraint", CONSTRAINTS, QORTEX, *TOOLS, "--editable", OURS)
        assert done.returncode == 0, done.stderr
        stamp.write_text(CONSTRAINTS.read_text())
    return PYTHON


@pytest.fixture(scope="module")
def their_tests(qortex: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of qortex's own tests."""
    folder = tmp_path_factory.mktemp("qortex")
    with tarfile.open(FOLDER / "qortex-0.8.1.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nmarkers = integration: needs a server\n"
    )
    return folder / "qortex-0.8.1" / "tests"


async def run(python: Path, tests: Path, files: tuple[str, ...], dsn: str, learner: str) -> str:
    """Run qortex's own tests on our stores; return what pytest says."""
    done = await program(
        *(str(python), "-m", "pytest", "-q", "-p", "qortex_plugin", "--timeout", "60"),
        *("-c", str(tests.parents[1] / "pytest.ini"), "--rootdir", str(tests)),
        *("-k", " and ".join(f"not {name}" for name in NOT_OURS)),
        *(str(tests / name) for name in files),
        cwd=tests.parents[1],
        PGVECTOR_DSN=dsn,
        TEST_POSTGRES_DSN=dsn,
        QORTEX_LEARNER=learner,
        PYTHONPATH=str(Path(__file__).parent),
    )
    assert done.code == 0, done.out[-5000:] + done.err[-5000:]
    return done.out


async def test_qortex_own_learner_and_stores_pass_qortex_tests_on_ours(
    qortex: Path, their_tests: Path, dsn: str
) -> None:
    out = await run(qortex, their_tests, (*LEARNER_TESTS, *STORE_TESTS), dsn, "theirs")
    assert "181 passed" in out


async def test_our_learner_passes_qortex_tests_of_its_learner(
    qortex: Path, their_tests: Path, dsn: str
) -> None:
    assert "86 passed" in await run(qortex, their_tests, LEARNER_TESTS, dsn, "ours")
    async with Database.connect(dsn) as db, db.unit_of_work() as uow:
        connection = await uow.session.connection()
        query = "SELECT count(DISTINCT learner_name) FROM learning_arm_states"
        assert (await connection.exec_driver_sql(query)).scalar_one() > 20  # it was our tables


async def test_our_learner_answers_what_qortex_learner_answers(
    qortex: Path, dsn: str, tmp_path: Path
) -> None:
    done = await program(str(qortex), str(BESIDE), str(tmp_path), PGVECTOR_DSN=dsn)
    assert done.code == 0, done.err[-5000:]


async def test_qortex_service_runs_on_our_stores(qortex: Path, dsn384: str) -> None:
    done = await program(str(qortex), str(EXAMPLE), PGVECTOR_DSN=dsn384)
    assert done.code == 0, done.err[-5000:]
    report = json.loads(done.out)
    assert report["qortex_db.Learner"] == {"acknowledged": 160, "counted": 160}
    # Read, altered and written back: why there is a learner of our own.
    assert 0 < report["qortex's learner"]["counted"] < 160
    assert report["promoted"] == [["pool", "pooling"]]
    assert report["factors"]["pool"] == pytest.approx(1.4)
    assert report["factors found again"] == report["factors"]
    assert report["vectors found again"] == 4
    assert report["seeded"] == 2.0
    assert report["edges left"] == 0
    async with Database.connect(dsn384) as db:
        assert await db.factors.load() == report["factors"]
        assert await db.vectors.count() == 4
        assert (await db.arms.get("ours", "prompt:v2")).alpha == 161.0


async def test_a_service_from_the_environment_is_handed_over_whole(
    qortex: Path, dsn384: str
) -> None:
    done = await program(
        *(str(qortex), "-c", FROM_THE_ENVIRONMENT),
        PGVECTOR_DSN=dsn384,
        QORTEX_STORE="postgres",
        PYTHONPATH=str(EXAMPLE.parent),
    )
    assert done.code == 0, done.err[-5000:]
    ours = "qortex_db.stores.learning"
    expected = [f"qortex.learning.learner {ours}", f"qortex_db.stores.learner {ours}"]
    assert done.out.splitlines()[-2:] == expected
    async with Database.connect(dsn384) as db:
        assert await db.factors.load() == {"node": 1.1}
        assert (await db.arms.get("prompts", "v1")).alpha == 2.0
        assert (await db.arms.get("mcp", "v1")).alpha == 2.0
        assert (await db.arms.get("tools", "grep", context={"task": "c"})).alpha == 1.5


async def test_beside_qortex_no_metric_is_counted_twice(qortex: Path, dsn: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = await program(
        *(str(qortex), str(METRICS)),
        PGVECTOR_DSN=dsn,
        QORTEX_STORE="postgres",
        QORTEX_PROMETHEUS_ENABLED="true",
        QORTEX_PROMETHEUS_PORT=str(port),
        PYTHONPATH=str(EXAMPLE.parent),
    )
    scopes: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(qortex_\w+)\{(.*)\}", done.out, re.MULTILINE):
        scopes.setdefault(name, set()).update(re.findall('otel_scope_name="(\\w+)"', labels))
    assert [name for name, of in scopes.items() if len(of) > 1] == []
    assert scopes["qortex_factor_updates_total"] == {"qortex"}
    assert scopes["qortex_factor_mean"] == {"qortex"}
    assert scopes["qortex_call_duration_seconds_count"] == {"qortex_db"}
    assert scopes["qortex_pool_size"] == {"qortex_db"}
    told = {  # what our index and learner do in the place of qortex's, as its own would tell it
        "qortex_vec_add_total": 1.0,  # calls, as qortex counts them
        "qortex_vec_add_duration_seconds_count": 1.0,
        "qortex_vec_index_size": 2.0,
        "qortex_vec_search_top_score": 1.0,
        "qortex_vec_search_score_spread": 1.0,
        "qortex_vec_search_candidates_sum": 2.0,
        "qortex_learning_selections_total": 1.0,
        "qortex_learning_observations_total": 1.0,
        "qortex_learning_arm_pulls_total": 1.0,
        "qortex_learning_posterior_mean": pytest.approx(2 / 3),
    }
    values = dict(re.findall(r"^(qortex_\w+)\{.*\} (\S+)$", done.out, re.MULTILINE))
    assert {name: float(values[name]) for name in told} == told
    assert {of for name in told for of in scopes[name]} == {"qortex"}
