"""The commands that give an overview: a status, a report, a demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qortex_db.cli.shell import (
    AsJson,
    Embedded,
    Models,
    fail,
    out,
    print_json,
    read_settings,
    run,
    say,
)


def status(
    *,
    exact: Annotated[
        bool, typer.Option("--exact", help="Count tables of more than a million rows too.")
    ] = False,
    as_json: AsJson = False,
    embedded: Embedded = False,
    metadata: Models = None,
) -> None:
    """Versions, schema, rows and bytes, invalid indexes and the pool."""
    from qortex_db.cli import host_models, render
    from qortex_db.cli.schema import checking

    settings = read_settings()
    models = host_models.load(metadata, settings)
    report = run(checking.status(settings, models, embedded=embedded, exact=exact))
    if as_json:
        print_json(report)
    else:
        out().print(render.status(report))


def report(
    *,
    learner: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be given more than once.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help='Where to; "-" prints it.')] = Path(
        "report.html"
    ),
    colour: Annotated[
        str | None,
        typer.Option(
            help="What colours maps of vectors: a path into payloads. Default: by itself."
        ),
    ] = None,
    embedded: Embedded = False,
    metadata: Models = None,
) -> None:
    """Write a page to look at: best arms, pulls over time, factors, edges, maps of vectors.

    It is one HTML file, without scripts or anything from elsewhere.
    """
    from qortex_db.cli import host_models
    from qortex_db.cli.overview import reporting

    settings = read_settings()
    models = host_models.load(metadata, settings)
    page = run(reporting.page(settings, models, learner or None, colour, embedded=embedded))
    if str(output) == "-":
        typer.echo(page, nl=False)
        return
    try:
        output.write_text(page, "utf-8")
    except OSError as error:
        fail(f"{output} can't be written: {error.strerror}.")
    say(f"The report is in {output}.")


def demo(
    path: Annotated[Path, typer.Option(help="Where its server keeps its data.")] = Path(".qortex"),
) -> None:
    """Real passages searched by meaning, feedback learned from, and the state kept.

    It runs on an embedded server of its own, whatever the environment names.
    """
    from qortex_db.cli.overview import demonstration

    run(demonstration.run(out(), path))
