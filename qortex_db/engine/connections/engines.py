"""Connections: the engine, its pool and timeouts, and the codec of vectors."""

from __future__ import annotations

import functools
import math
import socket
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, NullPool, QueuePool, event
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from qortex_db.engine.citus import ON_CITUS
from qortex_db.engine.connections.cleanup import Cleanup
from qortex_db.engine.connections.connecting import Connector
from qortex_db.engine.connections.pool import FairPool
from qortex_db.engine.connections.search_path import (
    FIND_VECTOR,
    JUST_ASKED,
    path_of,
    pin_search_path,
)
from qortex_db.engine.executor import catalog_of
from qortex_db.errors import InvalidInputError, ReadOnlyError
from qortex_db.observability import log
from qortex_db.translation import is_outdated, is_refused_by_driver
from qortex_db.types import decode, encode_any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from qortex_db.engine.connections.search_path import SearchPath
    from qortex_db.settings import Settings, Target

RETRY_SECONDS: Final = 5.0
"""How long what is safe to repeat is tried again while the server is away."""
_ADOPTED: Final = "qortex_db_adopted"
LISTENERS: Final = "qortex_db_listeners"
"""The key of a catalog where it is which of a pool's listeners are ours, by their events."""
_CODEC: Final = "qortex_db_codec"
_TOLD: Final = "qortex_db_rotation_told"
_PING_AFTER: Final = "qortex_db_ping_after"
_NOTICES: Final = "qortex_db_notices_silence"
_REFUSED_AT: Final = "qortex_db_write_refused_at"
"""The key of a catalog where it is when a server last refused a write, by the clock of pools."""
_PING_SHARE: Final = 0.25
"""Of the network's time-out: the call that meets a silent connection still has to connect anew."""
_FIND_VECTOR: Final = FIND_VECTOR.replace(
    " AS on_citus", " AS on_citus,\n  pg_catalog.pg_backend_pid() AS pid"
)


@functools.cache
def _exact(query: str) -> str:
    """The driver's query with the types and functions that PostgreSQL would have to look for."""
    for loose, exact in (("!= 0", "<> 0::oid"), (" array_agg(", " pg_catalog.array_agg(")):
        query = query.replace(loose, exact)
    return query


def create_engine(target: Target, settings: Settings, tables: Iterable[str]) -> AsyncEngine:
    """The package's engine on a server. Nothing connects yet.

    Args:
        tables: The names of the package's.
    """
    timeout = settings.statement_timeout_seconds or None
    cleanup = Cleanup()
    pool: dict[str, Any] = {"poolclass": NullPool}
    if settings.pool == "fair":
        pool = {
            "poolclass": FairPool,
            "max_waiting": settings.max_waiting,
            "pool_size": settings.pool_max_size,
            "max_overflow": 0,
            "pool_timeout": settings.pool_timeout_seconds,
        }
    engine = create_async_engine(
        target.url,
        connect_args={
            "async_creator_fn": Connector(cleanup, settings.retry_seconds),
            "timeout": settings.connect_timeout_seconds,
            "command_timeout": timeout,
            **target.connect_args,
        },
        hide_parameters=True,  # values, vectors and payloads stay out of messages
        **pool,
    )
    catalog_of(engine.sync_engine)[Cleanup] = cleanup
    pin_search_path(
        engine,
        tuple(tables),
        settings.db_schema,
        first=True,
        is_pooled=settings.pooler is not None,
        limit=settings.connect_timeout_seconds,
    )
    _spare_first_questions(engine.sync_engine)
    adopt(engine)
    notice_silence(engine, settings.network_timeout_seconds)
    _watch_idle(engine.sync_engine, settings.idle_ping_seconds, settings.network_timeout_seconds)
    return engine


def _spare_first_questions(engine: Engine) -> None:
    """Have SQLAlchemy not ask a first connection what is known: it would take ten round trips."""
    dialect: Any = engine.dialect

    def version(connection: Any) -> tuple[int, ...]:
        told = connection.connection.driver_connection.get_server_version()
        return (told.major, told.micro)  # what it calls minor has been 0 since PostgreSQL 10

    def backslash_escapes(connection: Any) -> None:
        told = connection.connection.driver_connection.get_settings()
        dialect._backslash_escapes = told.standard_conforming_strings == "off"  # noqa: SLF001

    dialect._get_server_version_info = version  # noqa: SLF001 - what dialects override
    dialect._set_backslash_escapes = backslash_escapes  # noqa: SLF001 - the same
    dialect._get_default_schema_name = lambda _: next(iter(path_of(engine).names), None)  # noqa: SLF001
    dialect.get_default_isolation_level = lambda _: path_of(engine).isolation_level


