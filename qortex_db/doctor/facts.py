"""What is read of a database before it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from qortex_db import messages
from qortex_db.names import qualified

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from qortex_db.index_health import Index


@dataclass(frozen=True, slots=True)
class Unread:
    """In the place of what could not be read: why, and what to do where that is known."""

    reason: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """The server, the extension and the session.

    Attributes:
        number: As 180004.
        pgvector: Its version; None where the database lacks it.
        pgvector_is_visible: Whether its schema is on the role's search_path, and open to it.
        pgvector_is_open: Whether the role may use its schema.
        has_citus: Whether the database has Citus, so that tables may be on several nodes.
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
    pgvector_is_open: bool
    has_citus: bool
    available: str | None
    clock_ahead_seconds: float
    round_trip_seconds: float


class Use(NamedTuple):
    """The connections that there are now, ours among them, and the most that there may be.

    Attributes:
        limit: None where nothing limits them.
    """

    connections: int
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the server gives, as its settings say.

    Attributes:
        settings: Numbers by name; memory in bytes.
        connections: How many there are now, of all roles and databases.
        role: Those of this role.
        database: Those of this database.
    """

    settings: Mapping[str, int]
    connections: int
    role: Use
    database: Use


@dataclass(frozen=True, slots=True)
class TableAccess:
    """A table, and what a role may do with it.

    Attributes:
        name: As its model has it, perhaps with a schema.
        relation: As the database has it.
    """

    name: str
    role: str
    relation: str
    schema: str
    owner: str
    is_owner: bool
    has_usage: bool
    hides_rows: bool
    privileges: frozenset[str]

    @property
    def refusal(self) -> Unread | None:
        """Why the role can't read it."""
        role = qualified(self.role)
        if not self.has_usage:
            place = qualified(self.schema)
            why = f"the role {self.role} lacks USAGE on the schema {self.schema}."
            return Unread(why, f"As its owner: GRANT USAGE ON SCHEMA {place} TO {role}.")
        if "SELECT" in self.privileges:
            return None
        place = qualified(self.schema, self.relation)
        why = f"the role {self.role} lacks SELECT on {self.schema}.{self.relation}."
        return Unread(why, f"As its owner: GRANT SELECT ON TABLE {place} TO {role}.")


@dataclass(frozen=True, slots=True)
class Sessions:
    """Two connections, open at once, and who answered them.

    Attributes:
        is_pooled: Whether another process than the one that was connected to answered.
        shares: Whether one process answered both.
    """

    is_pooled: bool
    shares: bool


class Position(NamedTuple):
    """How far a primary is, and what tells that another server is a standby of its.

    Attributes:
        identity: Of its cluster and database; empty where the role may not ask.
        started: When the server was.
        place: In its WAL.
    """

    identity: tuple[str, ...]
    started: datetime
    place: str


@dataclass(frozen=True, slots=True)
class Standby:
    """What a replica says of itself.

    Attributes:
        is_standby: Whether it replays another server's WAL.
        is_copy: Whether that may be the primary's: one has the other's identity.
        is_primary: Whether it is the primary itself, by another way.
        behind_bytes: Of WAL.
        behind_seconds: How old its last transaction is; None where it replayed none yet.
        conflicts: How many statements it cancelled in this database, to go on replaying.
        delay_seconds: How long its replay waits for a statement; None for as long as it takes.
        revisions: As `Facts.revisions`.
    """

    is_standby: bool
    is_copy: bool
    is_primary: bool
    is_paused: bool
    behind_bytes: int
    behind_seconds: float | None
    conflicts: int
    has_feedback: bool
    delay_seconds: float | None
    revisions: tuple[str, ...] | Unread | None


class Replica(NamedTuple):
    """A server that reads by themselves go to.

    Attributes:
        where: As `Facts.where`.
        is_reached: Whether it answered at all.
    """

    where: str
    standby: Standby | Unread
    is_reached: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it.

    Attributes:
        where: The server, as it is shown: without a password.
        revisions: What the version table says; None where there is none.
        pending: Indexes that wait to be built.
        open_schemas: What to do about schemas of the search_path in which others may create.
        closed_schemas: On the search_path, schemas that the role may not use.
        replicas: That the settings name, in their order.
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
    closed_schemas: tuple[str, ...] | Unread = ()
    replicas: tuple[Replica, ...] = ()


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
        schema: Of our tables, as of the settings.
        timeout_seconds: The most that a statement of the service's takes; None for any.
    """

    head: str
    is_shared: bool
    tables: tuple[str, ...]
    others: tuple[str, ...] = ()
    indexes: Mapping[str, Mapping[str, Declared]] = field(default_factory=dict)
    pool: int | None = None
    pooler: str | None = None
    is_embedded: bool = False
    schema: str | None = None
    timeout_seconds: float | None = None

    def command(self, *words: str) -> str:
        """How to run one of ours on this schema."""
        return messages.command(self.schema, *words)
