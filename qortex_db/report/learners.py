"""The page's part on learners: a card for each context, with its best arms and its pulls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qortex_db.report import figures, times
from qortex_db.report.figures import Bars, Series
from qortex_db.report.markup import decimals, name_of, table, tag
from qortex_db.report.reading import CONTEXTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from qortex_db.learning import ArmState, Posterior
    from qortex_db.report.figures import Scale
    from qortex_db.report.reading import Context, Panel, Pulls, Report

_TICKS: Final = 4


def section(report: Report, ids: Iterator[str]) -> Element:
    """Every panel of the report."""
    made = tag("section", tag("h2", "Learners"))
    if not report.panels:
        whose = "No learner has" if report.learners is None else "These learners have no"
        text = " an arm yet." if report.learners is None else " arms."
        made.append(tag("p", whose + text, class_="note"))
        return made
    shown = len(report.panels)
    which = (
        f"{_count(shown, 'context')}."
        if shown == report.contexts
        else f"{shown} of {report.contexts:,} contexts: those with the most pulls, at most "
        f"{CONTEXTS} of a learner."
    )
    made.append(
        tag(
            "p",
            f"{which} A curve is what is believed of an arm's reward, drawn to its own height: the "
            "narrower, the surer. The dot is its mean; the bar holds the true mean with a "
            "probability of 95 %. Arms are in the order of the lower end of that bar.",
            class_="note",
        )
    )
    for panel in report.panels:
        made.append(_card(panel, ids))
    return made


def _card(panel: Panel, ids: Iterator[str]) -> Element:
    context = panel.context
    mean = context.reward / max(context.pulls, 1)
    sums = f"{_count(context.arms, 'arm')}, {_count(context.pulls, 'pull')}"
    right = (
        tag("p", "No pulls yet.", class_="note")
        if panel.pulls is None
        else _pulls(panel, panel.pulls, next(ids))
    )
    return tag(
        "article",
        tag(
            "div",
            tag("h3", name_of(context.learner), " ", tag("code", _readable(context))),
            tag("span", f"{sums}, mean reward {decimals(mean)}"),
            class_="head",
        ),
        tag("div", tag("div", _beliefs(panel)), right, class_="two"),
        class_="card",
    )


def _readable(context: Context) -> str:
    if context.readable == "{}":
        return "default context"
    return name_of(context.readable or f"context {context.hash}")


def _beliefs(panel: Panel) -> Element:
    on = figures.scale([belief for _, _, belief in panel.arms])
    rows = (
        _belief(arm, state, belief, on, f"c{place}")
        for place, (arm, state, belief) in enumerate(panel.arms)
    )
    made = table(
        ["best arms", "posterior", ">mean", ">95 % interval", ">pulls"], rows, class_="beliefs"
    )
    axis = (tag("td"), tag("td", figures.axis(on), class_="belief"), tag("td", colspan=3))
    made.append(tag("tfoot", tag("tr", *axis)))
    rest = panel.context.arms - len(panel.arms)
    if rest:
        made.insert(0, tag("caption", f"{rest:,} more, of which less is sure"))
    return made


def _belief(
    arm: str, state: ArmState, belief: Posterior, on: Scale, color: str
) -> list[Element | str]:
    digits = on.digits + 1
    mean = f"{belief.mean:.{digits}f}"
    interval = f"{belief.low:.{digits}f} \N{EN DASH} {belief.high:.{digits}f}"
    title = f"Beta({state.alpha:.6g}, {state.beta:.6g}): mean {mean}, {interval}"
    return [
        tag("span", tag("span", class_=f"swatch {color}", aria_hidden="true"), name_of(arm)),
        figures.posterior(state, belief, on, color, title),
        mean,
        interval,
        f"{state.pulls:,}",
    ]


def _pulls(panel: Panel, pulls: Pulls, identity: str) -> Element:
    series = [
        Series(name_of(arm), f"c{place}", pulls.by_arm[arm])
        for place, (arm, _, _) in enumerate(panel.arms)
        if arm in pulls.by_arm
    ]
    if None in pulls.by_arm:
        series.append(Series("other arms", "rest", pulls.by_arm[None]))
    bins = len(series[0].counts)
    width = (pulls.end - pulls.start) / bins
    total = sum(map(sum, pulls.by_arm.values()))
    if pulls.recorded:
        title = "Pulls over time"
        text = (
            ""
            if total == panel.context.pulls
            else f"The history has {total:,} pulls, the arms {panel.context.pulls:,}."
        )
    else:
        title = "Pulls, by when their arm last changed"
        text = (
            "There is no history (QORTEX_LEARNING_HISTORY): an arm's pulls all count at its last "
            "change."
        )

    start, end = pulls.start, pulls.end
    made = figures.figure(
        Bars(
            title=title,
            description=f"{total:,} pulls from {times.said(start, width)} to "
            f"{times.said(end, width)} UTC, by arm. {text}",
            series=series,
            bin="from (UTC)",
            names=[times.said(start + width * place, width) for place in range(bins)],
            ticks=[((at - start) / width, label) for at, label in times.ticks(start, end, _TICKS)],
            legend=False,  # the table's
        ),
        identity,
    )
    grey = ", grey is all others. " if None in pulls.by_arm else ". "
    colors = f"{times.when(start, end)}. The colours are those of the arms{grey}"
    made.insert(2, tag("p", colors + text, class_="note"))
    return made


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
