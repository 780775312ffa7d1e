"""Both ways to the server, driven as a hostile world would: restarts, cancellations, odd hosts."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import traceback
import weakref
from collections import OrderedDict
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest
from sqlalchemy import (
    Integer,
    MetaData,
    NullPool,
    bindparam,
    event,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql import ClauseElement

from qortex_db import (
    ArmState,
    ConflictError,
    Database,
    DimensionMismatchError,
    EdgeStats,
    InteroceptionFactor,
    InvalidInputError,
    LockTimeoutError,
    OutcomeUnknownError,
    QortexDbError,
    QortexVector,
    QueryTimeoutError,
    SchemaVersionError,
    SerializationConflictError,
    Settings,
    UnavailableError,
    VectorRecord,
    embedded,
    migrations,
)
from qortex_db.engine.compiled import Compiled
from qortex_db.observability.statement_spans import listener_of
from qortex_db.repositories.vectors.batches import PART_ROWS
from qortex_db.types import Embedding
from support.compilations import compilations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.embedded import EmbeddedServer

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(5)
MATRIX = RNG.normal(size=(5_000, 8)).astype(np.float32)
VECTOR = [1.0] * 8
SECRET = "s3cr3t-välue"  # noqa: S105 - what must not be shown
LANES = pytest.mark.parametrize("lane", ["driver", "watched"])


def records(count: int) -> list[VectorRecord]:
    return [VectorRecord(f"v{i:05}", MATRIX[i % len(MATRIX)]) for i in range(count)]


def watch(engine: AsyncEngine) -> list[str]:
    """Listen to an engine's statements, as tracing does."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    return seen


@asynccontextmanager
async def opened(dsn: str, lane: str, **settings: Any) -> AsyncIterator[Database]:
    async with Database.connect(Settings(dsn=dsn, **settings)) as db:
        if lane == "watched":
            watch(db.engine)
        await db.vectors.dimensions()
        yield db


def url(dsn: str) -> Any:
    target = Settings(dsn=dsn).target()
    assert target is not None
    return target.url


@asynccontextmanager
async def hosted(dsn: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url(dsn), **options)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def holding(dsn: str, *statements: str) -> AsyncIterator[asyncpg.Connection]:
    """Another client, which holds what these statements lock."""
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    for statement in statements:
        await connection.execute(statement)
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


OTHERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND state = 'active'"
)


async def until(connection: asyncpg.Connection, condition: str) -> None:
    for _ in range(200):
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        if await connection.fetchval(f"SELECT {condition} {OTHERS}"):
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"It never came to {condition}.")


def chain(error: BaseException) -> str:
    """All that a report could show of an error: what is shown, and what is only attached."""
    parts = traceback.format_exception(error)
    seen: list[BaseException | None] = [error]
    for each in seen:
        if each is not None:
            parts += [str(each), repr(each)]
            seen += [other for other in (each.__cause__, each.__context__) if other not in seen]
    return "\n".join(parts)


# Restarts


@pytest.fixture(scope="module")
def own_server(folder: Path) -> Iterator[EmbeddedServer]:
    """A server that only this module uses, and may stop."""
    server = embedded.start(folder / "lanes")
    yield server
    server.stop()


@pytest.fixture
async def own_dsn(own_server: EmbeddedServer) -> str:
    # An immediate stop may lose what was committed asynchronously.
    dsn = f"{own_server.dsn()}&options=-c%20synchronous_commit=on"
    await migrations.upgrade(Settings(dsn=dsn, dimensions=8))
    return dsn


