"""Text in, text out: what is written with a document and searched by a text is embedded, once."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from llama_index.core.embeddings import MockEmbedding
from sqlalchemy import BigInteger, Identity, Text, event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    CLEAR,
    Collection,
    Database,
    DimensionMismatchError,
    Embedder,
    Embedding,
    ExampleText,
    InvalidInputError,
    LimitExceededError,
    Limits,
    NotFoundError,
    QortexVector,
    VectorMixin,
    VectorRecord,
    VectorSpec,
    vector_column,
)
from qortex_db.settings import Settings
from qortex_db.types import SparseVector  # noqa: TC001 - SQLAlchemy resolves Mapped[...]
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from qortex_db.uow import Repositories

ASKED: list[str] = []
"""Every text that a model was given, in this test."""
LARGEST: list[int] = []


def vector(text: str) -> np.ndarray[Any, Any]:
    """Of the letters of a text."""
    made = np.full(384, 0.01)
    for letter in text.lower():
        made[ord(letter) % 384] += 1
    return made


def letters(texts: Sequence[str]) -> list[Any]:
    ASKED.extend(texts)
    LARGEST.append(len(texts))
    return [vector(text) for text in texts]


def in_a_thread(texts: list[str]) -> np.ndarray[Any, Any]:
    assert threading.current_thread() is not threading.main_thread()
    return np.stack(letters(texts))


async def awaited(texts: list[str]) -> list[Any]:
    await asyncio.sleep(0)
    assert threading.current_thread() is threading.main_thread()
    return letters(texts)


class LangChain(Embeddings):
    """With what LangChain's own class has: it offers async methods, which run in a thread."""

    model = "letters"

    def embed_documents(self, texts: list[str]) -> Any:
        return in_a_thread(texts).tolist()

    def embed_query(self, text: str) -> Any:
        return in_a_thread([text])[0].tolist()


class AsyncLangChain(LangChain):
    async def aembed_documents(self, texts: list[str]) -> Any:
        return await awaited(texts)

    async def aembed_query(self, text: str) -> Any:
        return (await awaited([text]))[0]


class LlamaIndex:
    model_name = "letters"

    def get_text_embedding_batch(self, texts: list[str], *, show_progress: bool = False) -> Any:
        assert not show_progress
        return in_a_thread(texts).tolist()

    def get_query_embedding(self, query: str) -> Any:
        return in_a_thread([query])[0].tolist()


class SentenceTransformer:
    """Which can be called, with something else."""

    def __call__(self, features: object) -> object:
        raise AssertionError(features)

    def encode(self, sentences: list[str]) -> Any:
        return in_a_thread(sentences)


class Cohere(SentenceTransformer):
    def encode_query(self, sentences: list[str]) -> Any:
        return in_a_thread([f"query {one}" for one in sentences])

    encode_document = SentenceTransformer.encode


MODELS: dict[str, Any] = {
    "a function": (in_a_thread, {}),
    "an async function": (awaited, {}),
    "a lambda": (lambda texts: in_a_thread([*texts]), {"name": "lambda", "revision": "2"}),
    "LangChain": (LangChain(), {}),
    "async LangChain": (AsyncLangChain(), {}),
    "LlamaIndex": (LlamaIndex(), {}),
    "sentence-transformers": (SentenceTransformer(), {"name": "st"}),
    "with queries of its own": (Cohere(), {"name": "cohere"}),
    "an Embedder": (Embedder(awaited, name="e"), {}),
}


class Base(DeclarativeBase):
    """A host's own."""


class Note(VectorMixin, Base):
    __tablename__ = "notes"
    __collection__ = Collection(
        VectorSpec(384, index=None),
        namespace="tenant",
        embedder=Embedder(in_a_thread, name="of the model", revision="1"),
    )


def of_titles(texts: list[str]) -> Any:
    """Another model, of fewer dimensions."""
    ASKED.extend(f"title: {text}" for text in texts)
    return np.stack([vector(text[::-1])[:64] + vector(text)[64:128] for text in texts])


