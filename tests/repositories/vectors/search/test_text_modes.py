"""What a text finds: by any or all of its words, as a phrase, or as in a web search."""

from __future__ import annotations

import asyncio
import itertools
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    Settings,
    VectorMixin,
    VectorSpec,
    vector_column,
)
from qortex_db.sample import load_sample
from support import fusion
from support.catalogue import execute
from support.full_text import WORDS
from support.loading import rename_backwards
from support.roundtrips import counted
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db.testing import Server

pytestmark = pytest.mark.slow

SAMPLE = load_sample()
TEXTS = [passage["text"] for passage in SAMPLE.passages]
IDS = [f"p{i:04}" for i in range(len(TEXTS))]
QUESTIONS = [question["text"] for question in SAMPLE.questions]
QUERIES = SAMPLE.question_embeddings
UNIT = SAMPLE.passage_embeddings / np.linalg.norm(SAMPLE.passage_embeddings, axis=1, keepdims=True)
MODES = ("any", "all", "phrase", "websearch")
MANY = 12_000


class Host(DeclarativeBase):
    """A host's own base."""


class Parsed(VectorMixin, Host):
    __tablename__ = "parsed"
    __collection__ = Collection(VectorSpec(384), language="english")


class Stored(VectorMixin, Host):
    __tablename__ = "stored"
    __collection__ = Collection(VectorSpec(384), text="english")


class Tenant(VectorMixin, Host):
    __tablename__ = "tenants"
    __collection__ = Collection(
        VectorSpec(2), text="english", namespace="tenant", namespace_in_key=True
    )


class Many(VectorMixin, Host):
    """More rows with a word than are looked at."""

    __tablename__ = "many"
    __collection__ = Collection(VectorSpec(2, index=None))

    words: Mapped[Any | None] = vector_column(VectorSpec(4, "cosine", storage="sparse"))


class ManyStored(VectorMixin, Host):
    __tablename__ = "many_stored"
    __collection__ = Collection(VectorSpec(2, index=None), text="simple")


@pytest.fixture(scope="module")
def loaded(server: Server, template384: str) -> Iterator[str]:
    async def load(dsn: str) -> None:
        async with Database.connect(dsn) as db:
            async with db.engine.begin() as connection:
                await connection.run_sync(Host.metadata.create_all)
            rows = [
                {"id": key, "embedding": vector, "document": words, "payload": {"even": n % 2 == 0}}
                for n, (key, vector, words) in enumerate(
                    zip(IDS, SAMPLE.passage_embeddings, TEXTS, strict=True)
                )
            ]
            for vectors in (db.vectors, db.collection(Parsed), db.collection(Stored)):
                await vectors.upsert(rows)
        for table in ("many", "many_stored"):
            await execute(
                dsn,
                f"INSERT INTO {table} (id, vec, document) "
                f"SELECT 'm' || i, ARRAY[i, {MANY} + 1 - i]::vector, 'the row' "
                "|| CASE WHEN i % 1000 = 0 THEN ' zebra' ELSE '' END "
                "|| CASE WHEN i = 7000 THEN ' other' ELSE '' END "
                f"FROM generate_series(1, {MANY}) i",
            )

    with copied(server, template384) as dsn:
        asyncio.run(load(dsn))
        yield dsn


@pytest.fixture(params=["alone", "watched", "together", "host"])
async def lane(request: pytest.FixtureRequest, loaded: str) -> AsyncIterator[Any]:
    """Repositories by themselves, watched by a listener, in a unit of work, on a host's engine."""
    target = Settings(dsn=loaded).target()
    assert target is not None
    if request.param == "host":
        engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
        async with Database.from_engine(engine) as db:
            yield db
        await engine.dispose()
        return
    async with Database.connect(loaded) as db:
        if request.param == "together":
            async with db.unit_of_work() as uow:
                yield uow
                await uow.session.rollback()
            return
        if request.param == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        yield db


@pytest.fixture
async def db(loaded: str) -> AsyncIterator[Database]:
    async with Database.connect(loaded) as database:
        yield database


