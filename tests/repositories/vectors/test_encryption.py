"""Payloads that are stored encrypted: what comes back is clear, and what is stored never is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cryptography.fernet import Fernet
from numpy.typing import NDArray  # noqa: TC002 - SQLAlchemy resolves Mapped[...]
from sqlalchemy import event, select
from sqlalchemy.orm import DeclarativeBase, Mapped

from qortex_db import (
    Collection,
    Database,
    EncryptionError,
    InvalidInputError,
    Settings,
    UnitOfWork,
    VectorMixin,
    VectorSpec,
    unit_of_work,
    vector_column,
)
from qortex_db.filters import payload_index
from support.catalogue import execute, rows
from support.tables import create

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from qortex_db.repositories import VectorRepository

MODULE = Path(__file__).stem
SIZE = 384
COUNT = 190  # more than a part of a batch
NEW, OLD = Fernet.generate_key().decode(), Fernet.generate_key().decode()
SECRET = "Grüße an 4711"  # noqa: S105 - a value under test
VECTORS = np.random.default_rng(5).normal(size=(COUNT, SIZE)).astype(np.float32)
Q = VECTORS[3]


class Base(DeclarativeBase):
    """A host's own."""


class Plain(VectorMixin, Base):
    __tablename__ = "plain"
    __collection__ = Collection(VectorSpec(SIZE), language=None)

    title: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(4))


class Sealed(VectorMixin, Base):
    __tablename__ = "sealed"
    __collection__ = Collection(VectorSpec(SIZE), encrypted=("pii", "a.b"), encrypted_document=True)

    title: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(4))


class Tenants(VectorMixin, Base):
    """Documents are in clear here, and searched."""

    __tablename__ = "tenants"
    __collection__ = Collection(
        VectorSpec(SIZE), encrypted=("pii",), namespace="tenant", namespace_in_key=True
    )


def records(count: int = COUNT, *, titled: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{i:03}",
            "embedding": VECTORS[i],
            "payload": {"n": i % 5, "pii": {"name": SECRET, "of": [i, None, 1.5]}, "a.b": None}
            if i % 7
            else {"n": i % 5},
            "document": f"{SECRET} {i}" if i % 3 else None,
            **({"vectors": {"title": [1.0, float(i), 0.0, 0.0]}} if titled else {}),
        }
        for i in range(count)
    ]


@pytest.fixture
async def db(empty_dsn: str) -> AsyncIterator[Database]:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    await create(empty_dsn, Base.metadata)
    async with Database.connect(empty_dsn, encryption_keys=[NEW, OLD]) as database:
        yield database


READS: dict[str, Callable[[VectorRepository], Awaitable[Any]]] = {
    "get": lambda v: v.get([f"r{i:03}" for i in range(20)]),
    "search": lambda v: v.search(Q, limit=60),
    "without payload": lambda v: v.search(Q, with_payload=False, with_embedding=True),
    "exact": lambda v: v.search(Q, exact=True, where={"n": 2}, with_embedding=True),
    "by another vector": lambda v: v.search([1.0, 5.0, 0.0, 0.0], using="title", limit=50),
    "like others by it": lambda v: v.recommend(["r003"], using="title", strategy="best_score"),
    "range_search": lambda v: v.range_search(Q, min_score=0.0),
    "mmr_search": lambda v: v.mmr_search(Q),
    "multi_search": lambda v: v.multi_search([Q, VECTORS[9]]),
    "search_many": lambda v: v.search_many([Q, VECTORS[9]], limit=5),
    "search_groups": lambda v: v.search_groups(Q, "n"),
    "hybrid_search": lambda v: v.hybrid_search(Q),
    "recommend": lambda v: v.recommend(["r003"], ["r004"]),
    "scroll": lambda v: v.scroll(limit=30),
    "scroll in order": lambda v: v.scroll(limit=30, order_by="n", descending=True),
    "facet": lambda v: v.facet("n"),
    "count": lambda v: v.count(where={"n": 1}),
}


async def read_all(vectors: VectorRepository) -> dict[str, Any]:
    read = {name: plain(await method(vectors)) for name, method in READS.items()}
    read["stream"] = [plain(record) async for record in vectors.stream(batch_size=50)]
    return read


