"""The report of one database, with what only migrations know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qortex_db import Database, migrations
from qortex_db import report as reports
from qortex_db.cli import render
from qortex_db.cli.shell import fail, reached, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence


async def page(learners: Sequence[str] | None, *, embedded: bool) -> str:
    """The page."""
    async with reached(read_settings(), embedded=embedded) as given:
        state = await migrations.check(given)
        if state.current is None:
            fail(render.not_current(state))
        pending = await migrations.pending_indexes(given)
        async with Database.connect(given) as database:
            report = await reports.read(database, learners=learners)
    mark = "current" if state.is_current else f"this version needs {state.head}"
    facts = {
        "schema": f"{state.current} ({mark})",
        "pending indexes": ", ".join(pending) or "none",
    }
    return reports.page(report, facts=facts)
