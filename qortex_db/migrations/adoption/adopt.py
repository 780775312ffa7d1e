"""Databases that qortex 0.8 filled, brought under Alembic with nothing lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from qortex_db.errors import LockTimeoutError, QortexDbError, SchemaVersionError
from qortex_db.migrations.adoption import baseline, stamping, transformation
from qortex_db.migrations.adoption.checksums import compare, scan
from qortex_db.migrations.adoption.inspection import Inspection, inspect
from qortex_db.migrations.adoption.outcome import AdoptedTable, Adoption, AdoptionRefusedError
from qortex_db.migrations.busy_tables import OUTWAIT, UNOBTRUSIVE, WAIT_MS
from qortex_db.migrations.commands import SchemaState, migrate_on, schema_state
from qortex_db.migrations.connection import (
    migration_engine,
    migration_lock,
    refuse_open_schemas,
)
from qortex_db.migrations.dimensions import check_indexable
from qortex_db.migrations.rebuild.indexes import restore_pending
from qortex_db.migrations.rebuild.owned_table import OwnedTable
from qortex_db.migrations.rebuild.pending import VIEW, Index, read_pending, write_pending
from qortex_db.migrations.waiting import BusyError, try_until
from qortex_db.observability import log
from qortex_db.settings import DEFAULT_DIMENSIONS, Settings
from qortex_db.translation import sqlstate_of
from qortex_db.types import check_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

    from qortex_db.migrations.rebuild.building import IndexProgress

LOCK_SECONDS: Final = 30.0
"""How long the tables' users are waited for, by short tries."""
PAUSE_SECONDS: Final = 0.5
"""Between two tries, for those who queue."""

_BUSY: Final = {"55P03", "40P01"}
_INDEX: Final = "ix_qortex_vectors_vec"
_WAIT_BRIEFLY = text(f"SET LOCAL lock_timeout = '{WAIT_MS}ms'")
_ROLE = text("SELECT set_config('role', :role, true)")

_QUIET = text("""
SELECT set_config(name, CASE name WHEN 'row_security' THEN 'off' ELSE '0' END, true)
FROM pg_catalog.pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout',
               'idle_in_transaction_session_timeout', 'row_security')
""")


async def adopt(
    target: Settings | AsyncEngine | None = None,
    *,
    settings: Settings | None = None,
    dry_run: bool = False,
    on_plan: Callable[[Adoption], object] | None = None,
    on_progress: Callable[[IndexProgress], object] | None = None,
    embedded: bool = False,
) -> Adoption:
    """Bring a database that qortex 0.8 filled under Alembic, with nothing lost.

    Renames, defaults, missing tables and the stamp are one transaction, which is rolled back if the
    checksums before and after differ. Then the schema is upgraded to the head, and a missing vector
    index is built concurrently. Interrupted anywhere, it goes on when it is called again; where
    nothing is left to do, it does nothing.

    Args:
        target: Settings, or a host's engine, beside whose pool it connects; by default the
            environment's settings.
        settings: Beside an engine: schema, version table and dimension; by default the
            environment's.
        dry_run: Look only, in a transaction that is read-only.
        on_plan: Called with what was found, before anything is changed.
        on_progress: Called, and awaited if need be, while the index is built.
        embedded: Use the embedded server, which is never started unasked.

    Raises:
        DimensionMismatchError: The settings name another dimension than the column holds.
        NotFoundError: There is no table of qortex's.
        AdoptionRefusedError: A table is not what it should be; `differences` says all of it.
        SchemaVersionError: A newer package migrated the database.
        LockTimeoutError: A table is in use, or another process migrates.
        QortexDbError: The checksums differ; nothing was changed.
    """
    host = target if isinstance(target, AsyncEngine) else None
    if settings is None:
        settings = target if isinstance(target, Settings) else Settings()
    async with migration_engine(settings, embedded=embedded, host=host) as engine:
        work = _Work(engine, settings, on_plan or (lambda _: None))
        if dry_run:
            return await work.look()
        async with migration_lock(engine, timeout_seconds=settings.migration_timeout_seconds):
            return await work.finish(await work.change(), on_progress)


