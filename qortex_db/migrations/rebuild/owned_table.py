"""Statements on one table, in its owner's role; long ones can be watched and stopped."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from qortex_db.engine import finished, task_of
from qortex_db.errors import NotFoundError
from qortex_db.migrations.connection import NO_TIMEOUTS
from qortex_db.observability import log
from qortex_db.translation import sqlstate_of, translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence

    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

POLL_SECONDS: Final = 0.3
CLEANUP_SECONDS: Final = 10.0
_DENIED: Final = "42501"

_FIND = text("""
SELECT t.oid, n.nspname, t.relname, pg_catalog.pg_get_userbyid(t.relowner), t.relkind = 'p'
FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
WHERE t.relkind IN ('r', 'p')
  AND t.oid = to_regclass(coalesce(quote_ident(:schema) || '.', '') || quote_ident(:name))::oid
""")
_SET = text("SELECT set_config(:name, :value, false)")
_CANCEL = text("SELECT pg_cancel_backend(:pid)")


@dataclass(frozen=True, slots=True)
class OwnedTable:
    """A table, and a way to change it with its owner's rights and no more."""

    engine: AsyncEngine
    oid: int
    schema: str
    name: str
    owner: str
    is_partitioned: bool

    @asynccontextmanager
    async def connection(self, **settings: str) -> AsyncIterator[AsyncConnection]:
        """A connection in AUTOCOMMIT, as concurrent builds and drops need it."""
        opened = self.engine.connect()
        try:
            with self._translated(Exception):
                connection = await opened.start()
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(NO_TIMEOUTS)
                for name, value in ({"role": self.owner} | settings).items():
                    await connection.execute(_SET, {"name": name, "value": value})
            with self._translated(SQLAlchemyError):  # what else the body raises is its own
                yield connection
        finally:
            if opened.sync_connection is not None:
                await finish(opened.close())

    @contextmanager
    def _translated(self, kind: type[Exception]) -> Iterator[None]:
        try:
            yield
        except kind as error:
            ours = translate(error)
            if ours is None:
                raise
            if sqlstate_of(error) == _DENIED:
                ours = ours.retold(
                    f"{ours} Connect as {self.owner}, who owns {self.name}, or as a member of that "
                    f"role; and let it create in the schema {self.schema}."
                )
            raise ours from None

    async def query(self, statement: Executable, **parameters: object) -> Sequence[Any]:
        """Rows; what they say of other objects is qualified by schemas."""
        async with self.connection(search_path="") as connection:
            return (await connection.execute(statement, parameters)).all()

    async def formatted(self, template: str, *values: str) -> str:
        """A statement with names and literals in it, as `run` takes them."""
        found: str = (await self.query(select(func.format(template, *values))))[0][0]
        return found

    async def run(
        self,
        template: str,
        *values: str,
        watch: Callable[[AsyncConnection, int], Awaitable[None]] | None = None,
        **settings: str,
    ) -> None:
        """Run a statement that may take hours; a cancellation stops it on the server too.

        Args:
            template: As PostgreSQL's `format` takes it: %I is an identifier, %L a literal.
            values: What goes into the template; without any it is the statement itself.
            watch: Called about three times a second, with a connection and the process to look at.
            settings: Of the session.
        """
        statement = await self.formatted(template, *values) if values else template
        async with self.connection(**settings) as connection:
            pid = (await connection.execute(select(func.pg_backend_pid()))).scalar_one()
            # As the role that logged in: only it is shown its processes, and may stop them.
            async with self.connection(role="none") as watcher:
                running = asyncio.create_task(connection.exec_driver_sql(statement))
                try:
                    while not running.done():
                        await asyncio.wait({running}, timeout=POLL_SECONDS)
                        if watch is not None and not running.done():
                            await watch(watcher, pid)
                except BaseException:
                    await finish(self._stop(pid, running))
                    raise
                await running

    async def _stop(self, pid: int, running: asyncio.Task[Any]) -> None:
        if not running.done():
            async with self.connection(role="none") as connection:
                await connection.execute(_CANCEL, {"pid": pid})
        await asyncio.gather(running, return_exceptions=True)


async def find_table(engine: AsyncEngine, schema: str | None, name: str) -> OwnedTable:
    """A table by its name.

    Raises:
        NotFoundError: There is none.
    """
    async with engine.connect() as connection:
        found = (await connection.execute(_FIND, {"schema": schema, "name": name})).one_or_none()
    if found is None:
        where = "" if schema is None else f" in the schema {schema}"
        raise NotFoundError(f"There is no table {name}{where}. Migrate first, or name another.")
    return OwnedTable(engine, *found)


async def finish(cleanup: Coroutine[Any, Any, None]) -> None:
    """Clean up for a while, whatever is cancelled meanwhile; what fails is logged."""
    task = task_of(cleanup)
    try:
        await finished(task, CLEANUP_SECONDS)
    finally:
        if not task.done():
            task.cancel()
            await finished(task, 1)
        if not task.done() or task.cancelled() or task.exception() is not None:
            log.warning("index_cleanup_failed")
