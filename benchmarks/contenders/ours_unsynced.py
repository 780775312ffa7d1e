"""qortex-db whose commits wait for no disk: a crash of the machine may lose the last of them."""

from __future__ import annotations

from contenders.ours import Contender as Ours


class Contender(Ours):
    async def open(self, dsn: str) -> None:
        await super().open(f"{dsn}&options=-c%20synchronous_commit%3Doff")
