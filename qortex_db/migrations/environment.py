"""What `alembic/env.py` runs, online and offline, from Alembic's command line or from ours."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pgvector.sqlalchemy
from alembic import context
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from qortex_db.errors import InvalidInputError, LockTimeoutError, QortexDbError, SchemaVersionError
from qortex_db.migrations import on_citus
from qortex_db.migrations.busy_tables import WAIT_MS, migrate_patiently
from qortex_db.migrations.connection import (
    isolated,
    migration_engine,
    migration_lock,
    refuse_open_schemas,
)
from qortex_db.migrations.dimensions import check_dimensions, check_indexable
from qortex_db.migrations.drift import drift_of
from qortex_db.migrations.history import current_revision
from qortex_db.migrations.revision_ids import number_new_revisions
from qortex_db.models import Base
from qortex_db.observability import log
from qortex_db.settings import Settings, read_settings
from qortex_db.translation import sqlstate_of, translate
from qortex_db.types import Embedding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.operations.ops import MigrationScript
    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from sqlalchemy import Connection, TextClause

_FOLLOWING = {"upgrade", "downgrade"}
_DUPLICATE_TABLE = "42P07"
_RELATIVE = re.compile(r"^([^@]+@)?[+-]\d+$")  # to where the schema stands


def run() -> None:
    """Run the migrations that the command asked for."""
    attributes = context.config.attributes
    settings: Settings = attributes.get("settings") or _settings()
    options = {"dimensions": settings.dimensions, "schema": settings.db_schema}
    attributes["qortex_db"] = options | attributes.get("qortex_db", {})
    if (connection := attributes.get("connection")) is not None:
        _run_online(connection, settings)
        return
    if _asks_no_server():
        _configure(settings, dialect_name="postgresql", as_sql=True)
        context.run_migrations()
        return
    try:
        if context.is_offline_mode():
            _run_offline(settings)
        else:
            asyncio.run(_connect_and_run(settings))
    except (QortexDbError, ValueError) as error:
        if context.config.cmd_opts is None:
            raise  # to a program
        raise CommandError(str(error)) from None  # Alembic prints its own without a traceback


def _settings() -> Settings:
    """The environment's settings; what `-x` says goes before it, for the version table too."""
    said = context.get_x_argument(as_dictionary=True)
    names = {"schema": "db_schema", "dimensions": "dimensions"}
    given: dict[str, Any] = {names[name]: said[name] for name in names if said.get(name)}
    try:
        return read_settings(**given)
    except InvalidInputError as error:
        raise CommandError(str(error)) from None


def _command() -> str:
    """The name of Alembic's command, "" where it was called by a program."""
    command = getattr(context.config.cmd_opts, "cmd", None)
    return command[0].__name__ if command else ""


def _revision_arguments() -> Mapping[str, Any]:
    """What `revision` was given, on the command line or by a program; nothing otherwise."""
    # The facade shows what is configured only.
    options: Any = context._proxy.context_opts  # type: ignore[attr-defined] # noqa: SLF001
    revision = options.get("revision_context")
    return {} if revision is None else revision.command_args


def _asks_no_server() -> bool:
    """Whether the command is about the revisions alone.

    Alembic runs env.py for these too, since it is to number what `revision` writes.
    """
    if arguments := _revision_arguments():
        return not arguments["autogenerate"]
    options: Any = context.config.cmd_opts
    if _command() == "history":
        ends = (options.rev_range or "").split(":")
        return not (options.indicate_current or "current" in ends)
    return _command() == "merge"


def _is_writing() -> bool:
    """Whether the command writes; of one called by a program, only its arguments are known."""
    try:
        context.get_revision_argument()  # upgrade, downgrade and stamp have one
    except KeyError:
        return _command() == "ensure_version"
    return True


async def _connect_and_run(settings: Settings) -> None:
    embedded = "embedded" in context.get_x_argument(as_dictionary=True)
    async with migration_engine(settings, embedded=embedded) as engine:
        if _is_writing():
            seconds = settings.migration_timeout_seconds
            async with (
                migration_lock(engine, timeout_seconds=seconds),
                engine.connect() as connection,
            ):
                await connection.run_sync(_run_online, settings)
        else:
            async with engine.connect() as connection:
                await connection.run_sync(_run_online, settings)


