"""The indexes, and whether the server's memory is enough for those of vectors."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from qortex_db.doctor.finding import Finding, size
from qortex_db.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qortex_db.doctor.facts import Capacity, Declared, Expected, Server, TableAccess
    from qortex_db.index_health import Index

SMALL_ROWS: Final = 10_000
"""So many rows are compared in a few milliseconds."""
_MOST_UNASKED: Final = 2**30
"""What `index rebuild` gives a build by itself."""


def check_indexes(
    indexes: Sequence[Index],
    pending: Sequence[str],
    tables: Mapping[str, TableAccess],
    expected: Expected,
) -> Iterator[Finding]:
    """Those that are invalid, missing, waiting or bloated."""
    wrong = False
    for one in indexes:
        if not one.is_valid:
            wrong = True
            said = f"{one.name} on {one.table} is invalid: writes keep it up, and no read uses it."
            yield Finding("indexes", "wrong", said, _remedy(one, expected))
    for name in pending:
        wrong = True
        said = f"{name} was taken away for a load, and waits to be built."
        do = f"Run {expected.command('index rebuild')}, as the owner."
        yield Finding("indexes", "wrong", said, do)
    for table in expected.indexes.keys() & tables.keys():  # others are told of as a whole
        place = tables[table].schema, tables[table].relation
        of_table = [one for one in indexes if (one.schema, one.table) == place]
        for name in _missing(of_table, expected.indexes[table], pending):
            wrong = True
            rows = max((one.rows for one in of_table), default=0)
            declared = expected.indexes[table][name]
            searched = declared.holds_vectors and rows > SMALL_ROWS
            said = f"{name}, which the models declare, is not on {table}"
            said += f": searches compare with all of about {rows:,} rows." if searched else "."
            do = f"As the owner: {declared.sql}"
            yield Finding("indexes", "wrong" if searched else "warning", said, do)
    for one in indexes:
        if one.is_valid and one.is_bloated:
            wrong = True
            fresh = size(one.fresh_bytes or 0)
            said = f"{one.name} takes {size(one.bytes)}, and a new one would {fresh}."
            yield Finding("indexes", "warning", said, _rebuild(one, expected))
    if not wrong:
        total = size(sum(one.bytes for one in indexes))
        yield Finding("indexes", "good", f"All {len(indexes)} are there and valid: {total}.")


def _rebuild(index: Index, expected: Expected) -> str:
    command = expected.command("index rebuild --table", shlex.quote(index.table))
    return f"{command} builds it while the table is in use."


def _missing(
    there: Sequence[Index], declared: Mapping[str, Declared], pending: Sequence[str]
) -> list[str]:
    """Declared indexes that are not there; a vector's may have another name since a change."""
    names = {one.name for one in there}
    others = sum(one.holds_vectors and one.name not in declared for one in there)
    missing = sorted(declared.keys() - names - {*pending})
    of_vectors = [name for name in missing if declared[name].holds_vectors]
    return [name for name in missing if name not in of_vectors[:others]]


def _remedy(index: Index, expected: Expected) -> str:
    name = qualified(index.schema, index.name)
    if re.search(r"_cc(new|old)\d*$", index.name):
        return f"A build was interrupted: DROP INDEX CONCURRENTLY {name}, as the owner."
    if index.holds_vectors:
        return _rebuild(index, expected)
    return f"REINDEX INDEX CONCURRENTLY {name}, as the owner."


def check_memory(
    indexes: Sequence[Index], capacity: Capacity, server: Server, expected: Expected
) -> Iterator[Finding]:
    """The memory and the processes of a build, and of searches."""
    if server.has_citus:  # the sizes that this node has for tables of others are those of shells
        said = "Not checked: with Citus each node has its part of the indexes, and its own memory."
        yield Finding("memory", "unknown", said, f"{expected.command('plan')} tells by the rows.")
        return
    vectors = [one for one in indexes if one.holds_vectors]
    settings = capacity.settings
    if not vectors:
        yield Finding("memory", "good", "There is no vector index, which would have to fit in.")
        return
    largest = max(vectors, key=lambda one: max(one.bytes, one.fresh_bytes or 0))
    needed = largest.fresh_bytes or largest.bytes
    yield from _build(largest, needed, settings, expected)
    total = sum(one.bytes for one in vectors)
    buffers, cache = settings["shared_buffers"], settings["effective_cache_size"]
    said = f"The vector indexes take {size(total)}, and shared_buffers are {size(buffers)}"
    if total > max(buffers, cache):
        do = "More memory (effective_cache_size says how much there is), or halves of it by "
        do += "quantization: `qortex-db plan`."
        yield Finding("shared_buffers", "warning", f"{said}: searches read from the disk.", do)
    elif total > buffers:
        do = "Raise shared_buffers above that, up to 40 % of the memory; it takes a restart."
        yield Finding("shared_buffers", "warning", f"{said}: searches copy from the system.", do)
    else:
        yield Finding("shared_buffers", "good", f"{said}.")


def _build(
    index: Index, needed: int, settings: Mapping[str, int], expected: Expected
) -> Iterator[Finding]:
    memory = settings["maintenance_work_mem"]
    if needed > memory:
        rebuild = f"index rebuild --table {shlex.quote(index.table)}"
        do = f"{expected.command(rebuild)} gives it that by itself; by hand, SET it before."
        if needed > _MOST_UNASKED:
            memory_needed = f"--maintenance-work-mem {_rounded(needed)}"
            do = f"{expected.command(rebuild, memory_needed)}."
        yield Finding(
            "maintenance_work_mem",
            "warning",
            f"A build of {index.name} takes {size(needed)}, and maintenance_work_mem is "
            f"{size(memory)}: past that it is many times slower.",
            do,
        )
    else:
        said = f"{size(memory)} are enough for a build of {index.name} ({size(needed)})."
        yield Finding("maintenance_work_mem", "good", said)
    workers = min(
        settings[name]
        for name in (
            "max_parallel_maintenance_workers",
            "max_parallel_workers",
            "max_worker_processes",
        )
    )
    said = f"A build has {workers} processes beside its own."
    if not workers and index.rows > SMALL_ROWS:
        do = "Raise max_parallel_maintenance_workers, or `index rebuild --parallel-workers`."
        yield Finding("parallel workers", "warning", "A build has one process alone.", do)
    else:
        yield Finding("parallel workers", "good", said)


def _rounded(count: int) -> str:
    return f"{-(-count // 2**30)}GB"
