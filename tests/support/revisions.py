"""What autogenerate writes of models, and runs of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from alembic.autogenerate import api
from alembic.autogenerate.render import _render_cmd_body
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection, MetaData


class Revision:
    """What autogenerate writes, as text that can be run."""

    def __init__(self, script: Any, context: api.AutogenContext) -> None:
        self.upgrade = _render_cmd_body(script.upgrade_ops, context)
        self.downgrade = _render_cmd_body(script.downgrade_ops, context)
        self.imports = sorted(context.imports)
        self.differences = script.upgrade_ops.as_diffs()

    @property
    def lines(self) -> list[str]:
        return [line for line in self.upgrade.splitlines() if line.startswith("op.")]

    def run(self, body: str, connection: Connection, **options: Any) -> None:
        context = MigrationContext.configure(connection, opts=options)
        with Operations.context(context) as operations, context.begin_transaction():
            code = "\n".join(["import sqlalchemy as sa", *self.imports, body])
            exec(code, {"op": operations})  # noqa: S102 - what was just written


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def autogenerate(dsn: str, metadata: MetaData, **options: Any) -> Revision:
    def run(connection: Connection) -> Revision:
        context = MigrationContext.configure(connection, opts=options)
        script = api.produce_migrations(context, metadata)
        # Rendered as a revision is, with imports of its own.
        opts = {
            "sqlalchemy_module_prefix": "sa.",
            "alembic_module_prefix": "op.",
            "user_module_prefix": None,
            "render_item": None,
            "render_as_batch": False,
        }
        return Revision(script, api.AutogenContext(context, opts=opts | options))

    async with connected(dsn) as connection:
        return await connection.run_sync(run)


async def run(dsn: str, revision: Revision, way: str = "upgrade") -> None:
    async with connected(dsn) as connection:
        await connection.run_sync(lambda sync: revision.run(getattr(revision, way), sync))
