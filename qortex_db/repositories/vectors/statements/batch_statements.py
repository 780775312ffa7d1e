"""Statements of a batch of records that only insert, or only change: beside the upsert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import case, cast, insert, literal_column, select, update

from qortex_db.engine.citus import or_on_citus
from qortex_db.repositories.locking import locked_in_key_order
from qortex_db.repositories.statement_cache import built_once
from qortex_db.repositories.vectors.rows.written_columns import generated
from qortex_db.repositories.vectors.statements.key_statements import (
    GivenColumns,
    KeyStatements,
    ids_array,
    insert_given,
)
from qortex_db.sql import as_text, func
from qortex_db.values.keys import key_columns, key_of

if TYPE_CHECKING:
    from sqlalchemy.sql.dml import ReturningInsert


@built_once
def insert_new(owner: KeyStatements, columns: GivenColumns) -> ReturningInsert[Any]:
    """Insert the rows that are not there, and return their ids."""
    table, space = owner.table, owner.scope.column
    values = owner.given_rows(columns).values
    statement = insert_given(table).from_select(
        list(values), select(*values.values()), include_defaults=False
    )
    if space is None or space.primary_key:
        statement = statement.on_conflict_do_nothing(index_elements=owner.keys)
    else:
        # Another namespace's row is not there for this one, nor can its id be had: the NULL is
        # refused.
        theirs = as_text(space) != as_text(statement.excluded[space.name])
        statement = statement.on_conflict_do_update(
            index_elements=owner.keys, set_={space.name: case((~theirs, space))}, where=theirs
        )
    return statement.returning(key_of(table))


@built_once
def insert_unkeyed(owner: KeyStatements, columns: GivenColumns) -> ReturningInsert[Any]:
    """Insert rows whose keys the server makes, and return these in the order of the rows.

    It is that in which they are inserted: a row after the other, out of a select list.
    """
    table = owner.table
    values = owner.given_rows(columns, keys_are_made=True).values
    if table.c.id.default is not None:  # the server knows none: a Sequence, or SQL
        values["id"], _ = generated(table.c.id.default)
    statement = insert(table).from_select(
        list(values), select(*values.values()), include_defaults=False
    )
    return statement.returning(key_of(table))


@built_once
def update_each(owner: KeyStatements, columns: GivenColumns) -> Any:
    """Change the rows that are there, each by its own record; a row that would not is not touched.

    In key order, as every writer.
    """
    table = owner.table
    rows = owner.given_rows(columns)
    values = dict(rows.values)
    # An assignment would convert it, a CASE does not.
    values["vec"] = cast(values["vec"], table.c.vec.type)
    new = select(*(value.label(name) for name, value in values.items())).subquery("_new")
    keys = locked_in_key_order(
        [table.c.id], table.c.id == func.any(ids_array(table)), *owner.scope.clauses
    )
    own: list[Any] = key_columns(table)
    is_same = [column == new.c[column.key] for column in own]
    there = (*is_same, *owner.scope.clauses)

    def change(*, on_citus: bool) -> Any:
        changes, changed = owner.changes(rows, new.c, on_citus=on_citus)
        if "updated_at" in table.c:
            changes["updated_at"] = func.now()
        # No CTE: a pipeline puts the whole statement into one, where none may write.
        made = update(table).where(*there, changed).values(changes)
        return made.returning(literal_column("1"))  # to be counted

    plain = change(on_citus=False).where(table.c.id == keys.c.id)
    return or_on_citus(plain, lambda: change(on_citus=True))
