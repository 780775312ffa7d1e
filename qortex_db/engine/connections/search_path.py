"""What a new connection asks: where it looks names up, who else may create there, what is vector.

Whoever may create in one of the schemas can plant functions and operators that match better than
PostgreSQL's own, and that then run as the role of the service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import event

from qortex_db.errors import UnavailableError
from qortex_db.names import qualified
from qortex_db.poolers import NO_FIRST_ANSWER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

# The extension may live in any schema, and other types may be named "vector".
FIND_VECTOR: Final = """
SELECT n.nspname, t.oid, pg_catalog.pg_type_is_visible(t.oid) AS is_visible, EXISTS (
  SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus'::name) AS on_citus
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass::oid
 AND d.refobjid = e.oid AND d.deptype = 'e'::"char"
 AND d.classid = 'pg_catalog.pg_type'::regclass::oid
JOIN pg_catalog.pg_type t ON t.oid = d.objid AND t.typname = 'vector'::name
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE e.extname = 'vector'::name
"""

# Trusted is who could do as he likes anyway: superusers, this role, the owners of the database, of
# pgvector and of our tables' schema; and of our tables, unless those are several, since a stranger
# may own one of their names.
# All of it runs while anything may be planted: hence the exact types.
_SCHEMAS: Final = """
WITH vector AS MATERIALIZED (<vector>), schemas AS MATERIALIZED (
    SELECT n.oid, n.nspname, n.nspowner, p.place,
        coalesce(n.nspacl, pg_catalog.acldefault('n'::"char", n.nspowner)) AS acl
    FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS p(name, place)
    JOIN pg_catalog.pg_namespace n ON n.nspname = p.name
    WHERE n.nspname <> 'pg_catalog'::name
), ours AS MATERIALIZED (
    SELECT c.relnamespace AS schema, c.relowner AS owner FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname::text = ANY ($1::text[]) AND c.relkind IN ('r'::"char", 'p'::"char")
      AND n.nspname = coalesce($2::text::name, n.nspname) AND n.oid IN (SELECT oid FROM schemas)
), pgvector AS MATERIALIZED (
    SELECT extnamespace AS schema, extowner AS owner FROM pg_catalog.pg_extension
    WHERE extname = 'vector'::name
), trusted AS MATERIALIZED (
    SELECT oid FROM pg_catalog.pg_roles
    WHERE rolsuper OR rolname = current_user OR rolname = 'pg_database_owner'::name
    UNION ALL
    SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    UNION ALL
    SELECT owner FROM pgvector
    UNION ALL
    SELECT pg_catalog.min(owner) FROM ours
    HAVING pg_catalog.min(owner) = pg_catalog.max(owner)
)
SELECT pg_catalog.pg_backend_pid(), s.nspname,
    s.oid IN (SELECT schema FROM ours UNION ALL SELECT schema FROM pgvector)
        -- where a first upgrade puts them
        OR $2 IS NULL AND NOT EXISTS (SELECT FROM ours)
            AND s.place = (SELECT pg_catalog.min(place) FROM schemas),
    ARRAY(
        SELECT coalesce(r.rolname::text, 'PUBLIC'::text)
        FROM (
            SELECT grantee AS role FROM pg_catalog.aclexplode(s.acl)
            WHERE privilege_type = 'CREATE'::text
            UNION SELECT s.nspowner
            WHERE s.oid NOT IN (SELECT schema FROM ours UNION ALL SELECT schema FROM pgvector)
        ) may
        LEFT JOIN pg_catalog.pg_roles r ON r.oid = may.role
        WHERE may.role NOT IN (SELECT oid FROM trusted)
    ),
    pg_catalog.current_setting('transaction_isolation'::text), v.nspname, v.oid, v.is_visible,
    v.on_citus,
    -- Parts of a search that seldom run would be compiled each time.
    -- A pooler's is another's too.
    CASE WHEN pg_catalog.pg_backend_pid() = $3::int
        THEN pg_catalog.set_config('jit'::text, 'off'::text, false) END
FROM (SELECT) one LEFT JOIN vector v ON true LEFT JOIN schemas s ON true ORDER BY s.place
""".replace("<vector>", FIND_VECTOR)
CLOSED: Final = r"""
SELECT n.nspname::text AS name FROM pg_catalog.pg_settings s,
    pg_catalog.regexp_split_to_table(s.reset_val, '\s*,\s*'::text) WITH ORDINALITY p (name, place)
JOIN pg_catalog.pg_namespace n ON n.nspname::text = CASE
    WHEN p.name = '"$user"'::text THEN current_user::text
    WHEN p.name ~~ '"%'::text THEN pg_catalog.replace(
        pg_catalog.btrim(p.name, '"'::text), '""'::text, '"'::text)
    ELSE pg_catalog.lower(p.name) END
WHERE s.name = 'search_path'::text
  AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE'::text)
ORDER BY p.place
"""
"""The schemas on the search_path that a connection began with, which its role may not use.

PostgreSQL looks into none of them, and says nothing: what is there is not there for the role.
"""
JUST_ASKED: Final = "qortex_db_just_asked"
"""What a new connection found, among what is kept with it, until its codec is set."""
_PIN: Final = "SELECT pg_catalog.set_config('search_path'::text, $1::text, false)"


@dataclass(frozen=True, slots=True)
class OpenSchema:
    """A schema on the search_path in which roles may create that could do nothing here otherwise.

    Attributes:
        name: The schema's.
        roles: Who may; "PUBLIC" is everybody.
        is_needed: Whether our tables or pgvector are in it, or would be.
    """

    name: str
    roles: tuple[str, ...]
    is_needed: bool

    def __str__(self) -> str:
        role = "PUBLIC" if "PUBLIC" in self.roles else ", ".join(map(qualified, self.roles))
        return (
            f"Others may create functions in the schema {self.name}, which is on the search_path: "
            f"take it off, or REVOKE CREATE ON SCHEMA {qualified(self.name)} FROM {role}"
        )


class VectorType(NamedTuple):
    """pgvector's type, and whether Citus is there too."""

    schema: str
    oid: int
    is_visible: bool
    on_citus: bool


@dataclass(frozen=True, slots=True)
class SearchPath:
    """The schemas on a connection's path, and what else was asked with them.

    Attributes:
        names: All of them, in their order.
        safe: Those in which nobody else may create.
        open: The others.
        is_pooled: Whether the connection is a pooler's, so that a setting would be another's too.
        isolation_level: The connection's own, as SQLAlchemy has it.
        vector: None where pgvector is not installed.
    """

    names: tuple[str, ...] = ()
    safe: tuple[str, ...] = ()
    open: tuple[OpenSchema, ...] = ()
    is_pooled: bool = False
    isolation_level: str = ""
    vector: VectorType | None = None


async def read(
    driver: Any,
    tables: Iterable[str],
    schema: str | None,
    *,
    jit: bool = True,
    is_pooled: bool = False,
    limit: float | None = None,
) -> SearchPath:
    """What is on a connection's path.

    Args:
        driver: The connection, of asyncpg.
        tables: The names of ours.
        schema: Where they are; None for wherever the path finds them.
        jit: Whether the server may go on compiling its plans, unless it is a pooler's.
        is_pooled: Whether it is known to be a pooler's; else that is seen by its number.
        limit: In seconds, if not the connection's own.
    """
    names, safe, others = [], [], []
    own = None if jit or is_pooled else driver.get_server_pid()
    rows = await driver.fetch(_SCHEMAS, list(tables), schema, own, timeout=limit)
    for _, name, is_needed, roles, *_ in rows:
        if name is None:  # there is no schema on the path
            continue
        names.append(name)
        if roles:
            others.append(OpenSchema(name, tuple(sorted(roles)), is_needed))
        else:
            safe.append(name)
    pid, _, _, _, isolation_level, *vector, _ = rows[0]
    return SearchPath(
        tuple(names),
        tuple(safe),
        tuple(others),
        is_pooled=is_pooled or pid != driver.get_server_pid(),
        isolation_level=isolation_level.upper(),
        vector=None if vector[1] is None else VectorType(*vector),
    )


async def pin(
    driver: Any,
    tables: Iterable[str],
    schema: str | None,
    *,
    is_pooled: bool = False,
    limit: float | None = None,
) -> SearchPath:
    """Leave the schemas out in which others may create, and return what the path was.

    Those that are needed come last: what is planted there comes after all of the same types.

    Raises:
        UnavailableError: It was connected to, and did not answer.
    """
    try:
        found = await read(driver, tables, schema, jit=False, is_pooled=is_pooled, limit=limit)
    except TimeoutError:
        driver.terminate()  # the pool does not have it yet
        if limit is None:
            raise
        raise UnavailableError(NO_FIRST_ANSWER.format(limit)) from None
    if found.open and not found.is_pooled:
        path = [*found.safe, *(one.name for one in found.open if one.is_needed)]
        await driver.execute(_PIN, ", ".join(map(qualified, path)))
    return found


_paths: WeakKeyDictionary[Any, SearchPath] = WeakKeyDictionary()


def pin_search_path(
    engine: AsyncEngine,
    tables: Iterable[str],
    schema: str | None,
    *,
    first: bool = False,
    is_pooled: bool = False,
    limit: float | None = None,
) -> None:
    """Have connections look names up only where nobody else may create, as far as that goes.

    Args:
        tables: The names of the package's.
        schema: Where they are; None for wherever the path finds them.
        first: Ask before all else that listens, SQLAlchemy too, which may then know it.
        is_pooled: Whether the connections are known to be a pooler's.
        limit: How long the answer may take, in seconds, if not as long as any.
    """
    own = engine.sync_engine

    @event.listens_for(own, "connect", insert=first)
    def _on_connect(connection: Any, record: ConnectionPoolEntry) -> None:
        found = connection.run_async(
            lambda driver: pin(driver, tables, schema, is_pooled=is_pooled, limit=limit)
        )
        _paths[own] = record.info[JUST_ASKED] = found


def open_schemas(tables: str, schema: str) -> str:
    """A query of the names of the schemas on a connection's path in which others may create.

    Args:
        tables: The name of the parameter with the names of the package's.
        schema: That with where they are; NULL for wherever the path finds them.
    """
    found = _SCHEMAS.replace("$1", f"(:{tables})").replace("$2", f"(:{schema})")
    found = found.replace("$3", "NULL")
    names = f"SELECT name::text AS name FROM ({found}) path (pid, name, is_needed, roles)"  # noqa: S608 - ours
    return f"{names} WHERE pg_catalog.cardinality(roles) > 0"


def path_of(engine: Engine) -> SearchPath:
    """What the last connection of an engine of ours had on its path; nothing of a host's."""
    return _paths.get(engine, SearchPath())
