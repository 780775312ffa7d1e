"""A hundred thousand counted operations, through killed backends and lost answers, checked."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from qortex_db import (
    Database,
    OutcomeUnknownError,
    QortexDbError,
    Settings,
    UnavailableError,
    migrations,
)
from support.severing import severed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from qortex_db import UnitOfWork
    from qortex_db.view import Lanes
    from support.severing import Severing

OPERATIONS = int(os.environ.get("HISTORY_OPERATIONS", "20000"))
"""A hundred thousand take two minutes and more."""
SECONDS = 240
"""After which no more are begun: what was done is checked."""
LEAST = 10_000
TASKS = 40
SPACES = ("public", "acme")
LEARNERS = ("one", "two")
CONTEXT = {"kept": "apart"}


class Told:
    """What was acknowledged, by what is counted."""

    def __init__(self) -> None:
        self.pulls: Counter[tuple[str, ...]] = Counter()
        self.rewards: Counter[tuple[str, ...]] = Counter()
        self.hits: Counter[tuple[str, ...]] = Counter()
        self.nodes: set[tuple[str, str]] = set()
        self.failed: Counter[str] = Counter()
        self.done = 0


Operation = tuple["Callable[[Any, str], Awaitable[Any]]", "Callable[[], None]"]


def operations(told: Told, chance: random.Random, space: str, number: int) -> Iterator[Operation]:
    """An operation of each kind, and how it is counted once it is acknowledged."""
    arm = f"arm{chance.randrange(20)}"
    learner = chance.choice(LEARNERS)
    reward = chance.randrange(9) / 8
    pair = f"n{chance.randrange(9)}", f"m{chance.randrange(9)}"
    of = space, learner, arm

    def count(pulls: int, rewards: float, of: tuple[str, ...] = of) -> None:
        told.pulls[of] += pulls
        told.rewards[of] += rewards  # type: ignore[assignment] # eighths add up exactly

    def hit(times: int) -> None:
        told.hits[(space, *pair)] += times

    yield (
        lambda r, key: r.arms.observe(learner, arm, reward=reward, idempotency_key=key),
        lambda: count(1, reward),
    )
    yield (
        lambda r, key: r.arms.observe_many(
            learner, [(arm, reward)] * 3, context=CONTEXT, idempotency_key=key
        ),
        lambda: count(3, 3 * reward, (*of, "context")),
    )
    yield (
        lambda r, key: r.arms.apply_deltas(learner, {arm: (reward, 0.5)}, idempotency_key=key),
        lambda: count(1, reward),
    )
    yield (
        lambda r, key: r.edges.record(*pair, score=reward, idempotency_key=key),
        lambda: hit(1),
    )
    yield (
        lambda r, key: r.edges.record_many(
            [(*pair, reward), (pair[1], pair[0], 1.0)], idempotency_key=key
        ),
        lambda: hit(2),
    )
    node = f"node{number}"
    yield (
        lambda r, key: r.factors.adjust({node: "accepted"}, idempotency_key=key),
        lambda: told.nodes.add((space, node)),
    )

    async def several(uow: UnitOfWork) -> None:
        await uow.arms.observe(learner, arm, reward=reward)
        await uow.edges.record(*pair, score=1.0)

    def several_counted() -> None:
        count(1, reward)
        hit(1)

    yield (
        lambda r, key: r.run(several, retry_unavailable=True, idempotency_key=key),
        several_counted,
    )


async def perform(
    on: Lanes, told: Told, operation: Operation, key: str, chance: random.Random
) -> None:
    """Until it is acknowledged, and then perhaps again, or twice at once."""
    call, count = operation
    while True:
        twice = chance.random() < 0.05
        tries = [call(on, key) for _ in range(2 if twice else 1)]
        answers = await asyncio.gather(*tries, return_exceptions=True)
        errors = [one for one in answers if isinstance(one, BaseException)]
        for error in errors:
            assert isinstance(error, QortexDbError), repr(error)
            told.failed[type(error).__name__] += 1
        if len(errors) < len(answers):
            break
        assert isinstance(errors[0], (UnavailableError, OutcomeUnknownError)), repr(errors[0])
    count()
    if chance.random() < 0.1:
        try:
            await call(on, key)
        except (UnavailableError, OutcomeUnknownError) as error:
            told.failed[type(error).__name__] += 1


async def hurt(dsn: str, proxy: Severing, stopped: asyncio.Event) -> None:
    """Kill backends, lose answers and cut connections, one after the other."""
    chance = random.Random(20261129)  # noqa: S311 - a seed
    connection = await asyncpg.connect(dsn)
    kill = (
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE pid <> "
        "pg_backend_pid() AND datname = current_database() ORDER BY random() LIMIT $1) AS chosen"
    )
    lost = itertools.cycle([b"learning_arm_states", b"COMMIT", b"interoception", b"idempotency"])
    while not stopped.is_set():
        what = chance.randrange(6)
        if what == 0:
            await proxy.cut()
        elif what < 3:
            proxy.lose_answer_to = next(lost)
        elif what == 3:
            proxy.lose = next(lost)
        else:
            await connection.fetch(kill, chance.randrange(1, 4))
        await asyncio.sleep(chance.uniform(0.02, 0.3))
    proxy.lose = proxy.lose_answer_to = None
    await connection.close()


async def check(db: Database, told: Told) -> None:
    for space in SPACES:
        on = db.namespace(space)
        for learner in LEARNERS:
            for context, end in ((None, ()), (CONTEXT, ("context",))):
                for arm, state in (await on.arms.get_all(learner, context=context)).items():
                    of = (space, learner, arm, *end)
                    assert (state.pulls, state.total_reward) == (told.pulls[of], told.rewards[of])
                    del told.pulls[of]
        counted = {(space, *sorted(pair)): stats for pair, stats in (await on.edges.load()).items()}
        expected = Counter[tuple[str, ...]]()
        for (where, *pair), hits in told.hits.items():
            if where == space:
                expected[(space, *sorted(pair))] += hits
        assert {pair: stats.hit_count for pair, stats in counted.items()} == expected
        nodes = {node for where, node in told.nodes if where == space}
        assert await on.factors.load() == dict.fromkeys(nodes, 1.1)
    assert not told.pulls, "acknowledged, and not there"


@pytest.mark.faults
@pytest.mark.timeout(SECONDS + 120)
async def test_what_is_acknowledged_is_counted_once_whatever_breaks(dsn: str) -> None:
    await migrations.upgrade(Settings(dsn=dsn, dimensions=8, db_schema="acme"))
    told = Told()
    numbers = iter(range(OPERATIONS))
    begun = time.monotonic()
    stopped = asyncio.Event()
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(severed(dsn))
        direct = await stack.enter_async_context(Database.connect(Settings(dsn=dsn)))
        through = await stack.enter_async_context(Database.connect(Settings(dsn=proxy.dsn)))
        host = Database.from_engine(direct.engine, learning_history=True)
        views: list[tuple[Lanes, str]] = [
            (direct, "public"),
            (direct.namespace("acme"), "acme"),
            (host, "public"),
            (through, "public"),
            (through.namespace("acme").with_settings({"app.tenant": "a"}), "acme"),
        ]

        async def work(seed: int) -> None:
            chance = random.Random(seed)  # noqa: S311 - a seed
            for number in numbers:
                if time.monotonic() - begun > SECONDS:
                    return
                on, space = chance.choices(views, [4, 4, 2, 1, 1])[0]
                kinds = list(operations(told, chance, space, number))
                await perform(on, told, chance.choice(kinds), f"k{number}", chance)
                told.done += 1

        hurting = asyncio.create_task(hurt(dsn, proxy, stopped))
        try:
            await asyncio.gather(*(work(seed) for seed in range(TASKS)))
        finally:
            stopped.set()
            await hurting
        assert told.done > LEAST
        assert told.failed["OutcomeUnknownError"] > 50
        await check(direct, told)
