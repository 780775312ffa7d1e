"""The page: everything is inside it, and nothing in it runs."""

from __future__ import annotations

from importlib import resources
from itertools import count
from typing import TYPE_CHECKING, Final

from qortex_db.__about__ import __version__
from qortex_db.report import interoception, learners, vectors
from qortex_db.report.markup import document, tag

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

    from qortex_db.report.reading import Report

_KIB: Final = 1024


def page(report: Report, *, facts: Mapping[str, str] | None = None) -> str:
    """A report as one HTML page, without scripts or anything from elsewhere.

    Args:
        facts: More to tell in the header, such as the schema's revision.
    """
    taken = f"{report.taken_at:%d %B %Y, %H:%M} UTC"
    ids = (f"figure{number}" for number in count(1))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"qortex-db {__version__}"),
        tag("title", f"qortex-db report, {taken}"),
        tag("style", (resources.files(__package__) / "style.css").read_text("utf-8")),
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("h1", "What the memory holds, and what it learned"),
            tag("p", f"qortex-db {__version__}, {taken}", class_="lead"),
            _tiles(report),
            _facts(report, facts or {}),
        ),
        tag(
            "main",
            learners.section(report, ids),
            interoception.factors(report, ids),
            interoception.edges(report, ids),
            vectors.section(report, ids),
        ),
        tag(
            "footer",
            "Figures of learners, factors and edges are of one moment. "
            "This page has no scripts and asks for nothing from elsewhere.",
        ),
    )
    return document(tag("html", head, body, lang="en"))


def _tiles(report: Report) -> Element:
    rows = {name: numbers["rows"] for name, numbers in report.status.tables.items()}
    numbers = {
        "vectors": rows["qortex_vectors"],
        "learners": report.status.learning["learners"],
        "arms by name": report.arm_names,
        "arms in contexts": rows["learning_arm_states"],
        "factors": report.factors.count,
        "edges in the buffer": report.edges.count,
        "ready to promote": report.edges.ready_to_promote,
    }
    tiles = (
        tag("div", tag("b", f"{number:,}"), tag("span", name), class_="tile")
        for name, number in numbers.items()
    )
    return tag("div", *tiles, class_="tiles")


def _facts(report: Report, more: Mapping[str, str]) -> Element:
    status = report.status
    mib = status.tables["qortex_vectors"]["bytes"] / _KIB**2
    facts = {
        "server": f"PostgreSQL {status.server_version}, pgvector {status.pgvector_version}",
        "vectors": f"{status.dimensions} dimensions, {mib:,.1f} MiB in all",
        "invalid indexes": ", ".join(status.invalid_indexes) or "none",
        **more,
    }
    rows = (tag("div", tag("dt", name), tag("dd", text)) for name, text in facts.items())
    return tag("dl", *rows, class_="card facts")
