"""The command about what roles may do."""

from __future__ import annotations

from typing import Annotated

import typer

from qortex_db.cli.shell import Embedded, Schema, fail, read_settings, run, say, takes_embedded


def roles(
    *,
    owner: Annotated[str | None, typer.Option(help="Who owns the tables, and migrates.")] = None,
    writer: Annotated[str | None, typer.Option(help="Who calls the methods that write.")] = None,
    reader: Annotated[str | None, typer.Option(help="Who calls those that read.")] = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL; touch nothing.")] = False,
    schema: Schema = None,
    extension_schema: Annotated[
        str | None, typer.Option(help="With --sql: pgvector's, if not public.")
    ] = None,
    embedded: Embedded = False,
) -> None:
    """Give roles what they need of the tables, and nothing besides."""
    from qortex_db import QortexDbError, migrations

    settings = read_settings(schema=schema)
    named = {"owner": owner, "writer": writer, "reader": reader}
    if sql:
        try:
            said = migrations.roles_sql(settings, extension_schema=extension_schema, **named)
        except QortexDbError as error:
            fail(str(error))
        typer.echo(said, nl=False)
        return
    there = takes_embedded(settings, asked=embedded)
    for statement in run(migrations.grant_roles(settings, embedded=there, **named)):
        say(statement)