def stop(server: EmbeddedServer, mode: str) -> None:
    held = server._server
    subprocess.run(
        [held.bin_path / "pg_ctl", "-w", "-D", held.pgdata, "-m", mode, "stop"],
        user=held.system_user,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def restart(server: EmbeddedServer, mode: str) -> None:
    stop(server, mode)
    server._server.ensure_postgres_running()


@pytest.mark.faults
@LANES
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_reads_do_not_notice_a_restart_and_no_acknowledged_write_is_lost_or_doubled(
    own_server: EmbeddedServer, own_dsn: str, lane: str, mode: str
) -> None:
    learner = f"{lane}-{mode}"
    acknowledged = doubtful = reads = 0
    over = False

    async def read() -> None:
        nonlocal reads
        while not over:
            await db.vectors.search(VECTOR)
            await db.arms.get(learner, "a")
            reads += 1

    async def write() -> None:
        nonlocal acknowledged, doubtful
        while not over:
            try:
                await db.arms.observe(learner, "a", reward=1.0)
                acknowledged += 1
            except OutcomeUnknownError:
                doubtful += 1
            await asyncio.sleep(0)

    async with opened(own_dsn, lane, retry_seconds=30) as db:
        tasks = [asyncio.create_task(work()) for work in (read, read, read, write, write, write)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(restart, own_server, mode)
        before = reads
        for _ in range(500):
            if reads > before + 10:
                break
            await asyncio.sleep(0.02)
        over = True
        await asyncio.gather(*tasks)
        assert reads > before
        pulls = (await db.arms.get(learner, "a")).pulls
        assert acknowledged <= pulls <= acknowledged + doubtful
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.faults
@LANES
async def test_what_was_not_sent_is_repeated_until_the_deadline(
    own_server: EmbeddedServer, own_dsn: str, lane: str
) -> None:
    async with (
        opened(own_dsn, lane, retry_seconds=0.3) as hasty,
        opened(own_dsn, lane, retry_seconds=30) as patient,
    ):
        await patient.factors.save({"before": 1.0})
        await asyncio.to_thread(stop, own_server, "fast")
        try:
            for call in (
                hasty.factors.load(),
                hasty.factors.save({"a": 1.0}),
                hasty.vectors.upsert(records(PART_ROWS + 1)),
                hasty.edges.save({("a", "b"): EdgeStats(1, [1.0])}),
            ):
                with pytest.raises(UnavailableError):
                    await call
            waiting = asyncio.gather(
                patient.factors.load(),
                patient.arms.observe(lane, "once", reward=1.0),
                patient.vectors.upsert(iter(records(PART_ROWS + 1))),
            )
            await asyncio.sleep(0.2)
        finally:
            await asyncio.to_thread(own_server._server.ensure_postgres_running)
        factors, arm, written = await waiting
        assert factors["before"] == 1.0
        assert arm.pulls == 1
        assert written in (PART_ROWS + 1, 0)  # the second lane finds them there
        assert await patient.vectors.count() == PART_ROWS + 1


@pytest.mark.faults
@LANES
async def test_a_write_whose_connection_died_is_of_unknown_outcome_and_not_repeated(
    dsn: str, lane: str
) -> None:
    edges = {(f"a{i:04}", f"b{i:04}"): EdgeStats(1, [0.5]) for i in range(600)}
    async with opened(dsn, lane) as db:
        await db.factors.save({"n": 1.0})
        await db.vectors.upsert([VectorRecord("v01500", VECTOR)])
        await db.edges.save({("a0300", "b0300"): EdgeStats(7, [0.5])})
        await db.arms.put("l", "a", ArmState(1.0, 1.0))
        calls: dict[str, Callable[[], Any]] = {
            "interoception_factors": lambda: db.factors.save({"n": 2.0}),
            "qortex_vectors": lambda: db.vectors.upsert(records(3_000)),
            "interoception_edge_buffer": lambda: db.edges.save(edges),
            "learning_arm_states": lambda: db.arms.seed("l", ["a"], unpulled=True),
        }
        for table, call in calls.items():
            async with holding(dsn, f"SELECT * FROM {table} FOR UPDATE") as other:
                task = asyncio.create_task(call())
                await until(other, "count(*) FILTER (WHERE wait_event_type = 'Lock') = 1")
                await other.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")
                with pytest.raises(OutcomeUnknownError, match="whole or absent") as caught:
                    await task
            assert not isinstance(caught.value, UnavailableError)  # "try again" would be wrong
        assert await db.factors.load() == {"n": 1.0}
        assert await db.vectors.count() == 1
        assert {key: edge.hit_count for key, edge in (await db.edges.load()).items()} == {
            ("a0300", "b0300"): 7
        }
        await calls["qortex_vectors"]()
        assert await db.vectors.count() == 3_000


@LANES
async def test_a_read_whose_connection_died_is_repeated(dsn: str, lane: str) -> None:
    async with opened(dsn, lane) as db:
        await db.factors.save({"n": 1.0})
        async with holding(dsn, "LOCK TABLE interoception_factors") as other:
            task = asyncio.create_task(db.factors.load())
            await until(other, "count(*) FILTER (WHERE wait_event_type = 'Lock') = 1")
            await other.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")
            await asyncio.sleep(0.05)
        assert await task == {"n": 1.0}


# Cancellation


async def once(task: asyncio.Task[Any]) -> None:
    task.cancel()


async def twice(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()


async def at_every_turn(task: asyncio.Task[Any]) -> None:
    """As anyio does."""
    for _ in range(100_000):
        if task.done():
            return
        task.cancel()
        await asyncio.sleep(0)


@pytest.mark.faults
@LANES
@pytest.mark.parametrize("cancel", [once, twice, at_every_turn])
async def test_a_cancelled_call_stops_on_the_server_and_gives_its_connection_back(
    dsn: str, lane: str, cancel: Callable[[asyncio.Task[Any]], Any]
) -> None:
    async with opened(dsn, lane, pool_min_size=1, pool_max_size=1) as db:
        await db.vectors.upsert(records(10))
        for call in (lambda: db.vectors.search(VECTOR), lambda: db.vectors.upsert(records(3_000))):
            async with holding(dsn, "LOCK TABLE qortex_vectors") as other:
                task = asyncio.create_task(call())
                await until(other, "count(*) FILTER (WHERE wait_event_type = 'Lock') = 1")
                await cancel(task)
                done, _ = await asyncio.wait({task}, timeout=10)
                assert done
                assert task.cancelled()
                await until(other, "count(*) = 0")
            assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            assert await db.vectors.count() == 10
        assert len(await db.vectors.search(VECTOR)) == 10


@pytest.mark.faults
@LANES
async def test_a_large_upsert_stops_at_once_whenever_it_is_cancelled(
    dsn384: str, lane: str
) -> None:
    matrix = RNG.normal(size=(20_000, 384)).astype(np.float32)
    rows = [{"id": f"v{i:05}", "embedding": matrix[i]} for i in range(len(matrix))]
    async with opened(dsn384, lane, pool_min_size=1, pool_max_size=1) as db:
        for seconds in (0.05, 0.15, 0.4):
            task = asyncio.create_task(db.vectors.upsert(rows))
            await asyncio.sleep(seconds)
            task.cancel()  # once: asyncpg by itself would swallow it while the socket is full
            done, _ = await asyncio.wait({task}, timeout=10)
            assert done
            assert task.cancelled()
            async with holding(dsn384) as other:
                await until(other, "count(*) = 0")
            assert await db.vectors.count() == 0  # by the pool's one connection
            assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await db.vectors.upsert(rows)
        assert await db.vectors.count() == 0
        assert await db.vectors.upsert(rows[:100]) == 100


@LANES
async def test_a_large_upsert_that_takes_too_long_leaves_nothing(dsn: str, lane: str) -> None:
    async with opened(dsn, lane, statement_timeout_seconds=0.3) as db:
        await db.vectors.upsert([VectorRecord("v01500", VECTOR)])
        async with holding(dsn, "SELECT * FROM qortex_vectors FOR UPDATE"):
            with pytest.raises(QueryTimeoutError, match="may or may not"):
                await db.vectors.upsert(records(3_000))
        assert await db.vectors.count() == 1
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


# All or nothing

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"embedding": [float("nan")] * 8}, "NaN at position 0"),
    "dimension": ({"embedding": VECTOR[:7]}, "7 dimensions"),
    "payload": ({"payload": {"a": float("inf")}}, "JSON"),
    "document": ({"document": "\x00" + SECRET}, "NUL"),
}