@dataclass(frozen=True, slots=True)
class _Work:
    engine: AsyncEngine
    settings: Settings
    on_plan: Callable[[Adoption], object]

    async def look(self) -> Adoption:
        async with self.engine.connect() as connection:
            await connection.exec_driver_sql(
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
            )
            refuse_open_schemas(self.engine.sync_engine)
            await connection.execute(_QUIET)
            state = await connection.run_sync(schema_state, self.settings)
            if state.current is not None:
                return await self._underway(connection, state, dry_run=True)
            found = await self._inspect(connection)
            return await self._plan(connection, found, state, dry_run=True)

    async def change(self) -> Adoption:
        """The transaction that makes the tables what the baseline makes, and stamps them."""
        async with self.engine.connect() as connection, connection.begin():
            refuse_open_schemas(self.engine.sync_engine)
            await connection.execute(_QUIET)
            state = await connection.run_sync(schema_state, self.settings)
            if state.current is not None:
                plan = await self._underway(connection, state, dry_run=False)
                self.on_plan(plan)
                return plan
            found = await self._inspect(connection)
            await connection.execute(OUTWAIT)
            await _lock(connection, found, UNOBTRUSIVE)
            await connection.execute(_WAIT_BRIEFLY)
            # Writers out, readers in: what is counted from here on stays as it is.
            await _lock(connection, found, "SHARE ROW EXCLUSIVE")
            found = await self._inspect(connection)
            plan = await self._plan(connection, found, state, dry_run=False)
            self.on_plan(plan)
            await _lock(connection, found, "ACCESS EXCLUSIVE")
            if found.vectors is None and found.extension is None:
                await connection.exec_driver_sql(transformation.CREATE_EXTENSION)
                found = await inspect(connection, found.schema)
            shared = await connection.run_sync(stamping.stamp_beside_host, self.settings)
            # What is made belongs to whom the tables belong to.
            await connection.execute(_ROLE, {"role": found.owner})
            for statement in transformation.statements(found, self._dimensions(found)):
                await connection.exec_driver_sql(statement)
            if plan.pending_index is not None:
                table = self._vectors(found)
                await write_pending(table, [_waiting(found)], connection=connection)
            if not shared:
                await connection.run_sync(stamping.stamp, self.settings, found.schema)
            found = await inspect(connection, found.schema)
            return replace(plan, tables=await compare(connection, found, plan.tables))

    async def finish(
        self, adoption: Adoption, on_progress: Callable[[IndexProgress], object] | None
    ) -> Adoption:
        """What can't be part of the transaction, and can be repeated: revisions and the index."""
        async with self.engine.connect() as connection:
            shared = await connection.run_sync(stamping.is_in_host_table, self.settings)
            state = await connection.run_sync(schema_state, self.settings)
        if not shared:  # else the host's own Alembic goes on
            async with self.engine.connect() as connection:
                state = await connection.run_sync(
                    migrate_on, self.settings, command.upgrade, "head", {}
                )
        adoption = replace(adoption, state=state)
        if adoption.pending_index is None:
            return adoption
        async with self.engine.connect() as connection:
            found = await inspect(connection, adoption.schema)
        table = self._vectors(found)
        try:
            pending = await read_pending(table)
            if _INDEX not in {index.name for index in pending}:
                await write_pending(table, [*pending, _waiting(found)])
            built = await restore_pending(table, on_progress)
        except QortexDbError as error:
            log.warning("index_build_failed", index=_INDEX, error=type(error).__name__)
            return replace(adoption, failure=str(error))
        (made,) = (index for index in built if index.name == _INDEX)
        return replace(adoption, pending_index=None, built=made)

    def _dimensions(self, found: Inspection) -> int:
        return found.dimensions or self.settings.dimensions or DEFAULT_DIMENSIONS

    def _vectors(self, found: Inspection) -> OwnedTable:
        row = found.tables[baseline.VECTORS.name].row
        return OwnedTable(
            self.engine, row.oid, found.schema, row.name, row.owner, is_partitioned=False
        )

    async def _inspect(self, connection: AsyncConnection) -> Inspection:
        found = await inspect(connection, self.settings.db_schema)
        if found.vectors is not None and not found.differences:
            unfinished = await read_pending(self._vectors(found))
            found.differences.extend(
                f"the index {index.name} waits for `qortex-db index rebuild`: run that first"
                for index in unfinished
            )
        if found.differences:
            raise AdoptionRefusedError(found.differences)
        check_setting(self.settings.dimensions, found.dimensions)
        check_indexable(self._dimensions(found))
        return found

    async def _plan(
        self, connection: AsyncConnection, found: Inspection, state: SchemaState, *, dry_run: bool
    ) -> Adoption:
        tables, lacking, doubts = [], [], []
        for expected in baseline.TABLES:
            table = found.tables.get(expected.name)
            if table is None:
                tables.append(AdoptedTable(expected.name, "missing", 0, 0, ""))
                continue
            read = await scan(connection, found, table)
            form = table.columns["vec"].name if table is found.vectors else "table"
            tables.append(AdoptedTable(table.name, form, read.rows, table.row.bytes, read.checksum))
            lacking += read.lacking
            doubts += read.doubts
        if lacking:
            raise AdoptionRefusedError(lacking)
        changes = transformation.statements(found, self._dimensions(found))
        if found.vectors is None and found.extension is None:
            changes.insert(0, transformation.CREATE_EXTENSION)
        changes.append(f"stamp {baseline.REVISION} in {found.schema}.{self.settings.version_table}")
        pending = _pending(found)
        return Adoption(
            found.schema,
            dry_run,
            replace(state, dimensions=self._dimensions(found)),
            tuple(tables),
            (*changes, *_left(found, state, pending)),
            tuple(transformation.kept(found)),
            (*transformation.replaced(found), *doubts),
            renames=found.vectors is not None and found.vectors.columns["vec"].name != "vec",
            pending_index=pending,
        )

    async def _underway(
        self, connection: AsyncConnection, state: SchemaState, *, dry_run: bool
    ) -> Adoption:
        """What is left to do where Alembic is there already."""
        found = await inspect(connection, self.settings.db_schema)
        if state.dimensions is None or found.vectors is None:
            raise SchemaVersionError(
                f"{self.settings.version_table} names the revision {state.current}, but there is "
                "no qortex_vectors.vec with a dimension: it was stamped by hand. Delete that row, "
                "and adopt again."
            )
        check_setting(self.settings.dimensions, state.dimensions)
        pending = _pending(found)
        # A build may have ended without its note being taken away, or a rebuild not have ended.
        if found.vectors.row.owned and await read_pending(self._vectors(found)):
            pending = _INDEX
        steps = tuple(_left(found, state, pending))
        return Adoption(found.schema, dry_run, state, steps=steps, pending_index=pending)


