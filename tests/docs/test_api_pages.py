"""The pages of the API: every public name is there, linked, with an example that runs."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

import qortex_db
from qortex_db import Database, DatabaseView, Learner, UnitOfWork, repositories, stores
from qortex_db.repositories.vectors import table_facts
from qortex_db.testing import factories
from support.commands import ROOT
from support.pages import program
from support.site import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.site import Site

sys.path.insert(0, str(DOCS))
import api_examples

sys.path.remove(str(DOCS))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # with the building of the site

PAGES = sorted(api_examples.FOLDER.glob("*.py"))
ROOMS = (
    *("migrations", "transfer", "testing", "report", "sync"),
    *("integrations.langchain", "integrations.llama_index", "integrations.haystack"),
)
"""Where what has no name in the package itself is imported from."""
WHOLE = (
    *(Database, DatabaseView, UnitOfWork, Learner, stores.PgVectorIndex),
    *(stores.PostgresInteroceptionStore, stores.PostgresLearningStore),
    *(getattr(repositories, name) for name in repositories.__all__ if name.endswith("Repository")),
)
"""Whose every public method has to be there."""
THEIRS = {
    *("Any", "None", "Sequence", "Mapping", "Iterable", "Callable", "Awaitable", "Literal", "Self"),
    *("AsyncIterable", "AsyncIterator", "Iterator", "URL", "AsyncEngine", "AsyncSession", "Table"),
    *("AbstractAsyncContextManager", "NDArray", "PathLike", "Path", "UUID", "ColumnElement", "T"),
    *("InstrumentedAttribute", "Column", "MetaData", "SchemaItem", "FromClause", "MappedColumn"),
    *(
        "VectorStore",
        "SparseVector",
        "DataFrame",
        "Generator",
        "Index",
        "IdT",
        "Document",
        "AnySession",
    ),
    *("BaseNode", "VectorStoreQuery", "VectorStoreQueryResult", "Secret", "DuplicatePolicy"),
}
"""Other projects' types, and variables: no page of ours is about them."""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
async def test_the_examples_of_a_page_run(
    path: Any, dsn384: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(table_facts, "FACTS_SECONDS", 0.3)  # for which a change of models waits
    async with Database.connect() as db:
        await program(path.read_text(), db=db)()


@pytest.fixture(scope="module")
def entries(site: Site) -> dict[str, tuple[str, str]]:
    """What the pages describe: its kind and its signature in HTML, by its name."""
    found = {}
    for page in (site.folder / "api").glob("*.html"):
        kind = ""
        for line in re.findall(
            r'<dl class="py (\w+)"|<dt class="sig sig-object py" id="([^"]+)">(.*?)</dt>',
            page.read_text(),
            re.DOTALL,
        ):
            kind = line[0] or kind
            if line[1]:
                found[line[1]] = (kind, line[2])
    return found


def public() -> Iterator[str]:
    for name in set(qortex_db.__all__) - {"__version__"}:
        home = "errors." if hasattr(qortex_db.errors, name) else ""
        yield f"qortex_db.{home}{name}"
    for room in ROOMS:
        names = importlib.import_module(f"qortex_db.{room}").__all__
        yield from (f"qortex_db.{room}.{name}" for name in names)
    for kind in WHOLE:
        own = kind.__name__ in qortex_db.__all__
        home = "qortex_db" if own else "qortex_db.repositories"
        for name, _ in inspect.getmembers(kind, inspect.isroutine):
            if not name.startswith("_"):
                yield f"{home}.{kind.__name__}.{name}"


def test_every_public_name_is_on_a_page(entries: dict[str, Any], site: Site) -> None:
    without_an_index = "qortex_db.sync.Database"  # its names are those of the other Database
    assert "Database" in (site.folder / "api/database.html").read_text()
    assert sorted({*public()} - {without_an_index} - entries.keys()) == []


def test_every_factory_is_named() -> None:
    entries = (DOCS / "api/testing.md").read_text()
    made = [name for name in vars(factories) if re.fullmatch(r"[A-Z]\w+Factory", name)]
    assert len(made) > 15
    assert [name for name in made if f".factories.{name}()\n" not in entries] == []


def test_every_entry_has_an_example_and_every_example_an_entry(entries: dict[str, Any]) -> None:
    shown = api_examples.by_name()
    kinds = {"class", "function", "method", "data"}
    wanted = {name for name, (kind, _) in entries.items() if kind in kinds and "." in name}
    assert sorted(wanted - shown.keys()) == []
    assert sorted(shown.keys() - entries.keys()) == [
        *(f"qortex_db.sync.Database{method}" for method in ("", ".close", ".connect", ".open"))
    ]


def test_an_example_is_of_one_entry_and_at_most_of_what_that_gives() -> None:
    shared = [names for path in PAGES for names, _ in api_examples.examples(path)]
    assert [names for names in shared if len(names) > 2] == []
    methods = [[name for name in names if name.rpartition(".")[2].islower()] for names in shared]
    assert [names for names in methods if len(names) > 1] == []


def test_every_signature_says_what_it_returns(entries: dict[str, Any]) -> None:
    mute = [
        name
        for name, (kind, signature) in entries.items()
        if kind in {"function", "method"} and "sig-return" not in signature
    ]
    assert len(entries) > 300
    assert mute == []


def test_what_takes_a_context_an_embedding_a_key_or_a_payload_says_what_it_raises() -> None:
    silent = []
    for kind in WHOLE:
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            taken = set() if name.startswith("_") else {*inspect.signature(method).parameters}
            expected = {"InvalidContextError"} if "context" in taken else set()
            if taken & {"embedding", "embeddings", "query_embedding"}:
                expected |= {"DimensionMismatchError"}
            expected |= {"IdempotencyKeyReusedError"} if "idempotency_key" in taken else set()
            if kind is repositories.VectorRepository:  # another model's, or none of the keys
                if taken & {"embedding", "embeddings", "positive", "records"}:
                    expected |= {"EmbeddingModelError"}
                if taken & {"payload", "records", "values", "with_payload"}:
                    expected |= {"EncryptionError"}
            said = (method.__doc__ or "").partition("Raises:")[2]
            silent += [f"{kind.__name__}.{name}: {one}" for one in expected if one not in said]
    assert silent == []


def test_every_type_of_ours_is_linked(entries: dict[str, Any]) -> None:
    plain: dict[str, str] = {}
    for name, (_, signature) in entries.items():
        without_links = re.sub(r"<a .*?</a>", "", signature, flags=re.DOTALL)
        types = re.findall(r'<span class="n"><span class="pre">(\w+)</span></span>', without_links)
        plain.update({one: name for one in types if one[:1].isupper() and one not in THEIRS})
    assert plain == {}


def test_what_a_type_is_called_is_what_the_code_says() -> None:
    said = dict(
        re.findall(
            r"^\.\. py:type:: (\w+)\n   :canonical: (.+)$",
            (DOCS / "api/types.md").read_text(),
            re.MULTILINE,
        )
    )
    written: dict[str, set[str]] = {}
    for path in (ROOT / "qortex_db").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            target = node.target if isinstance(node, ast.AnnAssign) else None
            if isinstance(node, ast.Assign):
                target = node.targets[0]
            if isinstance(target, ast.Name) and target.id in said and node.value is not None:
                value = ast.unparse(node.value)
                written.setdefault(target.id, set()).add(value.strip("\"'"))
    assert len(said) > 20
    assert {name for name, is_ in said.items() if is_.strip("\"'") not in written[name]} == set()
