"""An adoption on a terminal: what is there, what is done, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qortex_db import migrations
from qortex_db.cli import render
from qortex_db.cli.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from qortex_db import Settings
    from qortex_db.migrations import Adoption


async def adopt(
    out: Console, err: Console, settings: Settings, *, dry_run: bool, embedded: bool
) -> Adoption:
    """Adopt, and tell: the plan before anything is changed, the checksums after it."""
    with progress_bar(err) as show:
        done = await migrations.adopt(
            settings,
            dry_run=dry_run,
            embedded=embedded,
            on_plan=lambda plan: _plan(out, plan),
            on_progress=show,
        )
    if dry_run:
        _plan(out, done)
    else:
        _done(out, done)
    return done


def _plan(out: Console, plan: Adoption) -> None:
    if plan.tables:
        found = render.table("table", "form", ">rows", ">size", ">checksum")
        for table in plan.tables:
            size = render.size(table.bytes)
            found.add_row(table.name, table.form, f"{table.rows:,}", size, table.checksum)
        out.print(found)
    else:
        out.print("The database is under Alembic already.")
    if not plan.steps:
        return
    if plan.dry_run:
        for line in _notes(plan):
            out.print(f"[yellow]{line}[/]", soft_wrap=True, highlight=False)
    out.print("To be done:" if plan.dry_run else "Doing:")
    _list(out, plan.steps)
    _list(out, plan.kept, title="Kept as it is:")
    _list(out, plan.warnings, title="Good to know:")
    if plan.dry_run:
        out.print("Nothing was changed.")


def _notes(plan: Adoption) -> list[str]:
    if not plan.tables:
        return []
    size = render.size(sum(table.bytes for table in plan.tables))
    stop = (
        "Stop qortex first: renaming qortex_vectors.embedding breaks a running one, and whatever "
        "else names that column."
    )
    locks = (
        f"The rows ({size}) are read twice. Writers wait from the first reading to the end, "
        "readers during the second one; building an index makes nobody wait."
    )
    return [stop, locks] if plan.renames else [locks]


def _list(out: Console, lines: tuple[str, ...], *, title: str = "") -> None:
    if lines and title:
        out.print(title)
    for line in lines:
        out.print(f"  - {render.escape(line)}", soft_wrap=True, highlight=False)


def _done(out: Console, done: Adoption) -> None:
    if done.tables:
        compared = render.table("table", ">rows", ">checksum before", ">after")
        for table in done.tables:
            after = table.checksum_after or ""
            compared.add_row(table.name, f"{table.rows:,}", table.checksum, after)
        out.print(compared)
        out.print("Every row is there, as it was.")
    out.print(render.schema_line(done.state), soft_wrap=True, highlight=False)
    if done.built is not None:
        out.print(render.rebuilt(done.built), soft_wrap=True, highlight=False)
