"""Write docs/operations/plan_tables.md: plans and the figures that they are made of."""

from __future__ import annotations

from pathlib import Path

from qortex_db.planning import Demand, Machine, Plan, make_plan
from qortex_db.planning.measured import figures

_LARGE = 10
_HOURS = 7_200
_MINUTES = 120
PAGE = Path(__file__).parent / "operations/plan_tables.md"
ROWS = (10_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
MACHINES = (Machine(64 << 30, 16), Machine(256 << 30, 32))


HEAD = (
    "| rows | a machine | index | setting | table | to fit into memory | a search, of a core "
    "| a shard's build | shards | disk of each | extrapolated |"
)


def _gib(count: int) -> str:
    size = count / 2**30
    return f"{size:,.0f} GiB" if size >= _LARGE else f"{size:,.2f} GiB"


def _time(seconds: float) -> str:
    if seconds >= _HOURS:
        return f"{seconds / 3_600:,.0f} h"
    return f"{seconds / 60:,.0f} min" if seconds >= _MINUTES else f"{seconds:,.0f} s"


def _row(rows: int, machine: Machine, plan: Plan) -> str:
    what = "none" if plan.index == "none" else f"HNSW, {plan.storage}"
    setting = f"{plan.setting}={plan.value}" if plan.setting else "exact"
    cells = [
        f"{rows:,}",
        f"{machine.memory_bytes >> 30} GiB, {machine.cores} cores",
        what,
        setting,
        _gib(plan.table_bytes),
        _gib(plan.memory_bytes),
        f"{plan.search_core_seconds * 1e3:,.1f} ms",
        _time(plan.build_seconds),
        f"{plan.shards:,}, {plan.copies} of each",
        _gib(plan.disk_bytes),
        "yes" if plan.is_extrapolated else "",
    ]
    return "| " + " | ".join(cells) + " |"


def render() -> str:
    """The text."""
    lines = []
    for dimensions in (384, 768):
        lines += [
            f"### {dimensions} dimensions, 200 searches a second at recall .95",
            "",
            HEAD,
            "|---:|---|---|---|---:|---:|---:|---:|---:|---:|---|",
        ]
        for rows in ROWS:
            for machine in MACHINES:
                plan = make_plan(Demand(rows, dimensions, 200), machine)
                lines.append(_row(rows, machine, plan))
        lines.append("")
    lines += ["### Builds", ""]
    lines += ["| rows | dimensions | index of | fitted | core seconds | table | index |"]
    lines += ["|---:|---:|---|---:|---:|---:|---:|"]
    for one in figures()["builds"]:
        share = one["fitted"] / one["rows"]
        lines.append(
            f"| {one['rows']:,} | {one['dimensions']:,} | {one['storage']} | {share:.0%} | "
            f"{one['core_seconds']} | {one['table_bytes'] / 2**20:.1f} MiB | "
            f"{one['index_bytes'] / 2**20:.1f} MiB |"
        )
    lines += ["", "### Searches of 384 dimensions", ""]
    lines += [
        "| rows | index of | setting | recall@10 | ms of a core |",
        "|---:|---|---|---:|---:|",
    ]
    for one in figures()["searches"]:
        if one["dimensions"] == 384:  # noqa: PLR2004 - those that plans begin with
            lines.append(
                f"| {one['rows']:,} | {one['storage']} | {one['setting']}={one['value']} | "
                f"{one['recall']:.3f} | {one['core_seconds'] * 1e3:.2f} |"
            )
    lines += ["", f"By `benchmarks/planning.py`, {figures()['on']}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
