"""Row-level security by a tenant's setting, attacked through every method in both lanes."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import re
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import event, func, select, text, true
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import ALL_NAMESPACES, Database, Settings
from qortex_db.errors import InvalidInputError, PermissionDeniedError, QortexDbError
from qortex_db.names import qualified
from support.poolers import BOUNCERS, NOT_THERE, pooled
from support.servers import execute, new_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from qortex_db.testing import Server

DOCS = Path(__file__).parents[1] / "docs"
ROLE = "tenants_service"
# What they say of plans, indexes and sizes is the planner's idea of the whole table.
OF_THE_TABLE = {"explain", "tune", "recommend_index", "recall_probe", "dimensions"}


@pytest.fixture(scope="module")
def calls() -> Iterator[Any]:
    sys.path.insert(0, str(DOCS))
    import statement_calls  # noqa: PLC0415

    yield statement_calls
    sys.path.remove(str(DOCS))


def operate(connection: Any, work: Any) -> None:
    operations: Any = Operations(MigrationContext.configure(connection))
    work(operations)


def record(key: str, tenant: str, place: int) -> dict[str, Any]:
    return {
        "id": f"{tenant}-{key}",
        "embedding": [1.0 + place] + [1.0] * 7,
        "payload": {"year": 1960 + place, "tags": [f"sand of {tenant}"], "kind": "novel"},
        "document": f"The desert planet of {tenant}",
    }


@pytest.fixture(scope="module")
def databases(server: Server, template: str, calls: Any) -> Iterator[tuple[str, str]]:
    """One that two tenants share, and one that the first has alone."""
    execute(server, f"CREATE ROLE {ROLE} LOGIN")
    names = [new_name("tenants") for _ in range(2)]

    async def prepare(dsn: str) -> None:
        async with Database.connect(dsn) as db, db.engine.begin() as connection:
            await connection.run_sync(calls.Base.metadata.create_all)
            await connection.run_sync(operate, protect)

    def protect(operations: Any) -> None:
        for table in ("messages", "mails"):
            operations.enable_tenant_policies(table, "tenant")
        operations.grant_roles(writer=ROLE, tables=["messages", "mails"])
        operations.grant_roles(writer=ROLE)

    for name in names:
        execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        asyncio.run(prepare(server.dsn(name)))
    made = server.dsn(names[0]), server.dsn(names[1])
    asyncio.run(_refill(made, calls))
    yield made
    execute(server, *(f'DROP DATABASE "{name}" WITH (FORCE)' for name in names))
    execute(server, f"DROP ROLE {ROLE}")


def as_role(dsn: str) -> str:
    return re.sub(r"//[^@/]*@", f"//{ROLE}@", dsn)


def as_service(dsn: str) -> Settings:
    return Settings(dsn=as_role(dsn), pool_max_size=1, pool_min_size=1)


async def rows_of(dsn: str, tenant: str) -> list[Any]:
    async with Database.connect(dsn) as db, db.engine.connect() as connection:
        found = []
        for table in ("messages", "mails"):
            sql = f"SELECT * FROM {table} WHERE tenant = '{tenant}' ORDER BY id"
            found += [str(row) for row in (await connection.execute(text(sql))).all()]
        return found


def every_call(calls: Any) -> list[tuple[str, str, Any]]:
    """All forms, by methods that look like an attack first: reads, then what deletes."""
    whole = {**calls.READS, **calls.SEARCHES, **calls.WRITES}
    return [
        (method, form, call)
        for method, forms in whole.items()
        if method not in OF_THE_TABLE
        for form, call in forms.items()
    ]


async def outcome(on: Any, model: Any, namespace: Any, call: Any) -> str:
    try:
        result = await call(on.collection(model, namespace=namespace))
    except QortexDbError as error:
        return type(error).__name__
    return re.sub(r"\b(created|updated)_at=[^,)]*", "", repr(result))


SETTINGS: list[dict[str, Any]] = [
    {},
    {"plan_cache_mode": "force_generic_plan"},
    {"debug_parallel_query": "on", "plan_cache_mode": "force_custom_plan"},
]


@asynccontextmanager
async def by_settings(dsn: str, settings: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
    """What is b's, and what is a's, over the same connection."""
    async with Database.connect(as_service(dsn)) as db:
        b, a = (db.with_settings({"app.tenant": who, **settings}) for who in "ba")
        yield b, a


@asynccontextmanager
async def by_listeners(dsn: str, settings: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
    """The host sets its tenant, and its role, at the beginning of each transaction."""
    engine = host_engine(dsn)
    tenants = [engine.execution_options(tenant=who) for who in "ba"]

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        tenant = connection.engine.get_execution_options().get("tenant", "")
        local = {"role": ROLE, "app.tenant": tenant, **settings}
        for name, value in local.items():
            connection.execute(select(func.set_config(name, value, true())))

    yield tuple(Database.from_engine(each) for each in tenants)
    await engine.dispose()


@asynccontextmanager
async def by_settings_beside_listeners(
    dsn: str, settings: dict[str, Any]
) -> AsyncIterator[tuple[Any, Any]]:
    """The listener of a host says another tenant, before."""
    engine = host_engine(dsn)

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.execute(text("SET LOCAL app.tenant = 'b'"))

    views = [{"role": ROLE, "app.tenant": who, **settings} for who in "ba"]
    b, a = (Database.from_engine(engine, settings=each) for each in views)
    yield b, a
    await engine.dispose()


def host_engine(dsn: str) -> Any:
    """A superuser's, for whom there are no policies until it takes another role."""
    url = Settings(dsn=dsn).target().url  # type: ignore[union-attr]
    return create_async_engine(url, pool_size=1, max_overflow=0)


