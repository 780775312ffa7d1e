"""The commands about collections: what models declare, and a new one with its revision."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qortex_db.cli.shell import (
    AsJson,
    Embedded,
    Head,
    Ini,
    Models,
    fail,
    group,
    note,
    out,
    print_json,
    read_settings,
    run,
    say,
    takes_embedded,
)
from qortex_db.cli.vectors.chosen import choose, vectors_of

if TYPE_CHECKING:
    from sqlalchemy import Table

collections = group("The collections that models declare, and new ones.")


@collections.command("list")
def list_(*, models: Models = None, as_json: AsJson = False) -> None:
    """Each collection that is declared: its table, vectors, language and namespace."""
    from qortex_db.cli import render

    found = [_told(table) for table in _declared(models)]
    if as_json:
        print_json(found)
        return
    shown = render.table("table", "vectors", "language", "namespace")
    for one in found:
        vectors = "; ".join(f"{name}: {said}" for name, said in one["vectors"].items())
        shown.add_row(one["table"], vectors, one["language"] or "", one["namespace"] or "")
    out().print(shown)


@collections.command()
def describe(
    name: Annotated[str, typer.Argument(help="Its table's.")],
    *,
    models: Models = None,
    as_json: AsJson = False,
    embedded: Embedded = False,
) -> None:
    """A collection's columns and indexes, as its model declares them.

    Where a server is named, also how many dimensions its vectors have there, and how far a change
    of their model is.
    """
    from qortex_db.cli import render
    from qortex_db.messages import escaped

    table = next((each for each in _declared(models) if name in (each.name, each.fullname)), None)
    if table is None:
        fail(f"No collection {escaped(name)} is declared; `collections list` names those that are.")
    told = _told(table) | _parts(table)
    if takes_embedded(settings := read_settings(), asked=embedded) or settings.target() is not None:
        told |= run(_there(name, embedded=embedded))
    if as_json:
        print_json(told)
        return
    columns = render.table("column", "type", "null", title=render.escape(name))
    for column, (kind, null) in told["columns"].items():
        columns.add_row(render.escape(column), render.escape(kind), null)
    out().print(columns)
    for index, said in told["indexes"].items():
        say(f"{index}: {said}")
    if dimensions := told.get("dimensions"):
        say(f"In the database its vectors have {dimensions:,} dimensions.")
    if change := told.get("model_change"):
        say(
            f"It changes its model: searches use {change['current']}; {change['missing']:,} rows "
            f"lack {change['other']}, {change['without_document']:,} of them have no document."
        )


async def _there(name: str, *, embedded: bool) -> dict[str, Any]:
    """What the database says of a collection; nothing but a word where it can't be asked."""
    from qortex_db import QortexDbError

    try:
        async with vectors_of(choose(name=name), embedded=embedded) as vectors:
            change = await vectors.changeover()
            return {
                "dimensions": await vectors.dimensions(),
                "model_change": None if change is None else asdict(change),
            }
    except QortexDbError as error:
        note(f"The database was not asked: {error}")
        return {}


@collections.command()
def new(
    name: str,
    *,
    dimensions: Annotated[int, typer.Option(help="Of its embeddings.")],
    base: Annotated[str, typer.Option(help="Your declarative base, as package.module:Base.")],
    metric: Annotated[str, typer.Option(help="cosine, l2, inner_product or l1.")] = "cosine",
    language: Annotated[str, typer.Option(help="Of its documents.")] = "simple",
    partitions: Annotated[int | None, typer.Option(help="How many, by hash of the id.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="The model's file; by default beside the base's module.")
    ] = None,
    config: Ini = Path("alembic.ini"),
    head: Head = None,
) -> None:
    """Write a collection's model, and the revision that makes its table; no server is asked.

    Both are yours from then on: read them, import the model where env.py finds your models, and
    run `alembic upgrade heads`.
    """
    from qortex_db import Partitions, QortexDbError, VectorSpec
    from qortex_db.cli import host_models
    from qortex_db.migrations.new_model import NewModel, write_model

    metadata = host_models.metadata_of(base, option="--base")
    options: dict[str, Any] = {"metric": metric}
    try:
        parts = None if partitions is None else Partitions(partitions)
        spec = VectorSpec(dimensions, **options)
        made = NewModel(name, {"vec": spec}, base, language, parts)
        written = write_model(made, model, metadata=metadata, ini=config, head=head)
    except QortexDbError as error:
        fail(str(error))
    for file in written:
        say(f"Wrote {file}")


def _declared(models: str | None) -> list[Table]:
    from qortex_db import QortexVector
    from qortex_db.cli import host_models
    from qortex_db.models.collection import COLLECTION

    default: Any = QortexVector.__table__
    tables = [default, *host_models.load(models, read_settings()).tables]
    return [
        table for table in dict.fromkeys(tables) if COLLECTION in table.info or table is default
    ]


def _told(table: Table) -> dict[str, Any]:
    from qortex_db.models.collection import collection_of

    collection = collection_of(table)
    vectors = {}
    for name, spec in collection.vectors.items():
        index = "no index" if spec.index is None else spec.index.method
        if spec.quantization is not None:
            index = f"{index} ({spec.quantization})"
        size = "any" if spec.dimensions is None else str(spec.dimensions)
        vectors[name] = f"{size} {spec.metric} {spec.storage} {index}"
    return {
        "table": table.fullname,
        "vectors": vectors,
        "language": collection.text or collection.language,
        "namespace": collection.namespace,
    }


def _parts(table: Table) -> dict[str, Any]:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateIndex

    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    columns = {
        column.name: (column.type.compile(dialect=dialect), "NULL" if column.nullable else "")
        for column in table.columns
    }
    indexes = {
        str(index.name): str(CreateIndex(index).compile(dialect=dialect)).partition(" USING ")[2]
        or ", ".join(column.name for column in index.columns)
        for index in sorted(table.indexes, key=lambda each: str(each.name))
    }
    return {"columns": columns, "indexes": indexes}
