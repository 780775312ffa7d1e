"""The Databases of an adapter, which is awaited by some and waited for by others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from qortex_db.database import Database
from qortex_db.errors import InvalidInputError
from qortex_db.sync.background import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import URL

    from qortex_db.settings import Settings

T = TypeVar("T")


class Homes:
    """A Database for each event loop that asks, one of them in the background.

    Args:
        database: A Database, which serves its own loop and stays its owner's to close; or by what
            `Database.connect` makes one.
    """

    def __init__(self, database: Database | Settings | str | URL | None) -> None:
        self._given = database if isinstance(database, Database) else None
        self._own: WeakKeyDictionary[asyncio.AbstractEventLoop, Database] = WeakKeyDictionary()
        if not isinstance(database, Database):
            database = Database.connect(database)  # what can't be one is refused now
        self._settings = database.settings

    async def here(self) -> Database:
        """The one of the running loop."""
        loop = asyncio.get_running_loop()
        if self._given is not None and loop is not BACKGROUND.loop():
            return self._given
        if loop not in self._own:
            if self._settings is None:
                raise InvalidInputError(
                    "A Database over an engine of yours serves the async methods alone: its "
                    "connections belong to their event loop. For the others pass Settings or a DSN."
                )
            self._own[loop] = Database.connect(self._settings)
        return await self._own[loop].open()

    def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run an async method in the background, and wait for it."""
        given: T = BACKGROUND.call(work)
        return given

    async def close(self) -> None:
        """Close those that were opened here: of the running loop, and of the background."""
        for loop, database in list(self._own.items()):
            del self._own[loop]
            if loop is asyncio.get_running_loop():
                await database.close()
            elif loop is BACKGROUND.loop():
                await asyncio.wrap_future(BACKGROUND.submit(database.close()))