def _pending(found: Inspection) -> str | None:
    if found.vectors is None:
        return None  # it is made with its index
    index = found.vectors.index()
    return None if index is not None and index.valid else _INDEX


def _left(found: Inspection, state: SchemaState, pending: str | None) -> Iterator[str]:
    """What follows the transaction."""
    if not state.is_current:
        yield f"upgrade to {state.head}"
    if pending is not None:
        index = None if found.vectors is None else found.vectors.index()
        definition = transformation.index_definition(found, baseline.VECTORS)
        if index is None:
            yield definition.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)
        elif index.valid:
            yield f"finish the builds that {VIEW} notes"
        else:
            yield f"REINDEX INDEX CONCURRENTLY {_INDEX}, which an interrupted build left invalid"


def _waiting(found: Inspection) -> Index:
    definition = transformation.index_definition(found, baseline.VECTORS)
    return Index(_INDEX, definition, "", None)


async def _lock(connection: AsyncConnection, found: Inspection, mode: str) -> None:
    """Lock the tables in their order, by short tries: everybody else queues behind one."""
    statement = f"LOCK TABLE {transformation.names(found)} IN {mode} MODE"

    def lock(sync: Connection) -> None:
        try:
            with sync.begin_nested():
                sync.exec_driver_sql(statement)
        except DBAPIError as error:
            if sqlstate_of(error) not in _BUSY:
                raise
            raise BusyError(
                LockTimeoutError(
                    f"The tables were in use for more than {LOCK_SECONDS:g} s; nothing was "
                    "changed. Stop qortex and whatever else holds them (pg_locks), and try again."
                )
            ) from None

    await connection.run_sync(
        lambda sync: try_until(lambda: lock(sync), seconds=LOCK_SECONDS, pause=PAUSE_SECONDS)
    )
