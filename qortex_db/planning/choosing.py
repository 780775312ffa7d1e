"""Which index, how much memory and disk, and how many machines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from qortex_db.checks import check_number, check_whole
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
        build_memory_bytes: The `maintenance_work_mem` with which a shard's index is built at once.
        build_seconds: Of a shard's index, on all cores of a machine.
        shards: Machines for one copy (Citus), each with its part of the rows.
        copies: Of each shard: the primary, and replicas that answer searches.
        partitions: Of each shard's table, so that each index is built within its memory; 1: none.
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
    usable = int(machine.memory_bytes * _FOR_INDEXES)
    storage, reasons = _storage(demand, usable)
    whole = index_bytes(rows, dimensions, storage)
    shards = max(1, math.ceil(whole / usable))
    if shards > 1:
        reasons.append(f"That is more than a machine's: {shards} shards (Citus), each a part.")
    part = math.ceil(rows / shards)
    needs = measured.graph_bytes(part, dimensions, storage)
    gives = int(machine.memory_bytes * _FOR_BUILDS)
    partitions = 1 if needs <= gives else 2 ** math.ceil(math.log2(needs / gives))
    search = measured.search(part, dimensions, storage, demand.recall)
    if partitions > 1:
        reasons.append(
            f"A build at once wants {needs / 2**30:,.0f} GiB of maintenance_work_mem. With less it "
            f"takes {measured.without_memory():.1f} times as long, or {partitions} partitions are "
            "each built within it, and every search walks all of them: see the page on partitions."
        )
    # Every shard answers every search.
    copies = _copies(demand.qps, search.core_seconds, machine)
    build = measured.build_core_seconds(part, dimensions, storage, fits=partitions == 1)
    workers = max(1.0, machine.cores * _PARALLEL)
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
        needs,
        build / workers,
        shards,
        copies,
        partitions,
        is_extrapolated=part > measured.measured_rows(),
        reasons=tuple(reasons),
    )


def _copies(qps: float, seconds: float, machine: Machine) -> int:
    return max(1, math.ceil(qps * seconds / (machine.cores * _BUSY)))


def _storage(demand: Demand, usable: int) -> tuple[Storage, list[str]]:
    """The first kind of index that fits into a machine; else the smallest there is."""
    kinds: list[Storage] = [
        kind
        for kind in ("full", "half", "binary")
        if demand.dimensions <= _MOST_INDEXED[kind]
        and (kind != "binary" or demand.dimensions >= _LEAST_OF_BITS)
    ]
    reasons = []
    for kind in kinds:
        size = index_bytes(demand.rows, demand.dimensions, kind)
        fits = size <= usable
        reasons.append(
            f"An index of {_NAMES[kind]} takes {size / 2**30:,.1f} GiB: "
            f"{'it fits' if fits else 'more than'} the {usable / 2**30:,.1f} GiB that a machine "
            f"has for it."
        )
        if fits:
            break
    if kind == "binary":
        reasons.append("What single bits find is compared anew by the full vectors in the table.")
    return kind, reasons
