"""Several statements of one transaction of their own, in the lane of calls by themselves.

Only for what no one statement says: on Citus.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from qortex_db.engine.executor import SEARCH_PATH
from qortex_db.engine.lanes.session import RETRY, SessionExecutor
from qortex_db.engine.lanes.transactions import close, commit
from qortex_db.engine.outcomes import OwnSession
from qortex_db.errors import DatabaseClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.engine.connections.operations import Operations
    from qortex_db.engine.options import CallOptions

_CLOSED: Final = (
    "The Database was closed while the call was in flight, and cancelled it. Nothing of it is "
    "stored, unless its COMMIT was on its way."
)


@asynccontextmanager
async def together(
    engine: AsyncEngine,
    schema: str | None,
    options: CallOptions,
    operations: Operations,
    retry_seconds: float,
) -> AsyncIterator[SessionExecutor]:
    """A block whose statements are one transaction: its end commits, an exception rolls back."""
    task = operations.begin()
    info: dict[Any, Any] = {RETRY: retry_seconds}
    if options.search_path is not None:
        info[SEARCH_PATH] = options.search_path
    session = AsyncSession(engine, expire_on_commit=False, info=info, sync_session_class=OwnSession)
    if options.local:
        event.listen(session.sync_session, "after_begin", lambda _, __, held: options.set_on(held))
    at_once = False
    try:
        yield SessionExecutor(session, options.schema or schema)
        await commit(session)
    except BaseException as error:
        at_once = not isinstance(error, Exception)
        if isinstance(error, asyncio.CancelledError) and operations.was_closed(task):
            raise DatabaseClosedError(_CLOSED) from None
        raise
    finally:
        try:
            await close(session, operations.cleanup, at_once=at_once)
        finally:
            operations.end(task)
