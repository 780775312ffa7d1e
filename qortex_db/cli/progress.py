"""What shows the progress of index builds on a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import TaskID

    from qortex_db.migrations import IndexProgress


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