def plain(value: Any) -> Any:
    if hasattr(value, "payload"):
        return value.id, value.payload, value.document, getattr(value, "score", None)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if hasattr(value, "records"):
        return plain(value.records)
    if hasattr(value, "hits"):
        return value.value, plain(value.hits)
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return value
    return [plain(item) for item in value]


async def test_every_read_gives_it_in_clear_and_the_table_holds_none_of_it(
    db: Database, empty_dsn: str
) -> None:
    for model in (Plain, Sealed):
        vectors = db.collection(model)
        await vectors.ingest(records(), batch_size=175)
        await vectors.update("r001", payload={"n": 1, "pii": SECRET}, document=f"{SECRET}!")
        await vectors.merge_payload({"pii": [SECRET], r"a\.b": 2, "n": 3}, ids=["r002", "r000"])
        await vectors.merge_payload({"x.y": SECRET[:4]}, remove=["pii"], where={"n": 4})
    clear = await read_all(db.collection(Plain))
    assert SECRET in json.dumps(clear, ensure_ascii=False, default=str)
    assert await read_all(db.collection(Sealed)) == clear
    async with db.unit_of_work() as uow:
        assert await read_all(uow.collection(Sealed)) == clear

    host = Database.from_engine(db.engine, encryption_keys=lambda: [NEW])
    event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    async with host.unit_of_work() as uow:
        assert await read_all(host.collection(Sealed)) == clear
        assert await read_all(uow.collection(Sealed)) == clear
        async with unit_of_work(uow.session, encryption_keys=[NEW]) as inner:
            assert await read_all(inner.collection(Sealed)) == clear
        given = UnitOfWork(uow.session, encryption_keys=[NEW]).collection(Sealed)
        assert plain(await given.get(["r001"])) == plain(await db.collection(Plain).get(["r001"]))
        # A model's own attribute is what is stored.
        stored = (await uow.session.execute(select(Sealed).where(Sealed.id == "r001"))).scalar_one()
        assert stored.payload["pii"].startswith("qortex-siv-1:")
    view = db.options(timeout_seconds=30).collection(Sealed)
    assert plain(await view.search(Q, limit=60)) == clear["search"]
    for row in await rows(
        empty_dsn, "SELECT s::text FROM (SELECT payload, document FROM sealed) s"
    ):
        assert "4711" not in row


async def test_what_does_not_change_stays_unchanged(db: Database, empty_dsn: str) -> None:
    vectors = db.collection(Sealed)
    assert await vectors.upsert(records()) == COUNT
    before = await rows(empty_dsn, "SELECT (id, xmin, updated_at)::text FROM sealed ORDER BY id")
    assert await vectors.upsert(records()) == 0
    assert await vectors.ingest(records()) == COUNT
    assert await vectors.merge_payload({"pii": records()[1]["payload"]["pii"]}, ids=["r001"]) == 0
    # What was read can be written back.
    stored = await vectors.get([f"r{i:03}" for i in range(COUNT)])
    assert await vectors.upsert(stored.values()) == 0
    after = await rows(empty_dsn, "SELECT (id, xmin, updated_at)::text FROM sealed ORDER BY id")
    assert after == before
    assert await vectors.upsert([{**records()[1], "payload": {"n": 1, "pii": 1}}]) == 1


async def test_namespaces_and_words_of_documents_in_clear(db: Database) -> None:
    mine, theirs = (db.collection(Tenants, namespace=name) for name in ("a", "b"))
    for vectors in (mine, theirs):
        await vectors.upsert(records(20, titled=False))
    await theirs.merge_payload({"pii": "theirs"}, where={"n": {"$gte": 0}})
    hits = await mine.hybrid_search(Q, "4711", limit=20, where={"$text": "4711"})
    assert {hit.id for hit in hits} == {f"r{i:03}" for i in range(20) if i % 3}
    assert all(hit.payload["pii"]["name"] == SECRET for hit in hits if "pii" in hit.payload)
    assert (await theirs.get(["r001"]))["r001"].payload["pii"] == "theirs"


