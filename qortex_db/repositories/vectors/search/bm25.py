"""The rows whose documents have words of a text, ranked by BM25.

How often a document has a word, and how many words it has, is told by `ts_rank`, which counts in C
what `unnest` would lay out row by row: of one word that occurs n times it gives
(1 + 1/4 + … + 1/n²) / 1.64493406685, and where it is told to divide by the document's length, that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    REAL,
    Float,
    Integer,
    bindparam,
    case,
    cast,
    literal_column,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import TSQUERY, aggregate_order_by

from qortex_db.filters.expressions import Constant
from qortex_db.filters.full_text import (
    document_words,
    is_found,
    is_whole,
    stored_words,
    text_configuration,
    words,
)
from qortex_db.repositories.vectors.search.text_statements import FOUND_ROWS, PARSED_DOCUMENTS
from qortex_db.repositories.vectors.search.word_statements import asked_words, rows_of_words
from qortex_db.repositories.vectors.word_counts import ALL_DOCUMENTS, FREQUENCIES, counted_table
from qortex_db.sql import Text, double, func
from qortex_db.values.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement, Select, Subquery

    from qortex_db.repositories.vectors.search.nearest import Nearest

COUNTED_ROWS: Final = 50_000
"""How many rows the rarer words of a text bring in together, where they were counted."""

_ALIKE: Final[Any] = literal_column(
    "'{1,1,1,1}'::real[]"
)  # whatever weights a document's parts have
_ALL: Final = double(1.64493406685)  # of which `ts_rank` gives a part
_ONE, _HALF = double(1.0), double(0.5)


class WordRanks:
    """BM25 for the words of a text, as parts of one statement.

    Args:
        rows: Of the table.
        conditions: What has to hold of a row.
        counted: Whether the frequencies are there. Without, and where policies hide rows, it is
            told by the rows that are found how rare a word is.
        count: As of `rows_of_words`.
    """

    def __init__(
        self,
        rows: Nearest,
        conditions: Sequence[ColumnElement[bool]],
        *,
        counted: bool,
        count: int = 0,
    ) -> None:
        self._rows = rows
        self._counted = counted
        self._statistics = _statistics() if counted else None
        self._asked = self._with_frequencies(_asked(rows))
        self._found = self._pairs(conditions, count)
        self._weights = self._weighted()
        self._mean = self._mean_length()
        joined = aggregate_order_by(Constant(" | "), self._asked.c.number)
        query = cast(func.string_agg(cast(self._asked.c.query, Text), joined), TSQUERY)
        self._any = select(query.label("query")).cte("_any_word").prefix_with("MATERIALIZED")

    def best(self, near: ColumnElement[float] | None, limit: ColumnElement[int]) -> Subquery:
        """The rows with any of the words, as id and rank.

        Words that are too common to bring in rows, and documents that have to be parsed for it, are
        looked at in the best that the others bring in.

        Args:
            near: What the nearest rows have least of; None where there is no embedding.
            limit: How many of the best rows are wanted.
        """
        table, found, weights = self._rows.table, self._found, self._weights
        # Of a document whose words are not stored, as if it had each once, and a mean length.
        seen = self._saturation(found.c.times, found.c.length)
        share = weights.c.weight * func.coalesce(seen, _ONE, type_=Float)
        shares = (
            select(found.c.id, share.label("share"))
            .select_from(found.join(weights, found.c.number == weights.c.number))
            .where(~weights.c.common)
            .subquery("_shares")
        )
        scores = (
            select(shares.c.id, _sum(shares.c.share).label("score"))
            .group_by(shares.c.id)
            .subquery("_scores")
        )
        wide = func.greatest(limit, Constant(PARSED_DOCUMENTS), type_=Integer)
        common = select(func.bool_or(weights.c.common)).correlate(None).scalar_subquery()
        unread = select(func.bool_or(found.c.times.is_(None))).correlate(None).scalar_subquery()
        wanted = case((or_(common, unread), wide), else_=limit)
        best = (
            select(scores.c.id, scores.c.score)
            .order_by(scores.c.score.desc())
            .fetch(wanted, with_ties=True)
            .subquery("_best")
        )
        order = [best.c.score.desc(), *([] if near is None else [near]), best.c.id]
        placed = (
            select(best.c.id, best.c.score, func.row_number().over(order_by=order).label("place"))
            .select_from(best.join(table, table.c.id == best.c.id))
            .where(*self._rows.scope.clauses)
            .subquery("_placed")
        )
        read = (
            select(placed.c.id, placed.c.score, self._held(placed).label("held"))
            .select_from(placed.join(table, table.c.id == placed.c.id))
            .where(placed.c.place <= Constant(FOUND_ROWS), *self._rows.scope.clauses)
            .cte("_read")
            .prefix_with("MATERIALIZED")
        )
        rank = func.coalesce(self.rank(read.c.held, read), read.c.score, type_=Float)
        return select(read.c.id, rank.label("rank")).subquery("_matching")

    def rank(self, held: ColumnElement[Any], *of: Any) -> ColumnElement[float]:
        """The rank of a document by its words, which are read once; NULL where it has none.

        Args:
            of: The rows that it is of.
        """
        weights = self._weights
        document = (
            select(held.label("held")).offset(Constant(0)).correlate(*of).subquery("_document")
        )
        parts = [_part(document.c.held, self._any.c.query, method) for method in (0, 2)]
        sized = (
            select(document.c.held, _length(*parts).label("length"))
            .select_from(document.join(self._any, true()))
            .offset(Constant(0))
            .subquery("_sized")
        )
        part = _part(sized.c.held, weights.c.query, 0)
        each = (
            select(weights.c.weight, part.label("part"), sized.c.length)
            .select_from(sized.join(weights, true()))
            .offset(Constant(0))
            .subquery("_each_word")
        )
        share = each.c.weight * self._saturation(_times(each.c.part), each.c.length)
        shares = select(share.label("share")).subquery("_shares")
        return select(_sum(shares.c.share)).scalar_subquery()

    def _with_frequencies(self, asked: CTE) -> CTE:
        """The words with how many documents have them, and whether they bring in rows."""
        if self._statistics is None:
            columns = null().cast(Float).label("documents"), true().label("brings")
            return _kept(select(asked.c.number, asked.c.query, *columns), "asked")
        statistics = self._statistics
        frequencies = FREQUENCIES.alias("_frequencies")
        its = (frequencies.c.table_name == statistics.c.table_name) & (
            frequencies.c.word == asked.c.lexeme
        )
        # A word of one document is as rare as one that came since.
        known = func.coalesce(cast(frequencies.c.documents, Float), _ONE, type_=Float)
        with_them = (
            select(
                asked.c.number,
                asked.c.query,
                case((statistics.c.table_name.is_not(None), known)).label("documents"),
            )
            .select_from(asked.outerjoin(statistics, true()).outerjoin(frequencies, its))
            .subquery("_known")
        )
        order = with_them.c.documents, with_them.c.number
        place = func.row_number().over(order_by=order)
        total = func.sum(with_them.c.documents, type_=Float).over(order_by=order, rows=(None, 0))
        brings = func.coalesce(
            (total <= double(COUNTED_ROWS)) | (place == literal_column("1::bigint")), true()
        )
        return _kept(select(*with_them.c, brings.label("brings")), "asked")

    def _pairs(self, conditions: Sequence[ColumnElement[bool]], count: int) -> CTE:
        """The rows of each word, with what tells how often they have it."""
        table, asked = self._rows.table, self._asked
        stored = stored_words(table)
        most = COUNTED_ROWS if self._counted else FOUND_ROWS

        def having(query: ColumnElement[Any]) -> Select[Any]:
            times: ColumnElement[Any] = null().cast(Float)
            length: ColumnElement[Any] = null().cast(Float)
            if stored is not None:
                part, shorter = (_part(stored, query, method) for method in (0, 2))
                times, length = _times(part), _length(part, shorter)
            return (
                select(key_of(table), times.label("times"), length.label("length"))
                .where(is_found(document_words(table), query), *conditions)
                .limit(Constant(most))
            )

        return _kept(rows_of_words(asked, asked.c.brings, having, count), "found")

    def _weighted(self) -> CTE:
        """How rare each word is, and whether it is too common to bring in rows."""
        asked, found = self._asked, self._found
        counts = (
            select(found.c.number, func.count().label("rows"))
            .group_by(found.c.number)
            .cte("_counts")
        )
        distinct = select(found.c.id).group_by(found.c.id).subquery("_distinct_rows")
        every: ColumnElement[Any] = cast(
            select(func.count()).select_from(distinct).correlate(None).scalar_subquery(), Float
        )
        rows = cast(
            select(counts.c.rows)
            .where(counts.c.number == asked.c.number)
            .correlate(asked)
            .scalar_subquery(),
            Float,
        )
        if self._statistics is not None:
            documents = select(self._statistics.c.documents).correlate(None).scalar_subquery()
            every = func.coalesce(documents, every, type_=Float)
        its = func.coalesce(asked.c.documents, rows, double(0.0), type_=Float)
        others = func.greatest(every - its, double(0.0), type_=Float)
        rarity = func.ln(_ONE + (others + _HALF) / (its + _HALF), type_=Float)
        common: ColumnElement[bool] = ~asked.c.brings
        if not self._counted:
            fewer = (
                select(func.bool_or(counts.c.rows < Constant(FOUND_ROWS)))
                .correlate(None)
                .scalar_subquery()
            )
            common = func.coalesce((rows >= double(FOUND_ROWS)) & fewer, literal_column("false"))
        columns = asked.c.number, asked.c.query, rarity.label("weight"), common.label("common")
        return _kept(select(*columns), "weights")

    def _mean_length(self) -> CTE:
        """How many words a document has."""
        seen = select(func.avg(self._found.c.length, type_=Float)).scalar_subquery()
        known: ColumnElement[float] = seen
        if self._statistics is not None:
            counted = select(self._statistics.c.mean_length).scalar_subquery()
            known = func.coalesce(counted, seen, type_=Float)
        return _kept(select(func.nullif(known, double(0.0), type_=Float).label("length")), "mean")

    def _saturation(
        self, times: ColumnElement[float], length: ColumnElement[float]
    ) -> ColumnElement[float]:
        """What a word that comes so many times counts in a document of this length."""
        k1, b = bindparam("bm25_k1", type_=Float), bindparam("bm25_b", type_=Float)
        mean = select(self._mean.c.length).correlate(None).scalar_subquery()
        relative = func.coalesce(length / mean, _ONE, type_=Float)
        return times * (k1 + _ONE) / (times + k1 * (_ONE - b + b * relative))

    def _held(self, placed: Subquery) -> ColumnElement[Any]:
        """The words of a row, parsed only if they are not stored, and of the best rows."""
        table = self._rows.table
        stored = stored_words(table)
        if stored is not None and is_whole(table):
            return stored
        parsed = words(table.c.document, text_configuration(table))
        held: ColumnElement[Any] = case((placed.c.place <= Constant(PARSED_DOCUMENTS), parsed))
        if stored is None:
            return held
        query = select(self._any.c.query).correlate(None).scalar_subquery()
        return case((is_found(stored, query), stored), else_=held)


def _asked(rows: Nearest) -> CTE:
    configuration = text_configuration(rows.table)
    return asked_words(configuration, parameter="words", lexemes=True)


def _kept(statement: Any, name: str) -> CTE:
    made: CTE = statement.cte(f"_{name}").prefix_with("MATERIALIZED")
    return made


def _statistics() -> CTE:
    """What was counted of all documents: one row, or none."""
    named = counted_table()
    name = select(named.c.name).where(named.c.is_whole).correlate(None).scalar_subquery()
    statement = select(
        FREQUENCIES.c.table_name,
        cast(FREQUENCIES.c.documents, Float).label("documents"),
        FREQUENCIES.c.mean_length,
    )
    its = FREQUENCIES.c.table_name == name, FREQUENCIES.c.word == ALL_DOCUMENTS
    return _kept(statement.where(*its), "statistics")


def _sum(shares: ColumnElement[float]) -> ColumnElement[float]:
    """In their own order: equal ones in another order have to give an equal sum."""
    return func.sum(aggregate_order_by(shares, shares), type_=Float)


def _part(held: ColumnElement[Any], query: ColumnElement[Any], method: int) -> ColumnElement[Any]:
    """What `ts_rank` gives of one word; NULL where it is not there."""
    rank = func.ts_rank(_ALIKE, held, query, Constant(method), type_=REAL)
    return func.nullif(rank, literal_column("0.0::real"), type_=REAL)


def _times(part: ColumnElement[Any]) -> ColumnElement[float]:
    """How often a document has a word, which PostgreSQL counts up to 255."""
    missing = _ALL * (_ONE - cast(part, Float))  # 1/(n+1)² + … is about 1 / (n + .5)
    return func.round(_ONE / missing - _HALF, type_=Float)


def _length(part: ColumnElement[Any], shorter: ColumnElement[Any]) -> ColumnElement[float]:
    """How many words a document has."""
    return func.round(cast(part, Float) / cast(shorter, Float), type_=Float)
