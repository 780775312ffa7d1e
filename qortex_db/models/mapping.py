"""Any table as a collection: a mirror of it, whose columns have the keys that statements ask for.

What a host calls its columns, and which of them it has, is said here alone: `id`, `vec`, `payload`,
`document` and `updated_at` are keys of a mirror, whatever the columns' names are.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import JSON, MetaData, Table, UniqueConstraint, inspect
from sqlalchemy.exc import CompileError

from qortex_db.errors import InvalidInputError
from qortex_db.filters.full_text import TEXT_CONFIGURATION
from qortex_db.messages import shown
from qortex_db.mirrors import ORIGINAL, original_of
from qortex_db.models.collection import (
    COLLECTION,
    MAX_TABLES,
    Collection,
    attribute_key,
    declare_encrypted,
    is_part,
    part_key,
    resolved,
)
from qortex_db.models.mixin import VectorMixin
from qortex_db.models.vector import QortexVector
from qortex_db.models.vector_spec import DEFAULT_VECTOR, VectorSpec
from qortex_db.sql import DIALECT, is_text, stored_type
from qortex_db.values.composite_keys import CompositeColumn
from qortex_db.values.keys import key_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Column

_VECTOR: Final = re.compile(r"(?:.*\.)?(vector|halfvec)(?:\((\d+)\))?", re.IGNORECASE)
_STORAGES: Final = {"vector": "full", "halfvec": "half"}


def collection_table(model: Any, collection: Collection | None = None) -> Table:
    """The table of a model as a collection.

    Args:
        collection: What the model does not say itself.

    Raises:
        InvalidInputError: It is no mapped model, or lacks a column.
    """
    table = getattr(model, "__table__", None)
    name = getattr(model, "__name__", type(model).__name__)
    if not isinstance(table, Table):
        raise InvalidInputError(f"{name} is no mapped model with a table of its own.")
    if collection is None and COLLECTION not in table.info:
        collection = getattr(model, "__collection__", None)
    if collection is None:
        _check_columns(name, table)
    elif isinstance(collection, Collection):
        table = _mirror(name, table, collection)
    else:
        kind = type(collection).__name__
        raise InvalidInputError(f"The collection of {name} is a {kind}; pass a Collection.")
    mapper = inspect(model)
    if mapper.inherits is not None and mapper.inherits.local_table is original_of(table):
        raise InvalidInputError(
            f"{name} has its rows in the table of {mapper.inherits.class_.__name__}, whose "
            "collection has them all: take that one, and filter by its discriminator."
        )
    return table


def declared_collections() -> Iterator[tuple[Any, Table]]:
    """The models with VectorMixin that the process has imported, with their tables."""
    waiting: list[Any] = [VectorMixin]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        declared = model.__dict__.get("__table__")
        if isinstance(declared, Table):
            yield model, declared


def model_named(table: str) -> Any:
    """The collection with VectorMixin that declares a table of this name, or of schema.name.

    Raises:
        InvalidInputError: None does, or several do.
    """
    found = [QortexVector] if table == QortexVector.__tablename__ else []
    found += [
        model
        for model, declared in declared_collections()
        if table in (declared.name, declared.fullname)
    ]
    models = list(dict.fromkeys(found))
    if len(models) == 1:
        return models[0]
    if not models:
        raise InvalidInputError(
            f"No model with VectorMixin declares a table {shown(table)}: import the module that "
            "does, or pass the model itself."
        )
    names = ", ".join(sorted(f"{model.__module__}.{model.__qualname__}" for model in models))
    raise InvalidInputError(f"Several models declare {shown(table)}: {names}. Pass one of them.")


@functools.lru_cache(MAX_TABLES)
def _check_columns(name: str, table: Table) -> None:
    for needed in ("id", DEFAULT_VECTOR):
        if needed not in table.c:
            raise InvalidInputError(
                f"{name} has no column {needed!r}: a collection is a model with VectorMixin, or "
                "one with the columns id (the key) and vec; or say which columns they are, by "
                "Collection(VectorSpec(…, column='embedding'), id='key')."
            )
    key_type(table)
    for column in table.columns:
        if column.key != column.name:
            raise InvalidInputError(
                f"{name}'s column {column.name} has another key: a collection's columns are known "
                "by their names; leave key= out."
            )


@functools.lru_cache(MAX_TABLES)
def _mirror(name: str, table: Table, collection: Collection) -> Table:
    """A table under our keys; the same object at every call."""
    keys = _keys(name, table, collection)
    columns = []
    for column in table.columns:
        mirrored = column._copy()  # noqa: SLF001 - with what it has of defaults, but no constraint
        mirrored.key = keys.get(column.name) or attribute_key(column.name)
        if mirrored.key == DEFAULT_VECTOR:
            mirrored.type = collection.vector.type
        elif mirrored.key == "id" or is_part(mirrored.key):
            mirrored.type = stored_type(column.type)
        columns.append(mirrored)
    parts = [column for column in columns if is_part(column.key)]
    if parts:
        parts.sort(key=lambda column: int(column.key.split()[1]))
        columns.append(CompositeColumn(parts))
    mirror = Table(table.name, MetaData(), *columns, schema=table.schema)
    mirror.info[ORIGINAL] = table
    key_type(mirror)
    if collection.namespace is not None and collection.namespace not in mirror.c:
        raise InvalidInputError(f"{name} has no column {collection.namespace!r} for its namespace.")
    if collection.text is not None:
        raise InvalidInputError(f"text= needs a column of VectorMixin's, which {name} lacks.")
    if collection.partitions is not None:
        raise InvalidInputError(
            f"partitions= is for models with VectorMixin. Of {name}, whose table is yours, say it "
            "by postgresql_partition_by in __table_args__, and make them by op.create_partitions."
        )
    if collection.language is not None:
        mirror.info[TEXT_CONFIGURATION] = collection.language
    own = replace(collection, vector=replace(collection.vector, column=DEFAULT_VECTOR))
    mirror.info[COLLECTION] = resolved(mirror, own)
    declare_encrypted(mirror, collection)
    return mirror


def _keys(name: str, table: Table, collection: Collection) -> dict[str, str]:
    """Our keys by the names of the columns, all of which are there and of their kind."""
    columns = {column.name: column for column in table.columns}
    wanted: dict[str, str | None] = {
        **dict(_named_keys(name, columns, table, collection.id)),
        DEFAULT_VECTOR: collection.vector.column,
        "payload": collection.payload,
        "document": collection.document,
        "updated_at": collection.updated_at,
    }
    for optional in ("payload", "document"):  # by default
        if wanted[optional] == optional and optional not in columns:
            wanted[optional] = None
    keys: dict[str, str] = {}
    for key, column in wanted.items():
        if column is None:
            continue
        if column not in columns:
            says = (
                "VectorSpec(…, column=…)"
                if key == DEFAULT_VECTOR
                else f"Collection({key.partition(' ')[0]}=…)"
            )
            raise InvalidInputError(
                f"{name} has no column {column!r}; it has {', '.join(columns)}: say which by {says}"
                + (", or None for none." if key in {"payload", "document", "updated_at"} else ".")
            )
        if column in keys:
            raise InvalidInputError(
                f"{name}'s column {column!r} can't be both {keys[column]} and {key}."
            )
        keys[column] = key
    by_key = {key: columns[column] for column, key in keys.items()}
    _check_key(name, table, [by_key[key] for key in by_key if key.startswith("id")], collection)
    _check_vector(name, by_key[DEFAULT_VECTOR], collection.vector)
    _check_kinds(name, by_key)
    return keys


def _named_keys(
    name: str, columns: Mapping[str, Any], table: Table, given: str | tuple[str, ...] | None
) -> list[tuple[str, str]]:
    """Our keys of the key's columns, with their names."""
    if isinstance(given, tuple):
        return [(part_key(i), column) for i, column in enumerate(given)]
    if given is not None or "id" in columns:
        return [("id", given or "id")]
    primary = [column.name for column in table.primary_key.columns]
    if len(primary) != 1:
        raise InvalidInputError(f"{name} has no column 'id': say which is the key, by id=….")
    return [("id", primary[0])]


