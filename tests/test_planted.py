"""Functions and operators that a stranger planted, nearer to what is sent than PostgreSQL's own."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, Settings, migrations
from qortex_db.engine import SessionExecutor
from qortex_db.errors import SchemaVersionError
from qortex_db.uow import Repositories
from support.commands import alembic, program
from support.planting import plant
from support.servers import execute, new_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from qortex_db.testing import Server

DOCS = Path(__file__).parents[1] / "docs"
ROLES = ("planted_owner", "planted_service", "planted_stranger")
THEIR_OWN = "lower", "varchar = varchar"  # what the SQL of a host's types and filters says
DEPENDING = """
WITH planted AS (
    SELECT oid FROM pg_proc WHERE proowner = 'planted_stranger'::regrole
    UNION ALL SELECT oid FROM pg_operator WHERE oprowner = 'planted_stranger'::regrole
)
SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
WHERE refobjid IN (SELECT oid FROM planted) AND objid NOT IN (SELECT oid FROM planted)
"""


def as_role(dsn: str, role: str) -> str:
    return re.sub(r"//[^@/]*@", f"//{role}@", dsn)


def name_of(dsn: str) -> str:
    return dsn.partition("?")[0].rpartition("/")[2]


async def run(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@pytest.fixture(scope="module")
def calls() -> Iterator[Any]:
    sys.path.insert(0, str(DOCS))
    import statement_calls  # noqa: PLC0415

    yield statement_calls
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def roles(server: Server) -> Iterator[None]:
    execute(server, *(f"CREATE ROLE {role} LOGIN" for role in ROLES))
    yield
    execute(server, *(f"DROP ROLE {role}" for role in ROLES))


def made(server: Server) -> Iterator[str]:
    name = new_name("planted")
    execute(server, f"CREATE DATABASE {name} OWNER {ROLES[0]}")
    yield server.dsn(name)
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def open_to_all(server: Server, roles: None, calls: Any) -> Iterator[str]:
    """The worst: tables, pgvector and what is planted share a schema that nobody can leave out."""

    async def prepare(dsn: str) -> None:
        owner, _, stranger = (as_role(dsn, role) for role in ROLES)
        await run(dsn, "CREATE EXTENSION vector", "GRANT CREATE ON SCHEMA public TO PUBLIC")
        settings = Settings(dsn=owner, dimensions=calls.DIMENSIONS)
        await migrations.upgrade(settings, create_extension=False)
        async with Database.connect(owner) as db, db.engine.begin() as connection:
            await connection.run_sync(calls.Base.metadata.create_all)
        await run(
            dsn,
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLES[1]}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {ROLES[1]}",
        )
        await planted(stranger)

    for dsn in made(server):
        asyncio.run(prepare(dsn))
        yield dsn


@pytest.fixture
def own_dsn(server: Server, roles: None) -> Iterator[str]:
    yield from made(server)


async def planted(dsn: str, **where: str) -> None:
    connection = await asyncpg.connect(dsn)
    sql = [(DOCS / "statements.md").read_text(), migrations.upgrade_sql(Settings(dsn=dsn))]
    assert await plant(connection, sql, **where) > 50_000
    await connection.close()


@asynccontextmanager
async def ours(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn) as db:
        yield db


@asynccontextmanager
async def hosted(dsn: str) -> AsyncIterator[Database]:
    target = Settings(dsn=dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
    yield Database.from_engine(engine)
    await engine.dispose()


def every_call(calls: Any) -> Iterator[tuple[str, Callable[[Any], Awaitable[object]]]]:
    """What the page of statements is made of, as work on a database or a unit of work."""

    def made_on(on: Any, section: Any) -> Any:
        made = Repositories(
            on.executor,
            learning_history=section.history,
            encryption_keys=calls.ENCRYPTION_KEYS,
        )
        return section.repository(made)

    for section in calls.SECTIONS:
        for method, forms in section.calls.items():
            for form, call in forms.items():
                yield (
                    f"{section.name}.{method}, {form}",
                    lambda on, section=section, call=call: call(made_on(on, section)),
                )
    for model, filters in (
        (calls.QortexVector, calls.FILTERS),
        (calls.Indexed, calls.INDEXED_FILTERS),
    ):
        for form, where in filters.items():
            yield (
                f"filter {form}",
                lambda on, model=model, where=where: on.collection(model).count(where=where),
            )


@pytest.mark.faults
@pytest.mark.parametrize(
    ("engine", "lane"), [(ours, "together"), (hosted, "alone")], ids=["ours", "hosted"]
)
async def test_no_method_runs_what_a_stranger_planted(
    open_to_all: str, calls: Any, engine: Any, lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    monkeypatch.setattr(SessionExecutor, "commits", True)  # what it refuses is to run there too
    async with engine(as_role(open_to_all, ROLES[1])) as db:
        assert (await db.status()).open_schemas == ["public"]
        for section in calls.SECTIONS:
            if section.prelude is not None:
                await section.prelude(db)
        made = list(every_call(calls))
        assert len(made) > 300
        for what, work in made:
            try:
                if lane == "alone":
                    await work(db)
                else:
                    async with db.unit_of_work() as uow:
                        await work(uow)
            except Exception as error:  # noqa: BLE001 - all of them are told
                if not any(theirs in str(error) for theirs in THEIR_OWN):
                    failed.append(f"{what}: {error}")
    assert failed == [], failed[:6]


@pytest.mark.faults
async def test_no_command_runs_what_a_stranger_planted(open_to_all: str, calls: Any) -> None:
    async with Database.connect(as_role(open_to_all, ROLES[1])) as db:
        learner = Repositories(db.executor, learning_history=True)
        await learner.arms.observe_many("l", [("a", 1.0), ("b", 0.0)], context={"k": 1})
        await learner.arms.select("l", ["a", "b"], context={"k": 1})
        await db.edges.record_many([("a", "b", 0.9)] * 3)
        await db.factors.adjust({"a": "accepted"})
        await db.arms.observe("l", "c", reward=1.0, idempotency_key="k")
    dsn = as_role(open_to_all, ROLES[1])
    for arguments in (
        ("report", "--output", "-"),
        ("status",),
        ("check",),
        ("arms", "top", "l"),
        ("arms", "show", "l", "c"),
        ("arms", "decay", "l", "--factor", "0.5"),
        ("factors", "summary"),
        ("edges", "list"),
        ("edges", "promote"),
        ("prune-keys",),
        ("fill-words",),
        ("count-words",),
    ):
        done = await program(sys.executable, "-m", "qortex_db", *arguments, PGVECTOR_DSN=dsn)
        assert done.code == 0, (arguments, done.err)
        assert done.out, arguments


@pytest.mark.faults
async def test_what_migrates_runs_nothing_planted(own_dsn: str) -> None:
    """As a superuser, into the very schema in which it was planted; pgvector comes later there."""
    await run(
        own_dsn,
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "CREATE SCHEMA extensions",
        "GRANT USAGE ON SCHEMA extensions TO PUBLIC",
        "CREATE EXTENSION vector SCHEMA extensions",
        f'ALTER DATABASE {name_of(own_dsn)} SET search_path = "$user", public, extensions',
    )
    await planted(as_role(own_dsn, ROLES[2]), extension="extensions")
    settings = Settings(dsn=own_dsn, dimensions=8)
    assert (await migrations.upgrade(settings)).is_current
    assert (await migrations.check(settings)).is_current
    assert not (await migrations.downgrade(settings, "-5")).is_current
    assert (await migrations.upgrade(settings)).is_current
    connection = await asyncpg.connect(own_dsn)
    assert await connection.fetch(DEPENDING) == []
    assert await connection.fetchval("SELECT to_regclass('public.qortex_vectors')") is not None
    await connection.close()
    for command in ("current", "heads", "check"):
        done = await alembic(command, dsn=own_dsn)
        refuses = command == "check"  # what reflects needs the schema on the path, as `drift` does
        assert (done.code != 0) is refuses, (command, done)
        assert ("REVOKE CREATE" in done.out + done.err) is refuses, (command, done)
    for work in (migrations.drift, migrations.adopt, migrations.rebuild_index):
        with pytest.raises(SchemaVersionError, match='REVOKE CREATE ON SCHEMA "public" FROM'):
            await work(settings)
    async with Database.connect(settings) as db:
        await db.vectors.upsert([{"id": "a", "embedding": [1.0] * 8}])
        assert [hit.id for hit in await db.vectors.search([1.0] * 8)] == ["a"]
        assert (await db.status()).open_schemas == ["public"]


async def test_schemas_in_which_others_may_create_are_left_out(
    own_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    owner, service, stranger = ROLES
    await run(
        own_dsn,
        "CREATE SCHEMA extensions",
        f"CREATE SCHEMA memory AUTHORIZATION {owner}",
        f"CREATE SCHEMA shared AUTHORIZATION {owner}",
        f"CREATE SCHEMA theirs AUTHORIZATION {stranger}",
        f"GRANT CREATE ON SCHEMA shared TO {stranger}",
        f"GRANT USAGE ON SCHEMA extensions, memory, shared, theirs TO {service}, {owner}",
        "CREATE EXTENSION vector SCHEMA extensions",
        f"ALTER DATABASE {name_of(own_dsn)} "
        "SET search_path = theirs, shared, memory, public, extensions",
    )
    settings = Settings(dsn=as_role(own_dsn, owner), dimensions=8, db_schema="memory")
    await migrations.upgrade(settings, create_extension=False)
    await run(own_dsn, f"GRANT ALL ON ALL TABLES IN SCHEMA memory TO {service}")
    for role, named in ((service, None), (service, "memory"), (owner, "memory")):
        caplog.clear()
        mine = Settings(dsn=as_role(own_dsn, role), db_schema=named)
        async with Database.connect(mine) as db:
            async with db.unit_of_work() as uow:
                connection = await uow.session.connection()
                path = (await connection.exec_driver_sql("SHOW search_path")).scalar()
            assert path == '"memory", "public", "extensions"'
            await db.vectors.search([1.0] * 8)
            assert (await db.status()).open_schemas == []
        warned = [one for one in caplog.messages if "search_path_open_to_others" in one]
        assert len(warned) == 2
        assert all("left_out=True" in one for one in warned)
        assert f'REVOKE CREATE ON SCHEMA "shared" FROM "{stranger}"' in warned[1]
