"""What each method needs, and what owners, writers and readers are given."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from qortex_db import Database, Settings, migrations
from qortex_db.errors import InvalidInputError, NotFoundError, QortexDbError
from qortex_db.uow import Repositories
from support.commands import run as command
from support.servers import execute, new_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db.testing import Server

DOCS = Path(__file__).parents[1] / "docs"
DENIED = "42501"
LEVELS = ("roles_owner", "roles_writer", "roles_reader")


def needing_more_than_to_read() -> set[str]:
    """The methods, in whatever form, as they were measured."""
    rows = (DOCS / "operations/grants.md").read_text().splitlines()
    named = [row for row in rows if re.search("`(INSERT|UPDATE|DELETE)`", row)]
    return set(re.findall(r"`(\w+\.\w+)`", "".join(named)))


def as_role(dsn: str, role: str) -> str:
    return re.sub(r"//[^@/]*@", f"//{role}@", dsn)


@pytest.fixture(scope="module")
def calls() -> Iterator[Any]:
    sys.path.insert(0, str(DOCS))
    import statement_calls  # noqa: PLC0415

    yield statement_calls
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def roles(server: Server) -> Iterator[None]:
    names = [*LEVELS, "roles_nobody"]
    execute(server, *(f"CREATE ROLE {name} LOGIN" for name in names))
    yield
    execute(server, *(f"DROP ROLE {name}" for name in names))


@pytest.fixture
def role_dsn(server: Server, template: str, roles: None) -> Iterator[str]:
    name = new_name("roles")
    execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    yield server.dsn(name)
    execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def run(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def ours(calls: Any) -> list[Any]:
    """The sections about the package's own tables."""
    return [section for section in calls.SECTIONS if section.title != "Two models"]


def every_call(calls: Any) -> Iterator[tuple[str, str, Any, Any]]:
    for section in ours(calls):
        if section.name in ("vectors", "factors", "edges", "embeddings", "arms"):
            for method, forms in section.calls.items():
                for form, call in forms.items():
                    yield f"{section.name}.{method}", form, call, section


async def is_allowed(db: Database, call: Any, section: Any) -> bool:
    made = Repositories(db.executor, learning_history=section.history)
    try:
        await call(section.repository(made))
    except QortexDbError as error:
        return error.sqlstate != DENIED  # such as an example that is not there
    return True


async def test_owners_writers_and_readers_have_what_they_need(role_dsn: str, calls: Any) -> None:
    owner, writer, reader = LEVELS
    settings = Settings(dsn=role_dsn)
    done = await migrations.grant_roles(settings, owner=owner, writer=writer, reader=reader)
    said = migrations.roles_sql(settings, owner=owner, writer=writer, reader=reader)
    assert said == "".join(f"{statement};\n" for statement in done)
    async with Database.connect(as_role(role_dsn, writer)) as db:
        refused = [
            method
            for method, _, call, section in every_call(calls)
            if not await is_allowed(db, call, section)
        ]
        assert refused == []
    async with Database.connect(as_role(role_dsn, reader)) as db:
        read = {
            method
            for method, form, call, section in every_call(calls)
            if await is_allowed(db, call, section)
        }
        written = {method for method, *_ in every_call(calls)} & needing_more_than_to_read()
        # What is known is read; no history is on; nothing is encrypted, which is said before.
        both = {"embeddings.embed", "arms.select", "vectors.rotate_keys"}
        assert read & written <= both
        assert read | written == {method for method, *_ in every_call(calls)}
        assert (await db.status()).status == "ok"
    mine = Settings(dsn=as_role(role_dsn, owner))
    assert not (await migrations.downgrade(mine, "-2")).is_current
    assert (await migrations.upgrade(mine)).is_current
    for role in LEVELS:
        assert (await migrations.check(Settings(dsn=as_role(role_dsn, role)))).is_current


async def test_who_lacks_something_is_told_what_to_grant(role_dsn: str) -> None:
    nobody = Settings(dsn=as_role(role_dsn, "roles_nobody"))
    with pytest.raises(QortexDbError, match="qortex-db roles") as caught:
        await migrations.check(nobody)
    assert caught.value.sqlstate == DENIED
    async with Database.connect(nobody) as db:
        with pytest.raises(QortexDbError, match="qortex-db roles"):
            await db.status()
        with pytest.raises(QortexDbError, match="qortex-db roles"):
            await db.vectors.count()


def test_the_command_prints_or_runs_them(role_dsn: str) -> None:
    said = command("roles", "--reader", LEVELS[2], "--sql", PGVECTOR_DSN=role_dsn)
    assert said.out == migrations.roles_sql(Settings(dsn=role_dsn), reader=LEVELS[2])
    assert command("roles", "--reader", LEVELS[2], PGVECTOR_DSN=role_dsn).code == 0
    assert command("check", PGVECTOR_DSN=as_role(role_dsn, LEVELS[2])).code == 0
    wrong = command("roles", "--reader", "roles_gone", PGVECTOR_DSN=role_dsn)
    assert (wrong.code, "CREATE ROLE" in wrong.err) == (1, True)


async def test_no_grants_are_made_of_names_that_are_none(role_dsn: str) -> None:
    settings = Settings(dsn=role_dsn)
    with pytest.raises(NotFoundError, match='CREATE ROLE "roles_gone"'):
        await migrations.grant_roles(settings, reader="roles_gone")
    for wrong in ("", "a" * 64, "a\x00"):
        with pytest.raises(InvalidInputError):
            migrations.roles_sql(settings, reader=wrong)
    with pytest.raises(InvalidInputError, match="No role"):
        migrations.roles_sql(settings)
    quoted = migrations.roles_sql(settings, reader='a"; DROP ROLE b; --')
    assert '"a""; DROP ROLE b; --"' in quoted
