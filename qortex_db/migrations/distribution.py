"""How Citus has the tables: on one node, or each table's rows on several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from sqlalchemy import text

from qortex_db.checks import check_choice, check_whole
from qortex_db.errors import InvalidInputError, SchemaVersionError
from qortex_db.migrations.connection import isolated, migration_engine
from qortex_db.migrations.on_citus import has_citus
from qortex_db.models import (
    CachedEmbedding,
    InteroceptionEdge,
    InteroceptionFactor,
    LearningArmState,
    LearningContext,
    LearningEvent,
    QortexVector,
)
from qortex_db.models.collection import collection_of
from qortex_db.models.mapping import collection_table
from qortex_db.names import literal, qualified
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

By: TypeAlias = Literal["key", "tenant", "schema"]
"""By each row's key, by its namespace, or a schema as a whole on one node."""

DEFAULT_SHARDS: Final = 32
MAX_SHARDS: Final = 64_000

_BY_KEY: Final[Mapping[type, str]] = {
    QortexVector: "id",
    InteroceptionFactor: "node_id",
    InteroceptionEdge: "src_id",
    LearningArmState: "context_hash",
    LearningContext: "context_hash",
    LearningEvent: "context_hash",
    CachedEmbedding: "text_hash",
}
"""The column by whose hash each table's rows are spread; what is not here stays on the coordinator:
idempotency keys, checkpoints, counted words, and how far changes of models are."""

_KNOWN: Final = text("""
SELECT pg_catalog.column_to_column_name(logicalrelid, partkey) FROM pg_catalog.pg_dist_partition
WHERE logicalrelid::oid = pg_catalog.to_regclass(CAST(:table_name AS text))::oid
""")
_SCHEMA_IS_KNOWN: Final = text("""
SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_schema
  WHERE schemaid::oid = pg_catalog.to_regnamespace(CAST(:schema AS text))::oid)
""")
_IS_THERE: Final = text("SELECT pg_catalog.to_regclass(CAST(:table_name AS text)) IS NOT NULL")


@dataclass(frozen=True, slots=True)
class _Spread:
    """A table, by its name as SQL has it, and the column that its rows are spread by."""

    table: str
    column: str
    beside: str | None = None

    def statement(self, shards: int) -> str:
        where = f"shard_count := {shards}"
        if self.beside is not None:
            where = f"colocate_with := {literal(self.beside)}"
        name, column = literal(self.table), literal(self.column)
        return f"SELECT create_distributed_table({name}, {column}, {where})"


async def distribute(
    settings: Settings | None = None,
    *,
    by: By = "key",
    shards: int = DEFAULT_SHARDS,
    collections: Iterable[type] = (),
    embedded: bool = False,
) -> list[str]:
    """Have Citus spread the tables over its nodes; what it has spread already is left alone.

    It copies the rows, and holds up writers of a table while it does. Run it as the tables' owner.

    Args:
        settings: Which server, the coordinator, and which schema; by default the environment's.
        by: "key" spreads rows by their keys; "tenant" those of the collections given, by their
            namespaces, which have to be in their keys; "schema" puts the schema of the settings on
            one node, with all that is in it.
        shards: Into how many parts each table is cut: by key or tenant.
        collections: Further models whose tables are spread.
        embedded: Use the embedded server, which is never started unasked.

    Returns:
        The statements that were run; none where all is done.

    Raises:
        InvalidInputError: The database has no Citus, or the arguments don't go together; or a
            table is spread by another column.
        SchemaVersionError: A table is not there.
    """
    settings = settings or Settings()
    models = list(collections)

    def spread(connection: Connection) -> list[str]:
        if not has_citus(connection):
            raise InvalidInputError("This database has no Citus: CREATE EXTENSION citus first.")
        own, _ = isolated(connection, settings)
        wanted = _wanted(own, by, shards, models)
        done = []
        for statement in _undone(connection, wanted, own, shards):
            connection.exec_driver_sql(statement)
            done.append(statement)
        connection.commit()
        return done

    _wanted(settings, by, shards, models)  # refused before anything connects
    async with (
        migration_engine(settings, embedded=embedded) as engine,
        engine.connect() as connection,
    ):
        return await connection.run_sync(spread)


