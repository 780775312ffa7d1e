"""The connections: how many there may be, and who is between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qortex_db.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db.doctor.facts import Capacity, Expected, Sessions


def check_connections(
    capacity: Capacity, sessions: Sessions | None, expected: Expected
) -> Iterator[Finding]:
    """The pool of a process against what the server takes."""
    most = capacity.settings["max_connections"]
    left = most - capacity.settings["superuser_reserved_connections"]
    left -= capacity.settings.get("reserved_connections", 0)  # from PostgreSQL 16 on
    uses = {
        "max_connections": (left, capacity.connections),
        "the role's limit": (capacity.role.limit, capacity.role.connections),
        "the database's limit": (capacity.database.limit, capacity.database.connections),
    }
    limits = {name: limit for name, (limit, _) in uses.items() if limit is not None}
    which = min(limits, key=lambda name: limits[name])
    free = limits[which]
    unused = {name: limit - uses[name][1] + 1 for name, limit in limits.items()}  # one is ours
    tightest = min(unused, key=lambda name: unused[name])
    if expected.pool is None:
        said = f"Each call connects; {which} lets {free:,} do so at once."
        yield Finding("connections", "good", said)
        return
    has = f"A process has up to {expected.pool}"
    said = f"{has}, {which} leaves {free:,}"
    lower = "Lower QORTEX_DB_POOL_MAX_SIZE, or put a pooler between."
    if sessions is not None and sessions.is_pooled:
        yield Finding("connections", "good", f"{said}; the pooler shares those.")
    elif expected.pool > free:
        yield Finding("connections", "wrong", f"{said}: fewer than one process wants.", lower)
    elif expected.pool > unused[tightest]:
        said = (
            f"{has}, {tightest} leaves {limits[tightest]:,}, and {uses[tightest][1]:,} are in use."
        )
        yield Finding("connections", "warning", said, lower)
    else:
        count = free // expected.pool
        processes = "1 such process" if count == 1 else f"{count:,} such processes"
        yield Finding("connections", "good", f"{said}: enough for {processes}.")


def check_pooler(sessions: Sessions, expected: Expected) -> Iterator[Finding]:
    """Whether a pooler is between, and the settings say so where they have to."""
    if not sessions.is_pooled:
        if expected.pooler is None:
            yield Finding("pooler", "good", "None is between.")
        else:
            said = "QORTEX_DB_POOLER is set, and the server itself answers."
            do = "Unset it: without a pooler, prepared statements are faster."
            yield Finding("pooler", "warning", said, do)
        return
    if not sessions.shares:
        said = "One is between, which seems to give each connection a session of its own."
        if expected.pooler is not None:
            do = "If it is in session mode, unset QORTEX_DB_POOLER."
            yield Finding("pooler", "warning", said, do)
        else:
            do = "It needs a connection of the server's for each of ours."
            yield Finding("pooler", "good", said, do)
    elif expected.pooler is not None:
        said = "One in transaction mode is between, as QORTEX_DB_POOLER says."
        yield Finding("pooler", "good", said)
    else:
        said = "One in transaction mode is between, and QORTEX_DB_POOLER is not set."
        do = "Set QORTEX_DB_POOLER=transaction, unless it keeps prepared statements (PgBouncer "
        do += "1.21 or newer, with max_prepared_statements above 0)."
        yield Finding("pooler", "warning", said, do)
