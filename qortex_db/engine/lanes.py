"""The two lanes: a statement by itself, and a statement in a session's transaction."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import inspect, select, tuple_
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.util import await_only, greenlet_spawn

from qortex_db.engine.compiled import Compiled
from qortex_db.engine.connections import check_driver, ensure_codec
from qortex_db.errors import is_connection_lost, translate

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import SessionTransaction

RETRY_SECONDS: Final = 5.0
"""How long a statement that is safe to repeat is tried again while the server is away."""
_RETRY_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a statement gave."""

    rows: Sequence[Any]  # by position, on either lane
    rowcount: int


class Executor(Protocol):
    """Runs statements; what it raises is of our error tree."""

    async def run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        """Execute and fetch everything."""
        ...

    async def run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        """Execute with each of the parameters, all or none; return how many rows came back."""
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


class _UnsentError(Exception):
    """No connection could be had: nothing reached the server, so anything may be repeated."""


class AutocommitExecutor:
    """The lane of calls by themselves: a statement is its own transaction, in one round trip.

    Args:
        engine: Whose pool is used.
        schema: Of the package's tables.
        retry_seconds: How long to repeat, while the server is away, what is safe to repeat: reads,
            and whatever was not sent yet. 0 never repeats.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        schema: str | None = None,
        *,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._engine = engine.sync_engine
        self._transactional = self._engine.execution_options(**translate_map(schema))
        self._autocommit = self._transactional.execution_options(isolation_level="AUTOCOMMIT")
        self._schemas = self._autocommit.get_execution_options().get("schema_translate_map", {})
        self._compiled: WeakKeyDictionary[Any, Compiled] = WeakKeyDictionary()
        self._retry_seconds = retry_seconds
        self.schema = schema

    async def run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        repeatable = isinstance(statement, SelectBase)
        deadline = None
        while True:
            try:
                # One greenlet for connect, execute, fetch and close.
                return await greenlet_spawn(self._run, statement, params)
            except Exception as error:  # noqa: BLE001 - translated, and raised again
                unsent = isinstance(error, _UnsentError)
                cause: Any = error.__cause__ if unsent else error
                if (unsent or repeatable) and is_connection_lost(cause):
                    deadline = deadline or time.monotonic() + self._retry_seconds
                    if time.monotonic() < deadline:
                        await asyncio.sleep(_RETRY_PAUSE_SECONDS)  # a restart takes its time
                        continue
                # The driver's error quotes values.
                raise _translated(cause) from None

    async def run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        try:
            return await greenlet_spawn(self._run_all, statement, params)
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            cause: Any = error.__cause__ if isinstance(error, _UnsentError) else error
            raise _translated(cause) from None

    def _run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        if self._watched():
            with self._autocommit.connect() as connection:
                result = connection.execute(statement, dict(params))
                return Fetched(result.fetchall() if result.returns_rows else (), result.rowcount)
        compiled = self._compile(statement)
        arguments = compiled.arguments(params)
        with _Lease(self._engine) as driver:
            fetched: Fetched = await_only(_execute(driver, compiled, arguments))
            return fetched

    def _run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        if self._watched():
            with self._transactional.begin() as connection:
                return sum(len(connection.execute(statement, dict(p)).all()) for p in params)
        compiled = self._compile(statement)
        # The parameters are made while the server works on those before. All are one transaction,
        # which a refusal among them rolls back, and one round trip.
        arguments = (compiled.arguments(each) for each in params)
        with _Lease(self._engine) as driver:
            return len(await_only(driver.fetchmany(compiled.sql, arguments)))

    def _compile(self, statement: Executable) -> Compiled:
        compiled = self._compiled.get(statement)
        if compiled is None:
            compiled = Compiled(statement, self._engine.dialect, self._schemas)
            self._compiled[statement] = compiled
        return compiled

    def _watched(self) -> bool:
        """Whether someone listens to statements (tracing, echo): those go SQLAlchemy's whole way.

        It is the test by which SQLAlchemy itself decides; it has no public name.
        """
        engine: Any = self._engine
        return bool(
            engine._has_events or engine.dialect._has_events or engine._should_log_info()  # noqa: SLF001
        )

    async def catalog(self) -> dict[str, int | None]:
        return _catalogs.setdefault(self._engine, {})


class _Lease:
    """A driver's connection, borrowed from a pool; inside a greenlet, as the pool may wait.

    A fresh or returned connection is in no transaction: SQLAlchemy begins one at its cursor's first
    statement. So a statement that the driver runs by itself is its own transaction.
    """

    __slots__ = ("_engine", "_held")

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __enter__(self) -> Any:
        try:
            self._held = self._engine.raw_connection()
        except Exception as error:
            raise _UnsentError from error
        return self._held.driver_connection

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # A cancelled connection may still be busy.
        if error is not None and (not isinstance(error, Exception) or is_connection_lost(error)):
            self._held.invalidate(error)
        else:
            self._held.close()


async def _execute(driver: Any, compiled: Compiled, arguments: list[Any]) -> Fetched:
    if compiled.returns_rows:
        records = await driver.fetch(compiled.sql, *arguments)
        return Fetched(compiled.rows(records), len(records))
    status: str = await driver.execute(compiled.sql, *arguments)
    return Fetched((), int(status.rpartition(" ")[2]))  # such as "INSERT 0 5"


def _translated(error: Exception) -> Exception:
    return translate(error) or error


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
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            raise _translated(error) from None
        else:
            return fetched

    async def run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        # What is refused must not leave a part of it in the host's transaction: hence the list.
        return sum([len((await self.run(statement, each)).rows) for each in list(params)])

    async def _ensure_codec(self) -> None:
        """A host's connection may have been checked out before this package knew its engine."""
        transaction = self._session.sync_session.get_transaction()
        if transaction is not None and transaction is self._checked:
            return
        connection = await self._session.connection()
        check_driver(connection.dialect)
        await connection.run_sync(
            lambda sync: ensure_codec(sync.connection.dbapi_connection, sync.connection.info)
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
