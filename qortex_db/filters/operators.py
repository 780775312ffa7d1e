"""The operators of filters: what each takes, and which condition it becomes.

The table of docs/vectors/filters.md is the rule for nulls, missing keys and types. An operator is
read into a shape, and its values go aside in the order in which the condition asks for them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from qortex_db import observability
from qortex_db.checks import as_key, check_count, check_text
from qortex_db.errors import InvalidInputError
from qortex_db.filters import conditions
from qortex_db.filters.fields import (
    ITSELF,
    MAX_INDEXED_CHARS,
    Path,
)
from qortex_db.filters.full_text import text_configuration
from qortex_db.filters.geo import geo
from qortex_db.filters.payload_indexes import has_kind, is_declared
from qortex_db.filters.text_operators import ilike, like, prefix, regex, text
from qortex_db.filters.values import (
    BOOLEAN,
    INSTANT,
    NESTED,
    NULL,
    NUMBER,
    STRING,
    as_instant,
    as_json,
    as_jsons,
    as_list,
    as_number,
    check_list,
    kind_of,
    kinds_in,
    plain,
)
from qortex_db.values.keys import TextKey, key_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table

    from qortex_db.filters.conditions import Reader, Shape

# A list that is hashed is also compared by equality where its index is one of containment, which it
# tries one by one. Below, the planner would take the two for independent and expect too few rows.
# And one this long is looked for by equality alone.
_NOT_CONTAINED_FROM = 1_000

_SIGNS: Final = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}

_INDEXES: Final = {
    STRING: "keyword",
    NUMBER: "number",
    BOOLEAN: "boolean",
    INSTANT: "instant",
}


def equal(table: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """Equal as JSON, by type and value; None is null or missing, a datetime any spelling of it."""
    value = plain(value, at)
    kind = kind_of(value, at)
    if kind is NULL:
        return conditions.is_null, path
    if kind is INSTANT:
        return _equal_to(table, path, value, at, values)
    if kind is not NESTED and is_declared(table, path, _INDEXES[kind]):
        column, operand = _comparable(value, at)
        if column in ("keyword", "number", "boolean"):
            values.append(operand)
            return conditions.compare, path, column, "="
    text = as_json(value, at)
    if path.positional:
        values.append(text)
        return conditions.equals, path
    values.append(path.around(text))
    if kind is not NESTED:
        return conditions.contains, path
    values.append(text)  # an object or array may contain it and have more
    return "and", (conditions.contains, path), (conditions.equals, path)


def one_of(
    table: Table, path: Path, value: Any, at: str, values: list[Any], *, by_index: bool = True
) -> Shape:
    """Equal to one of a list.

    Args:
        by_index: Whether rows may be found by it; where they are only left out, no index serves.
    """
    items = as_list(value, at)
    moments, known = _apart([item for item in items if item is not None], at)
    shapes: list[Shape] = []
    if moments:
        _tell_unserved(table, path)
        values.append(moments)
        shapes.append((_is_one_of(len(moments)), path, "instant"))
    if known or not moments:
        shapes.append(_one_of_known(table, path, known, at, values, by_index=by_index))
    if len(moments) + len(known) < len(items):
        shapes.append((conditions.is_null, path))
    return shapes[0] if len(shapes) == 1 else ("or", *shapes)


def _apart(items: list[Any], at: str) -> tuple[list[str], list[Any]]:
    """The moments among values, and the others."""
    if INSTANT not in kinds_in(items, at):
        return [], items
    moments, others = [], []
    for item in items:
        if kind_of(item, at) is INSTANT:
            moments.append(as_instant(item, at))
        else:
            others.append(item)
    return moments, others


def _one_of_known(
    table: Table, path: Path, items: list[Any], at: str, values: list[Any], *, by_index: bool
) -> Shape:
    if not items:
        return conditions.nothing, path
    kinds = kinds_in(items, at)
    column = _INDEXES.get(next(iter(kinds))) if len(kinds) == 1 else None
    if column in ("keyword", "number") and is_declared(table, path, column):
        operands = [_comparable(item, at) for item in items]
        if all(found == column for found, _ in operands):
            values.append([operand for _, operand in operands])
            return _is_one_of(len(items)), path, column
    texts = as_jsons(items, at)
    is_long = len(items) >= conditions.HASHED_FROM
    is_contained = not path.positional and len(items) < _NOT_CONTAINED_FROM
    is_contained = is_contained and (by_index or not is_long)
    equality = conditions.equals_any_of_many if is_long else conditions.equals_any
    if not is_contained or NESTED in kinds or is_long:
        values.append(texts)
        if not is_contained:
            return equality, path
    values.append([path.around(text) for text in texts])
    if not is_long and NESTED not in kinds:
        return conditions.contains_any, path
    return "and", (equality, path), (conditions.contains_any, path)


def _is_one_of(count: int) -> Any:
    return conditions.is_one_of_many if count >= conditions.HASHED_FROM else conditions.is_one_of


def _comparable(value: Any, at: str) -> tuple[str, Any]:
    """The column of `Field` that compares with a value, and the value for it."""
    value = plain(value, at)
    kind = kind_of(value, at)
    if kind is NUMBER:
        return "number", as_number(value, at)
    if kind is BOOLEAN:
        return "boolean", value
    if kind is INSTANT:
        return "instant", as_instant(value, at)
    if kind is not STRING:
        raise InvalidInputError(
            f"{at} is a {type(value).__name__}; pass a number, a string or a datetime."
        )
    text = check_text(value, name=at)
    return "keyword" if len(text) < MAX_INDEXED_CHARS else "string", text


def _compares(operator: str) -> Reader:
    def read(table: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
        column, operand = _comparable(value, at)
        if column == "boolean":
            raise InvalidInputError(f"{at} is a bool, which has no order; pass a number or string.")
        if column == "instant":
            _tell_unserved(table, path)
        values.append(operand)
        return conditions.compare, path, column, operator

    return read


def _tell_unserved(table: Table, path: Path) -> None:
    """Say it where no index serves moments of a path, which are costly to read from strings."""
    if not is_declared(table, path, "instant"):
        _log_unserved(table.name, path.steps)


@functools.lru_cache(1_000)  # once for each
def _log_unserved(table: str, steps: tuple[str, ...]) -> None:
    observability.log.info(
        "filter_instant_without_index",
        table=table,
        path=".".join(steps),
        hint="each row's string is read anew; declare payload_index(table, path, 'instant')",
    )


_equal_to, _at_least, _at_most = _compares("="), _compares(">="), _compares("<=")


def between(table: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """Within two bounds, both included."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:  # noqa: PLR2004
        raise InvalidInputError(f"{at} takes a list of two, the lowest and the highest.")
    low, high = value
    if kind_of(low, at) != kind_of(high, at):
        raise InvalidInputError(f"{at} has bounds of two types; pass two of one type.")
    shapes = (
        _at_least(table, path, low, at, values),
        _at_most(table, path, high, at, values),
    )
    return "and", *shapes


