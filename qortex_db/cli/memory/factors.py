"""`qortex-db factors`: how much feedback weighs nodes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from qortex_db.cli.shell import AsJson, Embedded, group, opened, out, print_json, run

if TYPE_CHECKING:
    from qortex_db import FactorSummary

factors = group("The factors: how much feedback weighs nodes.")


@factors.callback()
def main() -> None:
    """The factors: how much feedback weighs nodes."""  # so that the one command has its name


@factors.command()
def summary(*, as_json: AsJson = False, embedded: Embedded = False) -> None:
    """Print how many there are, how they are spread, and their entropy."""
    from qortex_db.cli import render

    async def read() -> FactorSummary:
        async with opened(embedded=embedded) as db:
            return await db.factors.summary()

    found = run(read())
    if as_json:
        print_json(asdict(found))
        return
    facts = render.table("", "")
    facts.show_header = False
    for name, value in {
        "factors": f"{found.count:,}",
        "boosted": f"{found.boosted:,} above 1.0",
        "penalised": f"{found.penalised:,} below 1.0",
        "mean": f"{found.mean:.4f}",
        "range": f"{found.min:.4g} to {found.max:.4g}",
        "entropy": f"{found.entropy:.3f} bits",
    }.items():
        facts.add_row(f"[bold]{name}[/]", value)
    out().print(facts)
