"""The commands about the words of documents: stored, and counted."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qortex_db.cli.shell import Embedded, err, opened, out, run


def count_words(
    model: Annotated[
        str | None,
        typer.Argument(help="A collection, as package.module:Model; by default qortex_vectors."),
    ] = None,
    *,
    namespace: Annotated[
        str | None, typer.Option(help="Any that it has, where that is in the key.")
    ] = None,
    embedded: Embedded = False,
) -> None:
    """Count how many documents have which word, for BM25; the table stays in use."""
    from qortex_db.cli.host_models import load_model

    run(_count(None if model is None else load_model(model), namespace, embedded=embedded))


async def _count(model: Any, namespace: str | None, *, embedded: bool) -> None:
    from qortex_db import ALL_NAMESPACES
    from qortex_db.models import collection_of
    from qortex_db.models.mapping import collection_table

    async with opened(embedded=embedded) as db:
        vectors = db.vectors
        if model is not None:
            collection = collection_of(collection_table(model))
            whose: Any = namespace
            if collection.namespace is not None and not collection.namespace_in_key:
                whose = ALL_NAMESPACES
            vectors = db.collection(model, namespace=whose)
        counted = await vectors.count_words()
    out().print(
        f"{counted.documents:,} documents are counted, of {counted.mean_length:.1f} words on "
        f"average; {counted.words:,} words are in more than one.",
        highlight=False,
        soft_wrap=True,
    )


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
