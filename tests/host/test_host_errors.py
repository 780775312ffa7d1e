"""What a host's own expressions, types and tables get wrong has words of its own, in every lane."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Integer, Text, TypeDecorator, column, event, func, literal
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    PermissionDeniedError,
    QortexDbError,
    ReadOnlyError,
    SchemaVersionError,
    Settings,
    VectorMixin,
    VectorSpec,
    migrations,
    unit_of_work,
)
from qortex_db.errors import UPGRADE_HINT
from qortex_db.testing.factories import VectorRecordFactory
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qortex_db.repositories import VectorRepository

SECRET = "s3cr3t"  # noqa: S105 - what nobody may see
V = [1.0, 2.0, 3.0]
NO_INDEX = Collection(VectorSpec(3, index=None), language=None, payload_index=False)


class Base(DeclarativeBase):
    """A host's own."""


class Colour(TypeDecorator[str]):
    """As those that validate."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        if value == "bad":
            raise ZeroDivisionError("no colour of the host's")
        return value

    def process_result_value(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        if value == "odd":
            raise ZeroDivisionError("no colour of the host's")
        return value


class Painted(VectorMixin, Base):
    __tablename__ = "painted"
    __collection__ = NO_INDEX

    colour: Mapped[Any] = mapped_column(Colour, nullable=True)
    year: Mapped[Any] = mapped_column(Integer, nullable=True)


class Unmade(VectorMixin, Base):
    """Nobody has migrated it."""

    __tablename__ = "unmade"
    __collection__ = NO_INDEX


def _painted(colour: str) -> Any:
    return VectorRecordFactory.build(id="a", dimensions=3, attributes={"colour": colour})


OF_THE_TYPE: dict[str, Callable[[VectorRepository], Awaitable[Any]]] = {
    "a filter": lambda r: r.count(where=Painted.colour == "bad"),
    "a filter's list": lambda r: r.count(where=Painted.colour.in_(["bad", "worse"])),
    "a search's filter": lambda r: r.search(V, where=Painted.colour == "bad"),
    "a record": lambda r: r.upsert([_painted("bad")]),
    "an update": lambda r: r.update("a", attributes={"colour": "bad"}),
    "a result": lambda r: r.get(["odd"]),
    "a hit": lambda r: r.search(V),
}
# What is raised, its SQLSTATE, and what it says.
OF_THE_EXPRESSION: dict[
    str, tuple[Callable[[VectorRepository], Awaitable[Any]], type[QortexDbError], str | None, str]
] = {
    "a value of another type": (
        lambda r: r.count(where=Painted.year == literal(SECRET, Integer)),
        InvalidInputError,
        None,
        r"can't be sent \(argument \$1\)",
    ),
    "an unknown column": (
        lambda r: r.search(V, where=column("nope") == 1),
        QortexDbError,
        "42703",
        r'names a column that is not there \(column "nope" does not exist\): mend the name',
    ),
    "an unknown function": (
        lambda r: r.search(V, where=func.nope(Painted.id) == 1),
        QortexDbError,
        "42883",
        r"function or an operator is not there \(function nope\(text\) does not exist\): mend",
    ),
    "an unknown operator": (
        lambda r: r.count(where=Painted.year == "old"),
        QortexDbError,
        "42883",
        "function or an operator is not there .*: mend",
    ),
    "an unknown schema": (
        lambda r: r.count(where=func.nope.lower(Painted.id) == ""),
        SchemaVersionError,
        "3F000",
        'schema "nope" does not exist.*or name what is there',
    ),
}


async def _raised(
    dsn: str, call: Callable[[VectorRepository], Awaitable[Any]]
) -> dict[str, Exception]:
    """By each lane, watched and not, on our engine and on a host's, and in a host's session."""
    found: dict[str, Exception] = {}

    async def note(way: str, work: Awaitable[Any]) -> None:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
            await work
        found[way] = caught.value

    async def together(db: Database) -> None:
        async with db.unit_of_work() as uow:
            await call(uow.collection(Painted))

    async def hosted(engine: Any) -> None:
        async with AsyncSession(engine) as session, unit_of_work(session) as uow:
            await call(uow.collection(Painted))

    async with Database.connect(dsn) as db:
        host = create_async_engine(db.engine.url)
        for name, each in (("own", db), ("host's", Database.from_engine(host))):
            await note(f"{name} alone", call(each.collection(Painted)))
            await note(f"{name} together", together(each))
            event.listen(each.engine.sync_engine, "before_cursor_execute", lambda *_: None)
            await note(f"{name} watched", call(each.collection(Painted)))
        await note("a host's session", hosted(host))
        await host.dispose()
    return found


async def test_what_a_hosts_type_raises_comes_out_as_it_is(dsn: str) -> None:
    await execute(
        dsn,
        "CREATE TABLE painted (id text PRIMARY KEY, vec vector(3), payload jsonb DEFAULT '{}', "
        "document text, colour text, year int)",
        "INSERT INTO painted (id, vec, colour) VALUES ('odd', '[1, 2, 3]', 'odd')",
    )
    for place, call in OF_THE_TYPE.items():
        raised = await _raised(dsn, call)
        told = {(type(error), str(error)) for error in raised.values()}
        assert told == {(ZeroDivisionError, "no colour of the host's")}, (place, raised)


async def test_what_a_hosts_expression_gets_wrong_has_words_of_its_own(dsn: str) -> None:
    await execute(
        dsn,
        "CREATE TABLE painted (id text PRIMARY KEY, vec vector(3), payload jsonb DEFAULT '{}', "
        "document text, colour text, year int)",
    )
    for place, (call, kind, state, says) in OF_THE_EXPRESSION.items():
        for way, error in (await _raised(dsn, call)).items():
            assert type(error) is kind, (place, way, error)
            assert error.sqlstate == state, (place, way)  # type: ignore[attr-defined]
            said = str(error)
            assert re.search(says, said), (place, way, said)
            assert "PostgreSQL refused" not in said, (place, way)
            assert UPGRADE_HINT not in said or state == "3F000", (place, way)
            assert SECRET not in said, (place, way)


async def test_a_missing_table_or_column_says_whose_migrations_make_it(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        unmade = db.collection(Unmade)
        for call in (unmade.count(), unmade.search(V), unmade.get(["a"])):
            with pytest.raises(SchemaVersionError) as caught:
                await call
            assert UPGRADE_HINT not in str(caught.value)
            assert "migration" in str(caught.value)
        await execute(dsn, "ALTER TABLE qortex_vectors DROP COLUMN document CASCADE")
        await execute(dsn, "DROP TABLE learning_arm_states CASCADE")
        for call in (db.vectors.get(["a"]), db.arms.get("l", "a")):
            with pytest.raises(SchemaVersionError, match="qortex-db upgrade"):
                await call


async def test_a_prepared_statement_of_another_session_names_the_setting(dsn: str) -> None:
    """As PgBouncer gives each transaction another session."""
    settings = Settings(dsn=dsn, pool_min_size=1, pool_max_size=1)
    async with Database.connect(settings) as db:
        for watched in (False, True):
            if watched:
                event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
            for _ in range(2):
                await db.vectors.count()
            async with db.engine.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                await driver.execute("DEALLOCATE ALL")
            with pytest.raises(QortexDbError, match="prepared_statement_cache_size=0") as caught:
                await db.vectors.count()
            assert caught.value.sqlstate == "26000"


async def test_migrations_have_the_classes_of_repositories(dsn: str) -> None:
    await execute(dsn, "DROP ROLE IF EXISTS host_errors", "CREATE ROLE host_errors LOGIN")
    stranger = Settings(dsn=dsn.replace("postgres:@", "host_errors:@"))
    reading = Settings(dsn=f"{dsn}&options=-c%20default_transaction_read_only=on")
    database = dsn.partition("?")[0].rpartition("/")[2]
    await execute(dsn, f'REVOKE TEMPORARY ON DATABASE "{database}" FROM PUBLIC')
    for work in (
        migrations.upgrade,
        migrations.check,
        migrations.adopt,
        migrations.rebuild_index,
        migrations.drift,
    ):
        with pytest.raises(PermissionDeniedError) as denied:
            await work(stranger)
        assert denied.value.sqlstate == "42501"
    for work in (migrations.downgrade, migrations.drift):
        with pytest.raises(ReadOnlyError) as refused:
            await work(reading)
        assert refused.value.sqlstate == "25006"
