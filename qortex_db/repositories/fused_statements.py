"""Searches by several queries at once, each one statement, built once for each form of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import Float, Integer, Text, bindparam, case, func, select, union_all

from qortex_db.repositories.built_once import built_once
from qortex_db.repositories.nearest import CANDIDATES, Nearest, SearchForm
from qortex_db.search.fields import Constant, text_language, words

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

    from qortex_db.search import Filter

Fusion: TypeAlias = Literal["ranks", "scores"]

_HITS = bindparam("hits", type_=Integer)


@built_once
def hybrid(rows: Nearest, where: Filter | None, form: SearchForm, fusion: Fusion) -> Select[Any]:
    """The best of the nearest rows and of those that match a text, by a fused score."""
    (dense,) = rows.found(replace(form, with_payload=False, with_embedding=False), where, [None])
    text = words(rows.table.c.document, text_language(rows.table))
    query = func.websearch_to_tsquery(
        Constant(text_language(rows.table)), bindparam("text", type_=Text)
    )
    rank = func.ts_rank_cd(text, query)
    matching = select(rows.table.c.id, rank.label("rank")).where(
        text.op("@@", is_comparison=True)(query), *rows.scope.clauses
    )
    if where is not None:
        matching = matching.where(where.clause)
    matching = matching.order_by(rank.desc(), rows.table.c.id).limit(CANDIDATES)
    lexical = matching.subquery("lexical")
    both = union_all(
        select(dense.c.id, _share(fusion, -dense.c.distance, dense.c.id, "dense_weight")),
        select(lexical.c.id, _share(fusion, lexical.c.rank, lexical.c.id, "text_weight")),
    ).subquery("both")
    total = func.sum(both.c.share)
    best = (
        select(both.c.id, total.label("score"))
        .group_by(both.c.id)
        .order_by(total.desc(), both.c.id)
        .limit(_HITS)
        .subquery("best")
    )
    return (
        select(best.c.id, best.c.score, *rows.columns(form))
        .select_from(best.join(rows.table, rows.table.c.id == best.c.id))
        .where(*rows.scope.clauses)
        .order_by(best.c.score.desc(), best.c.id)
    )


@built_once
def multi(rows: Nearest, where: Filter | None, form: SearchForm, count: int) -> Select[Any]:
    """The rows nearest to any of several queries, each once, by its least distance."""
    queries = [bindparam(f"query_{i}", type_=rows.vector.type) for i in range(count)]
    branches = rows.found(form, where, queries)
    every = union_all(*(select(*branch.c) for branch in branches)).subquery("every")
    place = func.row_number().over(partition_by=every.c.id, order_by=every.c.distance)
    placed = select(*every.c, place.label("place")).subquery("placed")
    return (
        select(*(placed.c[column.name] for column in every.c))
        .where(placed.c.place == 1)
        .order_by(placed.c.distance, placed.c.id)
        .limit(_HITS)
    )


def _share(
    fusion: Fusion, better: ColumnElement[float], key: ColumnElement[str], weight: str
) -> ColumnElement[Any]:
    """What a branch adds to a row's score; `better` grows with what it finds better."""
    if fusion == "ranks":
        place = func.row_number().over(order_by=(better.desc(), key))
        return (1.0 / (bindparam("k", type_=Float) + place)).label("share")
    low, high = func.min(better).over(), func.max(better).over()
    scaled = case((high == low, 1.0), else_=(better - low) / func.nullif(high - low, 0))
    return (bindparam(weight, type_=Float) * scaled).label("share")
