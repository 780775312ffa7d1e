"""A session that others use too: criteria of the host's, other tasks, failures, cancellations."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import sqlalchemy
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, with_loader_criteria

from qortex_db import (
    InteroceptionFactor,
    InvalidInputError,
    QortexVector,
    Settings,
    UnavailableError,
    UnitOfWork,
    unit_of_work,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

VECTOR = [1.0] + [0.0] * 7


@pytest.fixture
async def engine(dsn: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(Settings(dsn=dsn).target().url)  # type: ignore[union-attr]
    async with AsyncSession(engine) as session, session.begin(), unit_of_work(session) as uow:
        await uow.factors.save({"a": 1.0, "b": 1.0})
        rows = [{"id": k, "embedding": VECTOR, "payload": {"k": k}} for k in "abc"]
        await uow.vectors.upsert(rows)
    yield engine
    await engine.dispose()


class Softly(Session):
    """Rows called c are deleted, as far as this host's queries go."""


@event.listens_for(Softly, "do_orm_execute")
def _hide(state: Any) -> None:
    if state.is_select and not state.is_column_load and not state.is_relationship_load:
        state.statement = state.statement.options(
            with_loader_criteria(QortexVector, QortexVector.id != "c")
        )


async def test_criteria_of_a_host_hold_for_no_statement_of_ours(engine: AsyncEngine) -> None:
    sessions = async_sessionmaker(engine, sync_session_class=Softly)
    async with sessions() as session:
        assert len((await session.scalars(select(QortexVector))).all()) == 2
        shown = text("SELECT * FROM qortex_vectors WHERE id = 'c'")
        hidden = (await session.scalars(select(QortexVector).from_statement(shown))).one()
        async with unit_of_work(session) as uow:
            every = QortexVector.id.is_not(None)
            for where in (None, {"k": {"$exists": True}}, every, every & QortexVector.payload):
                if where is not None and not isinstance(where, dict) and where is not every:
                    continue
                assert await uow.vectors.count(where=where) == 3
                assert len(await uow.vectors.search(VECTOR, where=where)) == 3
                assert len((await uow.vectors.scroll(where=where)).records) == 3
            assert await uow.vectors.merge_payload({"k": "new"}, where=every) == 3
            assert hidden.payload == {"k": "new"}  # the session keeps it, with what is stored
            assert hidden in session
            await uow.vectors.delete(["c"])
            assert hidden not in session


async def at_once(sessions: Any, *keys: str) -> list[BaseException | None]:
    """Blocks of several tasks over one session."""

    async def one(key: str) -> None:
        async with unit_of_work(sessions) as uow:
            await uow.factors.adjust({key: "accepted"})
            await asyncio.sleep(0.05)

    return await asyncio.gather(*map(one, keys), return_exceptions=True)


