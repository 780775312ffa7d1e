"""Regular expressions: a bounded subset of Python's `re`, written anew as PostgreSQL has them.

What is written here compiles and matches within bounds on the server: an expression of a stranger's
own could end a transaction ("invalid regular expression", "too complex").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qortex_db.errors import InvalidInputError

MAX_REPEAT: Final = 100
"""The highest number in a quantifier."""
MAX_SIZE: Final = 1_000
"""The largest regular expression: a character or class is 1, each as often as it is repeated, and
tenfold where it may come more or less often. By that the server's time to compile it grows."""
MAX_CLASSES: Final = 10
"""The most different classes, such as [a-z]: each divides the characters into more kinds."""
MAX_GROUPS: Final = 10
"""How deeply groups may be nested."""
MAX_BRANCHES: Final = 100
"""The most alternatives."""

_LAST: Final = 0x10FFFF
_Ranges = tuple[tuple[int, int], ...]
_DIGIT: Final[_Ranges] = ((0x30, 0x39),)
_WORD: Final[_Ranges] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Final[_Ranges] = ((0x09, 0x0D), (0x20, 0x20))
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_UPPER, _LOWER, _CASE = (0x41, 0x5A), (0x61, 0x7A), 0x20
_QUANTIFIER: Final = re.compile(r"[*+?]|\{([0-9]+)\}|\{([0-9]*),([0-9]*)\}", re.ASCII)


def _without(ranges: _Ranges) -> _Ranges:
    """Every other character."""
    found, start = [], 1
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return (*found, (start, _LAST)) if start <= _LAST else tuple(found)


_CLASSES: Final[dict[str, _Ranges]] = {
    "d": _DIGIT,
    "w": _WORD,
    "s": _SPACE,
    "D": _without(_DIGIT),
    "W": _without(_WORD),
    "S": _without(_SPACE),
}


def _character(code: int) -> str:
    """One that means itself wherever it stands."""
    text = chr(code)
    if text.isascii() and text.isalnum():
        return text
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - four digits


def _bracket(ranges: _Ranges, *, negated: bool = False) -> str:
    parts = [
        _character(low) if low == high else f"{_character(low)}-{_character(high)}"
        for low, high in sorted(ranges)
    ]
    return f"[{'^' if negated else ''}{''.join(parts)}]"


