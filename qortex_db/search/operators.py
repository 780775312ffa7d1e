"""The operators of filters: what each takes, and which condition it becomes.

The table of docs/filters.md is the rule for nulls, missing keys and types. An operator is read into
a shape, and its values go aside in the order in which the shape's form asks for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from qortex_db.errors import InvalidInputError
from qortex_db.search import forms
from qortex_db.search.fields import MAX_INDEXED_CHARS, Path, check_language, text_language
from qortex_db.search.indexes import is_declared
from qortex_db.search.values import (
    BOOLEAN,
    NESTED,
    NULL,
    NUMBER,
    STRING,
    as_json,
    as_list,
    as_number,
    as_string,
    as_text,
    kind_of,
)

if TYPE_CHECKING:
    from sqlalchemy import Table

EARTH_RADIUS_M: Final = 6_371_008.8
"""The mean radius of the Earth."""

# A list this long is also compared by equality, which the server hashes; containment it tries one
# by one. Below, the planner would take the two for independent and expect too few rows.
_HASHED_FROM = 100

# The server refuses a query with 32 negations in a row.
_MAX_DASHES: Final = 16
_GAPS: Final = re.compile(r"\W+")

Shape: TypeAlias = tuple[Any, ...]
"""A filter without its values: a form, its path and constants; or "and", "or", "not" and shapes."""
Reader: TypeAlias = Callable[["Table", Path, Any, str, list[Any]], Shape]
"""Reads an operator's argument: the table, the path, the argument, what an error calls it, and the
values to append to."""

_INDEXES: Final = {STRING: "keyword", NUMBER: "number", BOOLEAN: "boolean"}


def equal(table: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """Equal as JSON, by type and value; None is null or missing."""
    kind = kind_of(value, at)
    if kind is NULL:
        return forms.is_null, path
    if kind is not NESTED and is_declared(table, path, _INDEXES[kind]):
        column, operand = _comparable(value, at)
        if column in ("keyword", "number", "boolean"):
            values.append(operand)
            return forms.compare, path, column, "="
    text = as_json(value, at)
    if path.positional:
        values.append(text)
        return forms.equals, path
    values.append(path.around(text))
    if kind is not NESTED:
        return forms.contains, path
    values.append(text)  # an object or array may contain it and have more
    return "and", (forms.contains, path), (forms.equals, path)


def one_of(table: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """Equal to one of a list."""
    items = as_list(value, at)
    known = [item for item in items if item is not None]
    shape = _one_of_known(table, path, known, at, values)
    return shape if len(known) == len(items) else ("or", shape, (forms.is_null, path))


def _one_of_known(table: Table, path: Path, items: list[Any], at: str, values: list[Any]) -> Shape:
    if not items:
        return forms.nothing, path
    kinds = {kind_of(item, at) for item in items}
    column = _INDEXES.get(next(iter(kinds))) if len(kinds) == 1 else None
    if column in ("keyword", "number") and is_declared(table, path, column):
        operands = [_comparable(item, at) for item in items]
        if all(found == column for found, _ in operands):
            values.append([operand for _, operand in operands])
            return forms.is_one_of, path, column
    texts = [as_json(item, at) for item in items]
    if path.positional:
        values.append(texts)
        return forms.equals_any, path
    values.append([path.around(text) for text in texts])
    if NESTED not in kinds and len(items) < _HASHED_FROM:
        return forms.contains_any, path
    values.append(texts)
    return "and", (forms.contains_any, path), (forms.equals_any, path)


def _comparable(value: Any, at: str) -> tuple[str, Any]:
    """The column of `Field` that compares with a value, and the value for it."""
    kind = kind_of(value, at)
    if kind is NUMBER:
        return "number", as_number(value, at)
    if kind is BOOLEAN:
        return "boolean", value
    if kind is not STRING:
        raise InvalidInputError(f"{at} is a {type(value).__name__}; pass a number or a string.")
    text = as_text(value, at)
    return "keyword" if len(text) < MAX_INDEXED_CHARS else "string", text


def _compares(operator: str) -> Reader:
    def read(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
        column, operand = _comparable(value, at)
        if column == "boolean":
            raise InvalidInputError(f"{at} is a bool, which has no order; pass a number or string.")
        values.append(operand)
        return forms.compare, path, column, operator

    return read


_at_least, _at_most = _compares(">="), _compares("<=")


def between(table: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """Within two bounds, both included."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:  # noqa: PLR2004
        raise InvalidInputError(f"{at} takes a list of two, the lowest and the highest.")
    low, high = value
    if kind_of(low, at) != kind_of(high, at):
        raise InvalidInputError(f"{at} has bounds of two types; pass two numbers or two strings.")
    shapes = (
        _at_least(table, path, low, at, values),
        _at_most(table, path, high, at, values),
    )
    return "and", *shapes


