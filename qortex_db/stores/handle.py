"""The database behind a store: a host's, or one of its own that it opens late and closes."""

from __future__ import annotations

from pydantic import SecretStr

from qortex_db.database import Database
from qortex_db.errors import InvalidInputError
from qortex_db.settings import Settings


class DatabaseHandle:
    """Constructing one does no I/O; a host's Database is neither opened nor closed by it."""

    def __init__(self, target: object, *, pool_size: int | None = None) -> None:
        if isinstance(target, Database):
            self._database, self._owned = target, False
            return
        if not isinstance(target, str):
            raise InvalidInputError(
                f"Pass a qortex_db.Database or a DSN in the pool's place, not a "
                f"{type(target).__name__}."
            )
        settings = Settings(dsn=SecretStr(target)) if target else Settings()
        if pool_size is not None:
            smallest = min(settings.pool_min_size, pool_size)
            update = {"pool_max_size": pool_size, "pool_min_size": smallest}
            settings = settings.model_copy(update=update)
        self._database, self._owned = Database.connect(settings), True

    async def open(self) -> Database:
        """The database, open."""
        return await self._database.open() if self._owned else self._database

    async def close(self) -> None:
        """Close a database of its own; it opens again when it is used again."""
        if self._owned:
            await self._database.close()
