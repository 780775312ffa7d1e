"""The command about tables on several nodes."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from qortex_db.cli.shell import Embedded, Schema, fail, read_settings, run, say, takes_embedded


def distribute(
    *,
    by: Annotated[str, typer.Option(help="key, tenant or schema.")] = "key",
    shards: Annotated[int, typer.Option(help="Parts of each table.")] = 32,
    collection: Annotated[
        list[str] | None, typer.Option(help="A model of yours, as package.module:Model.")
    ] = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL; touch nothing.")] = False,
    schema: Schema = None,
    embedded: Embedded = False,
) -> None:
    """Have Citus spread the tables over its nodes; what it has spread already is left alone."""
    from qortex_db import QortexDbError, migrations
    from qortex_db.cli.host_models import load_model

    settings = read_settings(schema=schema)
    models = [load_model(name) for name in collection or []]
    kind = cast("migrations.By", by)
    if sql:
        try:
            said = migrations.distribution_sql(settings, by=kind, shards=shards, collections=models)
        except QortexDbError as error:
            fail(str(error))
        typer.echo(said, nl=False)
        return
    done = run(
        migrations.distribute(
            settings,
            by=kind,
            shards=shards,
            collections=models,
            embedded=takes_embedded(settings, asked=embedded),
        )
    )
    for statement in done or ["-- nothing to do"]:
        say(statement)
