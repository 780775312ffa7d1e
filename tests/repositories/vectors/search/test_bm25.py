"""BM25 against the same in Python, on the same lexemes; and what it is told by."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from structlog.testing import capture_logs

from qortex_db import (
    BM25,
    Collection,
    Database,
    InvalidInputError,
    LockTimeoutError,
    SchemaVersionError,
    Settings,
    VectorMixin,
    VectorSpec,
    migrations,
)
from qortex_db.repositories.vectors import word_counts
from qortex_db.repositories.vectors.search import bm25 as ranked
from qortex_db.sample import load_sample
from qortex_db.types import Embedding
from support.catalogue import execute, rows
from support.commands import run
from support.roundtrips import counted
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db import SearchHits
    from qortex_db.testing import Server

pytestmark = pytest.mark.slow

SAMPLE = load_sample()
TEXTS = {passage["id"]: passage["text"] for passage in SAMPLE.passages}
QUESTIONS = [question["text"] for question in SAMPLE.questions]
GLUE = "translate({}, '/.-@[<&+~', '         ')"


class Host(DeclarativeBase):
    """A host's own base."""


class Stored(VectorMixin, Host):
    __tablename__ = "Stored words"
    __collection__ = Collection(VectorSpec(384, index=None), text="english")


class Parsed(VectorMixin, Host):
    __tablename__ = "parsed"
    __collection__ = Collection(VectorSpec(384, index=None), language="english")


class Tenant(VectorMixin, Host):
    __tablename__ = "tenants"
    __collection__ = Collection(
        VectorSpec(2, index=None), text="simple", namespace="tenant", namespace_in_key=True
    )


class Bare(VectorMixin, Host):
    __tablename__ = "bare"
    __collection__ = Collection(VectorSpec(2, index=None), text="simple")


class Mail(Host):
    """A table of somebody else's."""

    __tablename__ = "Mails"
    __collection__ = Collection(
        VectorSpec(2, index=None, column="emb"), id="number", payload=None, document="body"
    )

    number: Mapped[int] = mapped_column(primary_key=True)
    emb: Mapped[Any] = mapped_column(Embedding(2))
    body: Mapped[str]


class Page(Host):
    """One whose rows have a key of two columns."""

    __tablename__ = "pages"
    __collection__ = Collection(
        VectorSpec(2, index=None, column="emb"),
        id=("book", "number"),
        payload=None,
        document="body",
    )

    book: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    emb: Mapped[Any] = mapped_column(Embedding(2))
    body: Mapped[str]


def records(numbers: range) -> list[dict[str, Any]]:
    """Of two components."""
    words = ("red", "blue", "green", "sand", "desert")
    return [
        {
            "id": f"r{n:03}",
            "embedding": [1.0, n + 1.0],
            "document": " ".join([words[n % 3]] * (1 + n % 4) + [words[n % 5]] * (n % 3)),
        }
        for n in numbers
    ]


@pytest.fixture(scope="module")
def loaded(server: Server, template384: str) -> Iterator[str]:
    async def load(dsn: str) -> None:
        async with Database.connect(dsn) as db:
            async with db.engine.begin() as connection:
                await connection.run_sync(Host.metadata.create_all)
            for vectors in (db.vectors, db.collection(Stored), db.collection(Parsed)):
                await vectors.ingest(SAMPLE.records())
                await vectors.count_words()

    with copied(server, template384) as dsn:
        asyncio.run(load(dsn))
        yield dsn


class Oracle:
    """BM25 in Python, of the lexemes that the server makes of documents."""

    def __init__(self, lexemes: dict[str, dict[str, int]], documents: int) -> None:
        self.lexemes = lexemes
        self.documents = documents
        self.frequency = Counter(word for counts in lexemes.values() for word in counts)
        self.mean = sum(sum(each.values()) for each in lexemes.values()) / documents

    def scores(self, words: list[str], k1: float = 1.2, b: float = 0.75) -> dict[str, float]:
        found = {}
        for key, counts in self.lexemes.items():
            length = sum(counts.values())
            score = 0.0
            for word in {*words} & counts.keys():
                n, times = self.frequency[word], counts[word]
                rarity = math.log(1 + (self.documents - n + 0.5) / (n + 0.5))
                score += rarity * times * (k1 + 1) / (times + k1 * (1 - b + b * length / self.mean))
            if score:
                found[key] = score
        return found


