"""What autogenerate sees of vector and payload indexes: all of it, by the server's own words.

Alembic compares neither operator classes nor options, methods or predicates of indexes, and takes
expressions for different that are the same. So a table's declared indexes are built on an empty
temporary copy, read from the catalogue like the live ones, and rolled back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from alembic.autogenerate import comparators, renderers
from alembic.operations import ops
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex

from qortex_db import alembic_plugin
from qortex_db.errors import QortexDbError
from qortex_db.filters.payload_indexes import DECLARATION
from qortex_db.migrations.autogenerate.index_shapes import VECTOR_METHODS, IndexShape
from qortex_db.migrations.autogenerate.operations import (
    CreatePayloadIndexOp,
    CreateVectorIndexOp,
    DropPayloadIndexOp,
    DropVectorIndexOp,
)
from qortex_db.migrations.autogenerate.partitions import (
    CreatePartitionsOp,
    DropPartitionsOp,
    compare_partitions,
)
from qortex_db.migrations.changing import column_of, index_names
from qortex_db.migrations.host import include_name
from qortex_db.names import qualified
from qortex_db.translation import translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from alembic.autogenerate.api import AutogenContext
    from sqlalchemy import Connection, Index, Table

try:
    from alembic.util import DispatchPriority

    _LAST: dict[str, Any] = {"priority": DispatchPriority.LAST}
except ImportError:  # before Alembic 1.18 what is registered last comes last
    _LAST = {}

_DEFAULTS: Final = {"hnsw": {"m": "16", "ef_construction": "64"}, "ivfflat": {"lists": "100"}}
_PAYLOAD: Final = re.compile(r"\b(payload|document)\b")
_OURS: Final = (CreateVectorIndexOp, DropVectorIndexOp, CreatePayloadIndexOp, DropPayloadIndexOp)
_REGISTERED: Final = (*_OURS, CreatePartitionsOp, DropPartitionsOp)
_DROPS: Final = (ops.DropIndexOp, DropVectorIndexOp, DropPayloadIndexOp)
_OWN_TYPES: Final = ("qortex_db.types", "pgvector.sqlalchemy")
_INDEXES: Final = text("""
SELECT c.relname, a.amname, pg_get_indexdef(c.oid, 1, true), o.opcname, o.opcdefault,
       c.reloptions, pg_get_expr(i.indpred, i.indrelid, true),
       i.indisvalid AND i.indisready AND i.indnatts = 1 AND NOT i.indisunique
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am a ON a.oid = c.relam
JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = to_regclass(:name)::oid
""")


def _register(target: str) -> Callable[[Any], Any]:
    if alembic_plugin.is_set_up():
        return lambda function: function
    return comparators.dispatch_for(target, **_LAST)


@_register("table")
def compare_indexes(  # noqa: PLR0917 - Alembic's signature
    context: AutogenContext,
    changes: ops.ModifyTableOps,
    schema: str | None,
    name: str,
    found: Table | None,
    declared: Table | None,
) -> None:
    """Put our operations in the place of Alembic's, and add what it missed."""
    connection = context.connection
    if connection is None or connection.dialect.name != "postgresql":
        return
    if not include_name(name, "table", {}):
        return  # of our own tables; our own command tells
    wanted = {
        str(index.name): index
        for index in (declared.indexes if declared is not None else ())
        if is_ours(index) and _is_included(context, index, schema, name)
    }
    place = qualified(schema, name)
    live = {} if found is None else dict(_read(connection, place))
    touched = {op.column_name for op in changes.ops if isinstance(op, ops.AlterColumnOp)}
    touched |= {op.column.name for op in changes.ops if isinstance(op, ops.AddColumnOp)}
    both = {key: index for key, index in wanted.items() if key in live}
    same: set[str] = set()
    if both and found is not None:
        built = _build(connection, place, found, both.values(), touched)
        same = {key for key in both if built.get(key) == live[key]}
    dropped = {
        op.index_name
        for op in changes.ops
        if isinstance(op, ops.DropIndexOp)
        and op.index_name in live
        and _is_ours_in(live[op.index_name][0], declared if declared is not None else found)
    }
    changes.ops = [
        op
        for op in changes.ops
        if not isinstance(op, ops.CreateIndexOp | ops.DropIndexOp)
        or op.index_name not in dropped | wanted.keys()
    ]
    gone = sorted((dropped | both.keys()) - same)
    # Before a column of it changes or goes.
    changes.ops[:0] = [
        _drop(key, name, live[key][0], schema, concurrently=declared is not None) for key in gone
    ]
    for key in sorted(wanted.keys() - same):
        index = wanted[key]
        # What is in one revision with its table or column is built in its transaction: there is
        # nothing in it yet, and half of a revision could not be run again.
        fresh = found is None or not touched.isdisjoint(c.name for c in index.columns)
        changes.ops.append(creation(index, name, schema, concurrently=not fresh))