@pytest.mark.parametrize(
    "where",
    [
        {"pii": 1},
        {"pii.name": SECRET},
        {"$or": [{"n": 1}, {"$not": {"pii": {"$exists": True}}}]},
        {r"a\.b": {"$in": [1]}},
        {"pii": {"$text": "x"}},
        {"$text": "x"},
        {"$document": {"$contains": "x"}},
    ],
    ids=repr,
)
async def test_no_filter_looks_into_it(db: Database, where: dict[str, Any]) -> None:
    vectors = db.collection(Sealed)
    for call in (
        vectors.search(Q, where=where),
        vectors.search_groups(Q, "n", where=where),
        vectors.count(where=where),
        vectors.delete_where(where),
        vectors.merge_payload({"n": 1}, where=where),
        vectors.scroll(where=where),
    ):
        with pytest.raises(InvalidInputError, match="stored encrypted") as error:
            await call
        assert SECRET not in str(error.value)


async def test_nothing_else_looks_into_it(db: Database) -> None:
    vectors = db.collection(Sealed)
    for call in (
        vectors.facet("pii"),
        vectors.facet("pii.name"),
        vectors.scroll(order_by="pii"),
        vectors.search_groups(Q, "pii.name"),
        vectors.hybrid_search(Q, "word"),
        vectors.hybrid_search(None, "word"),
        vectors.search(Q, where_document={"$contains": "x"}),
        vectors.merge_payload({"pii.name": 1}, ids=["r001"]),
        vectors.merge_payload(remove=["pii.name"], ids=["r001"]),
    ):
        with pytest.raises(InvalidInputError, match="stored encrypted"):
            await call
    for path, kind in (("pii", "keyword"), ("pii.name", "text"), ("", "document")):
        with pytest.raises(InvalidInputError, match="stored encrypted"):
            payload_index(Sealed.__table__, path, kind)
    assert not [index for index in Sealed.__table__.indexes if "document" in (index.name or "")]


def test_a_collection_says_what_it_can() -> None:
    for arguments in (
        {"encrypted": "pii"},
        {"encrypted": ("",)},
        {"encrypted": ("a", "a")},
        {"encrypted": (1,)},
        {"encrypted_document": 1},
        {"encrypted_document": True, "text": "english"},
    ):
        with pytest.raises(InvalidInputError, match="encrypted"):
            Collection(VectorSpec(8), **arguments)


