"""The rows nearest to queries, as a part of statements: under settings, and never too few."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    Integer,
    bindparam,
    select,
    true,
)

from qortex_db.checks import check_flag
from qortex_db.filters.expressions import Constant
from qortex_db.repositories.vectors.rows.row_shape import row_shape
from qortex_db.sql import Text, double, func
from qortex_db.types import EncodedEmbeddings
from qortex_db.values.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, FromClause, Select, Table
    from sqlalchemy.types import TypeEngine

    from qortex_db.models import VectorSpec
    from qortex_db.repositories.vectors.rows.namespaces import Scope
    from qortex_db.repositories.vectors.rows.payload_parts import Body


@dataclass(frozen=True, slots=True)
class SearchForm:
    """What makes one search another statement than the next, beside its filter.

    Attributes:
        exact: Compare with every row instead of walking the index.
        bounded: Where the index finds fewer rows than were asked for, compare with every row only
            if the table has few. Without, however many there are.
        probed: Up to how many rows that the filter's own index finds are compared each.
        partitioned: Whether these lie in several tables; only of what is probed.
        walk: The most rows that are looked for. It is a constant of the statement, so that the
            server keeps one plan for all limits below; by a parameter it would plan each time.
        settings: Of pgvector, taken as parameters for this one statement.
        distributed: Whether the rows lie on several nodes of Citus.
        queries: How many there are, where that is so.
        skips: Leave out the first of its rows, as many as the parameter `skipped` says.
    """

    exact: bool = False
    bounded: bool = False
    probed: int = 0
    partitioned: bool = False
    walk: int = 40
    settings: tuple[str, ...] = ()
    distributed: bool = False
    queries: int = 1
    skips: bool = False
    with_payload: Body = True
    with_embedding: bool = False

    def __post_init__(self) -> None:
        for name in ("exact", "with_embedding"):
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
        then_by: Nearest | None = None,
        besides: Sequence[ColumnElement[bool]] = (),
        exact: bool = False,
        after: Sequence[FromClause] = (),
        beside: Sequence[FromClause] = (),
    ) -> Select[Any]:
        """The candidates of a query, nearest first: a zero vector's distance, NaN, is the last.

        Args:
            then_by: By whose distances equally near rows are ordered, where all are compared.
            besides: What else has to hold of a row.
            exact: Compare with every row, whatever the form says.
            after: What has to be run before, each with a column `go`.
            beside: What it is joined to, as a LATERAL subquery.
        """
        query = self.query if query is None else query
        exact = exact or form.exact
        rescored = self.vector.quantization is not None and not exact
        distance = self.distance(self.column, query)
        columns = [key_of(self.table), distance.label("distance"), *self.columns(form)]
        # A sum is no expression that an index is on.
        order = distance + double(0.0) if exact else distance
        if rescored:
            order = self.vector.index_distance(self.column, query)
        # A row may lack this vector: it is no candidate of any search.
        statement = select(*columns).where(self.column.is_not(None), *self.scope.clauses, *besides)
        statement = statement.order_by(order)
        if exact:  # ties; before an index they would lose it
            ties = [] if then_by is None else [then_by.distance(then_by.column)]
            statement = statement.order_by(*ties, self.table.c.id)
        if where is not None:
            statement = statement.where(where)
        statement = statement.where(*(each.c.go.is_not(None) for each in after))

        def inner(rows: Select[Any]) -> FromClause:
            return rows.correlate(*beside).lateral() if beside else rows.subquery()

        walked = inner(statement.limit(Constant(form.walk)))
        nearest = select(*walked.c).limit(self.oversampled if rescored else self.candidates)
        if rescored:
            # The index has found candidates by less than the full vectors; those decide.
            reached = inner(nearest)
            nearest = select(*reached.c).order_by(reached.c.distance).limit(self.candidates)
        return nearest.correlate(*beside) if beside else nearest

    def distance(
        self, column: ColumnElement[Any], query: ColumnElement[Any] | None = None
    ) -> ColumnElement[float]:
        """How far a vector, of the table or of what was selected from it, is from a query."""
        return self.vector.distance(column, self.query if query is None else query)

    def similarity(self, distance: ColumnElement[float]) -> ColumnElement[Any]:
        """What a distance is as a similarity, above zero for what is alike, by any metric."""
        if self.vector.metric == "cosine":
            return 1.0 - distance
        if self.vector.metric == "inner_product":
            return -distance
        return 1.0 / (1.0 + distance)

    def columns(self, form: SearchForm) -> list[ColumnElement[Any]]:
        """What a hit has beside its id and distance."""
        return row_shape(self.table).of_hit(
            self.column, with_payload=form.with_payload, with_embedding=form.with_embedding
        )


def in_order(rows: Select[Any], form: SearchForm, *keys: ColumnElement[Any]) -> Select[Any]:
    """Rows of a search in its order, without those that it skips."""
    ordered = rows.order_by(*keys)
    return ordered.offset(bindparam("skipped", type_=Integer)) if form.skips else ordered


def sent_embeddings(vector: VectorSpec) -> TypeEngine[Any]:
    """The type of a parameter with several embeddings; each is then cast to the vector's own."""
    return ARRAY(Text) if vector.storage == "sparse" else EncodedEmbeddings()


@dataclass(frozen=True, slots=True)
class Branch:
    """Rows compared by one of their vectors: with one query, or with each of several.

    Attributes:
        query: The one; by default the rows' own parameter.
        queries: Several, as rows of a `query` and its `number`.
        then_by: By whose distances equally near rows are ordered, before their ids do that.
        only: What else has to hold of its rows.
    """

    rows: Nearest
    query: ColumnElement[Any] | None = None
    queries: FromClause | None = None
    then_by: Nearest | None = None
    only: tuple[ColumnElement[bool], ...] = ()

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
            besides=[*besides, *self.only],
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


def count_of(rows: FromClause) -> ColumnElement[int]:
    """How many rows there are, as a scalar."""
    return select(func.count()).select_from(rows).correlate(None).scalar_subquery()
