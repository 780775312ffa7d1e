"""The two lanes: a statement by itself, and a statement in a session's transaction."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import inspect, select, tuple_
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.util import await_only, greenlet_spawn

from qortex_db.engine.compiled import Compiled
from qortex_db.engine.connections import check_driver, ensure_codec
from qortex_db.errors import (
    OutcomeUnknownError,
    QortexDbError,
    is_connection_lost,
    translate,
)

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Container,
        Coroutine,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from sqlalchemy import Connection, Executable
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import SessionTransaction

RETRY_SECONDS: Final = 5.0
"""How long a statement that is safe to repeat is tried again while the server is away."""
_RETRY_PAUSE_SECONDS: Final = 0.1
_CLEANUP_SECONDS: Final = 3.0


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


class _StoppedError(Exception):
    """Its caller was cancelled: what was sent of a batch is to be rolled back."""


class AutocommitExecutor:
    """The lane of calls by themselves: a statement is its own transaction, in one round trip.

    Args:
        engine: Whose pool is used.
        schema: Of the package's tables, if not where the engine's own options put them.
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
        self._translated = self._engine.execution_options(**translate_map(schema))
        self._schemas = self._translated.get_execution_options().get("schema_translate_map") or {}
        self._compiled: WeakKeyDictionary[Any, Compiled] = WeakKeyDictionary()
        self._retry_seconds = retry_seconds
        self.schema: str | None = self._schemas.get(None)

    async def run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        if self._watched():
            fetched: Fetched = await self._repeat(self._run_watched, statement, params)
        else:
            fetched = await self._repeat(self._run, statement, params)
        return fetched

    async def run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        work = self._run_all_watched if self._watched() else self._run_all
        count: int = await self._repeat(work, statement, params)
        return count

    async def _repeat(self, work: Callable[..., Any], statement: Executable, params: Any) -> Any:
        deadline = None
        replanned = False
        while True:
            try:
                # One greenlet for connect, execute, fetch and close.
                if work == self._run:
                    return await greenlet_spawn(work, statement, params)
                return await _cancelled_once(greenlet_spawn(work, statement, params))
            except Exception as error:  # noqa: BLE001 - translated, and raised again
                unsent = isinstance(error, _UnsentError)
                cause: Any = error.__cause__ if unsent else error
                if work == self._run_watched and not replanned and self._is_outdated(cause):
                    replanned = True  # as asyncpg does by itself: the server refused the old plan
                    continue
                lost = is_connection_lost(cause)
                if lost and (unsent or isinstance(statement, SelectBase)):
                    deadline = deadline or time.monotonic() + self._retry_seconds
                    if time.monotonic() < deadline:
                        await asyncio.sleep(_RETRY_PAUSE_SECONDS)  # a restart takes its time
                        continue
                in_doubt = lost and not unsent and isinstance(statement, UpdateBase)
                failure = _in_doubt() if in_doubt else _translated(cause)
            # Out here it has no context: the driver's error quotes values.
            raise failure

    def _run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        compiled = self._compile(statement)
        arguments = compiled.arguments(params)
        with _Lease(self._engine) as lease:
            fetched: Fetched = await_only(_execute(lease.driver, compiled, arguments))
            lease.commit()
            return fetched

    def _run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        compiled = self._compile(statement)
        # The parameters are made while the server works on those before. All are one transaction,
        # which a refusal among them rolls back, and one round trip.
        arguments = (compiled.arguments(each) for each in params)
        with _Lease(self._engine) as lease:
            count: int = await_only(_pipeline(lease.driver, compiled.sql, arguments))
            lease.commit()
            return count

    def _run_watched(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        with self._connect() as connection:
            held: Any = connection.connection
            if not held.driver_connection.is_in_transaction():  # a host's hook may have begun one
                connection.execution_options(isolation_level="AUTOCOMMIT")
            fetched = _fetched(connection.execute(statement, dict(params)))
            connection.commit()
            return fetched

    def _run_all_watched(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        with self._connect() as connection:
            held: Any = connection.connection
            if held.dbapi_connection.autocommit:  # a host's engine: each part would be committed
                connection.execution_options(isolation_level="READ COMMITTED")
            count = sum(len(_fetched(connection.execute(statement, dict(p))).rows) for p in params)
            connection.commit()
            return count

    def _is_outdated(self, error: object) -> bool:
        """Whether a migration changed what a prepared statement returns; SQLAlchemy forgot it."""
        dialect: Any = self._engine.dialect
        return isinstance(getattr(error, "orig", None), dialect.dbapi.InvalidCachedStatementError)

    def _connect(self) -> Connection:
        try:
            return self._translated.connect()
        except Exception as error:
            raise _UnsentError from error

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
    statement. So a statement that the driver runs by itself is its own transaction, unless a host's
    hook used a cursor at connect or checkout.
    """

    __slots__ = ("_engine", "_held", "driver")

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __enter__(self) -> Self:
        try:
            self._held = self._engine.raw_connection()
        except Exception as error:
            raise _UnsentError from error
        self.driver: Any = self._held.driver_connection
        return self

    def commit(self) -> None:
        """End what a hook began: the pool would roll it back, and our write with it."""
        if self.driver.is_in_transaction():
            self._held.dbapi_connection.commit()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and not isinstance(error, Exception):
            # Cancelled, it may still be busy: closing it has the server stop.
            await_only(_undisturbed(greenlet_spawn(self._held.invalidate, error)))
        elif error is not None and is_connection_lost(error):
            self._held.invalidate(error)
        else:
            self._held.close()


async def _execute(driver: Any, compiled: Compiled, arguments: list[Any]) -> Fetched:
    if compiled.returns_rows:
        records = await driver.fetch(compiled.sql, *arguments)
        return Fetched(compiled.rows(records), len(records))
    status: str = await driver.execute(compiled.sql, *arguments)
    return Fetched((), int(status.rpartition(" ")[2]))  # such as "INSERT 0 5"


async def _pipeline(driver: Any, sql: str, arguments: Iterable[list[Any]]) -> int:
    """Run a statement with many arguments as one transaction; return how many rows came back.

    asyncpg swallows a cancellation that comes while the socket is full, and then waits for the
    answer to a batch whose end it never sent. So it sends in a task that nobody cancels: it is
    stopped by its input, on which it rolls back.
    """
    stopped = False

    def until_stopped() -> Iterator[list[Any]]:
        for each in arguments:
            if stopped:
                raise _StoppedError
            yield each

    sending = _task(driver.fetchmany(sql, until_stopped()))
    try:
        await asyncio.wait({sending})
    finally:
        stopped = True
    return len(sending.result())


async def _cancelled_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Await work that is cancelled no more than once, and then has time to clean up."""
    task = _task(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await _finished(task)
        raise
    return task.result()


async def _undisturbed(work: Coroutine[Any, Any, Any]) -> None:
    await _finished(_task(work))


async def _finished(task: asyncio.Future[Any]) -> None:
    """Wait for a cleanup, however often the caller is cancelled meanwhile.

    anyio does so at each turn of the loop. Cut short, it would leave the server working.
    """
    deadline = time.monotonic() + _CLEANUP_SECONDS
    while not task.done() and (left := deadline - time.monotonic()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=left)


def _task(work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    task = asyncio.ensure_future(work)
    # Where nobody is left to hear of its error, asyncio would log it.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def _fetched(result: Any) -> Fetched:
    return Fetched(result.fetchall() if result.returns_rows else (), result.rowcount)


def _translated(error: Exception) -> Exception:
    translated = translate(error)
    if translated is None and isinstance(
        error, (asyncpg.InterfaceError, asyncpg.InternalClientError)
    ):
        # What SQLAlchemy would have wrapped, such as a value that the driver can't encode.
        return QortexDbError(
            f"The database driver failed ({type(error).__name__}) before a server answered."
        )
    return translated or error


def _in_doubt() -> Exception:
    return OutcomeUnknownError(
        "The connection broke during a write that is its own transaction: it is either whole or "
        "absent. Look for one of its rows before running it again."
    )


class SessionExecutor:
    """The lane of a unit of work: the session's transaction, which is the session's to end."""

    def __init__(self, session: AsyncSession, schema: str | None = None) -> None:
        self._session = session
        self._options = translate_map(schema)
        self._checked: SessionTransaction | None = None
        self._schema = schema

    @property
    def schema(self) -> str | None:
        bind = self._session.sync_session.bind
        if self._schema is not None or bind is None:
            return self._schema
        schemas = bind.get_execution_options().get("schema_translate_map") or {}
        schema: str | None = schemas.get(None)
        return schema

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
            fetched = _fetched(result)
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
