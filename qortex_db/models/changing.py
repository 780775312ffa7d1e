"""A table that changes the model of its embeddings, as a collection while it has those of two."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, MetaData, Table

from qortex_db.errors import InvalidInputError
from qortex_db.mirrors import ORIGINAL, original_of
from qortex_db.models.collection import COLLECTION, MAX_TABLES, collection_of, is_part, resolved
from qortex_db.models.vector_spec import DEFAULT_VECTOR, Metric, Quantization, Storage, VectorSpec
from qortex_db.values.composite_keys import CompositeColumn

if TYPE_CHECKING:
    from qortex_db.models.collection import Collection


@dataclass(frozen=True, slots=True)
class Changeover:
    """The two models' embeddings that a table has, and which of them it is searched by.

    Attributes:
        column: Of the old ones; once the others are dropped, of the only ones.
        old_name: What the old ones are called.
        new_name: What the new ones are called, and their column.
        dimensions: Of the new ones.
        model: The embedder of the new ones, where it is known.
        has_ended: Whether the old ones were dropped.
    """

    column: str
    old_name: str
    new_name: str
    dimensions: int | None
    metric: Metric
    storage: Storage
    quantization: Quantization | None
    is_switched: bool
    model: str | None
    has_ended: bool = False

    @property
    def current(self) -> str:
        """What those are called that searches use."""
        return self.new_name if self.is_switched else self.old_name

    @property
    def other(self) -> str:
        """What the others are called."""
        return self.old_name if self.is_switched else self.new_name

    @property
    def spec(self) -> VectorSpec:
        """What the new ones are."""
        return VectorSpec(self.dimensions, self.metric, self.storage, self.quantization)


@functools.lru_cache(MAX_TABLES)
def changing_table(table: Table, changeover: Changeover) -> Table:
    """A collection's table with `vec` for what it is searched by, and the others as a further one.

    The same object at every call.

    Raises:
        InvalidInputError: A column of it has the name of one of the two.
    """
    declared = collection_of(table)
    if changeover.has_ended:
        return _ended(table, declared, changeover)
    old, new = declared.vector, changeover.spec
    columns: list[Any] = []
    for column in table.columns:
        if isinstance(column, CompositeColumn):
            continue
        copy = column._copy()  # noqa: SLF001 - with what it has of defaults, but no constraint
        copy.key = column.key
        if column.name == changeover.new_name:
            _become(copy, changeover.new_name, new, changeover)
        elif column.key == DEFAULT_VECTOR:
            _become(copy, changeover.old_name, old, changeover)
        elif column.key in {changeover.old_name, changeover.new_name}:
            raise InvalidInputError(
                f"{table.name} has a column {column.key} of its own, by which name it changes its "
                "model: let the revision call the old embeddings otherwise, by old_name=…."
            )
        columns.append(copy)
    if changeover.new_name not in {column.name for column in columns}:
        added = Column(changeover.new_name, new.type)
        _become(added, changeover.new_name, new, changeover)
        columns.append(added)
    current = new if changeover.is_switched else old
    return _mirror(table, columns, replace(declared, vector=current))


def _ended(table: Table, declared: Collection, changeover: Changeover) -> Table:
    """The table itself, unless its model still says what its embeddings were."""
    if declared.vector.dimensions in {None, changeover.dimensions}:
        return table
    columns: list[Any] = []
    for column in table.columns:
        if isinstance(column, CompositeColumn):
            continue
        copy = column._copy()  # noqa: SLF001 - as above
        copy.key = column.key
        if column.key == DEFAULT_VECTOR:
            copy.type = changeover.spec.type
        columns.append(copy)
    return _mirror(table, columns, replace(declared, vector=changeover.spec))


def _become(column: Column[Any], name: str, spec: VectorSpec, changeover: Changeover) -> None:
    """Give a column the key that statements have for it: `vec`, or the name of the others."""
    column.key = DEFAULT_VECTOR if name == changeover.current else name
    column.type = spec.type
    column.info = {**column.info, COLLECTION: spec}


def _mirror(table: Table, columns: list[Any], collection: Collection) -> Table:
    parts = [column for column in columns if is_part(column.key)]
    if parts:
        parts.sort(key=lambda column: int(column.key.split()[1]))
        columns = [*columns, CompositeColumn(parts)]
    mirror = Table(table.name, MetaData(), *columns, schema=table.schema)
    mirror.info.update(table.info)
    mirror.info[ORIGINAL] = original_of(table)
    own = replace(collection, vector=replace(collection.vector, column=DEFAULT_VECTOR))
    mirror.info[COLLECTION] = resolved(mirror, own)
    return mirror
