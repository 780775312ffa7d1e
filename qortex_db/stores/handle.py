"""The database behind a store: a host's, or one of its own that it opens late and closes."""

from __future__ import annotations

from qortex_db.database import Database
from qortex_db.errors import InvalidInputError
from qortex_db.settings import read_settings
from qortex_db.view import DatabaseView


class DatabaseHandle:
    """Constructing one does no I/O; a host's Database is neither opened nor closed by it."""

    def __init__(self, target: object, *, pool_size: int | None = None) -> None:
        self._own: Database | None = None
        if isinstance(target, (Database, DatabaseView)):
            self._database: Database | DatabaseView = target
            return
        if not isinstance(target, str):
            raise InvalidInputError(
                f"Pass a qortex_db.Database or a DSN in the pool's place, not a "
                f"{type(target).__name__}."
            )
        settings = read_settings(dsn=target) if target else read_settings()
        if pool_size is not None:
            smallest = min(settings.pool_min_size, pool_size)
            update = {"pool_max_size": pool_size, "pool_min_size": smallest}
            settings = settings.model_copy(update=update)
        self._database = self._own = Database.connect(settings)

    async def open(self) -> Database | DatabaseView:
        """The database, open."""
        return self._database if self._own is None else await self._own.open()

    async def close(self) -> None:
        """Close a database of its own; it opens again when it is used again."""
        if self._own is not None:
            await self._own.close()
