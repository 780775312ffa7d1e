"""All checks, over the facts that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.schema import CreateIndex

from qortex_db.doctor import access, indexes, pooling, reading, replicas, server
from qortex_db.doctor.facts import Declared, Expected, Facts, Sessions, Unread
from qortex_db.doctor.finding import Finding
from qortex_db.errors import UnavailableError
from qortex_db.index_health import VECTOR_METHODS
from qortex_db.migrations import head_revision
from qortex_db.migrations.connection import NOTHING_GIVEN
from qortex_db.migrations.history import is_shared
from qortex_db.sql import DIALECT
from qortex_db.status import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Index, Table

    from qortex_db.settings import Settings


async def examine(
    settings: Settings, *, tables: Iterable[Table] = (), is_embedded: bool = False
) -> list[Finding]:
    """Look at a database as a service with these settings would use it; nothing is changed.

    Whoever may read the tables can do so, on a standby too.

    Args:
        settings: Of the service. They name a server: none is started.
        tables: A host's, beside our own.
        is_embedded: Whether it is the embedded server.

    Raises:
        UnavailableError: They name none.
    """
    wanted = list(tables)
    target = settings.target()
    if target is None:
        raise UnavailableError(NOTHING_GIVEN)
    facts = await reading.read(settings, target, wanted)
    return diagnose(facts, _expected(settings, wanted, is_embedded=is_embedded))


def _expected(settings: Settings, tables: Iterable[Table], *, is_embedded: bool) -> Expected:
    declared = {
        table.fullname: {
            str(index.name): _declared(index, settings.db_schema) for index in table.indexes
        }
        for table in (*TABLES.values(), *tables)
    }
    return Expected(
        head=head_revision(),
        is_shared=is_shared(settings),
        tables=tuple(TABLES),
        others=tuple(table.fullname for table in tables),
        indexes=declared,
        pool=None if settings.pool == "null" else settings.pool_max_size,
        pooler=settings.pooler,
        is_embedded=is_embedded,
        schema=settings.db_schema,
        timeout_seconds=settings.statement_timeout_seconds or None,
    )


def _declared(index: Index, schema: str | None) -> Declared:
    method = index.dialect_options["postgresql"]["using"]
    place: Any = {}
    if schema is not None:
        place = {"schema_translate_map": {None: schema}, "render_schema_translate": True}
    sql = str(CreateIndex(index).compile(dialect=DIALECT, **place))
    return Declared(method in VECTOR_METHODS, sql.replace(" INDEX ", " INDEX CONCURRENTLY ", 1))


def diagnose(facts: Facts, expected: Expected) -> list[Finding]:
    """What is right and what is wrong, and what to do: pure, over what was read."""
    if isinstance(facts.server, Unread):
        do = "Look at the server, the network and the DSN; the other checks need a connection."
        return [Finding("connection", "wrong", facts.server.reason, do)]
    sessions = facts.sessions if isinstance(facts.sessions, Sessions) else None
    found = [Finding("connection", "good", f"Connected to {facts.where}.")]

    def check(name: str, of: Callable[..., Iterator[Finding]], *parts: Any) -> None:
        unread = next((part for part in parts if isinstance(part, Unread)), None)
        if unread is None:
            found.extend(of(*parts))
        else:
            found.append(Finding(name, "unknown", f"Not checked: {unread.reason}", unread.do))

    check("server", server.check_version, facts.server)
    check("pgvector", server.check_extension, facts.server)
    check("schema", access.check_revision, facts.revisions, facts.tables, expected)
    check("role", access.check_role, facts.server, facts.tables, expected)
    check("search_path", access.check_path, facts.server, facts.open_schemas, facts.closed_schemas)
    check("indexes", indexes.check_indexes, facts.indexes, facts.pending, facts.tables, expected)
    check("memory", indexes.check_memory, facts.indexes, facts.capacity, facts.server, expected)
    check("connections", pooling.check_connections, facts.capacity, sessions, expected)
    check("pooler", pooling.check_pooler, facts.sessions, expected)
    check("clock", server.check_clock, facts.server)
    for number, one in enumerate(facts.replicas, 1):
        found.extend(replicas.check_replica(f"replica {number}", one, facts.revisions, expected))
    return found
