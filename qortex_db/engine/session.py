"""The lane of a unit of work: statements in a session's transaction."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from qortex_db.engine import outcomes
from qortex_db.engine.connections import RETRY_PAUSE_SECONDS, check_driver, ensure_codec
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
from qortex_db.errors import InvalidInputError, is_connection_lost

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import SessionTransaction

    from qortex_db.engine.executor import Fetched


RETRY: Final = "qortex_db_retry_seconds"
"""The key of a session's info where it is how long its connecting is tried again."""


class SessionExecutor:
    """The lane of a unit of work: the session's transaction, which is the session's to end."""

    def __init__(self, session: AsyncSession, schema: str | None = None) -> None:
        self._session = session
        self._options = translate_map(schema)
        self._checked: SessionTransaction | None = None
        self._schema = schema
        self._schemas: Mapping[str | None, str | None] = {}

    async def run(self, statement: Executable, params: Mapping[str, Any]) -> Fetched:
        session = self._session
        try:
            # Core statements don't autoflush: what the host has pending comes first.
            if session.new or session.dirty or session.deleted:
                await session.flush()
            await self._ensure_codec()
            asking = outcomes.telling(session, statement)
            result: Any = await session.execute(
                statement if asking is None else asking,
                dict(params),
                execution_options=self._options | kept_compiled(statement),
            )
            given = fetched(result)
            if asking is not None:
                given = outcomes.told(session, statement, given)
            written = written_tables(statement)
            if written is not None:
                outcomes.note_write(session)
            if written:
                session.info.setdefault(WRITTEN, set()).update(written)
                await refresh_loaded(session, written, self._options)
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            failure = remember_error(session, translated(error))
        else:
            return given
        # Out here it has no context: the driver's error quotes values.
        raise failure

    async def run_all(self, statement: Executable, params: Iterable[Mapping[str, Any]]) -> int:
        # What is refused must not leave a part of it in the host's transaction: hence the list.
        return sum([len((await self.run(statement, each)).rows) for each in list(params)])

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return savepoint(self._session, self._schema)

    async def _ensure_codec(self) -> None:
        """A host's connection may have been checked out before this package knew its engine."""
        transaction = self._session.sync_session.get_transaction()
        if transaction is not None and transaction is self._checked:
            return
        connection = await self._connection()
        check_driver(connection.dialect)
        held: Any = (await connection.get_raw_connection()).dbapi_connection
        if held.autocommit:
            raise InvalidInputError(
                "The engine is in AUTOCOMMIT, so this would be no unit of work: nothing could be "
                'rolled back. Use engine.execution_options(isolation_level="READ COMMITTED").'
            )
        await connection.run_sync(
            lambda sync: ensure_codec(sync.connection.dbapi_connection, sync.connection.info)
        )
        self._checked = self._session.sync_session.get_transaction()

    def schema_of(self, declared: str | None) -> str | None:
        return self._schemas.get(declared, declared)

    async def _connection(self) -> AsyncConnection:
        deadline = time.monotonic() + self._session.info.get(RETRY, 0.0)
        while True:
            try:
                return await self._session.connection()
            except Exception as error:  # noqa: BLE001 - translated, and raised again
                again = is_connection_lost(error) and not connections_of(self._session)
                failure = translated(error)
            if not again or time.monotonic() >= deadline:
                raise failure
            await asyncio.sleep(RETRY_PAUSE_SECONDS)

    async def catalog(self) -> dict[object, Any]:
        connection = await self._connection()
        translating: Any = connection.sync_connection  # a host's engine may say so, or this one
        schemas = translating.get_execution_options().get("schema_translate_map") or {}
        self._schemas = schemas if self._schema is None else {None: self._schema}
        return catalog_of(connection.engine.sync_engine, self._session.info.get(SEARCH_PATH))
