"""Searches from examples, each one statement, built once for each form of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Text, bindparam, cast, func, select, true, union_all

from qortex_db.repositories.built_once import built_once
from qortex_db.types import Embedding, EncodedEmbeddings

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

    from qortex_db.repositories.nearest import Nearest, SearchForm
    from qortex_db.search import Filter


@built_once
def nearest_to_mean(rows: Nearest, where: Filter | None, form: SearchForm) -> Select[Any]:
    """The rows nearest to the mean of examples, and how many of those there are."""
    sides = []
    for side in ("positive", "negative"):
        ids = cast(bindparam(f"{side}_ids"), ARRAY(Text))
        full = cast(rows.column, Embedding()).label("vec")
        stored = select(full).where(rows.table.c.id == func.any(ids), *rows.scope.clauses)
        given = select(func.unnest(cast(bindparam(f"{side}_vecs"), EncodedEmbeddings())))
        examples = union_all(stored, given).subquery(f"{side}_examples")
        one: ColumnElement[Any] = examples.c.vec
        if rows.vector.metric == "cosine":  # then each example counts by its direction alone
            one = func.l2_normalize(one)
        mean = func.avg(one).label("mean")
        sides.append(select(mean, func.count().label("count")).select_from(examples).cte(side))
    liked, disliked = sides
    towards = liked.c.mean.op("+")(liked.c.mean.op("-")(disliked.c.mean))
    aim = func.coalesce(towards, liked.c.mean, type_=Embedding())
    count = liked.c.count + disliked.c.count
    target = (
        select(aim.label("aim"), count.label("examples"))
        .select_from(liked.join(disliked, true()))
        .cte("target")
        .prefix_with("MATERIALIZED")
    )
    query = cast(select(target.c.aim).correlate(None).scalar_subquery(), rows.vector.type)
    keys = [cast(bindparam(f"{side}_ids"), ARRAY(Text)) for side in ("positive", "negative")]
    others = [rows.table.c.id != func.all(ids) for ids in keys]
    (found,) = rows.found(form, where, [query], others)
    return (
        select(*found.c, target.c.examples)
        .select_from(target.outerjoin(found, true()))
        .order_by(found.c.distance, found.c.id)
    )
