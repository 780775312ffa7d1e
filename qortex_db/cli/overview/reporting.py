"""The report of one database, with what only migrations know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qortex_db import Database, migrations
from qortex_db import report as reports
from qortex_db.cli import render
from qortex_db.cli.host_models import check_there
from qortex_db.cli.shell import fail, reached
from qortex_db.models.collection import COLLECTION
from qortex_db.models.mapping import model_named
from qortex_db.status import read_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qortex_db import Settings
    from qortex_db.cli.host_models import HostModels


async def page(
    settings: Settings,
    models: HostModels,
    learners: Sequence[str] | None,
    colour: str | None,
    *,
    embedded: bool,
) -> str:
    """The page."""
    async with reached(settings, embedded=embedded) as given:
        state = await migrations.check(given)
        if state.current is None:
            if models.tables and not state.is_filled:
                fail(
                    "The report tells of learners, factors and edges, whose tables are not there; "
                    "`qortex-db status` tells of yours."
                )
            fail(render.not_current(state, settings.db_schema))
        pending = await migrations.pending_indexes(given)
        async with Database.connect(given) as database:
            report = await reports.read(
                database, learners=learners, models=_collections(models), colour=colour
            )
            own: dict[str, str] = {}
            if models.tables:
                await check_there(database, given, models)
                tables, invalid = await read_tables(
                    database.executor, models.tables, given.db_schema
                )
                own = {
                    name: f"{table['rows']:,} rows, {render.size(table['bytes'])}"
                    for name, table in tables.items()
                }
                own["invalid indexes of these"] = ", ".join(invalid) or "none"
    mark = "current" if state.is_current else f"this version needs {state.head}"
    facts = {
        "schema": f"{state.current} ({mark})",
        "pending indexes": ", ".join(pending) or "none",
        **own,
    }
    return reports.page(report, facts=facts)


def _collections(models: HostModels) -> list[type[object]]:
    """Those of a host's models that are collections."""
    return [model_named(table.fullname) for table in models.tables if COLLECTION in table.info]
