"""The lane of a unit of work: statements in a session's transaction."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect, select, text, true
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.util import await_only

from qortex_db.engine import outcomes
from qortex_db.engine.citus import ON_CITUS, form_of
from qortex_db.engine.compiled import compiled
from qortex_db.engine.connections.connecting import (
    RETRY_PAUSE_SECONDS,
    connection_options,
    not_connected,
)
from qortex_db.engine.connections.engines import (
    check_driver,
    ensure_codec,
    forget_types,
    has_codec,
    note_refusal,
)
from qortex_db.engine.executor import (
    NO_SETTINGS,
    SEARCH_PATH,
    catalog_of,
    fetched,
    kept_compiled,
    translate_map,
    translated,
    written_tables,
)
from qortex_db.engine.lanes import in_session
from qortex_db.engine.lanes.transactions import connections_of, remember_error, savepoint
from qortex_db.engine.loaded import WRITTEN, refresh_loaded
from qortex_db.engine.options import propagated
from qortex_db.errors import InvalidInputError, QortexDbError
from qortex_db.observability.retrying import tell_of_retry
from qortex_db.observability.statement_spans import listener_of
from qortex_db.sql import func
from qortex_db.translation import is_connection_lost, is_refused_by_driver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection, Executable
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session, SessionTransaction

    from qortex_db.engine.executor import Fetched


RETRY: Final = "qortex_db_retry_seconds"
"""The key of a session's info where it is how long its connecting is tried again."""


