"""A transaction of an archive's, under settings by which values are written the same anywhere."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import PermissionDeniedError, QortexDbError
from qortex_db.translation import sqlstate_of, translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

FOREVER: Final = 10.0**8
"""Seconds, where the driver would otherwise take the time limit of a call: COPY takes its time."""
_DENIED: Final = "42501"
# A role may have others; those of PostgreSQL 17 are not known to 16.
_SETTINGS: Final = """
SELECT pg_catalog.set_config(s.name, v.value, true)
FROM (VALUES ('statement_timeout'::text, '0'::text), ('lock_timeout', '0'),
    ('transaction_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
    ('row_security', 'off'), ('extra_float_digits', '1'), ('bytea_output', 'hex'),
    ('datestyle', 'ISO, YMD'), ('intervalstyle', 'postgres'), ('timezone', 'UTC'),
    ('lc_monetary', 'C'), ('xmloption', 'content')) AS v (name, value)
JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) = v.name
"""


@asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[Any]:
    """The driver's connection, whose errors are the package's own.

    Raises:
        PermissionDeniedError: The role lacks a privilege, or policies hide rows from it.
    """
    try:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            try:
                yield driver
            finally:
                if driver.is_closed():
                    await connection.invalidate()
    except QortexDbError:
        raise
    except Exception as error:
        ours = translate(error)
        if ours is None:
            raise
        if sqlstate_of(error) == _DENIED:
            ours = PermissionDeniedError(
                f"{ours} An export needs SELECT on every table, and to see all of its rows; a "
                "restore is their owner's. Where row-level security is on, both need a role with "
                "BYPASSRLS, or an owner that it is not forced on.",
                sqlstate=_DENIED,
            )
        raise ours from None


@asynccontextmanager
async def transaction(driver: Any, *, snapshot: bool = False) -> AsyncIterator[None]:
    """One transaction, without time limits.

    Args:
        driver: The connection.
        snapshot: Whether all of it is to see the same rows, and to write none.
    """
    modes = "REPEATABLE READ READ ONLY" if snapshot else "READ COMMITTED READ WRITE"
    await driver.execute(f"BEGIN ISOLATION LEVEL {modes}")
    try:
        await driver.execute(_SETTINGS)
        yield
        await driver.execute("COMMIT")
    except BaseException:
        # The driver reads no further once a COPY has failed on our side: a ROLLBACK would wait.
        driver.terminate()
        raise
