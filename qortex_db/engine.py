"""One async engine: codec, pool and timeouts, and the two lanes that statements take.

A repository call by itself runs in AUTOCOMMIT, in one round trip; in a unit of work it runs in
that session's transaction. Repositories see an `Executor` and don't know which.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import event, inspect, select, tuple_
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.util import greenlet_spawn

from qortex_db.errors import InvalidInputError, translate
from qortex_db.types import decode, encode_any

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from sqlalchemy import Dialect, Engine, Executable
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import SessionTransaction
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from qortex_db.settings import Settings, Target

_CODEC: Final = "qortex_db_codec"
_IDLE_SINCE: Final = "qortex_db_idle_since"

# The extension may live in any schema, and other types may be named "vector".
_FIND_VECTOR: Final = """
SELECT n.nspname FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass
 AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_type'::regclass
JOIN pg_catalog.pg_type t ON t.oid = d.objid AND t.typname = 'vector'
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE e.extname = 'vector'
"""


def create_engine(target: Target, settings: Settings) -> AsyncEngine:
    """The package's engine on a server. Nothing connects yet."""
    timeout = settings.statement_timeout_seconds or None
    engine = create_async_engine(
        target.url,
        connect_args={
            "timeout": settings.connect_timeout_seconds,
            "command_timeout": timeout,
            **target.connect_args,
        },
        pool_size=settings.pool_max_size,
        max_overflow=0,
        pool_timeout=settings.pool_timeout_seconds,
        pool_use_lifo=True,  # the warm connections keep their prepared statements in use
        hide_parameters=True,  # values, vectors and payloads stay out of messages
    )
    adopt(engine)
    _watch_idle(engine.sync_engine, settings.idle_ping_seconds)
    return engine


def adopt(engine: AsyncEngine) -> None:
    """Have an engine's connections, a host's too, take vectors in binary from checkout on."""
    _check_driver(engine.dialect)
    if not event.contains(engine.sync_engine, "checkout", _on_checkout):
        event.listen(engine.sync_engine, "checkout", _on_checkout)


def _check_driver(dialect: Dialect) -> None:
    if dialect.driver != "asyncpg":
        raise InvalidInputError(
            f"The engine's driver is {dialect.driver}; make it with create_async_engine and a URL "
            "that begins with postgresql+asyncpg://."
        )


