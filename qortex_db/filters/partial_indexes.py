"""What partial indexes are about, said to the server where a filter implies it.

The server takes a partial index where a statement says its predicate, with the same constants:
never by a parameter. So where a filter's equalities imply a predicate, that is said besides.
"""

from __future__ import annotations

import functools
import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Boolean, Enum, Integer, String, cast, not_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import CompileError

from qortex_db.filters.expressions import Constant
from qortex_db.filters.fields import read_path
from qortex_db.filters.values import NUMBER, as_number, kind_of
from qortex_db.mirrors import original_of
from qortex_db.sql import DIALECT, Text, as_text, stored_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import ColumnElement, Table

MAX_TABLES: Final = 256
_CAST: Final = re.compile(r"CAST\s*\(\s*('(?:[^']|'')*')\s+AS\s+[\w\s]+\)", re.IGNORECASE)
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<ignored>[()]|::\s*(?:character\ varying|[\w."]+)(?:\(\d+\))?)
    |(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)
    |(?P<name>(?:(?:"[^"]+"|\w+)\.)*(?:"[^"]+"|\w+))|(?P<sign>->>|->|@>|=))""",
    re.VERBOSE,
)

_Place = str | tuple[str, ...]
"""The name of a column, or the steps of a path into the payload."""


def promised(
    where: object, table: Table, own: Mapping[str, str]
) -> list[tuple[int, ColumnElement[bool]]]:
    """The predicates of partial indexes that a filter implies, with the number of each.

    Args:
        where: A filter that was read.
        own: The keys of the host's own columns by the names that keys of a dictionary have.
    """
    original = original_of(table)
    if not original.indexes or type(where) is not dict:
        return []
    predicates = _predicates(original, len(original.indexes))
    if not predicates:
        return []
    given = dict(_equalities(where, table, own))
    return [
        (number, clause)
        for number, parts in enumerate(predicates)
        if (clause := _clause(parts, given, table)) is not None
    ]


def _equalities(
    where: Mapping[Any, Any], table: Table, own: Mapping[str, str]
) -> Iterator[tuple[_Place, Any]]:
    """The values that rows have wherever a filter is true of them."""
    for key, value in where.items():
        if key == "$and":
            for part in value:
                if type(part) is dict:
                    yield from _equalities(part, table, own)
        elif key in ("$column", "$payload") and type(value) is dict:
            for name, argument in value.items():
                yield from _equality(name if key == "$column" else _steps(name), argument)
        elif key in own:
            yield from _equality(table.c[own[key]].name, value)
        elif not key.startswith("$"):
            yield from _equality(_steps(key), value)


def _steps(key: str) -> _Place | None:
    path = None if "[]" in key else read_path(key)
    return None if path is None or path.positional else path.steps


def _equality(place: _Place | None, value: Any) -> Iterator[tuple[_Place, Any]]:
    if type(value) is dict:
        value = value.get("$eq")
    if place is not None and type(value) in _SCALARS:
        yield place, value


_SCALARS: Final = (str, int, float, bool, Decimal)


@functools.lru_cache(MAX_TABLES)
def _predicates(table: Table, count: int) -> list[list[list[Any]]]:  # noqa: ARG001 - one may be added
    """Of each partial index what it asks for, as lists of tokens, where all of it is understood."""
    found = []
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        predicate = index.dialect_options["postgresql"]["where"]
        parts = None if predicate is None else _read(predicate)
        if parts:
            found.append(parts)
    return found


def _read(predicate: Any) -> list[list[Any]] | None:
    """A predicate's parts, all of which have to hold; None where there is more to it."""
    if not isinstance(predicate, str):
        try:
            predicate = str(
                predicate.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True})
            )
        except CompileError:
            return None
    text = _CAST.sub(r"\1", predicate.replace("%%", "%"))
    parts: list[list[Any]] = [[]]
    place = 0
    while place < len(text.rstrip()):
        found = _TOKEN.match(text, place)
        if found is None:
            return None
        place = found.end()
        if found["ignored"]:  # a clause of ours has what it is true of, wherever brackets are
            continue
        if (found["name"] or "").upper() == "AND":
            parts.append([])
        else:
            parts[-1].append(_token(found))
    return parts


