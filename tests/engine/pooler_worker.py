"""A process that runs every call of docs/statements.md in each lane, and writes what came of it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import Database, QortexDbError, Settings, unit_of_work

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
import statement_calls as page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LANES = ("alone", "together", "alone, watched", "together, watched")
HOSTED = ("hosted alone, watched", "hosted together")
# How long something took, which rows a random sample is, or a place in the server's log.
UNSAID = {"explain", "tune", "recommend_index", "recall_probe", "select", "clock", "changes"}
TIMES = re.compile(
    r"datetime\.(datetime|timedelta)\([^()]*(\([^()]*\))?[^()]*\)"
    r"|\d{4}-\d\d-\d\d[T ][\d:.]+(\+\d\d:\d\d|Z)?|\b\d{10}\.\d+\b"
)


def shown(answer: object, method: str, form: str) -> str:
    """Without what another run has otherwise."""
    if method in UNSAID or "half-life" in form:
        return type(answer).__name__
    rounded = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", repr(answer))
    return TIMES.sub("…", rounded)


@asynccontextmanager
async def entered(db: Database, lane: str, *, history: bool) -> AsyncIterator[Any]:
    """All repositories, in a lane."""
    options: Any = {"encryption_keys": page.ENCRYPTION_KEYS, "learning_history": history}
    if "alone" in lane:
        yield db
    elif "hosted" in lane:
        schema = db.executor.schema_of(None)
        async with (
            AsyncSession(db.engine) as session,
            session.begin(),
            unit_of_work(session, schema=schema, **options) as uow,
        ):
            yield uow
    else:
        async with db.unit_of_work() as uow:
            yield uow


def database(settings: Settings, lane: str, *, history: bool) -> tuple[Database, Any]:
    """A Database of our engine or of a host's, with that host's engine."""
    keys = page.ENCRYPTION_KEYS
    if "hosted" not in lane:
        given = settings.model_copy(update={"learning_history": history})
        return Database.connect(given, encryption_keys=keys), None
    target = settings.target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args), pool_size=2)
    schema = settings.db_schema
    return Database.from_engine(
        engine, schema=schema, learning_history=history, encryption_keys=keys
    ), engine


async def answers(settings: Settings, lane: str) -> dict[str, str]:
    """What every call gave, by its section, method and form."""
    said: dict[str, str] = {}
    for history in (False, True):
        db, engine = database(settings, lane, history=history)
        async with db:
            if "watched" in lane:
                event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
            for section in page.SECTIONS:
                if section.history == history:
                    said |= await answers_of(section, db, lane)
            await db.status()
        if engine is not None:
            await engine.dispose()
    return said


async def answers_of(section: page.Section, db: Database, lane: str) -> dict[str, str]:
    """Those of a section."""
    said = {}
    if section.prelude is not None:
        await section.prelude(db)
    for method, forms in section.calls.items():
        for form, call in forms.items():
            try:
                async with entered(db, lane, history=section.history) as made:
                    answer = await call(section.repository(made))
            except QortexDbError as error:
                answer = error
            said[f"{section.title}, {method}, {form}"] = shown(answer, method, form)
    return said


async def main(dsn: str, schema: str, pooler: str, lanes: str) -> None:
    settings = Settings(
        dsn=dsn, db_schema=schema, pool_max_size=2, **({"pooler": pooler} if pooler else {})
    )
    found = {lane: await answers(settings, lane) for lane in json.loads(lanes)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
