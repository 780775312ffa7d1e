"""Reads by themselves on real standbys: behind, lost, or in the way of what they replay."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import numpy as np
import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import (
    Database,
    InvalidInputError,
    ReadOnlyError,
    RecoveryConflictError,
    SerializationConflictError,
    Settings,
    UnavailableError,
    migrations,
)
from qortex_db.doctor import examine
from support.standby import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db.view import DatabaseView

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]
SIZE = 384
RNG = np.random.default_rng(5)


def vector() -> Any:
    return RNG.normal(size=SIZE).astype(np.float32)


LARGE = [{"id": f"x{i}", "embedding": vector()} for i in range(300)]


@pytest.fixture(scope="module")
def cluster(qortex_db_server: object) -> Iterator[Cluster]:
    """A primary and two standbys, which delay nothing for their readers."""
    made = Cluster(2, max_standby_streaming_delay="0", autovacuum="off")
    try:
        made.start()
        asyncio.run(migrations.upgrade(Settings(dsn=made.dsn("first"))))
        yield made
    finally:
        made.close()


class Patient:
    """A standby's connection, whose statements what is replayed may cancel: they are repeated."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def execute(self, statement: str) -> None:
        for _ in range(100):
            try:
                await self._connection.execute(statement)
            except asyncpg.SerializationError:
                await asyncio.sleep(0.05)
            else:
                return
        raise AssertionError(statement)


@pytest.fixture
async def paused(cluster: Cluster) -> AsyncIterator[dict[str, Any]]:
    """What pauses and resumes the replay of each standby, which all replay afterwards."""
    connections = {name: await asyncpg.connect(cluster.dsn(name)) for name in ("second", "third")}
    try:
        yield {name: Patient(connection) for name, connection in connections.items()}
    finally:
        for connection in connections.values():
            await Patient(connection).execute("SELECT pg_wal_replay_resume()")
            await connection.close()


def watch(db: Database) -> None:
    """Listen to all that is sent, so that it goes SQLAlchemy's way."""
    replicas: Any = db._replicas
    for engine in (db.engine, *(each.executor.engine for each in replicas.all)):
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)


async def caught_up(db: Database) -> None:
    """Wait until both standbys have all of it."""
    for _ in range(400):
        behind = [each["transactions_behind"] for each in (await db.status()).replicas]
        if behind == [0] * len(behind):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(behind)


@pytest.mark.parametrize("whose", ["ours", "a host's"])
@pytest.mark.parametrize("watched", [False, True], ids=["by the driver", "watched"])
async def test_nobody_misses_a_write_of_its_own_while_replay_is_paused_at_will(
    cluster: Cluster, paused: dict[str, Any], whose: str, watched: bool
) -> None:
    stale = by_replicas = 0
    engines = []
    if whose == "ours":
        replicas = [cluster.dsn("second"), cluster.dsn("third")]
        db = Database.connect(cluster.dsn("first"), replicas=replicas)
    else:
        engines = [
            create_async_engine(cluster.dsn(name).replace("postgresql:", "postgresql+asyncpg:"))
            for name in ("first", "second", "third")
        ]
        db = Database.from_engine(engines[0], replicas=engines[1:])
    async with db:
        if watched:
            watch(db)
        await db.vectors.upsert([{"id": "own", "embedding": vector()}])
        for number in range(300):
            if number % 3 == 0:
                name = ("second", "third")[number % 2]
                verb = "pause" if number % 2 else "resume"
                await paused[name].execute(f"SELECT pg_wal_replay_{verb}()")
            caller = db.reading_after(None)
            await _write(caller, number)
            # By another process, as far as the token goes.
            elsewhere = db.reading_after(caller.token())
            before = _answered(db)
            found = await elsewhere.vectors.get(["own"])
            by_replicas += _answered(db) - before
            stale += found["own"].payload != {"n": number}
            if number % 50 == 0:
                (hit,) = await elsewhere.vectors.search(vector(), limit=1, where={"n": number})
                stale += hit.id != "own"
    for engine in engines:
        await engine.dispose()
    assert stale == 0
    assert by_replicas > 0


