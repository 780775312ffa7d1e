"""A host's table under keys of ours; its statements have the host's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Column, Table
from sqlalchemy.sql.visitors import replacement_traverse

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause

ORIGINAL: Final = "qortex_db_original"
"""The key of a mirror's info where the table is that it stands for."""

Of = TypeVar("Of", bound="ColumnElement[Any]")


def original_of(table: FromClause) -> Any:
    """The table that a mirror stands for; of another, itself."""
    return getattr(table, "info", {}).get(ORIGINAL, table)  # an alias has none


def moved(element: Of, source: FromClause, target: FromClause) -> Of:
    """An expression over one of the two, as one over the other."""
    if source is target:
        return element
    columns = {column.name: column for column in target.columns}

    def replaced(part: Any, **_: Any) -> Any:
        if isinstance(part, Column):
            return columns.get(part.name) if part.table == source else None
        return target if isinstance(part, Table) and part == source else None

    replace: Any = replacement_traverse  # typed for callables of SQLAlchemy's own
    found: Of = replace(element, {}, replaced)
    return found
