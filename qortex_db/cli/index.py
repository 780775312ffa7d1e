"""A rebuild on a terminal: its load is another program, its progress a bar."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from qortex_db.errors import InvalidInputError, QortexDbError
from qortex_db.migrations import rebuild_index

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from rich.console import Console
    from rich.progress import TaskID

    from qortex_db import Settings
    from qortex_db.migrations import IndexProgress, RebuiltIndex


async def rebuild(
    console: Console, settings: Settings, *, load: str | None, **options: Any
) -> list[RebuiltIndex]:
    """Rebuild with a bar on a terminal, and with a program as the load."""
    program = None if load is None else _program(load)
    with progress_bar(console) as show:
        return await rebuild_index(settings, load=program, on_progress=show, **options)


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[IndexProgress], None] | None]:
    """What shows the progress of builds on a terminal; None elsewhere."""
    if not console.is_terminal:
        yield None
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def show(progress: IndexProgress) -> None:
        bar.start()  # not before: the load has the terminal for itself
        if progress.index not in tasks:
            tasks[progress.index] = bar.add_task(progress.index)
        bar.update(
            tasks[progress.index],
            description=f"{progress.index}: {progress.phase}",
            completed=progress.done,
            total=progress.total or None,
        )

    try:
        yield show
    finally:
        bar.stop()


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
