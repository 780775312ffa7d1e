"""What a topic tells: tables, curves, words; and the page of them, with its pictures."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pictures import Bar, Lines, draw_bars, draw_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from house import Entry

_SCALES = {"µs": 1e6, "ms": 1e3, "s": 1.0, "MB": 1.0}


def figure(value: float) -> str:
    """A number with as many digits as say something."""
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004


@dataclass
class Table:
    """A work and its contenders; figures are ratios to the first of them, the base."""

    title: str
    entries: list[Entry]
    unit: str
    note: str = ""

    def markdown(self) -> str:
        """The table, ratios first."""
        base = self.entries[0].median
        scale = _SCALES[self.unit.split()[0]]
        extra = list(dict.fromkeys(name for entry in self.entries for name in entry.columns))
        has_cpu = any(entry.cpu("cpu") for entry in self.entries)
        clocks = ["client CPU", "server CPU"] if has_cpu else []
        head = ["", "× the first", f"median, {self.unit}", "rounds from – to", *clocks, *extra]
        lines = [f"## {self.title}", "", "| " + " | ".join(head) + " |"]
        lines.append("|---|" + "---:|" * (len(head) - 1))
        for entry in self.entries:
            low, high = min(entry.rounds) * scale, max(entry.rounds) * scale
            times = [entry.cpu("cpu"), entry.cpu("server")] if has_cpu else []
            cells = [
                entry.title,
                f"{entry.median / base:.2f}",
                figure(entry.median * scale),
                f"{figure(low)} – {figure(high)}",
                *("" if time is None else figure(time * scale) for time in times),
                *(entry.columns.get(name, "") for name in extra),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines)

    def bars(self) -> list[Bar]:
        """What its picture shows."""
        base = self.entries[0].median
        return [
            Bar(entry.title.replace("**", ""), entry.median / base, entry.peer.startswith("ours"))
            for entry in self.entries
        ]


@dataclass
class Curve:
    """Lines over one measure: a picture and its points.

    Attributes:
        lines: By their names, the points (x, y), and what is said of each.
    """

    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float, str]]]
    log: str = "xy"
    note: str = ""

    def markdown(self, picture: str) -> str:
        """The picture, and a table of its points."""
        head = ["", self.x, self.y, ""]
        rows = ["| " + " | ".join(head) + " |", "|---|---:|---:|---|"]
        for name, points in self.lines.items():
            first = name
            for x, y, said in points:
                rows.append(f"| {first} | {figure(x)} | {figure(y)} | {said} |")
                first = ""
        parts = [
            f"## {self.title}",
            "",
            f"![{self.title}: {self.y} by {self.x}, as below]({picture})",
            "",
            *rows,
        ]
        return "\n".join([*parts, "", self.note] if self.note else parts)

    def panel(self) -> Lines:
        """What its picture shows."""
        lines = {
            name.replace("**", ""): [(x, y) for x, y, _ in points]
            for name, points in self.lines.items()
        }
        return Lines(self.title, self.x, self.y, lines, self.log)


@dataclass
class Page:
    """What a topic found.

    Attributes:
        parts: In their order; text is Markdown.
        name: Of the file, where it isn't the topic's.
        is_whole: Whether it has a title and a lead, or is included by a page written by hand.
        draw: What draws the page's picture, where it isn't its tables' bars.
    """

    parts: Sequence[Table | Curve | str]
    name: str = ""
    is_whole: bool = True
    draw: Callable[[Path], None] | None = None


def machine(server_version: str) -> str:
    """What it ran on: ratios hold elsewhere, times don't."""
    processor = "unknown processor"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({processor}), "
        f"Python {platform.python_version()}, PostgreSQL {server_version}, over a Unix socket."
    )


def write(folder: Path, topic: str, title: str, lead: str, page: Page, where: str) -> str:  # noqa: PLR0917
    """Write the page and the pictures of a topic, and return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    name = page.name or topic
    said = [f"# {title}", "", lead, ""] if page.is_whole else []
    if tables := [part for part in page.parts if isinstance(part, Table)]:
        draw_bars(folder / f"{topic}.svg", {table.title: table.bars() for table in tables})
        said += [f"![{title}: what the tables below say, as bars]({topic}.svg)", ""]
    if page.draw is not None:
        page.draw(folder / f"{topic}.svg")
    curves = 0
    for part in page.parts:
        if isinstance(part, Curve):
            curves += 1
            picture = f"{topic}_{curves}.svg"
            draw_lines(folder / picture, [part.panel()])
            said += [part.markdown(picture), ""]
        else:
            said += [part if isinstance(part, str) else part.markdown(), ""]
    said += [f"By `make bench TOPIC={topic}`, in interleaved rounds. {where}", ""]
    whole = "\n".join(said)
    (folder / f"{name}.md").write_text(whole)
    return whole
