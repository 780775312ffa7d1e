"""Changes of many rows in batches: each its own transaction, and none of them twice."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from qortex_db import (
    ALL_CONTEXTS,
    Collection,
    ConflictError,
    Database,
    IngestProgress,
    InvalidInputError,
    Partitions,
    QortexVector,
    Settings,
    VectorMixin,
    VectorSpec,
    unit_of_work,
)
from qortex_db.repositories.vectors import bulk_changes
from qortex_db.sync import Database as WaitingDatabase
from support.catalogue import execute, rows
from support.roundtrips import counted
from support.tables import create

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ROWS = 1_050
BATCH = 100
HALF = {"half": 1}
LANES = ("our engine", "watched", "a host's engine", "a host's engine, watched", "a view")


class StoppedError(Exception):
    """Raised by whoever is told of progress."""


class Base(DeclarativeBase):
    """A host's own."""


class Tenanted(VectorMixin, Base):
    __tablename__ = "tenanted"
    __collection__ = Collection(
        VectorSpec(384), namespace="tenant", namespace_in_key=True, partitions=Partitions(3)
    )


FILL = """
INSERT INTO {table} (id, vec, payload{columns})
SELECT 'r' || lpad(i::text, 6, '0'),
  (SELECT array_agg(random())::vector(384) FROM generate_series(1, 384) WHERE i > 0),
  jsonb_build_object('half', i % 2, 'n', i, 'tags', jsonb_build_array('a', 'b', 'c')){values}
FROM generate_series(1, {count}) i
"""
ARMS = """
INSERT INTO learning_arm_states (learner_name, context_hash, arm_id, alpha, beta, pulls)
SELECT 'bandit', CASE i % 3 WHEN 0 THEN 'default' ELSE md5((i % 3)::text) END, 'arm' || i,
  1 + i, 2 + i, i
FROM generate_series(1, {count}) i
"""
TAGS = "SELECT id || ' ' || (payload -> 'tags')::text FROM qortex_vectors ORDER BY id"
STATES = """
SELECT concat_ws(' ', context_hash, arm_id, alpha / (1 + pulls), beta / (2 + pulls), pulls)
FROM learning_arm_states ORDER BY 1
"""
TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM qortex_vectors WHERE payload ? 'seen'"


def filled(count: int = ROWS, table: str = "qortex_vectors", **columns: str) -> str:
    names, values = ("".join(f", {each}" for each in part) for part in (columns, columns.values()))
    return FILL.format(table=table, count=count, columns=names, values=values)


@pytest.fixture
async def dsn_filled(dsn384: str) -> str:
    await execute(dsn384, "DROP INDEX ix_qortex_vectors_vec", filled())
    return dsn384


@asynccontextmanager
async def by(dsn: str, lane: str) -> AsyncIterator[Any]:
    """A Database over an engine of ours or of a host's."""
    if "host" in lane:
        engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"))
        if "watched" in lane:
            event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
        async with Database.from_engine(engine) as db:
            yield db
        await engine.dispose()
        return
    async with Database.connect(dsn) as db:
        if lane == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        yield db.with_settings({"lock_timeout": "5s"}) if lane == "a view" else db


@pytest.mark.parametrize("lane", LANES)
async def test_batches_change_what_one_statement_changes(dsn_filled: str, lane: str) -> None:
    told: list[IngestProgress] = []
    async with by(dsn_filled, lane) as db:
        merge = db.vectors.merge_payload
        options: dict[str, Any] = {"batch_size": BATCH, "on_progress": told.append}
        assert await merge({"seen": True}, remove=["tags.0"], where=HALF, **options) == ROWS / 2
        assert [int(one) for one in told] == [*range(100, 501, 100), 525]
        assert all(one.rows_per_second > 0 for one in told)
        assert await rows(dsn_filled, TRANSACTIONS) == [6]
        found = await rows(
            dsn_filled,
            "SELECT (payload ->> 'n')::int FROM qortex_vectors "
            "WHERE payload -> 'tags' = '[\"b\", \"c\"]'",
        )
        assert sorted(map(int, found)) == [*range(1, ROWS, 2)]
        assert await merge({"seen": True}, where=HALF, batch_size=7) == 0
        assert await db.vectors.delete_where(HALF, batch_size=np.int64(BATCH)) == ROWS / 2
        assert await db.vectors.count() == ROWS / 2
        assert await db.vectors.delete_all(batch_size=ROWS, resume="all of it") == ROWS / 2
        assert await db.vectors.count() == 0


