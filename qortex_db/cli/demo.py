"""The demo: a first day with the package, on a server of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
from pydantic import SecretStr
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule

from qortex_db import Database, Settings, embedded, migrations
from qortex_db.cli import render
from qortex_db.cli.sample import Sample, load_sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from qortex_db import SearchHit

LEARNER = "demo:ranking"
ARMS = ("ranking:similarity", "ranking:weighted")
QUESTIONS = ("q0", "q1", "q11", "q18")
SHOWN = 5


async def run(console: Console, path: Path) -> None:
    """Start or join the demo's server, and take one more round of questions and feedback."""
    folder = path / "postgres"
    new = not folder.exists()
    console.print(Rule("[bold]qortex-db"))
    with console.status(f"{'Making' if new else 'Starting'} a PostgreSQL of the demo's own ..."):
        server = await asyncio.to_thread(embedded.start, folder)
    try:
        # Named outright, so that no database of the environment is ever touched.
        settings = Settings(dsn=SecretStr(server.dsn()), dimensions=384, db_schema=None)
        state = await migrations.upgrade(settings)
        place = render.escape(str(path))
        console.print(f"Server under [bold]{place}[/]. {render.schema_line(state)}")
        async with Database.connect(settings) as db:
            await _tell(console, db, load_sample())
            report = (await db.status()).to_dict()
        schema = {"current": state.current, "head": state.head, "is_current": state.is_current}
        report |= {"embedded": True, "schema": schema}
        console.print(Rule("[bold]Where it stands"), render.status(report))
        console.print(_next())
    finally:
        await asyncio.to_thread(server.stop)


async def _tell(console: Console, db: Database, sample: Sample) -> None:
    await _load(console, db, sample)
    numbers = {question["id"]: i for i, question in enumerate(sample.questions)}
    rounds = (await db.arms.get(LEARNER, ARMS[0])).pulls // len(QUESTIONS)
    console.print(Rule(f"[bold]Round {rounds + 1}: questions, and what was useful"))
    for key in QUESTIONS:
        number = numbers[key]
        hits = await db.vectors.search(sample.question_embeddings[number], limit=SHOWN)
        weights = await db.factors.get([hit.id for hit in hits])
        _show_hits(console, sample.questions[number]["text"], hits, weights)
        after = await _feed_back(db, hits)
        _show_change(console, hits, weights, after)
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


def _order(hits: Sequence[SearchHit], weights: dict[str, float]) -> list[str]:
    """The hits by similarity times weight."""
    return [hit.id for hit in sorted(hits, key=lambda hit: -hit.score * weights[hit.id])]


def _show_hits(
    console: Console, question: str, hits: Sequence[SearchHit], weights: dict[str, float]
) -> None:
    table = render.table(">#", ">score", ">weight", "passage", title=f"“{question}”")
    by_id = {hit.id: hit for hit in hits}
    for rank, key in enumerate(_order(hits, weights), 1):
        hit = by_id[key]
        text = " ".join((hit.document or "").split())
        shown = text if len(text) <= 100 else text[:99] + "…"  # noqa: PLR2004 - two lines
        table.add_row(
            str(rank),
            f"{hit.score:.3f}",
            f"{weights[key]:.2f}",
            f"[cyan]{render.escape(key)}[/]\n[dim]{render.escape(shown)}[/]",
        )
    console.print(table)


async def _feed_back(db: Database, hits: Sequence[SearchHit]) -> dict[str, float]:
    """Tell, in one transaction, that the second hit was useful, the first partly, the last not."""
    first, useful, last = hits[0], hits[1], hits[-1]
    outcomes = {first.id: "partial", useful.id: "accepted", last.id: "rejected"}
    before = await db.factors.get([hit.id for hit in hits])
    kept_rank = _order(hits, before).index(useful.id)
    async with db.unit_of_work() as uow:
        after = await uow.factors.adjust(outcomes)
        await uow.edges.record(first.id, useful.id, score=min(first.score, useful.score))
        # An arm's reward is the reciprocal rank that it gave to the useful passage.
        ranks = {ARMS[0]: 1, ARMS[1]: kept_rank}
        await uow.arms.observe_many(LEARNER, [(arm, 1 / (1 + rank)) for arm, rank in ranks.items()])
    return before | after


def _show_change(
    console: Console,
    hits: Sequence[SearchHit],
    before: dict[str, float],
    after: dict[str, float],
) -> None:
    old, new = _order(hits, before), _order(hits, after)
    changes = [
        f"{render.escape(key)} [bold]{before[key]:.2f} → {after[key]:.2f}[/]"
        + (f", rank {ranks[0]} → {ranks[1]}" if len(set(ranks)) > 1 else "")
        for key in new
        for ranks in [(old.index(key) + 1, new.index(key) + 1)]
        if before[key] != after[key]
    ]
    console.print("  feedback: " + "\n            ".join(changes), highlight=False)


async def _show_learning(console: Console, db: Database) -> None:
    console.print(Rule("[bold]What was learned"))
    columns = ("arm", ">mean", ">alpha", ">beta", ">pulls")
    table = render.table(*columns, title="Ways to rank, by reward")
    for arm, state in await db.arms.top(LEARNER):
        numbers = (f"{state.mean:.3f}", f"{state.alpha:.2f}", f"{state.beta:.2f}", f"{state.pulls}")
        table.add_row(arm, *numbers)
    console.print(table)
    draws = [
        (await db.arms.select(LEARNER, ARMS, rng=np.random.default_rng(seed))).selected[0]
        for seed in range(20)
    ]
    chosen = ", ".join(f"{arm} {draws.count(arm)}" for arm in ARMS)
    console.print(f"  Thompson sampling, asked 20 times, chose: {chosen}", highlight=False)
    factors, edges = await db.factors.summary(), await db.edges.summary()
    console.print(
        f"  {factors.count} factors ({factors.boosted} boosted, {factors.penalised} penalised, "
        f"{factors.min:.2f} to {factors.max:.2f}); {edges.count} edges, {edges.total_hits} hits.\n",
        highlight=False,
    )


def _next() -> Panel:
    lines = [
        "Run it again: the weights go on from here, and so do the ranks.",
        "",
        "[bold]export[/] PGVECTOR_DSN=postgresql://…   your own server, then",
        "[bold]qortex-db upgrade[/]                    make its tables, by Alembic",
        "[bold]qortex-db status[/]                     see what is in it",
        "",
        "In Python: [bold]async with Database.connect() as db: await db.vectors.search(…)[/]",
        "The README has the rest.",
    ]
    return Panel("\n".join(lines), title="What to type next", title_align="left", width=80)
