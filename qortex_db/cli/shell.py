"""What every command shares: its consoles, its settings, its database, and how it ends."""

from __future__ import annotations

import functools
import json
import os
import signal
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from qortex_db import interrupts
from qortex_db.cli.app import App

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from rich.console import Console

    from qortex_db import Database, Settings

T = TypeVar("T")
_PATIENCE = 2  # signals, before one ends it in the middle of its clean-up

Embedded = Annotated[
    bool,
    typer.Option(
        "--embedded", help="Use the embedded server, whatever is named; make it if need be."
    ),
]
Schema = Annotated[
    str | None, typer.Option("--schema", help="Whose tables: a namespace's. QORTEX_DB_SCHEMA.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ini = Annotated[Path, typer.Option(help="Your alembic.ini.")]
Head = Annotated[str | None, typer.Option(help="The revision to follow; by default your head.")]
Models = Annotated[
    str | None,
    typer.Option(
        "--metadata",
        help="Your own models, as package.module:Base; several with commas. QORTEX_DB_METADATA.",
    ),
]


@functools.cache
def out() -> Console:
    """The terminal, or the pipe."""
    from qortex_db.cli.console import SafeConsole

    return SafeConsole()


@functools.cache
def err() -> Console:
    """What is no result goes there."""
    from qortex_db.cli.console import SafeConsole

    return SafeConsole(stderr=True)


def say(line: str) -> None:
    """Print a line, whatever is in it."""
    _print(out(), line)


def note(line: str) -> None:
    """The same of what is no result."""
    _print(err(), line)


def _print(console: Console, line: str) -> None:
    from qortex_db.cli import render

    console.print(render.escape(line), soft_wrap=True, highlight=False)


def group(text: str) -> App:
    """A command that has commands."""
    return App(help=text, add_completion=False)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; what the package refuses is told in one line, and so is a signal."""
    import asyncio

    from qortex_db import QortexDbError

    told: list[int] = []
    try:
        return asyncio.run(_stoppable(work, told))
    except QortexDbError as error:
        if not told:
            fail(str(error))
    except (asyncio.CancelledError, KeyboardInterrupt):
        pass
    finally:
        interrupts.install()
    interrupts.say()
    raise typer.Exit(interrupts.status_of(told[0] if told else signal.SIGINT))


async def _stoppable(work: Coroutine[Any, Any, T], told: list[int]) -> T:
    """The work, which a signal cancels, so that what it began is put in order; a third ends all."""
    import asyncio

    task = asyncio.ensure_future(work)

    def stop(number: int) -> None:
        told.append(number)
        if len(told) > _PATIENCE:
            interrupts.say()
            os._exit(interrupts.status_of(number))
        task.cancel()

    with suppress(NotImplementedError, ValueError, RuntimeError):  # Windows; not the main thread
        for number in interrupts.SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return await task


def fail(message: str, *, status: int = 1) -> NoReturn:
    """End with an error."""
    from qortex_db.cli import render

    told = "\n".join(map(render.escape, message.split("\n")))  # names in it have no lines
    err().print(f"[bold red]error:[/] {told}", highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def read_settings(schema: str | None = None) -> Settings:
    """The settings that the environment gives, and a schema that goes before its own."""
    from qortex_db import InvalidInputError, settings

    given: dict[str, Any] = {} if schema is None else {"db_schema": schema}
    # A command is no service: it serves no metrics, and sends none.
    given |= {"prometheus_enabled": False, "otel_enabled": False, "metrics_seconds": None}
    try:
        return settings.read_settings(**given)
    except InvalidInputError as error:
        fail(str(error), status=2)


def takes_embedded(given: Settings, *, asked: bool) -> bool:
    """Whether a command is for the embedded server: asked to be, or it is there and no other named.

    Where there is none yet, none is made unasked.
    """
    from qortex_db import embedded as embedded_server

    if asked or given.target() is not None or not embedded_server.is_there(given.embedded_path):
        return asked
    _tell_embedded(str(given.embedded_path))
    return True


@functools.cache
def _tell_embedded(path: str) -> None:
    """Say it once, however often a command connects."""
    note(f"No server is named: using the embedded one in {path}.")


@asynccontextmanager
async def reached(given: Settings, *, embedded: bool) -> AsyncIterator[Settings]:
    """Settings whose server is there: the one that is given, or the embedded one."""
    import asyncio

    from pydantic import SecretStr

    from qortex_db import embedded as embedded_server
    from qortex_db.migrations.connection import NOTHING_GIVEN

    if not takes_embedded(given, asked=embedded):
        if given.target() is None:
            fail(NOTHING_GIVEN)
        yield given
        return
    # It goes before what is given, as in the other commands.
    server = await asyncio.to_thread(embedded_server.start, given.embedded_path)
    try:
        yield given.model_copy(update={"dsn": SecretStr(server.dsn()), "password_provider": None})
    finally:
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def opened(*, embedded: bool) -> AsyncIterator[Database]:
    """The database, for the time of one command."""
    from qortex_db import Database

    async with (
        reached(read_settings(), embedded=embedded) as given,
        Database.connect(given) as database,
    ):
        yield database


def print_json(value: Any) -> None:
    """Print for programs."""
    typer.echo(json.dumps(value, indent=2))
