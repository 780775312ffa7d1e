"""HTML as a tree of the standard library's: whatever a name is, it can't become markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, tostring

from qortex_db.messages import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST: Final = 120
_LARGE: Final = 100_000


def tag(name: str, /, *children: Element | str, **attributes: object) -> Element:
    """An element; `class_` is written class, and other underlines as hyphens."""
    element = Element(
        name, {key.rstrip("_").replace("_", "-"): str(it) for key, it in attributes.items()}
    )
    for child in children:
        if not isinstance(child, str):
            element.append(child)
            continue
        text = child if name == "style" else visible(child)
        if len(element):
            element[-1].tail = (element[-1].tail or "") + text
        else:
            element.text = (element.text or "") + text
    return element


def name_of(value: str) -> str:
    """An id, not too long for a table."""
    return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"


def decimals(value: float) -> str:
    """A number with three decimals, or in short where it is large."""
    return f"{value:.3f}" if abs(value) < _LARGE else f"{value:.3g}"


def table(
    head: Iterable[str], rows: Iterable[Iterable[Element | str]], **attributes: object
) -> Element:
    """A table; columns whose head begins with ">" are numbers."""
    columns = list(head)
    kinds = [{"class_": "n"} if column.startswith(">") else {} for column in columns]
    first = (
        tag("th", column.removeprefix(">"), scope="col", **kind)
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = (
        tag("tr", *(tag("td", cell, **kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    )
    return tag("table", tag("thead", tag("tr", *first)), tag("tbody", *body), **attributes)


def document(root: Element) -> str:
    """The whole page as text."""
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"