class Book(VectorMixin, Base):
    """With an embedder of each vector but one, which no text is for."""

    __tablename__ = "books"
    __collection__ = Collection(
        VectorSpec(384, index=None),
        embedder={
            "title": Embedder(of_titles, name="titles"),
            "vec": Embedder(in_a_thread, name="bodies"),
        },
    )

    title: Mapped[Any | None] = vector_column(VectorSpec(64, storage="half", index=None))
    words: Mapped[SparseVector | None] = vector_column(
        VectorSpec(30, "inner_product", "sparse", index=None)
    )


class Page(Base):
    """A table of a stranger's."""

    __tablename__ = "pages"

    number: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    body: Mapped[str | None] = mapped_column(Text)
    emb: Mapped[Any | None] = mapped_column(Embedding(384))


PAGES = Collection(
    VectorSpec(384, index=None, column="emb"),
    id="number",
    payload=None,
    document="body",
    embedder=Embedder(awaited, name="of strangers"),
)


@pytest.fixture(autouse=True)
def _anew() -> None:
    ASKED.clear()
    LARGEST.clear()


@pytest.fixture
async def db(dsn384: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn384) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


DOCUMENTS = {f"v{i:03}": f"{'abcdefghij'[i % 10] * (i // 10 + 1)} of {i % 7}" for i in range(60)}


@pytest.mark.parametrize("shape", MODELS)
async def test_any_model_embeds_documents_and_queries_each_text_once(
    db: Database, shape: str
) -> None:
    model, options = MODELS[shape]
    notes = db.collection(QortexVector, embedder=model, **options)
    given = [{"id": key, "document": text} for key, text in DOCUMENTS.items()]
    assert await notes.upsert(given) == 60
    assert sorted(ASKED) == sorted(set(DOCUMENTS.values()))
    ASKED.clear()
    assert await notes.upsert(given) == 0
    changed = [*given[:-1], {"id": "v059", "document": "zzz"}]
    assert await notes.upsert(changed) == 1
    assert ASKED == ["zzz"]
    stored = await notes.get(["v000", "v059"])
    assert stored["v059"].embedding == pytest.approx(vector("zzz").astype(np.float32))
    (hit,) = await notes.search("zzz", limit=1)
    assert (hit.id, hit.document) == ("v059", "zzz")
    own = "query zzz" if shape == "with queries of its own" else "zzz"
    tells = shape in ("LangChain", "async LangChain", "LlamaIndex", "with queries of its own")
    assert ["zzz", own] == ASKED if tells else ["zzz"]
    ASKED.clear()
    await notes.search("zzz", limit=3, where={"$id": ["v059", "v001"]})
    assert ASKED == []


LANES = ("own", "watched", "host", "together")


@pytest.fixture(params=LANES)
async def memory(
    request: pytest.FixtureRequest, db: Database, dsn384: str
) -> AsyncIterator[Repositories]:
    if request.param == "host":
        target = Settings(dsn=dsn384).target()
        assert target is not None
        engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
        yield Database.from_engine(engine)
        await engine.dispose()
    elif request.param == "together":
        async with db.unit_of_work() as uow:
            yield uow
    else:
        if request.param == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        yield db


async def listed(rows: Any) -> list[Any]:
    return [row async for row in rows]


async def one_of(answers: Any) -> Any:
    return (await answers)[0]


async def indexes_of(plan: Any) -> Any:
    return (await plan).indexes


QUERIES: dict[str, Any] = {
    "search": lambda v, q: v.search(q),
    "search with a filter": lambda v, q: v.search(q, where={"n": {"$lt": 9}}, offset=1),
    "range_search": lambda v, q: v.range_search(q, min_score=-1),
    "mmr_search": lambda v, q: v.mmr_search(q, limit=5),
    "search_groups": lambda v, q: v.search_groups(q, "n"),
    "hybrid_search": lambda v, q: v.hybrid_search(q, "of"),
    "multi_search": lambda v, q: v.multi_search([q, vector("b")]),
    "by count": lambda v, q: v.multi_search([q, vector("b"), q], rank="count"),
    "search_many": lambda v, q: one_of(v.search_many([q, vector("b"), q])),
    "stream_search": lambda v, q: listed(v.stream_search(q, batch_size=20)),
    "explain": lambda v, q: indexes_of(v.explain(q)),
}


