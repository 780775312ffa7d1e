"""The rows whose documents have any of a text's words: those with more and with rarer ones first.

Each word is looked up in the index, so no document is read for it. How rare it is, is told by the
rows that were found: by BM25's inverse document frequency among all that have any of the words.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Float,
    Integer,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY, aggregate_order_by, array

from qortex_db.filters.expressions import Constant
from qortex_db.filters.full_text import (
    document_words,
    is_found,
    is_whole,
    stored_words,
    text_configuration,
    words,
)
from qortex_db.repositories.vectors.search.text_queries import MAX_WORDS
from qortex_db.repositories.vectors.search.text_statements import FOUND_ROWS, PARSED_DOCUMENTS
from qortex_db.sql import Text, double, func
from qortex_db.values.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import CTE, ColumnElement, Select, SelectBase, Subquery

    from qortex_db.repositories.vectors.search.nearest import Nearest

# What `ts_rank`, which is below 1, adds: only rows with the same words are told apart by it.
_CLOSENESS: Final = double(1e-6)


def with_any_word(
    rows: Nearest,
    conditions: Sequence[ColumnElement[bool]],
    near: ColumnElement[float] | None,
    limit: ColumnElement[int],
    count: int = 0,
) -> Subquery:
    """The rows with any of the words, as id and rank: the sum of the rarity of those they have.

    A word of `FOUND_ROWS` rows and more is looked for in the best rows that the others bring in,
    unless all are so common.

    Args:
        conditions: What else has to hold of a row.
        near: What the nearest rows have least of; None where there is no embedding.
        limit: How many of the best rows are wanted.
        count: As of `rows_of_words`.
    """
    asked = asked_words(text_configuration(rows.table))
    found = _found(rows, asked, conditions, count)
    weights = _weights(found)
    scores = (
        select(
            found.c.id,
            func.sum(aggregate_order_by(weights.c.weight, weights.c.weight)).label("score"),
        )
        .select_from(found.join(weights, found.c.number == weights.c.number))
        .where(~weights.c.common)
        .group_by(found.c.id)
        .subquery("_scores")
    )
    any_common = select(func.bool_or(weights.c.common)).scalar_subquery()
    wide = func.greatest(limit, Constant(PARSED_DOCUMENTS), type_=Integer)
    best = (
        select(scores.c.id, scores.c.score)
        .order_by(scores.c.score.desc())
        .fetch(case((any_common, wide), else_=limit), with_ties=True)
        .subquery("_best")
    )
    return _ranked(rows, best, asked, weights, near)


def asked_words(configuration: str, *, parameter: str = "text", lexemes: bool = False) -> CTE:
    """The first words of a text, each as a number and a query.

    Args:
        parameter: The text.
        lexemes: Give them, too.
    """
    text = words(bindparam(parameter, type_=Text), configuration)
    columns = column("lexeme", Text), "positions", "weights"
    parts = func.unnest(text).table_valued(*columns, name="parts")
    first = literal_column("parts.positions[1]", Integer)
    # As the server writes a tsvector, a query is read: with whatever is in a word quoted.
    quoted = cast(func.array_to_tsvector(array((parts.c.lexeme,))), Text)
    return (
        select(
            func.row_number().over(order_by=first).label("number"),
            cast(quoted, TSQUERY).label("query"),
            *([parts.c.lexeme] if lexemes else []),
        )
        .select_from(parts)
        .order_by(first)
        .limit(Constant(MAX_WORDS))
        .cte("_words")
        .prefix_with("MATERIALIZED")
    )


def _found(rows: Nearest, asked: CTE, conditions: Sequence[ColumnElement[bool]], count: int) -> CTE:
    """The rows of each word."""

    def having(query: ColumnElement[Any]) -> Select[Any]:
        is_there = is_found(document_words(rows.table), query)
        return select(key_of(rows.table)).where(is_there, *conditions).limit(Constant(FOUND_ROWS))

    found = rows_of_words(asked, true(), having, count)
    return found.cte("_found").prefix_with("MATERIALIZED")


def rows_of_words(
    asked: CTE,
    is_wanted: ColumnElement[bool],
    having: Callable[[ColumnElement[Any]], Select[Any]],
    count: int,
) -> SelectBase:
    """The rows of each word, with its number.

    Args:
        asked: The words.
        is_wanted: Which of them bring in rows.
        having: The rows that have what a query asks for.
        count: How many words there are, where rows lie on several nodes of Citus: each is then
            looked for by itself. 0 elsewhere.
    """
    if not count:
        rows = having(asked.c.query).correlate(asked).lateral("_having_it")
        return select(asked.c.number, *rows.c).select_from(asked.join(rows, is_wanted))
    parts = []
    for number in range(1, count + 1):
        own = select(asked.c.query).where(asked.c.number == Constant(number), is_wanted)
        rows_of = having(own.scalar_subquery()).subquery()
        parts.append(select(Constant(number).label("number"), *rows_of.c))
    return union_all(*parts)


@functools.cache
def word_count(configuration: str) -> Select[Any]:
    """How many words of a text are looked for."""
    return select(func.count()).select_from(asked_words(configuration))


def _weights(found: CTE) -> CTE:
    """How rare each word is, and whether it is too common to bring in rows."""
    counts = (
        select(found.c.number, func.count().label("rows")).group_by(found.c.number).cte("_counts")
    )
    distinct = select(found.c.id).group_by(found.c.id).subquery("_distinct_rows")
    every = select(func.count()).select_from(distinct).scalar_subquery()
    one, half = double(1.0), double(0.5)
    others, its = cast(every - counts.c.rows, Float), cast(counts.c.rows, Float)
    rarity = func.ln(one + (others + half) / (its + half), type_=Float)
    rarer = exists().where(counts.alias("_rarer").c.rows < Constant(FOUND_ROWS))
    return (
        select(
            counts.c.number,
            rarity.label("weight"),
            and_(counts.c.rows >= Constant(FOUND_ROWS), rarer).label("common"),
        )
        .cte("_weights")
        .prefix_with("MATERIALIZED")
    )


def _ranked(
    rows: Nearest,
    best: Subquery,
    asked: CTE,
    weights: CTE,
    near: ColumnElement[float] | None,
) -> Subquery:
    """The best rows with what the common words add, and how close the words are in a document."""
    table = rows.table
    order = [best.c.score.desc(), *([] if near is None else [near]), best.c.id]
    placed = (
        select(best.c.id, best.c.score, func.row_number().over(order_by=order).label("place"))
        .select_from(best.join(table, table.c.id == best.c.id))
        .where(*rows.scope.clauses)
        .subquery("_placed")
    )
    there = asked.join(weights, asked.c.number == weights.c.number)
    parsed = words(table.c.document, text_configuration(table))
    held: ColumnElement[Any] = case((placed.c.place <= Constant(PARSED_DOCUMENTS), parsed))
    stored = stored_words(table)
    if stored is not None and is_whole(table):
        held = stored
    elif stored is not None:
        held = case((is_found(stored, _joined(asked, weights, " | ")), stored), else_=held)
    read = (
        select(placed.c.id, placed.c.score, held.label("held"))
        .select_from(placed.join(table, table.c.id == placed.c.id))
        .where(placed.c.place <= Constant(FOUND_ROWS), *rows.scope.clauses)
        .cte("_read")
        .prefix_with("MATERIALIZED")
    )
    more = (
        select(func.sum(aggregate_order_by(weights.c.weight, weights.c.weight)))
        .select_from(there)
        .where(weights.c.common, is_found(read.c.held, asked.c.query))
        .correlate(read)
        .scalar_subquery()
    )
    close = func.ts_rank(read.c.held, _joined(asked, weights, " & "))
    rank = read.c.score + func.coalesce(more, 0) + _CLOSENESS * cast(func.coalesce(close, 0), Float)
    return select(read.c.id, rank.label("rank")).subquery("_matching")


def _joined(asked: CTE, weights: CTE, operator: str) -> ColumnElement[Any]:
    """The words that any row has, as one query."""
    between = aggregate_order_by(Constant(operator), asked.c.number)
    joined = func.string_agg(cast(asked.c.query, Text), between)
    there = asked.join(weights, asked.c.number == weights.c.number)
    return select(cast(joined, TSQUERY)).select_from(there).scalar_subquery()
