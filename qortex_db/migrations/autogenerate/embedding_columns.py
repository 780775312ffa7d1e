"""Operations for revisions: a second column of embeddings while a table changes its model.

Importing `qortex_db.migrations` registers them as `op.add_embedding_column` and so on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import Column, MetaData, Table, bindparam, text

from qortex_db.checks import check_text
from qortex_db.errors import InvalidInputError
from qortex_db.migrations.autogenerate.building import build
from qortex_db.migrations.autogenerate.index_shapes import IndexShape
from qortex_db.migrations.changing import TRIGGER, TRIGGERS, index_names
from qortex_db.models import EmbeddingChangeover, VectorSpec, vector_index
from qortex_db.models.collection import COLLECTION
from qortex_db.names import index_name, literal, qualified
from qortex_db.repositories.vectors import table_facts
from qortex_db.sql import DIALECT, Text
from qortex_db.translation import OLD_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qortex_db.models.vector_spec import Metric, Quantization, Storage

_CHANGEOVERS: Final = EmbeddingChangeover.__tablename__
_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '2s'"
_PLACE: Final = text("""
SELECT n.nspname::text, pg_catalog.quote_ident(n.nspname::text) || '.'::text
    || pg_catalog.quote_ident(c.relname::text), ARRAY(
    SELECT a.attname::text FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  ARRAY(
    SELECT a.attname::text FROM pg_catalog.pg_index i
    JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place) ON true
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
    WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place),
  (SELECT i.reloptions FROM pg_catalog.pg_class i JOIN pg_catalog.pg_am m ON m.oid = i.relam
   WHERE i.relnamespace = c.relnamespace AND i.relname::text = :index AND m.amname = 'hnsw'),
  (SELECT pg_catalog.col_description(a.attrelid, a.attnum::int) FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = c.oid AND a.attname::text = :column)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass(:name)::oid
""").bindparams(*(bindparam(name, type_=Text) for name in ("name", "index", "column")))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a table is, and what it has; of what is not known, what is said.

    Attributes:
        named: Schema and table, as `quote_ident` has them.
        columns: None where no server is asked.
        options: Of the index of the embeddings there are.
        comment: On their column.
    """

    schema: str
    named: str
    columns: Sequence[str] | None
    key: Sequence[str]
    options: Sequence[str] = ()
    comment: str | None = None


@Operations.register_operation("add_embedding_column")
class AddEmbeddingColumnOp(MigrateOperation):
    """Give a table a column for the embeddings of another model."""

    def __init__(self, table_name: str, name: str, spec: VectorSpec, **options: Any) -> None:
        self.table_name = table_name
        self.name = name
        self.spec = spec
        self.options = options

    @classmethod
    def add_embedding_column(
        cls,
        operations: Operations,
        table_name: str,
        name: str,
        dimensions: int,
        *,
        column: str = "vec",
        old_name: str = "old",
        metric: Metric = "cosine",
        storage: Storage = "full",
        quantization: Quantization | None = None,
        document: str | None = "document",
        key: str | tuple[str, ...] | None = None,
        index: bool = True,
        schema: str | None = None,
        own_schema: str | None = None,
    ) -> None:
        """Begin a changeover: a column for the new embeddings, empty, while the table is in use.

        It builds the column's index concurrently, and one of the rows that lack an embedding. Until
        `drop_embedding_column` two triggers see to it that an embedding whose document or other
        embedding is changed without it is emptied, and that none is written without the one that
        searches use. It commits what the revision did before, so let it stand alone; one that
        failed can be run again.

        Args:
            operations: Alembic's.
            table_name: Its name, without a schema.
            name: What the new embeddings are called, and their column.
            dimensions: Of the new ones.
            column: Of the embeddings there are, of a collection's own vector.
            old_name: What those are called meanwhile.
            metric: As of `VectorSpec`, of the new ones.
            storage: Likewise, "full" or "half".
            quantization: Likewise, of their index.
            document: The column of the text; None where there is none.
            key: The columns of the key; by default the primary key, and "id" in `--sql`.
            index: False leaves the new ones' index to `create_vector_index`, as after filling,
                which is faster without.
            schema: Of the table.
            own_schema: Of the package's tables; by default where the connection finds them, and
                public in `--sql`.
        """
        for given in (table_name, name, column, old_name):
            check_text(given, name="name")
        if name in {column, old_name, "vec", ""} or old_name in {"vec", ""}:
            raise InvalidInputError(
                "name is to be another than old_name and column, and neither is 'vec'."
            )
        spec = VectorSpec(dimensions, metric, storage, quantization)
        if storage == "sparse":
            raise InvalidInputError("Embeddings of a model are stored full or half.")
        operations.invoke(
            cls(
                table_name,
                name,
                spec,
                column=column,
                old_name=old_name,
                document=document,
                key=(key,) if isinstance(key, str) else key,
                index=index,
                schema=schema,
                own_schema=own_schema,
            )
        )


