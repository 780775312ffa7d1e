"""The demo: a first day with the package, on a server of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import SecretStr
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule

from qortex_db import Database, Settings, embedded, migrations
from qortex_db.cli import render
from qortex_db.sample import Sample, load_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from qortex_db import SearchHit

LEARNER: Final = "demo:ranking"
ARMS: Final = ("ranking:similarity", "ranking:weighted")
SHOWN: Final = 5
LONGEST: Final = 92  # letters of a passage: two lines
DRAWS: Final = 20
MARKS: Final = {"accepted": "[green]✓[/]", "partial": "[yellow]~[/]", "rejected": "[red]✗[/]"}

# What a person who asked would say of the answers. No useful one is the most similar one.
VERDICTS: Final = {
    "q5": {
        "tempfile.TemporaryDirectory": "accepted",
        "tempfile.mkdtemp": "partial",
        "tempfile._get_default_tempdir": "rejected",
    },
    "q6": {
        "hashlib.file_digest": "accepted",
        "hmac.new": "partial",
        "hmac.HMAC._current": "rejected",
    },
    "q1": {
        "asyncio.timeouts.timeout_at": "accepted",
        "asyncio.tasks.wait": "partial",
        "asyncio.tasks.__sleep0": "rejected",
    },
    "q15": {
        "html.escape": "accepted",
        "xml.sax.saxutils.escape": "partial",
        "http.cookiejar.escape_path": "rejected",
    },
}


@dataclass(frozen=True)
class Answers:
    """The hits of one question, and what their passages weigh at that time."""

    question: str
    hits: Sequence[SearchHit]
    weights: dict[str, float]

    def ranked(self) -> list[SearchHit]:
        """By similarity times weight."""
        return sorted(self.hits, key=lambda hit: -hit.score * self.weights[hit.id])

    def rank(self, key: str, *, weighted: bool = True) -> int:
        """A passage's place, from 1."""
        hits = self.ranked() if weighted else self.hits
        return 1 + [hit.id for hit in hits].index(key)


async def run(console: Console, path: Path) -> None:
    """Start or join the demo's server, and take one more round of questions and feedback."""
    folder = path / "postgres"
    new = not folder.exists()
    console.print(Rule("[bold]qortex-db"))
    with console.status(f"{'Making' if new else 'Starting'} a PostgreSQL of the demo's own ..."):
        server = await asyncio.to_thread(embedded.start, folder)
    try:
        # Without validation, so without the environment: no variable leads the demo elsewhere.
        settings = Settings.model_construct(dsn=SecretStr(server.dsn()), dimensions=384)
        state = await migrations.upgrade(settings)
        console.print(
            f"A PostgreSQL of its own, under [bold]{render.escape(str(path))}[/]: no other"
        )
        console.print("database is touched, whatever the environment names.")
        console.print(render.schema_line(state))
        async with Database.connect(settings) as db:
            await _tell(console, db, load_sample())
            report = (await db.status()).to_dict()
        report |= {"embedded": True, "schema": render.schema(state)}
        report["pending_indexes"] = await migrations.pending_indexes(settings)
        console.print(Rule("[bold]Where it stands"), render.status(report))
        console.print(_next(folder))
    finally:
        await asyncio.to_thread(server.stop)


async def _tell(console: Console, db: Database, sample: Sample) -> None:
    await _load(console, db, sample)
    earlier = (await db.arms.get(LEARNER, ARMS[0])).pulls // len(VERDICTS)
    console.print(Rule(f"[bold]Round {earlier + 1}: questions, and which answers were useful"))
    first = {key: await _ask(db, sample, key) for key in VERDICTS}
    for key, answers in first.items():
        _show_hits(console, answers, VERDICTS[key])
        await _feed_back(db, answers, VERDICTS[key])
    console.print(
        "  Judged: ✓ useful +0.10, ~ partly +0.03, ✗ misleading -0.05; stored together.\n",
        highlight=False,
    )
    console.print(Rule("[bold]The same questions, asked again"))
    again = {key: await _ask(db, sample, key) for key in VERDICTS}
    _show_changes(console, first, again)
    await _show_learning(console, db)


