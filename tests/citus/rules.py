"""What Citus refuses of SQL over tables that it has on several nodes, as statements show it.

Each rule was met on a cluster of Citus 13.2: what breaks it is refused there, or answered wrongly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BindParameter, Case, Insert, Select, Table, Update
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import CTE, Lateral, ScalarSelect, SelectBase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCAL: Final = frozenset(
    {
        "qortex_db_changeovers",
        "qortex_db_checkpoints",
        "qortex_db_idempotency_keys",
        "qortex_db_indexed_documents",
        "qortex_db_word_frequencies",
    }
)
"""The tables that stay on the coordinator."""
_CLOCKS: Final = frozenset(
    {"now", "clock_timestamp", "localtimestamp", "current_timestamp", "statement_timestamp"}
)


def broken_rules(statement: Any) -> set[str]:
    """The rules that a statement of SQLAlchemy's breaks; none of a text."""
    parts = list(_parts(statement))
    return {rule for rule, is_broken in RULES.items() if any(map(is_broken, parts))}


def _locks(part: Any) -> bool:
    if not isinstance(part, Select) or part._for_update_arg is None:
        return False
    return any(map(_is_spread, _tables(part)))  # a row of one node's own may be locked


def _looks_outside(part: Any) -> bool:
    """Whether a SELECT of a table is correlated, but to a CTE of which one value is read."""
    if not isinstance(part, Select):
        return False
    if all(isinstance(each, CTE) for each in getattr(part, "_correlate", None) or ()):
        return False
    read = _tables(part)  # which compiles it, and takes its time
    return any(_is_spread(each) for each in read if each not in part._correlate)


def _is_lateral(part: Any) -> bool:
    if not isinstance(part, Lateral):
        return False
    read: Any = part.element
    while not isinstance(read, SelectBase) and hasattr(read, "element"):
        read = read.element
    return any(map(_is_spread, _tables(read)))


def _is_ctid(part: Any) -> bool:
    return isinstance(part, ColumnClause) and part.name == "ctid"


def _changes_a_key(part: Any) -> bool:
    if not isinstance(part, Update):
        return False
    keys = {column.key for column in part.table.primary_key}
    return bool(keys & {getattr(key, "key", key) for key in part._values or {}})


def _has_clock_in_case(part: Any) -> bool:
    return _is_change(part) and any(map(_has_clock, _all(part, Case)))


def _has_clock_in_coalesce(part: Any) -> bool:
    if not _is_change(part):
        return False
    functions = _all(part, FunctionElement)
    return any(each.name.lower() == "coalesce" and _has_clock(each) for each in functions)


def _is_change(part: Any) -> bool:
    """Whether it changes rows: what is in a new one, the coordinator makes itself."""
    return isinstance(part, UpdateBase) and not isinstance(part, Insert)


def _has_parameter_on_conflict(part: Any) -> bool:
    if not isinstance(part, Insert) or part.select is None:
        return False
    found = (one for change in _on_conflict(part) for one in _all(change, BindParameter))
    return any(not one.literal_execute for one in found)


def _has_clock_on_conflict(part: Any) -> bool:
    return isinstance(part, Insert) and any(map(_has_clock, _on_conflict(part)))


def _has_subquery_on_conflict(part: Any) -> bool:
    changes = _on_conflict(part) if isinstance(part, Insert) else ()
    return any(True for change in changes for _ in _all(change, ScalarSelect))


RULES: Final[dict[str, Callable[[Any], bool]]] = {
    "no FOR UPDATE over several nodes": _locks,
    "no subquery that reads a table and refers to what is beside it": _looks_outside,
    "no LATERAL over a table": _is_lateral,
    "no ctid": _is_ctid,
    "no update of a key": _changes_a_key,
    "no clock in a CASE": _has_clock_in_case,
    "no clock in a COALESCE": _has_clock_in_coalesce,
    "no parameter in what comes on conflict with selected rows": _has_parameter_on_conflict,
    "no clock in what comes on conflict": _has_clock_on_conflict,
    "no subquery in what comes on conflict": _has_subquery_on_conflict,
}


def _on_conflict(insert: Insert) -> list[Any]:
    clause: Any = insert._post_values_clause
    if clause is None or not hasattr(clause, "update_values_to_set"):
        return []
    changes = [*dict(clause.update_values_to_set).values(), clause.update_whereclause]
    return [change for change in changes if hasattr(change, "get_children")]


def _parts(element: Any) -> Iterator[Any]:
    """Each part once: an expression may be in another as often as a change of payloads is deep."""
    seen: dict[int, Any] = {}
    waiting = [element]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or not hasattr(part, "get_children"):
            continue
        seen[id(part)] = part
        yield part
        waiting += part.get_children()
        if isinstance(part, Insert):
            waiting += _on_conflict(part)


def _all(element: Any, kind: type[Any]) -> Iterator[Any]:
    return (part for part in _parts(element) if isinstance(part, kind))


def _has_clock(element: Any) -> bool:
    return any(each.name.lower() in _CLOCKS for each in _all(element, FunctionElement))


def _tables(select: Any) -> set[Any]:
    """What a SELECT reads itself, and not what its own subqueries read."""
    found: set[Any] = set()
    waiting = [*getattr(select, "get_final_froms", list)()]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Table):
            found.add(each)
        elif hasattr(each, "left"):  # a join
            waiting += [each.left, each.right]
        elif isinstance(getattr(each, "element", None), Table):  # an alias
            found.add(each.element)
    return found


def _is_spread(table: Table) -> bool:
    return table.name not in LOCAL
