"""The row that says of a table which embeddings it is searched by, and what the rows still lack."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Float,
    Integer,
    bindparam,
    case,
    cast,
    column,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.sql.elements import Grouping

from qortex_db.models import EmbeddingChangeover
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.names import literal, qualified
from qortex_db.repositories.locking import locked_in_key_order
from qortex_db.repositories.statement_cache import MAX_TABLES, built_once
from qortex_db.repositories.vectors.statements.key_statements import by_key, ids_array
from qortex_db.sql import Text, func
from qortex_db.translation import STILL_MISSING
from qortex_db.values.keys import key_columns, key_of, key_type

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Executable, Select, Subquery, Table, Update

    from qortex_db.filters import Filter
    from qortex_db.models.changing import Changeover
    from qortex_db.repositories.vectors.rows.namespaces import Scope

CHANGEOVERS: Final[Any] = EmbeddingChangeover.__table__
LOCK_TIMEOUT: Final = "2s"
"""How long a switch waits for the writers that have begun, and others behind it."""

_SWITCH: Final = """
DECLARE before text := pg_catalog.current_setting('lock_timeout'::text);
BEGIN
  PERFORM pg_catalog.set_config('lock_timeout'::text, '{timeout}'::text, true);
  LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;
  PERFORM pg_catalog.set_config('lock_timeout'::text, before, true);
  IF pg_catalog.row_security_active({relation}::pg_catalog.regclass::oid) THEN
    RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'policies hide rows of it';
  END IF;
  IF EXISTS (SELECT FROM {table} WHERE ({old} IS NULL) <> ({new} IS NULL) AND {wanted} IS NULL)
  THEN
    RAISE EXCEPTION USING ERRCODE = '{missing}';
  END IF;
  UPDATE {changeovers}
  SET is_switched = {to}, is_closing = false, switched_at = pg_catalog.now()
  WHERE table_name = {name}::text AND ended_at IS NULL;
END
"""


def _columns() -> Subquery:
    found = text("""
SELECT pg_catalog.quote_ident(n.nspname::text) || '.'::text
  || pg_catalog.quote_ident(c.relname::text) AS name, a.attname::text AS attribute,
  a.atttypmod::int AS size
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0::smallint
WHERE c.oid = pg_catalog.to_regclass(CAST(:relation AS text))::oid AND NOT a.attisdropped
""")
    parts = column("name", Text), column("attribute", Text), column("size", Integer)
    return found.columns(*parts).subquery("_columns")


@functools.cache
def changeover_of() -> Select[Any]:
    """What a `Changeover` is made of."""
    rows, of = CHANGEOVERS.c, _columns()
    has_ended = rows.ended_at.is_not(None)
    attribute = case((has_ended, rows.column_name), else_=rows.new_name)
    return select(
        rows.column_name,
        rows.old_name,
        rows.new_name,
        of.c.size,
        rows.metric,
        rows.storage,
        rows.quantization,
        rows.is_switched,
        rows.model,
        has_ended.label("has_ended"),
    ).where(rows.table_name == of.c.name, of.c.attribute == attribute)


@functools.cache
def name_model() -> Update:
    """Say whose the new embeddings are, unless somebody has said that they are another's."""
    rows, of = CHANGEOVERS.c, _columns()
    model = bindparam("model_label", type_=Text)
    mine = select(of.c.name).where(of.c.attribute == rows.new_name).correlate(CHANGEOVERS)
    return (
        update(CHANGEOVERS)
        .where(rows.table_name.in_(mine), or_(rows.model.is_(None), rows.model == model))
        .values(model=model)
    )


@functools.cache
def close() -> Update:
    """Have writes without the new embeddings refused."""
    rows, of = CHANGEOVERS.c, _columns()
    mine = select(of.c.name).where(of.c.attribute == rows.new_name).correlate(CHANGEOVERS)
    return update(CHANGEOVERS).where(rows.table_name.in_(mine)).values(is_closing=true())