@Operations.register_operation("drop_embedding_column")
class DropEmbeddingColumnOp(MigrateOperation):
    """Drop the embeddings of one of two models."""

    def __init__(
        self, table_name: str, name: str, schema: str | None, own_schema: str | None
    ) -> None:
        self.table_name = table_name
        self.name = name
        self.schema = schema
        self.own_schema = own_schema

    @classmethod
    def drop_embedding_column(
        cls,
        operations: Operations,
        table_name: str,
        name: str,
        *,
        schema: str | None = None,
        own_schema: str | None = None,
    ) -> None:
        """End a changeover: drop the embeddings that searches don't use.

        After the switch those are the old ones, whose column's name, and index's, the new ones then
        have: the table is as any other. Before it, they are the new ones, and all is as it was.

        Args:
            operations: Alembic's; not with `--sql`, since it looks at what there is.
            table_name: Its name, without a schema.
            name: What the embeddings are called that are dropped.
            schema: Of the table.
            own_schema: As of `add_embedding_column`.
        """
        operations.invoke(cls(table_name, name, schema, own_schema))


@Operations.implementation_for(AddEmbeddingColumnOp)
def _add(operations: Operations, op: AddEmbeddingColumnOp) -> None:
    options = op.options
    column = options["column"]
    place = _place(operations, op.table_name, options["schema"], options["key"], column)
    own = _own(operations, options["own_schema"])
    document = options["document"]
    if place.columns is not None:
        if column not in place.columns:
            raise InvalidInputError(
                f"{op.table_name} has no column {column}: say which holds its "
                "embeddings, by column=…."
            )
        document = document if document in place.columns else None
    table = qualified(place.schema, op.table_name)
    spec = op.spec
    kind = spec.type.compile(dialect=DIALECT)
    statements = [
        _LOCK_TIMEOUT,
        f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {qualified(op.name)} {kind}",
        *_triggers(op, place, own, document),
        _row(op, place.named, own),
    ]
    if place.comment is not None:
        said = literal(place.comment)
        statements.append(f"COMMENT ON COLUMN {table}.{qualified(op.name)} IS {said}")
    _execute(operations, statements)
    missing = IndexShape(
        "btree",
        ", ".join(map(qualified, place.key)),
        where=f"({qualified(column)} IS NULL) <> ({qualified(op.name)} IS NULL)",
    )
    names = index_names(op.table_name, op.name)
    shapes = {names[1]: missing}
    if options["index"]:
        shapes[names[0]] = _shape(op.table_name, op.name, spec, place.options)
    for name, shape in shapes.items():
        made = shape.index(name, op.table_name, place.schema, concurrently=True)
        build(operations, made, concurrently=True)