async def test_a_batch_is_one_round_trip(dsn_filled: str) -> None:
    async with counted(dsn_filled) as trips:
        settings = Settings(dsn=trips.dsn, pool_min_size=1, pool_max_size=1)
        async with Database.connect(settings) as db:
            await db.vectors.merge_payload({"warm": 1}, where=HALF, batch_size=BATCH, resume="1")
            async with trips.expect(1 + 6):
                await db.vectors.merge_payload({"x": 1}, where=HALF, batch_size=BATCH, resume="2")
            async with trips.expect(6):
                await db.vectors.delete_where(HALF, batch_size=BATCH)


async def test_what_was_stopped_goes_on_where_it_was_and_does_nothing_once_it_is_done(
    dsn_filled: str,
) -> None:
    told: list[int] = []

    def stop(progress: IngestProgress) -> None:
        told.append(int(progress))
        if len(told) in {2, 3}:
            raise StoppedError

    async with Database.connect(dsn_filled) as db:

        async def merge(**options: Any) -> int:
            return await db.vectors.merge_payload(
                remove=["tags.0"], where=HALF, batch_size=BATCH, resume="fewer", **options
            )

        for _ in range(2):
            with pytest.raises(StoppedError):
                await merge(on_progress=stop)
        assert told == [100, 200, 300]
        with pytest.raises(ConflictError, match="'fewer' was begun with other arguments"):
            await db.vectors.merge_payload(
                remove=["tags.1"], where=HALF, batch_size=BATCH, resume="fewer"
            )
        assert await merge(on_progress=stop) == 525
        assert told == [100, 200, 300, 400, 500, 525]
        stored = await rows(dsn_filled, TAGS)
        assert sum(one.endswith('["b", "c"]') for one in stored) == 525
        assert await merge(on_progress=stop) == 525
        assert len(told) == 6
        assert await rows(dsn_filled, TAGS) == stored
        # The name is this method's, on this table.
        assert await db.vectors.delete_where(HALF, batch_size=BATCH, resume="fewer") == 525


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("everywhere", [False, True])
async def test_each_arm_fades_once(dsn: str, history: bool, everywhere: bool) -> None:
    await execute(dsn, ARMS.format(count=900))
    context = ALL_CONTEXTS if everywhere else None
    told: list[int] = []

    def stop(progress: IngestProgress) -> None:
        told.append(int(progress))
        if len(told) == 3:
            raise StoppedError

    async with Database.connect(Settings(dsn=dsn, learning_history=history)) as db:

        async def decay(factor: float = 0.5) -> Any:
            return await db.arms.decay(
                "bandit",
                factor=factor,
                context=context,
                batch_size=70,
                resume="tonight",
                on_progress=stop,
            )

        with pytest.raises(StoppedError):
            await decay()
        with pytest.raises(ConflictError, match="other arguments"):
            await decay(0.25)
        count = 900 if everywhere else 300
        assert await decay() == await decay() == count
        assert told == [*range(70, count, 70), count]
        ours = (
            "SELECT count(*) FROM learning_arm_states WHERE alpha = (1 + pulls) * 0.5 "
            "AND beta = (2 + pulls) * 0.5"
        )
        assert await rows(dsn, ours) == [count]
        others = "SELECT count(*) FROM learning_arm_states WHERE alpha = 1 + pulls"
        assert await rows(dsn, others) == [900 - count]
        events = (
            "SELECT count(*) FROM learning_events e JOIN learning_arm_states s "
            "USING (learner_name, context_hash, arm_id, alpha) WHERE kind = 'decay' "
            "AND multiplied_by = 0.5"
        )
        assert await rows(dsn, events) == [count if history else 0]


