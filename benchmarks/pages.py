"""A topic's page: one Markdown table a work, and one picture."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from house import Entry

OURS = "#2c7fb8"
OTHERS = "#bdbdbd"


class Table:
    """A work and its contenders; figures are ratios to the first of them, the base."""

    def __init__(self, title: str, entries: list[Entry], *, unit: str, note: str = "") -> None:
        self.title = title
        self.entries = entries
        self.unit = unit
        self.note = note

    def markdown(self) -> str:
        """The table, ratios first."""
        base = self.entries[0].median
        extra = list(dict.fromkeys(name for entry in self.entries for name in entry.columns))
        head = ["", "× the first", f"median, {self.unit}", "rounds from – to", *extra]
        lines = [f"## {self.title}", "", "| " + " | ".join(head) + " |"]
        lines.append("|---|" + "---:|" * (len(head) - 1))
        scale = {"µs": 1e6, "ms": 1e3, "s": 1.0, "MB": 1.0}[self.unit.split()[0]]
        for entry in self.entries:
            low, high = min(entry.rounds) * scale, max(entry.rounds) * scale
            cells = [
                entry.title,
                f"{entry.median / base:.2f}",
                f"{entry.median * scale:,.3g}"
                if entry.median * scale < 1000  # noqa: PLR2004
                else f"{entry.median * scale:,.0f}",
                f"{low:,.3g} – {high:,.3g}" if high < 1000 else f"{low:,.0f} – {high:,.0f}",  # noqa: PLR2004
                *(entry.columns.get(name, "") for name in extra),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines)


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


def write(  # noqa: PLR0917
    folder: Path, topic: str, title: str, lead: str, tables: list[Table], where: str
) -> None:
    """The page and the picture of a topic."""
    folder.mkdir(parents=True, exist_ok=True)
    picture(folder / f"{topic}.png", tables)
    page = [f"# {title}", "", lead, "", f"![{title}]({topic}.png)", ""]
    for table in tables:
        page += [table.markdown(), ""]
    page += [f"Medians of interleaved rounds, by `make bench TOPIC={topic}`. {where}", ""]
    (folder / f"{topic}.md").write_text("\n".join(page))


def picture(path: Path, tables: list[Table]) -> None:
    """Bars of the ratios, shorter is faster."""
    heights = [len(table.entries) for table in tables]
    figure, axes = plt.subplots(
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
        axis.barh(names, ratios, color=colours)
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
    figure.savefig(path, dpi=110)
    plt.close(figure)
