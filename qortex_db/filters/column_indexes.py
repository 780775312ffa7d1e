"""The indexes that a table declares on columns of a host's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Column
from sqlalchemy.sql.elements import CollationClause

from qortex_db.mirrors import original_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import FromClause, Index


def _beginning_with(column: Column[Any]) -> Iterator[tuple[Index, Any]]:
    """The indexes whose first part is a column, be it in another collation; with that part."""
    for index in original_of(column.table).indexes:
        options = index.dialect_options["postgresql"]
        if options["using"] not in (False, None, "btree", "hash") or options["where"] is not None:
            continue
        first = next(iter(index.expressions), None)
        collated = isinstance(getattr(first, "right", None), CollationClause)
        base = getattr(first, "left", None) if collated else first
        if isinstance(base, Column) and base.name == column.name:
            yield index, first


def is_by_pattern(column: Column[Any]) -> bool:
    """Whether an index has a column's texts in the order of their code points, as patterns want."""
    return any(
        "pattern_ops" in str(index.dialect_options["postgresql"]["ops"].get(first.key, ""))
        for index, first in _beginning_with(column)
        if isinstance(first, Column)
    )


def _is_by_code_point(column: Column[Any]) -> bool:
    """Whether one has them in the collation "C"."""
    for _, first in _beginning_with(column):
        kind: Any = column.type
        collation = getattr(first, "right", None)
        if isinstance(collation, CollationClause):
            name: object = collation.collation
        else:
            name = getattr(kind, "collation", None)
        if name == "C":
            return True
    return False


def finds_value(table: FromClause, column: Column[Any]) -> bool:
    """Whether a key or an index begins with a column as it is."""
    key = next(iter(original_of(table).primary_key.columns), None)
    if key is not None and key.name == column.name:
        return True
    return any(isinstance(first, Column) for _, first in _beginning_with(column))


def finds_elements(column: Column[Any]) -> bool:
    """Whether an index has the elements of a column's arrays."""
    return any(
        index.dialect_options["postgresql"]["using"] == "gin"
        and any(isinstance(part, Column) and part.name == column.name for part in index.expressions)
        for index in original_of(column.table).indexes
    )


def finds_beginning(column: Column[Any], *, by_pattern: bool) -> bool:
    """Whether an index finds the texts that begin with something."""
    return by_pattern or _is_by_code_point(column)
