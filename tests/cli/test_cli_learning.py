"""The commands on learners, factors and edges, and the report, run as they are used."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from qortex_db import ALL_CONTEXTS, Database, IdempotencyKey, Settings, migrations
from support.commands import program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.commands import Result

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "qortex_db")
SQL = {"task": "sql"}


class Shell:
    """Runs commands on a database; what it prints is for 80 columns."""

    def __init__(self, dsn: str) -> None:
        self.environment = {"PGVECTOR_DSN": dsn, "COLUMNS": "80"}

    async def __call__(self, *arguments: str, **more: str) -> Result:
        return await program(*COMMAND, *arguments, **(self.environment | more))

    async def json(self, *arguments: str) -> Any:
        done = await self(*arguments, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    def into(self, stdout: int) -> subprocess.CompletedProcess[bytes]:
        """Promote, with this as the standard output."""
        return subprocess.run(
            [*COMMAND, "edges", "promote"],
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            timeout=100,
        )


@pytest.fixture
def shell(dsn: str) -> Shell:
    return Shell(dsn)


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(Settings(dsn=dsn, learning_history=True)) as database:
        await database.arms.observe_many("l", [("a", 1.0), ("a", 1.0), ("b [x]", 0.0)])
        await database.arms.observe_many("l", [("a", 0.5)] * 4, context=SQL)
        yield database


async def test_top_is_a_table_for_people_and_json_for_programs(shell: Shell, db: Database) -> None:
    done = await shell("arms", "top", "l")
    assert done.code == 0, done.err
    assert "l, in the default context" in done.out
    (line,) = [line for line in done.out.splitlines() if "b [x]" in line]
    assert "0.333" in line
    assert line.count("●") == 1
    assert "━" in line
    assert '- {"task": "sql"}: 1 arm, 4 pulls' in done.out
    assert max(map(len, done.out.splitlines())) <= 80

    found = await shell.json("arms", "top", "l", "-k", "1", "--context", '{"task":"sql"}')
    belief = (await db.arms.posteriors("l", context=SQL))["a"]
    state = await db.arms.get("l", "a", context=SQL)
    assert found["context"] == SQL
    assert found["arms"] == [
        {"arm_id": "a", "mean": belief.mean, "low": belief.low, "high": belief.high}
        | state.to_dict()
    ]


async def test_a_context_without_arms_tells_where_they_are(shell: Shell, db: Database) -> None:
    done = await shell("arms", "top", "l", "--context", '{"task": "other"}')
    assert 'l has no arms in the context {"task": "other"}.' in done.out
    assert '- {"task": "sql"}: 1 arm, 4 pulls' in done.out
    assert "- default context: 2 arms, 3 pulls" in done.out


async def test_a_narrow_terminal_loses_the_bar_and_no_name(shell: Shell, db: Database) -> None:
    name = "prompt:" + "a-long-name-" * 8
    await db.arms.observe("l", name, reward=1.0)
    for columns in ("80", "60", "40"):
        done = await shell("arms", "top", "l", COLUMNS=columns)
        assert "0.158-0.987" in done.out
        assert ("●" in done.out) == (columns == "80")
        # The title has two words as well; the name's pieces begin their lines.
        pieces = [line.split()[0] for line in done.out.splitlines() if line.strip()]
        assert name in "".join(pieces)
        assert max(map(len, done.out.splitlines())) <= int(columns)


async def test_what_a_terminal_obeys_is_shown_and_not_sent(shell: Shell, db: Database) -> None:
    await db.arms.observe("l", "red\x1b[31m\x9b2J[bold]\nerror: gone", reward=1.0)
    await db.edges.record("\x1b]0;title\x07", "b", score=0.5)
    arms = await shell("arms", "top", "l")
    pairs = await shell("edges", "list")
    for printed in (arms.out, pairs.out):
        assert not {"\x1b", "\x9b", "\x07"} & set(printed)
        assert not any(line.strip().startswith("error") for line in printed.splitlines())
    assert r"\x1b[31m" in "".join(line.split()[0] for line in arms.out.splitlines() if line.strip())
    assert r"\x1b]0;title\x07 and b" in pairs.out


async def test_old_idempotency_keys_are_pruned_of_the_schema_that_is_named(
    shell: Shell, db: Database
) -> None:
    await migrations.upgrade(
        Settings(dsn=shell.environment["PGVECTOR_DSN"], dimensions=8, db_schema="acme")
    )
    for on in (db, db.namespace("acme")):
        for key in ("old", "older", "new"):
            await on.arms.observe("k", "a", reward=1.0, idempotency_key=key)
        async with on.unit_of_work() as uow:
            old = update(IdempotencyKey).where(IdempotencyKey.key != "new")
            past = IdempotencyKey.made_at - timedelta(days=31)
            await uow.session.execute(old.values(made_at=past))
    assert (await shell("prune-keys", "--older-than-days", "40")).out == "0 keys are forgotten.\n"
    assert (await shell("prune-keys")).out == "2 keys are forgotten.\n"
    await db.arms.observe("k", "a", reward=1.0, idempotency_key="old")
    await db.arms.observe("k", "a", reward=1.0, idempotency_key="new")
    assert (await db.arms.get("k", "a")).pulls == 4
    there = await shell("prune-keys", QORTEX_DB_SCHEMA="acme")
    assert there.out == "2 keys are forgotten.\n"
    for wrong in ("0", "-1", "nan", "soon"):
        refused = await shell("prune-keys", "--older-than-days", wrong)
        assert refused.code in (1, 2)
        assert "Traceback" not in refused.err
    assert (await db.arms.get("k", "a")).pulls == 4


async def test_show_tells_one_arm_or_the_prior(shell: Shell, db: Database) -> None:
    done = await shell("arms", "show", "l", "a")
    assert "Beta(3, 1)" in done.out
    assert "0.7500" in done.out
    found = await shell.json("arms", "show", "l", "never")
    assert (found["alpha"], found["beta"], found["pulls"], found["mean"]) == (1, 1, 0, 0.5)


async def test_decay_fades_one_arm_one_context_or_all(shell: Shell, db: Database) -> None:
    assert (await shell("arms", "decay", "l", "a", "--factor", "0.5")).out == "1 arm is decayed.\n"
    states = await db.arms.get_all("l")
    assert (states["a"].alpha, states["b [x]"].beta) == (1.5, 2.0)
    done = await shell("arms", "decay", "l", "--factor", "0.5", "--all-contexts")
    assert done.out == "3 arms are decayed.\n"
    assert (await db.arms.get("l", "a")).alpha == 0.75
    assert (await db.arms.get("l", "a", context=SQL)).alpha == 1.5
    done = await shell("arms", "decay", "l", "--half-life", "52w", "--context", '{"task": "sql"}')
    assert done.out == "1 arm is decayed.\n"
    assert (await db.arms.get("l", "a", context=SQL)).alpha == pytest.approx(1.5, rel=1e-3)


async def test_reset_asks_on_a_terminal_and_refuses_without_one(shell: Shell, db: Database) -> None:
    before = await db.arms.get_all_states("l")
    done = await shell("arms", "reset", "l")
    assert done.code == 2
    assert "--yes" in done.err
    assert await asked(shell, b"n\n", "arms", "reset", "l") != 0
    assert await db.arms.get_all_states("l") == before
    assert await asked(shell, b"y\n", "arms", "reset", "l", "a") == 0
    states = await db.arms.get_all("l")
    assert (states["a"].pulls, states["b [x]"].pulls) == (0, 1)
    done = await shell("arms", "reset", "l", "--all-contexts", "--yes")
    assert done.out == "3 arms are back at the prior.\n"
    assert (await db.arms.metrics("l")).total_pulls == 0
    assert await db.arms.reset("l", context=ALL_CONTEXTS) == 3


async def asked(shell: Shell, answer: bytes, *arguments: str) -> int:
    """The exit status of a command on a terminal on which this is typed."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=os.environ | shell.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.write(ours, answer)
    code = await process.wait()
    os.close(theirs)
    os.close(ours)
    return code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["top", "l", "--context", "[1]"], "no JSON object"),
        (["top", "l", "-k", "0"], "k is 0"),
        (["decay", "l"], "--half-life"),
        (["decay", "l", "--factor", "2"], "factor is 2"),
        (["decay", "l", "--factor", "0.5", "--half-life", "1d"], "Pass one of"),
        (["decay", "l", "--half-life", "soon"], "a number with a unit"),
        (["decay", "l", "--half-life", "30"], "a number with a unit"),  # of days, or of seconds?
        (["reset", "l", "--yes", "--all-contexts", "--context", "{}"], "Pass one of"),
    ],
    ids=" ".join,
)
async def test_what_makes_no_sense_is_refused(
    shell: Shell, arguments: list[str], said: str
) -> None:
    done = await shell("arms", *arguments)
    assert done.code in {1, 2}
    assert said in done.err
    assert "Traceback" not in done.err


