"""Places in payloads: objects with the numbers `lat` and `lon`, in degrees."""

from __future__ import annotations

import math
from collections.abc import Mapping
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

_CIRCLE: Final = {"lat": (-90, 90), "lon": (-180, 180), "radius_m": (0, math.inf)}
_BOX: Final = {
    "min_lat": (-90, 90),
    "max_lat": (-90, 90),
    "min_lon": (-180, 180),
    "max_lon": (-180, 180),
}


def geo(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """A place within a radius, by haversine, or within a box."""
    keys = value.keys() if isinstance(value, Mapping) else set()
    bounds = next((one for one in (_CIRCLE, _BOX) if keys == one.keys()), None)
    if bounds is None:
        raise InvalidInputError(
            f"{at} takes a dict of {', '.join(_CIRCLE)}, or of {', '.join(_BOX)}."
        )
    value = {name: plain(side, f"{at}[{name!r}]") for name, side in value.items()}
    for name, (low, high) in bounds.items():
        side, place = value[name], f"{at}[{name!r}]"
        if kind_of(side, place) is not NUMBER:
            raise InvalidInputError(f"{place} is a {type(side).__name__}; pass a number.")
        as_number(side, place)
        if not low <= side <= high:
            raise InvalidInputError(f"{place} has to be from {low} to {high}.")
    read = _circle if bounds is _CIRCLE else _box
    return read(path, value, at, values)


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
