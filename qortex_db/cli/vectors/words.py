"""The commands about the words of documents: stored, and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qortex_db.cli.shell import Embedded, err, opened, out, run
from qortex_db.cli.vectors.chosen import choose, vectors_of

if TYPE_CHECKING:
    from qortex_db.repositories.vectors.word_counts import WordStatistics


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
    chosen = choose(model, namespace=namespace)

    async def count() -> WordStatistics:
        async with vectors_of(chosen, embedded=embedded) as vectors:
            return await vectors.count_words()

    counted = run(count())
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