def _on_checkout(
    connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    driver = connection.driver_connection if hasattr(connection, "driver_connection") else None
    if driver is not None and driver.is_closed():  # costs no round trip: a restart closed it
        raise sa_exc.DisconnectionError("The server closed this connection.")
    _ensure_codec(connection, record.info)


def _ensure_codec(connection: Any, info: dict[Any, Any]) -> None:
    if info.get(_CODEC):
        return
    if connection.run_async(_register):
        info[_CODEC] = True
        # Statements prepared before hold the old codec.
        if connection._prepared_statement_cache is not None:  # noqa: SLF001 - it has no public name
            connection._prepared_statement_cache.clear()  # noqa: SLF001


async def _register(driver: Any) -> bool:
    schema = await driver.fetchval(_FIND_VECTOR)
    if schema is None:  # not migrated yet: asked again at the next checkout
        return False
    await driver.set_type_codec(
        "vector", schema=schema, encoder=encode_any, decoder=decode, format="binary"
    )
    return True


def _watch_idle(engine: Engine, idle_ping_seconds: float) -> None:
    """Ping what was idle for long: a firewall drops such connections without a word."""

    @event.listens_for(engine, "checkin")
    def _checkin(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _checkout(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        idle_since = record.info.get(_IDLE_SINCE)
        if idle_since is not None and time.monotonic() - idle_since > idle_ping_seconds:
            try:
                connection.ping()
            except Exception as error:
                raise sa_exc.DisconnectionError("The idle connection is gone.") from error


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a statement gave."""

    rows: Sequence[Any]  # Row: variadic in SQLAlchemy 2.1, not in 2.0
    rowcount: int


class Executor(Protocol):
    """Runs one statement; what it raises is of our error tree."""

    async def run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        """Execute and fetch everything."""
        ...

    async def catalog(self) -> dict[str, int | None]:
        """What is known of this database's columns: dimensions by qualified table."""
        ...

    @property
    def schema(self) -> str | None:
        """The schema of the package's tables, None where the search_path decides."""
        ...


# Dimensions don't change under a running service; one look for each engine and table is enough.
_catalogs: WeakKeyDictionary[Any, dict[str, int | None]] = WeakKeyDictionary()


class AutocommitExecutor:
    """The lane of calls by themselves: a statement is its own transaction, in one round trip."""

    def __init__(self, engine: AsyncEngine, schema: str | None = None) -> None:
        self._root = engine.sync_engine
        self._engine = engine.sync_engine.execution_options(
            isolation_level="AUTOCOMMIT", **translate_map(schema)
        )
        self.schema = schema

    async def run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        try:
            # One greenlet for connect, execute, fetch and close: 1.0-1.15 of raw asyncpg.
            return await greenlet_spawn(self._run, statement, params)
        except Exception as error:
            translated = translate(error)
            if translated is None:
                raise
            raise translated from None  # the driver's error quotes values

    def _run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        with self._engine.connect() as connection:
            result = connection.execute(statement, dict(params))
            return Fetched(result.fetchall() if result.returns_rows else (), result.rowcount)

    async def catalog(self) -> dict[str, int | None]:
        return _catalogs.setdefault(self._root, {})


class SessionExecutor:
    """The lane of a unit of work: the session's transaction, which is the session's to end."""

    def __init__(self, session: AsyncSession, schema: str | None = None) -> None:
        self._session = session
        self._options = translate_map(schema)
        self._checked: SessionTransaction | None = None
        self.schema = schema

    async def run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        session = self._session
        try:
            # Core statements don't autoflush: what the host has pending comes first.
            if session.new or session.dirty or session.deleted:
                await session.flush()
            await self._ensure_codec()
            result: Any = await session.execute(
                statement, dict(params), execution_options=self._options
            )
            fetched = Fetched(result.fetchall() if result.returns_rows else (), result.rowcount)
            if isinstance(statement, UpdateBase):
                await refresh_loaded(session, {statement.table}, self._options)
        except Exception as error:
            translated = translate(error)
            if translated is None:
                raise
            raise translated from None
        else:
            return fetched

    async def _ensure_codec(self) -> None:
        """A host's connection may have been checked out before this package knew its engine."""
        transaction = self._session.sync_session.get_transaction()
        if transaction is not None and transaction is self._checked:
            return
        connection = await self._session.connection()
        _check_driver(connection.dialect)
        await connection.run_sync(
            lambda sync: _ensure_codec(sync.connection.dbapi_connection, sync.connection.info)
        )
        self._checked = self._session.sync_session.get_transaction()

    async def catalog(self) -> dict[str, int | None]:
        connection = await self._session.connection()
        return _catalogs.setdefault(connection.engine.sync_engine, {})


async def refresh_loaded(
    session: AsyncSession, tables: Container[object], options: Mapping[str, Any]
) -> None:
    """Give the session's loaded objects of some tables what the database now holds.

    A Core statement changes rows behind their backs, and expiring them would fail at the next
    attribute. It costs a query a model, and only where such objects are loaded.
    """
    loaded: dict[type[object], list[object]] = {}
    for instance in session.sync_session.identity_map.values():
        if inspect(instance).mapper.local_table in tables:
            loaded.setdefault(type(instance), []).append(instance)
    for model, instances in loaded.items():
        mapper = inspect(model)
        keys = [inspect(instance).identity for instance in instances]
        statement = select(model).where(tuple_(*mapper.primary_key).in_(keys))
        query = session.scalars(statement, execution_options={"populate_existing": True, **options})
        found = set(await query)
        for instance in instances:
            if instance not in found:
                session.expunge(instance)


def translate_map(schema: str | None) -> dict[str, Any]:
    """The execution option that puts the package's tables into a schema."""
    return {} if schema is None else {"schema_translate_map": {None: schema}}
