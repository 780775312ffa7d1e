"""Every public call of docs/statement_calls.py, and what it answers, in either lane."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from qortex_db import Database, QortexDbError

if TYPE_CHECKING:
    from types import ModuleType

    from qortex_db import Settings

DOCS = Path(__file__).parents[2] / "docs"
Answers: TypeAlias = dict[tuple[str, str, str], str]
"""By section, method and form."""

BY_CHANCE = {"select", "explain", "clock", "recall_probe", "tune", "recommend_index"}
"""The methods whose answers depend on chance, on plans or on sizes."""
BY_TIME = ("half-life", "summary", "changes", "stats")
_TIMES = re.compile(r"datetime\.datetime\([^)]*\)|\d{4}-\d\d-\d\dT[^'\"]*")


def calls() -> tuple[ModuleType, ModuleType]:
    """The pages' calls, and their generator."""
    sys.path.insert(0, str(DOCS))
    try:
        import generate_statements  # noqa: PLC0415
        import statement_calls  # noqa: PLC0415
    finally:
        sys.path.remove(str(DOCS))
    return statement_calls, generate_statements


async def make_tables(db: Database, schema: str | None) -> None:
    """The models' of the calls."""
    statement_calls, _ = calls()
    async with db.engine.connect() as connection:
        if schema is not None:
            await connection.execution_options(schema_translate_map={None: schema})
        await connection.run_sync(statement_calls.Base.metadata.create_all)
        await connection.commit()


async def answers(settings: Settings, *, together: bool) -> Answers:
    """What every call answers, or the class of its error.

    Args:
        together: Each in a unit of work, else by itself.
    """
    statement_calls, generator = calls()
    found: Answers = {}
    keys = statement_calls.ENCRYPTION_KEYS
    async with Database.connect(settings, encryption_keys=keys) as db:
        for section in statement_calls.SECTIONS:
            title = section.title
            if title == "Two models":  # which needs triggers
                continue
            if section.prelude is not None:
                await section.prelude(db)
            for method, forms in section.calls.items():
                for form, call in forms.items():
                    try:
                        answer = await _run(db, section, call, generator, together=together)
                    except QortexDbError as error:
                        answer = f"{type(error).__name__}: {error}"
                    found[title, method, form] = _TIMES.sub("…", repr(_ordered(answer)))
    return found


async def _run(db: Database, section: Any, call: Any, generator: Any, *, together: bool) -> object:
    if not together:
        made = generator.repositories(db.executor, history=section.history)
        return await call(section.repository(made))
    async with db.unit_of_work() as uow:
        made = generator.repositories(uow.executor, history=section.history)
        return await call(section.repository(made))


def _ordered(answer: object) -> object:
    return sorted(answer.items(), key=repr) if isinstance(answer, dict) else answer
