"""The statements of a vectors table by key, built once for each table and scope.

A table is any with `id` as its key and `vec`; `payload`, `document` and `updated_at` are optional.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import (
    ARRAY,
    Integer,
    bindparam,
    case,
    cast,
    delete,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.compiler import compiles

from qortex_db.engine.citus import on_citus, or_on_citus
from qortex_db.filters.full_text import kept_words
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.repositories.locking import in_key_order
from qortex_db.repositories.statement_cache import MAX_TABLES, built_once
from qortex_db.repositories.vectors.rows.payload_changes import changed_payload
from qortex_db.repositories.vectors.rows.row_shape import row_shape
from qortex_db.repositories.vectors.rows.written_columns import touched_columns, written_columns
from qortex_db.sql import Text, as_jsonb, as_text, func, json_parameter
from qortex_db.types import Embedding, EncodedEmbeddings
from qortex_db.values.composite_keys import packed
from qortex_db.values.keys import key_columns, key_type

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Delete, Select, Table, Update
    from sqlalchemy.sql.dml import ReturningInsert

    from qortex_db.repositories.vectors.rows.namespaces import Scope
    from qortex_db.repositories.vectors.rows.payload_changes import Form
    from qortex_db.repositories.vectors.rows.payload_parts import Body

Given: TypeAlias = Literal["all", "some"]
"""For which rows of a batch a column is given."""
GivenColumns: TypeAlias = tuple[tuple[str, Given], ...]
"""The columns that a batch gives, beside the id, and the vector where some records lack it."""

IDS: Final = "row_ids"
"""The parameter with ids. No parameter of a write may be called like a host's column."""
ID: Final = "row_id_0"
"""The parameter with one id."""
VECS: Final = "row_vecs"
GIVEN: Final = "row_given_"
"""Before a column's name: the parameter with the ids that give it, the keys of an object."""


def ids_array(table: Table) -> ColumnElement[Any]:
    """The parameter `IDS` as an array of keys."""
    return cast(bindparam(IDS), ARRAY(key_type(table).type))


class InsertGiven(Insert):
    """What gives the keys that the server would make itself: of GENERATED ALWAYS AS IDENTITY."""

    inherit_cache = Insert.inherit_cache  # which 2.0 has false, for what comes on conflict


@compiles(InsertGiven)
def _compile_given(element: InsertGiven, compiler: Any, **options: Any) -> str:
    into, _, rows = compiler.visit_insert(element, **options).partition(") SELECT ")
    return f"{into}) OVERRIDING SYSTEM VALUE SELECT {rows}"


@dataclass(frozen=True, slots=True)
class GivenRows:
    """The rows of a batch, as SQL.

    Attributes:
        used: The columns that it gives, beside id and vector.
        values: Of a new row, by column.
        given: By the columns that only some rows give, the ids that do.
        kept: The columns of a document's words.
    """

    used: list[str]
    values: dict[str, Any]
    given: dict[str, Any]
    kept: list[str]


