"""The statements of a vectors table, built once for each table.

A table is any with `id` as its key and `vec`; `payload`, `document` and `updated_at` are optional.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import (
    ARRAY,
    Float,
    Text,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    literal_column,
    null,
    select,
    text,
    true,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from qortex_db.types import Embedding, EncodedEmbeddings, JsonText, SentEmbedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Delete, Select, Table, Update
    from sqlalchemy.sql.dml import ReturningInsert

Given: TypeAlias = Literal["none", "all", "some"]
"""For how many rows of a batch an optional column is given."""

_OPTIONAL = ("payload", "document")


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
        self.optional = tuple(name for name in _OPTIONAL if name in table.c)
        self.vec = func.vector_send(table.c.vec, type_=SentEmbedding()).label("vec")
        self.columns = (table.c.id, self.vec, *self._optional_columns())
        page = select(*self.columns).order_by(table.c.id).limit(bindparam("page_size"))
        self.first_page = page
        self.next_page = page.where(table.c.id > bindparam("after"))
        self.get = select(*self.columns).where(table.c.id == func.any(ids_array()))
        self.count = select(func.count()).select_from(table)

    def _optional_columns(self) -> tuple[ColumnElement[Any], ...]:
        """Payload and document, None where the table lacks one."""
        payload = (
            type_coerce(cast(self.table.c.payload, Text), JsonText()).label("payload")
            if "payload" in self.optional
            else null().label("payload")
        )
        return payload, self.table.c.get("document", null().label("document"))

    @functools.cached_property
    def delete(self) -> Delete:
        """Lock in key order first: two deletes, or a delete and an upsert, then never deadlock."""
        table = self.table
        keys = (
            select(table.c.id)
            .where(table.c.id == func.any(ids_array()))
            .order_by(table.c.id.collate("C"))
            .with_for_update()
            .cte("keys")
            .prefix_with("MATERIALIZED")
        )
        return delete(table).where(table.c.id == keys.c.id)

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

    @functools.cache  # noqa: B019 - as above
    def search(self, *, exact: bool, tuned: bool, with_embedding: bool) -> Select[Any]:
        """The nearest rows, nearest first, as id, distance, the optional columns and the embedding.

        Args:
            exact: Compare with every row instead of walking the index.
            tuned: Take `ef_search` as a parameter, in the same statement.
            with_embedding: Return the embedding too.
        """
        table = self.table
        distance = table.c.vec.cosine_distance(bindparam("query", type_=Embedding()))
        columns = [table.c.id, distance.label("distance")]
        columns += self._optional_columns()
        if with_embedding:
            columns.append(self.vec)
        # A sum is no expression that an index is on. Ties are broken outside: inside, it would
        # lose the index.
        order = distance + literal_column("0.0", Float) if exact else distance
        nearest = select(*columns).order_by(order).limit(bindparam("hits"))
        if not tuned:
            hits = nearest.subquery("hits")
            return select(*hits.c).order_by(hits.c.distance, hits.c.id)
        return _with_settings(nearest)


def _with_settings(nearest: Select[Any]) -> Select[Any]:
    """Run a search under hnsw settings of its own, and put the old ones back, in one statement.

    The search has to refer to the settings' CTE, or the planner runs it first. The old values are
    put back because in a unit of work they would stay for the rest of its transaction.
    """
    names = ("hnsw.ef_search", "hnsw.iterative_scan")
    old = [func.current_setting(name, true()).label(f"old_{i}") for i, name in enumerate(names)]
    before = select(*old).cte("before").prefix_with("MATERIALIZED")
    settings = (
        select(
            before.c.old_0,
            before.c.old_1,
            func.set_config(names[0], cast(bindparam("ef_search"), Text), true()).label("ef"),
            func.set_config(names[1], literal("strict_order"), true()).label("scan"),
        )
        .select_from(before)
        .cte("settings")
        .prefix_with("MATERIALIZED")
    )
    inner = nearest.where(settings.c.ef.is_not(None)).correlate(settings).lateral("nearest")
    hits = (
        select(*inner.c)
        .select_from(settings.join(inner, true()))
        .cte("hits")
        .prefix_with("MATERIALIZED")
    )
    found = select(func.count()).select_from(hits).scalar_subquery()
    restored = (
        select(
            func.set_config(names[0], settings.c.old_0, true()).label("ef"),
            func.set_config(names[1], settings.c.old_1, true()).label("scan"),
        )
        .where(found >= 0)
        .cte("restored")
        .prefix_with("MATERIALIZED")
    )
    return (
        select(*hits.c)
        .select_from(restored.outerjoin(hits, true()))
        .where(hits.c.id.is_not(None))
        .order_by(hits.c.distance, hits.c.id)
    )


@functools.cache
def statements_for(table: Table) -> VectorStatements:
    """The statements over a table, the same object at every call."""
    return VectorStatements(table)
