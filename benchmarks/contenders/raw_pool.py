"""asyncpg by hand with its pool as it comes: each release resets the connection."""

from __future__ import annotations

from contenders.raw import Contender as Raw


class Contender(Raw):
    reset = None
