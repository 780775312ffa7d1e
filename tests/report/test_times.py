"""Axes of time, whatever they span."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from qortex_db.report import times


def at(*moment: int) -> float:
    return datetime(*moment, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("start", "end", "labels"),
    [
        (at(2026, 3, 1, 23, 59, 31), at(2026, 3, 2, 0, 0, 11),
         ["23:59:40", "23:59:50", "02 Mar", "00:00:10"]),
        (at(2026, 3, 1, 12, 1), at(2026, 3, 1, 12, 19), ["12:05", "12:10", "12:15"]),
        (at(2026, 3, 1, 9), at(2026, 3, 2, 8), ["12:00", "18:00", "02 Mar", "06:00"]),
        (at(2026, 2, 27), at(2026, 3, 2), ["27 Feb", "28 Feb", "01 Mar", "02 Mar"]),
        (at(2026, 2, 1), at(2026, 3, 1), ["05 Feb", "12 Feb", "19 Feb", "26 Feb"]),
        (at(2025, 11, 20), at(2026, 5, 20), ["Jan 2026", "Mar 2026", "May 2026"]),
        (at(2021, 5, 1), at(2026, 5, 1), ["2022", "2024", "2026"]),
        (at(1, 1, 1), at(9999, 12, 31), ["1000", "2000", "3000", "4000"]),
    ],
)  # fmt: skip
def test_ticks_are_round_and_few(start: float, end: float, labels: list[str]) -> None:
    found = times.ticks(start, end, 4)
    assert [label for _, label in found] == labels
    assert all(start <= place <= end for place, _ in found)
    assert [place for place, _ in found] == sorted(place for place, _ in found)


def test_a_moment_is_as_exact_as_its_bin_is_wide() -> None:
    moment = at(2026, 3, 1, 12, 30, 15)
    assert times.said(moment, 1) == "01 Mar 2026 12:30:15"
    assert times.said(moment, 600) == "01 Mar 2026 12:30"
    assert times.said(moment, 86_400) == "01 Mar 2026"
    assert times.said(-1e15, 86_400) == "01 Jan 1"  # what Python has no date for
    assert times.when(moment, moment + 60) == "1 March 2026"
    assert times.when(moment, moment + 86_400) == "1 March 2026 to 2 March 2026"
