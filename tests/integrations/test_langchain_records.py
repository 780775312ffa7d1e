"""LangChain's `index()` over our store and record manager: nothing twice, nothing lost."""

from __future__ import annotations

import asyncio
import math
import zlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import aindex, index
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, InvalidInputError, SchemaVersionError, Settings, migrations
from qortex_db.integrations.langchain import QortexRecordManager, QortexVectorStore
from qortex_db.models import IndexedDocument
from qortex_db.repositories.indexed_documents import IndexedDocumentRepository
from qortex_db.testing import asyncpg_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Cleanup = Literal["incremental", "full", "scoped_full"] | None
HOUR = 3_600.0


class Seeded(Embeddings):
    """Each text has a vector of its own; one that says so has none."""

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self.embedded = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += len(texts)
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        scale = 0.0 if "broken" in text else 1.0
        seed = zlib.crc32(text.encode())
        return (scale * np.random.default_rng(seed).normal(size=self.size)).tolist()  # type: ignore[no-any-return]


def documents(count: int, *, first: int = 0, version: int = 1, sources: int = 5) -> list[Document]:
    return [
        Document(
            page_content=f"passage {number}, version {version}",
            metadata={"source": f"file {number % sources}", "number": number},
        )
        for number in range(first, first + count)
    ]


@pytest.fixture
async def manager(dsn: str) -> AsyncIterator[QortexRecordManager]:
    manager = QortexRecordManager("articles", database=dsn)
    yield manager
    await manager.aclose()
    await asyncio.to_thread(manager.close)


async def numbers(db: Database) -> list[int]:
    return sorted([record.payload["number"] async for record in db.vectors.stream()])


async def test_what_is_recorded_is_found_listed_and_forgotten(
    manager: QortexRecordManager, dsn: str
) -> None:
    await manager.acreate_schema()
    start = await manager.aget_time()
    await manager.aupdate(["c", "a", "b"], group_ids=["one", "two", None], time_at_least=start)
    middle = await manager.aget_time()
    await manager.aupdate(["d", "a", "d"], group_ids=["one", "two", "three"])
    end = await manager.aget_time()
    assert start < middle < end

    assert await manager.aexists(["a", "x", "a", "d"]) == [True, False, True, True]
    assert await manager.aexists([]) == []
    assert await manager.alist_keys() == ["b", "c", "a", "d"]  # those of one moment by their names
    assert await manager.alist_keys(limit=3) == ["b", "c", "a"]
    assert await manager.alist_keys(before=middle) == ["b", "c"]
    assert await manager.alist_keys(after=middle) == ["a", "d"]
    assert await manager.alist_keys(before=start) == await manager.alist_keys(after=end) == []
    assert await manager.alist_keys(group_ids=["two", "three"]) == ["a", "d"]
    assert await manager.alist_keys(group_ids=["one"], after=start, before=middle) == ["c"]
    assert await manager.alist_keys(group_ids=["one", "two"], limit=1) == ["c"]
    assert await manager.alist_keys(group_ids=[]) == []

    other = QortexRecordManager("others", database=dsn)
    assert await other.alist_keys() == []
    assert await other.aexists(["a"]) == [False]
    await other.aupdate(["a"])
    await other.adelete_keys(["b", "c"])

    await manager.adelete_keys(["a", "nobody", "a"])
    await manager.adelete_keys([])
    assert await manager.alist_keys() == ["b", "c", "d"]
    assert await other.alist_keys() == ["a"]
    await other.aclose()


def test_the_methods_that_wait_do_the_same(dsn: str) -> None:
    manager = QortexRecordManager("articles", database=dsn)
    manager.create_schema()
    start = manager.get_time()
    manager.update(["a", "b"], group_ids=["g", None], time_at_least=start)
    assert manager.exists(["b", "c"]) == [True, False]
    assert manager.list_keys(after=start, group_ids=["g"], limit=5) == ["a"]
    manager.delete_keys(["a"])
    assert manager.list_keys(before=manager.get_time()) == ["b"]
    manager.close()