def exists(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:  # noqa: ARG001
    """Whether the key is there, be it null."""
    if not isinstance(value := plain(value, at), bool):
        raise InvalidInputError(f"{at} is a {type(value).__name__}; pass True or False.")
    shape = conditions.exists, path
    return shape if value else ("not", shape)


def has(table: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """An array with this element, or a string with this substring."""
    value = plain(value, at)
    element = has_all(table, path, [value], at, values)
    if kind_of(value, at) is not STRING:
        return element
    values.append(check_text(value, name=at))
    return "or", element, (conditions.has_substring, path)


def has_any(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """An array with one of these elements."""
    moments, items = _apart(as_list(value, at), at)
    shapes: list[Shape] = []
    if moments:
        values.append(moments)
        shape: Shape = conditions.array_has_instants, path, "&&"
        if len(moments) >= conditions.HASHED_FROM:
            shape = "some", path, (conditions.is_one_of_many, ITSELF, "instant")
        shapes.append(shape)
    if items:
        shapes.append(_has_any_known(path, items, at, values))
    if len(shapes) == 1:
        return shapes[0]
    return ("or", *shapes) if shapes else (conditions.nothing, path)


def _has_any_known(path: Path, items: list[Any], at: str, values: list[Any]) -> Shape:
    texts = as_jsons(items, at)
    exact: Shape = conditions.array_has, path, "&&"
    is_long = len(items) >= conditions.HASHED_FROM
    if is_long:
        exact = "some", path, (conditions.equals_any_of_many, ITSELF)
    if path.positional or len(items) >= _NOT_CONTAINED_FROM:
        values.append(texts)
        return exact
    values.append([path.around(f"[{text}]") for text in texts])
    if not is_long and not _has_nested(items, at):
        return conditions.contains_any, path
    values.append(texts)
    return "and", (conditions.contains_any, path), exact


def has_all(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """An array with all of these elements."""
    moments, items = _apart(as_list(value, at), at)
    if not moments:
        return _has_all_known(path, items, at, values)
    values.append(moments)
    shape = conditions.array_has_instants, path, "@>"
    return ("and", shape, _has_all_known(path, items, at, values)) if items else shape


def _has_all_known(path: Path, items: list[Any], at: str, values: list[Any]) -> Shape:
    texts = as_jsons(items, at)
    exact = (conditions.array_has, path, "@>")
    if path.positional:
        values.append(texts)
        return exact
    values.append(path.around(f"[{','.join(texts)}]"))
    if not _has_nested(items, at):
        return conditions.contains, path
    values.append(texts)  # an element may contain an object and have more
    return "and", (conditions.contains, path), exact


def _has_nested(items: list[Any], at: str) -> bool:
    return NESTED in kinds_in(items, at)


def size(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """An array of so many elements."""
    bounds = value if isinstance(value, Mapping) else {"$eq": value}
    if not bounds or not bounds.keys() <= _SIGNS.keys():
        raise InvalidInputError(f"{at} takes a whole number, or a dict of {', '.join(_SIGNS)}.")
    shapes = []
    for name, count in bounds.items():
        values.append(check_count(count, name=at))
        shapes.append((conditions.has_size, path, _SIGNS[name]))
    return shapes[0] if len(shapes) == 1 else ("and", *shapes)


def row_ids(table: Table, value: Any, at: str, values: list[Any]) -> Shape:
    """A row with one of these ids."""
    if "id" not in table.c:
        raise InvalidInputError(f"{at} needs a column id, which the table lacks.")
    kind = key_type(table)
    keys: list[Any] = [value] if kind.is_key(value) else check_list(value, at)
    if type(kind) is not TextKey:
        keys = [kind.check(key, name=f"{at}[{i}]") for i, key in enumerate(keys)]
    else:  # of whatever length: what can't be there is not found
        keys = [as_key(key) for key in keys]
        for key in keys:
            if not isinstance(key, str):
                raise InvalidInputError(
                    f"{at} has a {type(key).__name__} among its ids; pass a str, an int or a UUID."
                )
            check_text(key, name=at)
    if not keys:
        return conditions.nothing, None
    values.append(keys)
    return conditions.has_id_of_many if len(
        keys
    ) >= conditions.HASHED_FROM else conditions.has_id, None


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
    "$prefix": prefix,
    "$regex": regex,
    "$text": text,
    "$geo": geo,
    "$size": size,
}
ELEMENT: Final = "$elemMatch"
"""What takes a filter of its own, over the elements of an array."""
NEGATED: Final[dict[str, Reader]] = {
    "$ne": equal,
    "$nin": functools.partial(one_of, by_index=False),
}
"""What is exactly the contrary of another operator."""


_OF_COLUMNS: Final = (conditions.compare, conditions.is_one_of, conditions.is_one_of_many)


def is_served(table: Table, condition: object, path: Path | None, constants: Sequence[Any]) -> bool:
    """Whether an index that the table declares finds the rows of a condition."""
    if condition in (conditions.has_id, conditions.has_id_of_many):
        return True
    if condition in (conditions.contains, conditions.contains_any):
        return has_kind(table, "containment")
    if condition is conditions.document_matches:
        return has_kind(table, "document") and constants[0] == text_configuration(table)
    if condition in _OF_COLUMNS and path is not None:
        return is_declared(table, path, constants[0])
    return False
