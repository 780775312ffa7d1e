"""What is read of a database before it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qortex_db.index_health import Index


@dataclass(frozen=True, slots=True)
class Unread:
    """In the place of what could not be read."""

    reason: str


@dataclass(frozen=True, slots=True)
class Server:
    """The server, the extension and the session.

    Attributes:
        number: As 180004.
        pgvector: Its version; None where the database lacks it.
        pgvector_is_visible: Whether its schema is on the role's search_path.
        available: The version of pgvector that the machine has; None for none.
        clock_ahead_seconds: How far the server's clock is before this machine's.
        round_trip_seconds: Of one question.
    """

    number: int
    version: str
    is_standby: bool
    role: str
    is_superuser: bool
    pgvector: str | None
    pgvector_schema: str | None
    pgvector_is_visible: bool
    available: str | None
    clock_ahead_seconds: float
    round_trip_seconds: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the server gives, as its settings say.

    Attributes:
        settings: Numbers by name; memory in bytes.
        connections: How many there are now, ours among them.
        role_limit: The most of this role; None where nothing limits them.
        database_limit: The most of this database, likewise.
    """

    settings: Mapping[str, int]
    connections: int
    role_limit: int | None
    database_limit: int | None


@dataclass(frozen=True, slots=True)
class TableAccess:
    """A table, and what the role may do with it.

    Attributes:
        name: As its model has it, perhaps with a schema.
        relation: As the database has it.
    """

    name: str
    relation: str
    schema: str
    owner: str
    is_owner: bool
    has_usage: bool
    privileges: frozenset[str]
    hides_rows: bool


@dataclass(frozen=True, slots=True)
class Sessions:
    """Two connections, open at once, and who answered them.

    Attributes:
        is_pooled: Whether another process than the one that was connected to answered.
        shares: Whether one process answered both.
    """

    is_pooled: bool
    shares: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it.

    Attributes:
        where: The server, as it is shown: without a password.
        revisions: What the version table says; None where there is none.
        pending: Indexes that wait to be built.
        open_schemas: What to do about schemas of the search_path in which others may create.
    """

    where: str
    server: Server | Unread
    capacity: Capacity | Unread
    tables: Mapping[str, TableAccess] | Unread
    indexes: tuple[Index, ...] | Unread
    revisions: tuple[str, ...] | Unread | None
    pending: tuple[str, ...] | Unread
    sessions: Sessions | Unread
    open_schemas: tuple[str, ...] = ()


class Declared(NamedTuple):
    """An index that a model declares, and what makes it."""

    holds_vectors: bool
    sql: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What this version of the package, and its settings, expect.

    Attributes:
        head: The newest revision.
        is_shared: Whether the history is a host's.
        tables: The names of our own tables.
        others: Those of a host's.
        indexes: Those that models declare, by table and name.
        pool: The connections of a process; None where each call connects.
        pooler: As of the settings.
        is_embedded: Whether it is the embedded server.
    """

    head: str
    is_shared: bool
    tables: tuple[str, ...]
    others: tuple[str, ...] = ()
    indexes: Mapping[str, Mapping[str, Declared]] = field(default_factory=dict)
    pool: int | None = None
    pooler: str | None = None
    is_embedded: bool = False
