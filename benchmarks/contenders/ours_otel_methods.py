"""qortex-db whose methods OpenTelemetry hears, and not their statements."""

from __future__ import annotations

from contenders.ours import Contender as Ours
from contenders.telemetry import listen


class Contender(Ours):
    async def open(self, dsn: str) -> None:
        listen()
        await super().open(dsn)
