"""Operations for a host's revisions: vector and payload indexes, built while a table is in use.

Importing `qortex_db.migrations` registers them as `op.create_vector_index` and so on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations

from qortex_db.errors import InvalidInputError
from qortex_db.migrations.autogenerate.building import build, drop
from qortex_db.migrations.autogenerate.index_shapes import (
    VECTOR_METHODS,
    IndexShape,
    payload_shape,
)

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from sqlalchemy import Index

    from qortex_db.filters import Kind


class _IndexOp(MigrateOperation):
    """One of the operations on an index."""

    noun: ClassVar[str]

    def __init__(
        self,
        index_name: str,
        table_name: str,
        shape: IndexShape | None = None,
        *,
        schema: str | None = None,
        concurrently: bool = True,
        said: tuple[Any, ...] | None = None,
    ) -> None:
        self.index_name = index_name
        self.table_name = table_name
        self.shape = shape
        self.schema = schema
        self.concurrently = concurrently
        self.said = said  # path, kind and language of a payload index, where they are known

    def _as(self, other: type[_IndexOp]) -> _IndexOp:
        return other(
            self.index_name,
            self.table_name,
            self.shape,
            schema=self.schema,
            concurrently=self.concurrently,
            said=self.said,
        )

    def where(self) -> dict[str, Any]:
        """The options that a rendered operation ends with."""
        options: dict[str, Any] = {} if self.schema is None else {"schema": self.schema}
        return options if self.concurrently else options | {"concurrently": False}


class _CreateIndexOp(_IndexOp):
    def to_diff_tuple(self) -> tuple[Any, ...]:
        return (f"add_{self.noun}_index", self.index_name, self.table_name, self.shape)


class _DropIndexOp(_IndexOp):
    def to_diff_tuple(self) -> tuple[Any, ...]:
        return (f"remove_{self.noun}_index", self.index_name, self.table_name, self.shape)


@Operations.register_operation("create_vector_index")
class CreateVectorIndexOp(_CreateIndexOp):
    """Build an index on a vector."""

    noun = "vector"

    @classmethod
    def create_vector_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        on: str,
        *,
        opclass: str = "vector_cosine_ops",
        method: str = "hnsw",
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        where: str | None = None,
        schema: str | None = None,
        concurrently: bool = True,
    ) -> None:
        """Build an index on a vector, while its table is in use.

        What a failed attempt left INVALID is dropped first, so a revision can be run again. It
        commits what the revision did before: let it come first, or stand alone. Of a partitioned
        table it is built partition by partition, and a second run goes on where a first one ended.

        Args:
            operations: Alembic's.
            index_name: Its name.
            table_name: Its table, without a schema.
            on: A column, or an expression in parentheses: `"(vec::halfvec(384))"`.
            opclass: pgvector's, by type and metric.
            method: hnsw or ivfflat.
            m: Of hnsw, 16 by default.
            ef_construction: Of hnsw, 64 by default.
            lists: Of ivfflat, 100 by default.
            where: The rows that it holds, as SQL.
            schema: Of table and index.
            concurrently: False builds it in the revision's transaction, and keeps writers waiting.
        """
        if method not in VECTOR_METHODS:
            raise InvalidInputError(f"method must be one of: {', '.join(VECTOR_METHODS)}.")
        given = {"ef_construction": ef_construction, "lists": lists, "m": m}
        options = tuple((name, value) for name, value in given.items() if value is not None)
        shape = IndexShape(method, on, opclass, options, where)
        op = cls(index_name, table_name, shape, schema=schema, concurrently=concurrently)
        operations.invoke(op)

    def reverse(self) -> MigrateOperation:
        return self._as(DropVectorIndexOp)


@Operations.register_operation("drop_vector_index")
class DropVectorIndexOp(_DropIndexOp):
    """Drop an index on a vector."""

    noun = "vector"

    @classmethod
    def drop_vector_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        *,
        schema: str | None = None,
        concurrently: bool = True,
    ) -> None:
        """Drop an index on a vector, while its table is in use, if it is there."""
        operations.invoke(cls(index_name, table_name, schema=schema, concurrently=concurrently))

    def reverse(self) -> MigrateOperation:
        return self._as(CreateVectorIndexOp)


@Operations.register_operation("create_payload_index")
class CreatePayloadIndexOp(_CreateIndexOp):
    """Build an index for filters."""

    noun = "payload"

    @classmethod
    def create_payload_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        path: str = "",
        kind: Kind = "containment",
        *,
        language: str = "simple",
        on: str | None = None,
        opclass: str | None = None,
        method: str = "btree",
        where: str | None = None,
        schema: str | None = None,
        concurrently: bool = True,
    ) -> None:
        """Build an index for filters over the payload or the document, while its table is in use.

        Args:
            operations: Alembic's.
            index_name: Its name.
            table_name: Its table, without a schema.
            path: As in a filter; "" for the kinds containment and document.
            kind: As of `qortex_db.payload_index`.
            language: Of the kinds text and document.
            on: In the place of path and kind: a column, or an expression in parentheses.
            opclass: Of `on`, unless the default.
            method: Of `on`.
            where: The rows that it holds, as SQL; with `on`.
            schema: Of table and index.
            concurrently: False builds it in the revision's transaction, and keeps writers waiting.
        """
        shape = (
            payload_shape(path, kind, language)
            if on is None
            else IndexShape(method, on, opclass, (), where)
        )
        op = cls(index_name, table_name, shape, schema=schema, concurrently=concurrently)
        operations.invoke(op)

    def reverse(self) -> MigrateOperation:
        return self._as(DropPayloadIndexOp)


@Operations.register_operation("drop_payload_index")
class DropPayloadIndexOp(_DropIndexOp):
    """Drop an index for filters."""

    noun = "payload"

    @classmethod
    def drop_payload_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        *,
        schema: str | None = None,
        concurrently: bool = True,
    ) -> None:
        """Drop an index for filters, while its table is in use, if it is there."""
        operations.invoke(cls(index_name, table_name, schema=schema, concurrently=concurrently))

    def reverse(self) -> MigrateOperation:
        return self._as(CreatePayloadIndexOp)


@Operations.implementation_for(CreateVectorIndexOp)
@Operations.implementation_for(CreatePayloadIndexOp)
def _create(operations: Operations, op: _CreateIndexOp) -> None:
    assert op.shape is not None  # noqa: S101 - the operations make one
    build(operations, _index(op, op.shape), concurrently=op.concurrently)


@Operations.implementation_for(DropVectorIndexOp)
@Operations.implementation_for(DropPayloadIndexOp)
def _drop(operations: Operations, op: _DropIndexOp) -> None:
    nameless = IndexShape("btree", "nothing")  # a drop needs the name alone
    drop(operations, _index(op, nameless), concurrently=op.concurrently)


def _index(op: _IndexOp, shape: IndexShape) -> Index:
    return shape.index(op.index_name, op.table_name, op.schema, concurrently=op.concurrently)


def _render(name: str, context: AutogenContext, *values: Any, **options: Any) -> str:
    prefix = context.opts["alembic_module_prefix"]
    words = [repr(value) for value in values]
    words += [f"{key}={value!r}" for key, value in options.items()]
    return f"{prefix}{name}({', '.join(words)})"


@renderers.dispatch_for(CreateVectorIndexOp)
@renderers.dispatch_for(CreatePayloadIndexOp)
def _render_create(context: AutogenContext, op: _CreateIndexOp) -> str:
    name = f"create_{op.noun}_index"
    names: tuple[str, ...] = op.index_name, op.table_name
    if op.said is not None:
        path, kind, language = op.said
        extra = {} if language == "simple" else {"language": language}
        return _render(name, context, *names, path, kind, **extra, **op.where())
    shape = op.shape
    assert shape is not None  # noqa: S101 - autogenerate knows what it drops
    options: dict[str, Any] = {"opclass": shape.opclass} if shape.opclass else {}
    default = "hnsw" if op.noun == "vector" else "btree"
    if shape.method != default:
        options["method"] = shape.method
    if op.noun == "vector":
        options |= shape.options
    if shape.where is not None:
        options["where"] = shape.where
    on: dict[str, Any] = {}
    if op.noun == "vector":
        names += (shape.on,)
    else:
        on["on"] = shape.on
    return _render(name, context, *names, **on, **options, **op.where())


@renderers.dispatch_for(DropVectorIndexOp)
@renderers.dispatch_for(DropPayloadIndexOp)
def _render_drop(context: AutogenContext, op: _DropIndexOp) -> str:
    name = f"drop_{op.noun}_index"
    return _render(name, context, op.index_name, op.table_name, **op.where())