class FillStatements:
    """What finds and fills the rows that lack the embeddings of one of two models.

    Args:
        table: As `changing_table` makes it.
        wanted: The key of the column that is filled.
    """

    def __init__(self, table: Table, scope: Scope, changeover: Changeover, wanted: str) -> None:
        self.table = table
        self.scope = scope
        self.wanted = table.c[wanted]
        current, other = table.c[DEFAULT_VECTOR], table.c[changeover.other]
        old, new = (other, current) if changeover.is_switched else (current, other)
        # As the partial index says it.
        is_null = Grouping(old.is_(None)), Grouping(new.is_(None))
        self.has_one: ColumnElement[bool] = is_null[0].op("<>", is_comparison=True)(is_null[1])

    @built_once
    def page(self, where: Filter | None, goes_on: bool) -> Select[Any]:  # noqa: FBT001 - of the key
        """Rows that can be filled, in the order of their keys: key and document."""
        table = self.table
        after = bindparam("after", type_=key_type(table).type)
        conditions = [] if where is None else [where.clause]
        if goes_on:
            conditions.append(table.c.id > after)
        return (
            select(key_of(table), table.c.document)
            .where(self.has_one, self.wanted.is_(None), table.c.document.is_not(None))
            .where(*conditions, *self.scope.clauses)
            .order_by(*key_columns(table))
            .limit(bindparam("hits", type_=Integer))
        )

    @functools.cached_property
    def fill(self) -> Executable:
        """Fill the rows that are still as they were read, in key order."""
        table, owner = self.table, by_key(self.table, self.scope)
        values = owner.given_rows((("document", "all"),)).values
        own: list[Any] = key_columns(table)
        needed = [*(str(part.key) for part in own), "vec", "document"]
        new = select(*(values[name].label(name) for name in needed)).subquery("_new")
        keys = locked_in_key_order(
            [table.c.id], table.c.id == func.any(ids_array(table)), *self.scope.clauses
        )
        is_same = [part == new.c[part.key] for part in own]
        return (
            update(table)
            .where(*is_same, table.c.id == keys.c.id, *self.scope.clauses)
            .where(self.wanted.is_(None), table.c.document == new.c.document)
            .values({self.wanted: cast(new.c.vec, self.wanted.type)})
        )

    @functools.cached_property
    def missing(self) -> Select[Any]:
        """The changeover's times, and how many rows lack the embedding, without a document too."""
        table, rows, of = self.table, CHANGEOVERS.c, _columns()
        document = table.c.document if "document" in table.c else None
        lacks = (
            select(
                func.count().label("missing"),
                (func.count() if document is None else func.count(document)).label("fillable"),
            )
            .where(self.has_one, self.wanted.is_(None), *self.scope.clauses)
            .subquery("_lacks")
        )
        age = cast(func.extract("epoch", func.clock_timestamp() - rows.began_at), Float)
        return (
            select(rows.table_name, rows.began_at, rows.switched_at, age, *lacks.c)
            .select_from(CHANGEOVERS.join(of, rows.table_name == of.c.name).join(lacks, true()))
            .where(of.c.attribute == rows.new_name)
        )


@functools.lru_cache(MAX_TABLES)
def fill_statements(
    table: Table, scope: Scope, changeover: Changeover, wanted: str
) -> FillStatements:
    """Those of a table, the same object at every call."""
    return FillStatements(table, scope, changeover, wanted)


def switch(table: str, changeovers: str, name: str, changeover: Changeover) -> Executable:
    """Switch to the other embeddings, in one statement, unless a row lacks them.

    It waits for the writers that have begun, and holds up others for as long: each of those sees
    the switch. What is right before it is right after it.

    Args:
        table: As SQL has it.
        changeovers: Our own table, likewise.
        name: The table's in there.
    """
    old, new = qualified(changeover.column), qualified(changeover.new_name)
    body = _SWITCH.format(
        timeout=LOCK_TIMEOUT,
        table=table,
        relation=literal(table),
        changeovers=changeovers,
        old=old,
        new=new,
        wanted=old if changeover.is_switched else new,
        to="false" if changeover.is_switched else "true",
        name=literal(name),
        missing=STILL_MISSING,
    )
    return text(f"DO {literal(body)}".replace(":", r"\:"))