def distribution_sql(
    settings: Settings | None = None,
    *,
    by: By = "key",
    shards: int = DEFAULT_SHARDS,
    collections: Iterable[type] = (),
) -> str:
    """The SQL of `distribute`, for an administrator to read and run.

    Args:
        settings: As of :func:`distribute`; without a schema, the tables are public's.
        by: As of :func:`distribute`.
        shards: As of :func:`distribute`.
        collections: As of :func:`distribute`.

    Raises:
        InvalidInputError: The tables can't be distributed in this way.
    """
    settings = settings or Settings()
    wanted = _wanted(settings, by, shards, list(collections))
    if isinstance(wanted, str):
        return f"{wanted};\n"
    statements = (each.statement(shards) for each in wanted)
    return "".join(f"{statement};\n" for statement in statements)


def _wanted(
    settings: Settings, by: object, shards: object, models: Sequence[type]
) -> list[_Spread] | str:
    """What is spread, or the statement that puts a schema on one node."""
    check_choice(by, get_args(By), name="by")
    check_whole(shards, 1, MAX_SHARDS, name="shards")
    if by == "schema":
        if settings.db_schema is None or models:
            raise InvalidInputError(
                "By schema, all of a schema goes to one node: name it by QORTEX_DB_SCHEMA or "
                "--schema, and no collections."
            )
        return f"SELECT citus_schema_distribute({literal(qualified(settings.db_schema))})"
    if by == "tenant":
        if not models:
            raise InvalidInputError("By tenant, name the collections that have namespaces.")
        return [_by_namespace(settings, model) for model in models]
    return [*_ours(settings), *(_by_key(settings, model) for model in models)]


def _ours(settings: Settings) -> Iterator[_Spread]:
    arms = qualified(settings.db_schema, LearningArmState.__tablename__)
    for model, column in _BY_KEY.items():
        name = qualified(settings.db_schema, model.__tablename__)  # type: ignore[attr-defined]
        # What a statement has beside an arm is on that arm's node.
        beside = arms if column == "context_hash" and name != arms else None
        yield _Spread(name, column, beside)


def _by_key(settings: Settings, model: type) -> _Spread:
    table = collection_table(model, None)
    keys = [column.name for column in table.primary_key]
    if len(keys) != 1:
        raise InvalidInputError(
            f"{table.name} has the key ({', '.join(keys)}), and is spread by one column: "
            "distribute it yourself, by one of these."
        )
    return _Spread(qualified(table.schema or settings.db_schema, table.name), keys[0])


def _by_namespace(settings: Settings, model: type) -> _Spread:
    table = collection_table(model, None)
    collection = collection_of(table)
    if collection.namespace is None or not collection.namespace_in_key:
        raise InvalidInputError(
            f"{table.name} has no namespace in its key: declare Collection(…, namespace=…, "
            "namespace_in_key=True), for Citus has rows by a column of their key alone."
        )
    name = qualified(table.schema or settings.db_schema, table.name)
    return _Spread(name, table.c[collection.namespace].name)


def _undone(
    connection: Connection, wanted: list[_Spread] | str, settings: Settings, shards: int
) -> Iterator[str]:
    if isinstance(wanted, str):
        if not connection.scalar(_SCHEMA_IS_KNOWN, {"schema": qualified(settings.db_schema or "")}):
            yield wanted
        return
    for each in wanted:
        named = {"table_name": each.table}
        if not connection.scalar(_IS_THERE, named):
            raise SchemaVersionError(f"There is no table {each.table}: run `qortex-db upgrade`.")
        known = connection.execute(_KNOWN, named).all()
        if not known:
            yield each.statement(shards)
        elif known[0][0] != each.column:
            raise InvalidInputError(
                f"Citus has {each.table} by {known[0][0] or 'no column'} and not by {each.column}: "
                "SELECT undistribute_table(…) first."
            )
