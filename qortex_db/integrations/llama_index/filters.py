"""LlamaIndex's filters of metadata as ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from qortex_db.errors import InvalidInputError
from qortex_db.integrations.collections import path_of

if TYPE_CHECKING:
    from collections.abc import Callable

_SPECIAL: Final = re.compile(r"[\\%_]")


def _within(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInputError("A filter for a text takes a string.")
    return "%" + _SPECIAL.sub(r"\\\g<0>", value) + "%"


_OPERATORS: Final[dict[FilterOperator, Callable[[Any], dict[str, Any]]]] = {
    FilterOperator.EQ: lambda value: {"$eq": value},
    FilterOperator.NE: lambda value: {"$ne": value},
    FilterOperator.GT: lambda value: {"$gt": value},
    FilterOperator.GTE: lambda value: {"$gte": value},
    FilterOperator.LT: lambda value: {"$lt": value},
    FilterOperator.LTE: lambda value: {"$lte": value},
    FilterOperator.IN: lambda value: {"$in": _listed(value)},
    FilterOperator.NIN: lambda value: {"$nin": _listed(value)},
    FilterOperator.ANY: lambda value: {"$any": _listed(value)},
    FilterOperator.ALL: lambda value: {"$all": _listed(value)},
    FilterOperator.CONTAINS: lambda value: {"$any": [value]},
    FilterOperator.TEXT_MATCH: lambda value: {"$like": _within(value)},
    FilterOperator.TEXT_MATCH_INSENSITIVE: lambda value: {"$ilike": _within(value)},
}
_CONDITIONS: Final = {
    None: "$and",
    FilterCondition.AND: "$and",
    FilterCondition.OR: "$or",
    FilterCondition.NOT: "$nor",
}


def where_of(filters: MetadataFilters | None) -> dict[str, Any] | None:
    """A filter of ours; None where there is nothing to filter by.

    Raises:
        InvalidInputError: An operator is not known, or its value is none that it takes.
    """
    if filters is None or not filters.filters:
        return None
    parts = [_one(each) for each in filters.filters]
    return {_CONDITIONS[filters.condition]: parts}


def _one(part: MetadataFilter | MetadataFilters) -> dict[str, Any]:
    if isinstance(part, MetadataFilters):
        return where_of(part) or {}
    if part.operator is FilterOperator.IS_EMPTY:
        empty = [{"$eq": None}, {"$eq": ""}, {"$size": 0}]
        return {"$or": [{path_of(part.key): each} for each in empty]}
    made = _OPERATORS.get(part.operator)
    if made is None:
        raise InvalidInputError(f"The filter's operator {part.operator!r} is not known here.")
    return {path_of(part.key): made(part.value)}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