class SessionExecutor:
    """The lane of a unit of work: the session's transaction, which is the session's to end.

    Statements run on the connection that the session has for their model, so a session that routes
    leads them where it leads its own; what listens to the session's own statements
    (`do_orm_execute`) does not see them, whatever they are made of.

    Args:
        session: Whose transaction it is.
        schema: Of the package's tables, if not where the connection looks.
        bind_arguments: What the session's `get_bind` is given besides.
    """

    commits = False

    def __init__(
        self,
        session: AsyncSession,
        schema: str | None = None,
        bind_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._session = session
        self._options = translate_map(schema)
        self._schema = schema
        self._schemas: Mapping[str | None, str | None] = {}
        self._bind_arguments = {} if bind_arguments is None else bind_arguments
        # Of which transaction's connection it is.
        self._known: tuple[SessionTransaction | None, dict[object, Any] | None] = (None, None)

    def of(self, model: Any) -> SessionExecutor:
        """The same for the statements of a model."""
        return SessionExecutor(
            self._session, self._schema, {**self._bind_arguments, "mapper": inspect(model)}
        )

    async def run(
        self,
        statement: Executable,
        params: Mapping[str, Any],
        *,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> Fetched:
        if settings:
            return await self._run_under(settings, statement, params)
        session = self._session
        try:
            # Core statements don't autoflush: what the host has pending comes first.
            if not session.sync_session._is_clean():  # noqa: SLF001 - its parts are slow to ask for
                await session.flush()
            try:
                given = await self._short(statement, params)
                if given is None:
                    given = await session.run_sync(self._run, statement, params)
            except Exception as error:
                if not self._forget_types(error):
                    raise
                given = await session.run_sync(self._run, statement, params)
            written = written_tables(statement)
            if written:
                session.info.setdefault(WRITTEN, set()).update(written)
                await refresh_loaded(session, written, self._options, self._bind_arguments)
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            failure = remember_error(session, translated(error))
            for connection in connections_of(session):
                note_refusal(failure, catalog_of(connection))
        else:
            return given
        # Out here it has no context: the driver's error quotes values.
        raise failure

    async def _run_under(
        self, settings: Mapping[str, str], statement: Executable, params: Mapping[str, Any]
    ) -> Fetched:
        """Run it under settings on all nodes of Citus, and put back what they were."""
        asked = [func.current_setting(name, true()) for name in settings]
        before = (await self.run(select(*asked), {})).rows[0]
        await self._run_each(propagated(settings.items()))
        # Where the library is not loaded there is none.
        old = propagated(zip(settings, (value or None for value in before), strict=True))
        try:
            given = await self.run(statement, params)
        except InvalidInputError:  # refused here, so that the transaction goes on
            with suppress(QortexDbError):
                await self._run_each(old)
            raise
        await self._run_each(old)
        return given

    async def _run_each(self, commands: Iterable[str]) -> None:
        for each in commands:
            await self.run(_command(each), {})

    async def _short(self, statement: Executable, params: Mapping[str, Any]) -> Fetched | None:
        """Run it by the driver; None, and nothing is done, where it has to go SQLAlchemy's way."""
        connection = self._held({"clause": statement})
        if connection is None:
            connection = await self._connected({"clause": statement})
        listens = listener_of(connection)
        adapted = in_session.adapter(connection, listens=listens)
        if adapted is None or not has_codec(connection.info, catalog_of(connection)):
            return None
        session = self._session
        known = catalog_of(connection)
        statement = form_of(statement, known)
        asking = None if known.get(ON_CITUS) else outcomes.telling(session, statement)
        schemas = self._schemas_of(connection)
        sent = compiled(statement if asking is None else asking, connection, schemas)
        if sent.expands:
            return None
        try:
            arguments = sent.arguments(params)
        except Exception:  # noqa: BLE001 - told there
            return None
        spans = None if isinstance(listens, bool) else listens
        given = await in_session.run(connection, adapted, sent, arguments, spans)
        return self._told(statement, given, asked=asking is not None)

    def _told(self, statement: Executable, given: Fetched, *, asked: bool) -> Fetched:
        if asked:
            given = outcomes.told(self._session, statement, given)
        if written_tables(statement) is not None:
            outcomes.note_write(self._session)
        return given

    def _held(self, arguments: Mapping[str, Any]) -> Connection | None:
        """The session's connection for a statement, where it has one."""
        try:
            return in_session.held(
                self._session.sync_session, {**self._bind_arguments, **arguments}
            )
        except UnboundExecutionError:  # told where it is asked for
            return None

    def _schemas_of(self, connection: Connection) -> Mapping[str | None, str | None]:
        """Where the tables of declared schemas are: a host's engine may say so, or a connection."""
        if self._schema is not None:
            return {None: self._schema}
        return connection.get_execution_options().get("schema_translate_map") or {}

    def _run(self, _: Session, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        session = self._session
        connection = self._connection({"clause": statement})
        known = catalog_of(connection)
        statement = form_of(statement, known)
        asking = None if known.get(ON_CITUS) else outcomes.telling(session, statement)
        options = self._options | kept_compiled(statement)
        sent = statement if asking is None else asking
        given = fetched(connection.execute(sent, dict(params), execution_options=options))
        return self._told(statement, given, asked=asking is not None)

    def _forget_types(self, error: Exception) -> bool:
        """Whether it may be sent by new types; where a server refused, the transaction is over."""
        for connection in connections_of(self._session):
            forget_types(error, catalog_of(connection))
        return is_refused_by_driver(error)

    async def run_all(
        self, statement: Executable, params: Iterable[Mapping[str, Any]]
    ) -> Sequence[Any]:
        # What is refused must not leave a part of it in the host's transaction: hence the list.
        return [row for each in list(params) for row in (await self.run(statement, each)).rows]

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return savepoint(self._session, self._schema, self._bind_arguments)

    def schema_of(self, declared: str | None) -> str | None:
        return self._schemas.get(declared, declared)

    def known(self) -> dict[object, Any] | None:
        begun, known = self._known
        return known if begun is self._session.sync_session.get_transaction() else None

    @asynccontextmanager
    async def together(self) -> AsyncIterator[SessionExecutor]:
        async with self.savepoint():
            yield self

    async def on_citus(self) -> bool:
        known = await self.catalog()
        own = known.get(ON_CITUS)
        if own is None:  # of a search_path of its own
            own = catalog_of(await self._connected({})).get(ON_CITUS)
        return bool(own)

    async def catalog(self) -> dict[object, Any]:
        try:
            connection = await self._connected({})
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            failure = translated(error)
        else:
            return self._known_of(connection)
        raise failure

    def _known_of(self, connection: Connection) -> dict[object, Any]:
        self._schemas = self._schemas_of(connection)
        known = catalog_of(connection, self._session.info.get(SEARCH_PATH))
        self._known = self._session.sync_session.get_transaction(), known
        return known

    async def _connected(self, arguments: Mapping[str, Any]) -> Connection:
        if in_session.connects_at_once(self._session.sync_session):
            return self._connection(arguments)
        return await self._session.run_sync(lambda _: self._connection(arguments))

    def _connection(self, arguments: Mapping[str, Any]) -> Connection:
        """The session's for a statement, which a host may have had before it knew this package."""
        session = self._session.sync_session
        bind_arguments = {**self._bind_arguments, **arguments}
        deadline = time.monotonic() + session.info.get(RETRY, 0.0)
        is_first = True
        while True:
            try:
                connection = outcomes.connection_of(session, bind_arguments)
                break
            except UnboundExecutionError:
                model = bind_arguments["mapper"].class_.__name__
                raise InvalidInputError(
                    f"The session has no engine for {model}. Name one in its binds, as "
                    "binds={Base: engine, qortex_db.models.Base: engine}, or in get_bind()."
                ) from None
            except Exception as error:  # noqa: BLE001 - told, and raised below
                lost = is_connection_lost(error) and not connections_of(self._session)
                again = lost and time.monotonic() < deadline
                bind = session.get_bind(**bind_arguments)
                failure = not_connected(error, connection_options(bind.engine))
            if not again:
                raise failure
            tell_of_retry("connecting", failure, is_first=is_first)
            is_first = False
            await_only(asyncio.sleep(RETRY_PAUSE_SECONDS))
        check_driver(connection.dialect)
        held: Any = connection.connection
        if held.dbapi_connection.autocommit:
            raise InvalidInputError(
                "The engine is in AUTOCOMMIT, so this would be no unit of work: nothing could be "
                'rolled back. Use engine.execution_options(isolation_level="READ COMMITTED").'
            )
        ensure_codec(held.dbapi_connection, connection.info, catalog_of(connection))
        return connection


def _command(sql: str) -> Executable:
    return text(sql.replace(":", r"\:"))
