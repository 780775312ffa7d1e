"""The commands: each reads its options, calls the package and prints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console

from qortex_db import Database, QortexDbError, Settings, __version__, migrations
from qortex_db.cli import demo as demonstration
from qortex_db.cli import render
from qortex_db.migrations.connection import NOTHING_GIVEN

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from qortex_db.migrations import SchemaState

T = TypeVar("T")

app = typer.Typer(
    help="The PostgreSQL memory of an AI system.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables
    add_completion=False,
)
out = Console()
err = Console(stderr=True)

Embedded = Annotated[
    bool, typer.Option("--embedded", help="Use the embedded server, and start it if need be.")
]


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except QortexDbError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("Stopped.", status=130)


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
    revision: str = "head",
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
    out.print(render.schema_line(state))


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


@app.command()
def downgrade(revision: str, *, embedded: Embedded = False) -> None:
    """Take the schema back to a revision; "base" removes the tables and what is in them."""
    state = _run(migrations.downgrade(_settings(), revision, embedded=embedded))
    out.print(render.schema_line(state))


@app.command()
def check(*, embedded: Embedded = False) -> None:
    """Exit with 0 if the schema is current, else with 1: for a readiness probe."""
    state = _run(migrations.check(_settings(), embedded=embedded))
    if not state.is_current:
        _fail(render.not_current(state))
    out.print(render.schema_line(state))


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

    async def gather() -> tuple[dict[str, Any], SchemaState]:
        state = await migrations.check(settings, embedded=embedded)
        if state.current is None:
            _fail(render.not_current(state))
        async with Database.connect(settings) as database:
            return (await database.status()).to_dict(), state

    report, state = _run(gather())
    report["schema"] = {
        "current": state.current,
        "head": state.head,
        "is_current": state.is_current,
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        out.print(render.status(report))


@app.command()
def demo(
    path: Annotated[Path, typer.Option(help="Where its server keeps its data.")] = Path(".qortex"),
) -> None:
    """Real passages searched by meaning, feedback learned from, and the state kept.

    It runs on an embedded server of its own, whatever the environment names.
    """
    _run(demonstration.run(out, path))