@LANES
@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_record_in_the_last_part_leaves_nothing(dsn: str, lane: str, kind: str) -> None:
    change, match = BAD[kind]
    rows: list[Any] = [
        {"id": f"v{i:05}", "embedding": MATRIX[i], "payload": {"s": SECRET}, "document": SECRET}
        for i in range(1_200)
    ]
    rows[1_199] |= change
    rows[0], rows[1_199] = rows[1_199], rows[0]  # row 0 is the last by its key
    async with opened(dsn, lane) as db:
        with pytest.raises(InvalidInputError, match=match) as caught:
            await db.vectors.upsert(rows)
        assert "of row 0" in str(caught.value)
        assert SECRET not in chain(caught.value)
        assert await db.vectors.count() == 0
        rows[0] |= {"embedding": VECTOR, "payload": None, "document": None}
        assert await db.vectors.upsert(rows) == 1_200
        async with db.unit_of_work() as uow:
            with pytest.raises(InvalidInputError):
                await uow.vectors.upsert([VectorRecord("w", VECTOR), *rows, rows[0] | change])
            await uow.factors.save({"kept": 2.0})
        assert await db.vectors.get(["w"]) == {}
        assert await db.factors.load() == {"kept": 2.0}


@LANES
@pytest.mark.parametrize("kind", ["constraint", "trigger"])
async def test_a_part_that_the_server_refuses_takes_all_others_with_it(
    dsn: str, lane: str, kind: str
) -> None:
    async with opened(dsn, lane) as db, hosted(dsn) as host:
        async with host.begin() as connection:
            if kind == "constraint":
                check = "ALTER TABLE qortex_vectors ADD CHECK (id <> 'v01500')"
                await connection.exec_driver_sql(check)
            else:
                await connection.exec_driver_sql(
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN RAISE 'not today' USING DETAIL = concat('it was ', NEW.document), "
                    "ERRCODE = 'check_violation'; END $$"
                )
                await connection.exec_driver_sql(
                    "CREATE TRIGGER refuse BEFORE INSERT ON qortex_vectors FOR EACH ROW "
                    "WHEN (NEW.id = 'v01500') EXECUTE FUNCTION refuse()"
                )
        rows = [VectorRecord(row.id, row.embedding, document=SECRET) for row in records(2_100)]
        with pytest.raises(ConflictError) as caught:
            await db.vectors.upsert(rows)
        assert SECRET not in chain(caught.value)
        assert await db.vectors.count() == 0
        del rows[1_500]
        assert await db.vectors.upsert(rows) == 2_099
        async with db.unit_of_work() as uow:
            with pytest.raises(ConflictError):
                async with uow.session.begin_nested():
                    await uow.vectors.upsert([*records(1_501), *rows])
            await uow.factors.save({"kept": 2.0})
        assert await db.factors.load() == {"kept": 2.0}


