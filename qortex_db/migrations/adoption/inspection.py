"""What is there of qortex's tables, and what of it is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from qortex_db.errors import NotFoundError
from qortex_db.migrations.adoption.baseline import TABLES, VECTORS, BaselineTable, Column
from qortex_db.migrations.dimensions import MAX_HNSW_DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sqlalchemy.ext.asyncio import AsyncConnection

_NAMES: Final = [table.name for table in TABLES]
_OLD_COLUMN: Final = "embedding"
_KINDS: Final = {
    "v": "a view",
    "m": "a materialized view",
    "p": "a partitioned table",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "c": "a type",
}

_SCHEMAS = text("""
SELECT DISTINCT n.nspname
FROM unnest(CAST(:names AS text[])) AS wanted (name)
JOIN pg_catalog.pg_class c
  ON c.oid = to_regclass(coalesce(quote_ident(:schema) || '.', '') || quote_ident(wanted.name))::oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1
""")
_EXTENSION = text("""
SELECT n.nspname, EXISTS (SELECT FROM pg_catalog.pg_am WHERE amname = 'hnsw'), e.extversion
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
""")
_TABLES = text("""
SELECT c.relname AS name, c.oid, CAST(c.relkind AS text) AS kind,
       pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS owned,
       has_schema_privilege(c.relowner, n.oid, 'CREATE') AS may_create,
       pg_table_size(c.oid) AS bytes, c.relforcerowsecurity AS forced,
       c.relpersistence <> 'p' AS unlogged,
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid) AS ruled,
       EXISTS (SELECT FROM pg_catalog.pg_inherits h
               WHERE c.oid IN (h.inhrelid, h.inhparent)) AS inherits
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = ANY(:names)
""")
_COLUMNS = text("""
SELECT a.attname AS name, a.attnotnull AS not_null, a.atttypmod AS typmod,
       CASE WHEN t.typname = 'vector' THEN 'vector'
            ELSE format_type(a.atttypid, a.atttypmod) END
       || CASE WHEN a.attcollation <> t.typcollation
               THEN ' COLLATE ' || CAST(CAST(a.attcollation AS regcollation) AS text)
               ELSE '' END AS type,
       pg_get_expr(d.adbin, d.adrelid) AS "default",
       a.attgenerated <> '' OR a.attidentity <> '' AS generated,
       col_description(a.attrelid, a.attnum) AS comment
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
""")
_KEY = text("""
SELECT conname AS name, pg_get_constraintdef(oid) AS definition
FROM pg_catalog.pg_constraint WHERE conrelid = :oid AND contype = 'p'
""")
_INDEXES = text("""
SELECT c.relname AS name, m.amname AS method, i.indisvalid AS valid,
       pg_get_indexdef(c.oid) AS definition,
       ARRAY(SELECT CAST(a.attname AS text) FROM unnest(i.indkey) WITH ORDINALITY k (number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
             ORDER BY k.place) AS columns,
       ARRAY(SELECT DISTINCT CAST(o.opcname AS text) FROM unnest(i.indclass) AS used (class)
             JOIN pg_catalog.pg_opclass o ON o.oid = used.class) AS classes,
       i.indpred IS NULL AND i.indexprs IS NULL AND c.reloptions IS NULL AND NOT i.indisunique
         AND i.indnatts = i.indnkeyatts
         AND NOT EXISTS (SELECT FROM unnest(i.indoption) AS used (flags) WHERE flags <> 0) AS plain
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE i.indrelid = :oid AND NOT i.indisprimary ORDER BY c.relname
""")
_KEPT = text("""
SELECT 'trigger ' || tgname FROM pg_catalog.pg_trigger WHERE tgrelid = :oid AND NOT tgisinternal
UNION ALL
SELECT 'policy ' || polname FROM pg_catalog.pg_policy WHERE polrelid = :oid
UNION ALL
SELECT 'constraint ' || conname || ' on ' || CAST(CAST(conrelid AS regclass) AS text)
FROM pg_catalog.pg_constraint
WHERE (conrelid = :oid AND contype IN ('c', 'f', 'u', 'x')) OR confrelid = :oid
UNION ALL
SELECT 'grants to ' || string_agg(DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'
                                           ELSE pg_get_userbyid(grantee) END, ', ')
FROM pg_catalog.pg_class, aclexplode(relacl)
WHERE pg_class.oid = :oid AND grantee <> relowner HAVING count(*) > 0
UNION ALL
SELECT 'its comment' WHERE obj_description(:oid, 'pg_class') IS NOT NULL
ORDER BY 1
""")
_TAKEN = text("""
SELECT c.relname, coalesce(CAST(CAST(i.indrelid AS regclass) AS text), '')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
WHERE n.nspname = :schema AND c.relname = ANY(:names) ORDER BY 1
""")


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table of qortex's, as it is."""

    expected: BaselineTable
    row: Any
    columns: dict[str, Any]  # by their names in the baseline
    key: Any | None
    indexes: list[Any]
    kept: list[str]
    differences: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name, without a schema."""
        return self.expected.name

    def index(self) -> Any | None:
        """The index that does the work of the baseline's: a valid one first, then by its name."""
        shape = self.expected.index
        if shape is None:
            return None
        columns = [self.columns[name].name for name in shape.columns if name in self.columns]
        fitting = [
            index
            for index in self.indexes
            if index.plain
            and (index.method, index.columns) == (shape.method, columns)
            and index.classes == [shape.operator_class]
        ]
        return min(fitting, key=lambda i: (not i.valid, i.name != shape.name), default=None)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is there."""

    schema: str
    extension: str | None
    tables: dict[str, FoundTable]
    differences: list[str]

    @property
    def vectors(self) -> FoundTable | None:
        """The vectors' table."""
        return self.tables.get(VECTORS.name)

    @property
    def dimensions(self) -> int | None:
        """What the embedding column holds, None where there is none or it declares nothing."""
        column = None if self.vectors is None else self.vectors.columns.get("vec")
        return column.typmod if column is not None and column.typmod > 0 else None

    @property
    def owner(self) -> str:
        """Who owns the tables."""
        return str(next(iter(self.tables.values())).row.owner)


async def inspect(connection: AsyncConnection, schema: str | None) -> Inspection:
    """Look at the tables; rows are not read.

    Raises:
        NotFoundError: There is none.
    """
    names = {"names": _NAMES}
    places = (await connection.execute(_SCHEMAS, names | {"schema": schema})).scalars().all()
    if not places:
        where = "" if schema is None else f" in the schema {schema}"
        raise NotFoundError(
            f"There is no table of qortex's{where}: nothing to adopt. `qortex-db upgrade` makes "
            "them. (A table_name other than qortex_vectors is not adopted.)"
        )
    extension = (await connection.execute(_EXTENSION)).one_or_none()
    rows = await connection.execute(_TABLES, names | {"schema": places[0]})
    by_name = {row.name: row for row in rows}
    tables = {}
    for expected in TABLES:
        if (row := by_name.get(expected.name)) is not None:
            tables[row.name] = await _table(connection, expected, row)
    differences = [line for table in tables.values() for line in table.differences]
    if len(places) > 1:
        differences.append(
            f"the tables are in the schemas {', '.join(places)}: name one by QORTEX_DB_SCHEMA, or "
            "bring them into one by ALTER TABLE … SET SCHEMA"
        )
    owners = sorted({table.row.owner for table in tables.values()})
    if len(owners) > 1:
        differences.append(
            f"the tables belong to {', '.join(owners)}: give them one owner by ALTER TABLE … OWNER"
        )
    if extension is None and VECTORS.name in tables:
        differences.append("pgvector is not installed as the extension vector")
    if extension is not None and not extension[1]:
        differences.append(f"pgvector {extension[2]} has no HNSW: ALTER EXTENSION vector UPDATE")
    found = Inspection(places[0], extension[0] if extension else None, tables, differences)
    differences.extend([line async for line in _taken(connection, found)])
    return found


async def _table(connection: AsyncConnection, expected: BaselineTable, row: Any) -> FoundTable:
    oid = {"oid": row.oid}
    columns = {column.name: column for column in await connection.execute(_COLUMNS, oid)}
    if expected is VECTORS and "vec" not in columns and _OLD_COLUMN in columns:
        columns = {"vec" if name == _OLD_COLUMN else name: c for name, c in columns.items()}
    table = FoundTable(
        expected,
        row,
        columns,
        (await connection.execute(_KEY, oid)).one_or_none(),
        list(await connection.execute(_INDEXES, oid)),
        list((await connection.execute(_KEPT, oid)).scalars()),
    )
    if row.kind != "r":
        kind = _KINDS.get(row.kind, "something else")
        table.differences.append(f"{row.name} is {kind}, not a table")
    else:
        table.differences.extend(_differences(table))
    return table


def _differences(table: FoundTable) -> Iterator[str]:
    yield from _table_differences(table.name, table.row)
    for column in table.expected.columns:
        yield from _column_differences(table, column)
    known = {column.name for column in table.expected.columns}
    columns = ", ".join(table.expected.key)
    for extra in [column for column in table.columns if column not in known]:
        yield (
            f"{table.name}.{extra} is not qortex's: move it to a table of your own that refers to "
            f"{columns}"
        )
    key = f"PRIMARY KEY ({columns})"
    if table.key is None:
        yield f"{table.name} has no primary key, not {key}"
    elif table.key.definition != key:
        yield f"{table.name} has {table.key.definition}, not {key}"


def _table_differences(name: str, row: Any) -> Iterator[str]:
    if not row.owned:
        yield f"{name} belongs to {row.owner}: connect as that role, or as a member of it"
    if not row.may_create:
        yield f"{name}'s owner {row.owner} may not create in its schema: GRANT CREATE ON SCHEMA"
    if row.inherits:
        yield f"{name} is part of an inheritance or a partition"
    if row.unlogged:
        yield f"{name} is unlogged, which a crash empties: ALTER TABLE … SET LOGGED"
    if row.ruled:
        yield f"{name} has rules, which upserts can't go through"
    if row.forced:
        yield f"{name} forces row level security on its owner, which hides rows"


def _column_differences(table: FoundTable, column: Column) -> Iterator[str]:
    found = table.columns.get(column.name)
    if found is None:
        if not column.optional:
            also = f" (nor {_OLD_COLUMN})" if column.type == "vector" else ""
            yield f"{table.name}.{column.name} is missing{also}"
        return
    name = f"{table.name}.{found.name}"
    if found.type != column.type:
        yield f"{name} is {found.type}, not {column.type}"
    elif found.generated:
        yield f"{name} is generated"
    elif column.type == "vector":
        yield from _vector_differences(name, found.typmod)


def _vector_differences(name: str, dimensions: int) -> Iterator[str]:
    if dimensions < 1:
        yield f"{name} declares no dimension: ALTER COLUMN … TYPE vector(N) with what it holds"
    elif dimensions > MAX_HNSW_DIMENSIONS:
        yield (
            f"{name} holds {dimensions} dimensions, and an HNSW index on a vector column at most "
            f"{MAX_HNSW_DIMENSIONS:,}: keep them in a table of your own with halfvec"
        )


async def _taken(connection: AsyncConnection, found: Inspection) -> Any:
    """Names that the baseline needs and something else has."""
    free: dict[str, str | None] = {}
    for expected in TABLES:
        table = found.tables.get(expected.name)
        free[expected.key_name] = table.key.name if table is not None and table.key else None
        if expected.index is not None:
            index = None if table is None else table.index()
            free[expected.index.name] = None if index is None else index.name
    given = {"schema": found.schema, "names": list(free)}
    for name, on in await connection.execute(_TAKEN, given):
        if free[name] != name:
            where = f", an index on {on}" if on else ""
            yield f"the name {name} is taken{where}: rename what has it"
