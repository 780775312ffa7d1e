"""What connections through a pooler need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from qortex_db.settings.dsn import CACHES, Target

# What poolers set anew for each client, or read themselves.
_TAKEN: Final = frozenset({
    "application_name", "client_encoding", "datestyle", "options", "standard_conforming_strings",
    "timezone",
})  # fmt: skip


def through_transaction_pooler(target: Target) -> Target:
    """A server behind a pooler in transaction mode that keeps no prepared statements.

    Raises:
        ValueError: Its DSN has options of the server that would be refused there, or others'.
    """
    given: Any = target.connect_args.get("server_settings", {})
    refused = sorted(name for name in given if name.lower() not in _TAKEN)
    if refused:
        raise ValueError(
            f"The DSN's options have {', '.join(refused)}, which a pooler in transaction mode does "
            "not take: set it on the role (ALTER ROLE … SET), or by Database.with_settings."
        )
    return replace(target, connect_args={**dict.fromkeys(CACHES, 0), **target.connect_args})
