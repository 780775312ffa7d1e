"""The command that computes what so many vectors want."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated

import typer

from qortex_db.cli.shell import AsJson, fail, out, print_json

if TYPE_CHECKING:
    from qortex_db.planning import Machine, Plan

_GIB = 2**30


def plan(
    *,
    rows: Annotated[float, typer.Option(help="Vectors, as 100e6.")],
    dimensions: Annotated[int, typer.Option(help="Of each.")],
    qps: Annotated[float, typer.Option(help="Searches a second.")],
    recall: Annotated[
        float, typer.Option(help="The share of the true neighbours to be found.")
    ] = 0.95,
    memory_gib: Annotated[float, typer.Option(help="Of a machine.")] = 64.0,
    cores: Annotated[int, typer.Option(help="Of a machine.")] = 16,
    id_bytes: Annotated[int, typer.Option(help="Of an id.")] = 36,
    payload_bytes: Annotated[int, typer.Option(help="Of a payload, as JSON.")] = 0,
    document_bytes: Annotated[int, typer.Option(help="Of a document.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Memory, disk, build time and machines for so many vectors, from measured figures."""
    from qortex_db import QortexDbError
    from qortex_db.planning import Demand, Machine, make_plan

    try:
        machine = Machine(_whole(memory_gib * _GIB), cores)
        demand = Demand(
            _whole(rows),
            dimensions,
            qps,
            recall,
            id_bytes=id_bytes,
            payload_bytes=payload_bytes,
            document_bytes=document_bytes,
        )
        made = make_plan(demand, machine)
    except QortexDbError as error:
        fail(str(error), status=2)
    if as_json:
        derived = {"machines": made.machines, "disk_bytes": made.disk_bytes}
        print_json({**dataclasses.asdict(made), **derived})
    else:
        _print(made, machine)


def _whole(number: float) -> int:
    """0, which is refused with its bounds, for what is no number."""
    return int(number) if math.isfinite(number) else 0


def _print(made: Plan, machine: Machine) -> None:
    from qortex_db.cli import render

    what = "none: every row is compared"
    if made.index != "none":
        what = f"HNSW, {made.storage}, {made.setting}={made.value}"
    copies = f"{made.shards} shard(s) x {made.copies} (a primary, and replicas for searches)"
    lines = [
        ("index", what),
        ("machines", f"{made.machines}: {copies}"),
        ("each", f"{machine.cores} cores, {render.size(machine.memory_bytes)} of memory"),
        ("disk of each", render.size(made.disk_bytes)),
        ("table", render.size(made.table_bytes)),
        ("vectors' index", render.size(made.index_bytes)),
        ("to fit into memory", f"{render.size(made.memory_bytes)} in sum of the shards"),
        ("a search", f"{made.search_core_seconds * 1e3:,.1f} ms of a core"),
        ("a shard's build", f"{_duration(made.build_seconds)} on {machine.cores} cores"),
        ("its maintenance_work_mem", render.size(made.build_memory_bytes)),
    ]
    table = render.table("", "")
    for line in lines:
        table.add_row(*line)
    out().print(table)
    for reason in made.reasons:
        out().print(f"- {reason}", highlight=False)
    if made.is_extrapolated:
        out().print(
            "- More rows than were measured: times, recall and what a build takes are carried on "
            "from smaller tables. Sizes follow from how pages are laid out.",
            highlight=False,
        )


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s"