_IN_WORD: Final = _bracket(_WORD)
_BEFORE, _BESIDE = rf"(?<={_IN_WORD})(?!{_IN_WORD})", rf"(?<!{_IN_WORD})(?={_IN_WORD})"
_START: Final = "^"
# What holds at a place, as Python has it without its flags.
_PLACES: Final = {
    "^": _START,
    "$": r"(?=\u000a?$)",
    r"\A": _START,
    r"\Z": "$",
    r"\b": f"(?:{_BEFORE}|{_BESIDE})",
}
_PLACE_SIZES: Final = {"$": 20, r"\b": 100}
_VARYING: Final = 10
_TOO_LARGE: Final = "more than fits: too many characters or repetitions"


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression that was read.

    Attributes:
        sql: As PostgreSQL has it.
        prefix: What every text that it matches begins with.
    """

    sql: str
    prefix: str


@dataclass(frozen=True, slots=True)
class _Part:
    sql: str
    size: int
    text: str | None = None
    """The one text that it matches."""


def read_regex(text: str, at: str) -> Regex:
    """Read a regular expression.

    Raises:
        InvalidInputError: It is outside the subset, or too large. The message names the position.
    """
    parser = _Parser(text, at)
    branches = parser.branches(0)
    if parser.place < len(text):
        raise parser.error("a parenthesis that none opened; write \\)")
    sql = "|".join("".join(part.sql for part in branch) for branch in branches)
    prefix = ""
    if len(branches) == 1 and branches[0] and branches[0][0].sql == _START:
        for part in branches[0][1:]:
            if part.text is None:
                break
            prefix += part.text
    return Regex(sql, prefix)


def _place(mark: str) -> _Part:
    return _Part(_PLACES[mark], _PLACE_SIZES.get(mark, 0))


class _Parser:
    """Writes an expression anew while it reads it."""

    def __init__(self, text: str, at: str) -> None:
        self.text = text
        self.at = at
        self.place = 0
        self.total_branches = 0
        self.classes: set[str] = set()
        self.ignores_case = text.startswith("(?i)")
        if self.ignores_case:
            self.place = 4

    def error(self, what: str, place: int | None = None) -> InvalidInputError:
        at = self.place if place is None else place
        return InvalidInputError(
            f"{self.at} has, at character {at + 1}, {what}. The page of filters tells what "
            "is taken."
        )

    def _next(self) -> str:
        return self.text[self.place : self.place + 1]

    def branches(self, depth: int) -> list[list[_Part]]:
        """Alternatives, up to the end or to a parenthesis that closes them."""
        found: list[list[_Part]] = [[]]
        while (mark := self._next()) not in ("", ")"):
            if mark == "|":
                self.place += 1
                self.total_branches += 1
                if self.total_branches >= MAX_BRANCHES:
                    raise self.error(f"more than {MAX_BRANCHES} alternatives", self.place - 1)
                found.append([])
                continue
            start = self.place
            branch = found[-1]
            branch.append(self._quantified(self._item(depth)))
            if sum(part.size for part in branch) > MAX_SIZE:
                raise self.error(_TOO_LARGE, start)
        if sum(part.size for branch in found for part in branch) > MAX_SIZE:
            raise self.error(_TOO_LARGE)
        return found

    def _item(self, depth: int) -> _Part:
        mark, start = self._next(), self.place
        self.place += 1
        if mark == "(":
            return self._group(depth, start)
        if mark == "[":
            return self._class(start)
        if mark == ".":
            return _Part(r"[^\u000a]", 1)
        if mark in _PLACES:
            return _place(mark)
        if mark == "\\":
            return self._escaped(start)
        if mark in "*+?{":
            raise self.error(f"a quantifier of nothing; write \\{mark} for the character", start)
        if mark in "]}":
            raise self.error(f"a bracket that none opened; write \\{mark}", start)
        return self._literal(mark)

    def _literal(self, mark: str) -> _Part:
        if self.ignores_case and mark.isascii() and mark.isalpha():
            return _Part(f"[{mark.lower()}{mark.upper()}]", 1)
        return _Part(_character(ord(mark)), 1, mark)

    def _escape(self, start: int) -> str | _Ranges:
        """A character, or the class of an escape."""
        mark = self._next()
        self.place += 1
        if mark in _CLASSES:
            return _CLASSES[mark]
        if mark in _CONTROLS:
            return _CONTROLS[mark]
        if mark == "" or mark.isalnum():
            raise self.error("an escape that is not taken", start)
        return mark

    def _escaped(self, start: int) -> _Part:
        place = self.text[start : start + 2]
        if place in _PLACES:
            self.place += 1
            return _place(place)
        found = self._escape(start)
        return self._literal(found) if isinstance(found, str) else self._one_of(found, start)

    def _one_of(self, ranges: _Ranges, start: int, *, negated: bool = False) -> _Part:
        sql = _bracket(ranges, negated=negated)
        self.classes.add(sql.replace("^", "", 1))
        if len(self.classes) > MAX_CLASSES:
            raise self.error(f"more than {MAX_CLASSES} different classes", start)
        return _Part(sql, 1)

    def _group(self, depth: int, start: int) -> _Part:
        if depth >= MAX_GROUPS:
            raise self.error(f"groups nested more than {MAX_GROUPS} levels deep", start)
        if self._next() == "?":
            if self.text[self.place : self.place + 2] != "?:":
                raise self.error("a group that is not taken; write (…) or (?:…)", start)
            self.place += 2
        branches = self.branches(depth + 1)
        if self._next() != ")":
            raise self.error("a parenthesis that is not closed", start)
        self.place += 1
        sql = "|".join("".join(part.sql for part in branch) for branch in branches)
        return _Part(f"(?:{sql})", sum(part.size for branch in branches for part in branch))

    def _class(self, start: int) -> _Part:
        negated = self._next() == "^"
        self.place += negated
        ranges: list[tuple[int, int]] = []
        first = True
        while (mark := self._next()) != "]" or first:
            if mark in ("", "]"):
                raise self.error("a class that is empty or not closed; write \\] for ]", start)
            ranges += self._range(first=first)
            first = False
        self.place += 1
        if self.ignores_case:
            ranges += [_other_case(each, case) for each in ranges for case in (_UPPER, _LOWER)]
        whole = _without(_without(tuple(one for one in ranges if one[0] <= one[1])))
        return self._one_of(whole, start, negated=negated)

    def _range(self, *, first: bool) -> _Ranges:
        start = self.place
        low = self._member(is_edge=first)
        if not (
            self._next() == "-" and self.text[self.place + 1 : self.place + 2] not in ("", "]")
        ):
            return low if isinstance(low, tuple) else ((ord(low), ord(low)),)
        self.place += 1
        high = self._member(is_edge=False)
        if isinstance(low, tuple) or isinstance(high, tuple) or low > high:
            raise self.error("a range without a beginning and an end; write \\- for -", start)
        return ((ord(low), ord(high)),)

    def _member(self, *, is_edge: bool) -> str | _Ranges:
        mark, start = self._next(), self.place
        self.place += 1
        if mark == "\\":
            return self._escape(start)
        if mark == "[" or (mark == "-" and not is_edge and self._next() != "]"):
            raise self.error(f"a {mark} inside of a class; write \\{mark}", start)
        return mark

    def _quantified(self, part: _Part) -> _Part:
        found = _QUANTIFIER.match(self.text, self.place)
        if found is None:
            if self._next() == "{":
                raise self.error("a brace that is no quantifier; write \\{")
            return part
        if part.sql in _PLACES.values():
            raise self.error("a quantifier of a place", self.place)
        least, most = _bounds(found)
        if max(least, most or 0) > MAX_REPEAT or (most is not None and least > most):
            raise self.error(f"a quantifier that is not from 0 to {MAX_REPEAT}")
        self.place = found.end()
        if self._next() == "?":  # whether it is the shortest match makes no difference here
            self.place += 1
        if (mark := self._next()) and mark in "*+?{":
            raise self.error("a quantifier of a quantifier")
        often = f"{{{least},{'' if most is None else most}}}"
        size = part.size * max(1, least if most is None else most)
        return _Part(f"{part.sql}{often}", size if least == most else size * _VARYING)


def _bounds(found: re.Match[str]) -> tuple[int, int | None]:
    if found[0] in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[0]]
    if found[1]:
        # Far from what an int may be read of.
        times = int(found[1][:9])
        return times, times
    return int(found[2][:9] or 0), int(found[3][:9]) if found[3] else None


def _other_case(each: tuple[int, int], case: tuple[int, int]) -> tuple[int, int]:
    """The letters of a range that are of one case, in the other; an empty range where none is."""
    shift = _CASE if case == _UPPER else -_CASE
    return max(each[0], case[0]) + shift, min(each[1], case[1]) + shift
