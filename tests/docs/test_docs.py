"""Every example runs, every generated page is current, and the built pages are whole."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from sqlalchemy.ext.asyncio import create_async_engine

import qortex_db
from qortex_db import Settings, migrations
from qortex_db.repositories import VectorRepository
from qortex_db.repositories.vectors import table_facts
from support.commands import ROOT
from support.pages import BLOCK, program

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs"
COMING_FROM = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/coming_from/*.md"))


@pytest.mark.parametrize(
    "page",
    [
        "docs/command_line.md",
        "docs/errors.md",
        "docs/frameworks/frames.md",
        "docs/frameworks/haystack.md",
        "docs/frameworks/langchain.md",
        "docs/frameworks/llama_index.md",
        "docs/frameworks/others.md",
        "docs/host/scripts.md",
        "docs/learning/arms.md",
        "docs/learning/interoception.md",
        "docs/operations/backups.md",
        "docs/operations/large_tables.md",
        "docs/operations/replicas.md",
        "docs/performance/choosing.md",
        "docs/qortex/service.md",
        "docs/qortex/stores.md",
        "docs/quickstart.md",
        "docs/transfer/imports.md",
        "docs/vectors/changing_the_model.md",
        "docs/vectors/collections.md",
        "docs/vectors/embedding_cache.md",
        "docs/vectors/existing_tables.md",
        "docs/vectors/full_text.md",
        "docs/vectors/searching.md",
        *COMING_FROM,
    ],
)
async def test_the_examples_of_a_page_run(
    page: str, dsn384: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    monkeypatch.setattr(table_facts, "FACTS_SECONDS", 0.5)  # for which a change of models waits
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert blocks
    await program(*blocks)()


async def test_the_examples_of_the_readme_run(dsn384: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    setup = """
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from qortex_db import InteroceptionFactor, unit_of_work
engine = create_async_engine(Settings().target().url)
my_own_row = InteroceptionFactor(node_id="mine", weight=2.0)
"""
    first, second = BLOCK.findall((ROOT / "README.md").read_text())
    await program(first, setup, second, "await engine.dispose()")()
    target = Settings().target()
    assert target is not None
    engine = create_async_engine(target.url)
    async with engine.connect() as connection:
        ids = await connection.exec_driver_sql("SELECT id FROM qortex_vectors ORDER BY id")
        assert ids.scalars().all() == ["doc", "gzip", "smtp"]
        arms = await connection.exec_driver_sql("SELECT sum(pulls) FROM learning_arm_states")
        assert arms.scalar() == 1
    await engine.dispose()


async def test_the_quickstart_runs_where_no_server_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QORTEX_DB_EMBEDDED_PATH", str(folder / "data"))
    await migrations.upgrade(Settings(), embedded=True)
    blocks = BLOCK.findall((ROOT / "docs/quickstart.md").read_text())
    await program(*blocks)()


def test_every_variable_is_in_the_table_with_its_default() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`|unset) \|", page, re.MULTILINE))
    expected = {}
    for field in Settings.model_fields.values():
        default = field.default
        if hasattr(default, "get_secret_value"):
            default = default.get_secret_value()
        expected[str(field.validation_alias)] = "" if default is None else str(default)
    assert rows == expected


def test_every_public_name_is_on_a_page() -> None:
    pages = " ".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    words = set(re.findall(r"\w+", pages))
    errors = {name for name in qortex_db.__all__ if hasattr(qortex_db.errors, name)}
    assert set(qortex_db.__all__) - errors - {"__version__"} <= words


def test_what_is_written_from_the_code_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import generate_schema  # noqa: PLC0415
    import generate_sync  # noqa: PLC0415

    assert (ROOT / "docs/schema.md").read_text() == generate_schema.render()
    assert (ROOT / "qortex_db/sync/__init__.pyi").read_text() == generate_sync.stub()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The documentation as HTML, made once."""
    folder = tmp_path_factory.mktemp("html")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return Built(done, {path: BuiltPage(path) for path in sorted(folder.rglob("*.html"))}, folder)


def test_the_documentation_builds_without_a_warning(built: Built) -> None:
    assert built.done.returncode == 0, built.done.stderr


def test_every_page_has_a_file_of_its_own(built: Built) -> None:
    sources = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    parts = {Path("performance/choosing_measured")}
    parts |= {Path("operations/grants"), Path("operations/plan_tables")}
    sources -= parts  # of other pages
    assert sources
    wrong = {}
    for source in sources:
        title = headings((DOCS / source).with_suffix(".md"))[0]
        page = built.pages.get((built.folder / source).with_suffix(".html"))
        if page is None or page.title != title:
            wrong[str(source)] = (title, page and page.title)
    assert wrong == {}


def test_no_link_of_the_documentation_is_dead(built: Built) -> None:
    dead = [
        f"{path.relative_to(built.folder)}: {link}"
        for path, page in built.pages.items()
        for link in page.links
        if not built.leads_somewhere(path, link)
    ]
    assert dead == []


def test_what_methods_share_with_search_is_described_there_and_linked(built: Built) -> None:
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
    links = built.pages[built.folder / "api.html"].links
    assert links.count("#qortex_db.repositories.VectorRepository.search") >= len(leading)


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


@dataclass(frozen=True)
class Built:
    done: subprocess.CompletedProcess[str]
    pages: dict[Path, BuiltPage]
    folder: Path

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


def is_local(link: str) -> bool:
    return not (urlsplit(link).scheme or link.startswith("//"))


def headings(page: Path) -> list[str]:
    """Those of a page of Markdown, as plain text."""
    tokens = MarkdownIt().parse(page.read_text())
    places = [i for i, token in enumerate(tokens) if token.type == "heading_open"]
    inline = [tokens[i + 1].children or [] for i in places]
    return ["".join(child.content for child in children) for children in inline]


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
