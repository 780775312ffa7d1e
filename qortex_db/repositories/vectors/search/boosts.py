"""Scores by more than distance: terms over the candidates of a search, as SQL.

A score is the similarity, times the learned weight where `Factor` is among the terms, plus what
each of the others adds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import (
    Column,
    Date,
    DateTime,
    Float,
    Integer,
    Numeric,
    bindparam,
    case,
    cast,
    column,
    extract,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute

from qortex_db.checks import check_number
from qortex_db.errors import InvalidInputError
from qortex_db.filters.columns import ColumnKey
from qortex_db.filters.expressions import Constant
from qortex_db.filters.fields import Field
from qortex_db.models import InteroceptionFactor
from qortex_db.repositories.validation import MAX_MEASURE, check_dict, check_list
from qortex_db.sql import Text, double, func, json_parameter, stored_type
from qortex_db.values.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, FromClause, Table
    from sqlalchemy.sql.selectable import ScalarSelect

    from qortex_db.repositories.vectors.statements.filter_statements import Place
    from qortex_db.repositories.vectors.table import VectorTable

MAX_BOOSTS: Final = 16
"""The most terms of one search."""
_MOST_HALVES: Final = 200.0
"""How often a recency is halved at most; beyond, float8 would underflow with an error."""
_MOST: Final[ColumnElement[Any]] = literal_column(f"{MAX_MEASURE:e}", Numeric)
_LEAST: Final[ColumnElement[Any]] = literal_column(f"{1 / MAX_MEASURE:e}", Numeric)
_FACTORS: Final[Any] = InteroceptionFactor.__table__

BoostField: TypeAlias = str | InstrumentedAttribute[Any] | Column[Any]
"""A path into the payload or the name of a column of the host's own; or a column, as attribute."""


@dataclass(frozen=True, slots=True)
class Factor:
    """Multiplies the similarity by the weight that the factors keep for the row's id.

    Args:
        missing: Of rows without one, 0 to 1e100.
    """

    missing: float = 1.0


@dataclass(frozen=True, slots=True)
class FieldBoost:
    """Adds a number of the row, times a weight.

    Args:
        field: A path into the payload, or a column.
        weight: -1e100 to 1e100.
        missing: The number of a row that has none there, or one beyond 1e100.
    """

    field: BoostField
    weight: float = 1.0
    missing: float = 0.0


@dataclass(frozen=True, slots=True)
class ValueBoost:
    """Adds a weight for a value that the row has; an array has each of its elements.

    Args:
        field: A path into the payload, or a column.
        weights: By strings, numbers or bools: -1e100 to 1e100.
    """

    field: BoostField
    weights: Mapping[str | float | bool, float]


@dataclass(frozen=True, slots=True)
class RecencyBoost:
    """Adds a weight that halves with a row's age: whole now, and in the future.

    Args:
        field: Where the payload has a time as ISO 8601 with an offset; or a column of dates or
            times, which are UTC where they say nothing else.
        half_life: After how long a half is left; positive.
        weight: -1e100 to 1e100.
        now: When ages are counted to; by default now. One without a time zone is UTC.
    """

    field: BoostField
    half_life: timedelta
    weight: float = 1.0
    now: datetime | None = None


Boost: TypeAlias = Factor | FieldBoost | ValueBoost | RecencyBoost


@dataclass(frozen=True, slots=True)
class BoostTerm:
    """What of a term makes another statement."""

    kind: type[Boost]
    source: Place | None