def told(answer: Any) -> Any:
    if not hasattr(answer, "__iter__"):
        return answer
    if isinstance(answer, tuple):
        return answer
    rows = [hit for each in answer for hit in getattr(each, "hits", [each])]
    return [(hit.id, round(hit.score, 6), hit.document) for hit in rows]


async def test_every_search_takes_a_text_where_it_takes_an_embedding(
    memory: Repositories,
) -> None:
    for notes in (
        memory.collection(QortexVector, embedder=in_a_thread),
        memory.collection(Note, namespace="a"),
    ):
        await notes.upsert(
            {"id": key, "document": text, "payload": {"n": i}}
            for i, (key, text) in enumerate(DOCUMENTS.items())
        )
        for name, search in QUERIES.items():
            ASKED.clear()
            by_text = told(await search(notes, f"bbb {name}"))
            assert set(ASKED) <= {f"bbb {name}"}
            assert len(ASKED) == 1, name
            assert by_text == told(await search(notes, vector(f"bbb {name}"))), name


async def test_every_write_embeds_what_changed_and_nothing_else(memory: Repositories) -> None:
    for notes in (
        memory.collection(QortexVector, embedder=in_a_thread, name="of writes"),
        memory.collection(Note, namespace="a"),
    ):
        ASKED.clear()

        async def vectors(*texts: str, notes: Any = notes) -> None:
            got = await notes.get([f"k{i}" for i in range(len(texts))])
            for i, text in enumerate(texts):
                stored = got[f"k{i}"].embedding
                right = vector(text).astype(np.float32)
                assert stored == pytest.approx(right), (i, text)

        own = vector("its own")
        await notes.upsert(
            [
                VectorRecord("k0", None, document="zero"),
                {"id": "k1", "document": "one", "embedding": own},
                {"id": "k2", "embedding": None, "document": "two"},
            ]
        )
        assert sorted(ASKED) == ["two", "zero"]
        await vectors("zero", "its own", "two")
        await notes.upsert([{"id": "k0", "payload": {"n": 1}}])  # no text, nothing to embed
        await notes.insert([{"id": "k0", "document": "new"}, {"id": "k3", "document": "three"}])
        await vectors("zero", "its own", "two", "three")
        await notes.update_many([{"id": "k2", "document": "2"}, {"id": "k1", "payload": {}}])
        await vectors("zero", "its own", "2", "three")
        assert await notes.update("k0", document="nil")
        assert await notes.update("k1", document="uno", embedding=own)
        await vectors("nil", "its own", "2", "three")
        ingested = ({"id": f"k{i}", "document": f"ingested {i % 300}"} for i in range(700))
        await notes.ingest(ingested, batch_size=350)
        await vectors(*(f"ingested {i % 300}" for i in range(700)))
        assert len(ASKED) == len(set(ASKED)) == 2 + 2 + 1 + 1 + 300
        assert max(LARGEST) == 256  # a batch of the cache's
        if notes.__dict__["_vectors"].table.c.vec.nullable:
            await notes.upsert([{"id": "k0", "document": CLEAR}])
            assert (await notes.get(["k0"]))["k0"].embedding is None


async def test_two_namespaces_and_two_collections_share_the_cache(db: Database) -> None:
    for namespace in "ab":
        await db.collection(Note, namespace=namespace).upsert(
            [{"id": f"{namespace}1", "document": "shared"}]
        )
    other = db.collection(QortexVector, embedder=in_a_thread, name="of the model", revision="1")
    await other.upsert([{"id": "c", "document": "shared"}])
    assert ASKED == ["shared"]
    again = db.collection(QortexVector, embedder=in_a_thread, name="of the model", revision="2")
    await again.upsert([{"id": "d", "document": "shared"}])
    assert ASKED == ["shared", "shared"]


