"""The statements of a vectors table, built once for each table.

A table is any with `id` as its key and `vec`; `payload`, `document` and `updated_at` are optional.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import (
    ARRAY,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from qortex_db.repositories.rows import (
    OPTIONAL,
    delete_in_key_order,
    optional_columns,
    sent_embedding,
)
from qortex_db.types import Embedding, EncodedEmbeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Delete, Table, Update
    from sqlalchemy.sql.dml import ReturningInsert

Given: TypeAlias = Literal["none", "all", "some"]
"""For how many rows of a batch an optional column is given."""


def given(values: Sequence[object]) -> Given:
    """What a batch says of one optional column."""
    missing = values.count(None)
    return "all" if missing == 0 else "none" if missing == len(values) else "some"


def ids_array() -> ColumnElement[Any]:
    """The parameter `ids` as a text array."""
    return cast(bindparam("ids"), ARRAY(Text))


class VectorStatements:
    """The statements over one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.optional = tuple(name for name in OPTIONAL if name in table.c)
        vec, extra = sent_embedding(table.c.vec), optional_columns(table)
        self.columns = (table.c.id, vec, *extra)
        page = select(*self.columns).order_by(table.c.id).limit(bindparam("page_size"))
        self.first_page = page
        self.next_page = page.where(table.c.id > bindparam("after"))
        self.get = select(*self.columns).where(table.c.id == func.any(ids_array()))

    @functools.cached_property
    def delete(self) -> Delete:
        """Remove rows by their keys."""
        return delete_in_key_order(self.table, self.table.c.id == func.any(ids_array()))

    @functools.cache  # noqa: B019 - as many instances as tables, kept as long as the process
    def upsert(self, payload: Given, document: Given) -> ReturningInsert[Any]:
        """Insert or change; a row that would not change is not touched, nor is its index entry."""
        table = self.table
        modes = {"payload": payload, "document": document}
        used = [name for name in self.optional if modes[name] != "none"]
        # In a select list unnest() streams; in FROM its rows are put aside first.
        arrays = {"id": ids_array(), "vec": cast(bindparam("vecs"), EncodedEmbeddings())}
        arrays |= {name: cast(bindparam(f"{name}s"), ARRAY(Text)) for name in used}
        rows = select(*(func.unnest(array).label(name) for name, array in arrays.items())).subquery(
            "rows"
        )
        values: dict[str, Any] = {name: rows.c[name] for name in ("id", "vec", *used)}
        if "payload" in used:
            values["payload"] = func.coalesce(cast(rows.c.payload, JSONB), text("'{}'::jsonb"))
        statement = insert(table).from_select(list(values), select(*values.values()))
        new: Any = statement.excluded
        wanted: dict[str, Any] = {"vec": new.vec}
        for name in used:
            wanted[name] = (
                new[name]
                if modes[name] == "all"
                else case(
                    # An object's keys are found by bisection; `= ANY` would scan for each row.
                    (bindparam(f"with_{name}", type_=JSONB).has_key(new.id), new[name]),
                    else_=table.c[name],
                )
            )
        changed = tuple_(*(table.c[name] for name in wanted)).is_distinct_from(
            tuple_(*wanted.values())
        )
        changes = dict(wanted)
        # Writing back an equal vector that lies in TOAST would cost an index entry.
        changes["vec"] = case((table.c.vec.is_distinct_from(new.vec), new.vec), else_=table.c.vec)
        if "updated_at" in table.c:
            changes["updated_at"] = new.updated_at
        return statement.on_conflict_do_update(
            index_elements=[table.c.id], set_=changes, where=changed
        ).returning(literal_column("1"))  # to be counted

    @functools.cache  # noqa: B019 - as above
    def update(self, names: frozenset[str]) -> Update:
        """Change the named columns of one row."""
        table = self.table
        values: dict[str, Any] = {}
        if "vec" in names:
            values["vec"] = bindparam("new_vec", type_=Embedding())
        if "payload" in names:
            values["payload"] = cast(bindparam("new_payload", type_=Text), JSONB)
        if "document" in names:
            values["document"] = bindparam("new_document", type_=Text)
        if "updated_at" in table.c:
            values["updated_at"] = func.now()
        return update(table).where(table.c.id == bindparam("key")).values(values)


@functools.cache
def statements_for(table: Table) -> VectorStatements:
    """The statements over a table, the same object at every call."""
    return VectorStatements(table)
