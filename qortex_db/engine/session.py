"""The lane of a unit of work: statements in a session's transaction."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError, UnboundExecutionError
from sqlalchemy.util import await_only

from qortex_db.engine import outcomes
from qortex_db.engine.connecting import RETRY_PAUSE_SECONDS, connection_options, not_connected
from qortex_db.engine.connections import check_driver, ensure_codec, forget_types
from qortex_db.engine.executor import (
    SEARCH_PATH,
    catalog_of,
    fetched,
    kept_compiled,
    translate_map,
    translated,
    written_tables,
)
from qortex_db.engine.loaded import WRITTEN, refresh_loaded
from qortex_db.engine.transactions import connections_of, remember_error, savepoint
from qortex_db.errors import InvalidInputError
from qortex_db.translation import is_connection_lost, is_refused_by_driver

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection, Executable
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

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
        self._bind_arguments = bind_arguments or {}

    def of(self, model: Any) -> SessionExecutor:
        """The same for the statements of a model."""
        return SessionExecutor(
            self._session, self._schema, {**self._bind_arguments, "mapper": inspect(model)}
        )

    async def run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        session = self._session
        try:
            # Core statements don't autoflush: what the host has pending comes first.
            if session.new or session.dirty or session.deleted:
                await session.flush()
            try:
                given = await session.run_sync(self._run, statement, params)
            except DBAPIError as error:
                if not self._forget_types(error):
                    raise
                given = await session.run_sync(self._run, statement, params)
            written = written_tables(statement)
            if written:
                session.info.setdefault(WRITTEN, set()).update(written)
                await refresh_loaded(session, written, self._options, self._bind_arguments)
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            failure = remember_error(session, translated(error))
        else:
            return given
        # Out here it has no context: the driver's error quotes values.
        raise failure

    def _run(self, _: Session, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        session = self._session
        connection = self._connection({"clause": statement})
        asking = outcomes.telling(session, statement)
        options = self._options | kept_compiled(statement)
        sent = statement if asking is None else asking
        given = fetched(connection.execute(sent, dict(params), execution_options=options))
        if asking is not None:
            given = outcomes.told(session, statement, given)
        if written_tables(statement) is not None:
            outcomes.note_write(session)
        return given

    def _forget_types(self, error: DBAPIError) -> bool:
        """Whether it may be sent by new types; where a server refused, the transaction is over."""
        for connection in connections_of(self._session):
            forget_types(error, catalog_of(connection))
        return is_refused_by_driver(error)

    async def run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        # What is refused must not leave a part of it in the host's transaction: hence the list.
        return sum([len((await self.run(statement, each)).rows) for each in list(params)])

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return savepoint(self._session, self._schema, self._bind_arguments)

    def schema_of(self, declared: str | None) -> str | None:
        return self._schemas.get(declared, declared)

    def known(self) -> None:
        return None  # it is the connection's

    async def catalog(self) -> dict[object, Any]:
        try:
            connection = await self._session.run_sync(lambda _: self._connection({}))
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            failure = translated(error)
        else:
            # A host's engine may say so, or this one connection.
            schemas = connection.get_execution_options().get("schema_translate_map") or {}
            self._schemas = schemas if self._schema is None else {None: self._schema}
            return catalog_of(connection, self._session.info.get(SEARCH_PATH))
        raise failure

    def _connection(self, arguments: Mapping[str, Any]) -> Connection:
        """The session's for a statement, which a host may have had before it knew this package."""
        session = self._session.sync_session
        bind_arguments = {**self._bind_arguments, **arguments}
        deadline = time.monotonic() + session.info.get(RETRY, 0.0)
        while True:
            try:
                connection = session.connection(bind_arguments=bind_arguments)
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