WAYS = [by_settings, by_listeners, by_settings_beside_listeners]


@pytest.mark.faults
@pytest.mark.parametrize("lane", ["alone", "together"])
@pytest.mark.parametrize(
    ("way", "settings"),
    [*((by_settings, each) for each in SETTINGS), *((each, SETTINGS[1]) for each in WAYS[1:])],
    ids=["", "generic", "parallel", "listeners", "beside listeners"],
)
async def test_a_tenant_sees_and_changes_what_it_would_if_it_were_alone(
    databases: tuple[str, str], calls: Any, lane: str, way: Any, settings: dict[str, Any]
) -> None:
    """The other's setting was there before, on the same connection and the same plans."""
    shared, _ = databases
    before = await rows_of(shared, "b")
    assert len(before) == 80
    told = []
    for dsn in databases:
        found = []
        async with way(dsn, settings) as views:
            for model, namespace in (
                (calls.Message, ALL_NAMESPACES),
                (calls.Message, "a"),
                (calls.Message, "b"),
                (calls.Mail, "a"),
                (calls.Mail, "b"),
            ):
                for method, form, call in every_call(calls):
                    is_read = method not in calls.WRITES
                    if is_read and namespace != "b":  # as whom it is no attack
                        await outcome(views[0], model, "b", call)
                    whose = None if namespace is ALL_NAMESPACES else namespace
                    what = f"{model.__name__}, {whose}, {method}, {form}"
                    if lane == "alone":
                        found.append((what, await outcome(views[1], model, namespace, call)))
                        continue
                    try:
                        async with views[1].unit_of_work() as uow:
                            found.append((what, await outcome(uow, model, namespace, call)))
                            await uow.session.rollback()
                    except QortexDbError:
                        pass
        told.append(found)
    assert [pair for pair in zip(*told, strict=True) if pair[0] != pair[1]] == []
    assert not any("of b" in said for _, said in told[0])
    assert await rows_of(shared, "b") == before
    if lane == "alone":
        assert ("Message, None, delete_all, by default", "8") in told[0]
        await _refill(databases, calls)


async def _refill(databases: tuple[str, str], calls: Any) -> None:
    for dsn, tenants in zip(databases, (("a", "b"), ("a",)), strict=True):
        async with Database.connect(dsn) as db:
            for tenant, model in itertools.product(tenants, (calls.Message, calls.Mail)):
                rows = [record(f"{i:02}", tenant, i) for i in range(8 if tenant == "a" else 40)]
                vectors = db.collection(model, namespace=tenant)
                await vectors.delete_all()
                await vectors.upsert(rows)


@asynccontextmanager
async def direct(dsn: str) -> AsyncIterator[str]:
    yield as_role(dsn)


@asynccontextmanager
async def through_a_pooler(dsn: str) -> AsyncIterator[str]:
    if not BOUNCERS:
        pytest.skip(NOT_THERE)
    async with pooled(dsn, ROLE, 2) as there:
        yield there


