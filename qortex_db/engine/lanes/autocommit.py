"""The lane of calls by themselves: a statement is its own transaction."""

from __future__ import annotations

import asyncio
import functools
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import TextClause, text
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.util import greenlet_spawn

from qortex_db.engine.citus import ON_CITUS, form_of
from qortex_db.engine.compiled import compiled
from qortex_db.engine.connections.connecting import (
    RETRY_PAUSE_SECONDS,
    connection_options,
    not_connected,
)
from qortex_db.engine.connections.engines import RETRY_SECONDS, forget_types, note_refusal
from qortex_db.engine.connections.lease import Lease, UnsentError, transaction_modes
from qortex_db.engine.connections.operations import Operations
from qortex_db.engine.executor import (
    NO_SETTINGS,
    Fetched,
    catalog_of,
    fetched,
    kept_compiled,
    translate_map,
    written_tables,
)
from qortex_db.engine.lanes.driver import (
    RefusedError,
    cancelled_once,
    execute,
    patient,
    pipeline,
    taken,
)
from qortex_db.engine.lanes.together import together
from qortex_db.engine.options import NO_OPTIONS, CallOptions
from qortex_db.engine.telling import telling, told
from qortex_db.errors import DatabaseClosedError, OutcomeUnknownError
from qortex_db.observability.metrics import retries_total
from qortex_db.observability.retrying import tell_of_retry
from qortex_db.observability.statement_spans import listener_of
from qortex_db.translation import (
    is_connection_lost,
    is_outdated,
    is_recovery_conflict,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection, Executable
    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.engine.compiled import Compiled
    from qortex_db.engine.connections.turns import Turn
    from qortex_db.engine.lanes.session import SessionExecutor
    from qortex_db.observability.statement_spans import StatementSpans

_MAX_REPLANS: Final = 100  # each connection of the pool may have an old plan
_MAX_CONFLICTS: Final = 3
"""How often a read is begun again that a standby cancelled for what it had to replay."""
_NOTHING: Final = text("SELECT 1")
_READS: Final = (SelectBase, TextClause)  # no text() of ours writes


class Routing(Protocol):
    """What has reads answered by replicas, and notes writes."""

    async def run(
        self, statement: Executable, params: Mapping[str, Any], options: CallOptions
    ) -> Fetched:
        """As of the executor of the primary."""
        ...


class AutocommitExecutor:
    """The lane of calls by themselves: a statement is its own transaction, in one round trip.

    Args:
        engine: Whose pool is used.
        schema: Of the package's tables, if not where the engine's own options put them.
        retry_seconds: How long to repeat, while the server is away, what is safe to repeat: reads,
            and whatever was not sent yet. 0 never repeats.
        options: Of the calls that have none of their own.

    Attributes:
        engine: That one.
        routing: Where calls go whose options say how fresh reads have to be.
    """

    commits = True

    def __init__(
        self,
        engine: AsyncEngine,
        schema: str | None = None,
        *,
        retry_seconds: float = RETRY_SECONDS,
        options: CallOptions = NO_OPTIONS,
    ) -> None:
        self.routing: Routing | None = None
        self.engine = engine
        self._schema = schema
        self._engine = engine.sync_engine
        self._translated = self._engine.execution_options(**translate_map(schema))
        self._schemas = self._translated.get_execution_options().get("schema_translate_map") or {}
        self._compiled: WeakKeyDictionary[Any, Compiled] = WeakKeyDictionary()
        self._retry_seconds = retry_seconds
        self._most_conflicts = _MAX_CONFLICTS if retry_seconds else 0
        self._options = options
        self._known = catalog_of(self._engine)
        self.operations = Operations(engine)

    def of(self, model: Any) -> AutocommitExecutor:  # noqa: ARG002 - one engine has all
        return self

    async def run(
        self,
        statement: Executable,
        params: Mapping[str, Any],
        options: CallOptions | None = None,
        *,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> Fetched:
        options = self._options if options is None else options
        if settings:
            options = replace(options, settings=(*options.settings, *settings.items()))
        # Citus's nodes number their transactions each by itself.
        routing = self.routing if options.consistency is not None else None
        if routing is not None and not await self.on_citus():
            return await routing.run(statement, params, options)
        return await self.run_here(statement, params, options)

    async def run_here(
        self, statement: Executable, params: Mapping[str, Any], options: CallOptions
    ) -> Fetched:
        """Execute on this engine's own server."""
        listens = listener_of(self._engine)
        work: Callable[..., Any] = self._run
        borrows = True
        form = form_of(statement, self._known)
        if listens is True or self._compile(form, options).expands:
            work, borrows = self._run_watched, False
        elif listens:
            work = functools.partial(self._run, spans=listens)
        given: Fetched = await self._repeat(work, statement, params, options, borrows=borrows)
        return given

    async def run_all(
        self,
        statement: Executable,
        params: Iterable[Mapping[str, Any]],
        options: CallOptions | None = None,
    ) -> Sequence[Any]:
        options = self._options if options is None else options
        own = options.own_writes
        mark = 0 if own is None else own.begin()
        work = self._run_all_watched if listener_of(self._engine) else self._run_all
        try:
            rows: Sequence[Any]
            rows, number = await self._repeat(work, statement, params, options, replans=False)
        except BaseException:
            if own is not None:
                own.lose()
            raise
        if own is not None:
            own.end(mark, number)
        return rows

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()  # a statement that failed wrote nothing

    async def _repeat(
        self,
        work: Callable[..., Any],
        statement: Executable,
        params: Any,
        options: CallOptions,
        *,
        replans: bool = True,
        borrows: bool = False,
    ) -> Any:
        operations = self.operations
        task = operations.begin()
        turns, turn = operations.turns, None
        try:
            if turns is not None:
                turn = await operations.take_turn(turns, borrows=borrows)
                if borrows:
                    work = functools.partial(work, turn=turn)
            return await self._attempts(work, statement, params, options, replans=replans)
        except asyncio.CancelledError:
            if not operations.was_closed(task):
                raise
        finally:
            if turn is not None:
                turn.end(operations.cleanup)
            operations.end(task)
        raise DatabaseClosedError(
            "The Database was closed while the call was in flight, and cancelled it. A write may "
            "or may not have happened."
        )

    async def _attempts(
        self,
        work: Callable[..., Any],
        statement: Executable,
        params: Any,
        options: CallOptions,
        *,
        replans: bool,
    ) -> Any:
        begun = time.monotonic()
        deadline = None
        replanned = conflicts = 0
        while True:
            try:
                return await work(statement, params, options)
            except RefusedError as refused:
                failure = refused.error
            except Exception as error:  # noqa: BLE001 - translated, and raised again
                unsent = isinstance(error, UnsentError)
                cause: Any = error.__cause__ if unsent else error
                may_be_old = forget_types(cause, catalog_of(self._engine))
                most = _MAX_REPLANS if is_outdated(cause) else int(may_be_old)
                if replanned < most and replans:
                    retries_total.add(1, {"reason": "old plan"})
                    replanned += 1  # as asyncpg does by itself: the server refused the old plan
                    continue
                lost = is_connection_lost(cause)
                writes = written_tables(statement) is not None
                reads = isinstance(statement, _READS) and not writes
                if lost and (unsent or reads):
                    # Our engine has tried to connect for as long itself.
                    since = begun if unsent else time.monotonic()
                    is_first = deadline is None
                    deadline = deadline or since + self._retry_seconds
                    if time.monotonic() < deadline:
                        tell_of_retry("connection lost", cause, is_first=is_first)
                        await asyncio.sleep(RETRY_PAUSE_SECONDS)  # a restart takes its time
                        continue
                if reads and is_recovery_conflict(cause) and conflicts < self._most_conflicts:
                    conflicts += 1
                    tell_of_retry("recovery conflict", cause, is_first=conflicts == 1)
                    await asyncio.sleep(RETRY_PAUSE_SECONDS)  # it replays what was in its way
                    continue
                in_doubt = lost and not unsent and writes
                if unsent:
                    failure = not_connected(cause, connection_options(self._engine))
                else:
                    failure = _in_doubt() if in_doubt else translated(cause)
            note_refusal(failure, catalog_of(self._engine))
            # Out here it has no context: the driver's error quotes values.
            raise failure

    async def _run(
        self,
        statement: Executable,
        params: Mapping[str, Any],
        options: CallOptions,
        spans: StatementSpans | None = None,
        turn: Turn[Lease] | None = None,
    ) -> Fetched:
        form = form_of(statement, self._known)
        sent, arguments = self._prepared(form, params, options)
        lease = turn.borrow() if turn is not None else None
        if lease is None:
            lease = Lease.at_once(self._engine, self._known)
        if lease is None:
            lease = await Lease.waited_for(self._engine, self._known)
        try:
            if form is not form_of(statement, self._known):  # the first connection told of it
                form = form_of(statement, self._known)
                sent, arguments = self._prepared(form, params, options)
            if options is not NO_OPTIONS or lease.has_modes():
                await lease.begin(options.begin(on_citus=self._is_on_citus))
            limit = options.timeout_seconds
            given = await execute(lease.driver, sent, arguments, limit, spans)
            if lease.driver.is_in_transaction():
                await lease.commit()
        except BaseException as error:
            await lease.end(error, self.operations.cleanup)
            raise
        if turn is not None and turn.lends() and lease.can_be_handed_on(self._engine, self._known):
            turn.lease = lease
        elif not lease.is_returned(self._known):
            await lease.give_back()
        return given

    def _prepared(
        self, statement: Executable, params: Mapping[str, Any], options: CallOptions
    ) -> tuple[Compiled, list[Any]]:
        sent = self._compile(statement, options)
        try:
            return sent, sent.arguments(params)
        except Exception as error:  # noqa: BLE001 - the caller's own
            raise RefusedError(error) from None

    async def _run_all(self, *call: Any) -> Any:
        return await cancelled_once(self._pipeline(*call), self.operations.cleanup)

    async def _pipeline(
        self, statement: Executable, params: Iterable[Mapping[str, Any]], options: CallOptions
    ) -> tuple[Sequence[Any], str | None]:
        sent = self._compile(form_of(statement, self._known), options)
        tells = options.own_writes is not None and not self._is_on_citus
        # The parameters are made while the server works on those before. All are one transaction,
        # which a refusal among them rolls back, and one round trip.
        arguments = taken(sent.arguments(each) for each in params)
        lease = await Lease.waited_for(self._engine, self._known)
        try:
            await lease.begin(options.begin(on_citus=self._is_on_citus))
            limit = options.timeout_seconds
            given = await pipeline(lease.driver, sent, arguments, limit, tells=tells)
            await lease.commit()
        except BaseException as error:
            await lease.end(error, self.operations.cleanup)
            raise
        await lease.give_back()
        return given

    async def _run_watched(self, *call: Any) -> Any:
        return await cancelled_once(greenlet_spawn(self._execute, *call), self.operations.cleanup)

    async def _run_all_watched(self, *call: Any) -> Any:
        work = greenlet_spawn(self._execute_all, *call)
        return await cancelled_once(work, self.operations.cleanup)

    def _execute(
        self, statement: Executable, params: Mapping[str, Any], options: CallOptions
    ) -> Fetched:
        with self._connect(options) as connection:
            held: Any = connection.connection
            if options.local or _has_transactions(connection):
                _leave_autocommit(connection)
                options.set_on(connection)
            elif not held.driver_connection.is_in_transaction():  # a host's hook may have begun one
                connection.execution_options(isolation_level="AUTOCOMMIT")
            form = form_of(statement, self._known)
            kept = kept_compiled(form)
            with patient(held.driver_connection, options.timeout_seconds):
                given = fetched(connection.execute(form, dict(params), execution_options=kept))
            connection.commit()
            return given

    def _execute_all(
        self, statement: Executable, params: Iterable[Mapping[str, Any]], options: CallOptions
    ) -> tuple[Sequence[Any], str | None]:
        rows: list[Any] = []
        number = None
        on_citus = self._is_on_citus
        with self._connect(options) as connection:
            _leave_autocommit(connection)
            options.set_on(connection)
            form = form_of(statement, self._known)
            asking = telling(form) if options.own_writes is not None and not on_citus else None
            sent = form if asking is None else asking
            kept = kept_compiled(form)
            held: Any = connection.connection
            with patient(held.driver_connection, options.timeout_seconds):
                for each in taken(params):
                    given = fetched(connection.execute(sent, dict(each), execution_options=kept))
                    if asking is not None:
                        given, number = told(form, given)
                    rows += given.rows
            connection.commit()
        return rows, number

    def _connect(self, options: CallOptions) -> Connection:
        engine = self._translated
        if options.schema is not None:
            engine = self._engine.execution_options(**translate_map(options.schema))
        try:
            return engine.connect()
        except Exception as error:
            raise UnsentError from error

    def compile(self, statement: Executable) -> None:
        """Compile a statement that will be run, so that its first run need not."""
        self._compile(statement, self._options)

    def _compile(self, statement: Executable, options: CallOptions) -> Compiled:
        if options.schema is not None:
            return compiled(statement, self._engine, {**self._schemas, None: options.schema})
        found = self._compiled.get(statement)
        if found is None:
            found = compiled(statement, self._engine, self._schemas)
            self._compiled[statement] = found
        return found

    def schema_of(self, declared: str | None) -> str | None:
        found: str | None = self._schemas.get(declared, declared)
        return found

    def together(
        self, options: CallOptions | None = None
    ) -> AbstractAsyncContextManager[SessionExecutor]:
        options = self._options if options is None else options
        given = self.engine, self._schema, options, self.operations, self._retry_seconds
        return together(*given)

    @property
    def _is_on_citus(self) -> bool:
        return bool(self._known.get(ON_CITUS))

    async def on_citus(self) -> bool:
        if ON_CITUS not in self._known:  # a connection tells
            await self.run_here(_NOTHING, {}, NO_OPTIONS)
            self._known.setdefault(ON_CITUS, False)  # where there is no pgvector yet
        return self._is_on_citus

    async def catalog(self, options: CallOptions | None = None) -> dict[object, Any]:
        return self.known(options)

    def known(self, options: CallOptions | None = None) -> dict[object, Any]:
        options = self._options if options is None else options
        if options is NO_OPTIONS:
            return self._known
        return catalog_of(self._engine, options.search_path)


def _has_transactions(connection: Connection) -> bool:
    """Whether a host says what its transactions are, so that a statement needs one."""
    held: Any = connection.connection
    listened: Any = connection
    return bool(listened.dispatch.begin or transaction_modes(held.dbapi_connection))


def _leave_autocommit(connection: Connection) -> None:
    held: Any = connection.connection
    if held.dbapi_connection.autocommit:  # a host's engine: each part would be committed
        connection.execution_options(isolation_level="READ COMMITTED")


def _in_doubt() -> Exception:
    return OutcomeUnknownError(
        "The connection broke during a write that is its own transaction: it is either whole or "
        "absent. Look for one of its rows before running it again."
    )
