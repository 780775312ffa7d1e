"""The order in which rows are locked: every writer's, so that none deadlocks with another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, Uuid, select

from qortex_db.sql import stored_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement


def _in_order(key: ColumnElement[Any]) -> ColumnElement[Any]:
    """Texts by code point, as Python sorts them; numbers and UUIDs are in that order anyway."""
    return key if isinstance(stored_type(key.type), (Integer, Uuid)) else key.collate("C")


def locked_in_key_order(
    keys: Sequence[ColumnElement[Any]],
    *conditions: ColumnElement[bool],
    also: Sequence[ColumnElement[Any]] = (),
    key_share: bool = False,
) -> CTE:
    """The keys of rows, locked in their order before the rest of a statement.

    Args:
        keys: The columns of a table's key.
        conditions: Of the rows.
        also: What else is read of them.
        key_share: As of `with_for_update`, for what changes no key.
    """
    columns = [part for key in keys for part in getattr(key, "parts", [key])]
    named = [key.label("id") if hasattr(key, "parts") else key for key in keys]
    return (
        select(*named, *also)
        .where(*conditions)
        .order_by(*map(_in_order, columns))
        .with_for_update(key_share=key_share)
        .cte("_keys")
        .prefix_with("MATERIALIZED")
    )
