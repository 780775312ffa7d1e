"""The figures, as SVG that follows the page's colours: posteriors, and stacked bars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qortex_db.report.markup import table, tag

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree.ElementTree import Element

    from qortex_db.learning import ArmState, Posterior

_WIDE, _HIGH = 300, 40
"""Of a posterior."""
_BASE: Final = _HIGH - 7
_WIDTH, _HEIGHT = 520, 200
"""Of bars, and within them of the plot."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 14, 24
_UNEVEN: Final = 81
_EVEN: Final = 60
_NARROWEST: Final = 1e-6
"""Half of an axis at least: beliefs of millions of pulls are that narrow."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A part of the axis from 0 to 1, and its ticks."""

    low: float
    high: float
    ticks: list[float]

    @property
    def digits(self) -> int:
        """Decimals that tell its ticks apart; two at least."""
        return max(2, -math.floor(math.log10((self.high - self.low) / 5)))

    def x(self, value: float) -> float:
        """Where a value is, in units of the figure."""
        return 6 + (_WIDE - 12) * (value - self.low) / (self.high - self.low)


def scale(posteriors: Sequence[Posterior]) -> Scale:
    """The part of the axis in which all these beliefs are."""
    # The mean of a very uneven belief is beyond its interval.
    low = min(min(p.low, p.mean) for p in posteriors)
    high = max(max(p.high, p.mean) for p in posteriors)
    margin = max(0.18 * (high - low), _NARROWEST)
    low, high = max(low - margin, 0.0), min(high + margin, 1.0)
    return Scale(low, high, ticks(low, high, 5))


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within a range, about as many as asked for at most."""
    rough = max(high - low, 1e-12) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * of for of in (1, 2, 5, 10) if power * of >= rough * 0.999)
    return [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def posterior(state: ArmState, belief: Posterior, on: Scale, color: str, title: str) -> Element:
    """A Beta density to its own height, its mean and its interval of 95 %."""
    spread = 4 * math.sqrt(belief.variance)
    inside = np.linspace(
        max(belief.mean - spread, on.low), min(belief.mean + spread, on.high), _UNEVEN
    )
    near = np.concatenate([np.linspace(on.low, on.high, _EVEN), inside])
    edge = (on.high - on.low) / 1_000  # at 0 and 1 a density may be infinite
    x = np.unique(np.clip(near, max(on.low, edge), min(on.high, 1 - edge)))
    logs = (state.alpha - 1) * np.log(x) + (state.beta - 1) * np.log1p(-x)
    y = _BASE - (_BASE - 4) * np.exp(logs - logs.max())
    line = " ".join(f"{on.x(at):.1f},{up:.1f}" for at, up in zip(x, y, strict=True))
    ends = f"{on.x(x[-1]):.1f},{_BASE} {on.x(x[0]):.1f},{_BASE}"
    low, mean, high = (f"{on.x(at):.1f}" for at in (belief.low, belief.mean, belief.high))
    grid = (
        tag("line", class_="grid", x1=f"{on.x(at):.1f}", x2=f"{on.x(at):.1f}", y1=0, y2=_HIGH)
        for at in on.ticks
    )
    return tag(
        "svg",
        tag("title", title),
        *grid,
        tag("polygon", class_="area", points=f"{line} {ends}"),
        tag("polyline", class_="curve", points=line),
        tag("line", class_="interval", x1=low, x2=high, y1=_BASE, y2=_BASE),
        tag("circle", class_="mean", cx=mean, cy=_BASE, r="3.4"),
        class_=f"posterior {color}",
        role="img",
        viewBox=f"0 0 {_WIDE} {_HIGH}",
    )


def axis(on: Scale) -> Element:
    """The ticks of posteriors."""
    labels = (
        tag(
            "text",
            f"{at:.{on.digits}f}".rstrip("0").ljust(3, "0"),
            x=f"{on.x(at):.1f}",
            y=11,
            text_anchor="middle",
        )
        for at in on.ticks
    )
    return tag("svg", *labels, class_="posterior", viewBox=f"0 0 {_WIDE} 15", aria_hidden="true")


@dataclass(frozen=True, slots=True)
class Series:
    """Counts by bin, and their colour."""

    name: str
    color: str
    counts: Sequence[int]


@dataclass(frozen=True, slots=True)
class Bars:
    """Stacked bars.

    Attributes:
        bin: What a bin is of, and
        names: what each one is called.
        ticks: Labels below, by place: 0 is the left end of the first bin, 1 its right end.
        marks: Labels of lines across, by place.
        legend: Whether the figure says by itself what its colours are.
    """

    title: str
    description: str
    series: Sequence[Series]
    bin: str
    names: Sequence[str]
    ticks: Sequence[tuple[float, str]]
    marks: Sequence[tuple[float, str]] = ()
    legend: bool = True


def figure(of: Bars, identity: str) -> Element:
    """Bars with their title and legend, and with a table of their numbers for those who read.

    Args:
        identity: An id that is the figure's own on its page.
    """
    seen = [one for one in of.series if any(one.counts)]
    legend = [
        tag("span", tag("span", class_=f"swatch {one.color}", aria_hidden="true"), one.name)
        for one in seen
        if of.legend
    ]
    rows = (
        [name, *(f"{one.counts[place]:,}" for one in seen)]
        for place, name in enumerate(of.names)
        if any(one.counts[place] for one in seen)
    )
    numbers = table([of.bin, *(f">{one.name}" for one in seen)], rows)
    return tag(
        "div",
        tag("h4", of.title),
        _bars(of, identity),
        tag("div", *legend, class_="legend"),
        tag("details", tag("summary", "The numbers"), tag("div", numbers)),
    )


def _bars(of: Bars, identity: str) -> Element:
    most = max(map(sum, zip(*(one.counts for one in of.series), strict=True)))
    rules = [at for at in ticks(0, most, 4) if at == int(at)]
    top = max(most, rules[-1], 1)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(place: float) -> str:
        return f"{_LEFT + width * place / len(of.names):.1f}"

    def y(count: float) -> str:
        return f"{_TOP + height * (1 - count / top):.1f}"

    def rule(kind: str, *, x: tuple[str, str], y: tuple[str, str]) -> Element:
        return tag("line", class_=kind, x1=x[0], x2=x[1], y1=y[0], y2=y[1])

    across = (str(_LEFT), str(_WIDTH - _RIGHT))
    parts: list[Element] = []
    for at in rules:
        parts.append(rule("grid", x=across, y=(y(at), y(at))))
        parts.append(tag("text", short(at), x=_LEFT - 6, y=y(at), dy="3.5", text_anchor="end"))
    below = np.zeros(len(of.names))
    wide = width / len(of.names) * 0.84
    for one in of.series:
        # What is there is seen, however little it is.
        path = "".join(
            f"M{x(bin_ + 0.08)} {y(below[bin_])}h{wide:.1f}"
            f"v{-max(height * number / top, 1.5):.1f}h{-wide:.1f}z"
            for bin_, number in enumerate(one.counts)
            if number
        )
        below += one.counts
        if path:
            parts.append(tag("path", tag("title", one.name), class_=f"bar {one.color}", d=path))
    parts.append(rule("axis", x=across, y=(y(0), y(0))))
    for place, text in of.marks:
        parts.append(rule("mark", x=(x(place), x(place)), y=(y(top), y(0))))
        mark = tag("text", text, class_="marked", x=x(place), y=_TOP - 4, text_anchor="middle")
        parts.append(mark)
    for place, text in of.ticks:
        anchor = "start" if place == 0 else "end" if place == len(of.names) else "middle"
        parts.append(tag("text", text, x=x(place), y=_HEIGHT - 8, text_anchor=anchor))
    return tag(
        "svg",
        tag("title", of.title, id=f"{identity}-title"),
        tag("desc", of.description, id=f"{identity}-desc"),
        *parts,
        class_="bars",
        role="img",
        aria_labelledby=f"{identity}-title {identity}-desc",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
    )


def short(count: float) -> str:
    """A number for an axis."""
    for unit, size in (("bn", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:g}{unit}"
    return f"{count:g}"