class KeyStatements:
    """What reads and changes rows by their keys, in one table or one namespace of it."""

    def __init__(self, table: Table, scope: Scope) -> None:
        self.table = table
        self.scope = scope
        self.key = key_type(table)
        self.written = written_columns(table)
        self.touched = touched_columns(table)
        columns = select(*row_shape(table).of_record()).where(*scope.clauses)
        self.get = columns.where(table.c.id == func.any(ids_array(self.table)))
        # A list takes the server twice as long.
        self.get_one = columns.where(as_text(table.c.id) == bindparam(ID, type_=self.key.type))

    @built_once
    def get_parts(self, body: Body) -> Select[Any]:
        """Rows by their keys, with parts of their payloads."""
        columns = select(*row_shape(self.table).of_record(body=body)).where(*self.scope.clauses)
        return columns.where(self.table.c.id == func.any(ids_array(self.table)))

    @functools.cached_property
    def delete(self) -> Delete:
        """Remove rows by their keys."""
        return delete_in_key_order(
            self.table, self.scope, self.table.c.id == func.any(ids_array(self.table))
        )

    @functools.cached_property
    def fill(self) -> Select[Any]:
        """Store the words of the documents after a key."""
        return fill_in_key_order(self.table, self.scope)

    @built_once
    def merge(self, form: Form) -> Update:
        """Change the payloads of rows by their keys."""
        condition = self.table.c.id == func.any(ids_array(self.table))
        return merge_in_key_order(self.table, self.scope, condition, form)

    @built_once
    def upsert(self, columns: GivenColumns) -> ReturningInsert[Any]:
        """Insert or change; a row that would not change is not touched, nor is its index entry."""
        return or_on_citus(
            self._upsert(columns, on_citus=False), lambda: self._upsert(columns, on_citus=True)
        )

    def _upsert(self, columns: GivenColumns, *, on_citus: bool) -> ReturningInsert[Any]:
        table, space = self.table, self.scope.column
        rows = self.given_rows(columns)
        statement = insert_given(table).from_select(
            list(rows.values), select(*rows.values.values()), include_defaults=False
        )
        new: Any = statement.excluded
        changes, changed = self.changes(rows, new, on_citus=on_citus)
        if "updated_at" in table.c:
            changes["updated_at"] = new.updated_at
        if space is not None and not space.primary_key:
            # Another namespace's row is nobody else's to change: the NULL is refused.
            changes[space.name] = case((as_text(space) == as_text(new[space.name]), space))
            changed = or_(changed, as_text(space) != as_text(new[space.name]))
        return statement.on_conflict_do_update(
            index_elements=self.keys, set_=changes, where=changed
        ).returning(literal_column("1"))  # to be counted

    @property
    def keys(self) -> list[Any]:
        """What tells rows apart."""
        space = self.scope.column
        is_key = space is not None and space.primary_key
        return [*key_columns(self.table), space] if is_key else key_columns(self.table)

    def given_rows(self, columns: GivenColumns, *, keys_are_made: bool = False) -> GivenRows:
        """The rows of a batch that gives these columns, from its parameters.

        Args:
            keys_are_made: By the server; then the parameter with ids has numbers.
        """
        table, space = self.table, self.scope.column
        used = {name: self.written[name] for name, _ in columns if name != DEFAULT_VECTOR}
        # In a select list unnest() streams; in FROM its rows are put aside first.
        keys = cast(bindparam(IDS), ARRAY(Integer)) if keys_are_made else ids_array(table)
        arrays = [keys, cast(bindparam(VECS), EncodedEmbeddings())]
        arrays += [one.array(f"row_values_{i}") for i, one in enumerate(used.values())]
        rows = select(*(func.unnest(array).label(f"of_{i}") for i, array in enumerate(arrays)))
        row = list(rows.subquery("_rows").c)
        values: dict[str, Any] = {}
        if not keys_are_made:
            names = [str(column.key) for column in key_columns(table)]
            values = dict(zip(names, self.key.apart(row[0]), strict=True))
        key = cast(row[0], Text) if keys_are_made else self.key.sql_text(row[0])
        values["vec"] = row[1]
        if not isinstance(table.c.vec.type, Embedding):  # what Citus makes of it it can't read
            values["vec"] = cast(row[1], table.c.vec.type)
        given = {name: json_parameter(GIVEN + name) for name, mode in columns if mode == "some"}
        for (name, written), sent in zip(used.items(), row[2:], strict=True):
            values[name] = written.value(sent)
            if name in given and written.default is not None:
                values[name] = _of_given(given[name], key, values[name], written.default)
        kept = kept_words(table, values["document"]) if "document" in used else {}
        if space is not None:
            values[space.name] = self.scope.value
        values |= kept | _made_now(table)
        return GivenRows(list(used), values, given, list(kept))

    def changes(
        self, rows: GivenRows, new: Any, *, on_citus: bool = False
    ) -> tuple[dict[str, ColumnElement[Any]], ColumnElement[bool]]:
        """What a stored row gets of a new one, and whether that changes it."""
        table = self.table
        given = rows.given
        key = sent_key(table, new)
        wanted: dict[str, Any] = {}
        for name in (DEFAULT_VECTOR, *rows.used):
            wanted[name] = new[name]
            if name in given:
                wanted[name] = _of_given(given[name], key, new[name], table.c[name])
        names = [name for name in wanted if self._is_compared(name, on_citus=on_citus)]
        changed = tuple_(*self._comparable(table.c, names, on_citus=on_citus)).is_distinct_from(
            tuple_(*self._comparable(wanted, names, on_citus=on_citus))
        )
        if len(names) < len(wanted):
            changed = true()
        changes = self.touched.values(rows.used) | wanted
        for name in rows.kept:
            changes[name] = new[name]
            if "document" in given:
                changes[name] = _of_given(given["document"], key, new[name], table.c[name])
        for name, value in self.touched.values().items():
            if name in given:
                changes[name] = _of_given(given[name], key, new[name], value)
        # Writing back an equal vector that lies in TOAST would cost an index entry.
        vec = wanted[DEFAULT_VECTOR]
        changes["vec"] = case((table.c.vec.is_distinct_from(vec), vec), else_=table.c.vec)
        return changes, changed

    def _is_compared(self, name: str, *, on_citus: bool) -> bool:
        return not on_citus or name not in self.written or self.written[name].has_equality

    def _comparable(
        self, values: Any, names: list[str], *, on_citus: bool
    ) -> list[ColumnElement[Any]]:
        # There no cast stands here that depends on more than its value, as an enum's to text.
        return [
            self.written[name].comparable(values[name])
            if name in self.written and not on_citus
            else values[name]
            for name in names
        ]

    @built_once
    def update(self, names: frozenset[str]) -> Update:
        """Change the named columns of one row."""
        table = self.table
        values: dict[str, Any] = {**self.touched.values(names)}
        for i, name in enumerate(sorted(names)):
            parameter = f"row_value_{i}"
            # Cast: a column of half precision would have the driver ask for a type it can't send.
            values[name] = (
                cast(bindparam(parameter, type_=Embedding()), Embedding())
                if name == "vec"
                else self.written[name].single(parameter)
            )
        if "document" in names:
            values |= kept_words(table, values["document"])
        if "updated_at" in table.c:
            values["updated_at"] = func.now()
        key = as_text(table.c.id) == bindparam(ID, type_=self.key.type)
        return update(table).where(key, *self.scope.clauses).values(values)