async def oracle_of(dsn: str, table: str, words: str) -> Oracle:
    """Of the words of a table, as an expression."""
    found = await rows(
        dsn,
        f"SELECT ARRAY[id, lexeme, coalesce(cardinality(positions), 1)::text] FROM {table}, "
        f"unnest({words}) ORDER BY id",
    )
    lexemes: dict[str, dict[str, int]] = {}
    for key, word, times in found:
        lexemes.setdefault(key, {})[word] = int(times)
    (count,) = await rows(dsn, f"SELECT count(document) FROM {table}")
    return Oracle(lexemes, int(count))


async def words_of(dsn: str, question: str, configuration: str = "english") -> list[str]:
    return await rows(
        dsn,
        f"SELECT lexeme FROM unnest(to_tsvector('{configuration}', {GLUE.format('$1')}))",
        question,
    )


def assert_best(found: SearchHits, scores: dict[str, float]) -> None:
    """The best, best first: of equal scores any."""
    right = sorted(scores.values(), reverse=True)[: found.requested]
    assert [scores[hit.id] for hit in found] == pytest.approx(right, rel=1e-9)


@pytest.fixture(params=["alone", "watched", "together", "hosted"])
async def lane(request: pytest.FixtureRequest, loaded: str) -> AsyncIterator[Any]:
    async with Database.connect(loaded) as db:
        if request.param == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        if request.param == "together":
            async with db.unit_of_work() as uow:
                yield uow
        elif request.param == "hosted":
            yield Database.from_engine(db.engine)
        else:
            yield db


async def test_the_best_are_those_of_bm25_in_python(lane: Any, loaded: str) -> None:
    english = f"to_tsvector('english', {GLUE.format('document')})"
    oracle = await oracle_of(loaded, '"Stored words"', "document_words")
    same = await oracle_of(loaded, "qortex_vectors", english)
    assert oracle.lexemes == same.lexemes
    kinds = (lane.vectors, lane.collection(Stored), lane.collection(Parsed))
    for number, question in enumerate(QUESTIONS):
        words = await words_of(loaded, question)
        scores = oracle.scores(words)
        for vectors in kinds:
            assert_best(await vectors.hybrid_search(None, question), scores)  # by default
        if number % 10 == 0:
            rank = BM25(k1=2, b=0.3)
            own = oracle.scores(words, 2, 0.3)
            some = "gzip or " + question
            for vectors in kinds:
                assert_best(await vectors.hybrid_search(None, question, rank=rank), own)
                found = await vectors.hybrid_search(None, question, match="all", rank="bm25")
                having = {k: s for k, s in scores.items() if {*words} <= oracle.lexemes[k].keys()}
                assert_best(found, having)
                found = await vectors.hybrid_search(None, some, match="websearch", limit=3)
                gzip = {k for k, counts in oracle.lexemes.items() if "gzip" in counts}
                wider = oracle.scores([*words, "gzip"])
                assert_best(found, {k: s for k, s in wider.items() if k in gzip | having.keys()})


async def test_how_often_a_word_comes_is_counted_to_the_last(loaded: str) -> None:
    """`ts_rank` is a float4 of which the count is made."""
    query = (
        "SELECT n FROM (SELECT n, ts_rank('{1,1,1,1}', to_tsvector('simple', repeat('a ', n) || "
        "repeat('b ', 300)), 'a'::tsquery) AS part FROM generate_series(1, 255) n) parts WHERE n "
        "<> round(1 / (1.64493406685::float8 * (1 - part::float8)) - .5::float8)"
    )
    assert await rows(loaded, query) == []