@Operations.implementation_for(DropEmbeddingColumnOp)
def _drop(operations: Operations, op: DropEmbeddingColumnOp) -> None:
    if operations.get_context().as_sql:
        raise InvalidInputError("drop_embedding_column looks at the database: not with --sql.")
    place = _place(operations, op.table_name, op.schema, None)
    own = _own(operations, op.own_schema)
    name = place.named
    said = (
        "SELECT *, CAST(extract(epoch FROM clock_timestamp() - switched_at) AS float8) "  # noqa: S608
        f"AS age FROM {own} WHERE table_name = :name AND ended_at IS NULL"
    )
    found = text(said).bindparams(bindparam("name", name, type_=Text))
    row = operations.get_bind().execute(found).one_or_none()
    if row is None:
        raise InvalidInputError(f"{op.table_name} has the embeddings of one model alone.")
    unused = row.old_name if row.is_switched else row.new_name
    if op.name != unused:
        raise InvalidInputError(
            f"{op.table_name} is searched by {op.name}, or has none of that name: what can be "
            f"dropped is {unused}."
        )
    if row.is_switched:  # whoever has not seen that would take the new ones for the old
        time.sleep(max(0.0, table_facts.FACTS_SECONDS - row.age))
    table, schema = qualified(place.schema, op.table_name), place.schema
    index, missing = index_names(op.table_name, row.new_name)
    function = qualified(schema, index_name(f"{TRIGGER}_{op.table_name}"))
    statements = [
        _LOCK_TIMEOUT,
        f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
        *(f"DROP TRIGGER IF EXISTS {each} ON {table}" for each in TRIGGERS),
        f"DROP FUNCTION IF EXISTS {function}()",
        f"DROP INDEX IF EXISTS {qualified(schema, missing)}",
    ]
    quoted = literal(name)
    if row.is_switched:
        kept = index_name(f"ix_{op.table_name}_{row.column_name}")
        statements += [
            f"ALTER TABLE {table} DROP COLUMN {qualified(row.column_name)}",
            (
                f"ALTER TABLE {table} RENAME COLUMN {qualified(row.new_name)} "
                f"TO {qualified(row.column_name)}"
            ),
            f"ALTER INDEX IF EXISTS {qualified(schema, index)} RENAME TO {qualified(kept)}",
            (
                f"UPDATE {own} SET ended_at = pg_catalog.now() "  # noqa: S608 - quoted
                f"WHERE table_name = {quoted}"
            ),
        ]
    else:
        statements += [
            f"ALTER TABLE {table} DROP COLUMN {qualified(row.new_name)}",
            f"DELETE FROM {own} WHERE table_name = {quoted}",  # noqa: S608 - quoted
        ]
    _execute(operations, statements)


def _shape(table: str, name: str, spec: VectorSpec, options: Sequence[str]) -> IndexShape:
    """The index of the new ones, with what the old one's has of options."""
    column: Column[Any] = Column(name, spec.type, info={COLLECTION: spec})
    shape = IndexShape.of(vector_index(Table(table, MetaData(), column), name, name="i"))
    given = (option.split("=", 1) for option in options)
    return replace(shape, options=tuple((key, int(value)) for key, value in given))


def _place(
    operations: Operations,
    table: str,
    schema: str | None,
    key: tuple[str, ...] | None,
    column: str = "",
) -> _Place:
    context = operations.get_context()
    if context.as_sql:
        place = schema or "public"
        return _Place(place, _named(place, table), None, key or ("id",))
    bind = operations.get_bind()
    translated = bind.get_execution_options().get("schema_translate_map") or {}
    name = qualified(translated.get(schema, schema), table)
    index = index_name(f"ix_{table}_{column}")
    row = bind.execute(_PLACE, {"name": name, "index": index, "column": column}).one_or_none()
    if row is None:
        raise InvalidInputError(f"There is no table {table} to give embeddings to.")
    schema, named, columns, primary, indexed, comment = row
    return _Place(schema, named, columns, key or tuple(primary) or ("id",), indexed or (), comment)


def _own(operations: Operations, schema: str | None) -> str:
    """Our own table, as SQL has it."""
    if operations.get_context().as_sql or schema is not None:
        return qualified(schema or "public", _CHANGEOVERS)
    named = {"name": _CHANGEOVERS, "index": "", "column": ""}
    row = operations.get_bind().execute(_PLACE, named).one_or_none()
    if row is None:
        raise InvalidInputError(
            f"The table {_CHANGEOVERS} is not to be seen: let the revision depend on "
            "qortex_db_0015, or say by own_schema=… where it is."
        )
    return qualified(row[0], _CHANGEOVERS)