def adopt(engine: AsyncEngine) -> None:
    """Have an engine's connections, a host's too, take vectors in binary from checkout on."""
    if isinstance(engine, (AsyncEngine, Engine)):
        check_driver(engine.dialect)
    if not isinstance(engine, AsyncEngine):
        raise InvalidInputError(
            f"engine is a {type(engine).__name__}; pass what create_async_engine() gives."
        )
    # Once for all that is derived from it: each would add its own to the one pool.
    known = catalog_of(engine.sync_engine)
    if _ADOPTED not in known:
        known[_ADOPTED] = True

        def _on_checkout(
            connection: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
        ) -> None:
            if connection.driver_connection.is_closed():  # costs no round trip: a restart closed it
                raise sa_exc.DisconnectionError("The server closed this connection.")
            if is_of_standby(record, known):
                raise sa_exc.DisconnectionError("The server is a standby by now.")
            ensure_codec(connection, record.info, known)

        _listen(engine.sync_engine, "checkout", _on_checkout)


def tell_of_rotation(engine: AsyncEngine) -> None:
    """Log, once an engine, that its pool hands out the connection that has been idle longest.

    Each has its plans and caches to itself on the server, so that all stay cold.
    """
    known, pool = catalog_of(engine.sync_engine), engine.pool
    if known.setdefault(_TOLD, False) or not isinstance(pool, QueuePool) or pool.size() == 1:
        return
    if not pool._pool.use_lifo:  # noqa: SLF001 - it has no public name
        known[_TOLD] = True
        log.info(
            "host_pool_rotates_connections", advice="create_async_engine(…, pool_use_lifo=True)"
        )


def _listen(
    engine: Engine, name: str, listener: Callable[..., None], *, insert: bool = False
) -> None:
    event.listen(engine, name, listener, insert=insert)
    catalog_of(engine).setdefault(LISTENERS, defaultdict(set))[name].add(listener)


def is_ready(record: ConnectionPoolEntry, known: Mapping[object, Any]) -> bool:
    """Whether our listeners have nothing to do at the checkout of a pool's connection."""
    held: Any = record.dbapi_connection
    info = record.info
    return (
        held is not None
        and has_codec(info, known)
        and info.get(_NOTICES) == known.get(_NOTICES)
        and time.monotonic() <= info.get(_PING_AFTER, math.inf)
        and not held.driver_connection.is_closed()
        and not is_of_standby(record, known)
    )


def note_refusal(failure: BaseException, known: dict[object, Any]) -> None:
    """Remember that a server takes no writes: connections to a standby are then made anew.

    Which server that is may have changed, in the DNS or among the hosts of a DSN.
    """
    if isinstance(failure, ReadOnlyError):
        known[_REFUSED_AT] = time.time()


def is_of_standby(record: ConnectionPoolEntry, known: Mapping[object, Any]) -> bool:
    """Whether a connection is to a standby, and older than the last write that was refused."""
    refused_at = known.get(_REFUSED_AT)
    entry: Any = record
    if refused_at is None or entry.starttime >= refused_at:
        return False
    held: Any = entry.dbapi_connection
    # The server tells of it, and of its promotion, without being asked.
    return getattr(held.driver_connection.get_settings(), "in_hot_standby", "off") == "on"


def check_driver(dialect: Dialect) -> None:
    if dialect.driver != "asyncpg":
        raise InvalidInputError(
            f"The engine's driver is {dialect.driver}; make it with create_async_engine and a URL "
            "that begins with postgresql+asyncpg://."
        )


def has_codec(info: Mapping[Any, Any], known: Mapping[object, Any]) -> bool:
    """Whether a connection takes vectors in binary, as far as is known."""
    current = known.get(_CODEC)
    return current is not None and info.get(_CODEC) == current


def ensure_codec(connection: Any, info: dict[Any, Any], known: dict[object, Any]) -> None:
    """Have a connection take vectors in binary.

    Args:
        info: What is kept with the connection.
        known: What is known of its engine's database.
    """
    if has_codec(info, known):
        return
    before, asked = info.get(_CODEC), info.pop(JUST_ASKED, None)
    found = connection.run_async(lambda driver: _register(driver, before, asked, known))
    if found is None:  # not migrated yet: asked again at the next checkout
        return
    known[_CODEC] = info[_CODEC] = found
    # Statements prepared before hold the old codec.
    if found != before and connection._prepared_statement_cache is not None:  # noqa: SLF001 - it has no public name
        connection._prepared_statement_cache.clear()  # noqa: SLF001