async def test_a_document_that_is_noted_again_keeps_its_source(
    manager: QortexRecordManager,
) -> None:
    await manager.aupdate(["a", "b"], group_ids=["file", "file"])
    await manager.aupdate(["a", "new"])  # as index() does before it writes anything
    assert await manager.alist_keys(group_ids=["file"]) == ["b", "a"]
    await manager.aupdate(["a"], group_ids=[None])
    assert await manager.alist_keys(group_ids=["file"]) == ["b"]


async def test_the_clock_is_the_servers_and_never_goes_back(
    manager: QortexRecordManager, dsn: str
) -> None:
    async with Database.connect(dsn) as db:
        asked = await db.executor.run(text("SELECT extract(epoch FROM clock_timestamp())"), {})
        assert 0 <= await manager.aget_time() - float(asked.rows[0][0]) < 60
        ahead = await manager.aget_time() + HOUR
        with pytest.raises(InvalidInputError, match=r"after the server's clock.*Nothing was"):
            await manager.aupdate(["a"], group_ids=["g"], time_at_least=ahead)
        with pytest.raises(InvalidInputError, match="after the server's clock"):
            await manager.aupdate(["a"], time_at_least=ahead)
        assert await manager.aexists(["a"]) == [False]

        await manager.aupdate(["a", "b"])
        later = "UPDATE qortex_db_indexed_documents SET updated_at = updated_at + interval '1 hour'"
        await db.executor.run(text(f"{later} WHERE key = 'a'"), {})
        await manager.aupdate(["a", "b"])  # the clock was put back an hour
        assert await manager.alist_keys(after=ahead - 60) == ["a"]


async def test_times_are_exact_to_the_microsecond(manager: QortexRecordManager, dsn: str) -> None:
    await manager.aupdate(["a"])
    async with Database.connect(dsn) as db:
        for at in ("2026-01-02 03:04:05.678901", "2026-01-02 03:04:05.678902", "2040-05-06 07:08"):
            query = f"UPDATE qortex_db_indexed_documents SET updated_at = '{at}Z' RETURNING "
            epoch = "extract(epoch FROM updated_at)::float8"
            seconds = (await db.executor.run(text(query + epoch), {})).rows[0][0]
            assert await manager.alist_keys(before=seconds) == []
            assert await manager.alist_keys(after=seconds) == []
            assert await manager.alist_keys(before=seconds + 1e-6) == ["a"]
            assert await manager.alist_keys(after=seconds - 1e-6) == ["a"]


async def test_what_can_be_no_record_is_refused_before_the_server(
    manager: QortexRecordManager,
) -> None:
    wrong: Any = 3
    refused: list[tuple[Callable[[], Awaitable[object]], str]] = [
        (lambda: manager.aupdate(["a", "b"], group_ids=["g"]), "2 keys and 1 group_ids"),
        (lambda: manager.aupdate(["a", ""]), r"keys\[1\] is empty"),
        (lambda: manager.aupdate(["a"], group_ids=[wrong]), r"group_ids\[0\] is a int"),
        (lambda: manager.aupdate("ab"), "keys is a str"),
        (lambda: manager.aupdate(["a\x00"]), "NUL"),
        (lambda: manager.aupdate(["a"], time_at_least=math.nan), "time_at_least is nan"),
        (lambda: manager.aexists(["a" * 1_025]), "1025 bytes"),
        (lambda: manager.alist_keys(before=math.inf), "before is inf"),
        (lambda: manager.alist_keys(after=-1.0), "after is -1"),
        (lambda: manager.alist_keys(limit=0), "limit has to be"),
        (lambda: manager.alist_keys(group_ids=[wrong]), r"group_ids\[0\]"),
        (lambda: manager.adelete_keys(["\ud800"]), "surrogate"),
    ]
    for call, message in refused:
        with pytest.raises(InvalidInputError, match=message):
            await call()
    with pytest.raises(InvalidInputError, match="namespace is empty"):
        QortexRecordManager("")


