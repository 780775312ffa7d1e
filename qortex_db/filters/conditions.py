"""Conditions as SQL: a function for each, on the expressions that indexes hold.

Whatever a payload holds, no condition raises on the server. It is NULL or false where it doesn't
match; a negation takes both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import (
    ARRAY,
    Boolean,
    DateTime,
    Float,
    Integer,
    Numeric,
    and_,
    any_,
    case,
    cast,
    false,
    literal_column,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB, array

from qortex_db.filters.expressions import Constant
from qortex_db.filters.full_text import document_words, is_found, web_tsquery, words
from qortex_db.filters.instants import instant
from qortex_db.sql import Text, double, func
from qortex_db.values.keys import key_type

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.types import TypeEngine

    from qortex_db.filters.fields import Field, Path

Shape: TypeAlias = tuple[Any, ...]
"""A filter without its values: a condition, its path and constants; or "and", "or", "not" and
shapes."""
Reader: TypeAlias = Callable[["Table", "Path", Any, str, list[Any]], Shape]
"""Reads an operator's argument: the table, the path, the argument, what an error calls it, and the
values to append to."""
Bind: TypeAlias = Callable[["TypeEngine[Any]"], "ColumnElement[Any]"]
"""What gives the parameter of the next value."""


HASHED_FROM: Final = 100
"""From how many values on a list is hashed by the server, which costs a row no more than a short
one."""
# An operator of arrays is one of any: who plants one of these arrays' own type is nearer.
_OF_ARRAYS: Final = "OPERATOR(pg_catalog.{})"
_ITSELF: Final = literal_column("'{}'::text[]", ARRAY(Text()))
"""The path to a value itself."""


def _degrees(number: int) -> ColumnElement[Any]:
    return cast(Constant(number), Numeric())


def _json(bind: Bind) -> ColumnElement[Any]:
    return cast(bind(Text()), JSONB)  # as text: a host's engine may have a serializer of its own


def _jsons(bind: Bind) -> ColumnElement[Any]:
    return cast(bind(ARRAY(Text())), ARRAY(JSONB))


_TYPES: Final[dict[str, Callable[[Bind], Any]]] = {
    "keyword": lambda bind: bind(Text()),
    "string": lambda bind: bind(Text()),
    "number": lambda bind: cast(bind(Text()), Numeric()),
    "boolean": lambda bind: bind(Boolean()),
    "instant": lambda bind: cast(bind(Text()), DateTime()),  # the driver's own has no last moment
}

_IN_LISTS: Final[dict[str, TypeEngine[Any]]] = {"number": Numeric(), "instant": DateTime()}


def nothing(where: Field | Table, bind: Bind) -> ColumnElement[bool]:  # noqa: ARG001 - as all are
    return false()


def is_null(field: Field, bind: Bind) -> ColumnElement[bool]:  # noqa: ARG001
    return func.coalesce(field.kind, Constant("null")) == Constant("null")


def exists(field: Field, bind: Bind) -> ColumnElement[bool]:  # noqa: ARG001
    return field.json.is_not(None)


def equals(field: Field, bind: Bind) -> ColumnElement[bool]:
    return field.json == _json(bind)


def equals_any(field: Field, bind: Bind) -> ColumnElement[bool]:
    return field.json == any_(_jsons(bind))


def equals_any_of_many(field: Field, bind: Bind) -> ColumnElement[bool]:
    # No join, which the server could make of an IN: it would go through the list for each row.
    return is_among(field.json, _jsons(bind)).is_(true())


def contains(field: Field, bind: Bind) -> ColumnElement[bool]:
    return field.payload.op("@>", is_comparison=True)(_json(bind))


def contains_any(field: Field, bind: Bind) -> ColumnElement[bool]:
    return field.payload.op("@>", is_comparison=True)(any_(_jsons(bind)))


def compare(field: Field, bind: Bind, column: str, operator: str) -> ColumnElement[bool]:
    left = getattr(field, column)
    if column == "string":
        left = left.collate("C")
    return left.op(operator, is_comparison=True)(_TYPES[column](bind))  # type: ignore[no-any-return]


def is_one_of(field: Field, bind: Bind, column: str) -> ColumnElement[bool]:
    values = bind(ARRAY(Text()))
    if column in _IN_LISTS:
        values = cast(values, ARRAY(_IN_LISTS[column]))
    return getattr(field, column) == any_(values)  # type: ignore[no-any-return]


def is_one_of_many(field: Field, bind: Bind, column: str) -> ColumnElement[bool]:
    values = bind(ARRAY(Text()))
    if column in _IN_LISTS:
        values = cast(values, ARRAY(_IN_LISTS[column]))
    found = is_among(getattr(field, column), values)
    # Among elements no index could serve a join, and each row's would be one of its own.
    return found if field.within is None else found.is_(true())


def is_among(value: ColumnElement[Any], values: ColumnElement[Any]) -> ColumnElement[bool]:
    """The same as `= ANY`, which goes through the whole list for each row where plans are kept."""
    return value.in_(select(func.unnest(values)))


def array_has(field: Field, bind: Bind, operator: str) -> ColumnElement[bool]:
    """By equality of elements, where containment would accept more."""
    elements = func.jsonb_array_elements(field.elements).column_valued()
    array = type_coerce(func.array(select(elements).scalar_subquery()), ARRAY(JSONB))
    found = array.op(_OF_ARRAYS.format(operator), is_comparison=True)(_jsons(bind))
    return and_(field.elements.is_not(None), found)  # what is no array has not all of nothing


def array_has_instants(field: Field, bind: Bind, operator: str) -> ColumnElement[bool]:
    """Whatever the spelling of the elements."""
    element = func.jsonb_array_elements(field.elements).column_valued()
    text = cast(element, JSONB).op("#>>", return_type=Text())(_ITSELF)
    moments = type_coerce(func.array(select(instant(text)).scalar_subquery()), ARRAY(DateTime()))
    wanted = cast(bind(ARRAY(Text())), ARRAY(DateTime()))
    return moments.op(_OF_ARRAYS.format(operator), is_comparison=True)(wanted)


def has_substring(field: Field, bind: Bind) -> ColumnElement[bool]:
    # With a keyword index the planner knows from it how few strings there are.
    return and_(
        field.keyword.is_not(None),
        func.strpos(field.string, bind(Text())) > Constant(0),
    )


def like(field: Field, bind: Bind, column: str) -> ColumnElement[bool]:
    return getattr(field, column).like(bind(Text()))  # type: ignore[no-any-return]


def ilike(field: Field, bind: Bind) -> ColumnElement[bool]:
    return field.string.op("ILIKE", is_comparison=True)(bind(Text()))


def matches_regex(field: Field, bind: Bind) -> ColumnElement[bool]:
    return field.string.collate("C").op("~", is_comparison=True)(bind(Text()))


def matches(field: Field, bind: Bind, configuration: str) -> ColumnElement[bool]:
    return is_found(words(field.string, configuration), web_tsquery(configuration, bind(Text())))


def document_matches(table: Table, bind: Bind, configuration: str) -> ColumnElement[bool]:
    return is_found(document_words(table, configuration), web_tsquery(configuration, bind(Text())))


def document_contains(table: Table, bind: Bind) -> ColumnElement[bool]:
    return func.strpos(table.c.document, bind(Text())) > Constant(0)


def has_size(field: Field, bind: Bind, operator: str) -> ColumnElement[bool]:
    size = func.jsonb_array_length(field.elements)
    return size.op(operator, is_comparison=True)(bind(Integer()))


def has_id(table: Table, bind: Bind) -> ColumnElement[bool]:
    return table.c.id == any_(bind(ARRAY(key_type(table).type)))


def has_id_of_many(table: Table, bind: Bind) -> ColumnElement[bool]:
    return is_among(table.c.id, bind(ARRAY(key_type(table).type)))


def within_box(field: Field, bind: Bind, way: str) -> ColumnElement[bool]:
    """The latitudes are what an index on the latitude serves."""
    lat, lon = field.child("lat").number, field.child("lon").number
    south, north, west, east = (cast(bind(Text()), Numeric()) for _ in range(4))
    if way == "eastwards":
        return and_(lat.between(south, north), lon.between(west, east))
    there = or_(lon.between(west, _degrees(180)), lon.between(_degrees(-180), east))
    return and_(lat.between(south, north), there)


def within_polygon(field: Field, bind: Bind) -> ColumnElement[bool]:
    """Within the outer ring and no other one; where an edge is counts as within.

    Exact: a place is on an edge, left or right of it by the sign of a product of numerics. Its
    longitude is taken to where the polygon is. A ring has an odd number of edges east of what is in
    it. The latitudes are what an index on the latitude serves.
    """
    lat, lon = field.child("lat").number, field.child("lon").number
    south, north, west, east = (cast(bind(Text()), Numeric()) for _ in range(4))
    rings = cast(bind(ARRAY(Text())), ARRAY(Integer()))
    corners = [cast(bind(ARRAY(Text())), ARRAY(Numeric())) for _ in range(4)]
    valid = and_(
        lat.between(_degrees(-90), _degrees(90)), lon.between(_degrees(-180), _degrees(180))
    )
    digits = Constant(12)  # 0.1 µm; more would make products long
    at, around = func.round(lon, digits), _degrees(360)
    there = case((at < west, at + around), (at > east, at - around), else_=at)
    # As a row of its own it is worked out once, and not for each edge.
    place = func.unnest(array([func.round(lat, digits)]), array([there]))
    places = place.table_valued("y", "x").render_derived("_place")
    edges = (
        func.unnest(rings, *corners)
        .table_valued("ring", "y1", "x1", "y2", "x2")
        .render_derived("_edge")
    )
    y, x = (literal_column(f"_place.{name}", Numeric()) for name in "yx")
    y1, x1, y2, x2 = (literal_column(f"_edge.{name}", Numeric()) for name in _CORNERS)
    side = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)  # edges lead northwards: above 0 it is west
    on_edge = and_(
        side == _degrees(0), y.between(y1, y2), x.between(func.least(x1, x2), func.greatest(x1, x2))
    )
    crossed = func.count().filter(and_(y1 <= y, y < y2, side > _degrees(0)))
    ring = literal_column("_edge.ring", Integer())
    of_ring = (
        select(
            func.bool_or(on_edge).label("on_edge"),
            (func.mod(crossed, literal_column("2::bigint")) == literal_column("1::bigint")).label(
                "is_in"
            ),
            (ring == Constant(0)).label("is_outer"),
        )
        .select_from(places.join(edges, true()))
        .where(x.between(west, east))
        .group_by(ring)
        .subquery("_ring")
    )
    inside = select(
        func.bool_and(or_(of_ring.c.on_edge, of_ring.c.is_in == of_ring.c.is_outer))
    ).scalar_subquery()
    return and_(lat.between(south, north), case((valid, inside)))


_CORNERS: Final = ("y1", "x1", "y2", "x2")


def within(field: Field, bind: Bind) -> ColumnElement[bool]:
    """By haversine. The band of latitudes around it is what an index on the latitude serves."""
    lat, lon = field.child("lat"), field.child("lon")
    band = lat.number.between(cast(bind(Text()), Numeric()), cast(bind(Text()), Numeric()))
    valid = and_(
        lat.number.between(_degrees(-90), _degrees(90)),
        lon.number.between(_degrees(-180), _degrees(180)),
    )
    # Rounded (to 0.1 µm), since a float8 may also be too small to be read or squared.
    there = [
        func.radians(cast(func.round(side.number, Constant(12)), Float())) for side in (lat, lon)
    ]
    here_lat, here_lon, limit = bind(Float()), bind(Float()), bind(Float())
    two = double(2.0)
    h = func.power(func.sin((there[0] - here_lat) / two), two) + func.cos(there[0]) * func.cos(
        here_lat
    ) * func.power(func.sin((there[1] - here_lon) / two), two)
    return and_(band, case((valid, h <= limit)))
