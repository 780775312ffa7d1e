"""What became of a COMMIT whose answer was lost, and of calls that are repeated with their key."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, insert, text

from qortex_db import (
    Database,
    InteroceptionFactor,
    OutcomeUnknownError,
    QortexDbError,
    Settings,
    UnavailableError,
)
from qortex_db.testing.factories import InteroceptionFactorFactory, VectorRecordFactory
from support.roundtrips import counted
from support.severing import severed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from qortex_db import UnitOfWork
    from support.severing import Severing

Both = tuple[Database, "Severing"]
CUTS = 300
NUMBERS = itertools.count()


@pytest.fixture(params=["plain", "watched"])
async def both(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    async with severed(dsn) as proxy, Database.connect(Settings(dsn=proxy.dsn)) as db:
        if request.param == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        yield db, proxy


async def pending(uow: UnitOfWork) -> None:
    uow.session.add(InteroceptionFactorFactory.build())


OWN = insert(InteroceptionFactor).values(node_id="own", weight=1.0)
OWN_TEXT = text("INSERT INTO interoception_factors (node_id) VALUES ('own')")


WRITES: dict[str, Callable[[UnitOfWork], Any]] = {
    "observe": lambda uow: uow.arms.observe("l", "a", reward=1.0),
    "seed": lambda uow: uow.arms.seed("l", ["b"], unpulled=True),
    "record": lambda uow: uow.edges.record("a", "b", score=1.0),
    "save": lambda uow: uow.factors.save({"a": 1.0}),
    "upsert": lambda uow: uow.vectors.upsert(VectorRecordFactory.build_batch(200, dimensions=8)),
    "delete": lambda uow: uow.factors.delete(["warm"]),
    "claim": lambda uow: uow.idempotency.claim(f"k{next(NUMBERS)}"),
    "a pending object": pending,
    "own": lambda uow: uow.session.execute(OWN),
    "own, for a scalar": lambda uow: uow.session.scalar(OWN.returning(InteroceptionFactor.weight)),
    "own, as text": lambda uow: uow.session.execute(OWN_TEXT),
}


async def test_an_unknown_outcome_is_resolved_by_its_transactions_id(both: Both) -> None:
    db, proxy = both
    for name, write in WRITES.items():
        for lost, committed in (("lose_answer_to", True), ("lose", False)):
            await db.factors.save({"warm": 1.0})
            with pytest.raises(OutcomeUnknownError) as caught:  # noqa: PT012 - the end raises
                async with db.unit_of_work() as uow:
                    await uow.factors.load()
                    await write(uow)
                    setattr(proxy, lost, b"COMMIT;")
            error: OutcomeUnknownError = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
            assert error.transaction_id is not None, name
            assert await error.resolve(db) is committed, name
            if name.startswith("own"):
                await db.factors.delete(["own"])


async def test_what_is_lost_before_commit_is_sent_is_not_unknown(both: Both) -> None:
    db, proxy = both
    for lost in ("before", "by the server"):
        with pytest.raises(UnavailableError):  # noqa: PT012 - the block's end raises
            async with db.unit_of_work() as uow:
                await uow.factors.save({lost: 1.0})
                if lost == "before":
                    await proxy.cut()
                else:
                    pid = await uow.session.scalar(text("SELECT pg_backend_pid()"))
                    async with db.engine.connect() as other:
                        await other.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")
                    await asyncio.sleep(0.1)
    # An answer that is an error is certain too: a constraint that is checked at COMMIT.
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql(
            "ALTER TABLE interoception_factors ADD CONSTRAINT one UNIQUE (weight) "
            "DEFERRABLE INITIALLY DEFERRED"
        )
    with pytest.raises(QortexDbError) as caught:
        async with db.unit_of_work() as uow:
            await uow.factors.save({"a": 1.0, "b": 1.0})
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert await db.factors.load() == {}


async def test_an_outcome_without_an_id_says_so(both: Both) -> None:
    db, proxy = both
    await db.arms.observe("l", "a", reward=1.0)
    proxy.lose_answer_to = b"\x00"
    with pytest.raises(OutcomeUnknownError) as caught:
        await db.arms.observe("l", "a", reward=1.0)
    assert caught.value.transaction_id is None
    with pytest.raises(OutcomeUnknownError, match="not known"):
        await OutcomeUnknownError("…").resolve(db)
    with pytest.raises(OutcomeUnknownError, match="not known"):  # a failover's server is behind
        await OutcomeUnknownError("…", transaction_id=10**12).resolve(db)
    async with db.unit_of_work() as uow:
        await uow.factors.save({"n": 1.0})
        number = int(await uow.session.scalar(text("SELECT pg_current_xact_id()::text")))
        going_on = OutcomeUnknownError("…", transaction_id=number)
        with pytest.raises(OutcomeUnknownError, match="in progress"):
            await going_on.resolve(db, timeout_seconds=0.2)
    assert await going_on.resolve(db, timeout_seconds=0)


async def test_the_id_costs_no_round_trip_and_changes_no_answer(dsn: str) -> None:
    async with counted(dsn) as trips, Database.connect(trips.dsn) as db:
        work: dict[str, Any] = {
            "a": lambda r: r.arms.observe_many("l", [("a", 1.0), ("b", 0.5)]),
            "b": lambda r: r.factors.adjust({"a": "accepted", "b": "rejected"}),
            "c": lambda r: r.edges.record_many([("a", "b", 0.5), ("b", "c", 0.5)]),
            "d": lambda r: r.vectors.upsert([{"id": "a", "embedding": [1.0] * 8}]),
            "e": lambda r: r.vectors.update("a", payload={"a": 1}),
            "f": lambda r: r.factors.delete(["a", "zz"]),
            "g": lambda r: r.arms.delete("l"),
            "h": lambda r: r.edges.promote(min_hits=1, min_avg_score=0.1),
        }
        for name, call in work.items():
            async with db.unit_of_work() as uow:  # prepares it, and is undone
                first = await call(uow)
                await uow.session.rollback()
            async with trips.expect(3), db.unit_of_work() as uow:
                assert str(await call(uow))[:40] == str(first)[:40], name


@pytest.mark.faults
async def test_over_hundreds_of_cuts_what_has_a_key_counts_exactly_once(both: Both) -> None:
    db, proxy = both
    rng = random.Random(20261129)  # noqa: S311 - a seed
    wanted: Counter[str] = Counter()
    unknown = 0

    async def once(call: Callable[[], Any]) -> None:
        nonlocal unknown
        while True:
            try:
                return await call()
            except OutcomeUnknownError:
                unknown += 1
            except UnavailableError:
                pass

    for number in range(CUTS):
        key = f"key {number}"
        proxy.lose = proxy.lose_answer_to = None
        kind = rng.choice(["observe", "deltas", "record", "adjust", "run"])
        where = rng.choice(["lose", "lose_answer_to"])
        mark = b"COMMIT;" if kind == "run" and rng.random() < 0.7 else b"\x00"

        async def unit(uow: UnitOfWork) -> str:
            await uow.arms.observe("l", "unit", reward=1.0)
            await uow.edges.record("u", "v", score=1.0)
            return "done"

        setattr(proxy, where, mark)
        if rng.random() < 0.2:
            setattr(proxy, where, None)
        calls: dict[str, Callable[[], Any]] = {
            "observe": lambda key=key: db.arms.observe("l", "a", reward=1.0, idempotency_key=key),
            "deltas": lambda key=key: db.arms.apply_deltas(
                "l", {"d": (1.0, 0.0), "e": (0.0, 1.0)}, idempotency_key=key
            ),
            "record": lambda key=key: db.edges.record("x", "y", score=1.0, idempotency_key=key),
            "adjust": lambda key=key: db.factors.adjust({"n": "partial"}, idempotency_key=key),
            "run": lambda key=key, unit=unit: db.run(unit, idempotency_key=key),
        }
        await once(calls[kind])
        wanted[kind] += 1
        if rng.random() < 0.3:
            await once(calls[kind])  # and once more, though it was acknowledged
    proxy.lose = proxy.lose_answer_to = None
    assert unknown > CUTS / 10
    assert (await db.arms.get("l", "a")).pulls == wanted["observe"]
    assert (await db.arms.get("l", "d")).pulls == wanted["deltas"]
    assert (await db.arms.get("l", "e")).pulls == wanted["deltas"]
    assert (await db.edges.get("x", "y")).hit_count == wanted["record"]
    assert (await db.arms.get("l", "unit")).pulls == wanted["run"]
    assert (await db.edges.get("u", "v")).hit_count == wanted["run"]
    weight = (await db.factors.get(["n"]))["n"]
    assert weight == pytest.approx(min(5.0, 1.0 + 0.03 * wanted["adjust"]))


@pytest.mark.faults
async def test_without_a_key_acknowledged_is_counted_and_unknown_is_resolved(both: Both) -> None:
    db, proxy = both
    rng = random.Random(7)  # noqa: S311 - a seed
    acknowledged = unknown = counted_of_unknown = 0
    for _ in range(CUTS):
        proxy.lose = proxy.lose_answer_to = None
        if rng.random() < 0.7:
            setattr(proxy, rng.choice(["lose", "lose_answer_to"]), b"COMMIT;")
        try:
            async with db.unit_of_work() as uow:
                await uow.arms.observe("l", "a", reward=1.0)
            acknowledged += 1
        except OutcomeUnknownError as error:
            unknown += 1
            counted_of_unknown += await error.resolve(db)
    proxy.lose = proxy.lose_answer_to = None
    assert unknown > CUTS / 3
    assert 0 < counted_of_unknown < unknown
    assert (await db.arms.get("l", "a")).pulls == acknowledged + counted_of_unknown


@pytest.mark.faults
async def test_run_with_a_key_repeats_by_itself_through_cuts(dsn: str) -> None:
    async with severed(dsn) as proxy, Database.connect(Settings(dsn=proxy.dsn)) as db:

        async def unit(uow: UnitOfWork) -> None:
            await uow.arms.observe("l", "a", reward=1.0)
            await asyncio.sleep(0.001)

        async def cut() -> None:
            for _ in range(40):
                await asyncio.sleep(0.05)
                await proxy.cut()

        async def work(number: int) -> None:
            await db.run(
                unit, idempotency_key=f"k{number}", retry_unavailable=True, max_attempts=1_000
            )

        cutting = asyncio.create_task(cut())
        limit = asyncio.Semaphore(20)

        async def one(number: int) -> None:
            async with limit:
                await work(number)

        await asyncio.gather(*(one(number) for number in range(1_000)))
        await cutting
        assert (await db.arms.get("l", "a")).pulls == 1_000