async def rarities(executor: Any, table: str, asked: str, where: str = "true") -> dict[str, float]:
    """Each row's score, by the words of documents as PostgreSQL has them."""
    of_asked = WORDS.replace("document", ":asked").replace(":-@", r"\:-@")
    of_documents = WORDS.replace(":-@", r"\:-@")
    query = f"SELECT lexeme FROM unnest({of_asked}) ORDER BY positions[1] LIMIT 64"
    words = [row[0] for row in (await executor.run(text(query), {"asked": asked})).rows]
    query = f"SELECT id, tsvector_to_array({of_documents}) FROM {table} WHERE {where}"
    documents = {row[0]: set(row[1] or ()) for row in (await executor.run(text(query), {})).rows}
    having = {word: {k for k, has in documents.items() if word in has} for word in words}
    having = {word: keys for word, keys in having.items() if keys}
    every = set().union(*having.values()) if having else set()
    weights = {
        word: math.log(1 + (len(every) - len(keys) + 0.5) / (len(keys) + 0.5))
        for word, keys in having.items()
    }
    scores = {k: sum(weights[word] for word in having if word in documents[k]) for k in every}
    if scores:
        close = (
            f"SELECT id, ts_rank({of_documents}, CAST(:q AS tsquery)) FROM {table} WHERE {where}"
        )
        together = " & ".join(f"'{word}'" for word in having)
        ranks = dict((await executor.run(text(close), {"q": together})).rows)
        scores = {key: score + 1e-6 * ranks[key] for key, score in scores.items()}
    return scores


def of_table(lane: Any, table: str) -> Any:
    models = {"parsed": Parsed, "stored": Stored}
    return lane.vectors if table == "qortex_vectors" else lane.collection(models[table])


@pytest.mark.parametrize("table", ["qortex_vectors", "parsed", "stored"])
async def test_a_question_finds_the_documents_with_more_and_rarer_words(
    lane: Any, table: str
) -> None:
    vectors = of_table(lane, table)
    for number in range(0, 40, 4):
        question = QUESTIONS[number]
        right = await rarities(lane.executor, table, question)
        assert right, "no branch is empty"
        found = await vectors.hybrid_search(None, question, limit=50)
        ranks = fusion.ranks({key: right[key] for key in fusion.best(right, 50)})
        scores = {hit.id: hit.score for hit in found}
        best = {key: 1 / (60 + rank) for key, rank in ranks.items()}
        # Of equals at the end others may be there, by their ids.
        assert list(scores.values()) == pytest.approx(sorted(best.values(), reverse=True))
        assert [hit.id for hit in found] == fusion.best(right, 50)
        near = dict(zip(IDS, map(float, UNIT @ QUERIES[number]), strict=True))
        fused = fusion.by_ranks([near, right], [100, 100], [1, 1], similar=near)
        both = await vectors.hybrid_search(QUERIES[number], question, limit=30, exact=True)
        assert [hit.id for hit in both] == fusion.best(fused, 30, near)
        assert [hit.score for hit in both] == pytest.approx([fused[hit.id] for hit in both])


async def test_no_question_of_the_sample_has_an_empty_branch(db: Database) -> None:
    empty = {"any": 0, "all": 0}
    for question in QUESTIONS:
        for match in ("any", "all"):
            empty[match] += not await db.vectors.hybrid_search(None, question, match=match, limit=1)  # type: ignore[arg-type]
    assert empty["any"] == 0
    assert empty["all"] > 20


@pytest.mark.parametrize("table", ["qortex_vectors", "parsed", "stored"])
async def test_a_filter_holds_for_every_word(db: Database, table: str) -> None:
    vectors = of_table(db, table)
    for question in QUESTIONS[:40:8]:
        right = await rarities(db.executor, table, question, "payload @> '{\"even\": true}'")
        for where in ({"even": True}, {"$and": [{"even": True}, {"$not": {"$text": "zzzz"}}]}):
            found = await vectors.hybrid_search(None, question, where=where, limit=50)
            assert [hit.id for hit in found] == fusion.best(right, 50)


async def test_ids_order_nothing_but_what_is_equal_in_all_else(db: Database) -> None:
    async with db.unit_of_work() as uow:
        await rename_backwards(uow.session, "stored")
        for number, question in enumerate(QUESTIONS):
            for match in MODES:
                options: Any = {"match": match, "limit": 10, "exact": True}
                before, after = [
                    await one.hybrid_search(QUERIES[number], question, **options)
                    for one in (db.collection(Stored), uow.collection(Stored))
                ]
                assert [hit.document for hit in before] == [hit.document for hit in after]
        await uow.session.rollback()


