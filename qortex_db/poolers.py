"""What a pooler between us and the server, such as PgBouncer, says by itself, and what to do."""

from __future__ import annotations

from typing import Final

import asyncpg

from qortex_db.messages import causes, escaped

_TOO_SMALL: Final = (
    "its pool is too small for those who ask: raise default_pool_size, or lower "
    "QORTEX_DB_POOL_MAX_SIZE so that all processes together want no more"
)
_ADVICE: Final = {
    "unsupported startup parameter": (
        "it takes no options= of a DSN, nor server_settings: set them on the role (ALTER ROLE … "
        "SET), or by Database.with_settings"
    ),
    "query_wait_timeout": _TOO_SMALL,
    "no more connections allowed": (
        "raise max_client_conn, or lower QORTEX_DB_POOL_MAX_SIZE of its clients"
    ),
    "statement pooling": "units of work need pool_mode = transaction, or session",
}
_OTHERWISE: Final = "see its log and its settings"
_FOR_GOOD: Final = "unsupported startup parameter"
NO_FIRST_ANSWER: Final = (
    "Connected, but the first question was not answered within {:g} s: the server is busy, or "
    f"waits for a lock. Where a pooler in session mode is between, {_TOO_SMALL}."
)
OTHERS_STATEMENT: Final = (
    "A prepared statement is another session's ({}). This looks like a pooler in transaction mode "
    'that does not bring statements along: set Settings(pooler="transaction") '
    "(QORTEX_DB_POOLER), on an engine of your own connect_args with statement_cache_size=0 and "
    "prepared_statement_cache_size=0; or max_prepared_statements of PgBouncer 1.21 or newer."
)


def said_by_pooler(error: BaseException) -> str | None:
    """A pooler's own words; None for what came from a server, or from nobody.

    A server's errors have had their severity untranslated besides since PostgreSQL 9.6.
    """
    for cause in causes(error):
        if isinstance(cause, asyncpg.PostgresError):
            fields = vars(cause)
            if fields.get("severity") and not fields.get("severity_en"):
                return escaped(str(fields.get("message") or type(cause).__name__))
    return None


def advice(said: str) -> str:
    """What to do about a pooler's words."""
    return next((do for words, do in _ADVICE.items() if words in said), _OTHERWISE)


def is_for_good(said: str) -> bool:
    """Whether it would say the same of the next try."""
    return said.startswith(_FOR_GOOD)
