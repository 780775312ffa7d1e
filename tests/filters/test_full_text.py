"""The words of texts: punctuation stands between them, and glues none together."""

from __future__ import annotations

import itertools
import re
import string
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Text, bindparam, select
from sqlalchemy.orm import DeclarativeBase

from qortex_db import (
    Collection,
    Database,
    SchemaVersionError,
    Settings,
    VectorMixin,
    VectorSpec,
    migrations,
)
from qortex_db.filters.full_text import read_terms, web_query, words
from support.catalogue import execute, rows
from support.full_text import words_of

if TYPE_CHECKING:
    from qortex_db import UnitOfWork

pytestmark = pytest.mark.slow

TEXTS = {
    "path": "look at /etc/nginx/nginx.conf first",
    "site": "see https://www.example.com/shop/list?item=shoe&size=9#top",
    "mail": "from someone@mail.example.com, on 2024-05-01",
    "art": "a state-of-the-art engine",
    "header": "#include <stdio.h> &amp; vector<string> names",
    "degrees": "it was -11 degrees, or +12.5",
    "option": "run tar --verbose -x ~/archive.tar.gz",
    "name": "snake_case and camelCase are std::vector names",
    "none": "nothing to see",
}
FOUND = {
    "nginx.conf": {"path"},
    "nginx": {"path"},
    "conf": {"path"},
    "/etc/nginx": {"path"},
    "etc conf": {"path"},
    "conf.nginx": set(),
    "example.com": {"site", "mail"},
    "www.example.com": {"site"},
    "https://www.example.com/shop": {"site"},
    "shoe": {"site"},
    "item=shoe": {"site"},
    "someone@mail.example.com": {"mail"},
    "someone": {"mail"},
    "2024-05": {"mail"},
    "state-of-the-art": {"art"},
    "state of the art": {"art"},
    '"state of the art"': {"art"},
    "art-state": set(),
    "stdio.h": {"header"},
    "<stdio.h>": {"header"},
    "vector<string>": {"header"},
    "std::vector": {"name"},
    "11": {"degrees"},
    '"-11"': {"degrees"},
    "12.5": {"degrees"},
    "--verbose": {"option"},
    "archive.tar.gz": {"option"},
    "snake_case": {"name"},
    "snake": {"name"},
    "snake -case": set(),
    "names -vector": set(),
    'names -"vector string"': {"name"},
    "names -std::vector": {"header"},
    "shoe or 12.5": {"site", "degrees"},
    "-----------------": set(),
    "a" + "-" * 50 + "b": set(),
    "run -" + "-" * 40 + "nginx": set(),
}


@pytest.mark.parametrize("configuration", ["simple", "english"])
async def test_words_with_punctuation_are_found_where_people_look_for_them(
    db: Database, configuration: str
) -> None:
    records = [
        {"id": key, "embedding": [1] * 8, "document": text, "payload": {"text": text}}
        for key, text in TEXTS.items()
    ]
    await db.vectors.upsert(records)

    async def check(vectors: Any) -> None:
        for query, right in FOUND.items():
            query_of = {"$search": query, "$language": configuration}
            for where in ({"$text": query_of}, {"text": {"$text": query_of}}):
                page = await vectors.scroll(where=where)
                assert {record.id for record in page.records} == right, query

    await check(db.vectors)

    async def within(uow: UnitOfWork) -> None:
        await check(uow.vectors)

    async with db.unit_of_work() as uow:
        await within(uow)


