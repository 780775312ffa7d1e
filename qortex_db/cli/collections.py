"""The commands about collections: what models declare, and a new one with its revision."""

from __future__ import annotations

import importlib
import keyword
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qortex_db.cli.shell import AsJson, Models, fail, group, out, print_json, read_settings

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

collections = group("The collections that models declare, and new ones.")

_MODEL = '''"""The collection `{name}`."""

from {module} import {base}
from qortex_db import {names}


class {model}(VectorMixin, {base}):
    """{title}."""

    __tablename__ = "{name}"
    __collection__ = Collection({spec}{options})
'''


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
def describe(name: str, *, models: Models = None, as_json: AsJson = False) -> None:
    """A collection's columns and indexes, as its model declares them."""
    from qortex_db.cli import render

    table = next((each for each in _declared(models) if each.name == name), None)
    if table is None:
        fail(f"No collection {name} is declared; `collections list` names those that are.")
    told = _told(table) | _parts(table)
    if as_json:
        print_json(told)
        return
    columns = render.table("column", "type", "null", title=render.escape(name))
    for column, (kind, null) in told["columns"].items():
        columns.add_row(render.escape(column), render.escape(kind), null)
    out().print(columns)
    for index, said in told["indexes"].items():
        out().print(f"{index}: {said}", soft_wrap=True, highlight=False, markup=False)


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
    config: Annotated[Path, typer.Option(help="Your alembic.ini.")] = Path("alembic.ini"),
    head: Annotated[
        str | None, typer.Option(help="The revision to follow; by default your head.")
    ] = None,
) -> None:
    """Write a collection's model, and the revision that makes its table; no server is asked.

    Both are yours from then on: read them, import the model where env.py finds your models, and
    run `alembic upgrade heads`.
    """
    from qortex_db import Partitions, QortexDbError
    from qortex_db.cli import host_models
    from qortex_db.migrations.new_collection import write_revision

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        fail(f"{name} has to be a plain name, as notes or user_passages.", status=2)
    metadata = host_models.metadata_of(base, option="--base")
    module, _, attribute = base.partition(":")
    file = model or Path(str(importlib.import_module(module).__file__)).parent / f"{name}.py"
    if file.exists():
        fail(f"{file} is there already; nothing was written.")
    if name in metadata.tables:
        fail(f"{base} has a table {name} already; nothing was written.")
    options = {"metric": metric} if metric != "cosine" else {}
    try:
        parts = None if partitions is None else Partitions(partitions)
        table = _table(name, metadata, dimensions, options, language=language, partitions=parts)
        revision = write_revision(config, table, head=head)
    except QortexDbError as error:
        fail(str(error))
    names, said = ["Collection", "VectorMixin", "VectorSpec"], []
    if language != "simple":
        said.append(f", language={language!r}")
    if partitions is not None:
        names.insert(1, "Partitions")
        said.append(f", partitions=Partitions({partitions})")
    text = _MODEL.format(
        name=name,
        module=module,
        base=attribute,
        model="".join(part.capitalize() for part in name.split("_")),
        title=name.replace("_", " ").capitalize(),
        spec=f"VectorSpec({dimensions}{''.join(f', {k}={v!r}' for k, v in options.items())})",
        names=", ".join(names),
        options="".join(said),
    ).replace("'", '"')
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        revision.unlink()
        fail(f"{file} could not be written ({error.strerror}); nothing was.")
    for written in (file, revision):
        out().print(f"Wrote {written}", soft_wrap=True, highlight=False, markup=False)


def _table(
    name: str,
    metadata: MetaData,
    dimensions: int,
    options: dict[str, Any],
    **said: Any,
) -> Table:
    """As the model will have it, in a metadata that says the same of names and schemas."""
    from sqlalchemy import MetaData
    from sqlalchemy.orm import DeclarativeBase

    from qortex_db import Collection, VectorMixin, VectorSpec

    alone = MetaData(schema=metadata.schema, naming_convention=metadata.naming_convention)
    base = type("Base", (DeclarativeBase,), {"metadata": alone})
    collection = Collection(VectorSpec(dimensions, **options), **said)
    made: Any = type(
        "New", (VectorMixin, base), {"__tablename__": name, "__collection__": collection}
    )
    found: Table = made.__table__
    return found


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