async def test_keys_that_are_missing_or_wrong_are_told_by_row_and_name(
    db: Database, empty_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    await db.collection(Sealed).upsert(records(20))
    other = Fernet.generate_key().decode()
    bad = "Z" * 40
    for keys, says in (
        (None, "QORTEX_DB_ENCRYPTION_KEYS"),
        ([], "QORTEX_DB_ENCRYPTION_KEYS"),
        ([other], "none of the 1 encryption keys"),
        ([bad], "Encryption key 1 is no Fernet key"),
        (["ü"], "Encryption key 1 is no Fernet key"),
        (other, "pass a list"),
        (lambda: [other, other], "none of the 2 encryption keys"),
    ):
        vectors = Database.from_engine(db.engine, encryption_keys=keys).collection(Sealed)
        assert await vectors.count(where={"n": 1}) >= 4  # which needs none
        for call in (vectors.get(["r001"]), vectors.search(VECTORS[1], limit=1, exact=True)):
            with pytest.raises(EncryptionError, match=says) as error:
                await call
            said = str(error.value)
            assert "'r001'" in said
            assert "payload['a.b']" in said
            assert not any(each in said for each in (other, bad, SECRET, "qortex-siv"))
        if says.startswith("none of"):
            continue
        with pytest.raises(EncryptionError, match=says):
            await vectors.upsert([{"id": "x", "embedding": Q, "payload": {"pii": SECRET}}])
        await vectors.upsert([{"id": "x", "embedding": Q, "payload": {"n": 1}}])
    assert SECRET not in caplog.text

    # Moved to another key, cut, and put there in clear past this package.
    for change, says in (
        ("payload || jsonb_build_object('pii', payload->'a.b')", "none of the 2"),
        ("jsonb_set(payload, '{pii}', to_jsonb(left(payload->>'pii', 30)))", "none of the 2"),
        ("jsonb_set(payload, '{pii}', '\"planted\"')", "is not encrypted"),
    ):
        await db.collection(Sealed).upsert(records(20))
        await execute(empty_dsn, f"UPDATE sealed SET payload = {change} WHERE id = 'r001'")
        with pytest.raises(EncryptionError, match=says) as error:
            await db.collection(Sealed).get(["r001"])
        assert "payload['pii'] of the row 'r001'" in str(error.value)


async def test_keys_of_settings_are_secret(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, encryption_keys=f" {NEW}, {OLD} ")
    assert settings.fernet_keys == [NEW, OLD]
    assert NEW not in repr(settings)
    assert Database.connect(settings)._encryption_keys == [NEW, OLD]


def test_without_the_extra_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from qortex_db.encryption import cipher_of  # noqa: PLC0415 - not for the package's users

    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(EncryptionError, match=r"qortex-db\[encryption\]"):
        cipher_of([Fernet.generate_key()])


async def test_rotation_writes_all_anew_and_keeps_what_others_write(
    db: Database, empty_dsn: str
) -> None:
    def using(*keys: str) -> VectorRepository:
        return Database.from_engine(db.engine, encryption_keys=list(keys)).collection(Sealed)

    old, both, new = using(OLD), using(NEW, OLD), using(NEW)
    await old.upsert(records())
    # A number that Python's floats don't hold, and values from before anything was encrypted.
    exact = "1.000000000000000000000000000001"
    await execute(
        empty_dsn,
        f"UPDATE sealed SET payload = payload || '{{\"exact\": {exact}}}' WHERE id = 'r001'",
        "INSERT INTO sealed (id, payload, document) VALUES "
        "('plain', '{\"pii\": {\"was\": [1]}}', 'in clear')",
    )
    times = "SELECT id || ' ' || updated_at FROM sealed ORDER BY id"
    before = await rows(empty_dsn, times)
    sealed = sum(bool(i % 7 or i % 3) for i in range(COUNT)) + 1
    seen: list[int] = []
    writing = asyncio.create_task(_write_meanwhile(both))
    changed = await both.rotate_keys(batch_size=20, on_progress=seen.append)
    await writing
    assert changed <= sealed
    assert seen[-1] == COUNT + 1
    assert await both.rotate_keys() == 0
    assert await new.rotate_keys() == 0
    read = await new.get(["plain", *(f"r{i:03}" for i in range(COUNT))])
    assert read["plain"].payload == {"pii": {"was": [1]}}
    assert read["plain"].document == "in clear"
    written = {each["id"]: each["payload"] for each in records()}
    for key in written.keys() - {f"r{i:03}" for i in range(100, 140)} - {"r001"}:
        assert read[key].payload == written[key]
    assert all(read[f"r{i:03}"].payload["pii"] == "meanwhile 9" for i in range(100, 140))
    stored = await rows(empty_dsn, "SELECT payload->>'exact' FROM sealed WHERE id = 'r001'")
    assert stored == [exact]
    for was, now in zip(before, await rows(empty_dsn, times), strict=True):
        assert was == now or "r100" <= was < "r140"
    # Of none of the keys: named, and nothing is lost.
    with pytest.raises(EncryptionError, match=r"payload\['pii'\] of the row 'plain'"):
        await using(Fernet.generate_key().decode()).rotate_keys()
    async with db.unit_of_work() as uow:
        assert await uow.collection(Sealed).rotate_keys() == 0
    assert await db.collection(Plain).rotate_keys() == 0


async def test_a_rotation_that_is_stopped_anywhere_goes_on_where_it_was(
    db: Database, empty_dsn: str
) -> None:
    def using(*keys: str) -> VectorRepository:
        return Database.from_engine(db.engine, encryption_keys=list(keys)).collection(Sealed)

    await using(OLD).upsert(records())
    clear = plain(await using(OLD).get([f"r{i:03}" for i in range(COUNT)]))
    delay, stopped, done = 0.0, 0, False
    while not done:
        rotating = asyncio.create_task(using(NEW, OLD).rotate_keys(batch_size=10))
        await asyncio.wait({rotating}, timeout=delay)
        done = rotating.done()
        rotating.cancel()
        await asyncio.wait({rotating})
        stopped += rotating.cancelled()
        delay += 0.003
    assert stopped > 5
    assert plain(await using(NEW).get([f"r{i:03}" for i in range(COUNT)])) == clear
    assert await using(NEW).rotate_keys() == 0
    in_transaction = "SELECT count(*)::text FROM pg_stat_activity WHERE state LIKE 'idle in%'"
    assert await rows(empty_dsn, in_transaction) == ["0"]


async def test_what_takes_long_to_decrypt_is_decrypted_beside_the_event_loop(db: Database) -> None:
    asked: set[int] = set()

    def keys() -> list[str]:
        asked.add(threading.get_ident())
        return [NEW, OLD]

    here = threading.get_ident()
    vectors = Database.from_engine(db.engine, encryption_keys=keys).collection(Sealed)
    for document, elsewhere in ((SECRET, False), (SECRET * 30_000, True)):
        given = [{**each, "document": document, "payload": {"n": 1}} for each in records(12)]
        await vectors.upsert(given)
        for name, read in READS.items():
            asked.clear()
            await read(vectors)
            assert (asked - {here} != set()) is (elsewhere and bool(asked)), name
            assert not (elsewhere and here in asked), name
        asked.clear()
        assert [each.document async for each in vectors.stream()] == [document] * 12
        assert asked == (asked - {here} if elsewhere else {here})
        # A key for each call, not one for each value.
    asked.clear()
    await vectors.rotate_keys()
    assert asked
    assert here not in asked


async def test_a_hosts_orm_reads_and_writes_what_is_stored(db: Database) -> None:
    await db.collection(Sealed).upsert(records(3))
    async with db.unit_of_work() as uow:
        loaded = await uow.session.get_one(Sealed, "r001")
        token = loaded.payload["pii"]
        await uow.collection(Sealed).merge_payload({"pii": "anew"}, ids=["r001"])
        assert loaded.payload["pii"] not in (token, "anew")  # the new token
        uow.session.add(Sealed(id="orm", payload=dict(loaded.payload), title=[1.0] * 4))
        uow.session.add(Sealed(id="clear", payload={"pii": SECRET}, title=[1.0] * 4))
    read = await db.collection(Sealed).get(["orm", "r001"])
    assert read["orm"].payload["pii"] == read["r001"].payload["pii"] == "anew"
    with pytest.raises(EncryptionError, match="is not encrypted") as error:
        await db.collection(Sealed).get(["clear"])
    assert SECRET not in str(error.value)
    assert await db.collection(Sealed).rotate_keys() == 1
    assert (await db.collection(Sealed).get(["clear"]))["clear"].payload["pii"] == SECRET


async def _write_meanwhile(vectors: VectorRepository) -> None:
    for turn in range(10):
        for start in range(100, 140, 10):
            ids = [f"r{i:03}" for i in range(start, start + 10)]
            await vectors.merge_payload({"pii": f"meanwhile {turn}"}, ids=ids)


async def test_the_command_rotates(db: Database, empty_dsn: str) -> None:
    """Of the tables of the schema that the environment names, as any other."""
    async with db.engine.connect() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA acme")
        inside = await connection.execution_options(schema_translate_map={None: "acme"})
        await inside.run_sync(Base.metadata.create_all)
        await connection.commit()
    old = Database.from_engine(db.engine, encryption_keys=[OLD])
    for on in (old, old.namespace("acme")):
        await on.collection(Tenants, namespace="a").upsert(records(20, titled=False))
    for said, schema in (
        ("17 rows", {}),
        ("0 rows", {}),
        ("17 rows", {"QORTEX_DB_SCHEMA": "acme"}),
    ):
        done = await asyncio.to_thread(
            subprocess.run,
            [
                sys.executable,
                *["-m", "qortex_db", "rotate-keys", "--namespace", "a", "--batch-size", "7"],
                f"{MODULE}:Tenants",
            ],
            env={
                **os.environ,
                **schema,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "PGVECTOR_DSN": empty_dsn,
                "QORTEX_DB_ENCRYPTION_KEYS": NEW + "," + OLD,
            },
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout[:7].strip()) == (0, said), done.stderr
    new = Database.from_engine(db.engine, encryption_keys=[NEW])
    for on in (new, new.namespace("acme")):
        assert len(await on.collection(Tenants, namespace="a").get(["r001"])) == 1
