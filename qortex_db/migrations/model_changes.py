"""The operations of a model's change, run by themselves: for who has no revisions of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.migration import MigrationContext
from alembic.operations import Operations

from qortex_db.migrations.busy_tables import migrate_patiently
from qortex_db.migrations.connection import migration_engine, migration_lock, refuse_open_schemas
from qortex_db.models import QortexVector
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from qortex_db.models.vector_spec import Metric, Quantization, Storage


async def add_embedding_column(
    name: str,
    dimensions: int,
    settings: Settings | None = None,
    *,
    table: str = QortexVector.__tablename__,
    column: str = "vec",
    old_name: str = "old",
    metric: Metric = "cosine",
    storage: Storage = "full",
    quantization: Quantization | None = None,
    document: str | None = "document",
    schema: str | None = None,
    embedded: bool = False,
) -> None:
    """What `op.add_embedding_column` does in a revision, for `qortex_vectors` by default.

    It can be run again, where its index could not be built. The other arguments are those of the
    operation.

    Args:
        name: What the new embeddings are called, and their column.
        dimensions: Of the new ones.
        settings: Which server and schema; by default the environment's.
        table: Its name.
        schema: Of the table; by default that of the settings.
        embedded: Use the embedded server, which is never started unasked.

    Raises:
        InvalidInputError: The table, or its column, is not there.
        LockTimeoutError: Another process has been migrating for too long, or a table was busy.
        UnavailableError: No server is given, or it can't be reached.
    """
    settings = settings or Settings()

    def add(op: Operations) -> None:
        op.add_embedding_column(  # type: ignore[attr-defined]
            table,
            name,
            dimensions,
            column=column,
            old_name=old_name,
            metric=metric,
            storage=storage,
            quantization=quantization,
            document=document,
            schema=schema or settings.db_schema,
            own_schema=settings.db_schema,
        )

    await _operate(settings, add, embedded=embedded)


async def drop_embedding_column(
    name: str,
    settings: Settings | None = None,
    *,
    table: str = QortexVector.__tablename__,
    schema: str | None = None,
    embedded: bool = False,
) -> None:
    """What `op.drop_embedding_column` does in a revision, for `qortex_vectors` by default.

    Args:
        name: What the embeddings are called that searches don't use.
        settings: Which server and schema; by default the environment's.
        table: Its name.
        schema: Of the table; by default that of the settings.
        embedded: Use the embedded server, which is never started unasked.

    Raises:
        InvalidInputError: Searches use them, or there are none.
        LockTimeoutError: Another process has been migrating for too long, or a table was busy.
        UnavailableError: No server is given, or it can't be reached.
    """
    settings = settings or Settings()

    def drop(op: Operations) -> None:
        op.drop_embedding_column(  # type: ignore[attr-defined]
            table, name, schema=schema or settings.db_schema, own_schema=settings.db_schema
        )

    await _operate(settings, drop, embedded=embedded)


async def _operate(
    settings: Settings, work: Callable[[Operations], None], *, embedded: bool
) -> None:
    def run(connection: Connection) -> None:
        refuse_open_schemas(connection.engine)

        def attempt() -> None:
            options = {"transaction_per_migration": True}
            context = MigrationContext.configure(connection, opts=options)
            with context.begin_transaction(_per_migration=True):
                work(Operations(context))

        migrate_patiently(connection, settings, attempt)

    async with (
        migration_engine(settings, embedded=embedded) as engine,
        migration_lock(engine, timeout_seconds=settings.migration_timeout_seconds),
        engine.connect() as connection,
    ):
        await connection.run_sync(run)
