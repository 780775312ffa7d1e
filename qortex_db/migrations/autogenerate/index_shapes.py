"""Indexes in SQL, and how they are built and dropped while their table is in use."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Index, MetaData, Table, Text, text
from sqlalchemy.dialects import postgresql

from qortex_db.filters import payload_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.operations import Operations

    from qortex_db.filters import Kind

VECTOR_METHODS: Final = ("hnsw", "ivfflat")
_VALID: Final = text("""
SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = to_regclass(
    coalesce(quote_ident(CAST(:schema AS text)) || '.', '') || quote_ident(:name))::oid
""")
_TIMEOUTS: Final = {"statement_timeout": "0", "lock_timeout": "10min"}  # older transactions end


@dataclass(frozen=True, slots=True)
class IndexShape:
    """What an index is, in SQL.

    Attributes:
        method: As "hnsw".
        on: A column, or an expression in parentheses.
        opclass: None for the type's default.
        options: What stands in WITH, by name.
        where: None for every row.
    """

    method: str
    on: str
    opclass: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    where: str | None = None

    @classmethod
    def of(cls, index: Index) -> IndexShape:
        """What a declared index is."""
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        compiler = dialect.statement_compiler(dialect, None)
        said = index.dialect_options["postgresql"]
        part: Any = next(iter(index.expressions))
        where = said["where"]
        return cls(
            said["using"] or "btree",
            compiler.process(part.self_group(), include_table=False, literal_binds=True),
            said["ops"].get(part.key) if getattr(part, "key", None) else None,
            tuple(sorted(said["with"].items())),
            where
            if where is None or isinstance(where, str)
            else compiler.process(where, include_table=False, literal_binds=True),
        )

    def index(self, name: str, table: str, schema: str | None, *, concurrently: bool) -> Index:
        """It as an index of a table of which nothing else need be known."""
        on = self.on if self.opclass is None else f"{self.on} {self.opclass}"
        return Index(
            name,
            _literal(on),
            postgresql_using=self.method,
            postgresql_with=dict(self.options),
            postgresql_where=None if self.where is None else _literal(self.where),
            postgresql_concurrently=concurrently,
            _table=Table(table, MetaData(), schema=schema),
        )


def _literal(sql: str) -> Any:
    return text(sql.replace(":", r"\:"))  # no parameter


def payload_shape(path: str, kind: Kind, language: str) -> IndexShape:
    """The index that `payload_index` declares."""
    columns = Column("payload", postgresql.JSONB), Column("document", Text)
    table = Table("t", MetaData(), *columns)
    return IndexShape.of(payload_index(table, path, kind, language=language, name="i"))


def build(operations: Operations, index: Index, *, concurrently: bool) -> None:
    """Create an index; concurrently, what a failed attempt left INVALID is dropped first."""
    if not concurrently:
        operations.impl.create_index(index)
        return
    with _in_autocommit(operations):
        if operations.get_context().as_sql or _is_invalid(operations, index):
            operations.impl.drop_index(index, if_exists=True)
        operations.impl.create_index(index, if_not_exists=True)


def drop(operations: Operations, index: Index, *, concurrently: bool) -> None:
    """Drop an index; concurrently, if it is there."""
    if not concurrently:
        operations.impl.drop_index(index)
        return
    with _in_autocommit(operations):
        operations.impl.drop_index(index, if_exists=True)


@contextmanager
def _in_autocommit(operations: Operations) -> Iterator[None]:
    """Outside of a transaction, as CONCURRENTLY wants it, and with time to wait for others'."""
    context = operations.get_context()
    with context.autocommit_block():
        before = dict.fromkeys(_TIMEOUTS, "DEFAULT")
        if not context.as_sql:
            for name in _TIMEOUTS:
                old = operations.get_bind().scalar(text(f"SHOW {name}"))
                before[name] = f"'{old}'"
        for name, value in _TIMEOUTS.items():
            operations.execute(f"SET {name} = '{value}'")
        try:
            yield
        finally:
            for name, value in before.items():
                operations.execute(f"SET {name} = {value}")


def _is_invalid(operations: Operations, index: Index) -> bool:
    bind = operations.get_bind()
    translated = bind.get_execution_options().get("schema_translate_map") or {}
    schema = None if index.table is None else index.table.schema
    schema = translated.get(schema, schema)
    return bind.scalar(_VALID, {"name": index.name, "schema": schema}) is False