def sent_key(table: Table, rows: Any) -> ColumnElement[Any]:
    """The keys of rows that have the table's columns, as `str` has those that are sent."""
    kind = key_type(table)
    columns = [rows[str(column.key)] for column in key_columns(table)]
    return packed(columns) if kind.is_composite else kind.sql_text(columns[0])


def insert_given(table: Table) -> Insert:
    is_made = getattr(table.c.id.identity, "always", False)
    return InsertGiven(table) if is_made else insert(table)


def _made_now(table: Table) -> dict[str, ColumnElement[Any]]:
    """The time of a change, where no default of the server's is one."""
    own = table.c.get("updated_at")
    return {} if own is None or own.server_default is not None else {"updated_at": func.now()}


def _of_given(
    given: ColumnElement[Any],
    key: ColumnElement[Any],
    new: ColumnElement[Any],
    other: ColumnElement[Any],
) -> ColumnElement[Any]:
    """A row's new value, where only some rows of a batch give one."""
    # An object's keys are found by bisection; `= ANY` would scan for each row.
    return case((given.has_key(key), new), else_=other)


@functools.lru_cache(MAX_TABLES)
def by_key(table: Table, scope: Scope) -> KeyStatements:
    """The statements by key over a table, the same object at every call."""
    return KeyStatements(table, scope)


def fill_in_key_order(table: Table, scope: Scope) -> Select[Any]:
    """Store the words of documents where they are not: the last key, rows read and rows filled."""
    key = table.c.id
    page = (
        select(key)
        .where(key > bindparam("after", type_=Text), *scope.clauses)
        .order_by(key)
        .limit(bindparam("hits", type_=Integer))
        .cte("_page")
        .prefix_with("MATERIALIZED")
    )
    kept = kept_words(table, table.c.document)
    changed = [table.c[name].is_distinct_from(value) for name, value in kept.items()]
    is_of_page = key.in_(select(page.c.id))
    besides = [*scope.clauses, *changed]
    filling = update(table).values(kept).returning(key)
    change = in_key_order(filling, [key], is_of_page, *scope.clauses, besides=besides)

    def of(change: Any) -> Select[Any]:
        count = select(func.count()).select_from(change.cte("_filled")).scalar_subquery()
        filled = select(func.max(page.c.id), func.count(), count).select_from(page)
        return filled.execution_options(writes=())

    return or_on_citus(of(change), lambda: of(on_citus(change)))


def merge_in_key_order(
    table: Table, scope: Scope, condition: ColumnElement[bool], form: Form
) -> Update:
    """Take paths out of payloads, and put values into them; an equal payload is left alone."""
    stored = as_jsonb(table.c.payload)
    payload = changed_payload(stored, form)
    changes: dict[str, Any] = touched_columns(table).values() | {"payload": payload}
    if "updated_at" in table.c:
        changes["updated_at"] = func.now()
    changed = stored.is_distinct_from(payload)
    change = update(table).values(changes)
    besides = [*scope.clauses, changed]
    return in_key_order(change, [table.c.id], condition, *scope.clauses, besides=besides)


def delete_in_key_order(table: Table, scope: Scope, condition: ColumnElement[bool]) -> Delete:
    """Remove rows."""
    own = scope.clauses
    return in_key_order(delete(table), [table.c.id], condition, *own, besides=own)
