"""Upgrade, downgrade and check, callable from a running event loop."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text

from qortex_db.engine import CLOSED
from qortex_db.errors import (
    InvalidInputError,
    PermissionDeniedError,
    QortexDbError,
    SchemaVersionError,
)
from qortex_db.migrations.catalogue import find
from qortex_db.migrations.connection import isolated, migration_engine, migration_lock
from qortex_db.migrations.dimensions import held_dimensions
from qortex_db.migrations.history import current_revision, is_shared
from qortex_db.models import (
    InteroceptionEdge,
    InteroceptionFactor,
    LearningArmState,
    QortexVector,
)
from qortex_db.names import qualified
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

_FIRST: Final = "versions/0001_baseline.py"
_CLOSED: Final = text(f"""
SELECT closed.name, current_user::text FROM ({CLOSED}) closed WHERE EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname::text = closed.name AND c.relname::text = ANY (CAST(:tables AS text[])))
""")  # noqa: S608 - ours

_QORTEXS: Final = [
    model.__tablename__
    for model in (QortexVector, InteroceptionFactor, InteroceptionEdge, LearningArmState)
]


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Where a database stands.

    Attributes:
        current: Its revision, None before the first upgrade.
        head: The revision that this version of the package needs.
        dimensions: What its embedding column holds.
        is_filled: Whether tables of qortex's are there that no revision made: `adopt` takes them.
    """

    current: str | None
    head: str
    dimensions: int | None
    is_filled: bool = False

    @property
    def is_current(self) -> bool:
        """Whether the package can work on it."""
        return self.current == self.head


def locate() -> Path:
    """The folder of revisions: inside an installed package, beside it in a checkout.

    Raises:
        SchemaVersionError: It is not there, as in an application that was frozen without it.
    """
    package = Path(__file__).resolve().parents[1]
    inside = package / "_alembic"
    # In site-packages, the folder beside it is Alembic itself.
    for folder in (inside, package.parent / "alembic"):
        if (folder / _FIRST).is_file():
            return folder
    raise SchemaVersionError(
        f"The revisions are missing: {inside} is not there. A frozen application has to collect "
        "them and what they import (PyInstaller: --collect-all qortex_db "
        "--hidden-import logging.config); a zipped one has to be unpacked, as shiv does by itself."
    )


def _config(settings: Settings, options: dict[str, Any] | None = None, **buffers: Any) -> Config:
    config = Config(**buffers)
    config.set_main_option("script_location", str(locate()).replace("%", "%%"))
    config.attributes["settings"] = settings
    config.attributes["qortex_db"] = {
        key: value for key, value in (options or {}).items() if value is not None
    }
    return config


def head_revision() -> str:
    """The newest revision.

    Raises:
        SchemaVersionError: The package was installed without its revisions.
    """
    head = ScriptDirectory.from_config(_config(Settings.model_construct())).get_current_head()
    if head is None:
        raise SchemaVersionError(f"There are no revisions in {locate()}; install the package anew.")
    return head


async def upgrade(
    settings: Settings | None = None,
    revision: str = "head",
    *,
    embedded: bool = False,
    create_extension: bool | None = None,
    extension_schema: str | None = None,
) -> SchemaState:
    """Bring a database to a revision. Any number of processes may call it at once.

    Args:
        settings: Which server, schema and dimension; by default the environment's.
        revision: As Alembic's.
        embedded: Use the embedded server, which is never started unasked.
        create_extension: False leaves `CREATE EXTENSION vector` to an administrator.
        extension_schema: Where the extension goes, or is.

    Raises:
        InvalidInputError: The dimensions are more than an index holds, or rows of qortex's are
            refused.
        DimensionMismatchError: The settings name another dimension than the column holds.
        UnavailableError: No server is given, or it can't be reached.
        SchemaVersionError: A newer package migrated the database, or there is no such revision.
        LockTimeoutError: Another process has been migrating for too long, or a table was busy.
    """
    options = {"create_extension": create_extension, "extension_schema": extension_schema}
    return await _migrate(command.upgrade, settings, revision, embedded=embedded, options=options)


async def downgrade(
    settings: Settings | None = None, revision: str = "-1", *, embedded: bool = False
) -> SchemaState:
    """Take a database back to a revision; "base" removes the tables with all that is in them.

    Raises:
        SchemaVersionError: The revision is none that can be gone to, or a newer package's.
    """
    return await _migrate(command.downgrade, settings, revision, embedded=embedded, options={})


