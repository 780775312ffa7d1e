"""The documentation as a site: pages that are found, that fit, and links that lead somewhere."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

from qortex_db.repositories import VectorRepository
from support import site as sites
from support.commands import ROOT
from support.site import DOCS, Site, contents, fences, headings, is_local, reached, slug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GROUPS = ["Start", "Guides", "Operate", "Reference", "Coming from"]
WIDTH = 100
"""How many letters a block of code has room for, by docs/_static/site.css."""


# ---- the sources ---------------------------------------------------------------------------------


def test_every_page_is_in_one_group_of_the_contents() -> None:
    groups = dict(contents("index"))
    assert list(groups) == GROUPS
    grouped = [page for pages in groups.values() for one in pages for page in reached(one)]
    assert sorted(["index", *grouped]) == sites.sources()


def test_no_line_of_code_is_wider_than_its_block() -> None:
    wide = [
        f"{path.relative_to(ROOT)}:{token.map[0] + 2 + number}"
        for path in [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        if "_build" not in path.parts
        for token in fences(path)
        if token.map is not None and not token.info.startswith("{")
        for number, line in enumerate(token.content.splitlines())
        if len(line) > WIDTH
    ]
    assert wide == []


def test_every_picture_is_light_or_dark_as_its_page_is_and_says_what_it_shows() -> None:
    images = [
        (path.parent / name, said)
        for path in sorted(DOCS.rglob("*.md"))
        if "_build" not in path.parts
        for said, name in re.findall(r"^!\[(.*?)\]\((.+?)\)$", path.read_text(), re.MULTILINE)
    ]
    assert len(images) > 20
    for picture, said in images:
        assert said, picture
        if picture.name == "report.png":  # a screen, with a paper of its own
            continue
        assert picture.suffix == ".svg", picture
        drawn = picture.read_text()
        assert "@media (prefers-color-scheme:dark)" in drawn, picture
        assert "<text" in drawn, picture
        assert "base64" not in drawn, picture  # no font, no picture
        assert len(drawn) < 250_000, picture


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "RELEASING.md"]
)
def test_no_link_beside_the_documentation_is_dead(name: str) -> None:
    tokens = MarkdownIt().parse((ROOT / name).read_text())
    inline = [child for token in tokens for child in token.children or ()]
    links = [str(one.attrs.get("href", one.attrs.get("src", ""))) for one in inline if one.attrs]
    assert links
    dead = []
    for link in filter(is_local, links):
        path, _, anchor = link.partition("#")
        file = ROOT / (path or name)
        if not file.exists() or (anchor and anchor not in map(slug, headings(file))):
            dead.append(link)
    assert dead == []


# ---- what is built of them -----------------------------------------------------------------------


def built(test: Callable[..., None]) -> Callable[..., None]:
    """The first of them waits for the site."""
    return pytest.mark.slow(pytest.mark.timeout(400)(test))


@built
def test_the_documentation_builds_without_a_warning(site: Site) -> None:
    assert site.error == ""


@built
def test_every_page_has_a_file_of_its_own(site: Site) -> None:
    wrong = {}
    for source in sites.sources():
        title = headings(DOCS / f"{source}.md")[0]
        page = site.pages.get(site.folder / f"{source}.html")
        if page is None or page.title != title:
            wrong[source] = (title, page and page.title)
    assert wrong == {}


@built
def test_no_link_of_the_documentation_is_dead(site: Site) -> None:
    dead = [
        f"{path.relative_to(site.folder)}: {link}"
        for path, page in site.pages.items()
        for link in page.links
        if not site.leads_somewhere(path, link)
    ]
    assert dead == []


@built
def test_what_methods_share_with_search_is_described_there_and_linked(site: Site) -> None:
    shared = inspect.signature(VectorRepository.search).parameters.keys() - {"self"}
    leading = []
    for name, method in inspect.getmembers(VectorRepository, inspect.isfunction):
        text = method.__doc__ or ""
        taken = shared & inspect.signature(method).parameters.keys()
        if name.startswith("_") or all(f" {parameter}: " in text for parameter in taken):
            continue
        assert ":meth:`search`" in text, f"{name} describes not all of {taken}"
        leading.append(name)
    assert len(leading) > 10
    links = site.pages[site.folder / "api/vectors.html"].links
    assert links.count("#qortex_db.repositories.VectorRepository.search") >= len(leading)


@pytest.fixture
def look() -> Iterator[object]:
    """The module that opens a browser, where there is one."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: `make look` does so")
    sys.path.insert(0, str(DOCS))
    import look  # noqa: PLC0415

    sys.path.remove(str(DOCS))
    if look.browser() is None:
        pytest.skip(f"no browser is here: none of {', '.join(look.BROWSERS)}")
    return look


@built
def test_no_page_is_wider_than_its_window(site: Site, look: object) -> None:
    assert list(look.faults(look.browser(), sorted(site.folder.rglob("*.html")))) == []
