"""qortex-db whose statements OpenTelemetry hears."""

from __future__ import annotations

from contenders.ours import Contender as Ours
from contenders.telemetry import listen

from qortex_db import Database, Settings


class Contender(Ours):
    async def open(self, dsn: str) -> None:
        listen()
        self.db = await Database.connect(Settings(dsn=dsn, otel_enabled=True)).open()