async def test_a_session_is_one_tasks(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        outcomes = await at_once(session, "a", "b")
        assert [type(each) for each in outcomes] == [type(None), InvalidInputError]
        assert "a session for each task" in str(outcomes[1])
        await session.commit()
        assert [await at_once(session, "b"), await at_once(session, "b")] == [[None], [None]]
        await session.commit()
    async with AsyncSession(engine) as session, unit_of_work(session) as uow:
        assert await uow.factors.load() == pytest.approx({"a": 1.1, "b": 1.2})


async def test_tasks_that_meet_at_a_sessions_first_connection_are_told(
    engine: AsyncEngine,
) -> None:
    async with AsyncSession(engine) as session:
        await engine.dispose()  # so that connecting takes its time
        uow = UnitOfWork(session)
        outcomes = await asyncio.gather(
            *(uow.factors.load() for _ in range(2)), return_exceptions=True
        )
        assert InvalidInputError in map(type, outcomes)
        assert "a session for each task" in str(outcomes)


async def test_tasks_that_a_block_began_may_have_blocks_inside(engine: AsyncEngine) -> None:
    async def inner(session: AsyncSession, key: str) -> None:
        async with unit_of_work(session) as uow:
            await uow.factors.adjust({key: "accepted"})

    async with AsyncSession(engine) as session:
        async with unit_of_work(session) as uow:
            await asyncio.wait_for(inner(session, "a"), 5)
            async with anyio.create_task_group() as group:
                group.start_soon(inner, session, "b")
            assert await uow.factors.load() == {"a": 1.1, "b": 1.1}
        assert not session.info["qortex_db_open_blocks"]

        # A fixture's block, which a task opened that has ended.
        block = unit_of_work(session)
        await asyncio.create_task(block.__aenter__())  # type: ignore[arg-type]
        await inner(session, "a")
        await asyncio.create_task(block.__aexit__(None, None, None))  # type: ignore[arg-type]


async def adjust_and(session: AsyncSession, work: Any) -> None:
    async with unit_of_work(session) as uow:
        await uow.factors.adjust({"a": "accepted"})
        await work(session)


async def sleeping(session: AsyncSession) -> None:
    await session.execute(text("SELECT pg_sleep(30)"))


async def idle(_: AsyncSession) -> None:
    await asyncio.sleep(30)


async def by_asyncio(work: Any) -> None:
    async with asyncio.timeout(0.3):
        await work


async def by_anyio(work: Any) -> None:
    with anyio.fail_after(0.3):
        await work


async def by_cancel(work: Any) -> None:
    task = asyncio.create_task(work)
    await asyncio.sleep(0.3)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        raise TimeoutError from None


@pytest.mark.parametrize("cancel", [by_asyncio, by_anyio, by_cancel], ids=lambda f: f.__name__)
@pytest.mark.parametrize("work", [sleeping, idle], ids=lambda f: f.__name__)
async def test_what_a_cancellation_undid_no_loaded_object_shows(
    engine: AsyncEngine, cancel: Any, work: Any
) -> None:
    if cancel is by_anyio and work is sleeping and sqlalchemy.__version__ < "2.1":
        pytest.skip("cancelled at each turn, SQLAlchemy 2.0 leaves a host's connection unclosed")
    async with AsyncSession(engine, expire_on_commit=False) as session:
        factor = await session.get_one(InteroceptionFactor, "a")
        await session.commit()
        with pytest.raises(TimeoutError):
            await cancel(adjust_and(session, work))
        assert "weight" not in vars(factor) or factor.weight == 1.0
        await session.rollback()
        await session.refresh(factor)
        assert factor.weight == 1.0


KILL = text("SELECT pg_terminate_backend(:pid)")


async def kill(session: AsyncSession) -> None:
    pid = await session.scalar(text("SELECT pg_backend_pid()"))
    async with session.bind.connect() as other:  # type: ignore[union-attr]
        await other.execute(KILL, {"pid": pid})
        await asyncio.sleep(0.1)


async def kill_and_fail(session: AsyncSession) -> None:
    await kill(session)
    raise ZeroDivisionError


async def kill_and_ask(session: AsyncSession) -> None:
    await kill(session)
    async with unit_of_work(session) as uow:
        await uow.factors.load()


async def divide(session: AsyncSession) -> None:
    await session.execute(text("SELECT 1 / 0"))


async def divide_and_fail(session: AsyncSession) -> None:
    with pytest.raises(Exception, match="division by zero"):
        await divide(session)
    raise KeyError


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (kill, UnavailableError),  # at RELEASE SAVEPOINT
        (kill_and_ask, UnavailableError),
        (kill_and_fail, ZeroDivisionError),
        (divide_and_fail, KeyError),
    ],
)
async def test_the_first_failure_is_the_one_that_is_raised(
    engine: AsyncEngine, work: Any, kind: type[Exception]
) -> None:
    async with AsyncSession(engine) as session:
        factor = await session.get_one(InteroceptionFactor, "a")
        with pytest.raises(kind) as raised:
            await adjust_and(session, work)
        assert "parameters" not in str(raised.value)
        assert "weight" not in vars(factor) or factor.weight == 1.0
        await session.rollback()
        await session.refresh(factor)
        assert factor.weight == 1.0
