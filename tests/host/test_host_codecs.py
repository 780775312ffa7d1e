"""A host's connections, whose types are encoded in ways of its own."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import Database, QortexDbError, Settings, unit_of_work
from qortex_db.uow import Repositories
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db.testing import Server

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def calls() -> Iterator[Any]:
    sys.path.insert(0, str(DOCS))
    import statement_calls  # noqa: PLC0415

    yield statement_calls
    sys.path.remove(str(DOCS))


CODECS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    # As applications with msgspec or orjson have it: both ways in bytes.
    "jsonb of bytes": {
        "jsonb": {
            "encoder": lambda value: b"\x01" + memoryview(value).tobytes(),
            "decoder": lambda value: value[1:],
            "format": "binary",
        },
        "json": {"encoder": bytes, "decoder": bytes, "format": "binary"},
    },
    "jsonb of objects": {
        name: {"encoder": json.dumps, "decoder": json.loads, "format": "text"}
        for name in ("json", "jsonb")
    },
    "others as texts": {
        name: {"encoder": str, "decoder": str, "format": "text"}
        for name in ("numeric", "date", "interval", "uuid")
    },
}


def engine_of(dsn: str, name: str) -> Any:
    url = Settings(dsn=dsn).target().url  # type: ignore[union-attr]
    engine = create_async_engine(url, **JSON.get(name, {}))

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _: object) -> None:
        async def register(driver: Any) -> None:
            for kind, codec in CODECS[name].items():
                await driver.set_type_codec(kind, schema="pg_catalog", **codec)

        connection.run_async(register)

    return engine


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_it_is(value: Any) -> Any:
    return value


JSON: dict[str, dict[str, Any]] = {
    "jsonb of bytes": {"json_serializer": as_bytes},
    "jsonb of objects": {"json_serializer": as_it_is, "json_deserializer": as_it_is},
}
"""How such a host has SQLAlchemy write what its codecs take."""


BY_CHANCE = {"explain", "select"}
"""What they give is another thing each time."""


async def outcome(call: Any, repository: Any) -> str:
    try:
        result = repr(await call(repository))
    except QortexDbError as error:
        result = type(error).__name__
    result = re.sub(r"(_at|last_\w+|at|cursor)=([^,)]|\([^)]*\))*", "", result)
    result = re.sub(r"'printed': datetime[^)]*\)", "", result)
    result = re.sub(r"^\d{10}\.\d+$", "", result)  # the server's clock
    return re.sub(r"(\d\.\d{3})\d+", r"\1", result)  # what was left of half-lives goes on


async def run_everything(dsn: str, calls: Any, name: str, lane: str) -> list[tuple[str, str]]:
    async with Database.connect(dsn) as db, db.engine.begin() as connection:
        await connection.run_sync(calls.Base.metadata.create_all)
    engine = engine_of(dsn, name)
    said = []
    db = Database.from_engine(engine, encryption_keys=calls.ENCRYPTION_KEYS)
    for section in calls.SECTIONS:
        if section.prelude is not None:
            await section.prelude(db)
        for method, forms in section.calls.items():
            for form, call in forms.items():
                if method in BY_CHANCE or "half-life" in form:
                    continue
                options = {
                    "learning_history": section.history,
                    "encryption_keys": calls.ENCRYPTION_KEYS,
                }
                what = f"{section.title}, {method}, {form}"
                if lane == "alone":
                    repository = section.repository(Repositories(db.executor, **options))
                    said.append((what, await outcome(call, repository)))
                else:
                    async with (
                        AsyncSession(engine) as session,
                        session.begin(),
                        unit_of_work(session, **options) as uow,
                    ):
                        said.append((what, await outcome(call, section.repository(uow))))
    await engine.dispose()
    return said


@pytest.mark.slow
@pytest.mark.parametrize("lane", ["alone", "together"])
def test_no_call_needs_a_hosts_codecs_or_minds_them(
    server: Server, template: str, calls: Any, lane: str
) -> None:
    found = {}
    for name in CODECS:
        with copied(server, template) as dsn:
            found[name] = asyncio.run(run_everything(dsn, calls, name, lane))
    plain = found.pop("none")
    assert len(plain) > 280
    for name, said in found.items():
        assert [pair for pair in zip(said, plain, strict=True) if pair[0] != pair[1]] == [], name