def _token(found: re.Match[str]) -> tuple[str, Any]:
    if found["string"]:
        return "value", found["string"][1:-1].replace("''", "'")
    if found["number"]:
        return "value", Decimal(found["number"])
    if found["sign"]:
        return "sign", found["sign"]
    name = re.findall(r'"[^"]+"|\w+', found["name"])[-1]
    if name.lower() in ("true", "false"):
        return "value", name.lower() == "true"
    return "name", name.strip('"')


def _clause(
    parts: list[list[Any]], given: Mapping[_Place, Any], table: Table
) -> ColumnElement[bool] | None:
    """What a predicate says, where equalities imply it: it is made of them alone."""
    clause: ColumnElement[bool] | None = None
    for part in parts:
        kinds = [kind for kind, _ in part]
        words = [word for _, word in part]
        made = None
        if kinds == ["name"]:
            made = _of_column(words[0], True, given, table)  # noqa: FBT003 - the value
        elif kinds == ["name", "sign", "value"] and words[1] == "=":
            made = _of_column(words[0], words[2], given, table)
        elif kinds == ["name", "sign", "value"] and words[1] == "@>":
            made = _of_payload(words[0], words[2], given, table)
        elif kinds == ["name", "sign", "value", "sign", "value"] and words[1::2] == ["->>", "="]:
            made = _of_text(words[0], words[2], words[4], given, table)
        if made is None:
            return None
        clause = made if clause is None else clause & made
    return clause


def _of_column(
    name: str, wanted: Any, given: Mapping[_Place, Any], table: Table
) -> ColumnElement[bool] | None:
    column = next((each for each in table.columns if each.name == name), None)
    value = given.get(name)
    if column is None or value is None:
        return None
    kind = column.type
    if isinstance(kind, Boolean) and isinstance(wanted, bool) and value is wanted:
        return column if wanted else not_(column)
    if type(value) is str and value == wanted and isinstance(kind, String):
        return None if isinstance(kind, Enum) else as_text(column) == Constant(value)
    is_whole = isinstance(wanted, Decimal) and isinstance(kind, Integer)
    if is_whole and type(value) is int and value == wanted:
        return column == Constant(value)
    return None


def _payload_of(name: str, table: Table) -> ColumnElement[Any] | None:
    column = table.c.get("payload")
    is_it = (
        column is not None and column.name == name and isinstance(stored_type(column.type), JSONB)
    )
    return column if is_it else None


def _of_payload(
    name: str, wanted: Any, given: Mapping[_Place, Any], table: Table
) -> ColumnElement[bool] | None:
    payload = _payload_of(name, table)
    if payload is None or not isinstance(wanted, str):
        return None
    try:
        leaves = dict(_leaves(json.loads(wanted, parse_float=Decimal, parse_int=Decimal), ()))
    except (ValueError, RecursionError):
        return None
    if not leaves or not all(_is(given.get(steps), value) for steps, value in leaves.items()):
        return None
    return payload.op("@>", is_comparison=True)(cast(Constant(wanted), JSONB))


def _leaves(value: Any, steps: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _leaves(each, (*steps, key))
    else:
        yield steps, value


def _is(value: Any, wanted: Any) -> bool:
    """Whether a filter's value is one of JSON's."""
    if value is None or type(wanted) not in (str, bool, Decimal):
        return False
    if isinstance(wanted, Decimal):
        return kind_of(value, "where") is NUMBER and Decimal(as_number(value, "where")) == wanted
    return type(value) is type(wanted) and bool(value == wanted)


def _of_text(
    name: str, key: Any, wanted: Any, given: Mapping[_Place, Any], table: Table
) -> ColumnElement[bool] | None:
    payload, value = _payload_of(name, table), given.get((key,))
    if type(value) is bool:
        value = "true" if value else "false"
    if payload is None or type(value) is not str or value != wanted:
        return None
    # An unknown beside jsonb might be of a type that somebody planted an operator for.
    return payload.op("->>", return_type=Text())(cast(Constant(key), Text)) == Constant(wanted)
