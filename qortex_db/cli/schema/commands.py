"""The commands about the schema: upgraded, downgraded, checked, adopted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qortex_db.cli.shell import (
    Embedded,
    Models,
    Schema,
    err,
    fail,
    out,
    read_settings,
    run,
    takes_embedded,
)

if TYPE_CHECKING:
    from qortex_db import Settings

Revision = Annotated[str, typer.Argument(help="As Alembic's: a name, head, base, +1, -1.")]


def upgrade(
    revision: Revision = "head",
    *,
    embedded: Embedded = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL; touch nothing.")] = False,
    no_create_extension: Annotated[
        bool,
        typer.Option("--no-create-extension", help="Leave that to an administrator."),
    ] = False,
    extension_schema: Annotated[
        str | None, typer.Option(help="The schema that pgvector goes into, or is in.")
    ] = None,
    schema: Schema = None,
) -> None:
    """Bring the schema to a revision; any number may run it at once."""
    from qortex_db import migrations
    from qortex_db.cli import render

    settings = read_settings(schema)
    if sql:
        typer.echo(_sql(settings, revision, not no_create_extension, extension_schema))
        return
    state = run(
        migrations.upgrade(
            settings,
            revision,
            embedded=takes_embedded(settings, asked=embedded),
            create_extension=not no_create_extension,
            extension_schema=extension_schema,
        )
    )
    out().print(render.schema_line(state), soft_wrap=True)


def _sql(
    settings: Settings,
    revision: str,
    create_extension: bool,  # noqa: FBT001 - handed on
    extension_schema: str | None,
) -> str:
    from qortex_db import QortexDbError, migrations

    try:
        return migrations.upgrade_sql(
            settings,
            revision,
            create_extension=create_extension,
            extension_schema=extension_schema,
        )
    except QortexDbError as error:
        fail(str(error))


def downgrade(revision: Revision, *, embedded: Embedded = False, schema: Schema = None) -> None:
    """Take the schema back to a revision; "base" removes the tables and what is in them."""
    from qortex_db import migrations
    from qortex_db.cli import render

    settings = read_settings(schema)
    there = takes_embedded(settings, asked=embedded)
    state = run(migrations.downgrade(settings, revision, embedded=there))
    out().print(render.schema_line(state), soft_wrap=True)


def check(
    *,
    drift: Annotated[
        bool,
        typer.Option("--drift", help="Compare tables, columns, indexes and all else with it too."),
    ] = False,
    embedded: Embedded = False,
    schema: Schema = None,
    metadata: Models = None,
) -> None:
    """Exit with 0 if the schema is current, else with 1: for scripts, not a readiness probe.

    With models of your own, their tables have to be there too; ours need not.
    """
    from qortex_db.cli import host_models, render
    from qortex_db.cli.schema import checking

    settings = read_settings(schema)
    models = host_models.load(metadata, settings)
    state = run(checking.state_of(settings, models, embedded=embedded))
    if not drift:
        out().print(checking.line(state, models), soft_wrap=True, highlight=False)
        return
    found = run(checking.drift(settings, state, models, embedded=embedded))
    for one in found:
        out().print(render.drift(one), soft_wrap=True, highlight=False)
    if found:
        fail(render.drifted(len(found)))
    out().print("The database is what the models say.")


def adopt(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; touch nothing.")
    ] = False,
    embedded: Embedded = False,
) -> None:
    """Bring a database that qortex 0.8 filled under Alembic, with nothing lost.

    Stop qortex first. Whatever it is interrupted by, running it again goes on.
    """
    from qortex_db.cli.schema import adopting

    settings = read_settings()
    there = takes_embedded(settings, asked=embedded)
    done = run(adopting.adopt(out(), err(), settings, dry_run=dry_run, embedded=there))
    if done.failure is not None:
        fail(f"{done.failure} {done.pending_index} is pending: `qortex-db adopt` builds it.")
