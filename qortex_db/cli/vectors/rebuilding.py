"""A rebuild on a terminal: its load is another program, its progress a bar."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from typing import TYPE_CHECKING, Any

from qortex_db.cli.progress import progress_bar
from qortex_db.errors import InvalidInputError, QortexDbError
from qortex_db.migrations import rebuild_index

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rich.console import Console

    from qortex_db import Settings
    from qortex_db.migrations import RebuiltIndex


async def rebuild(
    console: Console, settings: Settings, *, load: str | None, **options: Any
) -> list[RebuiltIndex]:
    """Rebuild with a bar on a terminal, and with a program as the load."""
    program = None if load is None else _program(load)
    with progress_bar(console) as show:
        return await rebuild_index(settings, load=program, on_progress=show, **options)


def _program(line: str) -> Callable[[], Awaitable[None]]:
    """What runs a command; that there is such a program is checked before an index is dropped."""
    try:
        arguments = shlex.split(line)
    except ValueError as error:
        raise InvalidInputError(f"--load can't be read: {error}.") from None
    if not arguments or shutil.which(arguments[0]) is None:
        raise InvalidInputError("--load names no program that can be run.")

    async def run() -> None:
        try:
            process = await asyncio.create_subprocess_exec(*arguments)
        except OSError as error:
            raise QortexDbError(f"The load did not start: {error}.") from None
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:  # cancelled: what it still wrote would slow the build
                process.terminate()
                await process.wait()
        if status:
            raise QortexDbError(f"The load ended with status {status}. The index is built again.")

    return run
