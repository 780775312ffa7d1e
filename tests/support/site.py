"""The documentation as HTML, built once for all tests of a run, and what is in its pages."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

from support.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from markdown_it.token import Token

DOCS = ROOT / "docs"
PARTS = {"performance/choosing_measured", "operations/grants", "operations/plan_tables"}
"""What other pages include."""


def build(shared: Path) -> Site:
    """The site, by whichever process of the run comes first.

    Args:
        shared: A folder that all of them have.
    """
    folder, log = shared / "site", shared / "site.log"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            done = subprocess.run(
                [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(folder)],
                capture_output=True,
                text=True,
                check=False,
            )
            log.write_text(done.stderr if done.returncode else "")
    return Site(folder, log.read_text())


@dataclass(frozen=True)
class Site:
    """The built pages.

    Attributes:
        error: What the build said, where it failed.
    """

    folder: Path
    error: str

    @cached_property
    def pages(self) -> dict[Path, BuiltPage]:
        return {path: BuiltPage(path) for path in sorted(self.folder.rglob("*.html"))}

    def leads_somewhere(self, start: Path, link: str) -> bool:
        parts = urlsplit(link)
        path = (start.parent / unquote(parts.path)).resolve() if parts.path else start
        if not parts.fragment:
            return path.is_file()
        page = self.pages.get(path)
        return page is not None and unquote(parts.fragment) in page.anchors


class BuiltPage(HTMLParser):
    """The first heading of a page, its anchors and its local links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.title = ""
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self._in_title = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in_title = (self._in_title and tag != "a") or (tag == "h1" and not self.title)
        self.anchors.update(value for key in ("id", "name") if (value := given.get(key)))
        links = (given.get(key) for key in ("href", "src"))
        self.links += [link for link in links if link and link != "#" and is_local(link)]

    def handle_endtag(self, tag: str) -> None:
        self._in_title = self._in_title and tag != "h1"

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


# ---- their sources -------------------------------------------------------------------------------


def sources() -> list[str]:
    """Every page, by its path without the suffix."""
    found = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
    return sorted(one for one in found - PARTS if not one.startswith("_build"))


def contents(page: str) -> Iterator[tuple[str, list[str]]]:
    """The lists of contents of a page, each with its caption and its pages."""
    text = (DOCS / f"{page}.md").read_text()
    folder = (DOCS / page).parent
    for block in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        caption = re.search(r"^:caption: (.+)$", block, re.MULTILINE)
        names = [line for line in block.splitlines() if line and not line.startswith(":")]
        if ":glob:" in block:
            names = sorted(p.stem for name in names for p in folder.glob(f"{name}.md"))
        found = [str((folder / name).resolve().relative_to(DOCS)) for name in names]
        yield (caption[1] if caption else "", [one for one in found if one not in {page, *PARTS}])


def reached(page: str) -> Iterator[str]:
    """A page and what its contents lead to."""
    yield page
    for _, pages in contents(page):
        for one in pages:
            yield from reached(one)


def fences(path: Path) -> Iterator[Token]:
    """The fenced blocks of a page of Markdown, those in lists too."""
    return (token for token in MarkdownIt().parse(path.read_text()) if token.type == "fence")


def is_local(link: str) -> bool:
    return not (urlsplit(link).scheme or link.startswith("//"))


def headings(page: Path) -> list[str]:
    """Those of a page of Markdown, as plain text."""
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(), flags=re.DOTALL)
    tokens = MarkdownIt().parse(text)
    places = [i for i, token in enumerate(tokens) if token.type == "heading_open"]
    inline = [tokens[i + 1].children or [] for i in places]
    return ["".join(child.content for child in children) for children in inline]


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
