"""The moment that a string tells, as SQL that an index can hold.

A cast to `timestamptz` depends on settings, so that no index takes it, and raises on other texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import DateTime, Float, Integer, and_, cast

from qortex_db.filters.expressions import Constant, ShownCase
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

_DAY: Final = (
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_TIME: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9](?:[.,][0-9]{1,9})?|60))?"
_OFFSET: Final = "(?:[Zz]| ?[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"
# RFC 3339, and of ISO 8601 what is usual: a space for the T, a comma, no seconds, +01 and +0100.
_INSTANT: Final = Constant(f"^{_DAY}[Tt ]{_TIME}{_OFFSET}$")
_FIRST_YEAR: Final = Constant("0001")
_ENDS, _BARS = Constant("Zz+- ,"), Constant("|||||.")  # what ends the seconds; a comma is a point


def instant(text: ColumnElement[str]) -> ColumnElement[Any]:
    """A `timestamp` in UTC, to the microsecond; NULL where the text is no time with an offset.

    By positions: patterns take twice as long. One says beforehand that all is in its place.
    """

    def whole(digits: ColumnElement[Any]) -> ColumnElement[int]:
        return cast(digits, Integer())

    def part(start: int, length: int) -> ColumnElement[int]:
        return whole(func.substr(text, Constant(start), Constant(length), type_=Text()))

    zero, one, two, hundred = (Constant(number) for number in (0, 1, 2, 100))
    nothing, bar, colon, minus = (Constant(mark) for mark in ("", "|", ":", "-"))
    rest = func.substr(text, Constant(17), type_=Text())
    seconds = func.ltrim(func.split_part(func.translate(rest, _ENDS, _BARS), bar, one), colon)
    local = func.make_timestamp(
        *(part(1, 4), part(6, 2), part(9, 2), part(12, 2), part(15, 2)),
        func.coalesce(cast(func.nullif(seconds, nothing), Float()), cast(zero, Float())),
    )
    # As hhmm, a number whose hundreds are hours; nothing after a Z.
    digits = func.split_part(func.translate(rest, Constant("+-"), Constant("||")), bar, two)
    hhmm = whole(func.rpad(func.replace(digits, colon, nothing), Constant(4), Constant("0")))
    east = hhmm * (one - two * whole(func.strpos(rest, minus) > zero))
    hours, minutes = east.op("/", return_type=Integer())(hundred), func.mod(east, hundred)
    offset = func.make_interval(zero, zero, zero, zero, hours, minutes)
    in_place = and_(text.op("~", is_comparison=True)(_INSTANT), text.collate("C") >= _FIRST_YEAR)
    return ShownCase((in_place, local.op("-", return_type=DateTime())(offset)))
