"""The order in which rows are locked: every writer's, so that none deadlocks with another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Delete, Integer, Update, Uuid, select

from qortex_db.engine.citus import or_on_citus
from qortex_db.sql import stored_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement

Change = TypeVar("Change", Update, Delete)


def _in_order(key: ColumnElement[Any]) -> ColumnElement[Any]:
    """Texts by code point, as Python sorts them; numbers and UUIDs are in that order anyway."""
    return key if isinstance(stored_type(key.type), (Integer, Uuid)) else key.collate("C")


def in_key_order(
    change: Change,
    keys: Sequence[ColumnElement[Any]],
    *conditions: ColumnElement[bool],
    besides: Sequence[ColumnElement[bool]] = (),
    key_share: bool = False,
) -> Change:
    """An UPDATE or DELETE of rows that are locked in the order of their keys first.

    On Citus, which has no such locks over several nodes, of the rows as each node finds them.

    Args:
        change: Without its rows.
        keys: The columns of the table's key.
        conditions: Of the rows, and of the locks.
        besides: What else has to hold of a row once it is locked.
        key_share: As of `with_for_update`, for what changes no key.
    """
    locked = locked_in_key_order(keys, *conditions, key_share=key_share)
    names = ["id"] if len(keys) == 1 and hasattr(keys[0], "parts") else [str(k.key) for k in keys]
    same = (key == locked.c[name] for key, name in zip(keys, names, strict=True))
    others = [each for each in besides if not any(each is one for one in conditions)]
    return or_on_citus(change.where(*same, *besides), lambda: change.where(*conditions, *others))


def locked_in_key_order(
    keys: Sequence[ColumnElement[Any]],
    *conditions: ColumnElement[bool],
    also: Sequence[ColumnElement[Any]] = (),
    key_share: bool = False,
    locks: bool = True,
) -> CTE:
    """The keys of rows, locked in their order before the rest of a statement.

    Args:
        keys: The columns of a table's key.
        conditions: Of the rows.
        also: What else is read of them.
        key_share: As of `with_for_update`, for what changes no key.
        locks: False for Citus, over whose nodes there are no such locks.
    """
    columns = [part for key in keys for part in getattr(key, "parts", [key])]
    named = [key.label("id") if hasattr(key, "parts") else key for key in keys]
    rows = select(*named, *also).where(*conditions).order_by(*map(_in_order, columns))
    if locks:
        rows = rows.with_for_update(key_share=key_share)
    return rows.cte("_keys").prefix_with("MATERIALIZED")
