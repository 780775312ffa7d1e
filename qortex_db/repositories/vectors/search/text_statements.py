"""The rows whose documents have the words of a text, as a part of statements, with their ranks.

A stored tsvector is ranked as it is. Without one a document is parsed to be ranked, which takes
several times as long: so only so many of them are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, case, cast, null, select, union_all
from sqlalchemy.dialects.postgresql import TSQUERY

from qortex_db.filters.expressions import Constant
from qortex_db.filters.full_text import (
    is_found,
    is_whole,
    stored_words,
    text_configuration,
    web_tsquery,
    words,
)
from qortex_db.sql import Text, func
from qortex_db.values.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import CTE, ColumnElement, FromClause, Select, Subquery

    from qortex_db.repositories.vectors.search.nearest import Nearest

PARSED_DOCUMENTS: Final = 500
"""How many documents without stored words are parsed to be ranked; the nearest to the embedding."""
FOUND_ROWS: Final = 10_000
"""How many rows are looked at for a word, or to choose those that are parsed."""


def matching(
    rows: Nearest,
    conditions: Sequence[ColumnElement[bool]],
    near: ColumnElement[float] | None,
    rank_of: Callable[[ColumnElement[Any], FromClause], ColumnElement[float]] | None = None,
    *,
    apart: bool = False,
) -> Subquery:
    """The rows whose documents match the query, as id and rank: 0 is no match.

    Args:
        conditions: What else has to hold of a row.
        near: What the nearest rows have least of; None where there is no embedding.
        rank_of: The rank of a document by its words, and the rows that these are of; by default
            `ts_rank_cd` of the query.
        apart: Whether words are read before they are ranked, as Citus takes it.
    """
    table, configuration = rows.table, text_configuration(rows.table)
    query = web_tsquery(configuration, bindparam("text", type_=Text))

    def by_closeness(held: ColumnElement[Any], _: FromClause) -> ColumnElement[float]:
        return func.ts_rank_cd(held, query)

    rank_of = rank_of or by_closeness
    stored = stored_words(table)
    distance = null() if near is None else near
    columns = [key_of(table), distance.label("distance")]
    if apart:
        document = words(table.c.document, configuration) if stored is None else stored
        first = [] if near is None else [near]
        most = PARSED_DOCUMENTS if stored is None else FOUND_ROWS
        read = (
            select(*columns, document.label("held"))
            .where(is_found(document, query), *conditions)
            .order_by(*first, table.c.id)
            .limit(Constant(most))
            .cte("_read")
            .prefix_with("MATERIALIZED")
        )
        ranked = select(read.c.id, rank_of(read.c.held, read).label("rank"))
        return ranked.subquery("_matching")
    if stored is not None and is_whole(table):
        whole = rank_of(stored, table).label("rank")
        found = select(*columns, whole).where(is_found(stored, query), *conditions)
        return found.subquery("_matching")
    parsed = words(table.c.document, configuration)
    if stored is None:
        found = select(*columns, null().label("rank")).where(is_found(parsed, query), *conditions)
        found = found.limit(Constant(FOUND_ROWS))
    else:
        # A phrase is looked for in the stored words: in those of the index, it would be in parsed
        # documents. What others wrote may be stored of an older document, or not.
        every = without_phrases(query)
        rank = case((is_found(stored, every), rank_of(stored, table)))
        found = select(*columns, rank.label("rank")).where(
            is_found(parsed, every),
            case((is_found(stored, every), is_found(stored, query)), else_=is_found(parsed, query)),
            *conditions,
        )
    held = found.cte("_matched").prefix_with("MATERIALIZED")
    ranked = _parsed(rows, held, rank_of(parsed, table))
    if stored is None:
        return ranked.subquery("_matching")
    kept = select(held.c.id, held.c.rank).where(held.c.rank.is_not(None))
    return union_all(kept, ranked).subquery("_matching")


def without_phrases(query: ColumnElement[Any]) -> ColumnElement[Any]:
    """A query for all words of each phrase, in whatever order."""
    old, new, how = map(Constant, ("<(-|[0-9]+)>", "&", "g"))
    every = func.regexp_replace(cast(query, Text), old, new, how)
    return cast(every, TSQUERY)


def _parsed(rows: Nearest, held: CTE, rank: ColumnElement[float]) -> Select[Any]:
    """The nearest of the rows without a rank, with one."""
    chosen = (
        select(held.c.id)
        .where(held.c.rank.is_(None))
        .order_by(held.c.distance, held.c.id)
        .limit(Constant(PARSED_DOCUMENTS))
        .subquery("_chosen")
    )
    table = rows.table
    return (
        select(key_of(table), rank.label("rank"))
        .select_from(chosen.join(table, table.c.id == chosen.c.id))
        .where(*rows.scope.clauses)
    )
