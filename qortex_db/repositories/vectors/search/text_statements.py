"""The rows whose documents have the words of a text, as a part of statements, with their ranks.

A stored tsvector is ranked as it is. Without one a document is parsed to be ranked, which takes
several times as long: so only so many of them are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, bindparam, case, func, null, select, union_all

from qortex_db.filters.expressions import Constant
from qortex_db.filters.full_text import (
    document_words,
    stored_words,
    text_configuration,
    web_tsquery,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement, Select, Subquery

    from qortex_db.repositories.vectors.search.nearest import Nearest

PARSED_DOCUMENTS: Final = 500
"""How many documents without stored words are parsed to be ranked; the nearest to the embedding."""
FOUND_ROWS: Final = 10_000
"""How many matching rows are looked at to choose these."""


def matching(
    rows: Nearest, conditions: Sequence[ColumnElement[bool]], near: ColumnElement[float] | None
) -> Subquery:
    """The rows whose documents match the query, as id and rank: by `ts_rank_cd`, 0 is no match.

    Args:
        conditions: What else has to hold of a row.
        near: What the nearest rows have least of; None where there is no embedding.
    """
    table, configuration = rows.table, text_configuration(rows.table)
    query = web_tsquery(configuration, bindparam("text", type_=Text))
    stored = stored_words(table)
    matches = document_words(table).op("@@", is_comparison=True)(query)
    rank: ColumnElement[Any] = null() if stored is None else func.ts_rank_cd(stored, query)
    whole = stored is not None and stored.computed is not None
    if stored is not None and not whole:  # of what others wrote it may be of an older document
        rank = case((stored.op("@@", is_comparison=True)(query), rank))
    distance = null() if near is None else near
    found = select(table.c.id, rank.label("rank"), distance.label("distance"))
    found = found.where(matches, *conditions)
    if whole:
        return found.subquery("matching")
    if stored is None:
        found = found.limit(Constant(FOUND_ROWS))
    held = found.cte("matched").prefix_with("MATERIALIZED")
    parsed = _parsed(rows, held, func.ts_rank_cd(words(table.c.document, configuration), query))
    if stored is None:
        return parsed.subquery("matching")
    ranked = select(held.c.id, held.c.rank).where(held.c.rank.is_not(None))
    return union_all(ranked, parsed).subquery("matching")


def _parsed(rows: Nearest, held: CTE, rank: ColumnElement[float]) -> Select[Any]:
    """The nearest of the rows without a rank, with one."""
    chosen = (
        select(held.c.id)
        .where(held.c.rank.is_(None))
        .order_by(held.c.distance, held.c.id)
        .limit(Constant(PARSED_DOCUMENTS))
        .subquery("chosen")
    )
    table = rows.table
    return (
        select(table.c.id, rank.label("rank"))
        .select_from(chosen.join(table, table.c.id == chosen.c.id))
        .where(*rows.scope.clauses)
    )