async def test_half_lives_and_floors_are_those_of_one_statement(dsn: str) -> None:
    [start] = await rows(dsn, "SELECT now()::text")
    before = f"'{start}'::timestamptz - pulls * interval '2 hours'"
    aged = f"UPDATE learning_arm_states SET last_updated = {before}"
    left = f"0.5 ^ (extract(epoch FROM last_updated - ({before})) / 36000)::float8"
    halved = (
        "SELECT pulls FROM learning_arm_states WHERE "
        f"abs(alpha - greatest((1 + pulls) * {left}, 0.01)) < 1e-12 AND "
        f"abs(beta - greatest((2 + pulls) * {left}, 0.01)) < 1e-12"
    )
    floors = "SELECT count(*) FROM learning_arm_states WHERE alpha = 0.01"
    async with Database.connect(dsn) as db:
        for options in ({}, {"batch_size": 11, "resume": "a"}):
            await execute(dsn, "DELETE FROM learning_arm_states", ARMS.format(count=90), aged)
            await db.arms.decay("bandit", half_life=36_000, context=ALL_CONTEXTS, **options)
            assert sorted(await rows(dsn, halved)) == [*range(1, 91)]
            assert 10 < (await rows(dsn, floors))[0] < 80


async def test_another_expression_is_another_call(dsn_filled: str) -> None:
    def stop(_: IngestProgress) -> None:
        raise StoppedError

    async with Database.connect(dsn_filled) as db:

        async def delete(before: str, **options: Any) -> int:
            where = QortexVector.id < before
            return await db.vectors.delete_where(where, batch_size=10, resume="a", **options)

        with pytest.raises(StoppedError):
            await delete("r000101", on_progress=stop)
        with pytest.raises(ConflictError, match="other arguments"):
            await delete("r000201")
        assert await delete("r000101") == 100
        assert await db.vectors.count() == ROWS - 100


@pytest.mark.parametrize("lane", LANES)
async def test_factors_decay_in_batches_as_in_one_statement(dsn: str, lane: str) -> None:
    fill = """
    INSERT INTO interoception_factors (node_id, weight, updated_at)
    SELECT 'n' || i, 1 + i % 4, now() - (i % 50) * interval '1 hour' FROM generate_series(1, 1000) i
    """
    found: list[tuple[int, dict[str, float]]] = []
    told: list[IngestProgress] = []
    in_batches: dict[str, Any] = {"batch_size": 130, "on_progress": told.append}
    async with by(dsn, lane) as db:
        for options in ({}, in_batches):
            await execute(dsn, "DELETE FROM interoception_factors", fill)
            count = await db.factors.decay(half_life=36_000, **options)
            found.append((count, await db.factors.load()))
        transactions = "SELECT count(DISTINCT xmin::text) FROM interoception_factors"
        assert int((await rows(dsn, transactions))[0]) >= 8

    (one, weights), (other, batched) = found
    assert one == other == 750
    assert batched == pytest.approx(weights, abs=1e-3)
    assert [int(done) for done in told] == [*range(130, 1_000, 130), 1_000]


async def test_batches_are_refused_in_a_unit_of_work(db: Database) -> None:
    async with (
        db.unit_of_work() as own,
        AsyncSession(db.engine) as session,
        unit_of_work(session) as hosts,
    ):
        for uow in (own, hosts):
            for refused in (
                uow.vectors.merge_payload({"a": 1}, where=HALF, batch_size=5),
                uow.vectors.delete_where(HALF, batch_size=5),
                uow.vectors.delete_all(batch_size=5),
                uow.arms.decay("bandit", batch_size=5, resume="a"),
                uow.factors.decay(half_life=60, batch_size=5),
                uow.vectors.reembed(len, into="v2", batch_size=5),
            ):
                with pytest.raises(InvalidInputError, match="a unit of work is one"):
                    await refused


