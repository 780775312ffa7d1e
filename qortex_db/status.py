"""A running database at a glance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select, text, union_all

from qortex_db.engine import read_path
from qortex_db.models import Base, LearningArmState
from qortex_db.names import qualified
from qortex_db.sql import func

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.engine import Executor

EXTENSION = text("""
SELECT e.extversion, n.nspname, pg_catalog.pg_type_is_visible(t.oid)
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector'
WHERE e.extname = 'vector'
""")
_INVALID_INDEXES = text("""
SELECT c.relname FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
WHERE NOT i.indisvalid
  AND t.oid IN (
    SELECT pg_catalog.to_regclass(name)
    FROM pg_catalog.unnest(CAST(:tables AS text[])) AS ours (name))
ORDER BY c.relname
""")
_THERE = text("""
SELECT pg_catalog.to_regclass(name) IS NOT NULL
FROM pg_catalog.unnest(CAST(:tables AS text[])) WITH ORDINALITY AS wanted (name, place)
ORDER BY place
""")
TABLES: dict[str, Any] = dict(Base.metadata.tables)


def _sizes(tables: Iterable[Table], schema: str | None) -> Any:
    """Rows and bytes of each table, as one statement."""
    return union_all(
        *(
            select(
                bindparam(None, str(table.fullname)).label("name"),
                select(func.count()).select_from(table).scalar_subquery().label("rows"),
                func.pg_total_relation_size(func.to_regclass(_place(table, schema))).label("bytes"),
            )
            for table in sorted(tables, key=lambda table: table.fullname)
        )
    )


def _place(table: Table, schema: str | None) -> str:
    return qualified(table.schema or schema, table.name)


async def missing_tables(
    executor: Executor, tables: Iterable[Table], schema: str | None
) -> list[str]:
    """The names of the tables that are not there."""
    wanted = list(tables)
    rows = (await executor.run(_THERE, {"tables": [_place(t, schema) for t in wanted]})).rows
    return [table.fullname for table, (there,) in zip(wanted, rows, strict=True) if not there]


async def read_tables(
    executor: Executor, tables: Iterable[Table], schema: str | None
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Rows and bytes of tables that are there, and their invalid indexes.

    Args:
        executor: The lane of calls by themselves.
        tables: At least one.
        schema: Of those that name none, if not where the connections look.
    """
    wanted = list(tables)
    sizes = (await executor.run(_sizes(wanted, schema), {})).rows
    params = {"tables": [_place(table, schema) for table in wanted]}
    invalid = (await executor.run(_INVALID_INDEXES, params)).rows
    return (
        {name: {"rows": rows, "bytes": count} for name, rows, count in sizes},
        [row[0] for row in invalid],
    )


@dataclass(frozen=True, slots=True)
class Status:
    """A running database at a glance; the first keys are those of qortex's own status.

    Attributes:
        open_schemas: On the search_path, schemas in which others may create functions.
    """

    status: str
    vector_index: str
    interoception: dict[str, Any]
    learning: dict[str, Any]
    server_version: str
    pgvector_version: str
    embedded: bool
    dimensions: int | None
    tables: dict[str, dict[str, int]]
    invalid_indexes: list[str]
    open_schemas: list[str]
    pool: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


async def read_status(
    executor: Executor,
    engine: AsyncEngine,
    schema: str | None,
    *,
    dimensions: int | None,
    embedded: bool,
) -> Status:
    """Ask a database for its status.

    Args:
        executor: The lane of calls by themselves.
        engine: Whose pool is told of.
        schema: Of the package's tables, if not where the connections look.
        dimensions: Of the default collection.
        embedded: Whether the server is one.
    """
    run = executor.run
    tables, invalid = await read_tables(executor, TABLES.values(), schema)
    learners = select(func.count(LearningArmState.learner_name.distinct()))
    version = (await run(select(func.current_setting("server_version")), {})).rows[0][0]
    path = await read_path(engine, TABLES, schema)
    pool: Any = engine.pool
    return Status(
        status="ok",
        vector_index="PgVectorIndex",
        interoception={
            "backend": "postgres",
            "factors": tables["interoception_factors"]["rows"],
            "edges": tables["interoception_edge_buffer"]["rows"],
        },
        learning={
            "backend": "postgres",
            "learners": (await run(learners, {})).rows[0][0],
            "arms": tables["learning_arm_states"]["rows"],
        },
        server_version=version,
        pgvector_version=(await run(EXTENSION, {})).rows[0][0],
        embedded=embedded,
        dimensions=dimensions,
        tables=tables,
        invalid_indexes=invalid,
        open_schemas=[each.name for each in path.open],
        pool={
            "checked_out": pool.checkedout() if hasattr(pool, "checkedout") else 0,
            "idle": pool.checkedin() if hasattr(pool, "checkedin") else 0,
            "max": pool.size() if hasattr(pool, "size") else 0,
        },
    )
