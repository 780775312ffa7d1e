"""How indexes are built and dropped while their table is in use; of partitions, one by one.

PostgreSQL builds none concurrently on a partitioned table. So its index is declared on it alone,
and is invalid until one on each partition, which was built concurrently, is attached.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Index, MetaData, Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, DropIndex, ExecutableDDLElement

from qortex_db.names import index_name, qualified
from qortex_db.observability import log
from qortex_db.translation import sqlstate_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.operations import Operations

_TIMEOUTS: Final = {"statement_timeout": "0", "lock_timeout": "10min"}  # older transactions end
_SHORT: Final = "SET lock_timeout = '500ms'"
_TRIES: Final = 600
_NO_LOCK: Final = "55P03"
_VALID: Final = text("""
SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = to_regclass(:name)::oid
""")
_IS_PARTITIONED: Final = text("""
SELECT relkind = 'p' FROM pg_catalog.pg_class WHERE oid = to_regclass(:name)::oid
""")
_WITHOUT: Final = text("""
SELECT n.nspname, c.relname
FROM pg_catalog.pg_inherits i
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = to_regclass(:name)::oid AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_index own
    JOIN pg_catalog.pg_inherits a ON a.inhrelid = own.indexrelid
    WHERE own.indrelid = c.oid AND a.inhparent = to_regclass(:index)::oid)
ORDER BY c.relname
""")
"""The partitions of a table that have no part of its index."""


def build(operations: Operations, index: Index, *, concurrently: bool) -> None:
    """Create an index; concurrently, what a failed attempt left INVALID is dropped first."""
    if not concurrently:
        operations.impl.create_index(index)
        return
    with _in_autocommit(operations):
        _build(operations, index)


def drop(operations: Operations, index: Index, *, concurrently: bool) -> None:
    """Drop an index; concurrently, if it is there."""
    if not concurrently:
        operations.impl.drop_index(index)
        return
    with _in_autocommit(operations):
        if _is_partitioned(operations, index):
            _for_a_moment(operations, DropIndex(_alone(index), if_exists=True))
        else:
            operations.impl.drop_index(index, if_exists=True)


def _build(operations: Operations, index: Index) -> None:
    if not _is_partitioned(operations, index):
        if operations.get_context().as_sql or _is_invalid(operations, index):
            operations.impl.drop_index(index, if_exists=True)
        began = time.monotonic()
        operations.impl.create_index(index, if_not_exists=True)
        if not operations.get_context().as_sql:
            seconds = round(time.monotonic() - began, 3)
            log.info("index_built", table=str(index.table), index=index.name, seconds=seconds)
        return
    _for_a_moment(operations, _CreateOnly(_alone(index), if_not_exists=True))
    names = {"name": _name(operations, index.table), "index": _name(operations, index)}
    for schema, partition in operations.get_bind().execute(_WITHOUT, names).all():
        table = Table(partition, MetaData(), schema=schema)
        own = _like(index, index_name(f"{index.name}_{partition}"), table, concurrently=True)
        _build(operations, own)
        _for_a_moment(operations, _AttachIndex(index, own))


def _like(index: Index, name: str | None, table: Any, *, concurrently: bool) -> Index:
    options = {**index.kwargs, "postgresql_concurrently": concurrently}
    return Index(name, *index.expressions, _table=table, **options)


def _alone(index: Index) -> Index:
    return _like(index, index.name, index.table, concurrently=False)


class _CreateOnly(CreateIndex):
    """`CREATE INDEX … ON ONLY`."""


@compiles(_CreateOnly)
def _compile_only(element: Any, compiler: Any, **options: Any) -> str:
    table = compiler.preparer.format_table(element.element.table)
    whole: str = compiler.visit_create_index(element, **options)
    return whole.replace(f" ON {table} ", f" ON ONLY {table} ", 1)


class _AttachIndex(ExecutableDDLElement):
    """`ALTER INDEX … ATTACH PARTITION`."""

    def __init__(self, index: Index, own: Index) -> None:
        self.index = index
        self.own = own


@compiles(_AttachIndex)
def _compile_attach(element: _AttachIndex, compiler: Any, **_: object) -> str:
    def name(index: Index) -> str:
        found: str = compiler._prepared_index_name(index, include_schema=True)  # noqa: SLF001
        return found

    return f"ALTER INDEX {name(element.index)} ATTACH PARTITION {name(element.own)}"


def _for_a_moment(operations: Operations, change: ExecutableDDLElement) -> None:
    """What others wait behind while it waits: by short waits, again and again."""
    operations.execute(_SHORT)
    for left in reversed(range(_TRIES)):
        try:
            operations.execute(change)
            break
        except DBAPIError as error:
            if sqlstate_of(error) != _NO_LOCK or not left:
                raise
        operations.execute("SELECT pg_catalog.pg_sleep(0.5)")
    operations.execute(f"SET lock_timeout = '{_TIMEOUTS['lock_timeout']}'")


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
    names = {"name": _name(operations, index)}
    return operations.get_bind().scalar(_VALID, names) is False


def _is_partitioned(operations: Operations, index: Index) -> bool:
    """Whether its table is; of a script of SQL nobody knows."""
    if operations.get_context().as_sql:
        return False
    names = {"name": _name(operations, index.table)}
    return operations.get_bind().scalar(_IS_PARTITIONED, names) is True


def _name(operations: Operations, what: Any) -> str:
    """A table's or an index's, as `to_regclass` takes it."""
    table: Any = what.table if isinstance(what, Index) else what
    translated = operations.get_bind().get_execution_options().get("schema_translate_map") or {}
    return qualified(translated.get(table.schema, table.schema), str(what.name))