async def test_a_strangers_table_takes_texts_too(memory: Repositories) -> None:
    pages = memory.collection(Page, PAGES)
    await pages.upsert([{"id": 7, "document": "seven"}, {"id": 8, "document": "eight"}])
    await pages.update(8, document="eighty")
    await pages.update_many([{"id": 7, "document": "seventy"}])
    (hit,) = await pages.search("seventy", limit=1)
    assert (hit.id, hit.document) == (7, "seventy")
    assert ASKED == ["seven", "eight", "eighty", "seventy"]


@pytest.mark.parametrize("model", [DeterministicFakeEmbedding(size=384), MockEmbedding(384)])
async def test_models_of_langchain_and_llama_index_are_taken_as_they_come(
    db: Database, model: Any
) -> None:
    of_llama_index = isinstance(model, MockEmbedding)
    query = model.get_query_embedding if of_llama_index else model.embed_query
    notes = db.collection(QortexVector, embedder=model, name="fake")
    await notes.upsert({"id": key, "document": text} for key, text in DOCUMENTS.items())
    key, text = next(iter(DOCUMENTS.items()))
    (hit,) = await notes.search(text, limit=1, where={"$id": [key]}, with_embedding=True)
    assert (hit.id, hit.document) == (key, text)
    assert hit.embedding == pytest.approx(np.float32(query(text)), rel=1e-5)
    assert hit.score == pytest.approx(1)
    if not of_llama_index:  # which has a name, "unknown"
        with pytest.raises(InvalidInputError, match="no name of its own"):
            db.collection(QortexVector, embedder=model)


async def test_examples_are_texts_where_they_say_so(memory: Repositories) -> None:
    notes = memory.collection(QortexVector, embedder=in_a_thread)
    await notes.upsert({"id": key, "document": text} for key, text in DOCUMENTS.items())
    key = next(iter(DOCUMENTS))
    for options in ({}, {"strategy": "best_score"}):
        ASKED.clear()
        liked, disliked = [key, ExampleText("bbb of 1")], (ExampleText("ccc"), vector("b"))
        hits = await notes.recommend(liked, disliked, limit=5, **options)  # type: ignore[arg-type]
        assert sorted(set(ASKED)) == (["bbb of 1", "ccc"] if not options else [])
        by_embeddings = await notes.recommend(
            [key, vector("bbb of 1")],
            [vector("ccc"), vector("b")],
            limit=5,
            **options,  # type: ignore[arg-type]
        )
        assert [hit.id for hit in hits] == [hit.id for hit in by_embeddings]
    with pytest.raises(NotFoundError):
        await notes.recommend(["bbb of 1"])  # an id
    with pytest.raises(InvalidInputError, match="it has no embedder"):
        await memory.vectors.recommend([ExampleText("bbb of 1")])


def of_title(text: str) -> Any:
    return np.float16(of_titles([text])[0]).astype(np.float32)


