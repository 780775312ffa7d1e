"""Which collection a command is about: the default one, or a host's, by its model or its name."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from qortex_db.cli.shell import fail, opened, read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Table

    from qortex_db.repositories import VectorRepository

Model = Annotated[
    str | None,
    typer.Option("--model", help="A collection, as package.module:Model; else qortex_vectors."),
]
Name = Annotated[
    str | None,
    typer.Option("--collection", help="Or one that --metadata declares, by its table's name."),
]
Namespace = Annotated[str | None, typer.Option(help="Whose rows; needed where it is in the key.")]
Embedder = Annotated[
    str | None, typer.Option(help="What makes embeddings of texts, as package.module:embedder.")
]


class Chosen(NamedTuple):
    """A collection, and whose rows of it.

    Attributes:
        kind: Its model, or the default one's.
    """

    kind: Any
    table: Table
    namespace: str | None = None
    embedder: Any = None

    def of(self, database: Any) -> VectorRepository[Any]:
        """Its vectors; everybody's where no namespace is said, and none has to be."""
        from qortex_db import ALL_NAMESPACES
        from qortex_db.models import collection_of

        collection, whose = collection_of(self.table), self.namespace
        if collection.namespace is not None and not collection.namespace_in_key:
            whose = whose or ALL_NAMESPACES  # type: ignore[assignment]
        made: VectorRepository[Any] = database.collection(
            self.kind, namespace=whose, embedder=self.embedder
        )
        return made


def choose(
    model: str | None = None,
    name: str | None = None,
    metadata: str | None = None,
    namespace: str | None = None,
    embedder: str | None = None,
) -> Chosen:
    """Import what the options name."""
    from qortex_db import QortexDbError, QortexVector
    from qortex_db.cli.host_models import load, load_model
    from qortex_db.models.mapping import collection_table, model_named

    if model is not None and name is not None:
        fail("Pass one of --model and --collection.", status=2)
    try:
        if name is not None:
            load(metadata, read_settings())
            kind = model_named(name)
        else:
            kind = QortexVector if model is None else load_model(model)
        table = collection_table(kind)
    except QortexDbError as error:
        fail(str(error), status=2)
    makes = None if embedder is None else load_model(embedder, option="--embedder")
    return Chosen(kind, table, namespace, makes)


@asynccontextmanager
async def vectors_of(chosen: Chosen, *, embedded: bool) -> AsyncIterator[VectorRepository[Any]]:
    """The collection, for the time of one command."""
    async with opened(embedded=embedded) as database:
        yield chosen.of(database)
