"""`qortex-db edges`: what the buffer holds, and its handing over."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qortex_db.cli.shell import AsJson, Embedded, err, fail, group, opened, out, print_json, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qortex_db import Database, Promotion
    from qortex_db.report.reading import NearEdge

_PART: Final = 500
# Those of `promote`; a test holds them to it.
MIN_HITS: Final = 3
MIN_AVG_SCORE: Final = 0.75

edges = group("The buffer of pairs that were seen together.")

Hits = Annotated[int, typer.Option(help="The fewest hits.")]
Score = Annotated[float, typer.Option(help="The smallest mean of the stored scores.")]


@edges.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.")] = 20,
    min_hits: Hits = MIN_HITS,
    min_avg_score: Score = MIN_AVG_SCORE,
    as_json: AsJson = False,
    embedded: Embedded = False,
) -> None:
    """Print the pairs that are ready to be promoted, then those that lack least."""
    from qortex_db.cli import render
    from qortex_db.report import reading

    async def read() -> list[NearEdge]:
        async with opened(embedded=embedded) as db:
            return await reading.nearest(
                db.executor, limit=limit, min_hits=min_hits, min_avg_score=min_avg_score
            )

    found = run(read())
    ready = [one.hit_count >= min_hits and one.avg_score >= min_avg_score for one in found]
    if as_json:
        times = (one.last_seen.isoformat() if one.last_seen else "" for one in found)
        print_json(
            [
                asdict(one) | {"last_seen": time, "ready": is_ready}
                for one, time, is_ready in zip(found, times, ready, strict=True)
            ]
        )
        return
    if not found:
        out().print("The buffer is empty.")
        return
    table = render.table("pair", ">hits", ">mean score", "")
    for one, is_ready in zip(found, ready, strict=True):
        table.add_row(
            f"{render.escape(one.src_id)} [dim]and[/] {render.escape(one.tgt_id)}",
            f"{one.hit_count:,}",
            f"{one.avg_score:.3f}",
            "[green]ready[/]" if is_ready else "",
        )
    out().print(table)


@edges.command()
def promote(
    *,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", help="How many at most. Default: all.")
    ] = None,
    min_hits: Hits = MIN_HITS,
    min_avg_score: Score = MIN_AVG_SCORE,
    embedded: Embedded = False,
) -> None:
    """Take ready pairs out of the buffer, and print each as a line of JSON.

    They leave it once their lines are written: if that fails, they stay.
    If only the commit fails, they are printed again by the next call.
    """

    async def hand_over() -> int:
        done = 0
        async with opened(embedded=embedded) as db:
            while True:
                part = _PART if limit is None else min(_PART, limit - done)
                count = await _part(db, part, min_hits, min_avg_score)
                done += count
                if count < part or done == limit:
                    return done

    count = run(hand_over())
    err().print(f"{count:,} promoted.", highlight=False)


async def _part(db: Database, limit: int, min_hits: int, min_avg_score: float) -> int:
    async with db.unit_of_work() as uow:
        found = await uow.edges.promote(min_hits=min_hits, min_avg_score=min_avg_score, limit=limit)
        _write(found)  # before the commit: what was not written has not left the buffer
    return len(found)


def _write(found: Iterable[Promotion]) -> None:
    try:
        for one in found:
            sys.stdout.write(json.dumps(asdict(one)) + "\n")
        sys.stdout.flush()
        if stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
            os.fsync(sys.stdout.fileno())
    except OSError as error:
        # What is still in the buffer would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"The output can't be written, so what it lacks was not promoted: {error.strerror}.")
