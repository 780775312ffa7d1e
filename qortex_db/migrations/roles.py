"""What roles may do: owners, writers and readers of the tables, and tenants of their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from qortex_db.checks import check_text
from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.migrations.connection import isolated, migration_engine
from qortex_db.models import Base
from qortex_db.names import MAX_NAME_BYTES, qualified
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

DEFAULT_SCHEMA: Final = "public"
_MISSING: Final = text("""
SELECT name FROM pg_catalog.unnest(CAST(:names AS text[])) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname::text = name)
""")


def grants(
    tables: Iterable[str],
    *,
    schemas: Sequence[str],
    version_table: str | None = None,
    owner: str | None = None,
    writer: str | None = None,
    reader: str | None = None,
) -> list[str]:
    """The statements that give roles what they need, and nothing besides.

    A reader reads; a writer runs every method; an owner migrates, too. Both of the former read the
    version table, as `check` does.

    Args:
        tables: Their names, in the first of the schemas.
        schemas: Of the tables, then others that are needed, such as pgvector's.
        version_table: Alembic's, if it is there.
        owner: Who shall own the tables.
        writer: Who calls the methods that write.
        reader: Who calls those that read.

    Raises:
        InvalidInputError: A name is none, or no role is given.
    """
    if owner is None and writer is None and reader is None:
        raise InvalidInputError("No role is given: name an owner, a writer or a reader.")
    named = [qualified(schemas[0], name) for name in tables]
    version = [] if version_table is None else [qualified(schemas[0], version_table)]
    usage = ", ".join(qualified(schema) for schema in dict.fromkeys(schemas))
    made = []
    if owner is not None:
        role = _role(owner, "owner")
        made += [f"ALTER TABLE {table} OWNER TO {role}" for table in (*named, *version)]
        made.append(f"GRANT USAGE ON SCHEMA {usage} TO {role}")
        made.append(f"GRANT CREATE ON SCHEMA {qualified(schemas[0])} TO {role}")
    for name, kind, rights in (
        (writer, "writer", "SELECT, INSERT, UPDATE, DELETE"),
        (reader, "reader", "SELECT"),
    ):
        if name is None:
            continue
        role = _role(name, kind)
        made.append(f"GRANT USAGE ON SCHEMA {usage} TO {role}")
        made.append(f"GRANT {rights} ON TABLE {', '.join(named)} TO {role}")
        made += [f"GRANT SELECT ON TABLE {table} TO {role}" for table in version]
    return made


def _role(name: str, kind: str) -> str:
    check_text(name, name=kind)
    if not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
        raise InvalidInputError(f"{kind} is no name of a role: 1 to {MAX_NAME_BYTES} bytes.")
    return qualified(name)


def roles_sql(
    settings: Settings | None = None,
    *,
    owner: str | None = None,
    writer: str | None = None,
    reader: str | None = None,
    extension_schema: str | None = None,
) -> str:
    """The SQL of `grant_roles`, for an administrator to read and run.

    Args:
        settings: Which schema and version table, by default the environment's; without a schema,
            public.
        owner: As of :func:`grant_roles`.
        writer: As of :func:`grant_roles`.
        reader: As of :func:`grant_roles`.
        extension_schema: Of pgvector, if not public.

    Raises:
        InvalidInputError: No role is named, or a name is none of a role's.
    """
    settings = settings or Settings()
    schemas = [settings.db_schema or DEFAULT_SCHEMA]
    if extension_schema is not None:
        schemas.append(extension_schema)
    statements = grants(
        Base.metadata.tables,
        schemas=schemas,
        version_table=settings.version_table,
        owner=owner,
        writer=writer,
        reader=reader,
    )
    return "".join(f"{statement};\n" for statement in statements)


async def grant_roles(
    settings: Settings | None = None,
    *,
    owner: str | None = None,
    writer: str | None = None,
    reader: str | None = None,
    embedded: bool = False,
) -> list[str]:
    """Give roles that are there what they need; again after an upgrade, for tables that it made.

    Args:
        settings: Which server and schema; by default the environment's.
        owner: Gets the tables: migrates, and calls every method.
        writer: Calls every method.
        reader: Calls those that read, `status` and `check`.
        embedded: Use the embedded server, which is never started unasked.

    Returns:
        The statements that were run, as one transaction.

    Raises:
        InvalidInputError: No role is named.
        NotFoundError: There is no such role.
        UnavailableError: No server is given, or it can't be reached.
    """
    settings = settings or Settings()

    def give(connection: Connection) -> list[str]:
        own, extension = isolated(connection, settings)
        names = [name for name in (owner, writer, reader) if name is not None]
        missing = connection.execute(_MISSING, {"names": names}).scalars().all()
        if missing:
            there = ", ".join(map(qualified, missing))
            raise NotFoundError(f"There is no role {there}. CREATE ROLE {there} LOGIN first.")
        schemas = [own.db_schema or DEFAULT_SCHEMA, *([extension] if extension else [])]
        statements = grants(
            Base.metadata.tables,
            schemas=schemas,
            version_table=own.version_table,
            owner=owner,
            writer=writer,
            reader=reader,
        )
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
        return statements

    async with (
        migration_engine(settings, embedded=embedded) as engine,
        engine.connect() as connection,
    ):
        return await connection.run_sync(give)
