"""The commands that change the model of a table's embeddings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from qortex_db.cli.shell import (
    AsJson,
    Embedded,
    Head,
    Schema,
    err,
    fail,
    group,
    out,
    print_json,
    read_settings,
    run,
    say,
    takes_embedded,
)
from qortex_db.cli.vectors.chosen import Namespace, choose, vectors_of

model = group("Change the model of a table's embeddings, while it is in use.")

_NEEDS: Final = "qortex_db_0015"
Name = Annotated[str, typer.Argument(help="What the embeddings are called.")]
Table = Annotated[str, typer.Option(help="The table.")]
Of = Annotated[
    str | None,
    typer.Option("--of", help="A collection, as package.module:Model; by default qortex_vectors."),
]
Config = Annotated[
    Path | None,
    typer.Option("--revision", help="Your alembic.ini: write a revision of yours, touch nothing."),
]


@model.command()
def add(
    name: Name,
    *,
    dimensions: Annotated[int, typer.Option(help="Of the new embeddings.")],
    table: Table = "qortex_vectors",
    column: Annotated[str, typer.Option(help="Of the embeddings there are.")] = "vec",
    old_name: Annotated[str, typer.Option(help="What those are called meanwhile.")] = "old",
    metric: Annotated[str, typer.Option(help="cosine, l2, inner_product or l1.")] = "cosine",
    storage: Annotated[str, typer.Option(help="full or half.")] = "full",
    quantization: Annotated[
        str | None, typer.Option(help="Of the index: half (from 2,001 dimensions on) or binary.")
    ] = None,
    document: Annotated[str, typer.Option(help="The column of the text.")] = "document",
    revision: Config = None,
    head: Head = None,
    schema: Schema = None,
    embedded: Embedded = False,
) -> None:
    """Begin: give a table a column for the new embeddings, with its index."""
    from qortex_db import migrations

    given: dict[str, Any] = {
        "column": column,
        "old_name": old_name,
        "metric": metric,
        "storage": storage,
        "quantization": quantization,
        "document": document,
    }
    if revision is not None:
        defaults = {"column": "vec", "old_name": "old", "document": "document"}
        defaults |= {"metric": "cosine", "storage": "full"}
        said = [f"{key}={value!r}" for key, value in given.items() if value != defaults.get(key)]
        arguments = ", ".join([repr(table), repr(name), str(dimensions), *said])
        _write(
            revision,
            head,
            f"add {name} to {table}",
            f"op.add_embedding_column({arguments})",
            f"op.drop_embedding_column({table!r}, {name!r})",
        )
        return
    settings = read_settings(schema)
    run(
        migrations.add_embedding_column(
            name,
            dimensions,
            settings,
            table=table,
            embedded=takes_embedded(settings, asked=embedded),
            **given,
        )
    )
    say(f"{table} has a column {name} for the new embeddings. Fill it, then switch to it.")


@model.command()
def status(
    *,
    of: Of = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
    embedded: Embedded = False,
) -> None:
    """How far it is: which embeddings searches use, and how many rows lack the others."""
    from qortex_db.cli import render

    chosen = choose(of, namespace=namespace)

    async def read() -> Any:
        async with vectors_of(chosen, embedded=embedded) as vectors:
            return await vectors.changeover()

    found = run(read())
    if as_json:
        print_json(None if found is None else asdict(found))
    elif found is None:
        say("It has the embeddings of one model alone.")
    else:
        shown = render.table("", "")
        for key, value in asdict(found).items():
            shown.add_row(key.replace("_", " "), render.escape(str(value or 0)))
        out().print(shown)


@model.command()
def reembed(
    name: Name,
    *,
    embedder: Annotated[str, typer.Option(help="The model's, as package.module:embedder.")],
    of: Of = None,
    namespace: Namespace = None,
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="Rows at a time.")] = 200,
    embedded: Embedded = False,
) -> None:
    """Embed the documents of the rows that lack these; stopped and run again, it goes on."""
    from qortex_db.cli.host_models import load_model

    made = load_model(embedder, option="--embedder")
    chosen = choose(of, namespace=namespace)

    def show(rows: int) -> None:
        if err().is_terminal:
            err().print(f"{rows:,} rows filled", highlight=False)

    async def fill() -> int:
        async with vectors_of(chosen, embedded=embedded) as vectors:
            count: int = await vectors.reembed(
                made, into=name, batch_size=batch_size, on_progress=show
            )
        return count

    say(f"{run(fill()):,} rows were filled.")


@model.command()
def switch(
    name: Name, *, of: Of = None, namespace: Namespace = None, embedded: Embedded = False
) -> None:
    """Have every process search by these from now on; and back, by the other name."""
    chosen = choose(of, namespace=namespace)

    async def change() -> None:
        async with vectors_of(chosen, embedded=embedded) as vectors:
            await vectors.switch_to(name)

    run(change())
    say(f"Searches use {name}.")


@model.command()
def drop(
    name: Name,
    *,
    table: Table = "qortex_vectors",
    revision: Config = None,
    head: Head = None,
    schema: Schema = None,
    embedded: Embedded = False,
) -> None:
    """End: drop the embeddings that searches do not use."""
    from qortex_db import migrations

    if revision is not None:
        _write(
            revision,
            head,
            f"drop {name} of {table}",
            f"op.drop_embedding_column({table!r}, {name!r})",
            "raise NotImplementedError('these embeddings are gone')",
        )
        return
    settings = read_settings(schema)
    there = takes_embedded(settings, asked=embedded)
    run(migrations.drop_embedding_column(name, settings, table=table, embedded=there))
    say(f"{name} is dropped: {table} has the embeddings of one model.")


def _write(ini: Path, head: str | None, message: str, upgrade: str, downgrade: str) -> None:
    from qortex_db import QortexDbError
    from qortex_db.migrations.new_collection import write_code

    try:
        written = write_code(ini, message, upgrade, downgrade, head=head, needs=_NEEDS)
    except QortexDbError as error:
        fail(str(error))
    say(f"Wrote {written}")