def read_boosts(
    vectors: VectorTable, boost: object
) -> tuple[tuple[BoostTerm, ...], dict[str, Any]]:
    """The terms of a search, and the parameters that their values are.

    Raises:
        InvalidInputError: One was refused.
    """
    given = check_list([boost] if isinstance(boost, Boost) else boost, name="boost", of="Boost")
    if not 0 < len(given) <= MAX_BOOSTS:
        raise InvalidInputError(f"boost has {len(given)} terms; pass 1 to {MAX_BOOSTS}.")
    if sum(isinstance(one, Factor) for one in given) > 1:
        raise InvalidInputError("boost has more than one Factor; there is one weight of a row.")
    terms: list[BoostTerm] = []
    params: dict[str, Any] = {}
    for i, one in enumerate(given):
        name = f"boost[{i}]"
        if not isinstance(one, Boost):
            raise InvalidInputError(
                f"{name} is a {type(one).__name__}; pass a Factor, FieldBoost, ValueBoost or "
                "RecencyBoost."
            )
        if isinstance(one, Factor):
            if vectors.vector.metric not in ("cosine", "inner_product"):
                raise InvalidInputError(
                    f"{name} multiplies a similarity, and {vectors.vector.metric} gives the "
                    "negative of a distance: use it with cosine or inner_product."
                )
            source = None
            sent = {"missing": _measure(one.missing, f"{name}.missing", low=0.0)}
        else:
            source = _source(vectors, one.field, f"{name}.field", type(one))
            sent = _READ[type(one)](one, name)
        terms.append(BoostTerm(type(one), source))
        params |= {f"boost_{i}_{key}": value for key, value in sent.items()}
    return tuple(terms), params


def _measure(value: object, name: str, *, low: float = -MAX_MEASURE) -> float:
    number = check_number(value, name=name, low=low, high=MAX_MEASURE)
    return 0.0 if abs(number) < 1 / MAX_MEASURE else number  # a product of such would underflow


def _source(vectors: VectorTable, field: object, name: str, kind: type[Boost]) -> Place:
    place = vectors.place(field, name)
    takes = _TAKES.get(kind)
    if takes is not None and isinstance(place, ColumnKey):
        found = vectors.table.c[place.key]
        if not isinstance(stored_type(found.type), takes):
            wanted = " or ".join(each.__name__ for each in takes)
            raise InvalidInputError(
                f"{name}, the column {found.name}, is {stored_type(found.type)}; "
                f"{kind.__name__} takes {wanted}."
            )
    return place


def _read_field(boost: FieldBoost, name: str) -> dict[str, Any]:
    return {
        "weight": _measure(boost.weight, f"{name}.weight"),
        "missing": _measure(boost.missing, f"{name}.missing"),
    }


def _read_value(boost: ValueBoost, name: str) -> dict[str, Any]:
    pairs = []
    for value, weight in check_dict(
        boost.weights, name=f"{name}.weights", of="dict of weights"
    ).items():
        if isinstance(value, (bool, str)):
            plain: Any = value
        else:
            plain = check_number(value, name=f"A value of {name}.weights")
        pairs.append([plain, _measure(weight, f"A weight of {name}.weights")])
    return {"values": json.dumps(pairs)}


def _read_recency(boost: RecencyBoost, name: str) -> dict[str, Any]:
    half_life, now = boost.half_life, boost.now
    if not isinstance(half_life, timedelta) or half_life <= timedelta(0):
        raise InvalidInputError(f"{name}.half_life has to be a positive timedelta.")
    if now is None:
        now = datetime.now(UTC)
    elif not isinstance(now, datetime):
        raise InvalidInputError(f"{name}.now is a {type(now).__name__}; pass a datetime.")
    elif now.tzinfo is None:
        now = now.replace(tzinfo=UTC)
    return {
        "weight": _measure(boost.weight, f"{name}.weight"),
        "half_life": half_life.total_seconds(),
        "now": now.timestamp(),
    }


_READ: Final[dict[type[Boost], Any]] = {
    FieldBoost: _read_field,
    ValueBoost: _read_value,
    RecencyBoost: _read_recency,
}
_TAKES: Final[dict[type[Boost], tuple[type, ...]]] = {
    FieldBoost: (Integer, Numeric, Float),
    RecencyBoost: (DateTime, Date),
}


