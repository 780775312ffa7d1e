"""The partitions of a collection's table: how many by hash, or which by lists of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement, MetaData, Table

from qortex_db.checks import check_text, check_whole
from qortex_db.errors import InvalidInputError
from qortex_db.filters.expressions import Constant
from qortex_db.names import index_name
from qortex_db.sql import DIALECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

MAX_PARTITIONS: Final = 1_024
"""The most by hash: each is planned, and searched, by itself."""


@dataclass(frozen=True, slots=True)
class Partitions:
    """What a partitioned table's rows lie in: `Collection(…, partitions=Partitions(4))`.

    Args:
        modulus: How many by hash, 2 to 1,024: of the namespace where that is in the key, and else
            of the id.
        values: By list: what each partition is called, after its table's name, and the namespaces
            whose rows are in it.
        default: What the partition of all other namespaces is called; without one they are refused.

    Raises:
        InvalidInputError: The modulus, or a partition's name or values, were refused.
    """

    modulus: int | None = None
    _: KW_ONLY
    values: Mapping[str, Sequence[str | int]] | None = field(default=None, hash=False)
    default: str | None = None

    def __post_init__(self) -> None:
        if (self.modulus is None) is (self.values is None):
            raise InvalidInputError("Partitions are by modulus (hash) or by values (list).")
        if self.modulus is not None:
            number = check_whole(self.modulus, 2, MAX_PARTITIONS, name="modulus")
            object.__setattr__(self, "modulus", number)
        if self.default is not None:
            check_text(self.default, name="default")
            if self.values is None:
                raise InvalidInputError("default is of partitions by list; hash has none.")
        if self.values is not None:
            self._check_values(self.values)

    def _check_values(self, given: Mapping[str, Sequence[str | int]]) -> None:
        if not isinstance(given, Mapping) or not (given or self.default):
            raise InvalidInputError('values has to be a mapping, as {"acme": ["acme"]}.')
        seen: set[str | int] = set()
        for name, values in given.items():
            check_text(name, name="the name of a partition")
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise InvalidInputError(f"values[{name!r}] has to be a list of one or more.")
            for value in values:
                if type(value) not in {str, int} or value in seen:
                    raise InvalidInputError(
                        f"values[{name!r}] has to hold strings or integers, none of them twice."
                    )
                seen.add(value)
        if self.default in given:
            raise InvalidInputError("default is called as another partition.")

    @property
    def method(self) -> str:
        """As `postgresql_partition_by` begins."""
        return "LIST" if self.modulus is None else "HASH"

    def key(self, column: str) -> str:
        """What `postgresql_partition_by` says of a column."""
        return f"{self.method} ({DIALECT.identifier_preparer.quote(column)})"

    def of(self, table: str) -> dict[str, str]:
        """The bounds of a table's partitions, as SQL, by their names."""
        return {index_name(f"{table}_{name}"): bounds for name, bounds in self._bounds()}

    def _bounds(self) -> Iterator[tuple[str, str]]:
        if self.modulus is not None:
            for number in range(self.modulus):
                yield str(number), f"FOR VALUES WITH (MODULUS {self.modulus}, REMAINDER {number})"
        for name, values in (self.values or {}).items():
            listed = ", ".join(str(Constant(value).compile(dialect=DIALECT)) for value in values)
            yield name, f"FOR VALUES IN ({listed})"
        if self.default is not None:
            yield self.default, "DEFAULT"


class CreatePartition(ExecutableDDLElement):
    """`CREATE TABLE … PARTITION OF`: with the indexes of its parent."""

    def __init__(self, table: Table, name: str, bounds: str) -> None:
        self.parent = table
        self.partition = partition_of(table, name)
        self.bounds = bounds


@compiles(CreatePartition)
def _compile(element: CreatePartition, compiler: Any, **_: object) -> str:
    name = compiler.preparer.format_table
    partition, parent = name(element.partition), name(element.parent)
    return f"CREATE TABLE {partition} PARTITION OF {parent} {element.bounds}"


def partition_of(table: Table, name: str) -> Table:
    """A partition, of which nothing is known but its name and schema."""
    return Table(name, MetaData(), schema=table.schema)


def create_with(table: Table, partitions: Partitions) -> None:
    """Let `create_all` make a table's partitions too, as it makes its indexes."""

    def create(target: Table, connection: Connection, **_: object) -> None:
        for name, bounds in partitions.of(target.name).items():
            connection.execute(CreatePartition(target, name, bounds))

    event.listen(table, "after_create", create)