async def _load(console: Console, db: Database, sample: Sample) -> None:
    total = len(sample.passages)
    if await db.vectors.count() >= total:
        console.print(f"The {total} passages of the sample are there from before.")
        return
    columns = (
        TextColumn("Storing passages of Python's documentation"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        await db.vectors.ingest(
            sample.records(),
            batch_size=100,
            on_progress=lambda done: progress.update(task, completed=done),
        )


async def _ask(db: Database, sample: Sample, key: str) -> Answers:
    number = [question["id"] for question in sample.questions].index(key)
    hits = await db.vectors.search(sample.question_embeddings[number], limit=SHOWN)
    weights = await db.factors.get([hit.id for hit in hits])
    return Answers(sample.questions[number]["text"], hits, weights)


def _show_hits(console: Console, answers: Answers, verdicts: dict[str, str]) -> None:
    columns = (">#", ">score", ">weight", "", "passage")
    table = render.table(*columns, title=f"“{answers.question}”")
    for rank, hit in enumerate(answers.ranked(), 1):
        text = " ".join((hit.document or "").split())
        shown = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        table.add_row(
            str(rank),
            f"{hit.score:.3f}",
            f"{answers.weights[hit.id]:.2f}",
            MARKS.get(verdicts.get(hit.id, ""), ""),
            f"[cyan]{render.escape(hit.id)}[/]\n[dim]{render.escape(shown)}[/]",
        )
    console.print(table)


async def _feed_back(db: Database, answers: Answers, verdicts: dict[str, str]) -> None:
    """Tell, in one transaction, which answers were useful, and how well each ranking did."""
    found = {hit.id: hit.score for hit in answers.hits}
    outcomes = {key: verdict for key, verdict in verdicts.items() if key in found}
    helped = [key for key, verdict in outcomes.items() if verdict != "rejected"]
    pairs = [(a, b, min(found[a], found[b])) for a, b in pairwise(helped)]
    # An arm's reward is the reciprocal of the rank that it gave to the useful passage.
    useful = [key for key, verdict in outcomes.items() if verdict == "accepted"]
    rewards = [
        (arm, max((1 / answers.rank(key, weighted=arm == ARMS[1]) for key in useful), default=0.0))
        for arm in ARMS
    ]
    async with db.unit_of_work() as uow:
        await uow.factors.adjust(outcomes)
        await uow.edges.record_many(pairs)
        await uow.arms.observe_many(LEARNER, rewards)


def _show_changes(console: Console, first: dict[str, Answers], again: dict[str, Answers]) -> None:
    table = render.table("", "passage", ">weight", ">rank")
    for key, before in first.items():
        after = again[key]
        table.add_row("", f"[bold]“{before.question}”[/]", "", "")
        for hit in after.ranked():
            weights = before.weights.get(hit.id), after.weights[hit.id]
            if weights[0] is None or weights[0] == weights[1]:
                continue
            ranks = before.rank(hit.id), after.rank(hit.id)
            rank = f"{ranks[0]} → {ranks[1]}" if ranks[0] != ranks[1] else f"{ranks[1]}"
            table.add_row(
                MARKS[VERDICTS[key][hit.id]],
                f"[cyan]{render.escape(hit.id)}[/]",
                f"{weights[0]:.2f} → {weights[1]:.2f}",
                f"[bold green]{rank}[/]" if ranks[1] < ranks[0] else rank,
            )
    console.print(table)


async def _show_learning(console: Console, db: Database) -> None:
    console.print(Rule("[bold]What was learned"))
    columns = ("arm", ">mean", ">alpha", ">beta", ">pulls", f">chosen of {DRAWS}")
    draws = [
        (await db.arms.select(LEARNER, ARMS, rng=np.random.default_rng(seed))).selected[0]
        for seed in range(DRAWS)
    ]
    table = render.table(*columns, title="Ways to rank, by reward; Thompson sampling chooses")
    for arm, state in await db.arms.top(LEARNER):
        numbers = (f"{state.mean:.3f}", f"{state.alpha:.2f}", f"{state.beta:.2f}", f"{state.pulls}")
        table.add_row(arm, *numbers, str(draws.count(arm)))
    console.print(table)
    factors, edges = await db.factors.summary(), await db.edges.summary()
    console.print(
        f"  {factors.count} factors ({factors.boosted} boosted, {factors.penalised} penalised, "
        f"{factors.min:.2f} to {factors.max:.2f}); {edges.count} edges, {edges.total_hits} hits.\n",
        highlight=False,
    )


def _next(folder: Path) -> Panel:
    program = _program()
    where = render.escape(f"QORTEX_DB_EMBEDDED_PATH={folder}")
    lines = [
        f"[bold]{program} demo[/]",
        "    again: weights, ranks and arms go on from here",
        f"[bold]{where} \\\n    {program} status --embedded[/]",
        "    look into this database",
        f"[bold]export PGVECTOR_DSN=postgresql://…\n{program} upgrade[/]",
        "    make the tables on a server of yours, by Alembic",
        "",
        "In Python: [bold]async with Database.connect() as db: await db.vectors.search(…)[/]",
        "The README has the rest.",
    ]
    return Panel("\n".join(lines), title="What to type next", title_align="left", width=80)


def _program() -> str:
    """How this person calls the command line: `make demo` leaves it off the PATH."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m qortex_db"
    found = shutil.which(called.name)
    if found and Path(found).resolve() == called.resolve():
        return called.name
    return render.escape(os.path.relpath(called))
