"""qortex-db on a host's engine whose statements OpenTelemetry hears."""

from __future__ import annotations

from contenders.ours_host import Contender as OnHost
from contenders.telemetry import listen
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor


class Contender(OnHost):
    async def open(self, dsn: str) -> None:
        listen()
        await super().open(dsn)
        # Its own check refuses newer SQLAlchemy by a line of the log.
        SQLAlchemyInstrumentor().instrument(engine=self.engine.sync_engine, skip_dep_check=True)
