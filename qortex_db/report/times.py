"""Axes of time: round ticks and their labels, whether of seconds or of years. All in UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_STEPS: Final = (
    *(1, 2, 5, 10, 15, 30),
    *(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR for n in (1, 2, 3, 6, 12)),
    *(n * _DAY for n in (1, 2, 4, 7, 14)),
)
_MONTHS: Final = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1_200, 12_000)
_MONTH: Final = 30.4 * _DAY
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""What Python has a date for: PostgreSQL has others."""


def ticks(start: float, end: float, most: int) -> list[tuple[float, str]]:
    """Round moments within a span, as many as asked for at most, with their labels.

    Args:
        start: In seconds since 1970.
        end: The same.
        most: At least one.
    """
    span = end - start
    step = next((step for step in _STEPS if span / step <= most), None)
    if step is not None:
        form = "%H:%M:%S" if step < _MINUTE else "%H:%M" if step < _DAY else "%d %b"
        numbers = range(math.ceil(start / step), math.floor(end / step) + 1)
        return [(float(step * n), _label(step * n, form)) for n in numbers][:most]
    months = next((n for n in _MONTHS if span / (n * _MONTH) <= most), _MONTHS[-1])
    form = "%b %Y" if months % 12 else "%Y"
    found = [(at, _label(at, form)) for at in _months(start, end, months)]
    return found[:most]


def _months(start: float, end: float, step: int) -> Iterator[float]:
    first = _moment(start)
    number = -(-(first.year * 12 + first.month - 1) // step) * step
    while number < 9_999 * 12:
        at = datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp()
        if at > end:
            return
        if at >= start:
            yield at
        number += step


def _label(at: float, form: str) -> str:
    if form in {"%H:%M", "%H:%M:%S"} and not at % _DAY:
        form = "%d %b"  # another day begins
    return _in_form(_moment(at), form)


def said(at: float, width: float) -> str:
    """A moment, as exactly as a width of so many seconds asks for."""
    form = "%d %b %Y" if width >= _DAY else "%d %b %Y %H:%M"
    if width < _MINUTE:
        form = "%d %b %Y %H:%M:%S"
    return _in_form(_moment(at), form)


def when(start: float, end: float) -> str:
    """The days of a span, in words."""
    first, last = (_in_form(at, f"{at.day} %B %Y") for at in map(_moment, (start, end)))
    return first if first == last else f"{first} to {last}"


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(min(max(at, _FIRST), _LAST), UTC)


def _in_form(moment: datetime, form: str) -> str:
    year = str(moment.year)  # %Y has four digits from Python 3.14 on
    return moment.strftime(form.replace("%Y", year))
