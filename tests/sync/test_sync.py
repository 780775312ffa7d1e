"""A Database whose methods wait: the async one's, over a loop in the background."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import select, text

from qortex_db import (
    InteroceptionFactor,
    InvalidInputError,
    QueryTimeoutError,
    Settings,
)
from qortex_db.sync import Database
from qortex_db.sync.background import BACKGROUND
from support.commands import program

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).with_name("script.py")
VECTORS = np.random.default_rng(1).normal(size=(1_200, 8)).astype("f4")
RECORDS = [
    {"id": f"r{i:04}", "embedding": vector, "payload": {"n": i}} for i, vector in enumerate(VECTORS)
]


@pytest.fixture
def db(dsn: str) -> Iterator[Database]:
    with Database.connect(dsn) as db:
        yield db


def test_calls_blocks_iterators_and_views_wait(db: Database, dsn: str) -> None:
    seen: list[int] = []
    assert db.vectors.ingest(iter(RECORDS), batch_size=500, on_progress=seen.append) == 1_200
    assert seen == [500, 1_000, 1_200]
    assert db.vectors.search(VECTORS[7], limit=1, exact=True)[0].id == "r0007"
    assert [record.id for record in db.vectors.stream()] == [record["id"] for record in RECORDS]
    few = db.vectors.stream()
    assert next(few).id == "r0000"
    few.close()  # type: ignore[attr-defined]
    assert db.options(timeout_seconds=5).vectors.count() == 1_200

    with db.unit_of_work() as uow:
        uow.factors.save({"a": 1.5})
        uow.session.add(InteroceptionFactor(node_id="b", weight=2.5))
        with uow.options(timeout_seconds=5):
            assert uow.factors.load() == {"a": 1.5, "b": 2.5}
        with pytest.raises(KeyError), uow.session.begin_nested():  # noqa: PT012 - a block ends
            uow.factors.save({"a": 9.0})
            raise KeyError
        rows = uow.session.execute(select(InteroceptionFactor.weight)).scalars().all()
        assert sorted(rows) == [1.5, 2.5]
        assert uow.session.scalar(text("SELECT pg_backend_pid()")) == uow.session.scalar(
            text("SELECT pg_backend_pid()")
        )
    with pytest.raises(KeyError, match="mine"), db.unit_of_work() as uow:  # noqa: PT012 - a block ends
        uow.factors.save({"a": 9.0})
        raise KeyError("mine")
    assert db.factors.load() == {"a": 1.5, "b": 2.5}

    assert db.run(lambda uow: uow.factors.adjust({"a": "accepted"})) == {"a": pytest.approx(1.6)}
    assert db.with_settings({"app.tenant": "t"}).run(lambda uow: uow.vectors.count()) == 1_200
    with pytest.raises(ZeroDivisionError):
        db.run(lambda uow: uow.factors.save({"a": 9.0}) or 1 / 0)
    assert db.factors.get(["a"]) == {"a": pytest.approx(1.6)}
    assert "upsert" in dir(db.vectors)
    assert "VectorRepository" in repr(db.vectors)


def test_it_has_every_method_of_the_async_one(db: Database) -> None:
    with db.unit_of_work() as uow:
        for mine in (db, db.options(timeout_seconds=1), uow):
            for name in ("vectors", "factors", "edges", "arms", "embeddings", "idempotency"):
                repository: Any = getattr(mine, name)
                for method, _ in inspect.getmembers(repository._target, inspect.ismethod):
                    if not method.startswith("_"):
                        assert callable(getattr(repository, method))


def test_a_time_limit_of_a_block_is_kept_while_nothing_is_called(db: Database) -> None:
    with pytest.raises(QueryTimeoutError), db.unit_of_work(timeout_seconds=0.2) as uow:  # noqa: PT012 - a block ends
        uow.factors.save({"a": 9.0})
        time.sleep(0.4)
    with pytest.raises(QueryTimeoutError), db.unit_of_work(timeout_seconds=0.2) as uow:
        uow.session.execute(text("SELECT pg_sleep(60)"))
    assert db.factors.load() == {}


def test_threads_share_one(db: Database) -> None:
    def work(thread: int) -> None:
        for i in range(20):
            with db.unit_of_work() as uow:
                uow.arms.observe("l", "arm", reward=1.0)
                assert uow.factors.get([f"n{thread}"]) is not None
            db.arms.observe("l", "arm", reward=float(i % 2))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert db.arms.get("l", "arm").pulls == 8 * 40


@pytest.mark.parametrize("where", ["call", "block", "run"])
def test_ctrl_c_ends_what_waits_and_nothing_of_it_stays(db: Database, where: str) -> None:
    def interrupted(uow: Any) -> None:
        uow.factors.save({"a": 9.0})
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        uow.session.execute(text("SELECT pg_sleep(60)"))

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - a block ends
        if where == "run":
            db.run(interrupted)
        elif where == "block":
            with db.unit_of_work() as uow:
                interrupted(uow)
        else:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            BACKGROUND.run(asyncio.sleep(60))
    assert time.monotonic() - begun < 30
    assert db.factors.load() == {}


def test_a_callback_that_would_wait_for_itself_is_refused(db: Database) -> None:
    with pytest.raises(InvalidInputError, match="async Database"):
        db.vectors.ingest(iter(RECORDS[:3]), on_progress=lambda _: db.vectors.count())


def test_inside_of_a_running_loop_it_waits_too(dsn: str) -> None:
    async def main() -> int:
        with Database.connect(Settings(dsn=dsn)) as db:
            return db.vectors.count()

    assert asyncio.run(main()) == 0


@pytest.mark.slow
async def test_a_script_runs(dsn: str) -> None:
    done = await program(sys.executable, str(SCRIPT), dsn)
    assert (done.code, done.out) == (0, "done\n"), done.err
