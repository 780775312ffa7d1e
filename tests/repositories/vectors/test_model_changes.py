"""A table changes the model of its embeddings while it is in use, from 384 dimensions to 768."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cryptography.fernet import Fernet
from sqlalchemy import BigInteger, Text, event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from qortex_db import (
    CLEAR,
    Collection,
    ConflictError,
    Database,
    DimensionMismatchError,
    Embedder,
    Embedding,
    EmbeddingModelError,
    InvalidInputError,
    LockTimeoutError,
    QortexVector,
    SerializationConflictError,
    Settings,
    VectorMixin,
    VectorRecord,
    VectorSpec,
    migrations,
)
from qortex_db.repositories.vectors import table_facts
from support.two_models import (
    ASKED,
    BGE,
    BOTH,
    MINILM,
    Base,
    Memo,
    begin,
    create,
    migrate,
    new_vector,
    old_vector,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from qortex_db.uow import Repositories

SEEN_SECONDS = 0.5
"""After which every process has seen what was changed, in this test."""


class Page(Base):
    """A table of a stranger's, with a key of two columns."""

    __tablename__ = "pages"

    book: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    number: Mapped[str] = mapped_column(Text, primary_key=True)
    body: Mapped[str | None] = mapped_column(Text)
    emb: Mapped[Any | None] = mapped_column(Embedding(384))


class Secret(VectorMixin, Base):
    """With documents that nobody reads in the database."""

    __tablename__ = "secrets"
    __collection__ = Collection(
        VectorSpec(384), encrypted_document=True, namespace="tenant", payload_index=False
    )


