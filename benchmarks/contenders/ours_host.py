"""qortex-db on a host's engine, made as hosts make theirs."""

from __future__ import annotations

from typing import Any, ClassVar

from contenders.ours import Contender as Ours
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database


class Contender(Ours):
    options: ClassVar[dict[str, Any]] = {}

    async def open(self, dsn: str) -> None:
        self.engine = create_async_engine(
            dsn.replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=10, **self.options
        )
        self.db = Database.from_engine(self.engine)

    async def close(self) -> None:
        await self.engine.dispose()
