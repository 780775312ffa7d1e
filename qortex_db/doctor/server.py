"""The server, its version and its clock; the extension."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qortex_db.doctor.finding import Finding
from qortex_db.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qortex_db.doctor.facts import Server

OLDEST, NEWEST = 15, 18
"""The major versions of PostgreSQL that are supported."""
OLDEST_PGVECTOR: Final = (0, 8, 0)
"""From which on an index goes on where a filter took its candidates away."""
MOST_SKEW_SECONDS: Final = 5.0


def check_version(server: Server) -> Iterator[Finding]:
    """PostgreSQL's version against those that are supported."""
    major = server.number // 10_000
    said = f"PostgreSQL {server.version}"
    if major < OLDEST:
        do = f"Move to PostgreSQL {OLDEST} or a newer one."
        yield Finding("server", "wrong", f"{said} is older than any that is supported.", do)
    elif major > NEWEST:
        do = f"Supported are {OLDEST} to {NEWEST}; look for a newer qortex-db."
        yield Finding("server", "warning", f"{said} is newer than any that was tried.", do)
    else:
        yield Finding("server", "good", f"{said}{', a standby' if server.is_standby else ''}.")


def check_extension(server: Server) -> Iterator[Finding]:
    """That pgvector is there, new enough, and found by its name."""
    if server.pgvector is None:
        do = "As a role that may: CREATE EXTENSION vector."
        if server.available is None:
            do = "Install pgvector on the server's machine (Debian: postgresql-NN-pgvector) first."
        yield Finding("pgvector", "wrong", "The database has no pgvector.", do)
        return
    schema = server.pgvector_schema or ""
    if not server.pgvector_is_open:
        said = f"The role {server.role} lacks USAGE on the schema {schema}, where pgvector is."
        do = f"GRANT USAGE ON SCHEMA {qualified(schema)} TO {qualified(server.role)}."
        yield Finding("pgvector", "wrong", said, f"As its owner: {do}")
    elif not server.pgvector_is_visible:
        yield Finding(
            "pgvector",
            "wrong",
            f"pgvector is in the schema {schema}, which is not on the role's search_path.",
            f"ALTER ROLE {qualified(server.role)} SET search_path = …, {qualified(schema)}.",
        )
    said = f"pgvector {server.pgvector}"
    if _numbers(server.pgvector) < OLDEST_PGVECTOR:
        oldest = ".".join(map(str, OLDEST_PGVECTOR))
        yield Finding(
            "pgvector", "wrong", f"{said} is too old: {oldest} is the first that does.", _UPDATE
        )
    elif server.available and _numbers(server.available) > _numbers(server.pgvector):
        newer = f"{said} is in the database, {server.available} on the machine."
        yield Finding("pgvector", "warning", newer, _UPDATE)
    elif server.pgvector_is_visible:
        yield Finding("pgvector", "good", f"{said}.")


_UPDATE: Final = "As the extension's owner: ALTER EXTENSION vector UPDATE."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def check_clock(server: Server) -> Iterator[Finding]:
    """The server's clock against this machine's."""
    ahead = server.clock_ahead_seconds
    trip = f"A question takes {server.round_trip_seconds * 1e3:,.1f} ms there and back"
    # Half of it is not known to be the way there.
    if abs(ahead) > MOST_SKEW_SECONDS + server.round_trip_seconds / 2:
        which = "ahead of" if ahead > 0 else "behind"
        yield Finding(
            "clock",
            "warning",
            f"The server's clock is {abs(ahead):,.1f} s {which} this machine's.",
            "Keep both by NTP: the server's counts for what is stored, and half-lives go by it.",
        )
    else:
        yield Finding("clock", "good", f"{trip}; the clocks agree.")
