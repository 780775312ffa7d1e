"""The command that writes encrypted values anew."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qortex_db.cli.shell import Embedded, err, opened, out, run


def rotate_keys(
    model: Annotated[str, typer.Argument(help="The collection's, as package.module:Model.")],
    *,
    namespace: Annotated[
        str | None, typer.Option(help="Whose rows; needed where it is in the key.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="Rows at a time.")] = 500,
    embedded: Embedded = False,
) -> None:
    """Encrypt a collection by the newest of QORTEX_DB_ENCRYPTION_KEYS; run again, it goes on."""
    from qortex_db.cli.host_models import load_model

    run(_rotate(load_model(model), namespace, batch_size, embedded=embedded))


async def _rotate(model: Any, namespace: str | None, batch_size: int, *, embedded: bool) -> None:
    from qortex_db import ALL_NAMESPACES, InvalidInputError
    from qortex_db.models import collection_of
    from qortex_db.models.mapping import collection_table

    collection = collection_of(collection_table(model))
    whose: Any = namespace
    if namespace is None and collection.namespace is not None and not collection.namespace_in_key:
        whose = ALL_NAMESPACES
    if namespace is not None and collection.namespace is None:
        raise InvalidInputError("The collection has no namespaces; leave --namespace out.")

    def show(rows: int) -> None:
        if err().is_terminal:
            err().print(f"{rows:,} rows read", highlight=False)

    async with opened(embedded=embedded) as database:
        vectors = database.collection(model, namespace=whose)
        count = await vectors.rotate_keys(batch_size=batch_size, on_progress=show)
    out().print(f"{count:,} rows are encrypted anew.", highlight=False)