async def check(settings: Settings | None = None, *, embedded: bool = False) -> SchemaState:
    """Where a database stands; it changes nothing.

    Raises:
        InvalidInputError: `password_provider` gave no text.
        UnavailableError: No server is given, or it can't be reached.
        SchemaVersionError: A newer package migrated the database.
        PermissionDeniedError: The tables are in a schema that the role may not use.
    """
    settings = settings or Settings()

    def look(connection: Connection) -> SchemaState:
        state = schema_state(connection, isolated(connection, settings)[0])
        if state.current is None and not state.is_filled and settings.db_schema is None:
            _refuse_closed(connection, settings)
        return state

    async with (
        migration_engine(settings, embedded=embedded) as engine,
        engine.connect() as connection,
    ):
        return await connection.run_sync(look)


def _refuse_closed(connection: Connection, settings: Settings) -> None:
    """Tell tables that the role can't find from those that are not there."""
    tables = [settings.version_table, *_QORTEXS]
    closed = connection.execute(_CLOSED, {"tables": tables}).all()
    if closed:
        names = ", ".join(schema for schema, _ in closed)
        places = ", ".join(qualified(schema) for schema, _ in closed)
        role = closed[0][1]
        raise PermissionDeniedError(
            f"The role {role} lacks USAGE on the schema {names}, where the tables are. As its "
            f"owner: GRANT USAGE ON SCHEMA {places} TO {qualified(role)}."
        )


def upgrade_sql(
    settings: Settings | None = None,
    revision: str = "head",
    *,
    create_extension: bool | None = None,
    extension_schema: str | None = None,
) -> str:
    """The SQL of an upgrade from nothing, for an administrator to read and run.

    Args:
        settings: Which schema and dimension; by default the environment's.
        revision: As Alembic's; "qortex_db_0002:head" goes on from there.
        create_extension: As of :func:`upgrade`.
        extension_schema: As of :func:`upgrade`.

    Raises:
        InvalidInputError: An option can't be honoured.
        SchemaVersionError: There is no such revision.
    """
    buffer = io.StringIO()
    options = {"create_extension": create_extension, "extension_schema": extension_schema}
    settings = settings or Settings()
    config = _config(settings, options, output_buffer=buffer)
    with _refusals(revision, settings):
        command.upgrade(config, revision, sql=True)
    return buffer.getvalue()


@contextmanager
def _refusals(revision: str, settings: Settings) -> Iterator[None]:
    """Errors of ours for what Alembic and the revisions refuse."""
    try:
        yield
    except QortexDbError:
        raise
    except CommandError as error:
        hint = (
            f" {settings.version_table} has a host's revisions too: its own Alembic upgrades both."
            if is_shared(settings)
            else ""
        )
        raise SchemaVersionError(f"The schema can't go to {revision}: {error}.{hint}") from None
    except ValueError as error:  # a revision knows no error of ours
        raise InvalidInputError(f"{error}.") from None


async def _migrate(
    migrate: Callable[[Config, str], None],
    settings: Settings | None,
    revision: str,
    *,
    embedded: bool,
    options: dict[str, Any],
) -> SchemaState:
    settings = settings or Settings()
    async with (
        migration_engine(settings, embedded=embedded) as engine,
        migration_lock(engine, timeout_seconds=settings.migration_timeout_seconds),
        engine.connect() as connection,
    ):
        return await connection.run_sync(migrate_on, settings, migrate, revision, options)


def migrate_on(
    connection: Connection,
    settings: Settings,
    migrate: Callable[[Config, str], None],
    revision: str,
    options: dict[str, Any],
) -> SchemaState:
    """Run a command of Alembic's on a fresh connection, under the migration lock."""
    settings, extension = isolated(connection, settings)
    if options.get("extension_schema") is None:
        options = {**options, "extension_schema": extension}
    config = _config(settings, options)
    config.attributes["connection"] = connection
    with _refusals(revision, settings):
        migrate(config, revision)
    return schema_state(connection, settings)


def schema_state(connection: Connection, settings: Settings) -> SchemaState:
    """Where a database stands, by a connection to it."""
    scripts = ScriptDirectory.from_config(_config(settings))
    current = current_revision(connection, settings, scripts)
    dimensions = held_dimensions(connection, settings.db_schema)
    filled = current is None and any(
        oid is not None for oid in find(connection, settings.db_schema, _QORTEXS)
    )
    return SchemaState(current, scripts.get_current_head() or "", dimensions, filled)
