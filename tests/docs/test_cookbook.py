"""Each script of the cookbook runs as its docstring says, on a database of its own."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qortex_db import Database, Embedder, QortexVector
from support.commands import ROOT, program
from support.servers import execute

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from qortex_db.testing import Server

COOKBOOK = ROOT / "examples/cookbook"
SCRIPTS = sorted(COOKBOOK.glob("*.py"))
PAGE = (ROOT / "docs/cookbook.md").read_text()


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(COOKBOOK)
    import words  # noqa: PLC0415 - an example is no package

    return words


async def cooked(name: str, *arguments: str, **environment: str) -> list[str]:
    """The lines that a script printed."""
    script = str(COOKBOOK / f"{name}.py")
    done = await program(sys.executable, script, *arguments, **environment)
    assert (done.code, done.err) == (0, "")
    return done.out.splitlines()


def write(folder: Path, name: str, **parts: str) -> None:
    text = "\n\n".join(f"# {title.title()}\n\n{body}" for title, body in parts.items())
    (folder / name).write_text(f"{text}\n")


@pytest.mark.slow
async def test_answers_from_a_folder_learn_from_feedback_and_keep_up_with_it(
    dsn384: str, tmp_path: Path
) -> None:
    write(tmp_path, "trees.md", oaks="Oaks are old. They grow slowly.", firs="Firs are green.")
    write(tmp_path, "birds.md", owls="Owls fly at night. Nobody hears them.")
    asked = (str(tmp_path), "When do owls fly?", "Are oaks old?")
    said = await cooked("rag", *asked, PGVECTOR_DSN=dsn384)
    assert said[0] == "3 passages"
    assert said[1] == "When do owls fly?"
    assert said[3].startswith("  from birds-1, ")
    assert said[6].startswith("  from trees-1, ")
    assert said[-1] == "2 answers learned from"
    async with Database.connect(dsn384) as db:
        weights = await db.factors.get(["birds-1", "trees-1", "trees-2"])
        assert weights["birds-1"] == weights["trees-1"] > weights["trees-2"] == 1
        prompts = await db.arms.get_all("rag:prompts")
        assert sum(state.total_reward for state in prompts.values()) == 2
        embedded = (await db.embeddings.stats()).rows
    write(tmp_path, "trees.md", oaks="Oaks are old. They grow slowly.")
    said = await cooked("rag", *asked, PGVECTOR_DSN=dsn384)
    assert said[0] == "2 passages"
    async with Database.connect(dsn384) as db:
        assert (await db.embeddings.stats()).rows == embedded  # nothing anew
    (tmp_path / "trees.md").unlink()
    (tmp_path / "birds.md").unlink()
    assert await cooked("rag", str(tmp_path), PGVECTOR_DSN=dsn384) == [
        "0 passages",
        "4 answers learned from",
    ]


@pytest.mark.slow
async def test_what_is_recommended_is_near_to_what_is_liked_and_new(dsn384: str) -> None:
    said = await cooked("recommend", PGVECTOR_DSN=dsn384)
    items = [line.split()[1] for line in said[:5]]
    assert "bz2.compress" in items
    assert not {"gzip.decompress", "lzma.compress", "zipimport.zipimporter.find_loader"} & {*items}
    assert said[5:] == ["liked together by 3: gzip.decompress, lzma.compress"]


@pytest.mark.slow
async def test_copies_go_and_what_is_said_once_stays(dsn384: str) -> None:
    (said,) = await cooked("deduplicate", PGVECTOR_DSN=dsn384)
    before, gone, kept = map(int, re.findall(r"\d+", said))
    assert (before, before - gone) == (250, kept)
    connection: Any
    async with Database.connect(dsn384) as db, db.engine.connect() as connection:
        ids = (await connection.exec_driver_sql("SELECT id FROM pages")).scalars().all()
    copied = {key.removesuffix(" again") for key in ids if key.endswith(" again")}
    assert len(copied) == 50  # each is the longest of its group, and the other went
    assert not copied & {*ids}


@pytest.mark.slow
async def test_answers_are_kept_for_a_model_until_they_expire(dsn384: str) -> None:
    said = await cooked("semantic_cache", PGVECTOR_DSN=dsn384)
    assert [line.endswith(", from the cache") for line in said] == [False, True, *[False] * 3]
    assert said[1].startswith("small: How can I reset my password an answer of 27 letters")
    assert said[-1] == "1 expired"


@pytest.mark.slow
async def test_tenants_see_their_own_and_nobody_elses(dsn384: str, server: Server) -> None:
    execute(server, "CREATE ROLE notes_app LOGIN")
    name = dsn384.partition("?")[0].rpartition("/")[2]
    try:
        service = re.sub(r"//[^@/]*@", "//notes_app@", dsn384)
        said = await cooked("tenants", PGVECTOR_DSN=dsn384, SERVICE_DSN=service)
        assert said == [
            "acme: ['The launch is on Friday.']",
            "globex: ['The launch was put off.']",
            "globex asks for everybody's: 1",
            "without a tenant: 0",
        ]
    finally:
        execute(server, "DROP OWNED BY notes_app", database=name)
        execute(server, "DROP ROLE notes_app")


async def test_a_model_of_sentence_transformers_takes_the_place_in_one_line(
    words: Any, db: Database
) -> None:
    """Its methods are those of the library's class, which is too heavy for tests."""

    class SentenceTransformer:
        def __init__(self, _name: str) -> None:
            pass

        def encode(self, texts: list[str]) -> Any:
            return np.eye(8)[[len(text) % 8 for text in texts]]

    (line,) = re.findall(r"^ +(embed = .+)$", words.__doc__, re.MULTILINE)
    space: dict[str, Any] = {"Embedder": Embedder, "SentenceTransformer": SentenceTransformer}
    exec(line, space)  # noqa: S102 - our own
    vectors = db.collection(QortexVector, embedder=space["embed"])
    await vectors.upsert([{"id": "a", "document": "abc"}, {"id": "b", "document": "abcd"}])
    assert [hit.id for hit in await vectors.search("xyz", limit=1)] == ["a"]


def test_texts_that_share_words_are_nearer_than_others(words: Any) -> None:
    file, files, mail, nothing = words.embed(["Read a file", "reading files", "Send mail", ""])
    assert file @ files > 0.3 > abs(file @ mail)
    assert np.allclose([one @ one for one in (file, files, mail, nothing)], 1)


def test_each_script_is_short_and_on_the_page() -> None:
    assert len(SCRIPTS) == 6
    for script in SCRIPTS:
        assert len(script.read_text().splitlines()) < 80, script.name
        assert f"```{{literalinclude}} ../examples/cookbook/{script.name}\n" in PAGE, script.name