# One meaning


async def everything(db: Database) -> list[Any]:
    """What every method gives, times left out."""
    await db.vectors.delete([record.id for record in records(1_100)])
    rows = [
        {"id": row.id, "embedding": row.embedding, "payload": {"n": [i, "é", None]}}
        for i, row in enumerate(records(50))
    ]
    edges = {(f"a{i:04}", f"b{i:04}"): EdgeStats(i, [0.5, 1 / 3]) for i in range(300)}
    stream = [row async for row in db.vectors.stream(batch_size=7)]
    state = await db.arms.observe("l", "x", reward=0.3, context={"a": 1})
    got: list[Any] = [
        stream,
        await db.vectors.upsert(records(1_100)),
        await db.vectors.upsert(rows),
        await db.vectors.upsert([{"id": "v00001", "embedding": VECTOR, "document": "d"}]),
        await db.vectors.upsert_with_zeros([{"id": "v00002", "embedding": [0.0] * 8}]),
        await db.vectors.ingest(rows, batch_size=20),
        await db.vectors.update("v00003", embedding=VECTOR, payload={"k": 1}, document="x"),
        await db.vectors.update("nobody", document="x"),
        sorted(plain((await db.vectors.get([f"v{i:05}" for i in range(20)])).values())),
        await db.vectors.search(MATRIX[7], with_embedding=True, exact=True),
        await db.vectors.search(MATRIX[7], limit=100, ef_search=900),
        await db.vectors.search(MATRIX[7], min_score=0.9),
        await db.vectors.count(),
        [row async for row in db.vectors.stream(batch_size=1_000)],
        await db.vectors.delete(["v00001", "nobody"]),
        await db.factors.save({"a": 1.5, "b": 0.25, "é": 3}),
        await db.factors.adjust({"a": "accepted", "new": "rejected"}),
        sorted((await db.factors.load()).items()),
        await db.factors.get(["new", "missing", "a"]),
        await db.factors.weight_seeds(["a", "b"]),
        await db.factors.summary(),
        await db.factors.delete(["a", "b", "é", "new", "missing"]),
        await db.factors.summary(),
        await db.edges.save(edges),
        {key: (edge.hit_count, edge.scores) for key, edge in (await db.edges.load()).items()},
        (await db.edges.record("a0001", "b0001", score=0.1)).scores,
        await db.edges.record_many([("a0001", "b0001", 0.7), ("z", "y", 0.2)]),
        (await db.edges.get("b0001", "a0001")).avg_score,
        await db.edges.get("no", "edge"),
        await db.edges.summary(),
        await db.edges.remove([*edges, ("y", "z"), ("no", "edge")]),
        await db.edges.summary(),
        (state.alpha, state.beta, state.pulls, state.total_reward),
        await db.arms.put("l", "y", state),
        (await db.arms.observe_many("l", [("y", 1.0), ("z", 0.5)])).keys(),
        [(key, arm.mean) for key, arm in await db.arms.top("l", k=5)],
        (await db.arms.get_all("l", context={"a": 1})).keys(),
        await db.arms.contexts("l"),
        await db.arms.select("l", ["x", "y", "z"], k=2, rng=np.random.default_rng(1)),
        await db.arms.delete("l", ["y", "nobody"]),
        await db.arms.delete("l", context={"a": 1}),
        await db.arms.delete("l"),
        await db.vectors.delete([record.id for record in records(1_100)]),
        (await db.status()).to_dict()["learning"],
    ]
    return [plain(each) for each in got]


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, VectorRecord):
        return plain([value.id, value.embedding, value.payload, value.document])
    if hasattr(value, "embedding"):
        return plain([value.id, round(value.score, 6), value.payload, value.embedding])
    if isinstance(value, (list, tuple)) or type(value).__name__ in {"SearchHits", "dict_values"}:
        return [plain(each) for each in value]
    return list(value) if type(value).__name__ == "dict_keys" else value