def _run_online(connection: Connection, settings: Settings) -> None:
    writing = _is_writing()
    compares = bool(_revision_arguments())
    if compares:  # what reflects needs the schema of the tables on the path
        refuse_open_schemas(connection.engine)
    else:
        settings, extension = isolated(connection, settings)
    if writing:
        options = context.config.attributes["qortex_db"]
        options["schema"] = settings.db_schema
        if not context.get_x_argument(as_dictionary=True).get("extension_schema"):
            options.setdefault("extension_schema", extension)
        check_dimensions(connection, settings)
    if _command() in _FOLLOWING or (writing and not _command()):
        current_revision(connection, settings, context.script)  # raises if it is not ours
    schema = settings.db_schema
    if schema is not None and writing:
        # Before the version table, which Alembic creates in it.
        connection.execute(text(_create_schema(schema)))
    elif schema is not None and compares:
        # The models name no schema: compare them with what the search path finds first.
        search_path = text(
            "SELECT set_config('search_path', quote_ident(:schema) || ', ' "
            "|| current_setting('search_path'), false)"
        )
        connection.execute(search_path, {"schema": schema})
        connection.dialect.default_schema_name = schema
    connection.commit()  # Alembic would apply nothing inside a transaction of ours
    if writing:
        _write(connection, settings)
    else:
        _read(connection, settings)


def _read(connection: Connection, settings: Settings) -> None:
    _configure(settings, connection=connection)
    with context.begin_transaction():
        context.run_migrations()
    if _command() == "check" and (found := drift_of(connection, settings)):
        raise CommandError(
            "\n".join(["The database is not what the models say:", *map(str, found)])
        )


def _write(connection: Connection, settings: Settings) -> None:
    on_citus.adapt(connection)
    connection.commit()
    first = None

    def attempt() -> None:
        nonlocal first
        _configure(settings, connection=connection)
        heads = context.get_context().get_current_heads()
        first = heads if first is None else first
        destination = context.get_context().opts.get("destination_rev")
        if heads != first and _RELATIVE.search(str(destination)):
            raise LockTimeoutError(
                f"A part of {destination} is done, then a table was too busy. See where the schema "
                "stands, and go on to a revision by its name."
            )
        # Before the baseline nothing of ours is in use, and an extension may take its time.
        connection.execute(_limit(WAIT_MS if heads else 0))
        connection.commit()
        try:
            with context.begin_transaction():
                context.run_migrations()
        except DBAPIError as error:
            if heads or sqlstate_of(error) != _DUPLICATE_TABLE:
                raise
            raise SchemaVersionError(
                f"{translate(error)} If qortex made it, `qortex-db adopt` brings its tables under "
                "Alembic, with all that is in them.",
                sqlstate=_DUPLICATE_TABLE,
            ) from None

    began = time.monotonic()
    migrate_patiently(connection, settings, attempt)
    heads = context.get_context().get_current_heads()
    if heads != first:
        before, now = (", ".join(each or ()) or "base" for each in (first, heads))
        seconds = round(time.monotonic() - began, 3)
        log.info("migrated", before=before, now=now, seconds=seconds)


def _run_offline(settings: Settings) -> None:
    check_indexable(settings.dimensions)
    _configure(settings, dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.execute(_limit(WAIT_MS if context.get_starting_revision_argument() else 0))
        if settings.db_schema is not None:
            context.execute(_create_schema(settings.db_schema))
        context.run_migrations()


def _limit(milliseconds: int) -> TextClause:
    return text(f"SET statement_timeout = {milliseconds}")


def _create_schema(schema: str) -> str:
    # IF NOT EXISTS alone wants the right to create schemas even where this one is there.
    return (
        f"DO 'BEGIN IF to_regnamespace(''\"{schema}\"'') IS NULL THEN "
        f'CREATE SCHEMA IF NOT EXISTS "{schema}"; END IF; END\''
    )


def _configure(settings: Settings, **where: Any) -> None:
    context.config.attributes["qortex_db"]["lock_timeout"] = f"{WAIT_MS}ms"
    context.configure(
        **where,
        target_metadata=Base.metadata,
        version_table=settings.version_table,
        version_table_schema=settings.db_schema,
        transaction_per_migration=True,
        on_version_apply=_after_a_revision,
        process_revision_directives=_process_revision_directives,
        include_name=_include_name,
        compare_type=_compare_type,
        compare_server_default=True,
    )


def _process_revision_directives(
    _context: object, _revision: object, directives: list[MigrationScript]
) -> None:
    if _revision_arguments()["rev_id"] is None:  # its author gave none
        number_new_revisions(context.script, directives)


def _after_a_revision(ctx: MigrationContext, step: MigrationInfo, *_: object, **__: object) -> None:
    ctx.execute(_limit(WAIT_MS))  # for the next one; a build of an index turns it off
    if not ctx.as_sql:
        way = "upgrade" if step.is_upgrade else "downgrade"
        revision = ", ".join(step.destination_revision_ids) or "base"
        log.info("revision_applied", way=way, revision=revision)


def _include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave alone the tables of others in the same schema."""
    return kind != "table" or name in Base.metadata.tables


def _compare_type(
    _context: object, _inspected: object, _metadata: object, inspected: object, declared: object
) -> bool | None:
    """The model's embedding declares no dimension: the database's own counts."""
    if isinstance(declared, Embedding) and declared.dimensions is None:
        return not isinstance(inspected, pgvector.sqlalchemy.Vector)
    return None