async def test_what_batches_are_asked_for_is_checked(db: Database) -> None:
    vectors, decay = db.vectors, db.arms.decay
    refused: list[tuple[Awaitable[Any], str]] = [
        (db.factors.decay(half_life=1, node_ids=["a"], batch_size=5), "leave node_ids out"),
        (vectors.delete_where(HALF, batch_size=0), "batch_size is 0"),
        (vectors.delete_where(HALF, batch_size=100_001), "batch_size is 100001"),
        (vectors.delete_where(HALF, batch_size=2.5), "batch_size"),  # type: ignore[arg-type]
        (vectors.delete_where(HALF, resume="a"), "pass batch_size too"),
        (vectors.delete_all(on_progress=print), "pass batch_size too"),
        (vectors.delete_where(HALF, batch_size=5, resume=""), "resume is empty"),
        (vectors.delete_where(HALF, batch_size=5, resume="a" * 1_024), "resume, with what"),
        (vectors.delete_where(HALF, batch_size=5, on_progress=5), "pass what can be called"),  # type: ignore[arg-type]
        (vectors.delete_where({}, batch_size=5), "where is true of every row"),
        (vectors.merge_payload({"a": 1}, ids=["a"], batch_size=5), "batch_size goes with where"),
        (decay("bandit", batch_size=5), "needs resume"),  # type: ignore[call-overload]
        (decay("bandit", "arm", batch_size=5, resume="a"), "of all arms"),  # type: ignore[call-overload]
        (decay("bandit", resume="a"), "pass batch_size too"),  # type: ignore[call-overload]
    ]
    for call, said in refused:
        with pytest.raises(InvalidInputError, match=said):
            await call


async def test_of_two_that_go_on_with_the_same_work_one_is_told(dsn_filled: str) -> None:
    async with Database.connect(dsn_filled) as db:
        # Both have read how far it is before either has a batch.
        call = "LOCK TABLE qortex_vectors IN ACCESS EXCLUSIVE MODE"

        async def merge() -> int:
            return await db.vectors.merge_payload(
                remove=["tags.0"], where=HALF, batch_size=BATCH, resume="same"
            )

        async with db.engine.connect() as held:
            await held.execute(text(call))
            both = [asyncio.create_task(merge()) for _ in range(2)]
            await waiting(dsn_filled, 2)
            await held.rollback()
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        failed = [one for one in outcomes if isinstance(one, BaseException)]
        assert [type(one) for one in failed] == [ConflictError]
        assert "Somebody else goes on with" in str(failed[0])
        assert [one for one in outcomes if one not in failed] == [525]
    stored = await rows(dsn_filled, TAGS)
    assert sum(one.endswith('["b", "c"]') for one in stored) == 525


async def waiting(dsn: str, count: int) -> None:
    """Wait until so many backends wait for a lock."""
    asked = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )
    for _ in range(500):
        if await rows(dsn, asked) == [count]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(await rows(dsn, "SELECT query FROM pg_stat_activity"))


CHANGES: dict[str, Callable[[Database], Awaitable[object]]] = {
    "merge_payload": lambda db: db.vectors.merge_payload(
        {"seen": 1}, where={"n": {"$gte": 0}}, batch_size=BATCH
    ),
    "delete_where": lambda db: db.vectors.delete_where({"n": {"$gte": 0}}, batch_size=BATCH),
}


