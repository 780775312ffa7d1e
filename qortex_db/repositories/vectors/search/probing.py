"""The rows that a filter's own index finds, where those are few enough to be compared each.

The planner does not know it: a walk through the vectors' index looks cheap to it, whatever a filter
leaves of what it finds. So a statement looks for itself, at a sample of the table and then at the
rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Float,
    and_,
    bindparam,
    cast,
    column,
    exists,
    literal_column,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.types import NullType

from qortex_db.filters.expressions import Constant
from qortex_db.repositories.vectors.search.nearest import count_of
from qortex_db.sql import func
from qortex_db.values.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, TextClause
    from sqlalchemy.sql.selectable import ScalarSelect

    from qortex_db.filters import Filter
    from qortex_db.repositories.vectors.search.nearest import Branch, Nearest, SearchForm

_SAMPLE: Final = 96
"""About how many rows of a table are looked at."""
_FIRST: Final = 32
"""Where none of so many matches, those that do are taken to be rare: to look at more costs more."""
_TOLD_FROM: Final = Constant(4)
"""How many rows of a sample have to match before it says anything."""
PLACE: Final[ColumnElement[Any]] = literal_column("ctid", NullType())
"""Where a row is, for as long as a statement runs; in each of a table's partitions."""


def has_few_rows() -> ColumnElement[bool]:
    """Whether the table, with all its partitions, has few enough rows to be compared each.

    By the planner's count; one that was never analyzed is taken to have rows of 500 bytes, with
    what lies in TOAST. A view is never known to have few.
    """
    total = text("""
SELECT coalesce(pg_catalog.sum(CASE WHEN c.reltuples >= 0.0::real THEN c.reltuples::float8
  WHEN c.relkind IN ('v'::"char", 'f'::"char") THEN 'Infinity'::float8
  ELSE pg_catalog.pg_table_size(c.oid)::float8 / 500.0::float8 END), 0.0::float8)
FROM pg_catalog.pg_class c
WHERE c.relkind <> 'p'::"char" AND c.oid = ANY (ARRAY(
  SELECT pg_catalog.to_regclass(CAST(:table_name AS text))::oid UNION ALL
  SELECT part.relid::oid FROM pg_catalog.pg_partition_tree(
    pg_catalog.to_regclass(CAST(:table_name AS text))) part))
""").columns(column("total", Float))
    return total.scalar_subquery() <= bindparam("max_compared_rows", type_=Float)


def probed(
    branches: Sequence[Branch],
    form: SearchForm,
    where: Filter,
    besides: Sequence[ColumnElement[bool]],
) -> tuple[CTE, CTE]:
    """The few rows that match, with `_compared`; and one row in their place if they are too many.

    They are not even looked for where a sample of the table says so. How many are few is a constant
    of the statement: by a parameter the planner would take it for a tenth of all.
    """
    rows = branches[0].rows
    too_many = Constant(form.probed + 1)
    rare = _rare(rows, where, too_many, partitioned=form.partitioned)
    compared = [_compared(each).label(f"compared_{i}") for i, each in enumerate(branches)]
    matching = (
        select(key_of(rows.table), PLACE.label("place"), *compared)
        .where(where.planned_once, *rows.scope.clauses, *besides, rare.c.go.is_not(None))
        .limit(too_many)
        .correlate(rare)
        .lateral("_matching")
    )
    few = (
        select(*matching.c)
        .select_from(rare.join(matching, true()))
        .cte("_few")
        .prefix_with("MATERIALIZED")
    )
    is_too_many = or_(~exists(select(rare.c.go)), count_of(few) >= too_many)
    many = select(true().label("go")).where(is_too_many).cte("_many")
    return few, many.prefix_with("MATERIALIZED")


def _compared(branch: Branch) -> ColumnElement[Any]:
    """A row's distance from the one query, which is small; its vector where there are several."""
    rows = branch.rows
    return rows.column if branch.queries is not None else rows.distance(rows.column, branch.query)