async def test_each_vector_has_an_embedder_of_its_own(memory: Repositories) -> None:
    books = memory.collection(Book)
    named = {"title": in_a_thread, "vec": in_a_thread}
    with pytest.raises(InvalidInputError, match="64"):  # the dimensions of the column
        await memory.collection(Book, embedder=named).upsert([{"id": "a", "document": "a"}])
    ASKED.clear()
    own = np.arange(1.0, 65.0)
    await books.upsert(
        [
            {"id": "a", "document": "both"},
            {"id": "b", "document": "body", "vectors": {"title": "a title of its own"}},
            VectorRecord("c", "a text of its own", document="c", vectors={"title": own}),
            {"id": "d", "document": "no title", "vectors": {"title": None, "words": {1: 1.0}}},
            {"id": "e", "embedding": None},
        ]
    )
    bodies = ["both", "body", "a text of its own", "no title"]
    assert sorted(ASKED) == sorted([*bodies, "title: both", "title: a title of its own"])
    got = await books.get(list("abcde"))

    def titles() -> list[Any]:
        return [(got[key].vectors or {}).get("title") for key in sorted(got)]

    for key, text in zip("abcd", bodies, strict=True):
        assert got[key].embedding == pytest.approx(np.float32(vector(text)))
    assert got["e"].embedding is None
    of_a, of_b, of_c, *others = titles()
    assert of_a == pytest.approx(of_title("both"))
    assert of_b == pytest.approx(of_title("a title of its own"))
    assert (of_c.tolist(), others) == (own.tolist(), [None, None])
    assert await books.update("a", document="another")
    await books.update_many([{"id": "b", "document": "changed"}, {"id": "c", "payload": {"n": 1}}])
    assert await books.update("c", embedding="given as a text", vectors={"title": "as well"})
    await books.insert([{"id": "f", "document": "new"}, {"id": "a", "document": "old"}])
    await books.ingest({"id": f"g{i}", "document": f"g{i}"} for i in range(3))
    await books.upsert([{"id": "e", "document": CLEAR}, {"id": "g2", "document": CLEAR}])
    got = await books.get(["a", "b", "c", "f", "g1", "g2"])
    texts = ["another", "changed", "as well", "new", "g1"]
    assert titles()[-1] is None
    for found, text in zip(titles(), texts, strict=False):
        assert found == pytest.approx(of_title(text), rel=1e-2), text
    assert got["c"].embedding == pytest.approx(np.float32(vector("given as a text")))
    by_text = await books.search("changed", using="title", limit=3)
    right = await books.search(of_titles(["changed"])[0], using="title", limit=3)
    assert [hit.id for hit in by_text] == [hit.id for hit in right]
    assert by_text[0].id == "b"
    many = await books.search_many(["changed", "new"], using="title", limit=1)
    assert [hits[0].id for hits in many] == ["b", "f"]
    both = await books.hybrid_search(["changed", "new"], using=["vec", "title"], limit=2)
    assert {hit.id for hit in both} == {"b", "f"}
    liked = await books.recommend([ExampleText("changed")], using="title", limit=1)
    assert liked[0].id == "b"
    with pytest.raises(InvalidInputError, match=r"its embedder is not for this one"):
        await books.search("a text", using="words")
    with pytest.raises(InvalidInputError, match="words, a sparse vector"):
        memory.collection(Book, embedder={"words": in_a_thread})


def broken(texts: list[str]) -> Any:
    if "bad" in texts:
        raise RuntimeError("the model is down")
    return letters(texts)


async def test_records_without_ids_are_embedded_and_named_by_their_rows(db: Database) -> None:
    pages = db.collection(Page, PAGES)
    told = await pages.insert([{"document": "one"}, {"document": "two"}])
    got = await pages.get(told.new)
    for key, text in zip(told.new, ["one", "two"], strict=True):
        assert got[key].embedding == pytest.approx(np.float32(vector(text)))
    failing = db.collection(Page, PAGES, embedder=broken, name="broken")
    with pytest.raises(RuntimeError) as raised:
        await failing.insert([{"document": "fine"}, {"document": "bad"}])
    assert "documents of row 0, row 1." in raised.value.__notes__[0]


