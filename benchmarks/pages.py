"""What a topic tells: tables with bars, curves, words; and the page of them."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from house import Entry

OURS = "#2c7fb8"
OTHERS = "#bdbdbd"
COLOURS = ("#2c7fb8", "#d95f0e", "#41b6c4", "#756bb1", "#31a354", "#969696", "#e7298a", "#253494")
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
        parts = [f"## {self.title}", "", f"![{self.title}]({picture})", "", *rows]
        return "\n".join([*parts, "", self.note] if self.note else parts)

    def draw(self, path: Path) -> None:
        """The picture."""
        drawn, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
        for number, (name, points) in enumerate(self.lines.items()):
            bold = "qortex-db" in name
            axis.plot(
                [point[0] for point in points],
                [point[1] for point in points],
                "o-" if len(points) > 1 else "o",
                color=COLOURS[number % len(COLOURS)],
                linewidth=2.4 if bold else 1.2,
                markersize=5 if bold else 4,
                label=name.replace("**", ""),
            )
        plain = FuncFormatter(lambda value, _: f"{value:,g}")
        for letter, scaled in (("x", axis.xaxis), ("y", axis.yaxis)):
            if letter in self.log:
                getattr(axis, f"set_{letter}scale")("log")
                scaled.set_major_formatter(plain)
                scaled.set_minor_formatter(plain)
        axis.set_xlabel(self.x, fontsize=8)
        axis.set_ylabel(self.y, fontsize=8)
        axis.set_title(self.title, loc="left", fontsize=10, fontweight="bold")
        axis.grid(alpha=0.3)
        axis.tick_params(which="both", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7)
        drawn.savefig(path, dpi=110)
        plt.close(drawn)


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
        _bars(folder / f"{topic}.png", tables)
        said += [f"![{title}]({topic}.png)", ""]
    if page.draw is not None:
        page.draw(folder / f"{topic}.png")
    curves = 0
    for part in page.parts:
        if isinstance(part, Curve):
            curves += 1
            picture = f"{topic}_{curves}.png"
            part.draw(folder / picture)
            said += [part.markdown(picture), ""]
        else:
            said += [part if isinstance(part, str) else part.markdown(), ""]
    said += [f"By `make bench TOPIC={topic}`, in interleaved rounds. {where}", ""]
    whole = "\n".join(said)
    (folder / f"{name}.md").write_text(whole)
    return whole


def _bars(path: Path, tables: list[Table]) -> None:
    """Bars of the ratios, shorter is faster."""
    heights = [len(table.entries) for table in tables]
    drawn, axes = plt.subplots(
        len(tables),
        1,
        figsize=(8, 0.9 * len(tables) + 0.34 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, table in zip(axes[:, 0], tables, strict=True):
        base = table.entries[0].median
        ratios = [entry.median / base for entry in table.entries]
        names = [entry.title.replace("**", "") for entry in table.entries]
        colours = [OURS if entry.peer.startswith("ours") else OTHERS for entry in table.entries]
        axis.barh(range(len(names)), ratios, color=colours)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_title(table.title, loc="left", fontsize=10, fontweight="bold")
        if max(ratios) > 12:  # noqa: PLR2004 - bars of a length that says something
            axis.set_xscale("log")
            axis.set_xlim(left=min(0.5, min(ratios) / 2))
        axis.bar_label(axis.containers[0], [f" {ratio:.2f}" for ratio in ratios], fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.12)
    axes[-1, 0].set_xlabel("× the first (shorter is better)", fontsize=8)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)
