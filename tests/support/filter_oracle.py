"""What docs/vectors/filters.md says of each operator, in Python, and what to try it on."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from qortex_db import InvalidInputError
from qortex_db.filters.regex import read_regex

MISSING = object()


def steps(path: str) -> list[str]:
    return [re.sub(r"\\(.)", r"\1", step) for step in re.findall(r"(?:\\.|[^.\\])+", path)]


def lookup(document: Any, path: str) -> Any:
    value = document
    for step in steps(path):
        if isinstance(value, dict):
            value = value.get(step, MISSING)
        elif isinstance(value, list) and re.fullmatch(r"[+-]?\d+", step):
            place = int(step)
            value = value[place] if -len(value) <= place < len(value) else MISSING
        else:
            return MISSING
    return value


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def exact(value: float) -> Decimal:
    return Decimal(repr(value))


SPELLED = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
    r"(?:[zZ]| ?([+-])(\d\d)(?::?(\d\d))?)",
    re.ASCII,
)


def moment(value: Any) -> datetime | None:
    """What a string with an offset tells, in UTC without it."""
    found = SPELLED.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    *numbers, fraction, sign, hours, minutes = found.groups()
    year, month, day, hour, minute, second = (int(number or 0) for number in numbers)
    away = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    leap = second == 60 and fraction is None
    if int(hours or 0) > 23 or int(minutes or 0) > 59:
        return None
    try:
        start = datetime(year, month, day, hour, minute, 59 if leap else second)  # noqa: DTZ001
        local = start + timedelta(
            seconds=leap, microseconds=round(Decimal(f"0.{fraction or 0}") * 10**6)
        )
        return local + away if sign == "-" else local - away
    except (ValueError, OverflowError):
        return None


def same(a: Any, b: Any) -> bool:
    """Equal as JSON: by type and value; a datetime is every spelling of it."""
    if isinstance(b, datetime):
        return moment(a) == b.astimezone(UTC).replace(tzinfo=None)
    if is_number(a) and is_number(b):
        return exact(a) == exact(b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


def equal(value: Any, wanted: Any) -> bool:
    if wanted is None:
        return value is None or value is MISSING
    return value is not MISSING and same(value, wanted)


def compared(value: Any, bound: Any) -> int | None:
    """Below, at or above; None for what has no order."""
    if is_number(value) and is_number(bound):
        left, right = exact(value), exact(bound)
        return (left > right) - (left < right)
    if isinstance(bound, datetime):
        at = moment(value)
        there = bound.astimezone(UTC).replace(tzinfo=None)
        return None if at is None else (at > there) - (at < there)
    if isinstance(value, str) and isinstance(bound, str):  # Python compares by code point
        return (value > bound) - (value < bound)
    return None


def has(value: Any, wanted: Any) -> bool:
    return isinstance(value, list) and any(same(element, wanted) for element in value)


def like(value: Any, pattern: str, *, fold: bool = False) -> bool:
    if not isinstance(value, str):
        return False
    marks = {"%": ".*", "_": "."}
    parts = re.findall(r"\\.|[^\\]", pattern, re.DOTALL)
    regex = "".join(marks.get(part) or re.escape(part[-1]) for part in parts)
    if fold:
        value, regex = value.lower(), regex.lower()
    return re.fullmatch(regex, value, re.DOTALL) is not None


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    lat1, lon1, lat2, lon2 = map(math.radians, (*a, *b))
    h = math.sin((lat2 - lat1) / 2) ** 2
    h += math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * 6_371_008.8 * math.asin(math.sqrt(min(1.0, h)))


def of_ring(lat: Fraction, lon: Fraction, corners: list[dict[str, Any]]) -> tuple[bool, bool]:
    """Whether a place is on the edge of a ring, and whether it is in it."""
    ring = [(fraction(corner["lat"]), fraction(corner["lon"])) for corner in corners]
    on_edge = inside = False
    for (y1, x1), (y2, x2) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if (y1 > lat) != (y2 > lat):
            inside ^= lon < x1 + (x2 - x1) * (lat - y1) / (y2 - y1)
        along = (lat - y1) * (x2 - x1) == (lon - x1) * (y2 - y1)
        between = min(y1, y2) <= lat <= max(y1, y2) and min(x1, x2) <= lon <= max(x1, x2)
        on_edge |= along and between
    return on_edge, inside


def fraction(value: Any) -> Fraction:
    return Fraction(round(exact(value), 12))


def in_polygon(lat: float, lon: float, polygon: dict[str, Any]) -> bool:
    for turn in (-360, 0, 360):
        at = fraction(lat), fraction(lon) + turn
        outer, holes = of_ring(*at, polygon["exterior"]), polygon.get("interiors", [])
        rings = [of_ring(*at, hole) for hole in holes]
        if any(outer) and all(edge or not inside for edge, inside in rings):
            return True
    return False


def near(value: Any, place: dict[str, Any]) -> bool:
    if not isinstance(value, dict):
        return False
    lat, lon = value.get("lat"), value.get("lon")
    if "min_lat" in place:
        return is_number(lat) and is_number(lon) and in_box(exact(lat), exact(lon), place)
    if not (is_number(lat) and is_number(lon)) or not (-90 <= lat <= 90 and -180 <= lon <= 180):
        return False
    if "exterior" in place:
        return in_polygon(lat, lon, place)
    return distance((lat, lon), (place["lat"], place["lon"])) <= place["radius_m"]


def in_box(lat: Decimal, lon: Decimal, box: dict[str, float]) -> bool:
    south, north, west, east = (exact(side) for side in box.values())
    inside = west <= lon <= east
    if west > east:
        inside = west <= lon <= 180 or -180 <= lon <= east
    return south <= lat <= north and inside


def sized(value: Any, wanted: Any) -> bool:
    bounds = wanted if isinstance(wanted, dict) else {"$eq": wanted}
    return isinstance(value, list) and all(
        ORACLE[name](len(value), bound) for name, bound in bounds.items()
    )


def found(value: Any, query: str) -> bool:
    """Words that all have to be there, or with "-" not."""
    if not isinstance(value, str):
        return False
    words = set(value.lower().split())
    return all(
        (word[1:].lower() not in words) if word.startswith("-") else word.lower() in words
        for word in query.split()
    )


def contains(value: Any, wanted: Any) -> bool:
    substring = isinstance(value, str) and isinstance(wanted, str) and wanted in value
    return has(value, wanted) or substring


ORACLE: dict[str, Any] = {
    "$eq": equal,
    "$ne": lambda value, wanted: not equal(value, wanted),
    "$in": lambda value, wanted: any(equal(value, item) for item in wanted),
    "$nin": lambda value, wanted: not any(equal(value, item) for item in wanted),
    "$gt": lambda value, bound: compared(value, bound) == 1,
    "$gte": lambda value, bound: compared(value, bound) in (0, 1),
    "$lt": lambda value, bound: compared(value, bound) == -1,
    "$lte": lambda value, bound: compared(value, bound) in (-1, 0),
    "$between": lambda value, bounds: (
        compared(value, bounds[0]) in (0, 1) and compared(value, bounds[1]) in (-1, 0)
    ),
    "$exists": lambda value, wanted: (value is not MISSING) is wanted,
    "$contains": contains,
    "$any": lambda value, wanted: any(has(value, item) for item in wanted),
    "$all": lambda value, wanted: (
        isinstance(value, list) and all(has(value, item) for item in wanted)
    ),
    "$like": like,
    "$ilike": lambda value, pattern: like(value, pattern, fold=True),
    "$prefix": lambda value, start: isinstance(value, str) and value.startswith(start),
    "$regex": lambda value, pattern: (
        isinstance(value, str) and re.search(pattern, value, re.ASCII) is not None
    ),
    "$elemMatch": lambda value, where: (
        isinstance(value, list) and any(holds(element, where, within=True) for element in value)
    ),
    "$text": found,
    "$geo": near,
    "$size": sized,
}


def holds(document: Any, where: dict[str, Any], *, within: bool = False) -> bool:
    return all(_holds(document, key, value, within=within) for key, value in where.items())


EACH = re.compile(r"(.*?)\[\]\.?(.*)", re.DOTALL)


def _holds(document: Any, key: str, value: Any, *, within: bool) -> bool:
    match key:
        case "$and":
            return all(holds(document, part, within=within) for part in value)
        case "$or" | "$nor":
            any_holds = any(holds(document, part, within=within) for part in value)
            return any_holds is (key == "$or")
        case "$not":
            return not holds(document, value, within=within)
        case "$min_should":
            parts = [holds(document, part, within=within) for part in value["conditions"]]
            return sum(parts) >= value["min_count"]
    if key.startswith("$"):
        key, value = "", {key: value}
    if (each := EACH.fullmatch(key)) is not None:
        array = lookup(document, each[1])
        return isinstance(array, list) and any(
            _holds(element, each[2], value, within=True) for element in array
        )
    if not isinstance(value, dict):
        return equal(lookup(document, key), value)
    return all(
        not _holds(document, key, wanted, within=within)
        if name == "$not"
        else ORACLE[name](lookup(document, key), wanted)
        for name, wanted in value.items()
    )


# Few keys and values, so that documents and filters meet.
NAMES = ["a", "b", "é", "a.b", "a.0", "a.-1", "a.0.b", "b.a.é", r"x\.y", "0"]
NAMES += ["a[]", "a[].b", "b[][]", "a[].b[].a", "a.0[].b"]
PATHS = st.sampled_from(NAMES)
KEYS = st.sampled_from(["a", "b", "é", "x.y", "0"])
ALPHABET = st.characters(codec="utf-8", exclude_characters="\x00")
LETTERS = st.text(st.sampled_from("aAbé%_\\É𝄞"), max_size=4)
ZONES = st.sampled_from([0, 60, -90, 330, 14 * 60, -23 * 60 - 59])
# Few, so that they meet.
MOMENTS = st.builds(
    lambda micro, minutes: datetime(2024, 2, 29, 23, 30, 0, micro, UTC).astimezone(
        timezone(timedelta(minutes=minutes))
    ),
    st.sampled_from([0, 1, 500_000]),
    ZONES,
)
SPELLINGS = st.one_of(
    MOMENTS.map(datetime.isoformat),
    MOMENTS.map(lambda at: at.isoformat(" ", "milliseconds")),
    MOMENTS.map(lambda at: at.strftime("%Y-%m-%dt%H:%M%z")),
    MOMENTS.map(lambda at: at.astimezone(UTC).isoformat()[:-6] + "Z"),
    MOMENTS.map(lambda at: at.isoformat()[:-6]),
    st.sampled_from(["2023-02-29T00:00:00Z", "2024-02-29T24:00Z", "2024-02-29T23:29:60Z", "Z"]),
)
STRINGS = st.one_of(
    LETTERS,
    SPELLINGS,
    st.sampled_from(["", "1", "true", "null", "x" * 199, "x" * 200, "x" * 200 + "y", "x" * 201]),
    st.dates().map(str),
    st.text(ALPHABET, max_size=6),
)
NUMBERS = st.one_of(
    st.integers(-2, 2),
    st.sampled_from([1.0, 0.1, -0.0, 1e23, 10**23, 2**53 + 1, 2.0**53, 1e308, 5e-324]),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
SENTENCES = st.lists(st.sampled_from(["red", "Green", "blue", "été"]), max_size=3).map(" ".join)
LATITUDES = st.sampled_from([-90, -89.9, 0, 52.5, 89.95, 90]) | st.floats(-90, 90)
LONGITUDES = st.sampled_from([-180, -179.99, 0, 13.4, 179.99, 180]) | st.floats(-180, 180)
PLACES = st.fixed_dictionaries({"lat": LATITUDES, "lon": LONGITUDES})
NO_PLACES = st.fixed_dictionaries({"lat": VALUES}, optional={"lon": VALUES | LONGITUDES})
CORNERS = st.fixed_dictionaries(
    {
        "lat": st.integers(-4, 4).map(lambda at: at * 10),
        "lon": st.integers(-22, 22).map(lambda at: at * 10),
    }
)
RINGS = st.lists(CORNERS, min_size=3, max_size=6, unique_by=lambda at: tuple(at.values()))
# On edges and corners, or anywhere.
GRID = st.fixed_dictionaries(
    {
        "lat": st.integers(-8, 8).map(lambda at: at * 5),
        "lon": st.sampled_from([-180, 180, 175, -175.5])
        | st.integers(-36, 36).map(lambda at: at * 5),
    }
)
POLYGONS = st.fixed_dictionaries(
    {"exterior": RINGS}, optional={"interiors": st.lists(RINGS, max_size=2)}
).filter(
    lambda one: (
        max(c["lon"] for c in one["exterior"]) - min(c["lon"] for c in one["exterior"]) <= 360
    )
)
BOXES = st.builds(
    lambda lats, west, east: {
        "min_lat": min(lats),
        "max_lat": max(lats),
        "min_lon": west,
        "max_lon": east,
    },
    st.tuples(LATITUDES, LATITUDES),
    LONGITUDES,
    LONGITUDES,
)
RADII = st.sampled_from([0, 10, 25_000, 1e6, 1.1e7, 2.1e7]) | st.floats(0, 2.1e7)


def documents(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.dictionaries(KEYS, values, max_size=4), min_size=1, max_size=12)


def _patterns(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return texts.filter(lambda text: (len(text) - len(text.rstrip("\\"))) % 2 == 0)


ORDERED = NUMBERS | STRINGS | MOMENTS
LISTS = st.lists(VALUES, max_size=4)
FEW = st.sampled_from([None, True, 0, 1, 1.0, "a", "ab", "", [], [1], ["a"]])
OBJECTS = st.dictionaries(KEYS, FEW | st.lists(st.dictionaries(KEYS, FEW, max_size=2), max_size=2))
_ATOMS = st.sampled_from(
    ["a", "A", "b", "é", "%", "_", r"\\", "𝄞", ".", r"\d", r"\W", "[aé]", "[^a-z]", "$", "^", r"\b"]
)


def is_taken(pattern: str) -> bool:
    """Whether an expression is small enough."""
    try:
        read_regex(pattern, "")
    except InvalidInputError:
        return False
    return True


PATTERNS = st.builds(
    lambda start, parts, end: start + "".join(parts) + end,
    st.sampled_from(["", "", "^", r"\A", "(?i)", "(?i)^"]),
    st.lists(
        st.recursive(
            _ATOMS,
            lambda inner: st.one_of(
                st.builds("({}|{})".format, inner, inner),
                st.builds(
                    "(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}?"])
                ),
                st.builds("{}{}".format, inner, inner),
            ),
            max_leaves=4,
        ),
        max_size=3,
    ),
    st.sampled_from(["", "", "$", r"\Z"]),
).filter(is_taken)
ELEMENT_FILTERS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.builds(
            lambda path, name, value: {path: {name: value}},
            PATHS,
            st.sampled_from(["$eq", "$ne", "$gt", "$lte", "$contains"]),
            FEW.filter(lambda value: type(value) in (str, int, float)),
        ),
        st.builds(lambda path, values: {path: {"$in": values}}, PATHS, st.lists(FEW, max_size=3)),
        st.dictionaries(PATHS, FEW, max_size=2),
        FEW.map(lambda value: {"$eq": value}),
        st.builds(lambda path, there: {path: {"$exists": there}}, PATHS, st.booleans()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
        st.builds(lambda path, part: {path: {"$elemMatch": part}}, PATHS, inner),
    ),
    max_leaves=3,
)
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("$eq", "$ne", "$contains"), VALUES | MOMENTS),
    **dict.fromkeys(
        ("$in", "$nin"),
        LISTS
        | st.lists(STRINGS | st.none())
        | st.lists(NUMBERS | st.none())
        | st.lists(MOMENTS | SCALARS, max_size=3),
    ),
    **dict.fromkeys(("$any", "$all"), LISTS | st.lists(MOMENTS | SCALARS, max_size=2)),
    **dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), ORDERED),
    "$between": st.lists(NUMBERS, min_size=2, max_size=2)
    | st.lists(STRINGS, min_size=2, max_size=2)
    | st.lists(MOMENTS, min_size=2, max_size=2),
    "$exists": st.booleans(),
    "$like": _patterns(STRINGS) | LETTERS.map(lambda text: text.replace("\\", "") + "%"),
    "$ilike": _patterns(LETTERS),
    "$text": st.lists(
        st.sampled_from(["red", "green", "-blue", "ÉTÉ"]), min_size=1, max_size=2
    ).map(" ".join),
    "$geo": st.builds(lambda place, radius: place | {"radius_m": radius}, PLACES, RADII)
    | BOXES
    | POLYGONS,
    "$prefix": STRINGS,
    "$regex": PATTERNS,
    "$elemMatch": ELEMENT_FILTERS,
    "$size": st.integers(0, 4)
    | st.dictionaries(
        st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte"]),
        st.integers(0, 4),
        min_size=1,
        max_size=2,
    ),
}
DOCUMENTS = {
    "$text": documents(SENTENCES | VALUES),
    "$geo": documents(PLACES | GRID | NO_PLACES | SCALARS),
    "$regex": documents(LETTERS | STRINGS | st.none()),
    "$elemMatch": documents(st.lists(OBJECTS | FEW, max_size=3)),
    "$like": documents(LETTERS | VALUES),
    "$ilike": documents(LETTERS | st.none() | NUMBERS),
}


def _taken(value: Any, argument: Any, kind: str) -> Any:
    """What a document has, where the operator takes such a value."""
    match kind:
        case "$eq" | "$ne":
            return value
        case "$in" | "$nin":
            return [*argument, value]
        case "$any" | "$all" if isinstance(value, list):
            return value[:2]
        case "$contains" if isinstance(value, list) and value:
            return value[-1]
        case "$gt" | "$gte" | "$lt" | "$lte" if is_number(value) or isinstance(value, str):
            return value
        case "$between" if is_number(value) or isinstance(value, str):
            return [value, value]
        case "$prefix" if isinstance(value, str):
            return value[:2]
        case "$regex" if isinstance(value, str):
            return (
                f"^{re.escape(value[:3])}" if value.isascii() and value.isprintable() else argument
            )
        case "$like" | "$ilike" if isinstance(value, str):
            return value.replace("\\", "\\\\").swapcase()
    return argument


@st.composite
def cases(draw: st.DrawFn, kind: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Documents, and a filter by one operator; half of them are about what a document has."""
    stored = draw(DOCUMENTS.get(kind, documents(VALUES)))
    stored = json.loads(json.dumps(stored))
    path, argument = draw(PATHS), draw(ARGUMENTS[kind])
    there = [
        (name, value)
        for name in NAMES
        for document in stored
        if (value := lookup(document, name)) is not MISSING
    ]
    if there and draw(st.booleans()):
        path, value = draw(st.sampled_from(there))
        argument = _taken(value, argument, kind)
    return stored, {path: {kind: argument}}


CONDITIONS = st.sampled_from(
    [k for k in ARGUMENTS if k not in ("$text", "$geo", "$ilike")]
).flatmap(
    lambda kind: st.builds(lambda path, argument: {path: {kind: argument}}, PATHS, ARGUMENTS[kind])
)
TREES = st.recursive(
    CONDITIONS | st.dictionaries(PATHS, SCALARS, max_size=2),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$nor": parts}),
        inner.map(lambda part: {"$not": part}),
        st.lists(inner, min_size=1, max_size=4).flatmap(
            lambda parts: st.integers(1, len(parts)).map(
                lambda least: {"$min_should": {"conditions": parts, "min_count": least}}
            )
        ),
        st.builds(
            lambda path, low: {path: {"$not": {"$gt": low}, "$exists": True}}, PATHS, ORDERED
        ),
    ),
    max_leaves=5,
)
