"""The moment that a string tells, as SQL that an index can hold.

A cast to `timestamptz` depends on settings, so that no index takes it, and raises on other texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import DateTime, Float, Integer, Text, cast, func

from qortex_db.filters.expressions import Constant, ShownCase

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

_DAY: Final = (
    "(?!0000)(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_TIME: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9](?:[.,][0-9]{1,9})?|60))?"
_OFFSET: Final = "(?:[Zz]| ?[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"
# RFC 3339, and of ISO 8601 what is usual: a space for the T, a comma, no seconds, +01 and +0100.
_INSTANT: Final = Constant(f"^{_DAY}[Tt ]{_TIME}{_OFFSET}$")
_SECONDS: Final = Constant("^.{16}:([0-9]{2}(?:[.,][0-9]+)?)")
_SHIFT: Final = Constant("[+-][0-9]{2}:?(?:[0-9]{2})?$")


def instant(text: ColumnElement[str]) -> ColumnElement[Any]:
    """A `timestamp` in UTC, to the microsecond; NULL where the text is no time with an offset."""

    def found(pattern: Constant) -> ColumnElement[str]:
        return func.substring(text, pattern, type_=Text())

    def part(start: int, length: int) -> ColumnElement[int]:
        return cast(func.substr(text, Constant(start), Constant(length), type_=Text()), Integer())

    seconds = cast(func.replace(found(_SECONDS), Constant(","), Constant(".")), Float())
    zero = Constant(0)
    day = part(1, 4), part(6, 2), part(9, 2)
    local = func.make_timestamp(
        *day, part(12, 2), part(15, 2), func.coalesce(seconds, cast(zero, Float()))
    )
    # As +hhmm, a number whose hundreds are hours.
    shift = func.replace(func.coalesce(found(_SHIFT), Constant("+")), Constant(":"), Constant(""))
    east = cast(func.rpad(shift, Constant(5), Constant("0"), type_=Text()), Integer())
    hundred = Constant(100)
    hours = east.op("/", return_type=Integer())(hundred)
    minutes = func.mod(east, hundred)
    offset = func.make_interval(zero, zero, zero, zero, hours, minutes)
    return ShownCase(
        (
            text.op("~", is_comparison=True)(_INSTANT),
            local.op("-", return_type=DateTime())(offset),
        )
    )