async def test_the_server_reads_the_words_between_any_punctuation(dsn: str) -> None:
    texts = [
        form.format(*pair)
        for pair in itertools.product(string.punctuation, repeat=2)
        for form in (
            "aa{0}bb{1}cc",
            "{0}11{1}aa",
            "11{0}{1}22",
            "{0}{1}aa",
            "a{0}b{1}c d{1}",
            "x1{0}",
        )
    ]
    for configuration in ("simple", "english"):
        compiled = words(bindparam("t", type_=Text), configuration)
        query = str(select(compiled).compile(compile_kwargs={"render_postcompile": True}))
        expression = query.removeprefix("SELECT ").partition(" AS ")[0].replace(":t", "t")
        found = await rows(
            dsn, f"SELECT tsvector_to_array({expression})::text FROM unnest($1::text[]) t", texts
        )
        right = await rows(
            dsn,
            f"SELECT tsvector_to_array({words_of('t', configuration)})::text "
            "FROM unnest($1::text[]) t",
            texts,
        )
        assert found == right
        if configuration == "simple":
            for text, line in zip(texts, right, strict=True):
                assert set(line.strip("{}").split(",")) == set(re.findall("[a-z0-9]+", text)), text


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("red apple", '"red" "apple"'),
        ("red or apple", '"red" or "apple"'),
        ('"red or" apple', '"red or" "apple"'),
        ("or.", '"or"'),
        ('python -snake -"a phrase"', '"python" -"snake" -"a phrase"'),
        ("--verbose -x a-b -", '"verbose" -"x" "a b"'),
        ('"unclosed -phrase', '"unclosed phrase"'),
        ('-"" "" \' -- ***', ""),
        ("don't (stop)|!x:*", '"don t" "stop x"'),
    ],
)
def test_what_people_write_is_read_as_words_phrases_and_exclusions(text: str, query: str) -> None:
    assert web_query(read_terms(text)) == query


@given(st.text())
def test_any_text_becomes_quoted_words_and_nothing_else(text: str) -> None:
    query = web_query(read_terms(text))
    assert re.fullmatch(r"(-?\"[^\"!-/:-@\[-`{-~]+\"|or| )*", query)
    assert all(part in text for part in re.findall(r'[^\s"-]+', query) if part != "or")


class Host(DeclarativeBase):
    """A host's own base."""


class Satz(VectorMixin, Host):
    __tablename__ = "satz"
    __collection__ = Collection(VectorSpec(2, index=None), language="own.Haus")


async def test_a_configuration_of_the_hosts_own_is_taken_by_name(empty_dsn: str) -> None:
    await execute(
        empty_dsn,
        "CREATE EXTENSION vector",
        "CREATE SCHEMA own",
        'CREATE TEXT SEARCH CONFIGURATION own."Haus" (COPY = german)',
        'ALTER TEXT SEARCH CONFIGURATION own."Haus" DROP MAPPING FOR uint',
    )
    async with Database.connect(empty_dsn) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Host.metadata.create_all)
        satz = db.collection(Satz)
        await satz.upsert([{"id": "a", "embedding": [1, 0], "document": "Die Häuser, 12 davon"}])
        for where, count in (
            ({"$text": "Haus"}, 1),
            ({"$text": "12"}, 0),
            ({"$text": {"$search": "12", "$language": "pg_catalog.german"}}, 1),
            ({"$text": {"$search": "Haus", "$language": "simple"}}, 0),
        ):
            assert await satz.count(where=where) == count
        with pytest.raises(SchemaVersionError, match=r"klingon.*name what is there"):
            await satz.count(where={"$text": {"$search": "x", "$language": "klingon"}})
    settings = Settings(dsn=empty_dsn)
    assert await migrations.drift(settings, metadata=Host.metadata) == []


async def test_without_spaces_a_sentence_is_one_word_and_its_parts_are_substrings(
    db: Database,
) -> None:
    """What the page on full text says that PostgreSQL alone can do."""
    for text, part in (
        ("数据库系统很好", "数据库"),
        ("東京都に行く", "東京"),
        ("서울에서", "서울"),
    ):
        await db.vectors.upsert([{"id": "a", "embedding": [1] * 8, "document": text}])
        for where, count in (
            ({"$text": text}, 1),
            ({"$text": part}, 0),
            ({"$document": {"$contains": part}}, 1),
        ):
            assert await db.vectors.count(where=where) == count
