"""The rows nearest to queries, as a part of statements: under settings, and never too few."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    Float,
    Integer,
    bindparam,
    case,
    cast,
    exists,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import OID
from sqlalchemy.sql.expression import ColumnClause, TableClause

from qortex_db.checks import check_flag
from qortex_db.filters.expressions import Constant
from qortex_db.repositories.vectors.row_shape import row_shape
from qortex_db.sql import Text, double, func
from qortex_db.types import EncodedEmbeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement, FromClause, Select, Subquery, Table
    from sqlalchemy.types import TypeEngine

    from qortex_db.filters import Filter
    from qortex_db.models import VectorSpec
    from qortex_db.repositories.vectors.namespaces import Scope


_LEAST_ROW_BYTES: Final = double(500.0)
"""A table that was never analyzed is taken to have rows of this size, more than it has."""


@dataclass(frozen=True, slots=True)
class SearchForm:
    """What makes one search another statement than the next, beside its filter.

    Attributes:
        exact: Compare with every row instead of walking the index.
        bounded: Where the index finds fewer rows than were asked for, compare with every row only
            if the table has few. Without, however many there are.
        probed: Compare with every row that the filter's own index finds, if those are few.
        walk: The most rows that an index is read for. It is a constant of the statement, so that
            the server keeps one plan for all limits below; a parameter it would plan by anew.
        settings: Of pgvector, taken as parameters for this one statement.
    """

    exact: bool = False
    bounded: bool = False
    probed: bool = False
    walk: int = 40
    settings: tuple[str, ...] = ()
    with_payload: bool = True
    with_embedding: bool = False

    def __post_init__(self) -> None:
        for name in ("exact", "with_payload", "with_embedding"):
            check_flag(getattr(self, name), name=name)


class Nearest:
    """The nearest rows of one vector, as id, distance, payload, document and embedding.

    Args:
        prefix: Of its parameters' names, where a statement has others of the kind.
    """

    def __init__(self, table: Table, vector: VectorSpec, scope: Scope, prefix: str = "") -> None:
        self.table = table
        self.scope = scope
        self.vector = vector
        self.column = table.c[vector.column]
        self.query = bindparam(f"{prefix}query", type_=vector.type)
        self.candidates = bindparam(f"{prefix}candidates", type_=Integer)
        # How many a quantized index brings in, to be compared anew by the full vectors.
        self.oversampled = bindparam(f"{prefix}oversampled", type_=Integer)

    def nearest(
        self,
        form: SearchForm,
        where: ColumnElement[bool] | None,
        *,
        query: ColumnElement[Any] | None = None,
        then_by: ColumnElement[float] | None = None,
        besides: Sequence[ColumnElement[bool]] = (),
        exact: bool = False,
        after: Sequence[FromClause] = (),
        beside: Sequence[FromClause] = (),
    ) -> Select[Any]:
        """The candidates of a query, nearest first: a zero vector's distance, NaN, is the last.

        Args:
            then_by: What orders equally near rows before their ids do, where all are compared.
            besides: What else has to hold of a row.
            exact: Compare with every row, whatever the form says.
            after: What has to be run before, each with a column `go`.
            beside: What it is joined to, as a LATERAL subquery.
        """
        query = self.query if query is None else query
        exact = exact or form.exact
        rescored = self.vector.quantization is not None and not exact
        distance = self.vector.distance(self.column, query)
        columns = [self.table.c.id, distance.label("distance"), *self.columns(form)]
        # A sum is no expression that an index is on.
        order = distance + double(0.0) if exact else distance
        if rescored:
            order = self.vector.index_distance(self.column, query)
        # A row may lack this vector: it is no candidate of any search.
        statement = select(*columns).where(self.column.is_not(None), *self.scope.clauses, *besides)
        statement = statement.order_by(order)
        if exact:  # ties; before an index they would lose it
            ties = [self.table.c.id] if then_by is None else [then_by, self.table.c.id]
            statement = statement.order_by(*ties)
        if where is not None:
            statement = statement.where(where)
        statement = statement.where(*(each.c.go.is_not(None) for each in after))

        def inner(rows: Select[Any]) -> FromClause:
            return rows.correlate(*beside).lateral() if beside else rows.subquery()

        if exact:
            nearest = statement.limit(self.candidates)
        else:
            walked = inner(statement.limit(Constant(form.walk)))
            nearest = select(*walked.c).limit(self.oversampled if rescored else self.candidates)
        if rescored:
            # The index has found candidates by less than the full vectors; those decide.
            reached = inner(nearest)
            nearest = select(*reached.c).order_by(reached.c.distance).limit(self.candidates)
        return nearest.correlate(*beside) if beside else nearest

    def columns(self, form: SearchForm) -> list[ColumnElement[Any]]:
        """What a hit has beside its id and distance."""
        return row_shape(self.table).of_hit(
            self.column, with_payload=form.with_payload, with_embedding=form.with_embedding
        )


def sent_embeddings(vector: VectorSpec) -> TypeEngine[Any]:
    """The type of a parameter with several embeddings; each is then cast to the vector's own."""
    return ARRAY(Text) if vector.storage == "sparse" else EncodedEmbeddings()


