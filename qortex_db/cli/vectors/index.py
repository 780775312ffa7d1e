"""`qortex-db index`: the vector indexes, built anew."""

from __future__ import annotations

from typing import Annotated

import typer

from qortex_db.cli.shell import Embedded, err, group, out, read_settings, run, takes_embedded

index = group("The vector indexes.")


@index.callback()
def main() -> None:
    """The vector indexes."""  # so that the one command has its name


@index.command()
def rebuild(
    *,
    table: Annotated[str, typer.Option(help="The table, without its schema.")] = "qortex_vectors",
    load: Annotated[
        str | None,
        typer.Option(help="A command to run while there is no index; no shell reads it."),
    ] = None,
    maintenance_work_mem: Annotated[
        str | None, typer.Option(help="Memory for the build, as 2GB. Default: by size, up to 1 GB.")
    ] = None,
    parallel_workers: Annotated[
        int | None,
        typer.Option(help="Processes beside the one that builds. Default: the server's."),
    ] = None,
    embedded: Embedded = False,
) -> None:
    """Build the vector indexes anew, while the table is in use; or drop, load and build them.

    Run it as the table's owner. Whatever it is interrupted by, running it again restores them.
    """
    from qortex_db.cli import render
    from qortex_db.cli.vectors import rebuilding

    settings = read_settings()
    rebuilt = run(
        rebuilding.rebuild(
            err(),
            settings,
            table=table,
            load=load,
            maintenance_work_mem=maintenance_work_mem,
            parallel_workers=parallel_workers,
            embedded=takes_embedded(settings, asked=embedded),
        )
    )
    for one in rebuilt:
        out().print(render.rebuilt(one), soft_wrap=True, highlight=False)
