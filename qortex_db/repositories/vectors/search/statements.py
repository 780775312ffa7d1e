"""Searches by one query, each one statement, built once for each form of it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Float,
    Integer,
    and_,
    bindparam,
    cast,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
)

from qortex_db.filters.columns import ColumnKey
from qortex_db.filters.expressions import Constant
from qortex_db.filters.fields import Field
from qortex_db.models.collection import collection_of
from qortex_db.repositories.statement_cache import MAX_TABLES, built_once
from qortex_db.repositories.vectors.search.boosts import BoostedRows, boosted
from qortex_db.repositories.vectors.search.found import found
from qortex_db.repositories.vectors.search.nearest import (
    Branch,
    Nearest,
    SearchForm,
    in_order,
)
from qortex_db.repositories.vectors.statements.filter_statements import value_at
from qortex_db.sql import Text, double, func
from qortex_db.types import JsonText
from qortex_db.values.keys import key_of, key_type

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause, Select, Table

    from qortex_db.filters import Filter
    from qortex_db.models import VectorSpec
    from qortex_db.repositories.vectors.rows.namespaces import Scope
    from qortex_db.repositories.vectors.search.boosts import BoostTerm
    from qortex_db.repositories.vectors.statements.filter_statements import Place
    from qortex_db.repositories.vectors.table import VectorTable

_HITS = bindparam("hits", type_=Integer)


class SearchStatements:
    """The searches of one table; rows are id, distance or score, payload, document, embedding."""

    def __init__(self, table: Table, vector: VectorSpec, scope: Scope) -> None:
        self.table = table
        self.vector = vector
        self.scope = scope
        self.rows = Nearest(table, vector, scope)

    @built_once
    def search(self, where: Filter | None, form: SearchForm) -> Select[Any]:
        """The nearest rows, nearest first; ties by id."""
        # Ties are broken outside: inside, that would lose the index.
        (hits,) = found([Branch(self.rows)], form, where)
        return in_order(select(*hits.c), form, hits.c.distance, hits.c.id)

    @built_once
    def by_index(self, form: SearchForm) -> Select[Any]:
        """The rows that the index finds nearest, be they too few; without settings."""
        hits = self.rows.nearest(form, None).subquery("_hits")
        return select(*hits.c).order_by(hits.c.distance, hits.c.id)

    @built_once
    def merged(self, where: Filter | None, form: SearchForm) -> Select[Any]:
        """The rows that the index of each of Citus's nodes finds nearest; ties as they come.

        Nothing is around it that the coordinator would keep a result for.
        """
        rows, clause = self.rows, None if where is None else where.clause
        if self.vector.quantization is not None:
            hits = rows.nearest(form, clause).subquery("_hits")
            return select(*hits.c).order_by(hits.c.distance)
        distance = rows.distance(rows.column)
        columns = [key_of(self.table), distance.label("distance"), *rows.columns(form)]
        conditions = [] if clause is None else [clause]
        found = select(*columns).where(rows.column.is_not(None), *self.scope.clauses, *conditions)
        return found.order_by(distance).limit(rows.candidates)

    @built_once
    def boosted(
        self, where: Filter | None, form: SearchForm, terms: tuple[BoostTerm, ...], start: float
    ) -> Select[Any]:
        """The candidates by what their scores become, best first, each with it as the last column.

        Args:
            start: The score at no distance.
        """
        (hits,) = _found_once(self.rows, form, where)
        rows = BoostedRows.of(self.table, terms)
        if form.distributed:
            rows = rows.read_of(hits, self.scope.clauses)
        score = boosted(rows, double(start) - hits.c.distance, terms).label("boosted")
        is_it = rows.table.c.id == hits.c.id
        if not form.distributed:
            is_it = and_(is_it, *self.scope.clauses)
        near = hits.c.distance <= bindparam("max_distance", type_=Float)
        # NaN, a zero vector's, is no distance. A row without an id says that the index fell short.
        near = and_(near, hits.c.distance != Constant("NaN"))
        scored = (
            select(*hits.c, score)
            .select_from(hits.outerjoin(rows.table, is_it))
            .where(or_(hits.c.id.is_(None), near))
            .subquery("_scored")
        )
        return (
            select(*scored.c)
            .order_by(
                scored.c.id.is_not(None), scored.c.boosted.desc(), scored.c.distance, scored.c.id
            )
            .limit(_HITS)
        )

    @built_once
    def groups(self, where: Filter | None, form: SearchForm, place: Place) -> Select[Any]:
        """The nearest rows of each value at a path, and how many rows were looked at."""
        (hits,) = _found_once(self.rows, form, where)
        value: ColumnElement[Any]
        has_value: ColumnElement[bool]
        shown_of: FromClause = hits
        rows: FromClause = hits.join(self.table, self.table.c.id == hits.c.id)
        scope = self.scope.clauses
        if isinstance(place, ColumnKey):
            value = value_at(self.table, place).label("value")
            has_value = value.is_not(None)
        else:
            field = Field(self.table, place)
            if form.distributed:  # what each has there is brought here before it is taken apart
                read = select(*hits.c, field.json.label("at")).select_from(rows).where(*scope)
                rows = shown_of = read.cte("_read").prefix_with("MATERIALIZED")
                field, scope = Field(shown_of, (), shown_of.c["at"]), ()
            each = field.each("each")
            once = select(each.c.value).distinct().correlate(field.table).lateral("_once")
            value = once.c.value
            rows = rows.join(once, true())
            has_value = func.jsonb_typeof(value) != literal_column("'null'", Text)
        keyed = (
            select(*(shown_of.c[column.key] for column in hits.c), value)
            .select_from(rows)
            .where(*scope)
            # A zero vector has no distance, so its row is no hit.
            .where(shown_of.c.distance != Constant("NaN"))
            .where(has_value)
            .subquery("_keyed")
        )
        order = (keyed.c.distance, keyed.c.id)
        placed = select(
            *keyed.c,
            func.row_number().over(partition_by=keyed.c.value, order_by=order).label("place"),
            func.first_value(keyed.c.distance)
            .over(partition_by=keyed.c.value, order_by=order)
            .label("best"),
        ).subquery("_placed")
        ranked = select(
            *placed.c,
            func.dense_rank().over(order_by=(placed.c.best, placed.c.value)).label("group"),
        ).subquery("_ranked")
        best = (
            select(*ranked.c)
            .where(ranked.c.place <= bindparam("group_size", type_=Integer))
            .where(ranked.c.group <= _HITS)
            .subquery("_best")
        )
        shown: ColumnElement[Any] = best.c.value
        if not isinstance(place, ColumnKey):
            shown = type_coerce(cast(shown, Text), JsonText())
        counts = func.count(hits.c.id).label("looked_at"), func.count().label("told")
        total = select(*counts).select_from(hits).subquery("_total")
        return (
            select(
                *(best.c[column.key] for column in hits.c),
                shown.label("value"),
                best.c.group,
                total.c.looked_at,
                total.c.told,
            )
            .select_from(total.outerjoin(best, true()))
            .order_by(best.c.group, best.c.place)
        )

    @built_once
    def within(self, where: Filter | None, form: SearchForm) -> Select[Any]:
        """All rows within a distance, nearest first."""
        distance = bindparam("max_distance", type_=Float)
        near = self.vector.distance(self.rows.column, self.rows.query) <= distance
        clause = None if where is None else where.clause
        hits = self.rows.nearest(form, clause, besides=[near], exact=True).subquery("_hits")
        return in_order(select(*hits.c), form, hits.c.distance, hits.c.id)

    @built_once
    def onwards(self, where: Filter | None, form: SearchForm, goes_on: bool) -> Select[Any]:  # noqa: FBT001 - of the key
        """The rows that come after one of a distance and a key, nearest first."""
        key, distance = self.table.c.id, self.rows.distance(self.rows.column)
        seen = (
            bindparam("after_distance", type_=Float),
            bindparam("after", type_=key_type(self.table).type),
        )
        besides = [tuple_(distance, key) > tuple_(*seen)] if goes_on else []
        clause = None if where is None else where.clause
        hits = self.rows.nearest(form, clause, besides=besides, exact=True).subquery("_hits")
        return select(*hits.c).order_by(hits.c.distance, hits.c.id)


def _found_once(rows: Nearest, form: SearchForm, where: Filter | None) -> list[FromClause]:
    """The candidates of which several things are asked: on Citus each would be found anew."""
    hits = found([Branch(rows)], form, where)
    if not form.distributed:
        return [*hits]
    return [select(*each.c).cte("_hits").prefix_with("MATERIALIZED") for each in hits]


def search_statements(vectors: VectorTable) -> SearchStatements:
    """The searches of a table by one of its vectors, the same object at every call."""
    return _search_statements(vectors.table, vectors.name, vectors.scope)


def first_search(vectors: VectorTable) -> Select[Any]:
    """What a process's first search sends, if it asks for nothing but the nearest."""
    return search_statements(vectors).by_index(SearchForm())


@functools.lru_cache(MAX_TABLES)
def _search_statements(table: Table, name: str, scope: Scope) -> SearchStatements:
    return SearchStatements(table, collection_of(table).vectors[name], scope)