@dataclass(frozen=True, slots=True)
class Branch:
    """Rows compared by one of their vectors: with one query, or with each of several.

    Attributes:
        query: The one; by default the rows' own parameter.
        queries: Several, as rows of a `query` and its `number`.
        then_by: What orders equally near rows before their ids do.
    """

    rows: Nearest
    query: ColumnElement[Any] | None = None
    queries: FromClause | None = None
    then_by: ColumnElement[float] | None = None

    def nearest(
        self,
        form: SearchForm,
        where: ColumnElement[bool] | None,
        besides: Sequence[ColumnElement[bool]],
        *after: FromClause,
        queries: FromClause | None,
        exact: bool = False,
    ) -> Select[Any]:
        """The candidates of each query, with its number where there are several.

        Args:
            after: What has to be run before, each with a column `go`.
            queries: Those that are looked for.
            exact: Compare with every row, whatever the form says.
        """
        query = self.query if queries is None else queries.c.query
        sources = list(after)
        if queries is not None and queries not in sources:
            sources.append(queries)
        near = self.rows.nearest(
            form,
            where,
            query=query,
            then_by=self.then_by,
            besides=besides,
            exact=exact,
            after=after,
            beside=sources,
        )
        if not sources:
            return near
        rows = near.lateral()
        numbers = [] if queries is None else [queries.c.number]
        joined = functools.reduce(lambda left, right: left.join(right, true()), [*sources, rows])
        return select(*numbers, *rows.c).select_from(joined)


def found(
    branches: Sequence[Branch],
    form: SearchForm,
    where: Filter | None,
    besides: Sequence[ColumnElement[bool]] = (),
) -> list[Subquery]:
    """The candidates of each branch: under settings, and from all rows where they fall short.

    A statement is planned whole, so what is not needed must cost nothing: the part that compares
    with every row is behind a gate that it refers to. Joined to that, it starts no workers.

    A row without an id says, where the form is bounded, that one of the queries fell short.
    """
    clause = None if where is None else where.clause
    if form.exact:
        exact = [each.nearest(form, clause, besides, queries=each.queries) for each in branches]
        return [rows.subquery(f"found_{i}") for i, rows in enumerate(exact)]
    many = settings = None
    searched = clause
    if form.probed and where is not None and branches:
        many = _many(branches[0].rows, where)
        searched = where.clause.is_(true())  # which no index serves but the vectors' own
    if form.settings:
        settings = _settings(form.settings, many)
    all_hits: list[CTE] = []
    after = [] if settings is None else [settings]
    for i, branch in enumerate(branches):
        near = branch.nearest(form, searched, besides, *after, queries=branch.queries)
        all_hits.append(near.cte(f"hits_{i}").prefix_with("MATERIALIZED"))
    restored = None if settings is None else _restored(settings, form.settings, all_hits)
    subqueries = []
    for i, (branch, hits) in enumerate(zip(branches, all_hits, strict=True)):
        short = _short(branch, hits, restored).cte(f"short_{i}").prefix_with("MATERIALIZED")
        compared = short
        if form.bounded:
            allowed = [_has_few_rows()]
            if many is not None:
                allowed.append(~exists(select(many.c.go)))
            compared = select(*short.c).where(or_(*allowed)).cte(f"compared_{i}")
        rest = branch.nearest(
            form,
            clause,
            besides,
            compared,
            queries=None if branch.queries is None else compared,
            exact=True,
        )
        parts = [select(*hits.c).where(_is_none_of(hits, compared)), rest]
        if form.bounded:
            nulls = [null() for column in hits.c if column.key != "number"]
            numbers = [short.c.number] if "number" in short.c else []
            marks = select(*numbers, *nulls).select_from(short)
            parts.append(marks.where(_is_none_of(short, compared)))
        subqueries.append(union_all(*parts).subquery(f"found_{i}"))
    return subqueries


