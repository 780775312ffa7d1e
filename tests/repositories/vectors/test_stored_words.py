"""The words of documents beside them: whose column it is, who keeps it, and what ranks by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, insert, inspect, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, make_transient, mapped_column

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    QortexVector,
    Settings,
    VectorMixin,
    VectorSpec,
    migrations,
)
from support.catalogue import execute, rows
from support.commands import run
from support.full_text import WORDS, words_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

COUNT = 400  # of 384 dimensions: cut into parts
WRONG = f"SELECT id FROM qortex_vectors WHERE document_words IS DISTINCT FROM {WORDS}"


class Host(DeclarativeBase):
    """A host's own base."""


class Article(VectorMixin, Host):
    __tablename__ = "articles"
    __collection__ = Collection(VectorSpec(384, index=None), text="english")

    year: Mapped[int | None] = mapped_column()


class Plain(VectorMixin, Host):
    """What it calls document_words is its own."""

    __tablename__ = "plain"
    __collection__ = Collection(VectorSpec(2, index=None))

    document_words: Mapped[str | None] = mapped_column()


class Tenant(VectorMixin, Host):
    __tablename__ = "tenants"
    __collection__ = Collection(
        VectorSpec(2, index=None), text="own.Haus", namespace="tenant", namespace_in_key=True
    )


def records(count: int = COUNT, *, every: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{i:04}",
            "embedding": [1.0, *[float(i + 1)] * 383],
            "document": f"run {i}: /etc/conf-{i % 7}.d/n{i}.conf " + "red " * (i % 3),
        }
        if i % every == 0
        else {"id": f"r{i:04}", "embedding": [2.0, *[float(i + 1)] * 383]}
        for i in range(count)
    ]


@pytest.fixture
async def hosts(dsn384: str) -> str:
    await execute(
        dsn384, "CREATE SCHEMA own", 'CREATE TEXT SEARCH CONFIGURATION own."Haus" (COPY = german)'
    )
    async with Database.connect(dsn384) as db, db.engine.begin() as connection:
        await connection.run_sync(Host.metadata.create_all)
    return dsn384


@pytest.fixture(params=["alone", "watched", "together"])
async def lane(request: pytest.FixtureRequest, hosts: str) -> AsyncIterator[Any]:
    """Repositories by themselves, while statements are listened to, and in a unit of work."""
    async with Database.connect(hosts) as db:
        if request.param == "together":
            async with db.unit_of_work() as uow:
                yield uow
        else:
            if request.param == "watched":
                event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
            yield db


async def test_the_server_keeps_the_words_of_a_collection(lane: Any, hosts: str) -> None:
    articles = lane.collection(Article)
    assert await articles.upsert(records()) == COUNT
    assert await articles.upsert(records(every=2)) == COUNT // 2
    assert await articles.update("r0003", document="nginx.conf", attributes={"year": 7})
    assert await articles.ingest(records(20), batch_size=7) == 20
    assert await articles.fill_words() == 0
    (record,) = (await articles.get(["r0003"])).values()
    assert record.attributes == {"year": 7}
    assert [one.id async for one in articles.stream()] == [f"r{i:04}" for i in range(COUNT)]
    with pytest.raises(InvalidInputError, match=r"document_words.*it has year"):
        await articles.upsert(
            [{"id": "x", "embedding": [1] * 384, "attributes": {"document_words": "x"}}]
        )
    for words in ("red", "conf-3.d", "run or red", "n7.conf"):
        query = (
            f"SELECT id, ts_rank_cd({WORDS}, q) FROM articles, "
            "websearch_to_tsquery('english', :words) q "
            f"WHERE {WORDS} @@ q"
        )
        asked = words.replace("conf-3.d", '"conf 3 d"').replace("n7.conf", '"n7 conf"')
        right = dict((await lane.executor.run(text(query), {"words": asked})).rows)
        assert right
        hits = await articles.hybrid_search(None, words, match="websearch", limit=COUNT)
        ranks = {hit.id: right[hit.id] for hit in hits}
        assert set(ranks) == set(right)
        assert list(ranks.values()) == sorted(ranks.values(), reverse=True)
        assert await articles.count(where={"$text": words}) == len(right)


async def test_our_writes_keep_the_words_of_the_default_table(lane: Any, hosts: str) -> None:
    vectors = lane.vectors
    wrong = text(WRONG.replace(":-@", r"\:-@"))
    assert await vectors.upsert(records(every=3)) == COUNT
    assert not (await lane.executor.run(wrong, {})).rows
    assert await vectors.upsert(records(every=2)) > 0  # others keep what they have
    assert not (await lane.executor.run(wrong, {})).rows
    changed = [{**record, "document": "changed.conf"} for record in records(200)]
    assert await vectors.ingest(changed, batch_size=150) == 200
    assert await vectors.update("r0003", document="nginx.conf")
    assert await vectors.update("r0004", payload={"a": 1})
    assert not (await lane.executor.run(wrong, {})).rows
    assert await vectors.fill_words() == 0