@dataclass(frozen=True, slots=True)
class BoostedRows:
    """What a score is made of.

    Attributes:
        table: Of the rows, with what terms look at.
        weights: Of nodes.
        keys: What they have of the table beside its key.
    """

    table: Any
    weights: Any
    keys: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, terms: tuple[BoostTerm, ...]) -> BoostedRows:
        """Of a table where it is."""
        sources = [term.source for term in terms if term.kind is not Factor]
        keys = {each.key if isinstance(each, ColumnKey) else "payload" for each in sources}
        return cls(table, _FACTORS, tuple(sorted(keys - {"id"})))

    def read_of(self, hits: FromClause, scope: Sequence[ColumnElement[bool]]) -> BoostedRows:
        """The same of some rows, read first, for Citus looks up no other table row by row."""
        ids = select(hits.c.id)
        columns = key_of(self.table), *(self.table.c[key] for key in self.keys)
        own = select(*columns).where(self.table.c.id.in_(ids), *scope)
        named = self.weights.c.node_id.in_(select(cast(hits.c.id, Text)))
        weights = select(self.weights.c.node_id, self.weights.c.weight).where(named)
        return BoostedRows(
            own.cte("_rows").prefix_with("MATERIALIZED"),
            weights.cte("_weights").prefix_with("MATERIALIZED"),
            self.keys,
        )


def boosted(
    rows: BoostedRows, similarity: ColumnElement[float], terms: tuple[BoostTerm, ...]
) -> ColumnElement[float]:
    """A row's score: its similarity, multiplied, and what is added to it."""
    score = similarity
    for i, term in enumerate(terms):
        if term.kind is Factor:
            score = score * func.coalesce(_bounded(_weight_of(rows)), _number(i, "missing"))
    for i, term in enumerate(terms):
        if term.kind is not Factor:
            score = score + _ADDED[term.kind](rows.table, term, i)
    return score


def _number(i: int, name: str) -> ColumnElement[float]:
    return bindparam(f"boost_{i}_{name}", type_=Float)


def _weight_of(rows: BoostedRows) -> ScalarSelect[Any]:
    key = cast(rows.table.c.id, Text)
    found = select(rows.weights.c.weight).where(rows.weights.c.node_id == key)
    return found.correlate(rows.table).scalar_subquery()


def _bounded(value: ColumnElement[Any]) -> ColumnElement[float]:
    """A number with which float8 neither overflows nor underflows; NULL beyond, and for NaN."""
    exact = cast(value, Numeric)
    size = func.abs(exact)
    # In a CASE: it is not cast before it is known to fit.
    return case((size < _LEAST, double(0.0)), (size <= _MOST, cast(exact, Float)))


def _json(table: Table, term: BoostTerm) -> ColumnElement[Any]:
    if isinstance(term.source, ColumnKey):
        return func.to_jsonb(table.c[term.source.key], type_=JSONB())
    return Field(table, term.source or ()).json


def _added_field(table: Table, term: BoostTerm, i: int) -> ColumnElement[Any]:
    if isinstance(term.source, ColumnKey):
        number: ColumnElement[Any] = table.c[term.source.key]
    else:
        number = Field(table, term.source or ()).number
    return _number(i, "weight") * func.coalesce(_bounded(number), _number(i, "missing"))


def _added_value(table: Table, term: BoostTerm, i: int) -> ColumnElement[Any]:
    pairs = func.jsonb_array_elements(json_parameter(f"boost_{i}_values"))
    pair = pairs.table_valued(column("value", JSONB())).alias(f"_pair_{i}")
    value = pair.c.value.op("->", return_type=JSONB())(Constant(0))
    weight = cast(pair.c.value.op("->>", return_type=Text())(Constant(1)), Float)
    has = _json(table, term).op("@>", is_comparison=True)(value)
    found = select(func.sum(weight)).select_from(pair).where(has).correlate(table)
    return func.coalesce(found.scalar_subquery(), double(0.0))


def _added_recency(table: Table, term: BoostTerm, i: int) -> ColumnElement[Any]:
    if isinstance(term.source, ColumnKey):
        moment: ColumnElement[Any] = table.c[term.source.key]
    else:
        moment = Field(table, term.source or ()).instant
    age = _number(i, "now") - cast(extract("epoch", moment), Float)
    halves = func.least(
        func.greatest(age, double(0.0)) / _number(i, "half_life"), double(_MOST_HALVES)
    )
    left = func.power(double(0.5), halves, type_=Float())
    # Of NULL and a number the greatest is the number.
    return _number(i, "weight") * case((age.is_not(None), left), else_=double(0.0))


_ADDED: Final[dict[type[Boost], Any]] = {
    FieldBoost: _added_field,
    ValueBoost: _added_value,
    RecencyBoost: _added_recency,
}