def exists(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:  # noqa: ARG001
    """Whether the key is there, be it null."""
    if not isinstance(value, bool):
        raise InvalidInputError(f"{at} is a {type(value).__name__}; pass True or False.")
    shape = forms.exists, path
    return shape if value else ("not", shape)


def has(table: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """An array with this element, or a string with this substring."""
    element = has_all(table, path, [value], at, values)
    if kind_of(value, at) is not STRING:
        return element
    values.append(as_text(value, at))
    return "or", element, (forms.has_substring, path)


def has_any(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """An array with one of these elements."""
    items = as_list(value, at)
    if not items:
        return forms.nothing, path
    texts = [as_json(item, at) for item in items]
    exact = (forms.array_has, path, "&&")
    if path.positional:
        values.append(texts)
        return exact
    values.append([path.around(f"[{text}]") for text in texts])
    if not _has_nested(items, at):
        return forms.contains_any, path
    values.append(texts)
    return "and", (forms.contains_any, path), exact


def has_all(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """An array with all of these elements."""
    items = as_list(value, at)
    texts = [as_json(item, at) for item in items]
    exact = (forms.array_has, path, "@>")
    if path.positional:
        values.append(texts)
        return exact
    values.append(path.around(f"[{','.join(texts)}]"))
    if not _has_nested(items, at):
        return forms.contains, path
    values.append(texts)  # an element may contain an object and have more
    return "and", (forms.contains, path), exact


def _has_nested(items: list[Any], at: str) -> bool:
    return any(kind_of(item, at) is NESTED for item in items)


def _pattern(value: object, at: str) -> str:
    pattern = as_string(value, at)
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise InvalidInputError(
            f"{at} ends with the escape character; write two backslashes for one."
        )
    return pattern


def like(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """A string that a pattern matches."""
    pattern = _pattern(value, at)
    values.append(pattern)
    beginning = pattern[:-1]
    # The keyword index knows how a string begins.
    plain = pattern.endswith("%") and not any(mark in beginning for mark in "%_\\")
    indexed = plain and 0 < len(beginning) < MAX_INDEXED_CHARS
    return forms.like, path, "keyword" if indexed else "string"


def ilike(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """As like, whatever the case."""
    values.append(_pattern(value, at))
    return forms.ilike, path


def check_query(value: object, at: str) -> str:
    """A text that `websearch_to_tsquery` can read."""
    query = as_string(value, at)
    if any(gap.count("-") > _MAX_DASHES for gap in _GAPS.findall(query)):
        raise InvalidInputError(f"{at} has more than {_MAX_DASHES} dashes between two words.")
    return query


def _search(value: object, at: str, language: str = "simple") -> tuple[str, str]:
    if not isinstance(value, Mapping):
        return check_query(value, at), language
    if not {"$search"} <= value.keys() <= {"$search", "$language"}:
        raise InvalidInputError(f"{at} takes a string, or a dict of $search and $language.")
    language = check_language(value.get("$language", language), f"{at}['$language']")
    return check_query(value["$search"], f"{at}['$search']"), language


def text(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """A string in which words are found."""
    query, language = _search(value, at)
    values.append(query)
    return forms.matches, path, language


def document_text(table: Table, value: Any, at: str, values: list[Any]) -> Shape:
    """The same of the row's document."""
    if "document" not in table.c:
        raise InvalidInputError(f"{at} needs a column document, which the table lacks.")
    query, language = _search(value, at, text_language(table))
    values.append(query)
    return forms.document_matches, None, language


def document_contains(table: Table, value: Any, at: str, values: list[Any]) -> Shape:
    """A substring of the row's document."""
    if "document" not in table.c:
        raise InvalidInputError(f"{at} needs a column document, which the table lacks.")
    values.append(as_string(value, at))
    return forms.document_contains, None


def geo(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """A place within a radius, by haversine."""
    if not isinstance(value, Mapping) or value.keys() != {"lat", "lon", "radius_m"}:
        raise InvalidInputError(f"{at} takes a dict of lat, lon and radius_m.")
    sides = []
    for name, low, high in (("lat", -90, 90), ("lon", -180, 180), ("radius_m", 0, math.inf)):
        side = value[name]
        if kind_of(side, f"{at}[{name!r}]") is not NUMBER:
            raise InvalidInputError(f"{at}[{name!r}] is a {type(side).__name__}; pass a number.")
        as_number(side, f"{at}[{name!r}]")
        if not low <= side <= high:
            raise InvalidInputError(f"{at}[{name!r}] has to be from {low} to {high}.")
        sides.append(round(float(side), 12))
    lat, lon, radius = sides
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
    return forms.within, path


OPERATORS: Final[dict[str, Reader]] = {
    "$eq": equal,
    "$in": one_of,
    "$gt": _compares(">"),
    "$gte": _at_least,
    "$lt": _compares("<"),
    "$lte": _at_most,
    "$between": between,
    "$exists": exists,
    "$contains": has,
    "$any": has_any,
    "$all": has_all,
    "$like": like,
    "$ilike": ilike,
    "$text": text,
    "$geo": geo,
}
NEGATED: Final = {"$ne": equal, "$nin": one_of}
"""What is exactly the contrary of another operator."""
