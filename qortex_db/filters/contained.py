"""What a payload contains if an element of one of its arrays is as a filter says.

Containment is what the one index over all of a payload serves. It says less than the filter, but
for a single value: then there is nothing else to ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from qortex_db.filters.fields import of_each, read_path
from qortex_db.filters.values import BOOLEAN, NUMBER, STRING, as_json, as_list, kind_of, plain

if TYPE_CHECKING:
    from qortex_db.filters.fields import Path

MOST_TEXTS: Final = 100
"""From how many on a list is not said by containment, whose index tries them one by one."""
_SCALARS: Final = (STRING, NUMBER, BOOLEAN)


def contained(path: Path, where: Mapping[str, Any]) -> tuple[list[list[str]], bool]:
    """JSON that a payload contains, of each list one, and whether this is all that is asked.

    Args:
        path: Of the array.
        where: A filter of its elements that was read.
    """
    found, is_all = _of_filter(where)
    texts = [[path.around(f"[{text}]") for text in each] for each in found]
    # Two of them may be true of two elements.
    return texts, is_all and len(texts) == 1


def _of_filter(where: Mapping[str, Any]) -> tuple[list[list[str]], bool]:
    found: list[list[str]] = []
    is_all = type(where) is dict  # a mapping of a caller's own is read once
    for key, value in where.items() if is_all else ():
        if key == "$and":
            parts = [_of_filter(part) for part in value]
        elif key.startswith("$"):
            parts = [_of_path("", {key: value})]
        else:
            parts = [_of_path(key, value)]
        for texts, is_whole in parts:
            found += texts
            is_all = is_all and is_whole
    return found, is_all


def _of_path(key: str, value: Any) -> tuple[list[list[str]], bool]:
    if (parts := of_each(key)) is not None:
        path = read_path(parts[0], within=True)
        if path.positional and path.steps:
            return [], False
        return contained(path, {parts[1]: value} if parts[1] else _operators(value))
    path = read_path(key, within=True)
    if path.positional and path.steps:
        return [], False
    found: list[list[str]] = []
    operators = _operators(value)
    is_all = type(operators) is dict
    for name, argument in operators.items() if is_all else ():
        texts, is_whole = _of_operator(path, name, argument)
        found += texts
        is_all = is_all and is_whole
    return found, is_all


def _operators(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"$eq": value}


def _of_operator(path: Path, name: str, argument: Any) -> tuple[list[list[str]], bool]:
    if name == "$elemMatch":
        return contained(path, argument)
    if name not in ("$eq", "$in"):
        return [], False
    values = as_list(argument, "") if name == "$in" else [plain(argument, "")]
    if not 0 < len(values) < MOST_TEXTS or any(kind_of(one, "") not in _SCALARS for one in values):
        return [], False
    return [[path.around(as_json(one, "")) for one in values]], True
