"""The commands: each reads its options, calls the package and prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qortex_db import __version__
from qortex_db.cli import archive, encryption, importing, words
from qortex_db.cli import distribute as distributing
from qortex_db.cli import plan as planning
from qortex_db.cli import roles as granting
from qortex_db.cli.arms import arms
from qortex_db.cli.collections import collections
from qortex_db.cli.edges import edges
from qortex_db.cli.factors import factors
from qortex_db.cli.model import model
from qortex_db.cli.shell import (
    AsJson,
    Embedded,
    Models,
    Schema,
    err,
    fail,
    group,
    opened,
    out,
    print_json,
    read_settings,
    run,
)

if TYPE_CHECKING:
    from qortex_db import Settings

KEPT_DAYS: Final = 30.0  # that of `prune`; a test holds it to that

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables
    add_completion=False,
)
index = group("The vector indexes.")
app.add_typer(arms, name="arms")
app.add_typer(factors, name="factors")
app.add_typer(edges, name="edges")
app.add_typer(index, name="index")
app.add_typer(collections, name="collections")
app.add_typer(model, name="model")
app.command()(granting.roles)
app.command()(distributing.distribute)
app.command()(encryption.rotate_keys)
app.command()(planning.plan)
app.command()(words.count_words)
app.command("import")(importing.import_)
app.command()(archive.export)
app.command()(archive.restore)

Revision = Annotated[str, typer.Argument(help="As Alembic's: a name, head, base, +1, -1.")]


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's form
    if wanted:
        out().print(f"qortex-db {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The PostgreSQL memory of an AI system.

    The server comes from PGVECTOR_DSN, PGVECTOR_HOST and its kin, or DATABASE_URL.
    """


@app.command()
def upgrade(
    revision: Revision = "head",
    *,
    embedded: Embedded = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL; touch nothing.")] = False,
    create_extension: Annotated[
        bool, typer.Option(help="Leave CREATE EXTENSION to an administrator with --no-...")
    ] = True,
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
        typer.echo(_sql(settings, revision, create_extension, extension_schema))
        return
    state = run(
        migrations.upgrade(
            settings,
            revision,
            embedded=embedded,
            create_extension=create_extension,
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


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is no option
def downgrade(revision: Revision, *, embedded: Embedded = False, schema: Schema = None) -> None:
    """Take the schema back to a revision; "base" removes the tables and what is in them."""
    from qortex_db import migrations
    from qortex_db.cli import render

    state = run(migrations.downgrade(read_settings(schema), revision, embedded=embedded))
    out().print(render.schema_line(state), soft_wrap=True)


@app.command()
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
    """Exit with 0 if the schema is current, else with 1: for a readiness probe.

    With models of your own, their tables have to be there too; ours need not.
    """
    from qortex_db.cli import checking, host_models, render

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


@app.command()
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
    from qortex_db.cli import adopt as adoption

    done = run(adoption.adopt(out(), err(), read_settings(), dry_run=dry_run, embedded=embedded))
    if done.failure is not None:
        fail(f"{done.failure} {done.pending_index} is pending: `qortex-db adopt` builds it.")


@app.command()
def status(
    *,
    exact: Annotated[
        bool, typer.Option("--exact", help="Count tables of more than a million rows too.")
    ] = False,
    as_json: AsJson = False,
    embedded: Embedded = False,
    metadata: Models = None,
) -> None:
    """Versions, schema, rows and bytes, invalid indexes and the pool."""
    from qortex_db.cli import checking, host_models, render

    settings = read_settings()
    models = host_models.load(metadata, settings)
    report = run(checking.status(settings, models, embedded=embedded, exact=exact))
    if as_json:
        print_json(report)
    else:
        out().print(render.status(report))


@index.command()
def rebuild(
    *,
    table: Annotated[str, typer.Option(help="The table, without its schema.")] = "qortex_vectors",
    load: Annotated[
        str | None,
        typer.Option(help="A command to run while there is no index; no shell reads it."),
    ] = None,
    maintenance_work_mem: Annotated[
        str | None, typer.Option(help="Memory for the build, as 2GB. Default: by size, up to 1 GB.")
    ] = None,
    parallel_workers: Annotated[
        int | None,
        typer.Option(help="Processes beside the one that builds. Default: the server's."),
    ] = None,
    embedded: Embedded = False,
) -> None:
    """Build the vector indexes anew, while the table is in use; or drop, load and build them.

    Run it as the table's owner. Whatever it is interrupted by, running it again restores them.
    """
    from qortex_db.cli import index as indexes
    from qortex_db.cli import render

    rebuilt = run(
        indexes.rebuild(
            err(),
            read_settings(),
            table=table,
            load=load,
            maintenance_work_mem=maintenance_work_mem,
            parallel_workers=parallel_workers,
            embedded=embedded,
        )
    )
    for one in rebuilt:
        out().print(render.rebuilt(one), soft_wrap=True, highlight=False)


@app.command()
def fill_words(
    *,
    batch_size: Annotated[int, typer.Option(help="Rows of a transaction.")] = 1_000,
    embedded: Embedded = False,
) -> None:
    """Store the words of documents that lack them: of old rows, and of what others wrote.

    The table stays in use. Whatever it is interrupted by, running it again goes on.
    """

    async def fill() -> int:
        async with opened(embedded=embedded) as db:
            total = await db.vectors.count()
            with err().status("") as line:
                return await db.vectors.fill_words(
                    batch_size=batch_size,
                    on_progress=lambda done: line.update(f"{done:,} of {total:,} rows"),
                )

    out().print(f"{run(fill()):,} rows have their words now.", highlight=False)


@app.command()
def prune_keys(
    *,
    older_than_days: Annotated[
        float, typer.Option(help="A call repeated later than that counts again.")
    ] = KEPT_DAYS,
    embedded: Embedded = False,
) -> None:
    """Forget old idempotency keys."""

    async def prune() -> int:
        async with opened(embedded=embedded) as db:
            return await db.idempotency.prune(older_than=older_than_days * 86_400)

    out().print(f"{run(prune()):,} keys are forgotten.", highlight=False)


@app.command()
def report(
    *,
    learner: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be given more than once.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help='Where to; "-" prints it.')] = Path(
        "report.html"
    ),
    embedded: Embedded = False,
    metadata: Models = None,
) -> None:
    """Write a page to look at: best arms, pulls over time, factors and edges.

    It is one HTML file, without scripts or anything from elsewhere.
    """
    from qortex_db.cli import host_models
    from qortex_db.cli import report as reports

    settings = read_settings()
    models = host_models.load(metadata, settings)
    page = run(reports.page(settings, models, learner or None, embedded=embedded))
    if str(output) == "-":
        typer.echo(page, nl=False)
        return
    try:
        output.write_text(page, "utf-8")
    except OSError as error:
        fail(f"{output} can't be written: {error.strerror}.")
    out().print(f"The report is in {output}.", markup=False, highlight=False, soft_wrap=True)


@app.command()
def demo(
    path: Annotated[Path, typer.Option(help="Where its server keeps its data.")] = Path(".qortex"),
) -> None:
    """Real passages searched by meaning, feedback learned from, and the state kept.

    It runs on an embedded server of its own, whatever the environment names.
    """
    from qortex_db.cli import demo as demonstration

    run(demonstration.run(out(), path))
