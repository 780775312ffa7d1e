"""The page's part on vectors: a card for each collection, with its indexes and its map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qortex_db.report.markup import name_of, table, tag
from qortex_db.report.samples import MAP_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from qortex_db.index_health import Index
    from qortex_db.report.collections import CollectionReport
    from qortex_db.report.maps import VectorMap
    from qortex_db.report.reading import Report

_WIDTH, _HEIGHT, _EDGE = 520, 340, 8
_KIB: Final = 1024


def section(report: Report, ids: Iterator[str]) -> Element:
    """Every collection of the report."""
    made = tag("section", tag("h2", "Vectors"))
    made.append(
        tag(
            "p",
            "A map has up to "
            f"{MAP_ROWS} rows on the two axes along which they differ most; near each other there, "
            "they are more alike than far from each other, and what the axes lack is not seen.",
            class_="note",
        )
    )
    for one in report.collections:
        made.append(_card(one, ids))
    return made


def _card(one: CollectionReport, ids: Iterator[str]) -> Element:
    about = "about " if one.is_estimate else ""
    sums = f"{about}{one.rows:,} row{'' if one.rows == 1 else 's'}, {_size(one.bytes)}"
    head = tag(
        "div", tag("h3", name_of(one.name)), tag("span", sums if not one.fault else ""),
        class_="head",
    )  # fmt: skip
    if one.fault:
        return tag("article", head, tag("p", one.fault, class_="note"), class_="card")
    facts = {
        **{f"vector {name}": said for name, said in one.vectors.items()},
        "recall": _recall(one),
    }
    rows = (tag("div", tag("dt", name), tag("dd", said)) for name, said in facts.items())
    left = tag(
        "div",
        tag("dl", *rows, class_="facts narrow"),
        table(["index", ">size", "health"], [_index(index) for index in one.indexes]),
        class_="stack",
    )
    right = (
        tag("p", one.map_note, class_="note") if one.map is None else _map(one.map, one, next(ids))
    )
    return tag("article", head, tag("div", left, right, class_="two even"), class_="card")


def _recall(one: CollectionReport) -> str:
    if one.recall is None:
        return one.recall_note
    found = one.recall
    return (
        f"{found.recall:.1%} of the true {found.limit} nearest are found, "
        f"for {found.sample} stored vectors"
    )


def _index(index: Index) -> list[Element | str]:
    name = tag("span", name_of(index.name), " ", tag("code", index.method))
    if not index.is_valid:
        health: Element | str = tag("span", "invalid: build it anew", class_="fault")
    elif index.is_bloated:
        said = f"bloated: a new one takes {_size(index.fresh_bytes or 0)}"
        health = tag("span", said, class_="fault")
    else:
        health = tag("span", "valid", class_="ready")
    return [name, _size(index.bytes), health]


def _size(count: int) -> str:
    for unit, of in (("GiB", _KIB**3), ("MiB", _KIB**2)):
        if count >= of:
            return f"{count / of:,.1f} {unit}"
    return f"{count / _KIB:,.0f} KiB"


def _map(of: VectorMap, one: CollectionReport, identity: str) -> Element:
    colours = [f"c{place}" for place in range(len(of.groups))] + ["rest"]
    places: dict[str, list[str]] = {colour: [] for colour in colours}
    width, height = _WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE
    for (x, y), group in zip(of.points.tolist(), of.group, strict=True):
        at = f"M{_EDGE + width * (x + 1) / 2:.0f} {_EDGE + height * (1 - y) / 2:.0f}h0"
        places[colours[group]].append(at)
    # The rest below all others.
    dots = [
        tag("path", class_=f"dots {colour}", d="".join(places[colour]))
        for colour in reversed(colours)
        if places[colour]
    ]
    first, second = (f"{share:.0%}" for share in of.shares)
    by = f" by {name_of(of.field)}" if of.field else ""
    said = f"{len(of.group):,} of {of.rows:,} rows{by}: the axes show {first} and {second} of how "
    said += "they differ."
    title = f"Map of {name_of(one.name)}"
    names = [name_of(group) for group in of.groups] + ["other or none"]
    legend = [
        tag("span", tag("span", class_=f"swatch {colour}", aria_hidden="true"), name)
        for colour, name in zip(colours, names, strict=True)
        if places[colour] and of.groups
    ]
    return tag(
        "div",
        tag("h4", f"Map{by}"),
        tag(
            "svg",
            tag("title", title, id=f"{identity}-title"),
            tag("desc", said, id=f"{identity}-desc"),
            tag("rect", class_="frame", x=0.5, y=0.5, width=_WIDTH - 1, height=_HEIGHT - 1, rx=8),
            *dots,
            class_="map",
            role="img",
            aria_labelledby=f"{identity}-title {identity}-desc",
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        ),
        tag("div", *legend, class_="legend"),
        tag("p", said, class_="note"),
    )