def _check_key(name: str, table: Table, parts: list[Column[Any]], collection: Collection) -> None:
    unique = [set(table.primary_key.columns.keys())]
    unique += [
        {column.name for column in each.columns}
        for each in table.constraints
        if isinstance(each, UniqueConstraint)
    ]
    unique += [{column.name for column in each.columns} for each in table.indexes if each.unique]
    unique += [{part.name} for part in parts if part.unique]
    wanted = {part.name for part in parts}
    if collection.namespace_in_key and collection.namespace is not None:
        wanted.add(collection.namespace)
    if any(unique) and wanted not in unique:  # of a view nothing is declared
        raise InvalidInputError(
            f"{name}.{', '.join(part.name for part in parts)} is no key: neither the primary key "
            "nor UNIQUE. Name the one that is, by id=…."
        )


def _check_vector(name: str, column: Column[Any], spec: VectorSpec) -> None:
    kind = stored_type(column.type)
    try:
        said = kind.compile(dialect=DIALECT)
    except CompileError:  # reflected without a name for it
        return
    found = _VECTOR.fullmatch(said)
    if found is None:
        raise InvalidInputError(
            f"{name}.{column.name} is {said}, no vector: say which column is, by "
            "VectorSpec(…, column=…)."
        )
    storage = _STORAGES[found[1].lower()]
    if storage != spec.storage:
        raise InvalidInputError(
            f"{name}.{column.name} is {said}: say so by VectorSpec(…, storage={storage!r})."
        )
    if found[2] and spec.dimensions not in (None, int(found[2])):
        raise InvalidInputError(
            f"{name}.{column.name} is {said}, and its VectorSpec says {spec.dimensions} dimensions."
        )


def _check_kinds(name: str, columns: Mapping[str, Column[Any]]) -> None:
    payload, document = columns.get("payload"), columns.get("document")
    if payload is not None and not isinstance(stored_type(payload.type), JSON):
        raise InvalidInputError(
            f"{name}.{payload.name} is {payload.type}, no JSON: name the payload's column by "
            "payload=…, or None for none."
        )
    if document is not None and not is_text(document.type):
        raise InvalidInputError(
            f"{name}.{document.name} is {document.type}, no text: name the document's column by "
            "document=…, or None for none."
        )
