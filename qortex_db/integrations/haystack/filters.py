"""Haystack's filters as ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from haystack.errors import FilterError

from qortex_db.errors import InvalidInputError
from qortex_db.integrations.collections import path_of
from qortex_db.messages import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from qortex_db.integrations.collections import CollectionOf


class InvalidFilterError(InvalidInputError, FilterError):
    """A filter of Haystack's was refused."""


_ORDERS: Final = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
_LOGIC: Final[dict[str, Callable[[list[Any]], dict[str, Any]]]] = {
    "AND": lambda parts: {"$and": parts},
    "OR": lambda parts: {"$or": parts},
    "NOT": lambda parts: {"$not": {"$and": parts}},
}
_NOTHING: Final[dict[str, Any]] = {"$in": []}
_FIELDS: Final = ("blob", "embedding", "score", "sparse_embedding")


def where_of(filters: Mapping[str, Any] | None, of: CollectionOf) -> dict[str, Any] | None:
    """A filter of ours; None where there is nothing to filter by.

    Raises:
        InvalidFilterError: It is none of Haystack's, or over a field that no filter can name.
    """
    return _one(filters, of, "filters") if filters else None


def _one(part: Any, of: CollectionOf, at: str) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        raise InvalidFilterError(f"{at} is a {type(part).__name__}; pass a dict.")
    for key in ("operator", "value" if "field" in part else "conditions"):
        if key not in part:
            raise InvalidFilterError(f"{at} has no key {key!r}.")
    if "field" not in part:
        return _logic(part, of, at)
    field, operator = part["field"], part["operator"]
    if not isinstance(field, str):
        raise InvalidFilterError(f"{at}['field'] is a {type(field).__name__}; pass a str.")
    if field in _FIELDS:
        raise InvalidFilterError(f"{at} is over {field}, which no filter looks into.")
    if field == "id" and operator in _ORDERS:
        raise InvalidFilterError(f"{at} orders ids; compare them by ==, !=, in and not in.")
    negated, condition = _comparison(operator, part["value"], at)
    made = _of_field(field, condition, of)
    return {"$not": made} if negated else made


def _of_field(field: str, condition: dict[str, Any], of: CollectionOf) -> dict[str, Any]:
    if field == "id":
        return {"$id": [of.key(key) for key in condition.get("$in", [condition.get("$eq")])]}
    if field == "content":
        return {"$column": {of.document_column: condition}}
    return {path_of_meta(field): condition}


def path_of_meta(field: str) -> str:
    """The path in the payload of what Haystack calls `meta.a.b`, or `a.b`."""
    return ".".join(map(path_of, field.removeprefix("meta.").split(".")))


def _logic(part: Mapping[str, Any], of: CollectionOf, at: str) -> dict[str, Any]:
    make, conditions = _LOGIC.get(str(part["operator"])), part["conditions"]
    if make is None:
        raise InvalidFilterError(f"{at}['operator'] has to be one of {', '.join(_LOGIC)}.")
    if not isinstance(conditions, list):
        kind = type(conditions).__name__
        raise InvalidFilterError(f"{at}['conditions'] is a {kind}; pass a list.")
    return make([_one(one, of, f"{at}['conditions'][{i}]") for i, one in enumerate(conditions)])


def _comparison(operator: object, value: Any, at: str) -> tuple[bool, dict[str, Any]]:
    """Whether the condition is the contrary of one of ours, and that."""
    if operator in ("==", "!="):
        return operator == "!=", {"$eq": value}
    if operator in ("in", "not in"):
        if not isinstance(value, list):
            kind = type(value).__name__
            raise InvalidFilterError(f"{at}['value'] is a {kind}; {operator!r} takes a list.")
        return operator == "not in", {"$in": value}
    ours = _ORDERS.get(str(operator))
    if ours is None:
        known = ", ".join(("==", "!=", *_ORDERS, "in", "not in"))
        raise InvalidFilterError(f"{at}['operator'] is {shown(operator)}, none of {known}.")
    if value is None:
        return False, _NOTHING
    return False, {ours: _ordered(value, at)}


def _ordered(value: Any, at: str) -> Any:
    """A number or a time; a string that tells one with its offset is that moment."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None:
            raise InvalidFilterError(f"{at}['value'] is a str, and no ISO 8601 date, in an order.")
        return value if moment.tzinfo is None else moment
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.isoformat()
    if isinstance(value, (list, tuple, set, dict, bool)):
        raise InvalidFilterError(f"{at}['value'] is a {type(value).__name__}, which has no order.")
    return value
