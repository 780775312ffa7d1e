"""Places in payloads: objects with the numbers `lat` and `lon`, in degrees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import InvalidInputError
from qortex_db.filters import conditions
from qortex_db.filters.values import NUMBER, as_number, kind_of, plain

if TYPE_CHECKING:
    from sqlalchemy import Table

    from qortex_db.filters.conditions import Shape
    from qortex_db.filters.fields import Path

EARTH_RADIUS_M: Final = 6_371_008.8
"""The mean radius of the Earth."""

MAX_CORNERS: Final = 1_000
"""The most corners of a polygon, those of its holes counted."""

_FEWEST: Final = 3
_AROUND: Final = 360
_CORNER: Final = {"lat": (-90, 90), "lon": (-360, 360)}
_CIRCLE: Final = {"lat": (-90, 90), "lon": (-180, 180), "radius_m": (0, math.inf)}
_BOX: Final = {
    "min_lat": (-90, 90),
    "max_lat": (-90, 90),
    "min_lon": (-180, 180),
    "max_lon": (-180, 180),
}


def geo(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """A place within a radius, by haversine, within a box or a polygon."""
    keys = value.keys() if isinstance(value, Mapping) else set()
    if "exterior" in keys:
        return _polygon(path, value, at, values)
    bounds = next((one for one in (_CIRCLE, _BOX) if keys == one.keys()), None)
    if bounds is None:
        raise InvalidInputError(
            f"{at} takes a dict of {', '.join(_CIRCLE)}, of {', '.join(_BOX)}, or of exterior and "
            "interiors."
        )
    value = _checked(value, bounds, at)
    read = _circle if bounds is _CIRCLE else _box
    return read(path, value, at, values)


def _checked(value: Any, bounds: Mapping[str, tuple[float, float]], at: str) -> dict[str, Any]:
    """Numbers by their names, within bounds."""
    given = {name: plain(side, f"{at}[{name!r}]") for name, side in value.items()}
    for name, (low, high) in bounds.items():
        side, place = given[name], f"{at}[{name!r}]"
        if kind_of(side, place) is not NUMBER:
            raise InvalidInputError(f"{place} is a {type(side).__name__}; pass a number.")
        as_number(side, place)
        if not low <= side <= high:
            raise InvalidInputError(f"{place} has to be from {low} to {high}.")
    return given


def _polygon(path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    rings = _rings(value, at)
    (south, north), (west, east) = ((min(side), max(side)) for side in zip(*rings[0], strict=True))
    if east - west > _AROUND:
        raise InvalidInputError(f"{at}['exterior'] is wider than {_AROUND} degrees.")
    edges: list[tuple[str, ...]] = []
    for number, ring in enumerate(rings):
        for corners in zip(ring, [*ring[1:], ring[0]], strict=True):
            if corners[0] != corners[1]:  # a ring may be closed already
                (y1, x1), (y2, x2) = sorted(corners)
                edges.append((str(number), *map(str, (y1, x1, y2, x2))))
    values += map(str, (south, north, west, east))
    values += map(list, zip(*edges, strict=True))
    return conditions.within_polygon, path


def _rings(value: Any, at: str) -> list[list[tuple[Decimal, Decimal]]]:
    """The corners of a polygon, and of its holes."""
    if not value.keys() <= {"exterior", "interiors"}:
        raise InvalidInputError(f"{at} takes a dict of exterior and interiors.")
    given = {f"{at}['exterior']": value["exterior"]}
    holes = _listed(value.get("interiors", []), f"{at}['interiors']")
    given |= {f"{at}['interiors'][{i}]": hole for i, hole in enumerate(holes)}
    rings: list[list[tuple[Decimal, Decimal]]] = []
    for place, corners in given.items():
        if sum(map(len, rings)) + len(_listed(corners, place)) > MAX_CORNERS:
            raise InvalidInputError(f"{at} has more than {MAX_CORNERS:,} corners.")
        rings.append([_corner(corner, f"{place}[{i}]") for i, corner in enumerate(corners)])
        if len(set(rings[-1])) < _FEWEST:
            raise InvalidInputError(f"{place} has fewer than {_FEWEST} corners.")
    return rings


def _listed(value: Any, at: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise InvalidInputError(f"{at} is a {type(value).__name__}; pass a list.")
    return value


def _corner(value: Any, at: str) -> tuple[Decimal, Decimal]:
    if not isinstance(value, Mapping) or value.keys() != _CORNER.keys():
        raise InvalidInputError(f"{at} takes a dict of lat and lon.")
    corner = _checked(value, _CORNER, at)
    lat, lon = (round(Decimal(as_number(corner[name], at)), 12) for name in _CORNER)
    return lat, lon


def _circle(path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    lat, lon, radius = (round(float(value[name]), 12) for name in _CIRCLE)
    angle = radius / EARTH_RADIUS_M
    reach = math.degrees(angle) + 1e-9  # beyond any rounding
    # Compared before the arc sine; half the way round is everywhere.
    limit = math.sin(angle / 2) ** 2 if angle < math.pi else 2.0
    values += [
        as_number(lat - reach, at),
        as_number(lat + reach, at),
        math.radians(lat),
        math.radians(lon),
        limit,
    ]
    return conditions.within, path


def _box(path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    if value["min_lat"] > value["max_lat"]:
        raise InvalidInputError(f"{at}['min_lat'] is above its max_lat.")
    values += [as_number(value[name], at) for name in _BOX]
    # From 170 to -170 the way is across the antimeridian.
    across = value["min_lon"] > value["max_lon"]
    return conditions.within_box, path, "across" if across else "eastwards"
