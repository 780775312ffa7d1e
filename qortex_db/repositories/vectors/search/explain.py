"""A search's plan, read from the server's EXPLAIN."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ClauseElement, Executable, Select
from sqlalchemy.ext.compiler import compiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.sql.compiler import SQLCompiler

_CATALOG = "pg_class"
"""Where a statement looks up how large the table is."""
_LITERAL = re.compile(r"'(?:[^']|'')*'")


class Explain(Executable, ClauseElement):
    """EXPLAIN (ANALYZE) of a statement, which is run for it."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explain)
def _compile_explain(element: Explain, compiler: SQLCompiler, **options: Any) -> str:
    return (
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiler.process(element.statement, **options)}"
    )


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How a search was run.

    Attributes:
        indexes: The indexes that were read, in the order of the plan.
        rows_visited: How many rows the table's scans gave or threw away; of one shard, where Citus
            has the table on several nodes.
        compared_every_row: Whether the part that compares with every row had to run.
        milliseconds: What the server took for it.
        text: The plan, a line a node; constants are left out.
    """

    indexes: tuple[str, ...]
    rows_visited: int
    compared_every_row: bool
    milliseconds: float
    text: str


def read_plan(found: Any) -> SearchPlan:
    """What EXPLAIN gave: JSON, as text, bytes or read, by the codec of the connection."""
    plan = (json.loads(found) if isinstance(found, (str, bytes)) else found)[0]
    nodes = list(_nodes(plan["Plan"], 0))
    ran = [node for _, node in nodes if node.get("Actual Loops", 0)]
    ran = [node for node in ran if node.get("Relation Name") != _CATALOG]
    ran = [node for node in ran if not node.get("Index Name", "").startswith(f"{_CATALOG}_")]
    scans = [node for node in ran if "Relation Name" in node]
    indexes = [node["Index Name"] for node in ran if "Index Name" in node]
    return SearchPlan(
        tuple(dict.fromkeys(indexes)),
        sum(map(_visited, scans)),
        any(_is_exact(node) for node in ran),
        plan["Execution Time"],
        "\n".join(_line(depth, node) for depth, node in nodes),
    )


def _nodes(node: dict[str, Any], depth: int) -> Iterator[tuple[int, dict[str, Any]]]:
    yield depth, node
    for part in (*node.get("Plans", ()), *_on_nodes(node.get("Distributed Query"))):
        yield from _nodes(part, depth + 1)


def _on_nodes(found: Any) -> Iterator[dict[str, Any]]:
    """The plans that Citus tells of its nodes, one of each kind of shard."""
    if isinstance(found, dict) and "Plan" in found:
        yield found["Plan"]
    elif isinstance(found, (dict, list)):
        for part in found.values() if isinstance(found, dict) else found:
            yield from _on_nodes(part)


def _visited(scan: dict[str, Any]) -> int:
    left_out = sum(value for key, value in scan.items() if key.startswith("Rows Removed by"))
    return int((scan["Actual Rows"] + left_out) * scan["Actual Loops"])


def _is_exact(node: dict[str, Any]) -> bool:
    """A sort by a distance that no index gives its rows by."""
    return any(" + " in key and "<" in key for key in node.get("Sort Key", ()))


def _line(depth: int, node: dict[str, Any]) -> str:
    names = [node[key] for key in ("Index Name", "Relation Name", "CTE Name") if key in node]
    time = "not run"
    if node.get("Actual Loops", 0):
        rows = node["Actual Rows"] * node["Actual Loops"]
        time = f"rows={rows:g}, {node.get('Actual Total Time', 0):.2f} ms"
    conditions = [
        f"{key}: {_LITERAL.sub('…', node[key])}"
        for key in ("Index Cond", "Recheck Cond", "Filter")
        if key in node
    ]
    return "  " * depth + ", ".join([node["Node Type"], *names, time, *conditions])