async def _write(caller: DatabaseView, number: int) -> None:
    """Write the number, by one way or another."""
    record = {"id": "own", "embedding": None, "payload": {"n": number}}
    match number % 5:
        case 0:
            await caller.vectors.upsert([record])
        case 1:
            async with caller.unit_of_work() as uow:
                await uow.vectors.upsert([record])
        case 2:
            assert await caller.vectors.update("own", payload={"n": number})
        case 3:
            await caller.vectors.upsert([*LARGE, record])  # several parts, one batch
        case 4:
            async with caller.unit_of_work() as uow:
                await uow.session.execute(
                    text("UPDATE qortex_vectors SET payload = :p WHERE id = 'own'"),
                    {"p": f'{{"n": {number}}}'},
                )


def _answered(db: Database) -> int:
    replicas: Any = db._replicas
    return sum(each.reads for each in replicas.all)


async def test_reads_that_may_be_stale_are(cluster: Cluster, paused: dict[str, Any]) -> None:
    # Else the tests here would find nothing.
    replicas = [cluster.dsn("second"), cluster.dsn("third")]
    async with Database.connect(cluster.dsn("first"), replicas=replicas) as db:
        await db.vectors.upsert([{"id": "stale", "embedding": vector(), "payload": {"n": 0}}])
        await caught_up(db)
        for connection in paused.values():
            await connection.execute("SELECT pg_wal_replay_pause()")
        await db.vectors.update("stale", payload={"n": 1})
        eventual, strong = db.options(consistency="eventual"), db.options(consistency="strong")
        assert (await eventual.vectors.get(["stale"]))["stale"].payload == {"n": 0}
        assert (await strong.vectors.get(["stale"]))["stale"].payload == {"n": 1}
        assert (await db.vectors.get(["stale"]))["stale"].payload == {"n": 1}
        # Who has written nothing may read what is old.
        assert (await db.reading_after(None).vectors.get(["stale"]))["stale"].payload == {"n": 0}


async def test_a_replica_that_is_behind_is_waited_for_within_a_bound(
    cluster: Cluster, paused: dict[str, Any]
) -> None:
    dsn, replicas = cluster.dsn("first"), [cluster.dsn("second")]
    settings = Settings(dsn=dsn, replica_dsns=replicas, replica_wait_seconds=20.0)
    async with Database.connect(settings) as db:
        await caught_up(db)
        await paused["second"].execute("SELECT pg_wal_replay_pause()")
        await db.vectors.upsert([{"id": "waited", "embedding": vector()}])
        before = _answered(db)
        reading = asyncio.create_task(db.vectors.get(["waited"]))
        await asyncio.sleep(0.3)
        assert not reading.done()
        await paused["second"].execute("SELECT pg_wal_replay_resume()")
        assert [*await reading] == ["waited"]
        assert _answered(db) == before + 1
    short = Settings(dsn=dsn, replica_dsns=replicas, replica_wait_seconds=0.05)
    async with Database.connect(short) as db:
        await caught_up(db)
        await paused["second"].execute("SELECT pg_wal_replay_pause()")
        await db.vectors.upsert([{"id": "waited 2", "embedding": vector()}])
        assert [*await db.vectors.get(["waited 2"])] == ["waited 2"]
        assert _answered(db) == 0


async def test_an_older_writer_that_is_open_is_waited_for_by_the_primary_alone(
    cluster: Cluster,
) -> None:
    replicas = [cluster.dsn("second"), cluster.dsn("third")]
    async with Database.connect(cluster.dsn("first"), replicas=replicas) as db:
        await caught_up(db)
        async with db.unit_of_work() as uow:
            await uow.factors.save({"open": 1.5})
            await db.factors.save({"after": 1.25})
            before = _answered(db)
            assert await db.factors.get(["after"]) == {"after": 1.25}
            assert _answered(db) == before
        await caught_up(db)
        assert await db.factors.get(["after"]) == {"after": 1.25}
        assert _answered(db) == before + 1


async def test_a_write_that_met_anothers_reads_it_too(
    cluster: Cluster, paused: dict[str, Any]
) -> None:
    replicas = [cluster.dsn("second"), cluster.dsn("third")]
    async with Database.connect(cluster.dsn("first"), replicas=replicas) as db:
        await caught_up(db)
        for connection in paused.values():
            await connection.execute("SELECT pg_wal_replay_pause()")
        record = {"id": "met", "embedding": np.ones(SIZE)}
        await db.reading_after(None).vectors.upsert([record])
        # Nothing of it is changed, so nothing is written: the row is another's, and is there.
        caller = db.reading_after(None)
        assert await caller.vectors.upsert([record]) == 0
        assert [*await caller.vectors.get(["met"])] == ["met"]
        caller = db.reading_after(None)
        async with caller.unit_of_work() as uow:
            assert await uow.vectors.upsert([record]) == 0
        assert [*await caller.vectors.get(["met"])] == ["met"]
        caller = db.reading_after(None)
        with pytest.raises(IntegrityError):
            async with caller.unit_of_work() as uow:
                await uow.session.execute(
                    text("INSERT INTO qortex_vectors (id, vec) SELECT id, vec FROM qortex_vectors")
                )
        assert [*await caller.vectors.get(["met"])] == ["met"]


