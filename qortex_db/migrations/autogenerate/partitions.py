"""Operations for a host's revisions: the partitions of a table; and what autogenerate sees of them.

Alembic takes partitions for tables that nobody declares, and would drop them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations, ops
from sqlalchemy import MetaData, Table, text
from sqlalchemy.schema import DropTable

from qortex_db.models.collection import COLLECTION
from qortex_db.models.partitions import CreatePartition, Partitions, partition_of
from qortex_db.names import index_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from alembic.autogenerate.api import AutogenContext

_LIVE: Final = text("""
SELECT nullif(pn.nspname, current_schema()), p.relname, nullif(n.nspname, current_schema()),
       c.relname
FROM pg_catalog.pg_class p
JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
LEFT JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid
LEFT JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.relkind = 'p'
""")
"""All partitioned tables, with each of their partitions."""

_Place: TypeAlias = tuple[str | None, str]
"""A table's schema, None for the default one, and its name."""


class _PartitionsOp(MigrateOperation):
    """One of the operations on partitions."""

    def __init__(
        self, table_name: str, partitions: Partitions, *, schema: str | None = None
    ) -> None:
        self.table_name = table_name
        self.partitions = partitions
        self.schema = schema

    @property
    def table(self) -> Table:
        return Table(self.table_name, MetaData(), schema=self.schema)

    def render(self, name: str, context: AutogenContext) -> str:
        said = self.partitions
        values = None if said.values is None else {k: list(v) for k, v in said.values.items()}
        given = {
            "modulus": said.modulus,
            "values": values,
            "default": said.default,
            "schema": self.schema,
        }
        words = [f"{key}={value!r}" for key, value in given.items() if value is not None]
        prefix = context.opts["alembic_module_prefix"]
        return f"{prefix}{name}({', '.join([repr(self.table_name), *words])})"


@Operations.register_operation("create_partitions")
class CreatePartitionsOp(_PartitionsOp):
    """Make the partitions of a table."""

    @classmethod
    def create_partitions(
        cls,
        operations: Operations,
        table_name: str,
        *,
        modulus: int | None = None,
        values: Mapping[str, Sequence[str | int]] | None = None,
        default: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Make the partitions of a table that was created with `postgresql_partition_by`.

        Each gets the indexes that its table has. It needs the table for a moment, to itself.

        Args:
            operations: Alembic's.
            table_name: The partitioned table, without a schema; a partition is called after it:
                `notes_0`, `notes_acme`.
            modulus: How many, by hash.
            values: By list: what each is called, and its values.
            default: What the one for all other values is called.
            schema: Of both.
        """
        said = Partitions(modulus, values=values, default=default)
        operations.invoke(cls(table_name, said, schema=schema))

    def reverse(self) -> MigrateOperation:
        return DropPartitionsOp(self.table_name, self.partitions, schema=self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_partitions", self.table_name, self.partitions)


@Operations.register_operation("drop_partitions")
class DropPartitionsOp(_PartitionsOp):
    """Drop partitions of a table, with their rows."""

    @classmethod
    def drop_partitions(
        cls,
        operations: Operations,
        table_name: str,
        *,
        modulus: int | None = None,
        values: Mapping[str, Sequence[str | int]] | None = None,
        default: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Drop what `create_partitions` makes of the same arguments, with the rows in it."""
        said = Partitions(modulus, values=values, default=default)
        operations.invoke(cls(table_name, said, schema=schema))

    def reverse(self) -> MigrateOperation:
        return CreatePartitionsOp(self.table_name, self.partitions, schema=self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_partitions", self.table_name, self.partitions)


@Operations.implementation_for(CreatePartitionsOp)
def _create(operations: Operations, op: CreatePartitionsOp) -> None:
    for name, bounds in op.partitions.of(op.table_name).items():
        operations.execute(CreatePartition(op.table, name, bounds))


@Operations.implementation_for(DropPartitionsOp)
def _drop(operations: Operations, op: DropPartitionsOp) -> None:
    for name in op.partitions.of(op.table_name):
        operations.execute(DropTable(partition_of(op.table, name)))


@renderers.dispatch_for(CreatePartitionsOp)
def _render_create(context: AutogenContext, op: CreatePartitionsOp) -> str:
    return op.render("create_partitions", context)


@renderers.dispatch_for(DropPartitionsOp)
def _render_drop(context: AutogenContext, op: DropPartitionsOp) -> str:
    return op.render("drop_partitions", context)


def declared_partitions(info: Mapping[Any, Any]) -> Partitions | None:
    """What a table's info says of its partitions."""
    return getattr(info.get(COLLECTION), "partitions", None)


def compare_partitions(context: AutogenContext, upgrade: ops.UpgradeOps) -> None:
    """Make what is declared and missing, and leave alone what Alembic takes for tables."""
    made: list[ops.MigrateOperation] = []
    for op in upgrade.ops:
        made.append(op)
        if isinstance(op, ops.CreateTableOp) and (said := declared_partitions(op.info)):
            made.append(CreatePartitionsOp(op.table_name, said, schema=op.schema))
    upgrade.ops = made
    connection = context.connection
    if connection is None or connection.dialect.name != "postgresql":
        return
    children: dict[_Place, set[_Place]] = {}
    for schema, parent, child_schema, child in connection.execute(_LIVE):
        found = children.setdefault((schema, parent), set())
        if child is not None:
            found.add((child_schema, child))
    declared = {(table.schema, table.name): table for table in context.sorted_tables}
    parts = _below(declared, children) - declared.keys()
    upgrade.ops = [
        op
        for op in upgrade.ops
        if (getattr(op, "schema", None), getattr(op, "table_name", None)) not in parts
    ]
    for place, table in declared.items():
        said = declared_partitions(table.info)
        if said is None or place not in children:
            continue
        missing = _missing(said, {name for _, name in children[place]}, table.name)
        if missing is not None and context.run_object_filters(
            table, table.name, "table", reflected=False, compare_to=None
        ):
            upgrade.ops.append(CreatePartitionsOp(table.name, missing, schema=table.schema))


def _below(tables: Iterable[_Place], children: Mapping[_Place, set[_Place]]) -> set[_Place]:
    """The partitions of tables, and theirs."""
    waiting, found = list(tables), set[_Place]()
    while waiting:
        own = children.get(waiting.pop(), set())
        found |= own
        waiting += own
    return found


def _missing(said: Partitions, there: set[str], table: str) -> Partitions | None:
    """Those that are not there: of hash all or none, since each is a part of a whole."""
    if said.values is None:
        return None if there else said
    names = {name: index_name(f"{table}_{name}") for name in (*said.values, said.default or "")}
    values = {name: own for name, own in said.values.items() if names[name] not in there}
    default = said.default if said.default and names[said.default] not in there else None
    return Partitions(values=values, default=default) if values or default else None