def _leave_changing(connection: Connection | None, changes: ops.ModifyTableOps) -> None:
    """Drop nothing of what a table has for the change of its model."""
    if connection is None or connection.dialect.name != "postgresql":
        return
    name = changes.table_name
    column = column_of(connection, name=qualified(changes.schema, name))
    if column is None:
        return
    indexes = index_names(name, column)
    changes.ops = [
        op
        for op in changes.ops
        if not (isinstance(op, ops.DropColumnOp) and op.column_name == column)
        and not (isinstance(op, _DROPS) and op.index_name in indexes)
    ]


def creation(
    index: Index, table: str, schema: str | None, *, concurrently: bool
) -> CreateVectorIndexOp | CreatePayloadIndexOp:
    """Our operation that builds one of our indexes, as it is declared."""
    said = index.info.get(DECLARATION)
    kind = CreateVectorIndexOp if said is None else CreatePayloadIndexOp
    shape = IndexShape.of(index)
    return kind(str(index.name), table, shape, schema=schema, concurrently=concurrently, said=said)


def _drop(
    key: str, table: str, shape: IndexShape, schema: str | None, *, concurrently: bool
) -> ops.MigrateOperation:
    kind = DropVectorIndexOp if shape.method in VECTOR_METHODS else DropPayloadIndexOp
    return kind(key, table, shape, schema=schema, concurrently=concurrently)


@_register("schema")
def arrange(context: AutogenContext, upgrade: ops.UpgradeOps, _schemas: set[str | None]) -> None:
    """Let what commits by itself come first, and import what a revision names.

    Then a revision whose build failed can be run again: the operations know what is done already.
    """
    compare_partitions(context, upgrade)
    first: list[ops.MigrateOperation] = []
    for changes in upgrade.ops:
        if not isinstance(changes, ops.ModifyTableOps):
            continue
        _leave_changing(context.connection, changes)
        # One after the other: searches are without an index for the time of one build only.
        alone: list[Any] = sorted(filter(_commits, changes.ops), key=lambda op: op.index_name)
        changes.ops = [op for op in changes.ops if not _commits(op)]
        if alone:
            first.append(ops.ModifyTableOps(changes.table_name, alone, schema=changes.schema))
    rest = [op for op in upgrade.ops if not isinstance(op, ops.OpContainer) or not op.is_empty()]
    upgrade.ops = [*first, *rest]
    for op in rest:
        if isinstance(op, ops.CreateTableOp):
            leave_out_info(op)
    modules = {type(kind).__module__ for kind in _types(upgrade)}
    imports = [name for name in _OWN_TYPES if any(module.startswith(name) for module in modules)]
    if any(isinstance(op, _REGISTERED) for op in _leaves(upgrade)):
        imports.append("qortex_db.migrations")  # which registers them, whatever env.py imports
    if imports:
        upgrade.ops.append(_Imports(imports))


def leave_out_info(created: ops.CreateTableOp) -> None:
    """Leave out of a table's operation what only models need; Alembic would render it."""
    created.info = {key: value for key, value in created.info.items() if "qortex_db" not in key}


class _Imports(ops.OpContainer):
    """Nothing to do, and no difference: it is there to be rendered, when imports are gathered."""

    def __init__(self, modules: list[str]) -> None:
        super().__init__()
        self.modules = modules

    def reverse(self) -> _Imports:
        return self