async def test_a_lost_replica_costs_no_read_and_comes_back(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="qortex_db")
    replicas = [cluster.dsn("second"), cluster.dsn("third")]
    async with Database.connect(cluster.dsn("first"), replicas=replicas) as db:
        await db.vectors.upsert([{"id": "kept", "embedding": vector()}])
        await caught_up(db)
        assert len(await asyncio.gather(*(db.vectors.count() for _ in range(20)))) == 20
        await asyncio.to_thread(cluster.stop, "third")
        for _ in range(40):
            assert [*await db.vectors.get(["kept"])] == ["kept"]
            await asyncio.sleep(0.02)
        assert [each["is_ready"] for each in (await db.status()).replicas] == [True, False]
        await asyncio.to_thread(cluster.stop, "second")
        for _ in range(20):
            assert [*await db.vectors.get(["kept"])] == ["kept"]
            await asyncio.sleep(0.02)
        assert [each["is_ready"] for each in (await db.status()).replicas] == [False, False]
        for name in ("second", "third"):
            await asyncio.to_thread(cluster.run, name)
        for _ in range(300):
            assert [*await db.vectors.get(["kept"])] == ["kept"]
            if all(each["is_ready"] for each in (await db.status()).replicas):
                break
            await asyncio.sleep(0.1)
        before = _answered(db)
        await caught_up(db)
        assert [*await db.vectors.get(["kept"])] == ["kept"]
        assert _answered(db) == before + 1
    assert sum("replica_lost" in line for line in caplog.messages) == 2
    assert sum("replica_back" in line for line in caplog.messages) == 2


async def test_replicas_that_are_away_when_it_opens_are_taken_up_later(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.stop, "third")
    try:
        db = Database.connect(cluster.dsn("first"), replicas=[cluster.dsn("third")])
        async with db:
            assert [each["is_ready"] for each in (await db.status()).replicas] == [False]
            assert await db.factors.get(["nobody"]) == {"nobody": 1.0}
            await asyncio.to_thread(cluster.run, "third")
            for _ in range(300):
                await db.factors.get(["nobody"])
                if _answered(db):
                    break
                await asyncio.sleep(0.1)
            assert _answered(db) > 0
    finally:
        if "third" not in cluster._running:
            await asyncio.to_thread(cluster.run, "third")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    import generate_statements  # noqa: PLC0415

    return generate_statements


WRITING = {
    *("adjust", "advance", "apply_deltas", "begin", "claim", "clear", "count_words", "decay"),
    *("delete", "delete_all", "delete_where", "embed", "fill_words", "forget", "ingest", "insert"),
    *("merge_payload", "observe", "observe_many", "promote", "prune", "put", "record"),
    *("record_many", "reembed", "remove", "reset", "save", "seed", "select", "switch_to"),
    *("update", "update_many", "upsert", "upsert_with_zeros"),
}


async def test_every_method_works_on_a_standby_or_says_that_nothing_is_written_there(
    cluster: Cluster, page: Any
) -> None:
    first = Settings(dsn=_of(cluster, "first", "every"), dimensions=8)
    await _create(cluster, "every")
    await migrations.upgrade(first)
    async with Database.connect(first, encryption_keys=page.ENCRYPTION_KEYS) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(page.Base.metadata.create_all)
        for section in page.SECTIONS:
            if section.prelude is not None:
                await section.prelude(db)
            for prepares in ("rotate_keys", "reembed"):
                for call in section.calls.get(prepares, {}).values():
                    await call(section.repository(page.repositories(db.executor)))
    await _replayed(cluster)
    second = Settings(dsn=_of(cluster, "second", "every"), dimensions=8, retry_seconds=0)
    refused: dict[str, set[str]] = {}
    worked: dict[str, set[str]] = {}
    async with Database.connect(second, encryption_keys=page.ENCRYPTION_KEYS) as db:
        for section in page.SECTIONS:
            repository = section.repository(page.repositories(db.executor, history=section.history))
            for method, forms in section.calls.items():
                for form, call in forms.items():
                    try:
                        await call(repository)
                    except ReadOnlyError:
                        refused.setdefault(f"{section.name}.{method}", set()).add(form)
                    else:
                        worked.setdefault(f"{section.name}.{method}", set()).add(form)
    methods = {name.rpartition(".")[2] for name in refused}
    assert methods == WRITING
    # What only some forms of write: the history of arms, embeddings that are missing, a switch.
    assert refused.keys() & worked.keys() == {
        "arms.select",
        "embeddings.embed",
        "vectors.switch_to",
    }