async def test_words_as_rare_make_documents_as_good_in_whatever_order_they_are_asked_for(
    db: Database,
) -> None:
    orders = list(itertools.permutations("abc"))
    rows = {f"own{i}": " ".join(f"{word}{i}" for word in "abc") for i in range(len(orders))}
    # Rarities whose sum depends on the order in which they are added.
    for word, others in zip("abc", (1, 2, 3), strict=True):
        rows |= {f"{word}{i}-{n}": f"{word}{i}" for i in range(6) for n in range(others)}
    question = " ".join(f"{word}{i}" for i, order in enumerate(orders) for word in order)
    async with db.unit_of_work() as uow:
        vectors = uow.collection(Parsed)
        await vectors.delete_all()
        await vectors.upsert(
            {"id": key, "embedding": QUERIES[0], "document": rows[key]} for key in rows
        )
        found = await vectors.hybrid_search(None, question, limit=len(rows))
        await uow.session.rollback()
    assert {hit.score for hit in found if hit.id.startswith("own")} == {1 / 61}


WORDS_OF = {
    "both": "red apples, and a red apple",
    "near": "a red apple and green zebra stripes",
    "far": "red is the house where nobody ever had an apple",
    "one": "red",
    "other": "an apple",
    "rare": "zebra",
    "none": "blue",
}
FOUND = {
    ("any", "red apple"): ["both", "far", "near", "one", "other"],
    ("any", "the RED and the"): ["both", "far", "near", "one"],
    ("any", "apple zebra"): ["both", "far", "near", "other", "rare"],
    ("any", "apple -red"): ["both", "far", "near", "one", "other"],
    ("all", "red apple"): ["both", "far", "near"],
    ("all", "zebra -apple"): ["near"],
    ("all", "red or apple"): ["both", "far", "near"],
    ("all", 'red "apple'): ["both", "far", "near"],
    ("all", "red.apple"): ["both", "near"],
    ("phrase", "red apple"): ["both", "near"],
    ("phrase", '-"red" (apple)'): ["both", "near"],
    ("phrase", "apple red"): [],
    ("phrase", "apple or red"): [],
    ("websearch", "red apple"): ["both", "far", "near"],
    ("websearch", '"red apple" or zebra'): ["both", "near", "rare"],
    ("websearch", "zebra -apple"): ["rare"],
    ("websearch", "red-apple"): ["both", "near"],
    ("websearch", "--zebra"): ["near", "rare"],
}


@pytest.mark.parametrize("table", ["qortex_vectors", "parsed", "stored"])
async def test_each_mode_finds_what_it_says(lane: Any, table: str) -> None:
    vectors = of_table(lane, table)
    rows = [
        {"id": f"x-{key}", "embedding": [1.0] * 384, "document": words, "payload": {"x": 1}}
        for key, words in WORDS_OF.items()
    ]
    await vectors.upsert(rows)
    try:
        for (match, asked), right in FOUND.items():
            found = await vectors.hybrid_search(None, asked, match=match, where={"x": 1}, limit=50)
            assert sorted(hit.id.removeprefix("x-") for hit in found) == right, (match, asked)
        close = await vectors.hybrid_search(None, "red apple", where={"x": 1})
        order = [hit.id for hit in close]
        assert order.index("x-near") < order.index("x-far") < order.index("x-one")
    finally:
        await vectors.delete_where({"x": 1})


ODD = {
    "nothing": "",
    "a Markdown rule": "-" * 17,
    "many dashes": "a" + "-" * 5_000 + "b",
    "stop words": "the a of and",
    "quotes": "\"it's\" 'x' `y` “z” \\ \\' \"",
    "operators": "& | ! <-> <2> :* ( ) a:*b & (c | !d)",
    "SQL": "SELECT * FROM t WHERE x = 'y'; DROP TABLE notes; --",
    "emoji": "😀 file 👩‍👩‍👧 \U0001f1e6 file",
    "a long word": "x" * 10_000 + " file",
    "a long text": " ".join(f"file{i}, path-{i}.py: 'x'" for i in range(20_000)),
    "lines": "line\nbreaks\r\n\tand\u2028others\u00a0file",
    "a URL": "https://example.com/a/b.c?d=e&f=%20#g file@example.com",
    "percents": "%s %(text)s :text $1 __[POSTCOMPILE_x] {0}",
}