async def test_what_fails_is_named(db: Database) -> None:
    notes = db.collection(QortexVector, embedder=broken)
    given = [{"id": f"k{i}", "document": "bad" if i == 7 else f"t{i}"} for i in range(20)]
    with pytest.raises(RuntimeError, match="the model is down") as caught:
        await notes.upsert(given)
    (note,) = caught.value.__notes__
    assert "broken' failed on documents of row 0 (id 'k0'), row 1" in note
    assert "and 15 more" in note
    assert "bad" not in note
    assert await notes.count() == 0
    with pytest.raises(RuntimeError) as caught:
        await notes.search("bad")
    assert caught.value.__notes__ == [f"The embedder '{__name__}.broken' failed on 1 queries."]
    few = db.collection(QortexVector, embedder=lambda texts: [[1.0]] * len(texts), name="few")
    with pytest.raises(DimensionMismatchError, match=r"row 0 \(id 'a'\)"):
        await few.upsert([{"id": "a", "document": "d"}])
    none = db.collection(QortexVector, embedder=lambda _: [], name="none")
    with pytest.raises(InvalidInputError, match=r"The embedder 'none': .* returned 0 embeddings"):
        await none.upsert([{"id": "a", "document": "d"}])
    zero = db.collection(QortexVector, embedder=lambda t: [[0.0] * 384] * len(t), name="zero")
    with pytest.raises(InvalidInputError, match=r"row 0 \(id 'a'\)"):
        await zero.upsert([{"id": "a", "document": "d"}])
    for document in ("\x00", "\ud800", 7):
        with pytest.raises(InvalidInputError, match=r"document of row 1 \(id 'b'\)"):
            await notes.upsert([{"id": "a", "document": "d"}, {"id": "b", "document": document}])
    await notes.ingest(
        [{"id": "a", "document": "d"}, {"id": "b", "document": "\x00"}], on_error="skip"
    )
    assert await notes.count() == 1


async def test_a_text_that_nothing_embeds_is_refused(db: Database) -> None:
    for name, search in QUERIES.items():
        with pytest.raises(InvalidInputError, match=r"str; pass .* embedder|embedder=…"):
            pytest.fail(f"{name}: {await search(db.vectors, 'text')}")


@pytest.mark.parametrize(
    ("embedder", "options", "says"),
    [
        (7, {}, "embedder is a int"),
        ("text-embedding-3", {}, "embedder is a str"),
        (LangChain, {}, "embedder is a type"),
        (lambda texts: texts, {}, "no name of its own"),
        (SentenceTransformer(), {}, "no name of its own"),
        (letters, {"name": ""}, "name is empty"),
        (letters, {"revision": 7}, "revision is a int"),
        (Embedder(letters), {"name": "again"}, "leave them out"),
        (None, {"name": "alone"}, "are an embedder's"),
    ],
)
async def test_what_is_no_embedder_is_refused_at_once(
    db: Database, embedder: Any, options: Any, says: str
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        db.collection(QortexVector, embedder=embedder, **options)


def test_a_model_declares_an_embedder_with_its_name() -> None:
    with pytest.raises(InvalidInputError, match=r"Embedder\(model, name=…\)"):
        Collection(VectorSpec(3), embedder=letters)  # type: ignore[arg-type]


async def test_a_document_over_the_limit_is_not_sent_to_a_model(dsn384: str) -> None:
    target = Settings(dsn=dsn384).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
    small = Database.from_engine(engine, limits=replace(Limits(), max_document_bytes=10))
    with pytest.raises(LimitExceededError, match=r"document of row 0 \(id 'a'\)"):
        await small.collection(QortexVector, embedder=letters).upsert(
            [{"id": "a", "document": "x" * 11}]
        )
    await engine.dispose()
    assert ASKED == []


async def test_who_may_only_read_searches_by_texts_too(db: Database, dsn384: str) -> None:
    notes = db.collection(QortexVector, embedder=in_a_thread)
    await notes.upsert([{"id": key, "document": text} for key, text in DOCUMENTS.items()])
    right = [hit.id for hit in await notes.search("aaa of 1")]
    await execute(dsn384, "DELETE FROM qortex_embedding_cache")
    await notes.search("known")
    only = f"{dsn384}&options=-c%20default_transaction_read_only=on"
    async with Database.connect(only) as reader:
        reading = reader.collection(QortexVector, embedder=in_a_thread)
        assert [hit.id for hit in await reading.search("aaa of 1")] == right
        both = await reading.search_many(["known", "aaa of 1"])
        assert [hit.id for hit in both[1]] == right