@pytest.mark.faults
@pytest.mark.parametrize("way", [direct, through_a_pooler], ids=lambda way: way.__name__)
@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
async def test_many_tenants_at_once_stay_apart_whatever_is_cancelled(
    databases: tuple[str, str], calls: Any, way: Any, *, watched: bool
) -> None:
    """On few connections, with generic plans; what comes after a cancellation has no tenant."""
    every = every_call(calls)
    done = Counter[str]()

    async def act(db: Database, number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - a seed
        me, other = ("a", "b") if number % 2 else ("b", "a")
        view = db.with_settings({"app.tenant": me, **SETTINGS[number % 3]})
        for _ in range(25):
            model = chance.choice([calls.Message, calls.Mail])
            spaces = [me, other, *([ALL_NAMESPACES] if model is calls.Message else [])]
            space = chance.choice(spaces)
            _, form, call = chance.choice(every)
            try:
                async with asyncio.timeout(chance.choice([None, None, 0.002, 0.01, 0.03])):
                    if chance.random() < 0.3:
                        async with view.unit_of_work() as uow:
                            said = await outcome(uow, model, space, call)
                    else:
                        said = await outcome(view, model, space, call)
            except (TimeoutError, QortexDbError) as error:
                said = type(error).__name__
            done[said if said.isidentifier() else "answer"] += 1
            assert f"of {other}" not in said, form
            if chance.random() < 0.3:
                whole = db.collection(calls.Message, namespace=ALL_NAMESPACES)
                assert await whole.count() == 0

    await _refill(databases, calls)
    try:
        async with way(databases[0]) as dsn:
            settings = Settings(dsn=dsn, pool_max_size=6, pool_min_size=1)
            async with Database.connect(settings) as db:
                if watched:
                    event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
                await asyncio.gather(*(act(db, number) for number in range(20)))
        assert done["answer"] > 100, done
        assert done["TimeoutError"] > 10, done
        for tenant, other in ("ab", "ba"):
            assert f"of {other}" not in "".join(await rows_of(databases[0], tenant))
    finally:
        await _refill(databases, calls)


async def test_without_a_tenant_there_are_no_rows_and_none_can_be_written(
    databases: tuple[str, str], calls: Any
) -> None:
    async with Database.connect(as_service(databases[0])) as db:
        for view in (
            db,
            db.with_settings({"app.tenant": ""}),
            db.with_settings({"app.tenant": "c"}),
        ):
            for _ in range(2):
                assert await view.collection(calls.Message, namespace="a").count() == 0
                with pytest.raises(PermissionDeniedError, match="row-level security"):
                    await view.collection(calls.Message, namespace="a").upsert(
                        [record("new", "a", 1)]
                    )
                await (
                    db.with_settings({"app.tenant": "a"})
                    .collection(calls.Message, namespace="a")
                    .count()
                )


@pytest.mark.parametrize(
    "options", [{"setting": "app.tenant'"}, {"type_": "text; DROP TABLE x"}, {"type_": ""}]
)
def test_policies_are_of_names_and_types(options: dict[str, str]) -> None:
    offline = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True})
    operations: Any = Operations(offline)
    with pytest.raises(InvalidInputError):
        operations.enable_tenant_policies("t", "c", **options)


ODD = 'a :b %s %% "q" \\:c \\'


async def rows_as(dsn: str, role: str | None, tenant: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    async with connection.transaction():
        if role is not None:
            await connection.execute(f"SET LOCAL ROLE {qualified(role)}")
        await connection.execute("SELECT set_config('app.tenant', $1, true)", tenant)
        found = await connection.fetch(f"SELECT id FROM {qualified(ODD)} ORDER BY id")
    await connection.close()
    return [row[0] for row in found]


@pytest.mark.parametrize("offline", [False, True], ids=["", "offline"])
async def test_policies_of_any_names_are_enabled_and_disabled_again(
    dsn: str, *, offline: bool
) -> None:
    table, role = qualified(ODD), qualified(ODD)
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"CREATE TABLE {table} (id text, {qualified(ODD)} varchar)")
    await admin.execute(f"INSERT INTO {table} VALUES ('1', 'a'), ('2', 'b'), ('3', NULL)")
    await admin.execute(f"CREATE ROLE {role}")

    async def apply(work: Any) -> None:
        if offline:
            said = io.StringIO()
            context = MigrationContext.configure(
                dialect_name="postgresql",
                dialect_opts={"paramstyle": "named"},  # as in the env.py that Alembic makes
                opts={"as_sql": True, "output_buffer": said},
            )
            work(Operations(context))
            await admin.execute(said.getvalue())
            return
        async with Database.connect(dsn) as db, db.engine.begin() as connection:
            await connection.run_sync(operate, work)

    try:
        await apply(lambda op: op.enable_tenant_policies(ODD, ODD))
        await apply(lambda op: op.grant_roles(reader=ODD, tables=[ODD]))
        assert await rows_as(dsn, ODD, "a") == ["1"]
        assert await rows_as(dsn, ODD, "") == []
        await apply(lambda op: op.disable_tenant_policies(ODD))
        assert await rows_as(dsn, ODD, "a") == ["1", "2", "3"]
        left = "SELECT relrowsecurity OR relforcerowsecurity FROM pg_class WHERE relname = $1"
        assert await admin.fetchval(left, ODD) is False
        assert await admin.fetchval("SELECT count(*) FROM pg_policy") == 0
        # As is the other way round, without FORCE: the owner sees all.
        await apply(lambda op: op.enable_tenant_policies(ODD, ODD, force=False))
        assert await rows_as(dsn, ODD, "b") == ["2"]
        await admin.execute(f"ALTER TABLE {table} OWNER TO {role}")
        assert await rows_as(dsn, ODD, "b") == ["1", "2", "3"]
    finally:
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await admin.close()