@pytest.mark.parametrize("method", CHANGES)
async def test_a_writer_waits_for_the_rows_of_one_batch_alone(dsn_filled: str, method: str) -> None:
    """A batch is held open by a lock on its last row; every row of another one can be written."""
    async with Database.connect(dsn_filled) as db, db.engine.connect() as held:
        await held.execute(text("SELECT 1 FROM qortex_vectors WHERE id = 'r000300' FOR UPDATE"))
        task = asyncio.create_task(CHANGES[method](db))  # type: ignore[arg-type]
        await waiting(dsn_filled, 1)
        impatient = db.with_settings({"lock_timeout": "200ms"})
        free = [f"r{i:06}" for i in range(1, ROWS + 1) if not 200 < i <= 300]
        there = (await db.vectors.get(free)).keys()
        for key in ("r000001", "r000200", "r000301", f"r{ROWS:06}"):
            await impatient.vectors.upsert([{"id": key, "embedding": [1.0] * 384}])
        batches = "SELECT count(*) FROM qortex_vectors WHERE id <= 'r000200' AND payload ? 'seen'"
        if method == "merge_payload":
            assert await impatient.vectors.merge_payload({"free": 1}, ids=free) == ROWS - 100
            assert await rows(dsn_filled, batches) == [200]  # they are committed
        else:
            assert there == {*free[200:]}
        await held.rollback()
        await task
    assert await rows(
        dsn_filled, "SELECT count(*) FROM qortex_vectors WHERE NOT payload ? 'seen'"
    ) == [0 if method == "merge_payload" else 2]


async def test_a_row_that_matches_no_more_when_it_is_locked_is_left(dsn_filled: str) -> None:
    async with Database.connect(dsn_filled) as db, db.engine.connect() as other:
        await other.execute(
            text("UPDATE qortex_vectors SET payload = '{\"half\": 0}' WHERE id = 'r000151'")
        )
        task = asyncio.create_task(db.vectors.delete_where(HALF, batch_size=BATCH))
        await waiting(dsn_filled, 1)
        await other.commit()
        assert await task == 524
        assert (await db.vectors.get(["r000151"]))["r000151"].payload == {"half": 0}


async def test_a_tenant_s_batches_are_of_its_own_rows(empty_dsn: str) -> None:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    await create(empty_dsn, Base.metadata)
    await execute(
        empty_dsn,
        filled(300, "tenanted", tenant="'one'"),
        filled(200, "tenanted", tenant="'two'"),
    )
    async with Database.connect(empty_dsn) as db:
        one, two = (db.collection(Tenanted, namespace=name) for name in ("one", "two"))
        assert await one.merge_payload(remove=["tags.0"], where=HALF, batch_size=40) == 150
        assert await two.delete_where({"half": 0}, batch_size=40) == 100
        assert await one.count() == 300
        assert {tuple(row.payload["tags"]) async for row in two.stream()} == {("a", "b", "c")}
        assert await two.delete_all(batch_size=40) == 100
        assert await one.count(where={"tags": {"$all": ["b"]}}) == 300


async def test_a_script_that_waits_has_batches_too(dsn_filled: str) -> None:
    def work() -> int:
        with WaitingDatabase.connect(dsn_filled) as db:
            told: list[int] = []
            count: int = db.vectors.delete_where(
                HALF, batch_size=BATCH, resume="x", on_progress=lambda rows: told.append(int(rows))
            )
            assert told[-1] == count
            return count

    assert await asyncio.to_thread(work) == 525


@pytest.mark.parametrize("batch_size", [None, 300])
async def test_a_large_delete_says_what_vacuum_costs(
    dsn384: str,
    batch_size: int | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(bulk_changes, "LARGE_DELETE", 500)
    await execute(dsn384, filled())
    async with Database.connect(dsn384) as db:
        with caplog.at_level(logging.INFO, "qortex_db"):
            assert await db.vectors.delete_where({"n": {"$lte": 499}}, batch_size=batch_size) == 499
            assert "vacuum" not in caplog.text
            assert await db.vectors.delete_where({"n": {"$lte": 999}}, batch_size=batch_size) == 500
        assert caplog.text.count("vacuum_is_slow") == 1
        assert "deleted=500" in caplog.text
        assert "index rebuild" in caplog.text
        caplog.clear()
        await execute(dsn384, "DROP INDEX ix_qortex_vectors_vec", filled(600).replace("'r'", "'s'"))
        with caplog.at_level(logging.INFO, "qortex_db"):
            assert await db.vectors.delete_all() == 651
        assert "vacuum" not in caplog.text
