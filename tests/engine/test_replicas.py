"""Reads by themselves at replicas: what is asked beside a statement, tokens and their errors.

The primary is its own replica here; real standbys are in test_standby.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import event

from qortex_db import (
    Database,
    Settings,
)
from qortex_db.engine import NO_OPTIONS
from qortex_db.engine.executor import written_tables
from qortex_db.engine.telling import AFTER, guarded, is_for_replicas, parted, seeing, telling, told

if TYPE_CHECKING:
    from qortex_db.testing import Server

VECTOR = [1.0] * 8
LARGE = [{"id": f"l{i}", "embedding": VECTOR, "document": "word " * 10_000} for i in range(50)]
"""Of several parts, which are one batch."""


CHANGES = re.compile(r"\b(INSERT INTO|UPDATE(?!')|DELETE FROM|FOR (NO KEY|SHARE|KEY))\b")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    import generate_statements  # noqa: PLC0415

    return generate_statements


def plain(value: Any) -> Any:
    """What compares by value."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)) or type(value).__name__ in {"Record", "Row"}:
        return [plain(each) for each in value]
    return repr(value)


@pytest.mark.slow
@pytest.mark.parametrize("watched", [False, True], ids=["by the driver", "watched"])
async def test_every_read_gives_the_same_with_something_told_beside_it(
    dsn: str, page: Any, watched: bool
) -> None:
    compared = 0

    class Comparing(page.Recorder):  # type: ignore[misc, name-defined]
        async def run(self, statement: Any, params: Any) -> Any:
            nonlocal compared
            if not is_for_replicas(statement) or "random()" in str(statement):
                return await super().run(statement, params)
            # What writes in a CTE, or locks, says so by the option `writes`.
            assert not CHANGES.search(page.sql_of(statement))
            lane = self._executor
            given = await lane.run_here(statement, params, NO_OPTIONS)
            for made, after in ((guarded, "3"), (seeing, "3")):
                asked = {**params, AFTER: after}
                beside, said = parted(await lane.run_here(made(statement), asked, NO_OPTIONS))
                assert plain(beside.rows) == plain(given.rows), page.sql_of(statement)
                assert said is True or int(said) > 3
            asked = {**params, AFTER: str(2**60 - 1)}
            late = await lane.run_here(guarded(statement), asked, NO_OPTIONS)
            assert (len(late.rows), parted(late)[1]) == (1, False), page.sql_of(statement)
            compared += 1
            return given

    settings = Settings(dsn=dsn, dimensions=8)
    async with Database.connect(settings, encryption_keys=page.ENCRYPTION_KEYS) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(page.Base.metadata.create_all)
        if watched:
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        await _call_all(db, page, Comparing(db.executor))
    assert compared > 150


@pytest.mark.slow
async def test_every_write_gives_the_same_with_its_number_beside_it(
    server: Server, template: str, page: Any
) -> None:
    numbers: list[str | None] = []

    class Telling(page.Recorder):  # type: ignore[misc, name-defined]
        async def run(self, statement: Any, params: Any) -> Any:
            asking = telling(statement) if tells and written_tables(statement) is not None else None
            if asking is None:
                given = await self._executor.run_here(statement, params, NO_OPTIONS)
            else:
                beside = await self._executor.run_here(asking, params, NO_OPTIONS)
                given, number = told(statement, beside)
                numbers.append(number)
            if written_tables(statement) is not None:
                gave.append((page.sql_of(statement), len(given.rows), given.rowcount))
            return given

    both = []
    for tells in (False, True):
        gave: list[tuple[str, int, int]] = []
        with server.database(template) as dsn:
            settings = Settings(dsn=dsn, dimensions=8)
            async with Database.connect(settings, encryption_keys=page.ENCRYPTION_KEYS) as db:
                async with db.engine.begin() as connection:
                    await connection.run_sync(page.Base.metadata.create_all)
                await _call_all(db, page, Telling(db.executor))
        both.append(gave)
    assert both[0] == both[1]
    known = [number for number in numbers if number is not None]
    assert min(map(int, known)) > 3
    assert len(known) > 80


async def _call_all(db: Database, page: Any, executor: Any) -> None:
    """Call every method in every form."""
    for section in page.SECTIONS:
        if section.prelude is not None:
            await section.prelude(db)
        repository = section.repository(page.repositories(executor, history=section.history))
        for forms in section.calls.values():
            for call in forms.values():
                executor.begin()
                await call(repository)