def _rare(rows: Nearest, where: Filter, too_many: ColumnElement[int], *, partitioned: bool) -> CTE:
    """One row unless a sample has more rows that the filter's index would find than are probed."""
    served: Any = where.served
    matches = and_(served, *rows.scope.clauses)
    is_in_sample = _is_in_partitions if partitioned else _is_in_sample
    first = select(Constant(1)).select_from(rows.table).where(is_in_sample(_FIRST))
    seen = func.count().label("seen")
    matched = func.count().filter(matches).label("matched")
    sample = select(seen, matched).select_from(rows.table).where(is_in_sample(_SAMPLE))
    told = sample.subquery("_sample")
    # Where policies hide rows, their conditions come first, and no index of a payload is used.
    total = _OF_PARTITIONS if partitioned else "c.reltuples::float8"
    size = text(f"""
SELECT {total} AS total, pg_catalog.row_security_active(c.oid) AS is_guarded
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(CAST(:table_name AS text))::oid
""").columns(column("total", Float), column("is_guarded", Boolean))  # noqa: S608 - SQL of ours
    table = size.subquery("_size")
    estimate = cast(told.c.matched, Float) * table.c.total
    is_few = or_(
        told.c.matched < _TOLD_FROM, estimate < cast(too_many, Float) * cast(told.c.seen, Float)
    )
    is_rare = or_(~exists(first.where(matches)), select(is_few).correlate(table).scalar_subquery())
    statement = select(true().label("go")).select_from(table).where(~table.c.is_guarded, is_rare)
    return statement.cte("_rare").prefix_with("MATERIALIZED")


def _is_in_sample(size: int) -> ColumnElement[bool]:
    """Whether a row is one of so many, all over the table, whatever pattern its rows have.

    TABLESAMPLE would go through the numbers of all pages.
    """
    places = text(f"""
SELECT ('(' || ((pg_catalog.hashint4(number) & 2147483647) % c.relpages)::text || ','
  || (1 + (pg_catalog.hashint4(-number) & 3))::text || ')')::tid AS place
FROM pg_catalog.pg_class c, pg_catalog.generate_series(1, {size}) number
WHERE c.relpages > 0 AND c.oid = pg_catalog.to_regclass(CAST(:table_name AS text))::oid
""")  # noqa: S608 - a number of ours
    return _is_one_of(places)


def _is_in_partitions(size: int) -> ColumnElement[bool]:
    """The same of a partitioned table: places of the largest partition, looked for in each.

    As many as are there in all of them: so each row has the same chance, in whichever it is.
    """
    places = text(f"""
SELECT ('(' || ((pg_catalog.hashint4(number) & 2147483647) % size.pages)::text || ','
  || (1 + (pg_catalog.hashint4(-number) & 3))::text || ')')::tid AS place
FROM (
  SELECT pg_catalog.max(c.relpages) AS pages, pg_catalog.ceil({size}.0::float8
    * pg_catalog.max(c.relpages)::float8 / pg_catalog.sum(c.relpages)::float8)::int4 AS count
  FROM pg_catalog.pg_class c WHERE c.relpages > 0 AND c.oid = ANY (ARRAY(
    SELECT part.relid::oid FROM pg_catalog.pg_partition_tree(
      pg_catalog.to_regclass(CAST(:table_name AS text))) part))
) size, pg_catalog.generate_series(1, size.count) number
""")  # noqa: S608 - the same
    return _is_one_of(places)


_OF_PARTITIONS: Final = """(
  SELECT pg_catalog.sum(own.reltuples::float8) FROM pg_catalog.pg_class own
  WHERE own.reltuples >= 0.0::real AND own.relkind <> 'p'::"char" AND own.oid = ANY (ARRAY(
    SELECT part.relid::oid FROM pg_catalog.pg_partition_tree(c.oid::regclass) part)))"""
"""The rows that the planner takes all partitions to have."""


def _is_one_of(places: TextClause) -> ColumnElement[bool]:
    chosen: ScalarSelect[Any] = places.columns(column("place", NullType())).scalar_subquery()
    at: ColumnElement[Any] = func.any(func.array(chosen))
    return PLACE == at  # noqa: SIM300 - ANY stands on the right
