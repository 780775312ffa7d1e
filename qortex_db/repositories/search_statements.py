"""Searches of a vectors table, each one statement, built once for each form of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar
from typing import cast as cast_type

from sqlalchemy import (
    ARRAY,
    Float,
    Integer,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db.repositories.nearest import CANDIDATES, Nearest, SearchForm
from qortex_db.repositories.rows import delete_in_key_order, merge_in_key_order, row_shape
from qortex_db.search.fields import Constant, Field, text_language, words
from qortex_db.types import Embedding, EncodedEmbeddings, JsonText

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from sqlalchemy import ColumnElement, Delete, Select, Table, Update

    from qortex_db.models import VectorSpec
    from qortex_db.repositories.scope import Scope
    from qortex_db.search import Filter

MAX_STATEMENTS: Final = 1_024
"""How many forms of each method are kept built: filters' shapes are their users' data."""

Fusion: TypeAlias = Literal["ranks", "scores"]
Steps: TypeAlias = tuple[str, ...]
Begin: TypeAlias = Literal["start", "after"]
Build = TypeVar("Build", bound="Callable[..., Any]")

_HITS = bindparam("hits", type_=Integer)


@dataclass(frozen=True, slots=True)
class _Narrowed:
    """A filter that equals others of its shape: their statements are one."""

    key: Hashable
    filter: Filter = field(compare=False)


def _built_once(build: Build) -> Build:
    """Keep what is built for a table, the shape of a filter and a form."""

    @functools.lru_cache(MAX_STATEMENTS)
    def kept(statements: SearchStatements, narrowed: _Narrowed | None, *form: object) -> Any:
        return build(statements, None if narrowed is None else narrowed.filter, *form)

    @functools.wraps(build)
    def get(statements: SearchStatements, where: Filter | None, *form: object) -> Any:
        if where is None:
            return kept(statements, None, *form)
        if where.key is None:  # it holds an expression of SQLAlchemy's
            return build(statements, where, *form)
        return kept(statements, _Narrowed(where.key, where), *form)

    return cast_type("Build", get)


class SearchStatements:
    """The searches of one table; rows are id, distance or score, payload, document, embedding."""

    def __init__(self, table: Table, vector: VectorSpec, scope: Scope) -> None:
        self.table = table
        self.vector = vector
        self.scope = scope
        self.language = text_language(table)
        self._rows = Nearest(table, vector, scope)

    @_built_once
    def search(self, where: Filter | None, form: SearchForm) -> Select[Any]:
        """The nearest rows, nearest first; ties by id."""
        if form.settings or form.guarded:
            (found,) = self._rows.found(form, where, [None])
        else:  # ties are broken outside: inside, that would lose the index
            found = self._rows.nearest(form, where).subquery("hits")
        return select(*found.c).order_by(found.c.distance, found.c.id)

    @_built_once
    def hybrid(self, where: Filter | None, form: SearchForm, fusion: Fusion) -> Select[Any]:
        """The best of the nearest rows and of those that match a text, by a fused score."""
        (dense,) = self._rows.found(
            replace(form, with_payload=False, with_embedding=False), where, [None]
        )
        text = words(self.table.c.document, self.language)
        query = func.websearch_to_tsquery(Constant(self.language), bindparam("text", type_=Text))
        rank = func.ts_rank_cd(text, query)
        matching = select(self.table.c.id, rank.label("rank")).where(
            text.op("@@", is_comparison=True)(query), *self.scope.clauses
        )
        if where is not None:
            matching = matching.where(where.clause)
        matching = matching.order_by(rank.desc(), self.table.c.id).limit(CANDIDATES)
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
            select(best.c.id, best.c.score, *self._rows.columns(form))
            .select_from(best.join(self.table, self.table.c.id == best.c.id))
            .where(*self.scope.clauses)
            .order_by(best.c.score.desc(), best.c.id)
        )

    @_built_once
    def multi(self, where: Filter | None, form: SearchForm, count: int) -> Select[Any]:
        """The rows nearest to any of several queries, each once, by its least distance."""
        queries = [bindparam(f"query_{i}", type_=self.vector.type) for i in range(count)]
        branches = self._rows.found(form, where, queries)
        every = union_all(*(select(*branch.c) for branch in branches)).subquery("every")
        place = func.row_number().over(partition_by=every.c.id, order_by=every.c.distance)
        placed = select(*every.c, place.label("place")).subquery("placed")
        return (
            select(*(placed.c[column.name] for column in every.c))
            .where(placed.c.place == 1)
            .order_by(placed.c.distance, placed.c.id)
            .limit(_HITS)
        )

    @_built_once
    def recommend(self, where: Filter | None, form: SearchForm) -> Select[Any]:
        """The rows nearest to the mean of examples, and how many of those there are."""
        sides = []
        for side in ("positive", "negative"):
            ids = cast(bindparam(f"{side}_ids"), ARRAY(Text))
            full = cast(self._rows.column, Embedding()).label("vec")
            stored = select(full).where(self.table.c.id == func.any(ids), *self.scope.clauses)
            given = select(func.unnest(cast(bindparam(f"{side}_vecs"), EncodedEmbeddings())))
            examples = union_all(stored, given).subquery(f"{side}_examples")
            one: ColumnElement[Any] = examples.c.vec
            if self.vector.metric == "cosine":  # then each example counts by its direction alone
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
        query = cast(select(target.c.aim).correlate(None).scalar_subquery(), self.vector.type)
        keys = [cast(bindparam(f"{side}_ids"), ARRAY(Text)) for side in ("positive", "negative")]
        others = [self.table.c.id != func.all(ids) for ids in keys]
        (found,) = self._rows.found(form, where, [query], others)
        return (
            select(*found.c, target.c.examples)
            .select_from(target.outerjoin(found, true()))
            .order_by(found.c.distance, found.c.id)
        )

    @_built_once
    def groups(self, where: Filter | None, form: SearchForm, steps: tuple[str, ...]) -> Select[Any]:
        """The nearest rows of each value at a path, and how many rows were looked at."""
        (found,) = self._rows.found(form, where, [None])
        value = Field(self.table, steps).json
        keyed = (
            select(*found.c, cast(value, Text).label("value"))
            .select_from(found.join(self.table, self.table.c.id == found.c.id))
            .where(*self.scope.clauses)
            .where(value.is_not(None), func.jsonb_typeof(value) != literal_column("'null'", Text))
            .subquery("keyed")
        )
        order = (keyed.c.distance, keyed.c.id)
        placed = select(
            *keyed.c,
            func.row_number().over(partition_by=keyed.c.value, order_by=order).label("place"),
            func.first_value(keyed.c.distance)
            .over(partition_by=keyed.c.value, order_by=order)
            .label("best"),
        ).subquery("placed")
        ranked = select(
            *placed.c,
            func.dense_rank().over(order_by=(placed.c.best, placed.c.value)).label("group"),
        ).subquery("ranked")
        best = (
            select(*ranked.c)
            .where(ranked.c.place <= bindparam("group_size", type_=Integer))
            .where(ranked.c.group <= _HITS)
            .subquery("best")
        )
        total = select(func.count().label("looked_at")).select_from(found).subquery("total")
        return (
            select(
                *(best.c[column.name] for column in found.c),
                type_coerce(best.c.value, JsonText()).label("value"),
                total.c.looked_at,
            )
            .select_from(total.outerjoin(best, true()))
            .order_by(best.c.group, best.c.place)
        )

    @_built_once
    def within(self, where: Filter | None, form: SearchForm) -> Select[Any]:
        """All rows within a distance, nearest first."""
        distance = bindparam("max_distance", type_=Float)
        near = self.vector.distance(self._rows.column, self._rows.query) <= distance
        found = self._rows.nearest(form, where, besides=[near], exact=True).subquery("hits")
        return select(*found.c).order_by(found.c.distance, found.c.id)

    @_built_once
    def facet(self, where: Filter | None, steps: tuple[str, ...]) -> Select[Any]:
        """The values at a path, an array's one by one, and how many rows have each."""
        field = Field(self.table, steps)
        values = func.coalesce(field.elements, func.jsonb_build_array(field.json))
        element = func.jsonb_array_elements(values).table_valued("value").lateral("elements")
        value = cast(element.c.value, JSONB)
        count = func.count(self.table.c.id.distinct()).label("count")
        statement = (
            select(type_coerce(cast(value, Text), JsonText()).label("value"), count)
            .select_from(self.table.join(element, true()))
            .where(field.json.is_not(None), *self.scope.clauses)
            .group_by(value)
            .order_by(count.desc(), value)
            .limit(_HITS)
        )
        return statement if where is None else statement.where(where.clause)

    @_built_once
    def delete(self, where: Filter | None) -> Delete:
        """Remove rows, in key order."""
        return delete_in_key_order(
            self.table, self.scope, true() if where is None else where.clause
        )

    @_built_once
    def merge(self, where: Filter | None, removed: int) -> Update:
        """Change payloads, in key order."""
        condition = true() if where is None else where.clause
        return merge_in_key_order(self.table, self.scope, condition, removed)

    @_built_once
    def page(self, where: Filter | None, form: SearchForm, steps: Steps, begin: Begin) -> Any:
        """Rows in the order of their value at a path, then of their keys; the value at the end."""
        table = self.table
        value = Field(table, steps).json if steps else null()
        columns = row_shape(table).of_record(with_embedding=form.with_embedding)
        keys = (value, table.c.id) if steps else (table.c.id,)
        statement = select(*columns, cast(value, Text).label("value")).order_by(*keys).limit(_HITS)
        statement = statement.where(*self.scope.clauses)
        if steps:
            statement = statement.where(value.is_not(None))
        if begin == "after":
            seen: list[ColumnElement[Any]] = [bindparam("after", type_=Text)]
            if steps:
                seen.insert(0, cast(bindparam("after_value", type_=Text), JSONB))
            statement = statement.where(tuple_(*keys) > tuple_(*seen))
        return statement if where is None else statement.where(where.clause)

    @_built_once
    def count(self, where: Filter | None) -> Select[Any]:
        """How many rows there are."""
        statement = select(func.count()).select_from(self.table).where(*self.scope.clauses)
        return statement if where is None else statement.where(where.clause)


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
