"""Objects that a session has loaded, beside statements that change their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect, select, tuple_

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

WRITTEN: Final = "qortex_db_written"
"""The key of a session's info where the tables are that statements of ours wrote."""
_MAX_PARAMETERS: Final = 10_000  # of a query; beyond 32,767 the protocol has no number for them


async def refresh_loaded(
    session: AsyncSession,
    tables: Container[object],
    options: Mapping[str, Any],
    bind_arguments: Mapping[str, Any],
) -> None:
    """Give the session's loaded objects of some tables what the database now holds.

    A Core statement changes rows behind their backs, and expiring them would fail at the next
    attribute. It costs a query a model, and only where such objects are loaded.
    """
    loaded: dict[type[object], list[object]] = {}
    for instance in loaded_of(session, tables):
        loaded.setdefault(type(instance), []).append(instance)
    for model, instances in loaded.items():
        arguments = {**bind_arguments, "mapper": inspect(model)}
        size = _MAX_PARAMETERS // len(inspect(model).primary_key)
        for start in range(0, len(instances), size):
            await _refresh(session, model, instances[start : start + size], options, arguments)


async def _refresh(
    session: AsyncSession,
    model: type[object],
    instances: list[object],
    options: Mapping[str, Any],
    bind_arguments: dict[str, Any],
) -> None:
    key = inspect(model).primary_key
    left = {inspect(instance).identity: instance for instance in instances}
    there = tuple_(*key).in_(list(left))

    def query(sync: Session) -> list[object]:
        found = sync.scalars(
            select(model).where(there),
            execution_options={"populate_existing": True, **options},
            bind_arguments=bind_arguments,
        )
        return list(found)

    for instance in await session.run_sync(query):  # SQLModel warns of AsyncSession's own methods
        left.pop(inspect(instance).identity, None)
    if not left:
        return

    def stored(sync: Session) -> set[Any]:
        connection = sync.connection(bind_arguments=dict(bind_arguments))
        rows = connection.execute(select(*key).where(there), execution_options=dict(options))
        return {tuple(row) for row in rows}

    hidden = await session.run_sync(stored)  # by criteria of a host's, which the query kept to
    for identity, instance in left.items():
        if identity in hidden:
            await session.refresh(instance)
        else:
            session.expunge(instance)


def expire_loaded(session: AsyncSession, tables: Container[object]) -> None:
    """Have the loaded objects of some tables show nothing rather than what was undone."""
    for instance in loaded_of(session, tables):
        session.expire(instance)


def loaded_of(session: AsyncSession, tables: Container[object]) -> list[object]:
    """A session's objects of some tables; a model that inherits has its parent's table too."""
    return [
        instance
        for instance in session.sync_session.identity_map.values()
        if any(table in tables for table in inspect(instance).mapper.tables)
    ]
