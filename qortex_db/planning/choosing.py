"""Which index, how much memory and disk, and how many machines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from qortex_db.checks import check_number, check_whole
from qortex_db.errors import InvalidInputError
from qortex_db.planning import measured
from qortex_db.planning.sizes import Storage, index_bytes, key_bytes, table_bytes

MAX_PLANNED_ROWS: Final = 100_000_000_000
"""The most rows that can be asked for."""
MAX_DIMENSIONS: Final = 16_000
SMALL: Final = 10_000
"""Up to so many rows no index is needed."""

_MOST_INDEXED: Final = {"full": 2_000, "half": 4_000, "binary": 64_000}
_LEAST_OF_BITS: Final = 256
"""Dimensions below which single bits tell too little."""
_FOR_INDEXES: Final = 0.7
"""Of a machine's memory; the rest is for the table's own pages, connections and the system."""
_FOR_BUILDS: Final = 0.25
_BUSY: Final = 0.5
"""Of a machine's cores in the mean, so that a search seldom waits."""
_PARALLEL: Final = 0.7
"""Of the cores that build together, what one that builds alone does."""
_GIB: Final = 2**30
_MOST_SET: Final = {"ef_search": 1_000, "oversampling": 100}
"""The most that pgvector, or a search, takes."""
_MORE_SHARDS: Final = 1.1
_NAMES: Final[dict[str, str]] = {"full": "full vectors", "half": "half", "binary": "single bits"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What one server has.

    Attributes:
        memory_bytes: 1 GiB to 64 TiB.
        cores: 1 to 1,024.
    """

    memory_bytes: int = 64 << 30
    cores: int = 16

    def __post_init__(self) -> None:
        check_whole(self.memory_bytes, 1 << 30, 64 << 40, name="memory_bytes")
        check_whole(self.cores, 1, 1_024, name="cores")


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for.

    Attributes:
        qps: Searches a second, of ten hits by a vector alone; above 0, to 1,000,000.
        recall: The share of the true neighbours that are found, 0.5 to 0.999.
        payload_bytes: Of a row in the mean, as JSON; document_bytes as UTF-8.
    """

    rows: int
    dimensions: int
    qps: float
    recall: float = 0.95
    id_bytes: int = 36
    payload_bytes: int = 0
    document_bytes: int = 0

    def __post_init__(self) -> None:
        check_whole(self.rows, 1, MAX_PLANNED_ROWS, name="rows")
        check_whole(self.dimensions, 1, MAX_DIMENSIONS, name="dimensions")
        check_whole(self.id_bytes, 1, 1_024, name="id_bytes")
        for name in ("payload_bytes", "document_bytes"):
            check_whole(getattr(self, name), 0, 1 << 30, name=name)
        check_number(self.qps, name="qps", low=1e-6, high=1e6)
        check_number(self.recall, name="recall", low=0.5, high=0.999)


@dataclass(frozen=True, slots=True)
class Plan:
    """What it takes; bytes, seconds and machines.

    Attributes:
        index: What the vectors' index is, if any is needed.
        setting: `ef_search`, or `oversampling` of single bits; "" where all rows are compared.
        search_core_seconds: Of one search, of one core.
        memory_bytes: What searches read at random, of one copy: all of it has to fit.
        build_memory_bytes: The `maintenance_work_mem` of the build, as far as a machine has it.
        build_seconds: Of a shard's index, on all cores of a machine.
        shards: Machines for one copy (Citus), each with its part of the rows.
        copies: Of each shard: the primary, and replicas that answer searches.
        partitions: With which each index would be built within that memory; 1: as it is.
        is_extrapolated: Whether more rows are asked for than were measured.
        reasons: Sentences.
    """

    index: Literal["none", "hnsw"]
    storage: Storage
    setting: str
    value: int
    search_core_seconds: float
    table_bytes: int
    index_bytes: int
    key_bytes: int
    memory_bytes: int
    build_memory_bytes: int
    build_seconds: float
    shards: int
    copies: int
    partitions: int
    is_extrapolated: bool
    reasons: tuple[str, ...]

    @property
    def machines(self) -> int:
        """In sum."""
        return self.shards * self.copies

    @property
    def disk_bytes(self) -> int:
        """Of one machine: its part, the index again while it is rebuilt, and a fifth for WAL."""
        whole = self.table_bytes + self.key_bytes + 2 * self.index_bytes
        return math.ceil(whole * 1.2 / self.shards)


def make_plan(demand: Demand, machine: Machine | None = None) -> Plan:
    """What so many vectors want of machines of a kind.

    Raises:
        InvalidInputError: No index of pgvector's takes so many dimensions.
    """
    machine = machine or Machine()
    rows, dimensions = demand.rows, demand.dimensions
    table = table_bytes(
        rows,
        dimensions,
        id_bytes=demand.id_bytes,
        payload_bytes=demand.payload_bytes,
        document_bytes=demand.document_bytes,
    )
    keys = key_bytes(rows, demand.id_bytes)
    if rows <= SMALL:
        seconds = measured.exact_seconds(rows, dimensions)
        why = f"Comparing with each of {rows:,} rows is exact, and takes milliseconds: no index."
        copies = _copies(demand.qps, seconds, machine)
        return Plan(
            "none", "full", "", 0, seconds, table, 0, keys, table, 0, 0.0, 1, copies, 1,
            is_extrapolated=False, reasons=(why,),
        )  # fmt: skip
    planned = (_planned(demand, machine, kind, table, keys) for kind in _kinds(dimensions))
    kinds = [each for each in planned if each is not None]
    if not kinds:
        raise InvalidInputError(
            f"No index reaches a recall of {demand.recall:g}, by the measured figures: ask for "
            "less, or search with exact=True, which compares with every row."
        )
    best = min(kinds, key=lambda plan: plan.machines)  # of as many, the more precise one
    compared = ", ".join(f"{_NAMES[each.storage]} {each.machines:,}" for each in kinds)
    return replace(best, reasons=(f"Machines by what an index holds: {compared}.", *best.reasons))


def _copies(qps: float, seconds: float, machine: Machine) -> int:
    """Every shard answers every search."""
    return max(1, math.ceil(qps * seconds / (machine.cores * _BUSY)))


def _kinds(dimensions: int) -> list[Storage]:
    kinds: tuple[Storage, ...] = ("full", "half", "binary")
    return [
        kind
        for kind in kinds
        if dimensions <= _MOST_INDEXED[kind] and (kind != "binary" or dimensions >= _LEAST_OF_BITS)
    ]


def _planned(
    demand: Demand, machine: Machine, storage: Storage, table: int, keys: int
) -> Plan | None:
    """By one kind of index; None where no setting that pgvector takes reaches the recall."""
    rows, dimensions = demand.rows, demand.dimensions
    usable = int(machine.memory_bytes * _FOR_INDEXES)
    whole = index_bytes(rows, dimensions, storage)
    shards = max(1, math.ceil(whole / usable))
    takes = f"An index of {_NAMES[storage]} takes {whole / _GIB:,.1f} GiB"
    reasons = [f"{takes}; a machine has {usable / _GIB:,.1f} GiB for it."]
    by_memory = shards
    search = measured.search(math.ceil(rows / shards), dimensions, storage, demand.recall)
    while search.value > _MOST_SET[search.setting]:
        if rows / shards <= SMALL:
            return None
        shards = math.ceil(shards * _MORE_SHARDS)
        search = measured.search(math.ceil(rows / shards), dimensions, storage, demand.recall)
    if shards > by_memory:
        most = _MOST_SET[search.setting]
        reasons.append(
            f"With {search.setting} at most {most:,} a machine reaches the recall of "
            f"{rows / shards:,.0f} rows."
        )
    if shards > 1:
        reasons.append(f"So there are {shards:,} shards (Citus), each with its part of the rows.")
    if storage == "binary":
        reasons.append("What single bits find is compared anew by the full vectors in the table.")
    part = math.ceil(rows / shards)
    needs = measured.graph_bytes(part, dimensions, storage)
    gives = int(machine.memory_bytes * _FOR_BUILDS)
    partitions = 1 if needs <= gives else 2 ** math.ceil(math.log2(needs / gives))
    build = measured.build_core_seconds(part, dimensions, storage) / (machine.cores * _PARALLEL)
    if partitions > 1:
        slower = measured.without_memory()
        reasons.append(
            f"A build at once wants {needs / _GIB:,.0f} GiB of maintenance_work_mem, and is given "
            f"{gives / _GIB:,.0f}: it takes {slower:.1f} times as long. Or {partitions} "
            "partitions are each built within that, and a search takes about "
            f"{measured.by_partitions(partitions):.1f} times as long."
        )
        build *= slower
    return Plan(
        "hnsw",
        storage,
        search.setting,
        search.value,
        search.core_seconds,
        table,
        whole,
        keys,
        whole + keys,
        min(needs, gives),
        build,
        shards,
        _copies(demand.qps, search.core_seconds, machine),
        partitions,
        is_extrapolated=part > measured.measured_rows(),
        reasons=tuple(reasons),
    )
