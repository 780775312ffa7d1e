"""What statements say of a row: its columns as they are read, and the order of its locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, cast, delete, func, null, select, type_coerce

from qortex_db.types import Embedding, HalfEmbedding, JsonText, SentEmbedding, SparseEmbedding

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Delete, Table

OPTIONAL: Final = ("payload", "document")
"""What a table of vectors may lack."""


def sent_embedding(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The embedding in binary, past the driver's codec; a sparse one as it is."""
    if isinstance(column.type, SparseEmbedding):
        return column.label("vec")
    full = cast(column, Embedding()) if isinstance(column.type, HalfEmbedding) else column
    return func.vector_send(full, type_=SentEmbedding()).label("vec")


def optional_columns(table: Table) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Payload and document, NULL where the table lacks one."""
    payload = (
        type_coerce(cast(table.c.payload, Text), JsonText()) if "payload" in table.c else null()
    )
    document = table.c.document if "document" in table.c else null()
    return payload.label("payload"), document.label("document")


def delete_in_key_order(table: Table, condition: ColumnElement[bool]) -> Delete:
    """Lock in key order first: two deletes, or a delete and an upsert, then never deadlock."""
    keys = (
        select(table.c.id)
        .where(condition)
        .order_by(table.c.id.collate("C"))
        .with_for_update()
        .cte("keys")
        .prefix_with("MATERIALIZED")
    )
    return delete(table).where(table.c.id == keys.c.id)