PAGES = Collection(
    VectorSpec(384, column="emb"), id=("book", "number"), document="body", language=None
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others changed is seen sooner, and no text was asked for yet."""
    monkeypatch.setattr(table_facts, "FACTS_SECONDS", 0.3)
    monkeypatch.setattr(table_facts, "CHANGEOVER_SECONDS", 0.1)
    for asked in ASKED.values():
        asked.clear()


@pytest.fixture
async def memos(dsn384: str) -> str:
    """A database with a collection that nothing is in."""
    await create(dsn384)
    return dsn384


@asynccontextmanager
async def hosted(dsn: str, *, watched: bool = False) -> AsyncIterator[Database]:
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
    if watched:
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
    yield Database.from_engine(engine)
    await engine.dispose()


def said(number: int) -> str:
    return f"memo {number} of {number * 7919 % 1000}"


def memo(number: int, document: str | None = None) -> dict[str, Any]:
    return {"id": f"m{number:05}", "document": document or said(number)}


class App:
    """A version of an application: it searches, and writes, all the time."""

    def __init__(self, name: str, memory: Any, lane: Callable[[], Any] | None = None) -> None:
        self.name = name
        self.memory = memory
        self.lane = lane
        self.calls = 0
        self.refused = asyncio.Event()
        self.stopped = False

    async def run(self, work: Callable[[Any, int], Awaitable[None]]) -> None:
        """Until it is stopped, or told that its model is the old one."""
        for number in itertools.count():
            if self.stopped:
                return
            try:
                if self.lane is None:
                    await work(self.memory, number)
                else:
                    async with self.lane() as uow:
                        await work(self.memory(uow), number)
            except SerializationConflictError:  # by the end, as by other DDL: `run` begins anew
                if self.lane is None:
                    raise
                continue
            except EmbeddingModelError:
                if "old" not in self.name:
                    raise
                self.refused.set()
                return
            self.calls += 1
            await asyncio.sleep(0.03)


async def read(memory: Any, number: int) -> None:
    """A row that nobody changes is found by its own words, first and at once."""
    wanted = memo(number * 37 % 1000)
    hits = await memory.search(wanted["document"], limit=3, exact=number % 10 == 0)
    assert hits[0].id == wanted["id"], (number, [hit.id for hit in hits])
    assert hits[0].document == wanted["document"]


def write(first: int) -> Callable[[Any, int], Awaitable[None]]:
    """Rows change again and again, and what was written is found."""

    async def change(memory: Any, number: int) -> None:
        key = first + number % 50
        document = f"version {number} of {key}"
        await memory.upsert([memo(key, document), memo(first + 50 + number, f"new {number} {key}")])
        hits = await memory.search(document, limit=1)
        assert hits[0].id == memo(key)["id"], (number, hits[0].document)

    return change


async def refill(memory: Any, name: str) -> None:
    """What an operator does: fill what others left, until the switch is taken."""
    while True:
        await memory.reembed(into=name, batch_size=150)
        with suppress(ConflictError, LockTimeoutError):
            await memory.switch_to(name, closing=True)
            return


@pytest.mark.faults
async def test_a_model_is_changed_under_readers_and_writers_of_two_versions(memos: str) -> None:
    async with (
        Database.connect(memos) as first,
        Database.connect(memos) as second,
        hosted(memos, watched=True) as third,
    ):
        old, new = first.collection(Memo, embedder=MINILM), second.collection(Memo, embedder=BOTH)
        await old.ingest(memo(number) for number in range(2_000))

        def in_unit(embedder: Any) -> Callable[[Any], Any]:
            return lambda uow: uow.collection(Memo, embedder=embedder)

        old_apps = [
            (App("old reader", old), read),
            (App("old reader, units", in_unit(MINILM), first.unit_of_work), read),
            (App("old writer", old), write(10_000)),
            (App("old writer, host", third.collection(Memo, embedder=MINILM)), write(20_000)),
        ]
        new_apps = [
            (App("reader", new), read),
            (App("reader, units", in_unit(BOTH), second.unit_of_work), read),
            (App("writer", new), write(30_000)),
            (App("writer, host's units", in_unit(BOTH), third.unit_of_work), write(40_000)),
        ]
        async with asyncio.TaskGroup() as tasks:
            for app, work in old_apps:
                tasks.create_task(app.run(work))
            await migrate(memos, begin)
            for app, work in new_apps:
                tasks.create_task(app.run(work))
            await asyncio.sleep(SEEN_SECONDS)
            # It is ended in the middle, and goes on.
            enough = asyncio.Event()

            def tell(done: int) -> None:
                if done > 600:
                    enough.set()

            again = new.reembed(into="v2", batch_size=150, on_progress=tell)
            filling = asyncio.create_task(again)
            await enough.wait()
            filling.cancel()
            with suppress(asyncio.CancelledError):
                await filling
            await refill(new, "v2")
            async with asyncio.timeout(20):
                for app, _ in old_apps:
                    await app.refused.wait()
            calls = [app.calls for app, _ in new_apps]
            await asyncio.sleep(SEEN_SECONDS)
            await refill(new, "old")  # and back, and there again
            await asyncio.sleep(SEEN_SECONDS)
            await read(old, 1)
            await refill(new, "v2")
            await migrate(memos, lambda op: op.drop_embedding_column("memos", "old"))
            await asyncio.sleep(SEEN_SECONDS)
            assert all(app.calls > 20 for app, _ in (*old_apps, *new_apps))
            assert all(app.calls > call for (app, _), call in zip(new_apps, calls, strict=True))
            for app, _ in new_apps:
                app.stopped = True
        stable = [text for text in ASKED["bge"] if text.startswith("memo")]
        assert len(stable) <= 2_000 + 1_000  # each document once, and as many queries as rows
        with pytest.raises(EmbeddingModelError):
            await old.search("memo")
        # The row and its embedding are of one document, in all rows.
        alone = second.collection(Memo, embedder=BGE)
        async for record in alone.stream(batch_size=1_000):
            assert np.allclose(record.embedding, new_vector(str(record.document)), rtol=1e-6)
        assert not await migrations.drift(Settings(dsn=memos))


async def changing(dsn: str, db: Database, *, count: int = 40) -> Any:
    """A changeover whose rows are filled and that every process has seen; the app with both."""
    both = db.collection(Memo, embedder=BOTH)
    await db.collection(Memo, embedder=MINILM).upsert([memo(number) for number in range(count)])
    await migrate(dsn, begin)
    await both.reembed(into="v2")
    await asyncio.sleep(SEEN_SECONDS)
    return both


async def _streamed(memory: Any, query: Any) -> list[Any]:
    return [hit async for hit in memory.stream_search(query)]


def _record(given: Any) -> VectorRecord:
    if isinstance(given, str):
        return VectorRecord("m00001", document=given)
    return VectorRecord("m00001", given)


OF_NO_MODEL: dict[str, Callable[[Any, Any], Awaitable[object]]] = {
    "search": lambda v, q: v.search(q),
    "search, in full": lambda v, q: v.search(q, min_score=0.1, where={"a": 1}),
    "explain": lambda v, q: v.explain(q),
    "range_search": lambda v, q: v.range_search(q, min_score=0.5),
    "mmr_search": lambda v, q: v.mmr_search(q),
    "search_groups": lambda v, q: v.search_groups(q, "a"),
    "multi_search": lambda v, q: v.multi_search([q]),
    "search_many": lambda v, q: v.search_many([q]),
    "hybrid_search": lambda v, q: v.hybrid_search(q),
    "stream_search": _streamed,
    "upsert": lambda v, q: v.upsert([_record(q)]),
    "upsert_with_zeros": lambda v, q: v.upsert_with_zeros([_record(q)]),
    "insert": lambda v, q: v.insert([_record(q)]),
    "update_many": lambda v, q: v.update_many([_record(q)]),
    "ingest": lambda v, q: v.ingest([_record(q)]),
    "ingest, one by one": lambda v, q: v.ingest([_record(q)], on_error="skip"),
    "update": lambda v, q: (
        v.update("m00001", document=q) if isinstance(q, str) else v.update("m00001", embedding=q)
    ),
}
ONLY_EMBEDDINGS: dict[str, Callable[[Any, Any], Awaitable[object]]] = {
    "recommend": lambda v, q: v.recommend([q]),
    "recommend, by each": lambda v, q: v.recommend([q], ["m00001"], strategy="best_score"),
}


@pytest.mark.slow
async def test_whoever_has_the_old_model_is_refused_by_every_method(  # noqa: C901 - of every form
    memos: str,
) -> None:
    """And nothing is found or written by an embedding of which nobody says whose it is."""
    async with Database.connect(memos) as db, hosted(memos) as host:
        both = await changing(memos, db)
        alone, before = db.collection(Memo, embedder=MINILM), await both.search("memo", limit=40)
        await both.switch_to("v2")
        found = await both.get([hit.id for hit in before])

        async def refused(on: Repositories, method: str, call: Any, given: Any) -> None:
            for embedder in (MINILM, None):
                if embedder is None and isinstance(given, str):
                    continue
                with pytest.raises(EmbeddingModelError) as refusal:
                    await call(on.collection(Memo, embedder=embedder), given)
                assert refusal.value.current == "v2", method

        await asyncio.sleep(SEEN_SECONDS)
        for method, call in OF_NO_MODEL.items():
            for given in ("a text", old_vector("a text"), new_vector("a text")):
                await refused(db, method, call, given)
                async with db.unit_of_work() as uow:  # which goes on: nothing was sent
                    await refused(uow, method, call, given)
                    assert len(await uow.collection(Memo, embedder=BOTH).search("m")) == 10
        for method, call in ONLY_EMBEDDINGS.items():
            await refused(host, method, call, new_vector("a text"))
        for method in ("distance", "score"):
            with pytest.raises(EmbeddingModelError):
                getattr(alone, method)(old_vector("a"))
        assert {key: row.document for key, row in (await both.get(list(found))).items()} == {
            key: row.document for key, row in found.items()
        }
        # By its name each is taken.
        vector = new_vector(said(3))
        by_name = {"old": old_vector(said(3)), "v2": vector}
        for memory in (both, db.collection(Memo), host.collection(Memo)):
            for given, using in ((by_name, None), (vector, "v2"), (old_vector(said(3)), "old")):
                for hits in (
                    await memory.search(given, using=using, limit=2),
                    await memory.search(given, using=using, limit=2, exact=True),
                    await memory.mmr_search(given, using=using, limit=2),
                    (await memory.search_many([given], using=using, limit=2))[0],
                    await memory.hybrid_search(given, using=using, limit=2),
                ):
                    assert (hits[0].id, hits.requested) == ("m00003", 2)
            assert [h.id for h in await memory.recommend([by_name], limit=1)] == ["m00003"]
        async with db.unit_of_work() as uow:
            nearest = select(Memo.id).order_by(both.distance(vector, using="v2")).limit(1)
            assert (await uow.session.execute(nearest)).scalar_one() == "m00003"
        with pytest.raises(InvalidInputError, match=r"names 'v3'; memos has old and v2"):
            await both.upsert([VectorRecord("a", {"v3": vector})])
        with pytest.raises(DimensionMismatchError):
            await both.search({"v2": old_vector("a")})


async def raised(work: Awaitable[object]) -> str | None:
    """The SQLSTATE by which the server refuses something; None where it does not."""
    try:
        await work
    except (DBAPIError, EmbeddingModelError) as error:
        return getattr(error, "sqlstate", None) or error.orig.sqlstate  # type: ignore[union-attr]
    return None


@pytest.mark.slow
async def test_a_write_of_the_old_model_alone_never_leaves_a_wrong_embedding(memos: str) -> None:
    """Whoever writes: plain SQL, as a host's ORM does, that knows of one column or of both."""
    olds = {key: f"'{old_vector(key).tolist()}'" for key in "ab"}
    news = {key: f"'{new_vector(key).tolist()}'" for key in "ab"}
    row = "INSERT INTO memos (id, document, vec, v2) VALUES ('r', 'a', {}, {}) "
    before: dict[str, tuple[str, str | None]] = {
        # What is written over vec 'a', v2 'a', document 'a'; what v2 is then.
        f"vec = {olds['b']}": ("", None),
        "document = 'b'": ("", None),
        f"vec = {olds['b']}, v2 = {news['b']}": ("", "b"),
        f"vec = {olds['b']}, document = 'b'": ("", None),
        f"vec = {olds['b']}, v2 = v2": ("", None),
        "payload = '{\"a\": 1}'": ("", "a"),
        f"vec = {olds['a']}, document = 'a'": ("", "a"),
        f"v2 = {news['b']}": ("", "b"),
    }
    after: dict[str, tuple[str, str | None]] = {
        # What it is refused by, or what the old one, vec, is then.
        f"vec = {olds['b']}": ("QDB01", None),
        f"vec = {olds['b']}, document = 'b'": ("QDB01", None),
        "vec = NULL": ("QDB01", None),
        f"vec = {olds['b']}, v2 = NULL": ("QDB01", None),
        f"vec = {olds['b']}, v2 = v2, document = 'b'": ("", "b"),
        f"v2 = {news['b']}, document = 'b'": ("", None),
        "v2 = NULL": ("", None),
        "document = 'b'": ("", "a"),
        "payload = '{\"a\": 1}'": ("", "a"),
        f"vec = {olds['b']}, v2 = {news['b']}": ("", "b"),
    }
    async with Database.connect(memos) as db:
        both = await changing(memos, db, count=1)
        for cases, column, made in ((before, "v2", news), (after, "vec", olds)):
            for change, (state, left) in cases.items():
                async with db.engine.connect() as connection:
                    await connection.execute(text("DELETE FROM memos WHERE id = 'r'"))
                    await connection.execute(text(row.format(olds["a"], news["a"])))
                    statement = text(f"UPDATE memos SET {change}".replace(":", r"\:"))
                    wrote = await raised(connection.execute(statement))
                    assert (wrote or "") == state, change
                    if state:
                        continue
                    is_it = f"{column} IS NULL" if left is None else f"{column} = {made[left]}"
                    found = text(f"SELECT {is_it} FROM memos WHERE id = 'r'")
                    assert (await connection.execute(found)).scalar_one(), change
            if cases is before:
                await closed(db, both, row, olds, news)
                await both.switch_to("v2")
        await execute(db, "DELETE FROM memos WHERE id = 'r'")
        for values, state in (
            ((olds["a"], "NULL"), "QDB01"),
            (("NULL", news["a"]), None),
            (("NULL", "NULL"), None),
        ):
            async with db.engine.connect() as connection:
                assert await raised(connection.execute(text(row.format(*values)))) == state


async def closed(db: Database, both: Any, row: str, olds: Any, news: Any) -> None:
    """Before the switch, where writes of the old model alone are refused, and searches are not."""
    await execute(db, "DELETE FROM memos WHERE id = 'r'", row.format(olds["a"], "NULL"))
    with pytest.raises(ConflictError, match="are refused from now on"):
        await both.switch_to("v2", closing=True)
    for statement, state in (
        (f"UPDATE memos SET vec = {olds['b']}", "QDB01"),
        (row.format(olds["b"], "NULL").replace("'r'", "'s'", 1), "QDB01"),
        ("UPDATE memos SET payload = payload", None),
        (f"UPDATE memos SET vec = {olds['b']}, v2 = {news['b']}", None),
    ):
        async with db.engine.connect() as connection:
            assert await raised(connection.execute(text(statement))) == state
    await execute(db, f"UPDATE memos SET v2 = {news['a']} WHERE id = 'r'")
    kept = text("SELECT count(*) FROM memos WHERE vec IS NULL OR v2 IS NULL")
    assert (await db.executor.run(kept, {})).rows[0][0] == 0


async def execute(db: Database, *statements: str) -> None:
    for statement in statements:
        await db.executor.run(text(statement), {})


async def test_a_transaction_with_an_older_snapshot_sees_the_switch(memos: str) -> None:
    async with Database.connect(memos) as db, Database.connect(memos) as other:
        both = await changing(memos, db)
        for level in ("REPEATABLE READ", "SERIALIZABLE", "READ COMMITTED"):
            session = AsyncSession(other.engine.execution_options(isolation_level=level))
            async with session, session.begin():
                await session.execute(text("SELECT count(*) FROM memos"))
                await both.switch_to("v2")
                row = {"vec": f"{old_vector('b').tolist()}"}
                statement = text("UPDATE memos SET vec = CAST(:vec AS vector) WHERE id = 'm00001'")
                state = await raised(session.execute(statement, row))
                assert state == ("QDB01" if level == "READ COMMITTED" else "40001")
                await session.rollback()
            await both.switch_to("old")


@pytest.mark.slow
async def test_a_switch_is_refused_until_nothing_is_missing(  # noqa: PLR0915 - step by step
    memos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Database.connect(memos) as db, Database.connect(memos) as other:
        both, old = db.collection(Memo, embedder=BOTH), other.collection(Memo, embedder=MINILM)
        assert await both.changeover() is None
        with pytest.raises(InvalidInputError, match="the embeddings of one model alone"):
            await both.reembed(into="v2")
        for wrong in (True, 0, 2_001, "8"):
            with pytest.raises(InvalidInputError):
                await migrations.add_embedding_column("v2", wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError, match="batch_size"):
                await both.reembed(into="v2", batch_size=str(wrong))  # type: ignore[arg-type]
        await old.upsert([memo(number) for number in range(40)])
        await db.executor.run(
            text("INSERT INTO memos (id, vec) SELECT 'bare', vec FROM memos LIMIT 1"), {}
        )
        await migrate(memos, begin)
        change = await both.changeover()
        assert change is not None
        assert (change.current, change.other, change.missing) == ("old", "v2", 41)
        assert (change.without_document, change.switched_at) == (1, "")
        with pytest.raises(ConflictError, match=r"41 rows of memos have no v2 \(1 of them no doc"):
            await both.switch_to("v2")
        assert await both.reembed(into="v2", where=Memo.id < "m00010", batch_size=7) == 10
        assert await both.reembed(BGE, into="v2", batch_size=np.int64(7)) == 30
        assert len(ASKED["bge"]) == len(set(ASKED["bge"])) == 40
        with pytest.raises(ConflictError, match="1 rows"):
            await both.switch_to("v2")
        await both.update("bare", vectors={"v2": new_vector("bare")})
        await migrate(memos, begin)  # run again, it leaves all as it is
        with pytest.raises(InvalidInputError, match="no embeddings called 'v3'"):
            await both.switch_to("v3")
        with pytest.raises(EmbeddingModelError, match="are of bge, and this embedder is bge@2"):
            await both.reembed(Embedder(lambda texts: texts, name="bge", revision="2"), into="v2")
        with monkeypatch.context() as longer:
            longer.setattr(table_facts, "FACTS_SECONDS", 60)
            with pytest.raises(ConflictError, match="was added just now"):
                await both.switch_to("v2")
        await asyncio.sleep(SEEN_SECONDS)
        # A writer that has begun is waited for, and its row is seen.
        async with other.unit_of_work() as uow:
            await uow.collection(Memo, embedder=MINILM).upsert([memo(1, "changed")])
            with pytest.raises(LockTimeoutError):
                await both.switch_to("v2")
        with pytest.raises(ConflictError):
            await both.switch_to("v2")
        assert await both.reembed(into="v2") == 1
        await both.switch_to("v2")
        await both.switch_to("v2")
        await asyncio.sleep(SEEN_SECONDS)
        with pytest.raises(EmbeddingModelError):
            await old.search("memo")
        # What the new model's alone writes, the old one lacks until it is filled.
        alone = other.collection(Memo, embedder=BGE)
        await alone.upsert([memo(2, "of the new one alone")])
        assert await alone.update("m00003", document="changed by the new one alone")
        with pytest.raises(ConflictError, match="2 rows of memos have no old"):
            await both.switch_to("old")
        assert await both.reembed(into="old") == 2
        await both.switch_to("old")
        await asyncio.sleep(SEEN_SECONDS)
        assert (await old.search("of the new one alone", limit=1))[0].id == "m00002"
        assert await both.update("m00001", embedding=CLEAR)
        assert (await both.get(["m00001"]))["m00001"].vectors == {"v2": None}


@pytest.mark.faults
async def test_any_table_changes_its_model(memos: str) -> None:
    """A stranger's with a key of two columns, one of many tenants with what nobody reads, ours."""
    keys = [Fernet.generate_key()]
    settings = Settings(dsn=memos)
    operations: list[Callable[[Any], None]] = [
        lambda op: op.add_embedding_column(
            "pages", "v2", 768, column="emb", document="body", storage="half", metric="cosine"
        ),
        lambda op: op.add_embedding_column("secrets", "v2", 768, quantization="half"),
        lambda op: op.add_embedding_column("qortex_vectors", "v2", 768),
    ]
    async with Database.connect(settings, encryption_keys=keys) as db:
        collections: list[Callable[[Any], Any]] = [
            lambda embedder: db.collection(Page, PAGES, embedder=embedder),
            lambda embedder: db.collection(Secret, namespace="acme", embedder=embedder),
            lambda embedder: db.collection(QortexVector, embedder=embedder),
        ]
        for collection, operation in zip(collections, operations, strict=True):
            old, both = collection(MINILM), collection(BOTH)
            ids = [
                (n % 7, f"p{n}") if collection is collections[0] else f"p{n}" for n in range(230)
            ]
            records = [VectorRecord(key, document=said(n)) for n, key in enumerate(ids)]
            assert await old.ingest(records) == 230
            await migrate(memos, operation)
            assert await both.reembed(into="v2", batch_size=50) == 230
            await asyncio.sleep(SEEN_SECONDS)
            await both.switch_to("v2")
            for number in (3, 111, 229):
                (hit,) = await both.search(said(number), limit=1)
                assert (hit.id, hit.document) == (ids[number], said(number))
            stored = await both.get(ids[:3])
            assert {len(one.embedding) for one in stored.values()} == {768}
            assert {len((one.vectors or {})["old"]) for one in stored.values()} == {384}
            # What was read, and written back, changes nothing; nor does what others export.
            assert await both.upsert(stored.values()) == 0
            assert await both.upsert([replace(stored[ids[0]], document="another")]) == 1
            assert (await both.search("another", limit=1))[0].id != ids[0]
            assert await both.upsert([VectorRecord(ids[0], document="another")]) == 1
            assert (await both.search("another", limit=1))[0].id == ids[0]
            assert (await both.search("another", using="old", limit=1))[0].id == ids[0]
            assert [key async for key in _ids(both)] == [key async for key in _ids(old)]
            name = collection_name(operation)
            await migrate(memos, lambda op, name=name: op.drop_embedding_column(name, "old"))
            for memory in (both, collection(BGE), collection({"old": MINILM, "v2": BGE})):
                assert (await memory.search("another", limit=1))[0].id == ids[0]
                assert await memory.upsert([VectorRecord(ids[1], document=f"by {memory}")]) == 1
            assert await both.changeover() is None
            await asyncio.sleep(SEEN_SECONDS)
            with pytest.raises(EmbeddingModelError):
                await old.search("another")
            with pytest.raises(EmbeddingModelError):
                await old.upsert([VectorRecord(ids[2], document="of the old one")])
            with pytest.raises(EmbeddingModelError, match="those of old were dropped"):
                await both.search(old_vector("a"), using="old")
            # And once more.
            await migrate(memos, lambda op, name=name: _again(op, name))
            change = await collection({"old": BGE, "v3": MINILM}).changeover()
            assert change is not None
            assert (change.other, change.missing) == ("v3", 230)
            await migrate(memos, lambda op, name=name: op.drop_embedding_column(name, "v3"))
        assert not await migrations.drift(settings)


async def _ids(memory: Any) -> AsyncIterator[Any]:
    async for record in memory.stream(batch_size=100, with_embedding=False):
        yield record.id


def collection_name(operation: Callable[[Any], None]) -> str:
    """Of the table that an operation is about."""

    class Told:
        def add_embedding_column(self, name: str, *_: object, **__: object) -> None:
            self.name = name

    told = Told()
    operation(told)
    return told.name


def _again(op: Any, name: str) -> None:
    is_page = name == "pages"
    op.add_embedding_column(
        name,
        "v3",
        384,
        column="emb" if is_page else "vec",
        document="body" if is_page else "document",
    )


@pytest.mark.slow
async def test_nothing_of_a_change_is_drift_and_all_that_is_not_of_it_is(memos: str) -> None:
    settings = Settings(dsn=memos)
    await migrate(memos, begin)

    async def compared() -> list[Any]:
        async with hosted(memos) as db, db.engine.connect() as connection:
            return await connection.run_sync(
                lambda sync: compare_metadata(
                    MigrationContext.configure(
                        sync, opts={"include_name": migrations.include_name}
                    ),
                    Base.metadata,
                )
            )

    assert await compared() == []
    found = await migrations.drift(settings, metadata=Base.metadata)
    assert found == []
    async with Database.connect(memos) as db:
        await execute(
            db,
            "ALTER TABLE memos ADD COLUMN v9 vector(3)",
            "DROP TRIGGER qortex_db_changeover_2 ON memos",
            "DROP INDEX ix_memos_v2_missing",
        )
    objects = {each.object for each in await migrations.drift(settings, metadata=Base.metadata)}
    assert objects == {
        *("column v9", "trigger qortex_db_changeover_2"),
        "index ix_memos_v2_missing",
    }
    await migrate(memos, begin)  # which makes them anew
    objects = {each.object for each in await migrations.drift(settings, metadata=Base.metadata)}
    assert objects == {"column v9"}