def _of(cluster: Cluster, name: str, database: str) -> str:
    return cluster.dsn(name).replace("@/postgres?", f"@/{database}?")


async def _create(cluster: Cluster, database: str) -> None:
    connection = await asyncpg.connect(cluster.dsn("first"))
    await connection.execute(f"CREATE DATABASE {database}")
    await connection.close()


async def _replayed(cluster: Cluster) -> None:
    """Wait until the standbys have all that the primary has."""
    first = await asyncpg.connect(cluster.dsn("first"))
    for _ in range(400):
        rows = await first.fetch(
            "SELECT replay_lsn >= pg_current_wal_lsn() AS has FROM pg_stat_replication"
        )
        if len(rows) == 2 and all(row["has"] for row in rows):
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError
    await first.close()


async def _in_the_way(cluster: Cluster) -> None:
    """Have the primary do what a reader of a standby is in the way of."""
    first = await asyncpg.connect(cluster.dsn("first"))
    await first.execute("CREATE TABLE IF NOT EXISTS gone (id int)")
    await first.execute("INSERT INTO gone SELECT generate_series(1, 1000)")
    await first.execute("DELETE FROM gone")
    await first.execute("VACUUM gone")
    await first.close()


SLOW = text("SELECT pg_sleep(2), count(*) FROM qortex_vectors")


async def test_a_read_that_replay_cancels_is_begun_again(cluster: Cluster) -> None:
    async with Database.connect(cluster.dsn("second")) as db:
        reading = asyncio.create_task(db.executor.run(SLOW, {}))
        await asyncio.sleep(0.5)
        await _in_the_way(cluster)
        assert len((await reading).rows) == 1
        conflicts = await db.executor.run(
            text("SELECT confl_snapshot FROM pg_stat_database_conflicts WHERE datname='postgres'"),
            {},
        )
        assert conflicts.rows[0][0] > 0
    # Where it is told to repeat nothing, it says what it was.
    async with Database.connect(Settings(dsn=cluster.dsn("second"), retry_seconds=0)) as db:
        reading = asyncio.create_task(db.executor.run(SLOW, {}))
        await asyncio.sleep(0.5)
        await _in_the_way(cluster)
        with pytest.raises(RecoveryConflictError, match="conflict with recovery"):
            await reading


async def _read_together(db: Database, cluster: Cluster) -> None:
    async with db.unit_of_work() as uow:
        slow = asyncio.create_task(uow.executor.run(SLOW, {}))
        await asyncio.sleep(0.5)
        await _in_the_way(cluster)
        await slow


@pytest.mark.parametrize("watched", [False, True], ids=["by the driver", "watched"])
async def test_a_unit_of_work_that_replay_cancels_has_an_error_of_its_own(
    cluster: Cluster, watched: bool
) -> None:
    async with Database.connect(cluster.dsn("second")) as db:
        if watched:
            watch(db)
        with pytest.raises(RecoveryConflictError) as caught:
            await _read_together(db, cluster)
        assert isinstance(caught.value, SerializationConflictError)
        assert caught.value.sqlstate == "40001"

        attempts = 0

        async def work(uow: Any) -> int:
            nonlocal attempts
            attempts += 1
            slow = asyncio.create_task(uow.executor.run(SLOW, {}))
            await asyncio.sleep(0.5)
            if attempts == 1:
                await _in_the_way(cluster)
            return len((await slow).rows)

        assert await db.run(work) == 1
        assert attempts == 2