async def test_each_method_is_one_statement_however_many_keys(dsn: str) -> None:
    engine = create_async_engine(asyncpg_url(dsn))
    manager = QortexRecordManager("articles", database=Database.from_engine(engine))
    sent: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *c: sent.append(c[2]))
    keys = [f"k{number:05}" for number in range(12_000)]
    groups = [f"g{number % 7}" for number in range(12_000)]
    works: list[Callable[[], Awaitable[object]]] = [
        lambda: manager.aupdate(keys, group_ids=groups, time_at_least=1.0),
        lambda: manager.aexists(keys),
        lambda: manager.alist_keys(group_ids=["g1"], before=2e9, limit=10),
        lambda: manager.adelete_keys(keys),
        manager.aget_time,
        manager.acreate_schema,
    ]
    try:
        await manager.aget_time()
        for work in works:
            sent.clear()
            await work()
            assert len(sent) == 1, sent
    finally:
        await engine.dispose()


async def test_writers_of_the_same_keys_in_any_order_never_deadlock(
    manager: QortexRecordManager,
) -> None:
    keys = [f"k{number:03}" for number in range(400)]
    for _ in range(5):
        await asyncio.gather(
            *(manager.aupdate(keys[::step], group_ids=["g"] * 400) for step in (1, -1, 1, -1)),
            *(manager.adelete_keys(keys[::step]) for step in (1, -1)),
        )
    await manager.aupdate(keys)
    assert all(await manager.aexists(keys))


async def test_a_record_that_waited_for_another_does_not_turn_its_time_back(
    manager: QortexRecordManager, dsn: str
) -> None:
    await manager.aupdate(["a"], group_ids=["old"])
    async with Database.connect(dsn) as db:
        async with db.unit_of_work() as uow:
            own = IndexedDocumentRepository(uow.executor.of(IndexedDocument), "articles")
            await own.exist(["a"])
            lock = "SELECT 1 FROM qortex_db_indexed_documents FOR UPDATE"
            await uow.session.execute(text(lock))
            waiting = asyncio.ensure_future(manager.aupdate(["a"], group_ids=["waited"]))
            await asyncio.sleep(0.3)  # it has asked for the time
            await own.record(["a"], groups=["first"])
            between = await own.clock()
            noted = await own.keys(before=between)
            assert noted == ["a"]
        await waiting
        assert await manager.alist_keys(after=between) == []
        times = await db.executor.run(
            text("SELECT extract(epoch FROM updated_at)::float8 FROM qortex_db_indexed_documents"),
            {},
        )
        assert between - times.rows[0][0] < 0.2


async def test_without_its_table_the_schema_names_the_command(empty_dsn: str) -> None:
    manager = QortexRecordManager("articles", database=empty_dsn)
    with pytest.raises(SchemaVersionError, match="qortex-db upgrade"):
        await manager.acreate_schema()
    with pytest.raises(SchemaVersionError, match="qortex-db upgrade"):
        await asyncio.to_thread(manager.create_schema)
    await manager.aclose()
    await asyncio.to_thread(manager.close)


async def test_its_table_is_in_a_schema_of_its_own_too(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, db_schema="memory", dimensions=8)
    await migrations.upgrade(settings)
    manager = QortexRecordManager("articles", database=settings)
    await manager.acreate_schema()
    await manager.aupdate(["a"])
    assert await manager.aexists(["a"]) == [True]
    await manager.aclose()