def _triggers(op: AddEmbeddingColumnOp, place: _Place, own: str, document: str | None) -> list[str]:
    """What sees that the two embeddings of a row are of one document, whoever writes it.

    `given` tells a writer that knows of both from one that does not, by what its UPDATE names: the
    value may be the same. What is in doubt is emptied, and filled again; once searches use it, it
    is refused.
    """
    schema = place.schema
    table = qualified(schema, op.table_name)
    old, new = qualified(op.options["column"]), qualified(op.name)
    function = qualified(schema, index_name(f"{TRIGGER}_{op.table_name}"))
    first, second = TRIGGERS
    said, has_document = "false", "false"
    if document is not None:
        text_of = qualified(document)
        said = f"NEW.{text_of} IS DISTINCT FROM OLD.{text_of}"
        has_document = f"NEW.{text_of} IS NOT NULL"
    row = f"SELECT is_switched, is_closing INTO switched, closing FROM {own} "  # noqa: S608 - quoted
    row += f"WHERE table_name = {literal(place.named)}::text"
    refuse = (
        f"RAISE EXCEPTION USING ERRCODE = '{OLD_MODEL}', "
        "MESSAGE = 'the table was switched to the embeddings of another model';"
    )
    body = f"""
DECLARE
  switched boolean; closing boolean; given boolean; fills boolean;
  old_changed boolean; new_changed boolean; said_changed boolean;
BEGIN
  IF TG_NAME = '{first}'::name THEN
    PERFORM pg_catalog.set_config('{TRIGGER}.given'::text, 'on'::text, true);
    RETURN NEW;
  END IF;
  IF pg_catalog.current_setting('transaction_isolation'::text) = 'read committed'::text THEN
    {row};
  ELSE -- an older snapshot would not show a switch: locking its row does
    {row} FOR SHARE;
  END IF;
  IF TG_OP = 'INSERT'::text THEN
    IF (switched OR closing) AND NEW.{new} IS NULL AND NEW.{old} IS NOT NULL THEN {refuse} END IF;
    RETURN NEW;
  END IF;
  given := coalesce(pg_catalog.current_setting('{TRIGGER}.given'::text, true), ''::text)
    = 'on'::text;
  PERFORM pg_catalog.set_config('{TRIGGER}.given'::text, ''::text, true);
  old_changed := pg_catalog.record_image_ne(ROW(NEW.{old}), ROW(OLD.{old}));
  new_changed := pg_catalog.record_image_ne(ROW(NEW.{new}), ROW(OLD.{new}));
  said_changed := {said};
  IF (switched OR closing) IS NOT TRUE THEN
    IF (old_changed OR said_changed) AND NOT new_changed THEN NEW.{new} := NULL; END IF;
    RETURN NEW;
  END IF;
  fills := OLD.{old} IS NULL AND NEW.{new} IS NOT NULL AND {has_document} AND NOT said_changed;
  IF old_changed AND NOT fills AND (NOT (new_changed OR given)
    OR NEW.{new} IS NULL AND NEW.{old} IS NOT NULL) THEN {refuse} END IF;
  IF switched AND new_changed AND NOT old_changed THEN NEW.{old} := NULL; END IF;
  RETURN NEW;
END
"""
    return [
        (
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql "
            f"SECURITY DEFINER SET search_path = pg_catalog AS {literal(body)}"
        ),
        (
            f"CREATE OR REPLACE TRIGGER {first} BEFORE UPDATE OF {new} ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION {function}()"
        ),
        (
            f"CREATE OR REPLACE TRIGGER {second} BEFORE INSERT OR UPDATE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION {function}()"
        ),
    ]


def _row(op: AddEmbeddingColumnOp, named: str, own: str) -> str:
    spec, options = op.spec, op.options
    values: dict[str, str | None] = {
        "table_name": named,
        "column_name": options["column"],
        "old_name": options["old_name"],
        "new_name": op.name,
        "metric": spec.metric,
        "storage": spec.storage,
        "quantization": spec.quantization,
    }
    listed = ", ".join("NULL" if each is None else literal(each) for each in values.values())
    again = ", ".join(f"{name} = excluded.{name}" for name in values if name != "table_name")
    return (
        f"INSERT INTO {own} AS row ({', '.join(values)}) VALUES ({listed}) "  # noqa: S608 - quoted
        f"ON CONFLICT (table_name) DO UPDATE SET {again}, is_switched = false, "
        "is_closing = false, model = NULL, began_at = excluded.began_at, "
        "switched_at = NULL, ended_at = NULL "
        "WHERE row.ended_at IS NOT NULL"
    )


def _named(schema: str, table: str) -> str:
    """As `quote_ident` has both, which quotes only where it has to."""
    quote = DIALECT.identifier_preparer.quote
    return f"{quote(schema)}.{quote(table)}"


def _execute(operations: Operations, statements: list[str]) -> None:
    for statement in statements:
        operations.execute(statement.replace(":", r"\:"))  # no parameter
