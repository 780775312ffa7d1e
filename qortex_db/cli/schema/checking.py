"""Where a database stands: its schema, and what a host's own models declare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qortex_db import Database, migrations
from qortex_db.cli import render
from qortex_db.cli.host_models import check_there
from qortex_db.cli.shell import fail, reached, takes_embedded
from qortex_db.status import read_tables

if TYPE_CHECKING:
    from qortex_db import Settings
    from qortex_db.cli.host_models import HostModels
    from qortex_db.migrations import Drift, SchemaState


async def state_of(settings: Settings, models: HostModels, *, embedded: bool) -> SchemaState:
    """The schema's state; ends with an error unless all that has to be there is."""
    async with reached(settings, embedded=embedded) as given:
        state = await migrations.check(given)
        if not state.is_current and (state.current or state.is_filled or not models.tables):
            fail(render.not_current(state, settings.db_schema))
        if models.tables:
            async with Database.connect(given) as db:
                await check_there(db, given, models)
    return state


def line(state: SchemaState, models: HostModels) -> str:
    """The same in words."""
    if not models.tables:
        return render.schema_line(state)
    ours = "There is no table of qortex-db's own." if state.current is None else None
    count = len(models.tables)
    theirs = f"{count} table{'' if count == 1 else 's'} of {render.escape(models.name)}"
    return f"{ours or render.schema_line(state)} {theirs} {'is' if count == 1 else 'are'} there."


async def drift(
    settings: Settings, state: SchemaState, models: HostModels, *, embedded: bool
) -> list[Drift]:
    """Where the database differs from our models, if they are there, and from a host's."""
    found = []
    async with reached(settings, embedded=embedded) as given:
        if state.current is not None:
            found += await migrations.drift(given)
        for metadata in models.metadata:
            found += await migrations.drift(given, metadata=metadata)
    return found


async def status(
    settings: Settings, models: HostModels, *, embedded: bool, exact: bool
) -> dict[str, Any]:
    """A status for people and programs."""
    async with reached(settings, embedded=embedded) as given:
        state = await migrations.check(given)
        alone = state.current is None and bool(models.tables) and not state.is_filled
        if state.current is None and not alone:
            fail(render.not_current(state, settings.db_schema))
        async with Database.connect(given) as db:
            report: dict[str, Any] = {"tables": {}, "invalid_indexes": []}
            if not alone:
                report = (await db.status(exact=exact)).to_dict()
            if models.tables:
                await check_there(db, given, models)
                tables, invalid = await read_tables(
                    db.executor, models.tables, given.db_schema, exact=exact
                )
                report["tables"] |= tables
                report["invalid_indexes"] += invalid
        if not alone:
            report["pending_indexes"] = await migrations.pending_indexes(given)
    there = takes_embedded(settings, asked=embedded)
    return report | {"embedded": there, "schema": None if alone else render.schema(state)}
