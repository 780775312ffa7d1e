"""The command that forgets idempotency keys."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from qortex_db.cli.shell import Embedded, opened, out, run

KEPT_DAYS: Final = 30.0  # that of `prune`; a test holds it to that


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
