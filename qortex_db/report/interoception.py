"""The page's parts on factors and edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qortex_db.report import figures
from qortex_db.report.figures import Bars, Series
from qortex_db.report.markup import decimals, name_of, table, tag
from qortex_db.report.statements import LOWEST, MOST_HITS, STEP
from qortex_db.repositories.interoception.edges import MIN_AVG_SCORE, MIN_HITS
from qortex_db.repositories.interoception.factor_statements import DEFAULT_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from qortex_db.report.reading import NearEdge, Report

_LEAST_SHOWN: Final = 2.0
"""The axis of factors ends here at least."""


def factors(report: Report, ids: Iterator[str]) -> Element:
    """How feedback weighs nodes, and which ones most."""
    summary = report.factors
    section = tag("section", tag("h2", "Factors"))
    if not summary.count:
        section.append(
            tag("p", "No feedback has weighed a node yet: each weighs 1.0.", class_="note")
        )
        return section
    section.append(
        tag(
            "p",
            f"How much feedback weighs a node: {summary.boosted:,} boosted, "
            f"{summary.penalised:,} penalised, of {summary.count:,}. The mean is "
            f"{decimals(summary.mean)}, the range {decimals(summary.min)} to "
            f"{decimals(summary.max)}, the entropy {summary.entropy:.2f} bits.",
            class_="note",
        )
    )
    rows = [
        tag(
            "div",
            tag("h4", title),
            table(
                ["node", ">weight"], [(name_of(node), decimals(weight)) for node, weight in found]
            ),
        )
        for title, found in (
            ("Boosted most", report.boosted),
            ("Penalised most", report.penalised),
        )
        if found
    ]
    section.append(
        tag(
            "div",
            tag(
                "div",
                figures.figure(_weights(report), next(ids)),
                tag("div", *rows, class_="stack"),
                class_="two",
            ),
            class_="card",
        )
    )
    return section


def _weights(report: Report) -> Bars:
    neutral = round((DEFAULT_WEIGHT - LOWEST) / STEP)
    last = max(*report.factor_bins, round((_LEAST_SHOWN - LOWEST) / STEP))
    places = range(last + 1)
    numbers = [report.factor_bins.get(place, 0) for place in places]
    kinds = {
        "below 1.0": ("bad", range(neutral)),
        "about 1.0": ("quiet", range(neutral, neutral + 1)),
        "above 1.0": ("good", range(neutral + 1, last + 1)),
    }
    series = [
        Series(
            name,
            color,
            [
                number if place in within else 0
                for place, number in zip(places, numbers, strict=True)
            ],
        )
        for name, (color, within) in kinds.items()
    ]
    high = LOWEST + STEP * (last + 0.5)

    def place_of(weight: float) -> float:
        return (weight - LOWEST) / STEP + 0.5

    ticks = [(place_of(at), f"{at:.1f}") for at in figures.ticks(LOWEST, high, 10)]
    mean = min(max(place_of(report.factors.mean), 0), last + 1)
    return Bars(
        title="Factors by weight",
        description=f"How many of {report.factors.count:,} factors there are at each weight, in "
        f"steps of {STEP}; the mean is {decimals(report.factors.mean)}.",
        series=series,
        bin="weight",
        names=[f"{LOWEST + STEP * place:.2f}" for place in places],
        ticks=ticks,
        marks=[(mean, f"mean {decimals(report.factors.mean)}")],
    )


def edges(report: Report, ids: Iterator[str]) -> Element:
    """What the buffer holds, and what leaves it next."""
    summary = report.edges
    section = tag("section", tag("h2", "Edge buffer"))
    if not summary.count:
        section.append(
            tag("p", "The buffer is empty: no pair waits to be promoted.", class_="note")
        )
        return section
    section.append(
        tag(
            "p",
            f"{summary.count:,} pairs seen together, {summary.total_hits:,} times in all; "
            f"{summary.ready_to_promote:,} are ready to be promoted: {MIN_HITS} hits or more, "
            f"with a mean score of {MIN_AVG_SCORE} or more.",
            class_="note",
        )
    )
    nearest = tag(
        "div",
        tag("h4", "Nearest to promotion"),
        table(["pair", ">hits", ">mean score", ""], [_near(edge) for edge in report.nearest]),
    )
    section.append(
        tag(
            "div",
            tag("div", figures.figure(_hits(report), next(ids)), nearest, class_="two even"),
            class_="card",
        )
    )
    return section


def _near(edge: NearEdge) -> list[Element | str]:
    pair = tag(
        "span", name_of(edge.src_id), tag("span", " \N{LEFT RIGHT ARROW} ", class_="lead"),
        name_of(edge.tgt_id),
    )  # fmt: skip
    if edge.is_ready:
        lacks: Element | str = tag("span", "ready", class_="ready")
    else:
        hits = max(MIN_HITS - edge.hit_count, 0)
        parts = [f"{hits} hit{'' if hits == 1 else 's'}"] if hits else []
        if edge.avg_score < MIN_AVG_SCORE:
            parts.append(f"{decimals(MIN_AVG_SCORE - edge.avg_score)} of score")
        lacks = "lacks " + " and ".join(parts)
    return [pair, f"{edge.hit_count:,}", decimals(edge.avg_score), lacks]


def _hits(report: Report) -> Bars:
    last = max(*report.edge_hits, MIN_HITS + 2)
    names = [f"{hits} or more" if hits == MOST_HITS else f"{hits}" for hits in range(last + 1)]
    waiting, ready = zip(
        *(report.edge_hits.get(hits, (0, 0)) for hits in range(last + 1)), strict=True
    )
    return Bars(
        title="Pairs by hits",
        description=f"How many of {report.edges.count:,} pairs were seen how often; "
        f"{report.edges.ready_to_promote:,} of them are ready to be promoted.",
        series=[Series("ready to promote", "good", ready), Series("waiting", "quiet", waiting)],
        bin="hits",
        names=names,
        ticks=[
            (hits + 0.5, f"{hits}+" if hits == MOST_HITS else f"{hits}")
            for hits in range(last + 1)
            if last < MOST_HITS // 2 or hits % 2 == 0
        ],
        marks=[(MIN_HITS, f"promoted from {MIN_HITS}")],
    )
