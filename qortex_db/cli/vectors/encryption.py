"""The command that writes encrypted values anew."""

from __future__ import annotations

from typing import Annotated

import typer

from qortex_db.cli.shell import Embedded, err, out, run
from qortex_db.cli.vectors.chosen import Namespace, choose, vectors_of


def rotate_keys(
    model: Annotated[str, typer.Argument(help="The collection's, as package.module:Model.")],
    *,
    namespace: Namespace = None,
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="Rows at a time.")] = 500,
    embedded: Embedded = False,
) -> None:
    """Encrypt a collection by the newest of QORTEX_DB_ENCRYPTION_KEYS; run again, it goes on."""
    chosen = choose(model, namespace=namespace)

    def show(rows: int) -> None:
        if err().is_terminal:
            err().print(f"{rows:,} rows read", highlight=False)

    async def rotate() -> int:
        async with vectors_of(chosen, embedded=embedded) as vectors:
            return await vectors.rotate_keys(batch_size=batch_size, on_progress=show)

    out().print(f"{run(rotate()):,} rows are encrypted anew.", highlight=False)