async def test_a_read_that_replay_cancels_on_a_replica_is_the_primarys(cluster: Cluster) -> None:
    async with Database.connect(cluster.dsn("first"), replicas=[cluster.dsn("second")]) as db:
        await caught_up(db)
        slow = select(func.pg_sleep(2), func.count()).select_from(text("qortex_vectors"))
        reading = asyncio.create_task(db.executor.run(slow, {}))
        await asyncio.sleep(0.5)
        await _in_the_way(cluster)
        assert len((await reading).rows) == 1
        assert _answered(db) == 0


async def test_a_select_that_logs_says_so_on_a_standby(cluster: Cluster) -> None:
    settings = Settings(dsn=cluster.dsn("second"), learning_history=True, retry_seconds=0)
    async with Database.connect(settings) as db:
        with pytest.raises(ReadOnlyError, match="learning_history"):
            await db.arms.select("prompts", ["a", "b"])
    async with Database.connect(cluster.dsn("second")) as db:
        assert len((await db.arms.select("prompts", ["a", "b"])).selected) == 1


async def test_a_database_of_somebody_elses_is_no_replica(cluster: Cluster, dsn: str) -> None:
    db = Database.connect(cluster.dsn("first"), replicas=[dsn])
    with pytest.raises(InvalidInputError, match="is no standby of the primary"):
        await db.open()


async def test_reads_go_on_while_the_primary_is_away(cluster: Cluster) -> None:
    replicas = [cluster.dsn("second"), cluster.dsn("third")]
    settings = Settings(
        dsn=cluster.dsn("first"),
        replica_dsns=replicas,
        consistency="eventual",
        retry_seconds=0,
    )
    async with Database.connect(settings) as db:
        await db.vectors.count()
        await asyncio.to_thread(cluster.stop, "first")
        try:
            await db.vectors.count()
            with pytest.raises(UnavailableError):
                await db.factors.save({"a": 1.0})
        finally:
            await asyncio.to_thread(cluster.run, "first")


@pytest.mark.parametrize("consistency", ["session", "eventual"])
async def test_nobody_misses_a_write_of_its_own_under_load(
    cluster: Cluster, consistency: Literal["session", "eventual"]
) -> None:
    reads = stale = 0
    replicas = [cluster.dsn("second"), cluster.dsn("third")]
    async with Database.connect(cluster.dsn("first"), replicas=replicas) as db:
        # What was written now they have only once they are connected again.
        await db.factors.save({"before": 1.0})
        await caught_up(db)

        async def call(node: str) -> None:
            nonlocal reads, stale
            for number in range(1, 41):
                caller = db.reading_after(None)
                await caller.factors.save({node: float(number)})
                elsewhere = db.reading_after(caller.token()).options(consistency=consistency)
                for _ in range(10):
                    stale += (await elsewhere.factors.get([node]))[node] < number
                    reads += 1

        await asyncio.gather(*(call(f"of {one}") for one in range(10)))
        assert reads == 4_000
        assert _answered(db) > 1_000
    # That some are where nothing is asked for shows that this finds them.
    assert (stale > 0) is (consistency == "eventual")


async def test_the_doctor_looks_at_a_standby_and_at_each_replica(
    cluster: Cluster, paused: dict[str, Any]
) -> None:
    found = await examine(Settings(dsn=cluster.dsn("second")))
    assert {one.level for one in found} <= {"good", "warning"}, found
    (server,) = [one.said for one in found if one.check == "server"]
    assert "a standby" in server
    settings = Settings(dsn=cluster.dsn("first")).with_replicas(
        [*map(cluster.dsn, ("second", "third", "first")), "postgresql://u:s3cr3t@127.0.0.1:1/db"]
    )
    await paused["third"].execute("SELECT pg_wal_replay_pause()")
    async with Database.connect(cluster.dsn("first")) as db:
        await db.factors.save({"seen by the doctor": 1.5})
    found = await examine(settings)
    told = {one.check: f"{one.level}: {one.said} {one.do}" for one in reversed(found)}
    assert told["replica 1"].startswith(f"good: 127.0.0.1:{cluster.ports['second']}/postgres is a")
    assert "0 kB and" in told["replica 1"]
    assert told["replica 2"].startswith("warning: ")
    assert "replay is paused" in told["replica 2"]
    assert "is the primary itself" in told["replica 3"]
    assert told["replica 4"].startswith("wrong: 127.0.0.1:1/db was not reached")
    assert "s3cr3t" not in str(found)
