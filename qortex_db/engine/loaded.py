"""Objects that a session has loaded, beside statements that change their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect, select, tuple_

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from sqlalchemy.ext.asyncio import AsyncSession

WRITTEN: Final = "qortex_db_written"
"""The key of a session's info where the tables are that statements of ours wrote."""
_MAX_PARAMETERS: Final = 10_000  # of a query; beyond 32,767 the protocol has no number for them


async def refresh_loaded(
    session: AsyncSession, tables: Container[object], options: Mapping[str, Any]
) -> None:
    """Give the session's loaded objects of some tables what the database now holds.

    A Core statement changes rows behind their backs, and expiring them would fail at the next
    attribute. It costs a query a model, and only where such objects are loaded.
    """
    loaded: dict[type[object], list[object]] = {}
    for instance in session.sync_session.identity_map.values():
        # A model that inherits has its parent's table too.
        if any(table in tables for table in inspect(instance).mapper.tables):
            loaded.setdefault(type(instance), []).append(instance)
    for model, instances in loaded.items():
        mapper = inspect(model)
        size = _MAX_PARAMETERS // len(mapper.primary_key)
        for start in range(0, len(instances), size):
            part = instances[start : start + size]
            keys = [inspect(instance).identity for instance in part]
            statement = select(model).where(tuple_(*mapper.primary_key).in_(keys))
            query = session.scalars(
                statement, execution_options={"populate_existing": True, **options}
            )
            found = set(await query)
            for instance in part:
                if instance not in found:
                    session.expunge(instance)
