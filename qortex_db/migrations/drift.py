"""Where a database differs from the models: both are read from the catalogue, in its own words.

The models are built beside it, as temporary tables that are rolled back. Building them in a schema
would want the right to create one, which a migrating role need not have; temporary tables want only
TEMPORARY, which every role has unless it was revoked, and lock nothing that others use. Foreign
keys stay within them, so what the models refer to is built too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import MetaData, text
from sqlalchemy.exc import DBAPIError, NoReferencedTableError
from sqlalchemy.schema import CreateTable

from qortex_db.errors import InvalidInputError, QortexDbError
from qortex_db.migrations.catalogue import Object, find, read
from qortex_db.migrations.changing import column_of, objects_of
from qortex_db.migrations.connection import migration_engine, refuse_open_schemas
from qortex_db.migrations.dimensions import MAX_HNSW_DIMENSIONS
from qortex_db.models import Base, QortexVector
from qortex_db.settings import DEFAULT_DIMENSIONS, Settings
from qortex_db.translation import translate
from qortex_db.types import Embedding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection, Table

_TEMPORARY: Final = "pg_temp"
_NOTHING: Final = Object(None)
_UNLOGGED: Final = Object("UNLOGGED")
_HELD: Final = re.compile(r"(?:\S+\.)?vector\((\d+)\)")
_PAYLOAD_INDEX: Final = re.compile(r"USING (btree|gin) \(.*\b(payload|document)\b.*\)", re.DOTALL)
_REMEDIES: Final = {
    "25006": "Connect to a primary, and without default_transaction_read_only.",
    "42501": "The role needs TEMPORARY on the database, and USAGE of what the models name.",
    "42P07": "A name is there in two schemas that refer to each other: compare them apart.",
}

# Names are printed without a schema where the path finds them: those of the live tables and of what
# they refer to, and once there are temporary tables, theirs. The extension may be off the path.
_PREPARE = text("""
SELECT set_config('lock_timeout', '4s', true), set_config('search_path', concat_ws(', ',
    quote_ident(coalesce(CAST(:schema AS text), current_schema())),
    (SELECT string_agg(quote_ident(name), ', ') FROM unnest(CAST(:others AS text[])) AS o (name)),
    nullif(current_setting('search_path'), ''),
    (SELECT quote_ident(n.nspname) FROM pg_catalog.pg_extension e
     JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector')), true)
""")


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between a database and the models, in the server's words.

    Attributes:
        table: With its schema, where its model names one.
        object: As "column vec" or "comment on column vec"; "table" is the table itself.
        expected: None where the models have none.
        found: None where the database has none.
    """

    table: str
    object: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        expected, found = (
            "nothing" if words is None else " ".join(words.split())
            for words in (self.expected, self.found)
        )
        return f"{self.table}, {self.object}: expected {expected}; found {found}"


async def drift(
    settings: Settings | None = None,
    *,
    metadata: MetaData = Base.metadata,
    embedded: bool = False,
) -> list[Drift]:
    """Where a database differs from the models; it changes nothing, and blocks nobody.

    Args:
        settings: Which server and schema; by default the environment's. The schema is that of
            models that name none.
        metadata: The models; a host's too. Tables that it does not declare are not looked at.
        embedded: Use the embedded server, which is never started unasked.

    Returns:
        Table by table; empty where there is no difference.

    Raises:
        UnavailableError: No server is given, or it can't be reached.
        SchemaVersionError: pgvector, or what else the models name, is not there.
        LockTimeoutError: A table was locked exclusively for too long.
        InvalidInputError: A model refers to a table that its metadata does not declare.
        ReadOnlyError: The server is a standby.
        PermissionDeniedError: The role may not create temporary tables.
    """
    settings = settings or Settings()
    async with (
        migration_engine(settings, embedded=embedded) as engine,
        engine.connect() as connection,
    ):
        return await connection.run_sync(drift_of, settings, metadata)


def drift_of(
    connection: Connection, settings: Settings, metadata: MetaData = Base.metadata
) -> list[Drift]:
    """What `drift` does, on a connection that is not in AUTOCOMMIT; it commits nothing."""
    refuse_open_schemas(connection.engine)
    tables = list(metadata.tables.values())
    found: list[Drift] = []
    # One schema at a time: names may come again in another, and temporary tables share theirs.
    for schema in dict.fromkeys(table.schema for table in tables):
        own = [table for table in tables if table.schema == schema]
        place = schema or settings.db_schema
        others = {table.schema or settings.db_schema or "" for table in _with_referred(own)} - {""}
        savepoint = connection.begin_nested()
        try:
            oids = find(connection, place, [table.name for table in own])
            connection.execute(_PREPARE, {"schema": place, "others": sorted(others)})
            changing = [None if oid is None else column_of(connection, oid=oid) for oid in oids]
            live = _without(own, changing, read(connection, oids), found)
            found += _compare(connection, settings, own, live)
        finally:
            savepoint.rollback()
    return found


def _without(
    tables: Sequence[Table],
    changing: Sequence[str | None],
    live: Sequence[dict[str, Object]],
    found: list[Drift],
) -> list[dict[str, Object]]:
    """What there is without what tables have for the change of their model, if that is whole."""
    rest = []
    for table, column, there in zip(tables, changing, live, strict=True):
        rest.append(dict(there))
        if column is None:
            continue
        *needed, index = objects_of(table.name, column)
        found += [
            Drift(table.fullname, key, f"for the change to {column}", None)
            for key in needed
            if key not in there
        ]
        for key in (*needed, index):
            declared = key == f"column {column}" and column in table.c
            declared = declared or any(key == f"index {each.name}" for each in table.indexes)
            if not declared and "INVALID" not in (there.get(key, _NOTHING).definition or ""):
                rest[-1].pop(key, None)
    return rest


def _compare(
    connection: Connection,
    settings: Settings,
    tables: Sequence[Table],
    live: Sequence[dict[str, Object]],
) -> Iterator[Drift]:
    built = _build(connection, settings, tables, live)
    for table, expected, found in zip(tables, built, live, strict=True):
        kinds = [side["table"].definition if side else None for side in (expected, found)]
        if kinds[0] != kinds[1]:  # all the rest would follow from it
            yield Drift(table.fullname, "table", *kinds)
            continue
        for key in sorted(expected.keys() | found.keys()):
            wanted, there = expected.get(key, _NOTHING), found.get(key, _NOTHING)
            if wanted is _NOTHING and _is_payload_index(table, key, there):
                continue
            if wanted.definition != there.definition:
                yield Drift(table.fullname, key, wanted.definition, there.definition)
            if wanted.comment != there.comment and _NOTHING not in (wanted, there):
                yield Drift(table.fullname, f"comment on {key}", wanted.comment, there.comment)


def _is_payload_index(table: Table, key: str, there: Object) -> bool:
    """Whether it is what `payload_index` makes: whoever filters adds those as they need them."""
    definition = there.definition or ""
    made = _PAYLOAD_INDEX.fullmatch(definition) is not None and "INVALID" not in definition
    return made and key.startswith(f"index ix_{table.name}_payload_")


def _build(
    connection: Connection,
    settings: Settings,
    tables: Sequence[Table],
    live: Sequence[dict[str, Object]],
) -> list[dict[str, Object]]:
    """What the server says of the models once it has made them."""
    # Names that come of column flags and types are made anew.
    models = MetaData(naming_convention=tables[0].metadata.naming_convention)
    there = {table.key: found for table, found in zip(tables, live, strict=True)}
    for table in _with_referred(tables):
        copy = table.to_metadata(models)
        _fill_dimensions(copy, settings, there.get(table.key, {}))
        for index in copy.indexes:  # no transaction takes a concurrent build
            index.dialect_options["postgresql"]["concurrently"] = False
    places = [part for t in models.tables.values() for part in (t, *(c.type for c in t.columns))]
    schemas = {getattr(place, "schema", None) for place in places}  # enums have one too
    before = connection.get_execution_options().get("schema_translate_map")
    connection.execution_options(schema_translate_map=dict.fromkeys(schemas, _TEMPORARY))
    try:
        models.create_all(connection)
    except DBAPIError as error:
        failure = translate(error) or QortexDbError(type(error).__name__)
        if failure.sqlstate in _REMEDIES:
            failure = failure.retold(
                "The models could not be built beside the database, as temporary tables. "
                f"{failure} {_REMEDIES[failure.sqlstate]}"
            )
        raise failure from None
    finally:
        connection.execution_options(schema_translate_map=before)
    built = read(connection, find(connection, _TEMPORARY, [table.name for table in tables]))
    for table, expected in zip(tables, built, strict=True):
        if _is_unlogged(table, connection):
            expected["persistence"] = _UNLOGGED
    return built


def _with_referred(tables: Iterable[Table]) -> list[Table]:
    """The tables, and those that their foreign keys refer to, of whatever metadata.

    Raises:
        InvalidInputError: A foreign key names a table that is nowhere declared.
    """
    found = list(tables)
    for table in found:  # grows meanwhile
        for constraint in table.foreign_key_constraints:
            try:
                referred = constraint.referred_table
            except NoReferencedTableError as error:
                raise InvalidInputError(
                    f"{error}. Declare that table too, or refer to it by a Column."
                ) from None
            if referred not in found:
                found.append(referred)
    return found


def _fill_dimensions(table: Table, settings: Settings, found: dict[str, Object]) -> None:
    """Let an embedding that declares no dimension have the database's; an index wants one."""
    for column in table.columns:
        if not isinstance(column.type, Embedding) or column.type.dimensions is not None:
            continue
        wanted = settings.dimensions if table.name == QortexVector.__tablename__ else None
        there = found.get(f"column {column.name}", _NOTHING).definition or ""
        held = _HELD.match(there)
        dimensions = wanted or (int(held[1]) if held else None)
        indexed = any(column is part for index in table.indexes for part in index.expressions)
        if indexed and not 0 < (dimensions or 0) <= MAX_HNSW_DIMENSIONS:
            dimensions = DEFAULT_DIMENSIONS
        column.type = Embedding(dimensions)


def _is_unlogged(table: Table, connection: Connection) -> bool:
    """Whether a model has the prefix, which its copy as a temporary table can't have."""
    statement = str(CreateTable(table).compile(dialect=connection.dialect))
    return "UNLOGGED" in statement.partition("TABLE")[0]
