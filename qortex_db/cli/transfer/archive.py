"""The commands that keep tables in files, and put them back."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qortex_db.cli.shell import (
    Embedded,
    Models,
    Schema,
    err,
    note,
    out,
    reached,
    read_settings,
    run,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qortex_db import Settings
    from qortex_db.transfer import ArchiveProgress, Manifest

Only = Annotated[
    list[str] | None,
    typer.Option("--collection", help="Only this table; may be given more than once."),
]


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty folder, or a new one.")],
    *,
    format_: Annotated[
        str, typer.Option("--format", help="parquet, jsonl or jsonl.gz.")
    ] = "parquet",
    collection: Only = None,
    embedded: Embedded = False,
    schema: Schema = None,
    metadata: Models = None,
) -> None:
    """Write all tables into files, as they are at one moment; they stay in use."""
    from qortex_db.cli import host_models

    settings = read_settings(schema)
    models = host_models.load(metadata, settings)
    options = {"format": format_, "collections": collection, "metadata": models.metadata}
    manifest = run(_run("export", settings, folder, embedded=embedded, **options))
    _tell(manifest, f"are in {folder}")


def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `export` wrote.")],
    *,
    collection: Only = None,
    rebuild_indexes: Annotated[
        bool,
        typer.Option(
            "--rebuild-indexes", help="Drop vector indexes, load, and build them: much faster."
        ),
    ] = False,
    embedded: Embedded = False,
    schema: Schema = None,
    metadata: Annotated[
        str | None,
        typer.Option(help="Only qortex-db's own tables and these, as package.module:Base."),
    ] = None,
) -> None:
    """Load what `export` wrote into empty tables; stopped, and run again, it goes on."""
    from qortex_db.cli import host_models

    settings = read_settings(schema)
    # What the environment names is for the commands that need it.
    models = None if metadata is None else host_models.load(metadata, settings).metadata
    options = {
        "collections": collection,
        "metadata": models,
        "rebuild_indexes": rebuild_indexes,
    }
    manifest = run(_run("restore", settings, folder, embedded=embedded, **options))
    _tell(manifest, "are there, as they were exported", only=collection)
    if not rebuild_indexes:
        note(
            "Vector indexes were kept up row by row; with --rebuild-indexes they are built at the "
            "end, which is faster."
        )


async def _run(
    work: str, settings: Settings, folder: Path, *, embedded: bool, **options: Any
) -> Manifest:
    from qortex_db import Database, transfer

    with _progress() as show:
        async with (
            reached(settings, embedded=embedded) as given,
            Database.connect(given) as database,
        ):
            does = transfer.export if work == "export" else transfer.restore
            return await does(database, folder, on_progress=show, **options)


@contextmanager
def _progress() -> Iterator[Callable[[ArchiveProgress], None] | None]:
    """A bar on a terminal; None elsewhere."""
    if not err().is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(progress: ArchiveProgress) -> None:
            if progress.table not in tasks:
                tasks[progress.table] = bar.add_task(progress.table)
            bar.update(
                tasks[progress.table],
                description=f"{progress.table}: {progress.rows:,} rows",
                completed=progress.rows,
                total=progress.total or None,
            )

        yield show


def _tell(manifest: Manifest, where: str, only: list[str] | None = None) -> None:
    from qortex_db.cli import render

    told = [one for one in manifest.tables if not only or {one.name, one.fullname} & set(only)]
    shown = render.table("table", ">rows", ">size", ">files")
    for table in told:
        size = render.size(sum(part.bytes for part in table.parts))
        shown.add_row(render.escape(table.fullname), f"{table.rows:,}", size, str(len(table.parts)))
    out().print(shown)
    rows = sum(table.rows for table in told)
    say(f"{rows:,} rows {where}.")
