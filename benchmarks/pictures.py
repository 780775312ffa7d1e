"""Pictures of figures, as SVG that is light or dark as the page that shows it is.

By the `color-scheme` of the page around it, or of the reader's system: one file for the site and
for GitHub, legible wherever the two differ, as it brings its paper.
"""

from __future__ import annotations

import io
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

INK, PAPER, GRID, OURS, OTHERS = "#24292f", "#ffffff", "#dde1e6", "#9ecbea", "#dfe2e6"
DARK: Final = {
    INK: "#d0d4da",
    PAPER: "#131416",
    GRID: "#33373d",
    OURS: "#235d87",
    OTHERS: "#383d44",
}
"""What becomes of these on a dark page; the lines' colours are seen on both."""
COLOURS: Final = (
    *("#2c7fb8", "#d95f0e", "#2fa4b0", "#8f7bd0"),
    *("#31a354", "#8c8c8c", "#e7298a", "#b58900"),
)
WIDTH: Final = 4.6
"""Inches: wide enough for the longest name, and legible on a telephone."""
MOST: Final = 12
"""The longest bar of a scale that is not logarithmic: those beside it say something."""

mpl.rcParams.update(
    {
        "svg.fonttype": "none",  # text is text
        "svg.hashsalt": "qortex-db",  # the same ids each time
        "font.size": 8.5,
        "font.sans-serif": ["DejaVu Sans"],  # whose letters are the widest: others fit too
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.facecolor": PAPER,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": GRID,
        "figure.facecolor": PAPER,
        "legend.frameon": False,
    }
)


class Bar(NamedTuple):
    """A contender, and how many times what the first took it takes."""

    name: str
    ratio: float
    is_ours: bool


@dataclass(frozen=True)
class Lines:
    """Points over one measure.

    Attributes:
        lines: By their names, the points (x, y).
        log: The letters of the axes whose scale is logarithmic.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log: str = "xy"


def draw_bars(path: Path, tables: Mapping[str, Sequence[Bar]]) -> None:
    """Each table's bars, shorter is better, with their names on them."""
    heights = [len(bars) for bars in tables.values()]
    titles = [textwrap.fill(title, 50) for title in tables]
    lines = sum(title.count("\n") + 1 for title in titles)
    figure, axes = plt.subplots(
        len(tables),
        1,
        figsize=(WIDTH, 0.26 * len(tables) + 0.16 * lines + 0.235 * sum(heights) + 0.2),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(h_pad=0.08)
    for axis, title, bars in zip(axes[:, 0], titles, tables.values(), strict=True):
        _bars(axis, bars)
        axis.set_title(title)
    figure.supxlabel("× the first, shorter is better", x=0.01, ha="left", fontsize=8)
    save(figure, path)


def _bars(axis: Axes, bars: Sequence[Bar]) -> None:
    ratios = [bar.ratio for bar in bars]
    is_log = max(ratios) > MOST
    start = min(0.5, min(ratios) / 2) if is_log else 0
    axis.barh(
        range(len(bars)),
        ratios,
        color=[OURS if bar.is_ours else OTHERS for bar in bars],
        height=0.9,
    )
    if is_log:
        axis.set_xscale("log")
        axis.set_title("logarithmic", loc="right", fontsize=7, fontweight="normal")
    axis.set_xlim(start, max(ratios))
    axis.set_ylim(len(bars) - 0.5, -0.5)
    for row, bar in enumerate(bars):
        axis.annotate(
            bar.name,
            (0, row),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center_baseline",
            fontweight="bold" if bar.is_ours else "normal",
        )
    # The figures stand in a column of their own, to the right of every bar.
    axis.yaxis.tick_right()
    axis.set_yticks(range(len(bars)), [f"{bar.ratio:.2f}" for bar in bars])
    axis.tick_params(axis="y", length=0)
    axis.xaxis.set_major_locator(NullLocator())
    axis.xaxis.set_minor_locator(NullLocator())
    axis.spines[:].set_visible(False)


def draw_lines(path: Path, panels: Sequence[Lines]) -> None:
    """Panels below each other, and what their lines are called below them."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(WIDTH, 2.8 * len(panels) + 0.19 * len(names)),
        squeeze=False,
        layout="constrained",
    )
    drawn: dict[str, Any] = {}
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        for name, points in panel.lines.items():
            is_ours = "qortex-db" in name
            (drawn[name],) = axis.plot(
                *zip(*points, strict=True),
                "o-" if len(points) > 1 else "o",
                color=colours[name],
                linewidth=2.4 if is_ours else 1.2,
                markersize=5 if is_ours else 4,
            )
        for letter, along in (("x", axis.xaxis), ("y", axis.yaxis)):
            if letter in panel.log:
                getattr(axis, f"set_{letter}scale")("log")
                _plain(along)
        axis.set_xlabel(panel.x)
        axis.set_ylabel(panel.y)
        axis.set_title(textwrap.fill(panel.title, 48))
        axis.grid()
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower left")
    save(figure, path)


def _plain(axis: Axis) -> None:
    """Numbers as people write them, and no more than fit."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))  # noqa: PLR2004
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


def save(figure: Any, path: Path) -> None:
    """Write what was drawn, in the colours above, with those of a dark page beside them."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(written, format="svg", metadata=nothing)
    plt.close(figure)
    dark = "".join(
        f'[style*="{part}: {light}"]{{{part}:{colour}!important}}'
        for light, colour in DARK.items()
        for part in ("fill", "stroke")
    )
    style = "text{font-family:system-ui,sans-serif!important}"
    style += f"@media (prefers-color-scheme:dark){{{dark}}}"
    path.write_text(re.sub(r"(?<=<style type=\"text/css\">)", style, written.getvalue(), count=1))