async def test_nothing_changes_before_words_are_counted(dsn384: str) -> None:
    async with Database.connect(dsn384) as db, Database.connect(dsn384) as other:
        await db.vectors.ingest(SAMPLE.records())
        assert await db.vectors.word_statistics() is None
        question = QUESTIONS[3]
        before = [hit.id for hit in await db.vectors.hybrid_search(None, question)]
        old = await other.vectors.hybrid_search(None, question, rank="ts_rank")
        assert before == [hit.id for hit in old]
        by_found = await db.vectors.hybrid_search(None, question, rank="bm25")
        assert before != [hit.id for hit in by_found]
        done = await db.vectors.count_words()
        assert (done.documents, done.current_documents, done.changed) == (800, 800, 0)
        counted_then = [hit.id for hit in await db.vectors.hybrid_search(None, question)]
        assert counted_then not in (before, [hit.id for hit in by_found])
        assert [hit.id for hit in await other.vectors.hybrid_search(None, question)] == counted_then
        still = await db.vectors.hybrid_search(None, question, rank="ts_rank")
        assert [hit.id for hit in still] == before
        async with counted(dsn384) as trips, Database.connect(trips.dsn) as third:
            await third.vectors.hybrid_search(None, question)
            async with trips.expect(1):
                await third.vectors.hybrid_search(None, question)


async def test_writes_leave_what_was_counted_and_an_ingest_counts_anew(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Host.metadata.create_all)
        bare = db.collection(Bare)
        await bare.ingest(records(range(100)))
        assert await bare.word_statistics() is None  # not unasked
        first = await bare.count_words()
        new = {"id": "new", "embedding": [1, 1], "document": "red unheard"}
        await bare.upsert([new, {**new, "id": "old", "document": None}])
        await bare.update("r001", document="blue planet")
        stale = await bare.word_statistics()
        assert stale is not None
        assert (stale.documents, stale.current_documents, stale.changed) == (100, 101, 2)
        assert (stale.words, stale.counted_at) == (first.words, first.counted_at)
        # A word of which nothing was counted is a rare one.
        hits = await bare.hybrid_search(None, "red unheard", limit=2)
        assert hits[0].id == "new"
        await bare.ingest(records(range(100, 109)))  # less than a tenth
        assert await bare.word_statistics() != first
        assert (await bare.word_statistics()).documents == 100  # type: ignore[union-attr]
        async with db.unit_of_work() as uow:
            await uow.collection(Bare).ingest(records(range(109, 140)))
        renewed = await bare.word_statistics()
        assert renewed is not None
        assert (renewed.documents, renewed.changed) == (141, 0)
        await bare.delete_where({"$id": [f"r{n:03}" for n in range(140)]})
        assert (await bare.count_words()).words == 0
        left = await rows(
            dsn384,
            "SELECT word FROM qortex_db_word_frequencies WHERE table_name = 'public.bare'",
        )
        assert left == [""]
        await bare.delete_all()
        assert (await bare.count_words()).mean_length == 0
        await bare.upsert([new])
        assert [hit.id for hit in await bare.hybrid_search(None, "unheard")] == ["new"]


