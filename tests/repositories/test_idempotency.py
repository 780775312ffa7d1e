"""A call that is repeated with its key counts once, in whatever lane, and however many at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text, update

from qortex_db import (
    ArmState,
    CounterOverflowError,
    Database,
    EdgeStats,
    IdempotencyKey,
    IdempotencyKeyReusedError,
    InvalidInputError,
    UnitOfWork,
    unit_of_work,
)
from qortex_db.checks import MAX_INT4
from qortex_db.testing.factories import ArmStateFactory, EdgeStatsFactory
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from qortex_db.uow import Repositories

CALLS: dict[str, Callable[[Repositories, Any], Awaitable[Any]]] = {
    "observe": lambda r, key: r.arms.observe("l", "a", reward=0.25, idempotency_key=key),
    "observe_many": lambda r, key: r.arms.observe_many(
        "l", [("b", 1.0), ("c", 0.5), ("b", 0.0)], context={"k": 1}, idempotency_key=key
    ),
    "apply_deltas": lambda r, key: r.arms.apply_deltas(
        "l", {"d": (0.5, 0.25), "e": (1, 1)}, idempotency_key=key
    ),
    "record": lambda r, key: r.edges.record("x", "y", score=0.5, idempotency_key=key),
    "record_many": lambda r, key: r.edges.record_many(
        [("p", "q", 0.5), ("q", "p", 1.0), ("r", "s", 0.0)], idempotency_key=key
    ),
    "adjust": lambda r, key: r.factors.adjust(
        {"n": "accepted", "m": "rejected"}, idempotency_key=key
    ),
}
LANES = ["alone", "watched", "together", "a host's", "with history"]


async def everything(db: Database) -> Any:
    events = await db.executor.run(text("SELECT count(*) FROM learning_events"), {})
    return (
        await db.arms.get_all_states("l"),
        await db.edges.load(),
        await db.factors.load(),
        events.rows[0][0],
    )


@pytest.fixture(params=LANES)
async def lane(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    async with Database.connect(dsn) as db:
        history = request.param == "with history"
        used = Database.from_engine(db.engine, learning_history=history)

        async def call(work: Any, key: str) -> Any:
            if request.param == "together":
                async with used.unit_of_work() as uow:
                    return await work(uow, key)
            if request.param == "a host's":
                async with (
                    used.unit_of_work() as host,
                    unit_of_work(host.session, learning_history=history) as uow,
                ):
                    return await work(uow, key)
            return await work(used, key)

        if request.param == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        yield db, call


async def test_what_is_repeated_counts_once_and_gives_the_same(lane: Any) -> None:
    db, call = lane
    for name, work in CALLS.items():
        first = await call(work, f"key of {name}")
        before = await everything(db)
        for _ in range(3):
            again = await call(work, f"key of {name}")
            assert again == first, name
        assert await everything(db) == before, name
        # Without it, and with another, it counts.
        assert await call(work, f"another key of {name}") is not None
        assert await everything(db) != before, name
    assert (await db.arms.get("l", "a")).pulls == 2
    assert (await db.edges.get("q", "p")).hit_count == 4


async def test_many_at_once_with_one_key_count_once(lane: Any) -> None:
    db, call = lane
    for name, work in CALLS.items():
        before = await everything(db)
        answers = await asyncio.gather(*(call(work, f"{name} at once") for _ in range(12)))
        assert all(answer == answers[0] for answer in answers), name
        after = await everything(db)
        assert after != before
        await call(work, f"{name} at once")
        assert await everything(db) == after
    assert (await db.arms.get("l", "a")).pulls == 1
    assert (await db.edges.get("x", "y")).hit_count == 1
    assert await db.factors.get(["n", "m"]) == {"n": 1.1, "m": 0.95}


async def test_a_key_is_of_one_call(lane: Any) -> None:
    db, call = lane
    await call(CALLS["observe"], "k")
    before = await everything(db)
    others: dict[str, Any] = {name: work for name, work in CALLS.items() if name != "observe"} | {
        "another arm": lambda r, key: r.arms.observe("l", "z", reward=0.25, idempotency_key=key),
        "another reward": lambda r, key: r.arms.observe("l", "a", reward=1, idempotency_key=key),
        "another learner": lambda r, key: r.arms.observe(
            "m", "a", reward=0.25, idempotency_key=key
        ),
        "another context": lambda r, key: r.arms.observe(
            "l", "a", reward=0.25, context={"a": 1}, idempotency_key=key
        ),
        "a unit of work": lambda r, key: r.idempotency.claim(key),
    }
    for name, work in others.items():
        with pytest.raises(IdempotencyKeyReusedError, match="'k'"):
            await call(work, "k")
        assert await everything(db) == before, name
    assert await call(CALLS["observe"], "k") == await db.arms.get("l", "a")
    for bad in ("", "x" * 1_025, "a\x00", 7, b"k"):
        for work in CALLS.values():
            with pytest.raises(InvalidInputError, match="idempotency_key"):
                await call(work, bad)
    assert await everything(db) == before


async def test_what_is_undone_or_refused_takes_no_key(db: Database) -> None:
    async def fail(uow: UnitOfWork, work: Any) -> None:
        await work(uow, "k")
        raise RuntimeError("stop")

    for work in CALLS.values():
        with pytest.raises(RuntimeError, match="stop"):
            await db.run(lambda uow, work=work: fail(uow, work))
    await db.arms.put("l", "a", ArmStateFactory.build(pulls=MAX_INT4))
    await db.edges.save({("x", "y"): EdgeStatsFactory.build(hit_count=MAX_INT4)})
    before = await everything(db)
    for name in ("observe", "record"):
        with pytest.raises(CounterOverflowError):
            await CALLS[name](db, f"{name} too much")
    assert await everything(db) == before
    await db.arms.reset("l")
    await db.edges.remove([("x", "y")])
    for name, work in CALLS.items():
        await work(db, f"{name} too much")
    assert (await db.arms.get("l", "a")).pulls == 1
    assert (await db.edges.get("x", "y")).hit_count == 1
    # What was removed since is not counted anew.
    await db.arms.delete("l")
    await db.edges.remove([("x", "y")])
    assert await CALLS["observe"](db, "observe too much") == ArmState()
    assert await CALLS["record"](db, "record too much") == EdgeStats()


async def test_a_unit_of_work_is_committed_once_with_its_key(db: Database) -> None:
    async def work(uow: UnitOfWork) -> str:
        await uow.arms.observe("l", "a", reward=1.0)
        await uow.edges.record("a", "b", score=1.0)
        await asyncio.sleep(0.01)
        return "done"

    answers = await asyncio.gather(*(db.run(work, idempotency_key="u") for _ in range(8)))
    assert sorted(map(str, answers)) == ["None"] * 7 + ["done"]
    assert (await db.arms.get("l", "a")).pulls == 1
    with pytest.raises(IdempotencyKeyReusedError):
        await CALLS["observe"](db, "u")
    with pytest.raises(InvalidInputError, match="idempotency_key"):
        await db.run(work, idempotency_key="")


async def test_a_key_costs_no_round_trip(dsn: str) -> None:
    async with counted(dsn) as trips, Database.connect(trips.dsn) as db:
        for work in CALLS.values():
            await work(db, f"{work} first")  # which prepares it
            async with trips.expect(1):
                await work(db, f"{work} once")


async def test_old_keys_are_pruned_and_then_count_again(db: Database) -> None:
    for number in range(20):
        await db.arms.observe("l", "a", reward=1.0, idempotency_key=f"k{number}")
    old = update(IdempotencyKey).where(IdempotencyKey.key < "k15")
    async with db.unit_of_work() as uow:
        await uow.session.execute(old.values(made_at=IdempotencyKey.made_at - timedelta(days=31)))
    pruned = await db.idempotency.prune()
    assert 0 < pruned < 20
    assert await db.idempotency.prune(older_than=timedelta(days=30)) == 0
    await db.arms.observe("l", "a", reward=1.0, idempotency_key="k0")
    await db.arms.observe("l", "a", reward=1.0, idempotency_key="k9")
    assert (await db.arms.get("l", "a")).pulls == 21
    async with db.unit_of_work() as uow:
        assert await uow.idempotency.prune(older_than=1e-6) == 21 - pruned
    for bad in (0, -1, "a", None):
        with pytest.raises(InvalidInputError, match="older_than"):
            await db.idempotency.prune(older_than=bad)  # type: ignore[arg-type]
