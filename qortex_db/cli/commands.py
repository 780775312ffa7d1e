"""The commands: each reads its options, calls the package and prints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console

from qortex_db import Database, QortexDbError, Settings, __version__, migrations
from qortex_db import embedded as embedded_server
from qortex_db.cli import adopt as adoption
from qortex_db.cli import demo as demonstration
from qortex_db.cli import index as indexes
from qortex_db.cli import render
from qortex_db.migrations.connection import NOTHING_GIVEN

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")
_INTERRUPTED = 130  # what a shell expects after Ctrl-C

app = typer.Typer(
    help="The PostgreSQL memory of an AI system.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables
    add_completion=False,
)
index = typer.Typer(help="The vector indexes.", no_args_is_help=True)
app.add_typer(index, name="index")
out = Console()
err = Console(stderr=True)

Revision = Annotated[str, typer.Argument(help="As Alembic's: a name, head, base, +1, -1.")]
Embedded = Annotated[
    bool, typer.Option("--embedded", help="Use the embedded server, and start it if need be.")
]


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except QortexDbError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        err.print("[yellow]Stopped.[/]")
        raise typer.Exit(_INTERRUPTED) from None


def _fail(message: str, *, status: int = 1) -> NoReturn:
    err.print(f"[bold red]error:[/] {render.escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        # Its own text has an address of pydantic's in it, and may be long.
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
    _fail("; ".join(problems), status=2)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's form
    if wanted:
        out.print(f"qortex-db {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The PostgreSQL memory of an AI system.

    The server comes from PGVECTOR_DSN, PGVECTOR_HOST and its kin, or DATABASE_URL.
    """


@app.command()
def upgrade(
    revision: Revision = "head",
    *,
    embedded: Embedded = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL; touch nothing.")] = False,
    create_extension: Annotated[
        bool, typer.Option(help="Leave CREATE EXTENSION to an administrator with --no-...")
    ] = True,
    extension_schema: Annotated[
        str | None, typer.Option(help="The schema that pgvector goes into, or is in.")
    ] = None,
) -> None:
    """Bring the schema to a revision; any number may run it at once."""
    settings = _settings()
    if sql:
        typer.echo(_sql(settings, revision, create_extension, extension_schema))
        return
    state = _run(
        migrations.upgrade(
            settings,
            revision,
            embedded=embedded,
            create_extension=create_extension,
            extension_schema=extension_schema,
        )
    )
    out.print(render.schema_line(state), soft_wrap=True)


def _sql(
    settings: Settings,
    revision: str,
    create_extension: bool,  # noqa: FBT001 - handed on
    extension_schema: str | None,
) -> str:
    try:
        return migrations.upgrade_sql(
            settings,
            revision,
            create_extension=create_extension,
            extension_schema=extension_schema,
        )
    except QortexDbError as error:
        _fail(str(error))


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is no option
def downgrade(revision: Revision, *, embedded: Embedded = False) -> None:
    """Take the schema back to a revision; "base" removes the tables and what is in them."""
    state = _run(migrations.downgrade(_settings(), revision, embedded=embedded))
    out.print(render.schema_line(state), soft_wrap=True)


@app.command()
def check(
    *,
    drift: Annotated[
        bool,
        typer.Option("--drift", help="Compare tables, columns, indexes and all else with it too."),
    ] = False,
    embedded: Embedded = False,
) -> None:
    """Exit with 0 if the schema is current, else with 1: for a readiness probe."""
    settings = _settings()
    state = _run(migrations.check(settings, embedded=embedded))
    if not state.is_current:
        _fail(render.not_current(state))
    if not drift:
        out.print(render.schema_line(state), soft_wrap=True)
        return
    found = _run(migrations.drift(settings, embedded=embedded))
    for one in found:
        out.print(render.drift(one), soft_wrap=True, highlight=False)
    if found:
        _fail(render.drifted(len(found)))
    out.print("The database is what the models say.")


@app.command()
def adopt(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; touch nothing.")
    ] = False,
    embedded: Embedded = False,
) -> None:
    """Bring a database that qortex 0.8 filled under Alembic, with nothing lost.

    Stop qortex first. Whatever it is interrupted by, running it again goes on.
    """
    done = _run(adoption.adopt(out, err, _settings(), dry_run=dry_run, embedded=embedded))
    if done.failure is not None:
        _fail(f"{done.failure} {done.pending_index} is pending: `qortex-db adopt` builds it.")


@app.command()
def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    embedded: Embedded = False,
) -> None:
    """Versions, schema, rows and bytes, invalid indexes and the pool."""
    settings = _settings()
    if settings.target() is None and not embedded:
        _fail(NOTHING_GIVEN)

    report = _run(_report(settings, embedded=embedded))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        out.print(render.status(report))


async def _report(settings: Settings, *, embedded: bool) -> dict[str, Any]:
    server = None
    if embedded:  # it goes before what is given, as in the other commands
        server = await asyncio.to_thread(embedded_server.start, settings.embedded_path)
        settings = settings.model_copy(update={"dsn": SecretStr(server.dsn())})
    try:
        state = await migrations.check(settings)
        if state.current is None:
            _fail(render.not_current(state))
        async with Database.connect(settings) as database:
            report = (await database.status()).to_dict()
        report["pending_indexes"] = await migrations.pending_indexes(settings)
    finally:
        if server is not None:
            await asyncio.to_thread(server.stop)
    return report | {"embedded": embedded, "schema": render.schema(state)}


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
    rebuilt = _run(
        indexes.rebuild(
            err,
            _settings(),
            table=table,
            load=load,
            maintenance_work_mem=maintenance_work_mem,
            parallel_workers=parallel_workers,
            embedded=embedded,
        )
    )
    for one in rebuilt:
        out.print(render.rebuilt(one), soft_wrap=True, highlight=False)


@app.command()
def demo(
    path: Annotated[Path, typer.Option(help="Where its server keeps its data.")] = Path(".qortex"),
) -> None:
    """Real passages searched by meaning, feedback learned from, and the state kept.

    It runs on an embedded server of its own, whatever the environment names.
    """
    _run(demonstration.run(out, path))
