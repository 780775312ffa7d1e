"""The terminal: whatever is printed, a name in it is no command of the terminal's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment

from qortex_db.messages import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import ConsoleOptions, RenderableType


class SafeConsole(Console):
    """One that escapes what is left of controls; `render.escape` does so before cells are laid."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As of Rich."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable():
                yield segment
            else:
                lines = "\n".join(map(visible, text.split("\n")))
                yield Segment(lines, segment.style)
