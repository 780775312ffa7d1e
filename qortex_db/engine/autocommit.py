"""The lane of calls by themselves: a statement is its own transaction."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import TextClause
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.util import await_only, greenlet_spawn

from qortex_db.engine.compiled import Compiled
from qortex_db.engine.connections import RETRY_PAUSE_SECONDS, RETRY_SECONDS
from qortex_db.engine.driver import Lease, UnsentError, cancelled_once, execute, pipeline
from qortex_db.engine.executor import (
    Fetched,
    catalogs,
    fetched,
    kept_compiled,
    translate_map,
    translated,
    written_tables,
)
from qortex_db.engine.operations import Operations
from qortex_db.errors import DatabaseClosedError, OutcomeUnknownError, is_connection_lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection, Executable
    from sqlalchemy.ext.asyncio import AsyncEngine


_READS: Final = (SelectBase, TextClause)  # no text() of ours writes


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
        self.operations = Operations(engine)

    async def run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        if self._watched() or self._compile(statement).expands:
            given: Fetched = await self._repeat(self._run_watched, statement, params)
        else:
            given = await self._repeat(self._run, statement, params)
        return given

    async def run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        work = self._run_all_watched if self._watched() else self._run_all
        count: int = await self._repeat(work, statement, params)
        return count

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()  # a statement that failed wrote nothing

    async def _repeat(self, work: Callable[..., Any], statement: Executable, params: Any) -> Any:
        operations = self.operations
        task = operations.begin()
        gate = None
        try:
            if operations.gate is not None:
                gate = await operations.pass_gate()
            return await self._attempts(work, statement, params)
        except asyncio.CancelledError:
            if not operations.was_closed(task):
                raise
        finally:
            if gate is not None:
                gate.release()
            operations.end(task)
        raise DatabaseClosedError(
            "The Database was closed while the call was in flight, and cancelled it. A write may "
            "or may not have happened."
        )

    async def _attempts(self, work: Callable[..., Any], statement: Executable, params: Any) -> Any:
        begun = time.monotonic()
        deadline = None
        replanned = False
        while True:
            try:
                # One greenlet for connect, execute, fetch and close.
                if work == self._run:
                    return await greenlet_spawn(work, statement, params)
                cleanup = self.operations.cleanup
                return await cancelled_once(greenlet_spawn(work, statement, params), cleanup)
            except Exception as error:  # noqa: BLE001 - translated, and raised again
                unsent = isinstance(error, UnsentError)
                cause: Any = error.__cause__ if unsent else error
                if work == self._run_watched and not replanned and self._is_outdated(cause):
                    replanned = True  # as asyncpg does by itself: the server refused the old plan
                    continue
                lost = is_connection_lost(cause)
                writes = written_tables(statement) is not None
                reads = isinstance(statement, _READS) and not writes
                if lost and (unsent or reads):
                    # Our engine has tried to connect for as long itself.
                    since = begun if unsent else time.monotonic()
                    deadline = deadline or since + self._retry_seconds
                    if time.monotonic() < deadline:
                        await asyncio.sleep(RETRY_PAUSE_SECONDS)  # a restart takes its time
                        continue
                in_doubt = lost and not unsent and writes
                failure = _in_doubt() if in_doubt else translated(cause)
            # Out here it has no context: the driver's error quotes values.
            raise failure

    def _run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        compiled = self._compile(statement)
        arguments = compiled.arguments(params)
        with Lease(self._engine, self.operations.cleanup) as lease:
            given: Fetched = await_only(execute(lease.driver, compiled, arguments))
            lease.commit()
            return given

    def _run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        compiled = self._compile(statement)
        # The parameters are made while the server works on those before. All are one transaction,
        # which a refusal among them rolls back, and one round trip.
        arguments = (compiled.arguments(each) for each in params)
        with Lease(self._engine, self.operations.cleanup) as lease:
            count: int = await_only(pipeline(lease.driver, compiled, arguments))
            lease.commit()
            return count

    def _run_watched(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        with self._connect() as connection:
            held: Any = connection.connection
            if not held.driver_connection.is_in_transaction():  # a host's hook may have begun one
                connection.execution_options(isolation_level="AUTOCOMMIT")
            options = kept_compiled(statement)
            given = fetched(connection.execute(statement, dict(params), execution_options=options))
            connection.commit()
            return given

    def _run_all_watched(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        with self._connect() as connection:
            held: Any = connection.connection
            if held.dbapi_connection.autocommit:  # a host's engine: each part would be committed
                connection.execution_options(isolation_level="READ COMMITTED")
            options = kept_compiled(statement)
            results = (
                connection.execute(statement, dict(each), execution_options=options)
                for each in params
            )
            count = sum(len(fetched(result).rows) for result in results)
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
            raise UnsentError from error

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

    def schema_of(self, declared: str | None) -> str | None:
        found: str | None = self._schemas.get(declared, declared)
        return found

    async def catalog(self) -> dict[object, Any]:
        return catalogs.setdefault(self._engine, {})


def _in_doubt() -> Exception:
    return OutcomeUnknownError(
        "The connection broke during a write that is its own transaction: it is either whole or "
        "absent. Look for one of its rows before running it again."
    )