async def test_who_counts_meanwhile_is_told_and_an_ingest_goes_without(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        await db.vectors.ingest(SAMPLE.records())
        async with db.unit_of_work() as uow:
            await uow.vectors.count_words()
            with pytest.raises(LockTimeoutError, match="being counted"):
                await db.vectors.count_words()
        before = await db.vectors.word_statistics()
        async with db.unit_of_work() as uow:
            await uow.vectors.count_words()
            again = [{**record, "document": "other words"} for record in [*SAMPLE.records()][:200]]
            assert await db.vectors.ingest(again) == 200
        # What can't be counted is written all the same.
        await execute(
            dsn384, "ALTER TABLE qortex_db_word_frequencies ADD CHECK (documents < 0) NOT VALID"
        )
        with capture_logs() as logs:
            async with db.unit_of_work() as uow:
                again = [{**record, "document": "third words"} for record in again]
                assert await uow.vectors.ingest(again) == 200
        assert [log["event"] for log in logs if log["event"] != "ingest_batch"] == [
            "words_not_counted"
        ]
        after = await db.vectors.word_statistics()
        assert before is not None
        assert after is not None
        assert (after.documents, after.changed) == (before.documents, 200)


async def test_common_words_count_in_what_the_others_bring_in(
    loaded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a large table: two or three words of a question bring in rows."""
    monkeypatch.setattr(ranked, "COUNTED_ROWS", 150)
    oracle = await oracle_of(loaded, '"Stored words"', "document_words")
    async with Database.connect(loaded) as db:
        stored = db.collection(Stored)
        shares = []
        for question in QUESTIONS:
            scores = oracle.scores(await words_of(loaded, question))
            # Of another shape than what other tests have built.
            found = await stored.hybrid_search(None, question, where={"kind": {"$ne": question}})
            right = sorted(scores, key=lambda key: -scores[key])[:10]
            shares.append(len({hit.id for hit in found} & {*right}) / len(right))
        assert sum(shares) / len(shares) > 0.9
        assert min(shares) >= 0.3


async def test_frequencies_are_the_tables_under_namespaces_too(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Host.metadata.create_all)
        mine, others = (db.collection(Tenant, namespace=name) for name in "ab")
        # Where I look both words are as rare; in the table "sand" is everywhere.
        row = {"embedding": [1, 1]}
        await mine.upsert([{**row, "id": "s", "document": "sand"}])
        await mine.upsert([{**row, "id": "d", "document": "dune"}])
        await others.upsert([{**row, "id": f"{n}", "document": "sand"} for n in range(20)])
        assert [hit.id for hit in await mine.hybrid_search(None, "sand dune")] == ["d", "s"]
        scores = [hit.score for hit in await mine.hybrid_search(None, "sand dune", rank="bm25")]
        assert scores[0] == scores[1]
        counted_words = await mine.count_words()
        assert (counted_words.documents, counted_words.words) == (22, 1)
        best, last = await mine.hybrid_search(None, "sand dune")
        assert (best.id, last.id) == ("d", "s")
        assert best.score > last.score


async def test_policies_keep_what_was_counted_from_tenants(server: Server, dsn384: str) -> None:
    """What a tenant finds, and in which order, is what it would be without the others."""
    server.execute("DROP ROLE IF EXISTS bm25_tenant", "CREATE ROLE bm25_tenant LOGIN")
    found = []
    try:
        for everybody in (False, True):
            async with Database.connect(dsn384) as db:
                async with db.engine.begin() as connection:
                    await connection.run_sync(Host.metadata.drop_all)
                    await connection.run_sync(Host.metadata.create_all)
                tenants = "current_setting('app.tenant', true)"
                rights = "SELECT, INSERT, UPDATE, DELETE"
                await execute(
                    dsn384,
                    "ALTER TABLE bare ENABLE ROW LEVEL SECURITY",
                    f"CREATE POLICY own ON bare USING (payload->>'of' = {tenants})",
                    f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO bm25_tenant",
                )
                bare = db.collection(Bare)
                mine = [{**record, "payload": {"of": "a"}} for record in records(range(40))]
                await bare.upsert(mine)
                if everybody:
                    others = {"payload": {"of": "b"}, "embedding": [1, 1]}
                    await bare.upsert(
                        {**others, "id": f"b{n}", "document": "red red secret"} for n in range(300)
                    )
                await bare.count_words()
            tenant = Settings(dsn=re.sub(r"//[^@/]*@", "//bm25_tenant@", dsn384))
            async with Database.connect(tenant) as plain:
                a = plain.with_settings({"app.tenant": "a"}).collection(Bare)
                assert await a.word_statistics() is None
                with pytest.raises(InvalidInputError, match="policy"):
                    await a.count_words()
                await a.ingest(records(range(0)))
                # By the statement of whoever sees all, too: two roles may have one engine.
                for counted_before in (None, 340):
                    known = a._vectors.executor.known()
                    assert known is not None
                    if counted_before is not None:
                        known[word_counts._key(a._vectors)] = counted_before, 0.0
                    for match in ("any", "all"):
                        hits = await a.hybrid_search(
                            None, "red blue", rank="bm25", alpha=0, match=match, limit=40
                        )
                        found.append((everybody, [(hit.id, hit.score) for hit in hits]))
    finally:
        await execute(dsn384, "DROP OWNED BY bm25_tenant")
        server.execute("DROP ROLE bm25_tenant")
    alone = [hits for everybody, hits in found if not everybody]
    beside = [hits for everybody, hits in found if everybody]
    assert alone == beside
    assert all(hits for hits in alone)


async def test_without_the_packages_tables_words_are_ranked_by_what_is_found(
    empty_dsn: str,
) -> None:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    async with Database.connect(empty_dsn) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Host.metadata.create_all)
        bare = db.collection(Bare)
        await bare.ingest(records(range(40)))
        for rank in (None, "ts_rank", "bm25", BM25(b=0)):
            assert len(await bare.hybrid_search(None, "red sand", rank=rank)) == 10
        with pytest.raises(SchemaVersionError):
            await bare.count_words()
        for wrong in ("bm26", 1, BM25):
            with pytest.raises(InvalidInputError, match="rank"):
                await bare.hybrid_search(None, "red", rank=wrong)  # type: ignore[arg-type]
    for options in ({"k1": -1}, {"b": 2}, {"k1": math.nan}):
        with pytest.raises(InvalidInputError):
            BM25(**options)


async def test_any_table_with_a_document_is_counted(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Host.metadata.create_all)
        mails = db.collection(Mail)
        texts = {n: record["document"] for n, record in enumerate(records(range(50)))}
        await mails.upsert(
            {"id": n, "embedding": [1, n + 1], "document": document}
            for n, document in texts.items()
        )
        done = await mails.count_words()
        assert (done.documents, done.changed) == (50, None)
        oracle = await oracle_of(
            dsn384,
            '(SELECT number::text AS id, body AS document FROM "Mails") mails',
            "to_tsvector('simple', document)",
        )
        scores = {int(key): score for key, score in oracle.scores(["red", "sand"]).items()}
        for vector in (None, [1, 1]):
            found = await mails.hybrid_search(vector, "red sand", branch_limit=50)
            by_words = [hit for hit in found if "text" in (hit.branches or {})]
            assert by_words
            for hit in by_words:
                assert hit.branches is not None
                assert hit.branches["text"].score == pytest.approx(scores[hit.id])
        assert_best(await mails.hybrid_search(None, "red sand"), scores)  # type: ignore[arg-type]


async def test_a_key_of_several_columns_is_ranked_too(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Host.metadata.create_all)
        pages = db.collection(Page)
        await pages.upsert(
            {"id": ("atlas", n), "embedding": [1, n + 1], "document": record["document"]}
            for n, record in enumerate(records(range(30)))
        )
        uncounted = await pages.hybrid_search(None, "red sand", rank="bm25")
        await pages.count_words()
        counted_words = await pages.hybrid_search([1, 1], "red sand", match="any")
        every = await pages.hybrid_search(None, "red", match="all", limit=30)
        for hits in (uncounted, counted_words, every):
            assert len(hits) >= 10
            assert all(hit.id[0] == "atlas" for hit in hits)
        likely = await pages.search_many([[1, 1], [1, 9]], where=[None, Page.number == 3])
        assert [hit.id for hit in likely[1]] == [("atlas", 3)]
        assert likely[0][0].id == ("atlas", 0)


async def test_the_command_counts_in_the_schema_that_is_named(empty_dsn: str) -> None:
    await execute(empty_dsn, 'CREATE SCHEMA "Own_Schema"', "CREATE EXTENSION vector")
    settings = Settings(dsn=empty_dsn, db_schema="Own_Schema", dimensions=384)
    await migrations.upgrade(settings)
    async with Database.connect(settings) as db:
        await db.vectors.ingest(SAMPLE.records())
    async with Database.connect(settings) as db:  # which has not looked yet
        environment = {"PGVECTOR_DSN": empty_dsn, "QORTEX_DB_SCHEMA": "Own_Schema"}
        done = run("count-words", **environment)
        assert done.out.startswith("800 documents are counted, of ")
        found = await db.vectors.word_statistics()
        assert found is not None
        assert f"{found.words:,} words are in more than one" in done.out
        names = await db.executor.run(
            text('SELECT DISTINCT table_name FROM "Own_Schema".qortex_db_word_frequencies'), {}
        )
        assert [tuple(row) for row in names.rows] == [('"Own_Schema".qortex_vectors',)]
        hits = await db.vectors.hybrid_search(None, QUESTIONS[3])
        other = await db.vectors.hybrid_search(None, QUESTIONS[3], rank="ts_rank")
        assert [hit.id for hit in hits] != [hit.id for hit in other]
