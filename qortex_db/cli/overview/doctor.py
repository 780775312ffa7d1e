"""The command that looks for what is wrong, and says what to do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from qortex_db.cli.shell import (
    AsJson,
    Embedded,
    Models,
    Schema,
    out,
    print_json,
    reached,
    read_settings,
    run,
    takes_embedded,
)

if TYPE_CHECKING:
    from qortex_db.doctor import Finding

_MARKS = {
    "good": "[green]✓[/]",
    "warning": "[yellow]![/]",
    "wrong": "[red]✗[/]",
    "unknown": "[yellow]?[/]",
}


def doctor(
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings too.")] = False,
    as_json: AsJson = False,
    schema: Schema = None,
    metadata: Models = None,
    embedded: Embedded = False,
) -> None:
    """Look for what is wrong with a database and its settings, and say what to do.

    It reads catalogues and settings alone, each for some seconds at most, on a standby too, as any
    role that may read; of replicas too. Exit status 1: something is wrong, or an essential thing
    (server, pgvector, schema, role) could not be read.
    """
    from qortex_db.cli import host_models

    settings = read_settings(schema)
    models = host_models.load(metadata, settings)

    async def look() -> list[Finding]:
        from qortex_db.doctor import examine

        async with reached(settings, embedded=embedded) as given:
            there = takes_embedded(settings, asked=embedded)
            return await examine(given, tables=models.tables, is_embedded=there)

    found = run(look())
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        _show(found)
    if any(one.level != "good" if strict else one.fails for one in found):
        raise typer.Exit(1)


def _show(found: list[Finding]) -> None:
    from qortex_db.cli import render

    shown = render.table("", "check", "")
    shown.show_header = False
    for one in found:
        said = render.escape(one.said)
        if one.do:
            said = f"{said}\n[dim]→ {render.escape(one.do)}[/]"
        shown.add_row(_MARKS[one.level], f"[bold]{render.escape(one.check)}[/]", said)
    out().print(shown)