_expected: list[Any] = []


@pytest.fixture
async def expected(dsn: str) -> list[Any]:
    """What an engine of our own gives, which nobody watches."""
    if not _expected:
        async with Database.connect(dsn) as db:
            _expected.extend(await everything(db))
    return _expected


def watch_errors(engine: AsyncEngine) -> None:
    event.listen(engine.sync_engine, "handle_error", lambda _: None)


WATCHERS: dict[str, Callable[[AsyncEngine], Any]] = {
    "an event of the engine": watch,
    "an event of the dialect": watch_errors,
    "echo": lambda engine: setattr(engine.sync_engine, "echo", True),
}


@pytest.mark.parametrize("name", WATCHERS)
async def test_both_lanes_give_the_same(dsn: str, expected: list[Any], name: str) -> None:
    async with Database.connect(dsn) as db:
        executor: Any = db.executor
        assert listener_of(executor._engine) is False
        WATCHERS[name](db.engine)  # the Database was open before
        assert listener_of(executor._engine) is True
        for mine, theirs in zip(await everything(db), expected, strict=True):
            assert mine == theirs


async def test_a_listener_sees_every_statement_from_when_it_comes(db: Database) -> None:
    await db.vectors.upsert(records(2_500))
    seen = watch(db.engine)
    await db.vectors.upsert(records(2_500))
    assert [statement.split()[0] for statement in seen] == ["INSERT"] * 3
    await db.factors.load()
    await db.edges.save({(f"a{i}", f"b{i}"): EdgeStats(1, [0.5]) for i in range(300)})
    await db.vectors.search(VECTOR)
    assert len(seen) == 7


# Hosts


