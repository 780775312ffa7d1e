"""A running database at a glance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    bindparam,
    case,
    cast,
    column,
    literal_column,
    select,
    text,
    union_all,
)
from sqlalchemy import table as table_clause
from sqlalchemy.dialects.postgresql import OID, REAL

from qortex_db.engine import on_primary, open_schemas
from qortex_db.models import Base, LearningArmState
from qortex_db.names import qualified
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Select, Table, TextClause
    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db.engine import Executor

EXTENSION = text("""
SELECT n.nspname::text, current_user::text, pg_catalog.pg_type_is_visible(t.oid),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE'::text)
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector'
WHERE e.extname = 'vector'
""")
_VERSION = text("""
SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'
""")
_INVALID_INDEXES = text("""
SELECT CAST(c.relname AS text) AS name FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
WHERE NOT i.indisvalid
  AND t.oid IN (
    SELECT pg_catalog.to_regclass(name)::oid
    FROM pg_catalog.unnest(CAST(:tables AS text[])) AS ours (name))
ORDER BY c.relname
""")
_THERE = text("""
SELECT pg_catalog.to_regclass(name) IS NOT NULL
FROM pg_catalog.unnest(CAST(:tables AS text[])) WITH ORDINALITY AS wanted (name, place)
ORDER BY place
""")
TABLES: dict[str, Any] = dict(Base.metadata.tables)
_CLASSES: Final = table_clause(
    "pg_class", column("oid", OID), column("reltuples", REAL()), schema="pg_catalog"
)
ESTIMATED_ROWS: Final = 1_000_000
"""A table that the planner takes to have more rows is not counted: that would read all of it."""


def _sizes(
    tables: Iterable[Table], schema: str | None, *also: Any, exact: bool = False
) -> Select[Any]:
    """Rows and bytes of each table, and the invalid indexes of all, as one statement.

    Args:
        also: Scalars that each row has besides.
        exact: Whether large tables are counted too.
    """
    ordered = sorted(tables, key=lambda table: table.fullname)
    sizes = union_all(*(_size(table, schema, exact=exact) for table in ordered))
    return on_primary(select(*sizes.subquery("_sizes").c, _all_of(_INVALID_INDEXES), *also))  # type: ignore[no-any-return]


def _size(table: Table, schema: str | None, *, exact: bool) -> Select[Any]:
    place = func.to_regclass(_place(table, schema))
    counted: Any = select(func.count()).select_from(table).scalar_subquery()
    is_estimate: Any = literal_column("false", Boolean)
    if not exact:
        estimate = _estimate(place)
        is_estimate = func.coalesce(
            estimate > literal_column(f"{ESTIMATED_ROWS}::real", REAL()), False
        )
        # A count that is not needed is not made: it is no part of the rest.
        counted = case((is_estimate, cast(estimate, BigInteger)), else_=counted)
    return select(
        bindparam(None, str(table.fullname)).label("name"),
        counted.label("rows"),
        func.pg_total_relation_size(place).label("bytes"),
        is_estimate.label("is_estimate"),
    )


def _estimate(place: Any) -> ColumnElement[float]:
    """What the planner takes a table to have, as ANALYZE left it; less than 0 where it did not."""
    found: ColumnElement[float] = (
        select(_CLASSES.c.reltuples).where(_CLASSES.c.oid == cast(place, OID)).scalar_subquery()
    )
    return found


def _all_of(query: TextClause) -> ColumnElement[Any]:
    """The names that a query gives, as an array."""
    rows = query.columns(column("name", Text)).subquery()
    return func.array(select(rows.c.name).scalar_subquery(), type_=ARRAY(Text))


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
    executor: Executor, tables: Iterable[Table], schema: str | None, *, exact: bool = False
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Rows and bytes of tables that are there, and their invalid indexes.

    Args:
        executor: The lane of calls by themselves.
        tables: At least one.
        schema: Of those that name none, if not where the connections look.
        exact: Whether large tables are counted too.
    """
    wanted = list(tables)
    statement = _sizes(wanted, schema, exact=exact)
    return _tables_of((await executor.run(statement, _places(wanted, schema))).rows)


def _places(tables: Iterable[Table], schema: str | None) -> dict[str, Any]:
    return {"tables": [_place(table, schema) for table in tables]}


def _tables_of(rows: Sequence[Sequence[Any]]) -> tuple[dict[str, dict[str, int]], list[str]]:
    sizes = {
        name: {"rows": count, "bytes": size, "is_estimate": is_estimate}
        for name, count, size, is_estimate, *_ in rows
    }
    return sizes, rows[0][4]


@dataclass(frozen=True, slots=True)
class Status:
    """A running database at a glance; the first keys are those of qortex's own status.

    Attributes:
        tables: Of each the rows, the bytes with its indexes, and whether the rows are the planner's
            estimate, as those of large tables are unless `exact`.
        replicas: Of each its name, whether it answers, how many transactions it is behind, those
            that are open on the primary among them, how many reads it answered, and how many it
            left to others since it was behind what their callers wrote.
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
    replicas: list[dict[str, Any]]

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
    replicas: list[dict[str, Any]],
    exact: bool = False,
) -> Status:
    """Ask a database for its status.

    Args:
        executor: The lane of calls by themselves.
        engine: Whose pool is told of.
        schema: Of the package's tables, if not where the connections look.
        dimensions: Of the default collection.
        embedded: Whether the server is one.
        replicas: What is to be told of each.
        exact: Whether large tables are counted too.
    """
    wanted = list(TABLES.values())
    arms = LearningArmState.__table__
    learners: Any = select(func.count(arms.c.learner_name.distinct())).select_from(arms)
    statement = _sizes(
        wanted,
        schema,
        learners.scalar_subquery(),
        func.current_setting("server_version"),
        _VERSION.columns(column("extversion", Text)).scalar_subquery(),
        _all_of(text(open_schemas("names", "place"))),
        exact=exact,
    )
    params = {**_places(wanted, schema), "names": list(TABLES), "place": schema}
    rows = (await executor.run(statement, params)).rows
    tables, invalid = _tables_of(rows)
    learners, version, extension, others = rows[0][5:]
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
            "learners": learners,
            "arms": tables["learning_arm_states"]["rows"],
        },
        server_version=version,
        pgvector_version=extension,
        embedded=embedded,
        dimensions=dimensions,
        tables=tables,
        invalid_indexes=invalid,
        open_schemas=others,
        pool={
            "checked_out": pool.checkedout() if hasattr(pool, "checkedout") else 0,
            "idle": pool.checkedin() if hasattr(pool, "checkedin") else 0,
            "max": pool.size() if hasattr(pool, "size") else 0,
        },
        replicas=replicas,
    )
