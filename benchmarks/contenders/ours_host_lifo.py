"""qortex-db on a host's engine whose pool gives the connection that was used last."""

from __future__ import annotations

from contenders.ours_host import Contender as OnHost


class Contender(OnHost):
    options = {"pool_use_lifo": True}  # noqa: RUF012 - the other's is a ClassVar