async def _register(
    driver: Any, before: int | None, asked: SearchPath | None, known: dict[object, Any]
) -> int | None:
    found = await driver.fetchrow(_FIND_VECTOR) if asked is None else asked.vector
    if found is None:
        return None
    schema, oid, _, known[ON_CITUS], *pid = found
    if asked is not None or pid != [driver.get_server_pid()]:
        # To look a type up asyncpg would set jit, off and on again: a pooler's session is another's
        # by then. Ours has it off.
        driver._server_caps = driver._server_caps._replace(jit=False)  # noqa: SLF001 - no public name
    if oid == before:
        return int(oid)
    if before is not None:  # the extension was made anew, and with it all that names its types
        await driver.reload_schema_state()
    # asyncpg looks types up by a query that leaves much to the search_path.
    driver._intro_query = _exact(driver._intro_query)  # noqa: SLF001 - it has no public name
    # What set_type_codec does after asking the server what is known here.
    driver.get_settings().add_python_codec(
        oid, "vector", schema, [], "scalar", encode_any, decode, "binary"
    )
    driver._drop_local_statement_cache()  # noqa: SLF001 - it has no public name
    return int(oid)


def forget_types(error: BaseException, known: dict[object, Any]) -> bool:
    """Have types looked up anew at the next checkout, if an error may come of old ones.

    An extension that was dropped and created, or restored, has types of other numbers.
    """
    may_be_old = is_refused_by_driver(error) or is_outdated(error)
    if may_be_old:
        known.pop(_CODEC, None)
    return may_be_old


def _watch_idle(engine: Engine, idle_ping_seconds: float, network_timeout_seconds: float) -> None:
    """Have what was idle for long pinged: a firewall drops such connections without a word."""
    limit = network_timeout_seconds * _PING_SHARE

    def _on_checkin(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info[_PING_AFTER] = time.monotonic() + idle_ping_seconds

    def _on_idle_checkout(
        connection: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
    ) -> None:
        now = time.monotonic()
        if now <= record.info.get(_PING_AFTER, math.inf):
            return
        try:
            # One message, which a pooler between us and the server does not tear apart.
            connection.run_async(lambda driver: driver.execute(";", timeout=limit))
        except Exception as error:
            # What has lain idle as long was dropped with it: nobody waits for its silence again.
            pool = engine.pool
            idle = pool.idle() if isinstance(pool, FairPool) else ()
            for each in (record, *idle):
                if each.driver_connection and now > each.info.get(_PING_AFTER, math.inf):
                    each.driver_connection.terminate()
            raise sa_exc.DisconnectionError("The idle connection is gone.") from error

    _listen(engine, "checkin", _on_checkin)
    # Before the codec's: that one asks the server too.
    _listen(engine, "checkout", _on_idle_checkout, insert=True)


def notice_silence(engine: AsyncEngine, network_timeout_seconds: float) -> None:
    """Have the operating system end connections whose other end is silent, a host's too.

    It asks the other end's system, so a statement may take as long as it likes.
    """
    probe = max(1, int(network_timeout_seconds / 4))
    options = {
        "SO_KEEPALIVE": 1,
        "TCP_KEEPIDLE": probe,
        "TCP_KEEPINTVL": probe,
        "TCP_KEEPCNT": 2,
        "TCP_USER_TIMEOUT": int(network_timeout_seconds * 1_000),  # of what was sent
    }
    known = catalog_of(engine.sync_engine)
    listening = _NOTICES in known
    known[_NOTICES] = options
    if listening:
        return

    def _on_checkout(
        connection: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
    ) -> None:
        options = known[_NOTICES]
        if record.info.get(_NOTICES) == options:
            return
        record.info[_NOTICES] = options
        transport = connection.driver_connection._transport  # noqa: SLF001 - it has no public name
        held = transport.get_extra_info("socket")
        if held is None or held.family not in (socket.AF_INET, socket.AF_INET6):
            return  # a Unix socket's other end is on this machine
        for name, value in options.items():
            option = getattr(socket, name, None)  # systems differ in what they have
            if option is not None:
                level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
                held.setsockopt(level, option, value)

    _listen(engine.sync_engine, "checkout", _on_checkout)