@pytest.mark.parametrize("form", ODD)
async def test_a_text_of_any_form_is_an_answer(lane: Any, form: str) -> None:
    for table in ("qortex_vectors", "parsed", "stored"):
        for match in MODES:
            asked = ODD[form][:1_000] if match == "websearch" else ODD[form]
            for embedding in (None, QUERIES[0]):
                found = await of_table(lane, table).hybrid_search(embedding, asked, match=match)
                assert len(found) == 10 or embedding is None
    if "file" in ODD[form]:
        assert await lane.vectors.hybrid_search(None, ODD[form])


@pytest.mark.parametrize(
    ("asked", "options", "match"),
    [
        ("a\x00b", {}, "NUL"),
        ("\ud800", {}, "surrogate"),
        (b"x", {}, "bytes"),
        ("x " * 501, {"match": "websearch"}, "1,002 characters.*match='any'"),
        ("x", {"match": "some"}, "match has to be one of any, all, phrase, websearch"),
        ("x", {"match": ["any"]}, "match has to be one of"),
        ("x", {"match": None}, "match has to be one of"),
    ],
)
async def test_what_is_no_text_or_mode_is_refused(
    lane: Any, asked: Any, options: Any, match: str
) -> None:
    with pytest.raises(InvalidInputError, match=match):
        await lane.vectors.hybrid_search(QUERIES[0], asked, **options)


async def test_the_first_64_words_count(db: Database) -> None:
    async with db.unit_of_work() as uow:
        vectors = uow.vectors
        each = [f"w{i}" for i in range(70)]
        await vectors.upsert(
            {"id": word, "embedding": [1.0] * 384, "document": word} for word in each
        )
        await vectors.upsert(
            [{"id": "all", "embedding": [1.0] * 384, "document": " ".join(each[:64])}]
        )
        asked = " the ".join(each[:1] * 9 + each)  # neither again nor stop words
        found = await vectors.hybrid_search(None, asked, limit=100)
        assert {hit.id for hit in found} == {*each[:64], "all"}
        assert found[0].id == "all"
        for match in ("all", "phrase"):
            found = await vectors.hybrid_search(None, " ".join(each), match=match)
            assert [hit.id for hit in found] == ["all"]
        await uow.session.rollback()


@pytest.mark.parametrize("model", [Many, ManyStored])
async def test_the_rows_of_a_common_word_are_bounded(db: Database, model: Any) -> None:
    many = db.collection(model)
    zebras = [f"m{i}" for i in range(1_000, MANY + 1, 1_000)]
    found = await many.hybrid_search(None, "the zebra of the other row", limit=100)
    assert found[0].id == "m7000"
    assert {hit.id for hit in found} == set(zebras)
    only = await many.hybrid_search([0, 1], "the row", limit=100, branch_limit=200)
    assert len(only) == 100
    for match in ("all", "websearch"):
        found = await many.hybrid_search([0, 1], "the zebra", match=match, limit=100)
        assert set(zebras) <= {hit.id for hit in found}
        common = await many.hybrid_search([0, 1], "the row", match=match, limit=100)
        assert len(common) == 100


async def test_only_so_many_documents_are_parsed_and_those_are_the_nearest(db: Database) -> None:
    many = db.collection(Many)
    limits = {"limit": 1_000, "branch_limit": 1_000, "match": "websearch"}
    assert len(await many.hybrid_search(None, "row", **limits)) == 500
    assert len(await db.collection(ManyStored).hybrid_search(None, "row", **limits)) == 1_000
    both = await many.hybrid_search([0, 1], "row", **{**limits, "branch_limit": 700})
    assert [hit.id for hit in both[:3]] == ["m1", "m2", "m3"]
    assert len(both) == 700


async def test_each_mode_is_one_round_trip(loaded: str) -> None:
    async with counted(loaded) as trips, Database.connect(trips.dsn) as db:
        for model in (Parsed, Stored):
            vectors = db.collection(model)
            for match in MODES:
                asked = QUESTIONS[0] + " -snake"
                await vectors.hybrid_search(QUERIES[0], asked, match=match)  # type: ignore[arg-type]
                async with trips.expect(1):
                    await vectors.hybrid_search(QUERIES[1], asked, match=match)  # type: ignore[arg-type]


