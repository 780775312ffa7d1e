"""What is known of a table, by its catalog: looked up once in a while, for each engine."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from qortex_db.engine import on_primary
from qortex_db.errors import UPGRADE_HINT, SchemaVersionError
from qortex_db.models.changing import Changeover
from qortex_db.names import own_tables, qualified
from qortex_db.repositories.vectors.following import NO_COLUMN
from qortex_db.repositories.vectors.statements.changeover_rows import CHANGEOVERS, changeover_of

if TYPE_CHECKING:
    from sqlalchemy import Table

    from qortex_db.engine import Executor

FACTS_SECONDS: Final = 10.0
"""How long a table is taken to be what it was: after that it is looked up again."""
CHANGEOVER_SECONDS: Final = 1.0
"""The same, while it has the embeddings of two models."""

_FACTS: Final = text("""
SELECT a.atttypmod, a.attnotnull, c.relkind = 'p'::"char" OR c.relam = (
  SELECT m.oid FROM pg_catalog.pg_am m WHERE m.amname = 'heap'::name),
  pg_catalog.pg_get_partkeydef(c.oid), parts.count,
  CASE WHEN c.relkind = 'p'::"char" THEN parts.rows ELSE c.reltuples::float8 END,
  (SELECT CASE WHEN pg_catalog.has_table_privilege(r.name::oid, 'SELECT'::text)
     THEN pg_catalog.pg_relation_size(r.name, 'main'::text) > 0::bigint END
   FROM (SELECT pg_catalog.to_regclass(CAST(:changeovers AS text)) AS name) r)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
CROSS JOIN LATERAL (
  SELECT pg_catalog.count(*) AS count,
    coalesce(pg_catalog.sum(pg_catalog.float8larger(part.reltuples::float8, 0.0::float8)),
      -1.0::float8) AS rows
  FROM pg_catalog.pg_class part WHERE part.relkind <> 'p'::"char" AND part.oid = ANY (ARRAY(
    SELECT tree.relid::oid FROM pg_catalog.pg_partition_tree(c.oid::regclass) tree))
) parts
WHERE c.oid = pg_catalog.to_regclass(CAST(:table_name AS text))::oid
  AND a.attname = CAST(:column_name AS text)
""")

# By hash its rows lie on several nodes. What the coordinator has itself are empty shells.
DISTRIBUTED: Final = text("""
SELECT pg_catalog.column_to_column_name(p.logicalrelid, p.partkey),
  CASE WHEN CAST(:sized AS boolean)
    THEN pg_catalog.citus_table_size(p.logicalrelid)::float8 / 500.0::float8 ELSE -1.0::float8 END
FROM pg_catalog.pg_dist_partition p WHERE p.partmethod = 'h'::"char"
  AND p.logicalrelid::oid = pg_catalog.to_regclass(CAST(:table_name AS text))::oid
""")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TableFacts:
    """What an embedding column declares, one object for each of an engine's.

    Attributes:
        dimensions: None where it takes any.
        is_nullable: Whether a row may have none.
        has_pages: Whether its rows have places in pages, as a view's have not.
        partition_key: As "HASH (id)", where the pages are those of other tables; else None.
        partitions: How many these are.
        rows: How many the planner took it to have when this was looked up; -1 where unknown.
        changeover: Of the model of its embeddings, if there is or was one.
        distributed_by: By which column Citus has its rows on several nodes, if it does; how many
            there are, is then told by their size.
    """

    dimensions: int | None
    is_nullable: bool
    has_pages: bool
    partition_key: str | None
    partitions: int
    rows: float
    changeover: Changeover | None = None
    distributed_by: str | None = None

    def says_the_same(self, other: TableFacts) -> bool:
        """Whether nothing but the number of rows may differ."""
        return astuple(replace(self, rows=other.rows)) == astuple(other)


async def look_up(
    executor: Executor,
    table: Table,
    column: str,
    *,
    declared: int | None,
    in_changeover: bool,
    follows: bool,
) -> TableFacts:
    """Ask the server.

    Args:
        column: Of embeddings, by its own name.
        declared: Its dimensions, where the column itself says none.
        in_changeover: Whether the table is taken as it is in a changeover.
        follows: Whether one is to be found.

    Raises:
        SchemaVersionError: There is no such table.
    """
    name = qualified(executor.schema_of(table.schema), table.name)
    changeovers = qualified(executor.schema_of(CHANGEOVERS.schema), CHANGEOVERS.name)
    params = {"table_name": name, "column_name": column, "changeovers": changeovers}
    rows = (await executor.run(_FACTS, params)).rows
    if not rows:
        remedy = (
            UPGRADE_HINT
            if table.name in own_tables
            else f"write a migration that creates it: CREATE TABLE {name} (id text PRIMARY "
            f"KEY, {column} vector(384))"
        )
        raise SchemaVersionError(
            f"There is no table {name} with a column {column} here: {remedy}.",
            # Of a table that has ended its changeover meanwhile, it is the column's.
            sqlstate=NO_COLUMN if in_changeover else "42P01",
        )
    size, not_null, has_pages, partition_key, partitions, count, had_changeovers = rows[0]
    changeover = None
    if had_changeovers and follows:
        changeover = await _changeover(executor, name, column)
    distributed_by = None
    if await executor.on_citus():
        # Sizes are not told in a transaction that has written.
        asked = {"table_name": name, "sized": executor.commits}
        told = (await executor.run(DISTRIBUTED, asked)).rows
        distributed_by, count = told[0] if told else (None, count)
    places = has_pages, partition_key, partitions, count
    dimensions = declared if size < 0 else size
    return TableFacts(dimensions, not not_null, *places, changeover, distributed_by)


async def _changeover(executor: Executor, name: str, column: str) -> Changeover | None:
    """Of this vector of the table, if there is or was one."""
    rows = (await executor.run(on_primary(changeover_of()), {"relation": name})).rows
    if not rows or rows[0][0] != column:
        return None
    column, old, new, size, *others = rows[0]
    return Changeover(column, old, new, size if size > 0 else None, *others)