HOSTS: dict[str, dict[str, Any]] = {
    "a pool": {"pool_size": 2},
    "no pool": {"poolclass": NullPool},
    "serializable": {"isolation_level": "SERIALIZABLE"},
    "autocommit": {"isolation_level": "AUTOCOMMIT"},
    "no cached statements": {
        "connect_args": {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    },
    "its own json": {
        "json_serializer": lambda value: json.dumps(value, indent=3),
        "json_deserializer": lambda data: {"decoded by the host": data},
    },
    "pre-ping": {"pool_pre_ping": True},
}


@LANES
@pytest.mark.parametrize("name", HOSTS)
async def test_any_host_engine_gives_the_same(
    dsn: str, expected: list[Any], lane: str, name: str
) -> None:
    async with hosted(dsn, **HOSTS[name]) as host:
        db = Database.from_engine(host)
        if lane == "watched":
            watch(host)
        for mine, theirs in zip(await everything(db), expected, strict=True):
            assert mine == theirs
        with pytest.raises(InvalidInputError):
            await db.vectors.upsert([*records(1_100), VectorRecord("w", [float("nan")] * 8)])
        assert await db.vectors.count() == 0


async def test_a_hosts_serializer_that_renames_keys_is_not_asked(dsn: str) -> None:
    def renaming(value: Any) -> str:
        return json.dumps({key.upper(): item for key, item in value.items()})

    async with hosted(dsn, json_serializer=renaming) as host:
        db = Database.from_engine(host)
        async with db.unit_of_work() as uow:
            for lane, side in {"alone": db, "together": uow}.items():
                states = await side.arms.apply_deltas("l", {lane: (0.5, 0.25)})
                assert (states[lane].alpha, states[lane].beta) == (1.5, 1.25)
                other = VectorRecord("other", [2.0] * 8)
                for number in (1, 2):  # one of two records gives a payload
                    await side.vectors.upsert([VectorRecord(lane, [1.0] * 8, {"n": number}), other])
                    found = await side.vectors.get([lane])
                    assert found[lane].payload == {"n": number}


@LANES
async def test_a_hosts_translated_schema_is_where_the_tables_are(empty_dsn: str, lane: str) -> None:
    await migrations.upgrade(Settings(dsn=empty_dsn, db_schema="tenant", dimensions=8))
    async with hosted(empty_dsn) as host:
        tenant = host.execution_options(schema_translate_map={None: "tenant", "other": "x"})
        db = Database.from_engine(tenant)
        if lane == "watched":
            watch(tenant)
        await db.vectors.upsert(records(1_100))
        assert len(await db.vectors.search(VECTOR, limit=50)) == 50
        async with db.unit_of_work() as uow:
            await uow.vectors.upsert(records(10))
            assert await uow.vectors.count() == 1_100
        with pytest.raises(SchemaVersionError):
            await Database.from_engine(host).vectors.count()


@LANES
@pytest.mark.parametrize("moment", ["connect", "checkout"])
async def test_a_hook_that_leaves_a_transaction_open_loses_no_write(
    dsn: str, lane: str, moment: str
) -> None:
    async with hosted(dsn, pool_size=1, max_overflow=0) as host:

        @event.listens_for(host.sync_engine, moment)
        def set_up(connection: Any, *_: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("SET application_name = 'tenant-7'")
            cursor.close()

        db = Database.from_engine(host)
        if lane == "watched":
            watch(host)
        name = text("SELECT current_setting('application_name')")
        await db.factors.save({"first": 2.0})
        assert (await db.executor.run(name, {})).rows[0][0] == "tenant-7"
        await db.vectors.upsert(records(1_100))
        await db.edges.save({("a", "b"): EdgeStats(1, [0.5])})
        with pytest.raises(InvalidInputError):
            await db.vectors.upsert(
                [*records(1_100), VectorRecord("a", VECTOR), VectorRecord("w", [0.0] * 8)]
            )
        async with Database.connect(dsn) as other:
            assert await other.factors.load() == {"first": 2.0}
            assert await other.vectors.count() == 1_100
            assert len(await other.edges.load()) == 1


# Errors


async def _conflict(db: Database, _dsn: str) -> None:
    statement = insert(InteroceptionFactor)
    for _ in range(2):
        await db.executor.run(statement, {"node_id": SECRET, "weight": 1.0})


async def _missing_table(db: Database, dsn: str) -> None:
    async with hosted(dsn) as host, host.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE interoception_factors")
    await db.factors.save({SECRET: 1.0})


async def _locked(db: Database, dsn: str) -> None:
    await db.factors.save({SECRET: 1.0})
    async with holding(dsn, "LOCK TABLE interoception_factors"):
        await db.factors.save({SECRET: 2.0})


async def _slow(db: Database, _dsn: str) -> None:
    await db.executor.run(text("SELECT pg_sleep(30), CAST(:secret AS text)"), {"secret": SECRET})


async def _deadlock(db: Database, dsn: str) -> None:
    statement = update(InteroceptionFactor).values(weight=9.0)
    await db.factors.save({SECRET: 1.0, "other": 1.0})
    lock = "SELECT * FROM interoception_factors WHERE node_id = '{}' FOR UPDATE"
    async with holding(dsn, "SET deadlock_timeout = '1h'", lock.format(SECRET)) as other:
        task = asyncio.create_task(db.executor.run(statement, {}))
        await until(other, "count(*) FILTER (WHERE wait_event_type = 'Lock') = 1")
        theirs = asyncio.create_task(other.execute(lock.format("other")))
        try:
            await task
        finally:
            await theirs


async def _beyond_the_driver(db: Database, _dsn: str) -> None:
    statement = select(bindparam("number", type_=Integer))
    await db.executor.run(statement, {"number": SECRET})


FAILURES: dict[str, tuple[Callable[[Database, str], Any], type[Exception], str | None]] = {
    "a unique violation": (_conflict, ConflictError, "23505"),
    "a missing table": (_missing_table, SchemaVersionError, "42P01"),
    "a lock timeout": (_locked, LockTimeoutError, "55P03"),
    "a client's timeout": (_slow, QueryTimeoutError, None),
    "a deadlock": (_deadlock, SerializationConflictError, "40P01"),
    "a value the driver refuses": (_beyond_the_driver, InvalidInputError, None),
}


@LANES
@pytest.mark.parametrize("name", FAILURES)
async def test_both_lanes_say_the_same_of_a_failure_and_show_no_value(
    dsn: str, lane: str, name: str
) -> None:
    work, kind, sqlstate = FAILURES[name]
    options = "&options=-c%20lock_timeout=300" if kind is LockTimeoutError else ""
    if kind is SerializationConflictError:
        options = "&options=-c%20deadlock_timeout=50"
    limit = 0.3 if kind is QueryTimeoutError else 30
    async with opened(dsn + options, lane, statement_timeout_seconds=limit) as db:
        with pytest.raises(QortexDbError) as caught:
            await work(db, dsn)
        assert type(caught.value) is kind
        assert caught.value.sqlstate == sqlstate
        assert SECRET not in chain(caught.value)
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert await db.vectors.count() == 0


# Changes under prepared statements


@LANES
async def test_a_migration_under_prepared_statements_is_not_noticed(dsn: str, lane: str) -> None:
    async with opened(dsn, lane, pool_min_size=1, pool_max_size=1) as db, hosted(dsn) as host:

        async def use() -> None:
            await db.vectors.upsert(records(1_100))
            await db.vectors.upsert([VectorRecord("d", VECTOR, {"a": 1}, "text")])
            await db.vectors.update("d", document="other")
            assert (await db.vectors.get(["d"]))["d"].document == "other"
            assert (await db.vectors.search(VECTOR))[0].id == "d"
            assert len(await db.vectors.search(VECTOR, limit=100)) == 100
            assert len([row async for row in db.vectors.stream(batch_size=2_000)]) == 1_101
            await db.factors.adjust({"n": "accepted"})
            await db.edges.record("a", "b", score=0.5)
            await db.arms.observe("l", "a", reward=1.0)
            assert await db.vectors.delete(["d"]) == 1

        for change in (
            "SELECT 1",
            "ALTER TABLE qortex_vectors ADD COLUMN tenant text DEFAULT 'x' NOT NULL",
            "ANALYZE qortex_vectors",
            "DROP INDEX ix_qortex_vectors_vec",
            "CREATE INDEX mine ON qortex_vectors USING hnsw (vec vector_cosine_ops)",
            "ALTER TABLE qortex_vectors ALTER COLUMN document TYPE varchar(2000)",
            "ALTER TABLE interoception_factors ALTER COLUMN weight TYPE real",
            "ALTER TABLE learning_arm_states ALTER COLUMN pulls TYPE bigint",
        ):
            async with host.begin() as connection:
                await connection.exec_driver_sql(change)
            await use()
            await use()


# Unusual input


class Subclass(np.ndarray):
    pass


EMBEDDINGS: dict[str, Any] = {
    "integers": [1, 2, 3, 4, 5, 6, 7, 8],
    "numpy scalars in a list": [np.float32(i) for i in range(1, 9)],
    "numpy integers in a tuple": tuple(np.int64(i) for i in range(1, 9)),
    "big-endian": np.arange(1, 9).astype(">f4"),
    "big-endian doubles": np.arange(1, 9).astype(">f8"),
    "half precision": np.arange(1, 9).astype(np.float16),
    "long doubles": np.arange(1, 9).astype(np.longdouble),
    "every second element": np.arange(2, 18)[::2] / 2,
    "a column of a matrix": np.tile(np.arange(1, 9, dtype=np.float32)[:, None], (1, 3))[:, 1],
    "reversed": np.arange(8, 0, -1, dtype=np.float32)[::-1],
    "a subclass": np.arange(1, 9, dtype=np.float32).view(Subclass),
    "read-only": np.frombuffer(np.arange(1, 9, dtype=np.float32).tobytes(), np.float32),
    "small as squares are": np.arange(1, 9) * 1e-19,
    "large as squares are": np.arange(1, 9) * 1e18,
}


@pytest.mark.parametrize("shape", ["alone", "among others"])
async def test_every_kind_of_vector_is_stored_as_it_is(db: Database, shape: str) -> None:
    rows: Any = [OrderedDict(id=name, embedding=value) for name, value in EMBEDDINGS.items()]
    if shape == "alone":
        for row in rows:
            assert await db.vectors.upsert((MappingProxyType(row),)) == 1
    else:
        others = records(1_100)
        assert await db.vectors.upsert(row for row in (*others, *rows)) == 1_100 + len(rows)
    got = await db.vectors.get(EMBEDDINGS)
    for name, value in EMBEDDINGS.items():
        assert got[name].embedding.tolist() == np.asarray(value, np.float32).tolist(), name


REFUSED: dict[str, Any] = {
    "infinite only in float32": np.full(8, 1e300),
    "no dimension": np.array(1.0),
    "a boolean in a list": [1.0] * 7 + [True],
    "a numpy boolean in a list": [1.0] * 7 + [np.True_],
    "a boolean array": np.ones(8, bool),
    "ragged": [[1.0], [2.0, 3.0]],
    "text": ["1"] * 8,
    "too few": [1.0] * 7,
    "zero in float32": np.full(8, 1e-60),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refused_vector_is_named_by_the_row_it_was_given_in(
    db: Database, name: str
) -> None:
    rows = [VectorRecord(row.id, row.embedding) for row in reversed(records(1_500))]
    rows.insert(1_234, VectorRecord("v01000x", REFUSED[name]))
    with pytest.raises(InvalidInputError, match=r"embedding of row 1234 \(id 'v01000x'\)"):
        await db.vectors.upsert(rows)
    with pytest.raises(InvalidInputError, match="row 1234 "):  # counted through the batches
        await db.vectors.ingest(rows, batch_size=700)
    assert await db.vectors.count() == 700


async def test_the_last_of_a_repeated_id_wins_across_parts(db: Database) -> None:
    rows = [*records(2_500), *(VectorRecord(row.id, VECTOR) for row in records(2_500)[::50])]
    assert await db.vectors.upsert(rows) == 2_500
    got = await db.vectors.get(["v00000", "v00001", "v02450"])
    assert [row.embedding.tolist() == VECTOR for row in got.values()] == [True, False, True]


class AnyBase(DeclarativeBase):
    metadata = MetaData()


class Anything(AnyBase):
    """A collection whose column declares no dimension."""

    __tablename__ = "anything"

    id: Mapped[str] = mapped_column(primary_key=True)
    vec: Mapped[Any] = mapped_column(Embedding())


async def test_a_column_without_a_dimension_takes_any(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(AnyBase.metadata.create_all)
        anything = db.collection(Anything)
        sizes = [3, 16_000, 1, 8, 8, 2_000]
        rows = [VectorRecord(f"k{i}", RNG.normal(size=n)) for i, n in enumerate(sizes)]
        assert await anything.upsert(rows) == 6
        got = await anything.get([row.id for row in rows])
        assert [got[row.id].embedding.size for row in rows] == sizes
        pairs = [batch.ids async for batch in anything.stream_batches(batch_size=1)]
        assert pairs == [[row.id] for row in rows]
        with pytest.raises(InvalidInputError, match="from id 'k0' to 'k5' have several lengths"):
            _ = [batch async for batch in anything.stream_batches()]
        for bad in (np.ones(16_001), [1.0] * 70_000, np.array(1.0), [], None, "text", 7):
            with pytest.raises(InvalidInputError, match=r"embedding of row 1 \(id 'a'\)"):
                await anything.upsert([VectorRecord("b", [1.0, 2.0]), VectorRecord("a", bad)])
        assert await anything.count() == 6
        with pytest.raises(DimensionMismatchError):  # where it declares one, it counts
            await db.vectors.upsert([VectorRecord("a", [1.0, 2.0])])


# Memory


async def test_a_statement_is_compiled_once_and_let_go_with_its_last_user(db: Database) -> None:
    compiled = compilations(db.engine)
    statements: list[Any] = [select(literal(number)) for number in range(3)]
    for _ in range(2):
        for number, statement in enumerate(statements):
            assert (await db.executor.run(statement, {})).rows[0][0] == number
    assert len(compiled) == len(statements)
    kept = [weakref.ref(statement) for statement in statements]
    statements.clear()
    del statement
    gc.collect()
    assert [reference() for reference in kept] == [None] * 3


async def test_calls_leave_nothing_behind(db: Database) -> None:
    async def use() -> int:
        await db.status()
        await db.collection(QortexVector).count()
        await db.collection(QortexVector).search(VECTOR)
        gc.collect()
        return sum(isinstance(one, (ClauseElement, Compiled)) for one in gc.get_objects())

    await use()
    before = await use()
    assert [await use() for _ in range(3)] == [before] * 3


async def test_a_unit_of_work_refuses_an_engine_in_autocommit(dsn: str) -> None:
    engine = create_async_engine(Settings(dsn=dsn).target().url, isolation_level="AUTOCOMMIT")
    async with Database.from_engine(engine) as db:
        with pytest.raises(InvalidInputError, match="AUTOCOMMIT"):
            async with db.unit_of_work() as uow:
                await uow.factors.save({"a": 2.0})
        assert await db.factors.load() == {}
        await db.factors.save({"a": 3.0})
        assert await db.factors.load() == {"a": 3.0}
    await engine.dispose()