async def test_factors_are_summed_up(shell: Shell, db: Database) -> None:
    await db.factors.save({"a": 1.5, "b": 0.5, "c": 1.0})
    found = await shell.json("factors", "summary")
    summary = await db.factors.summary()
    assert found == {name: getattr(summary, name) for name in summary.__slots__}
    done = await shell("factors", "summary")
    assert "1 above 1.0" in done.out
    assert "0.5 to 1.5" in done.out


async def test_edges_are_listed_as_they_near_promotion(shell: Shell, db: Database) -> None:
    assert "The buffer is empty." in (await shell("edges", "list")).out
    scores = {"a": [0.9] * 2, "b": [0.9] * 4, "c": [0.1] * 9, "d": [0.8], "e": [0.9] * 5}
    await db.edges.record_many([(key, "z [1]", at) for key, all_ in scores.items() for at in all_])
    found = await shell.json("edges", "list")
    assert [(one["src_id"], one["ready"]) for one in found] == [
        ("e", True),
        ("b", True),
        ("c", False),
        ("a", False),
        ("d", False),
    ]
    assert found[0]["hit_count"] == 5
    assert found[0]["last_seen"].endswith("+00:00")
    done = await shell("edges", "list", "-n", "2", "--min-hits", "5")
    assert done.out.count("ready") == 1
    assert "e and z [1]" in done.out


