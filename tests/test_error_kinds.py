"""What callers branch on has a class of its own, in both lanes, and is on the page of errors."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import PendingRollbackError

from qortex_db import (
    Database,
    InFailedTransactionError,
    InsufficientResourcesError,
    PermissionDeniedError,
    QortexDbError,
    ReadOnlyError,
    Settings,
    UnavailableError,
    errors,
    migrations,
)
from qortex_db.testing.factories import VectorRecordFactory
from qortex_db.translation import translate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qortex_db.testing import Server
    from qortex_db.uow import Repositories

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"

WRITES: dict[str, Callable[[Repositories], Awaitable[Any]]] = {
    "upsert": lambda r: r.vectors.upsert([VectorRecordFactory.build(dimensions=8)]),
    "observe": lambda r: r.arms.observe("l", "a", reward=1.0),
    "record": lambda r: r.edges.record("a", "b", score=1.0),
    "adjust": lambda r: r.factors.adjust({"a": "accepted"}),
}


async def _each_way(
    dsn: str, setting: str, calls: dict[str, Callable[[Repositories], Awaitable[Any]]]
) -> list[QortexDbError]:
    """What the calls raise, by themselves, watched, and in a unit of work."""
    raised = []
    async with Database.connect(dsn) as db:
        database = await _scalar(db, "SELECT current_database()")
        await db.executor.run(text(f'ALTER DATABASE "{database}" SET {setting}'), {})
    async with Database.connect(dsn) as db:
        for watched in (False, True):
            if watched:
                event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
            for call in calls.values():
                with pytest.raises(QortexDbError) as alone:
                    await call(db)
                async with db.engine.connect():
                    pass
                with pytest.raises(QortexDbError) as together:
                    async with db.unit_of_work() as uow:
                        await call(uow)
                raised += [alone.value, together.value]
    return raised


async def _scalar(db: Database, sql: str) -> Any:
    return (await db.executor.run(text(sql), {})).rows[0][0]


async def test_what_takes_no_writes_is_read_only(dsn: str) -> None:
    raised = await _each_way(dsn, "default_transaction_read_only = on", WRITES)
    assert {type(error) for error in raised} == {ReadOnlyError}
    assert {error.sqlstate for error in raised} == {"25006"}
    assert issubclass(ReadOnlyError, UnavailableError)


async def test_a_server_out_of_a_resource_says_so(dsn: str) -> None:
    hog = text(
        "SELECT count(*) FROM (SELECT * FROM generate_series(1, 300000) n ORDER BY -n) AS sorted"
    )
    settings = "temp_file_limit = '64kB'"
    async with Database.connect(dsn) as db:
        await db.executor.run(
            text(
                f'ALTER DATABASE "{await _scalar(db, "SELECT current_database()")}" '
                "SET work_mem = '64kB'"
            ),
            {},
        )
    raised = await _each_way(dsn, settings, {"sort": lambda r: r.executor.run(hog, {})})
    assert {type(error) for error in raised} == {InsufficientResourcesError}
    assert {error.sqlstate for error in raised} == {"53400"}


async def test_a_role_without_privileges_is_told(server: Server, dsn: str) -> None:
    role = "errors_reader"
    async with Database.connect(dsn) as db:
        await db.executor.run(text(f"DROP ROLE IF EXISTS {role}"), {})
        await db.executor.run(text(f"CREATE ROLE {role}"), {})
        for table in ("qortex_vectors", "learning_arm_states"):
            await db.executor.run(text(f"GRANT SELECT ON {table} TO {role}"), {})
    try:
        raised = await _each_way(dsn, f"role = {role}", WRITES)
    finally:
        async with Database.connect(Settings(dsn=server.dsn("postgres"))) as db:
            name = dsn.partition("?")[0].rpartition("/")[2]
            await db.executor.run(text(f'ALTER DATABASE "{name}" RESET role'), {})
    assert {type(error) for error in raised} == {PermissionDeniedError}
    assert "permission denied for table qortex_vectors" in str(raised[0])


async def test_a_transaction_that_an_error_aborted_is_told(db: Database) -> None:
    async with db.unit_of_work() as uow:
        with pytest.raises(QortexDbError):
            await uow.executor.run(text("SELECT 1/0"), {})
        for call in (*WRITES.values(), lambda r: r.vectors.count()):
            with pytest.raises(InFailedTransactionError, match="begin_nested") as caught:
                await call(uow)
            assert caught.value.sqlstate == "25P02"
        await uow.session.rollback()
    assert isinstance(translate(PendingRollbackError("…")), InFailedTransactionError)


def test_every_error_is_on_the_page_and_says_whether_to_repeat() -> None:
    page = PAGE.read_text()
    kinds = {
        kind
        for module in (errors, migrations)
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, QortexDbError)
    }
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", page, re.MULTILINE))
    assert {kind.__name__ for kind in kinds} <= rows.keys()
    assert rows.keys() <= {kind.__name__ for kind in kinds}
    for row in rows.values():
        assert len(row.split(" | ")) == 3, row  # what it means; may I repeat it; what to do