@renderers.dispatch_for(_Imports)
def _render_imports(context: AutogenContext, op: _Imports) -> list[str]:
    context.imports.update(f"import {module}" for module in op.modules)
    return []


def _commits(op: Any) -> bool:
    return isinstance(op, _OURS) and op.concurrently


def _leaves(op: Any) -> Iterator[Any]:
    for inner in getattr(op, "ops", ()):
        yield inner
        yield from _leaves(inner)


def _types(op: Any) -> Iterator[Any]:
    """The column types that an operation and its reverse name."""
    for inner in getattr(op, "ops", ()):
        yield from _types(inner)
    if isinstance(op, ops.CreateTableOp | ops.DropTableOp):
        yield from (column.type for column in op.to_table().columns)
    elif isinstance(op, ops.AddColumnOp):
        yield op.column.type
    elif isinstance(op, ops.DropColumnOp):
        yield op.to_column().type
    elif isinstance(op, ops.AlterColumnOp):
        yield from (op.modify_type, op.existing_type)


def is_ours(index: Index) -> bool:
    method = index.dialect_options["postgresql"]["using"]
    return DECLARATION in index.info or method in VECTOR_METHODS


def _is_ours_in(shape: IndexShape, table: Table | None) -> bool:
    """Whether an index that is no longer declared was one of ours."""
    if shape.method in VECTOR_METHODS:
        return True
    collection = table is not None and {"vec", "payload"} <= set(table.c.keys())
    return collection and _PAYLOAD.search(shape.on) is not None


def _is_included(context: AutogenContext, index: Index, schema: str | None, table: str) -> bool:
    name = str(index.name)
    parents: Any = {"table_name": table, "schema_name": schema}
    return context.run_name_filters(name, "index", parents) and context.run_object_filters(
        index, name, "index", reflected=False, compare_to=None
    )


def _read(connection: Connection, name: str) -> Iterator[tuple[str, tuple[IndexShape, bool]]]:
    """A table's indexes by name: what they are, and whether they are valid and nothing more."""
    for row in connection.execute(_INDEXES, {"name": name}):
        key, method, on, opclass, is_default, reloptions, where, plain = row
        options: dict[str, Any] = dict(_DEFAULTS.get(method, {}))
        options |= dict(option.split("=", 1) for option in reloptions or ())
        numbers = {key: int(value) if value.isdigit() else value for key, value in options.items()}
        named = method in VECTOR_METHODS or not is_default
        shape = IndexShape(
            method, on, opclass if named else None, tuple(sorted(numbers.items())), where
        )
        yield key, (shape, plain)


def _build(
    connection: Connection, name: str, found: Table, indexes: Iterable[Index], touched: set[str]
) -> dict[str, tuple[IndexShape, bool]]:
    """What the server says of declared indexes once it has made them, on a copy of the table."""
    savepoint = connection.begin_nested()
    try:
        copy = qualified("pg_temp", found.name)
        connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {copy} (LIKE {name})")
        for column in {c for index in indexes for c in index.columns if c.name in touched}:
            # Only what the indexes are on need be as declared.
            part = qualified(column.name)
            kind = column.type.compile(dialect=connection.dialect)
            change = (
                f"ALTER {part} DROP DEFAULT, ALTER {part} TYPE {kind} USING NULL::{kind}"
                if column.name in found.c
                else f"ADD {part} {kind}"
            )
            connection.exec_driver_sql(f"ALTER TABLE {copy} {change}")
        for index in indexes:
            shape = IndexShape.of(index).index(
                str(index.name), found.name, "pg_temp", concurrently=False
            )
            connection.execute(CreateIndex(shape))
        return dict(_read(connection, copy))
    except DBAPIError as error:
        failure = translate(error) or QortexDbError(type(error).__name__)
        raise failure.retold(
            f"The indexes that {found.name} declares could not be built on an empty temporary "
            f"copy, to be compared with what is there: {failure} The role needs TEMPORARY on the "
            "database."
        ) from None
    finally:
        savepoint.rollback()