async def test_promoted_edges_are_lines_of_json_and_leave_the_buffer(
    shell: Shell, db: Database
) -> None:
    ready = [(f"s{n:04}", f"t\N{SNOWMAN}{n}") for n in range(1_200)]
    await db.edges.record_many([(*pair, 0.9) for pair in ready for _ in range(3)])
    await db.edges.record("s", "waits", score=0.9)
    done = await shell("edges", "promote", "--limit", "700", PYTHONIOENCODING="ascii")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [(one["src_id"], one["tgt_id"]) for one in lines] == ready[:700]
    assert (lines[0]["hit_count"], lines[0]["avg_score"]) == (3, pytest.approx(0.9))
    assert done.err == "700 promoted.\n"
    done = await shell("edges", "promote")
    assert len(done.out.splitlines()) == 500
    assert list(await db.edges.load()) == [("s", "waits")]


async def test_edges_whose_lines_are_not_written_stay(shell: Shell, db: Database) -> None:
    await db.edges.record_many([("a", "b", 0.9)] * 3)
    before = await db.edges.load()
    full = os.open("/dev/full", os.O_WRONLY)
    done = await asyncio.to_thread(shell.into, full)
    os.close(full)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: The output can't be written")
    assert b"Traceback" not in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    done = await asyncio.to_thread(shell.into, writer)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: The output can't be written")
    assert b"Exception ignored" not in done.stderr
    assert await db.edges.load() == before


async def test_a_report_is_a_file(shell: Shell, db: Database, tmp_path: Path) -> None:
    await db.arms.observe("other", "arm", reward=1.0)
    path = tmp_path / "page.html"
    done = await shell("report", "--learner", "l", "--output", str(path))
    assert done.code == 0, done.err
    assert str(path) in done.out
    html = path.read_text("utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert "b [x]" in html
    assert "<h3>other " not in html
    assert "(current)" in html
    done = await shell("report", "--output", "-", PYTHONIOENCODING="utf-8")
    assert "<h3>other " in done.out
    done = await shell("report", "--output", str(tmp_path))
    assert done.code == 1
    assert "can't be written: Is a directory" in done.err


async def test_a_report_of_a_database_not_migrated_says_what_to_do(empty_dsn: str) -> None:
    done = await Shell(empty_dsn)("report")
    assert done.code == 1
    assert "qortex-db upgrade" in done.err


@pytest.mark.parametrize(
    "command", ["arms top l", "arms reset l --yes", "factors summary", "edges promote", "report"]
)
async def test_nothing_given_starts_no_server(command: str, tmp_path: Path) -> None:
    path = tmp_path / "never"
    done = await program(*COMMAND, *command.split(), QORTEX_DB_EMBEDDED_PATH=str(path))
    assert done.code == 1
    assert "PGVECTOR_DSN" in done.err
    assert not path.exists()