async def test_a_namespace_has_words_of_its_own(db: Database) -> None:
    async with db.unit_of_work() as uow:
        for name, count in (("one", 3), ("two", 30)):
            await uow.collection(Tenant, namespace=name).upsert(
                {"id": f"{i}", "embedding": [1, i], "document": f"red number{i} {name}"}
                for i in range(count)
            )
        one = uow.collection(Tenant, namespace="one")
        for match in ("any", "all", "websearch"):
            found = await one.hybrid_search([1, 0], "red", match=match, limit=50)
            assert [hit.id for hit in found] == ["0", "1", "2"]
        assert not await one.hybrid_search(None, "two")
        await uow.session.rollback()


# Exclusions


async def excluding(vectors: Any, asked: str, **options: Any) -> set[str]:
    found = await vectors.hybrid_search([1, 0], asked, limit=50, **options)
    return {hit.id for hit in found}


@pytest.mark.parametrize("stored", [False, True])
async def test_what_is_excluded_is_in_no_branch(db: Database, stored: bool) -> None:
    async with db.unit_of_work() as uow:
        vectors: Any = uow.collection(ManyStored if stored else Many)
        await uow.session.execute(text(f"DELETE FROM {'many_stored' if stored else 'many'}"))
        documents = {
            "snake": "a python is a snake",
            "code": "python code with snake_case names",
            "plain": "python is a language",
            "cold": "it was -11 degrees",
            "phrase": "a phrase of a python",
            "none": None,
        }
        rows: list[dict[str, Any]] = [
            {"id": key, "vec": [1, i], "document": words}
            for i, (key, words) in enumerate(documents.items())
        ]
        model: Any = (ManyStored if stored else Many).__table__
        if not stored:
            rows = [{**row, "words": {0: 1.0, i: 0.5}} for i, row in enumerate(rows, 1) if i < 4]
            rows += [
                {"id": key, "vec": [1, 9], "document": documents[key]}
                for key in ("cold", "phrase", "none")
            ]
            for row in rows:
                row.setdefault("words", None)
        await uow.session.execute(insert(model), rows)
        every = set(documents)
        for options in ({}, {"exact": True}, {"alpha": 0.5}, {"where": {"$nor": [{"z": 1}]}}):
            search: Any = {"match": "websearch", **options}
            assert await excluding(vectors, "python -snake", **search) == every - {"snake", "code"}
            assert await excluding(vectors, '-"a phrase"', **search) == every - {"phrase"}
            assert await excluding(vectors, "-11", **search) == every - {"cold"}
            assert await excluding(vectors, "-snake_case", **search) == every - {"code"}
            assert await excluding(vectors, "-the", **search) == every
            assert await excluding(vectors, "--snake", **search) == every
        if not stored:
            options = {"match": "websearch", "sparse": {0: 1.0}}
            assert "snake" not in await excluding(vectors, "-snake", **options)
        alone = await vectors.hybrid_search([1, 0], "-11", match="websearch")
        plain = await vectors.search([1, 0], where={"$nor": [{"$text": "11"}]})
        assert [hit.id for hit in alone] == [hit.id for hit in plain]
        assert not await vectors.hybrid_search(None, "-11", match="websearch")
        for match in ("any", "all", "phrase"):  # a dash is punctuation
            assert await excluding(vectors, "-snake", match=match) == every
            found = await vectors.hybrid_search(None, "-snake", match=match)
            assert {hit.id for hit in found} == {"snake", "code"}
        await uow.session.rollback()


def test_an_or_beside_an_exclusion_is_left_out() -> None:
    from qortex_db.repositories.vectors.search.text_queries import read_text  # noqa: PLC0415

    for asked, wanted, excluded in (
        ("a or -b c", '"a" or "c"', '"b"'),
        ("-b or a", '"a"', '"b"'),
        ("a or -b", '"a"', '"b"'),
        ('-a -"b c"', "", '"a" or "b c"'),
    ):
        read = read_text(asked, "websearch")
        assert read.params == {"text": wanted, "excluded": excluded}
        assert read.excludes
    assert not re.search("-", str(read_text("a -b", "all").params["text"]))