async def indexed(
    found: list[Document],
    manager: QortexRecordManager,
    store: QortexVectorStore,
    cleanup: Cleanup,
    *,
    waits: bool,
    **options: Any,
) -> dict[str, int]:
    given: dict[str, Any] = {
        "cleanup": cleanup,
        "source_id_key": "source",
        "key_encoder": "sha256",
        **options,
    }
    if waits:
        done = await asyncio.to_thread(lambda: index(found, manager, store, **given))
    else:
        done = await aindex(found, manager, store, **given)
    return {name.removeprefix("num_"): count for name, count in done.items() if count}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("count", "size", "waits"),
    [
        pytest.param(10_500, 384, False, marks=pytest.mark.slow, id="10,500 awaited"),
        pytest.param(50, 384, True, id="50 waited for"),
    ],
)
async def test_indexing_again_writes_what_changed_and_removes_what_went(
    dsn384: str, count: int, size: int, *, waits: bool
) -> None:
    model = Seeded(size)
    tenth = count // 10
    async with Database.connect(dsn384) as db:
        async with db.unit_of_work() as uow:  # an index of vectors would take most of the time
            await uow.session.execute(text("DROP INDEX ix_qortex_vectors_vec"))
        store = QortexVectorStore(model, database=dsn384)
        manager = QortexRecordManager("articles", database=dsn384)

        async def run(found: list[Document], cleanup: Cleanup, **options: Any) -> dict[str, int]:
            given = {"batch_size": 1_000, "waits": waits} | options
            return await indexed(found, manager, store, cleanup, **given)

        every = documents(count)
        assert await run(every + every[:7], None) == {"added": count, "skipped": 7}
        assert model.embedded == count
        assert await run(every, None) == {"skipped": count}
        assert await run(every, "full") == {"skipped": count}
        assert await run(every[:tenth], None, force_update=True) == {"updated": tenth}
        assert model.embedded == count + tenth

        # Those of one file are said anew; the rest of that file goes, and nothing of the others.
        new = documents(tenth, version=2, sources=1)
        done = await run(new, "incremental", batch_size=tenth, cleanup_batch_size=37)
        assert done == {"added": tenth, "deleted": count // 5}
        of_others = [number for number in range(count) if number % 5]
        assert await numbers(db) == sorted([*range(tenth), *of_others])

        done = await run(documents(tenth, first=count, sources=2), "scoped_full")
        assert done == {"added": tenth, "deleted": tenth + count // 5}
        left = [number for number in range(count) if number % 5 > 1]
        assert await numbers(db) == [*left, *range(count, count + tenth)]

        done = await run(every[:tenth], "full")
        kept = sum(1 for number in range(tenth) if number % 5 > 1)
        assert done == {
            "added": tenth - kept,
            "skipped": kept,
            "deleted": len(left) + tenth - kept,
        }
        assert await numbers(db) == list(range(tenth))
        stored = [record.id async for record in db.vectors.stream()]
        assert sorted(stored) == sorted(await manager.alist_keys())
        (hit,) = await store.asimilarity_search("passage 3, version 1", k=1)
        assert hit.metadata == {"source": "file 3", "number": 3}
        for each in (store, manager):
            await each.aclose()
            await asyncio.to_thread(each.close)


async def test_what_was_not_stored_is_not_recorded_and_comes_the_next_time(
    dsn: str, db: Database
) -> None:
    store = QortexVectorStore(Seeded(), database=db)
    manager = QortexRecordManager("articles", database=db)
    found = documents(30)
    found[14].page_content = "broken"  # of no direction: the store refuses it
    with pytest.raises(InvalidInputError):
        await indexed(found, manager, store, "full", waits=False, batch_size=10)
    assert await numbers(db) == list(range(10))
    assert len(await manager.alist_keys()) == 10
    found[14].page_content = "mended"
    done = await indexed(found, manager, store, "full", waits=False, batch_size=10)
    assert done == {"added": 20, "skipped": 10}
    assert await numbers(db) == list(range(30))


@pytest.mark.parametrize("cleanup", [None, "incremental", "scoped_full", "full"])
async def test_two_indexers_at_once_lose_nothing(dsn: str, db: Database, cleanup: Cleanup) -> None:
    async def run(found: list[Document], batch_size: int = 20) -> dict[str, int]:
        store = QortexVectorStore(Seeded(), database=db)
        manager = QortexRecordManager("articles", database=db)
        return await indexed(found, manager, store, cleanup, waits=False, batch_size=batch_size)

    # The same documents; and, but where all others are to go, those of other files.
    first = documents(200)
    others = first if cleanup == "full" else documents(200, first=200)
    for document in others[:0] if cleanup == "full" else others:
        document.metadata["source"] += " of another"
    await asyncio.gather(run(first), run(first), run(others))
    expected = sorted({document.metadata["number"] for document in first + others})
    assert await numbers(db) == expected
    manager = QortexRecordManager("articles", database=db)
    assert sorted([record.id async for record in db.vectors.stream()]) == sorted(
        await manager.alist_keys()
    )
    assert await run(first, batch_size=200) == {"skipped": 200}
