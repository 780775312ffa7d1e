"""What a cold start asks the server, and what is known without asking."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, SchemaVersionError, Settings
from qortex_db.settings import parse_dsn
from support.catalogue import execute
from support.roundtrips import counted

KNOWN = (
    *("server_version_info", "default_schema_name", "default_isolation_level"),
    *("_backslash_escapes", "supports_identity_columns", "max_identifier_length"),
)
VECTOR = [0.0] * 7 + [1.0]


async def test_opening_asks_once_a_connection_and_once_for_the_column(dsn: str) -> None:
    async with counted(dsn) as trips:
        db = Database.connect(trips.dsn)
        await db.open()
        opened = trips.count
        await db.vectors.search(VECTOR)
        first = trips.count - opened
        async with trips.expect(1):
            await db.vectors.search(VECTOR)
        await db.close()
    # Two connections that are ready and ask once, and a column's size. The oldest driver asks for
    # SQLAlchemy's json and jsonb besides.
    assert opened in {6, 14}
    assert first == 1


def _arguments(dsn: str) -> dict[str, Any]:
    return dict(parse_dsn(dsn).connect_args)


OPTIONS = ("", "-c default_transaction_isolation=serializable", "-c search_path=")


@pytest.mark.parametrize("said", OPTIONS)
async def test_what_sqlalchemy_would_ask_is_known(dsn: str, said: str) -> None:
    options = f"&options={said.replace(' ', '%20')}"
    plain = create_async_engine(parse_dsn(dsn).url, connect_args=_arguments(dsn + options))
    async with plain.connect():
        pass
    db = Database.connect(Settings(dsn=dsn + options, pool_min_size=1))
    try:
        await db.open()
        told = {name: getattr(db.engine.dialect, name) for name in KNOWN}
    except SchemaVersionError:  # nothing is on the path
        assert said.endswith("search_path=")
        told = {}
    finally:
        await db.close()
        await plain.dispose()
    wanted = {name: getattr(plain.dialect, name) for name in KNOWN}
    assert told in (wanted, {})
    assert plain.dialect.server_version_info is not None


async def test_an_extension_made_after_the_connections_is_found(empty_dsn: str) -> None:
    async with Database.connect(empty_dsn) as db:
        await execute(
            empty_dsn,
            "CREATE EXTENSION vector",
            "CREATE TABLE qortex_vectors (id text PRIMARY KEY, vec vector(8), "
            "payload jsonb NOT NULL DEFAULT '{}', document text)",
            f"INSERT INTO qortex_vectors VALUES ('a', '{VECTOR}')",
        )
        assert [hit.id for hit in await db.vectors.search(VECTOR)] == ["a"]


async def test_our_connections_compile_no_plans_and_a_hosts_are_left_alone(dsn: str) -> None:
    host = create_async_engine(parse_dsn(dsn).url, connect_args=_arguments(dsn))
    told = {}
    async with Database.connect(dsn) as ours, Database.from_engine(host) as theirs:
        for name, db in (("ours", ours), ("theirs", theirs)):
            await db.vectors.search(VECTOR)
            async with db.engine.connect() as connection:
                found = await connection.exec_driver_sql("SHOW jit")
                told[name] = found.scalar_one()
    await host.dispose()
    assert told == {"ours": "off", "theirs": "on"}