def _is_none_of(rows: FromClause, others: CTE) -> ColumnElement[bool]:
    if "number" in rows.c:
        return rows.c.number.not_in(select(others.c.number))
    return ~exists(select(others.c.go).correlate(None))


def _count(rows: FromClause) -> ColumnElement[int]:
    return select(func.count()).select_from(rows).correlate(None).scalar_subquery()


def _short(branch: Branch, hits: CTE, restored: CTE | None) -> Select[Any]:
    """The queries that brought in fewer than were asked for; settings are put back in any case."""
    wanted = branch.rows.candidates
    go = true().label("go")
    if branch.queries is None:
        is_short = _count(hits) < wanted
        short = select(go)
    else:
        queries = branch.queries
        counts = select(hits.c.number, func.count().label("count")).group_by(hits.c.number)
        counted = counts.subquery()
        is_short = func.coalesce(counted.c.count, Constant(0)) < wanted
        short = select(queries.c.query, queries.c.number, go).select_from(
            queries.outerjoin(counted, counted.c.number == queries.c.number)
        )
    if restored is not None:  # of an AND the server may leave a part out
        is_short = case((_count(restored) >= Constant(0), is_short))
    return short.where(is_short)


def _many(rows: Nearest, where: Filter) -> CTE:
    """One row if an index finds as many rows as are not to be compared each, or more."""
    most = bindparam("probed_rows", type_=Integer)
    served = where.served
    assert served is not None  # noqa: S101 - the form is probed
    probe: Select[Any] = select(literal_column("1")).select_from(rows.table)
    probe = probe.where(served, *rows.scope.clauses).limit(most)
    return (
        select(true().label("go"))
        .where(_count(probe.subquery("probe")) >= most)
        .cte("many")
        .prefix_with("MATERIALIZED")
    )


def _settings(names: tuple[str, ...], many: CTE | None) -> CTE:
    """Set what searches are run under, and keep what was: nothing where few rows are compared.

    A search has to refer to it, or the planner runs the search first. The old values are put back
    because in a unit of work they would stay for the rest of its transaction.
    """
    keys = [Constant(name) for name in names]
    old = [func.current_setting(key, true()).label(f"old_{i}") for i, key in enumerate(keys)]
    before = select(*old).cte("before").prefix_with("MATERIALIZED")
    values = [cast(bindparam(name.partition(".")[2]), Text) for name in names]
    go, *others = [func.set_config(*pair, true()) for pair in zip(keys, values, strict=True)]
    new = [go.label("go"), *(each.label(f"new_{i}") for i, each in enumerate(others))]
    source = before if many is None else before.join(many, true())
    statement = select(*before.c, *new).select_from(source)
    return statement.cte("settings").prefix_with("MATERIALIZED")


def _restored(settings: CTE, names: tuple[str, ...], all_hits: Sequence[CTE]) -> CTE:
    """Put the old settings back, once all searches are done."""
    put_back = [
        func.set_config(Constant(name), settings.c[f"old_{i}"], true()).label(f"restored_{i}")
        for i, name in enumerate(names)
    ]
    done = [_count(hits) >= Constant(0) for hits in all_hits]
    return select(*put_back).where(*done).cte("restored").prefix_with("MATERIALIZED")


def _has_few_rows() -> ColumnElement[bool]:
    """Whether the table, with all its partitions, has few enough rows to be compared each.

    By the planner's count; where it has none yet, by the table's size.
    """
    relation = cast(func.to_regclass(bindparam("table_name", type_=Text)), OID)
    columns = ("oid", "relkind", "reltuples")
    tables = TableClause("pg_class", *map(ColumnClause, columns), schema="pg_catalog")
    tree = func.pg_partition_tree(relation).table_valued("relid")
    counted = case(
        (tables.c.reltuples >= Constant(0), tables.c.reltuples),
        else_=cast(func.pg_relation_size(tables.c.oid), Float) / _LEAST_ROW_BYTES,
    )
    rows = select(func.coalesce(func.sum(counted), double(0.0))).where(
        or_(tables.c.oid == relation, tables.c.oid.in_(select(cast(tree.c.relid, OID)))),
        tables.c.relkind != literal_column("'p'::\"char\""),
    )
    return rows.scalar_subquery() <= bindparam("max_compared_rows", type_=Float)