async def test_objects_and_core_inserts_keep_them_too(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        async with db.unit_of_work() as uow:
            uow.session.add_all(QortexVector(id=f"o{i}", document=f"n{i}.conf") for i in range(30))
            uow.session.add(QortexVector(id="none"))
            given = [{"id": f"c{i}", "document": f"c{i}.conf"} for i in range(3)]
            await uow.session.execute(insert(QortexVector), given)
        async with db.unit_of_work() as uow:
            one = await uow.session.get_one(QortexVector, "o7")
            one.document = "other words"
            by_sql = await uow.session.get_one(QortexVector, "o8")
            by_sql.document = func.lower("SAID in.sql")
            await uow.session.flush()
            await uow.session.refresh(one)
            assert one.document_words == "'word':2"  # as the server shows them
        assert await rows(dsn384, WRONG) == []


async def test_an_object_made_of_anothers_columns_has_the_words_of_its_document(
    dsn384: str,
) -> None:
    columns = inspect(QortexVector).column_attrs
    async with Database.connect(dsn384) as db:
        await db.vectors.upsert(records(4))
        async with db.unit_of_work() as uow:
            kept, copied, moved, merged = [
                await uow.session.get_one(QortexVector, f"r{i:04}") for i in range(4)
            ]
            given = {column.key: getattr(copied, column.key) for column in columns}
            uow.session.add(QortexVector(**given | {"id": "copy"}))
            for one in (moved, merged):
                uow.session.expunge(one)
            make_transient(moved)
            moved.id = "moved"
            uow.session.add(moved)
            merged.document = "merged.conf"
            await uow.session.merge(merged)
            kept.payload = {"a": 1}
        async with db.unit_of_work() as uow:
            await uow.session.delete(await uow.session.get_one(QortexVector, "r0001"))
            await uow.session.flush()
            await uow.session.merge(copied)
        assert await db.vectors.count() == 6
        assert await rows(dsn384, WRONG) == []


async def test_what_others_write_is_found_and_ranked_until_it_is_filled(dsn384: str) -> None:
    async with Database.connect(dsn384) as db:
        await db.vectors.upsert(records(10))
        await execute(
            dsn384,
            "INSERT INTO qortex_vectors (id, document) "
            "SELECT 'other' || i, repeat('zebra ', i) FROM generate_series(1, 30) i",
            "UPDATE qortex_vectors SET document = 'a zebra now' WHERE id = 'r0001'",
        )
        async with db.unit_of_work() as uow:
            change = update(QortexVector).where(QortexVector.id == "r0002")
            await uow.session.execute(change.values(document="zebra crossing"))
        hits = await db.vectors.hybrid_search(None, "zebra", match="websearch", limit=100)
        assert [hit.id for hit in hits][:2] == ["other30", "other29"]
        assert {hit.id for hit in hits[-3:]} == {"other1", "r0001", "r0002"}
        assert len(hits) == 32
        assert not await db.vectors.hybrid_search(None, "run 1", match="phrase")
        before = [(hit.id, hit.score) for hit in hits]

        async def stop(done: int) -> None:
            await asyncio.sleep(0)
            if done >= 20:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await db.vectors.fill_words(batch_size=5, on_progress=stop)
        assert len(await rows(dsn384, WRONG)) == 32 - 20
        seen: list[int] = []
        assert await db.vectors.fill_words(batch_size=9, on_progress=seen.append) == 12
        assert seen == [9, 18, 27, 36, 40]
        assert await rows(dsn384, WRONG) == []
        after = await db.vectors.hybrid_search(None, "zebra", match="websearch", limit=100)
        assert [(hit.id, hit.score) for hit in after] == before


async def test_the_words_are_filled_in_a_unit_of_work_and_by_the_command(dsn384: str) -> None:
    unfilled = "UPDATE qortex_vectors SET document_words = NULL"
    async with Database.connect(dsn384) as db:
        await db.vectors.upsert(records(30))
        await execute(dsn384, unfilled)
        async with db.unit_of_work() as uow:
            assert await uow.vectors.fill_words(batch_size=7) == 30
            await uow.session.rollback()
    done = run("fill-words", "--batch-size", "7", PGVECTOR_DSN=dsn384)
    assert (done.code, done.out.strip()) == (0, "30 rows have their words now.")
    assert await rows(dsn384, WRONG) == []


async def test_a_column_of_that_name_stays_the_hosts(hosts: str) -> None:
    async with Database.connect(hosts) as db:
        plain = db.collection(Plain)
        given = {"id": "a", "embedding": [1, 0], "document": "red", "attributes": {}}
        await plain.upsert([{**given, "attributes": {"document_words": "mine"}}])
        (record,) = (await plain.get(["a"])).values()
        assert record.attributes == {"document_words": "mine"}
        assert len(await plain.hybrid_search(None, "red")) == 1
        assert await plain.fill_words() == 0
    with pytest.raises(InvalidInputError, match="document_words of its own"):
        type(
            "Both",
            (VectorMixin, Host),
            {
                "__tablename__": "both",
                "__collection__": Collection(VectorSpec(2), text="english"),
                "document_words": mapped_column(),
                "__annotations__": {"document_words": Mapped[str]},
            },
        )
    with pytest.raises(InvalidInputError, match="write = mapped_column"):
        type(
            "Bare",
            (VectorMixin, Host),
            {
                "__tablename__": "bare",
                "__collection__": Collection(VectorSpec(2)),
                "__annotations__": {"document_words": Mapped[str]},
            },
        )


async def test_a_configuration_of_the_hosts_own_is_stored_and_is_no_drift(hosts: str) -> None:
    assert await migrations.drift(Settings(dsn=hosts), metadata=Host.metadata) == []
    async with Database.connect(hosts) as db:
        for name in ("one", "two"):
            await db.collection(Tenant, namespace=name).upsert(
                [{"id": "a", "embedding": [1, 0], "document": "Die Häuser"}]
            )
        hits = await db.collection(Tenant, namespace="one").hybrid_search([1, 0], "Haus")
        assert [hit.id for hit in hits] == ["a"]
        assert hits[0].score == pytest.approx(2 / 61)
    stored = await rows(hosts, "SELECT document_words::text FROM tenants")
    right = await rows(hosts, f"SELECT {words_of('document', 'german')}::text FROM tenants")
    assert stored == right
