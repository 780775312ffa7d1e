"""Connecting: tried again while the server is away, with a password fetched anew; and its errors.

What fails names host, port or socket, database and cause, and no password.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from qortex_db.engine.connections.cleanup import task_of
from qortex_db.engine.connections.timers import OneTimerLoop
from qortex_db.errors import (
    InvalidInputError,
    PermissionDeniedError,
    PoolerError,
    QortexDbError,
    UnavailableError,
)
from qortex_db.messages import causes, escaped, said_by_driver, said_by_server, scrubbed, shown
from qortex_db.observability import call_theirs
from qortex_db.observability.logs import log
from qortex_db.observability.metrics import retries_total
from qortex_db.poolers import advice, said_by_pooler
from qortex_db.translation import is_connection_lost, sqlstate_of, translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Engine

    from qortex_db.engine.connections.cleanup import Cleanup
    from qortex_db.settings import PasswordProvider

RETRY_PAUSE_SECONDS: Final = 0.1
_PORT: Final = 5432
_REFUSED: Final = "it was refused; check that the server runs and listens there"
_DENIED: Final = "42501"
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_NOT_SENT: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,  # by the driver itself: a TimeoutError is an OSError too
)


@dataclass(frozen=True, slots=True)
class Connector:
    """What an engine calls for each new connection.

    Args:
        cleanup: Of the engine.
        retry_seconds: How long to try again while the server is away: nothing is sent yet, whoever
            asks.
    """

    cleanup: Cleanup
    retry_seconds: float = 0.0

    async def __call__(self, **options: Any) -> asyncpg.Connection:
        provider = options.get("password")
        begun = time.monotonic()
        deadline = begun + self.retry_seconds
        tries = 0
        while True:
            tries += 1
            try:
                if callable(provider):  # anew at each try
                    options["password"] = await asyncio.wait_for(
                        _asked(provider), options.get("timeout")
                    )
                connection = await self._connected(options)
            except Exception as error:  # noqa: BLE001 - told, and raised below
                # None of several hosts is the primary while one of them is being promoted.
                away = isinstance(error, asyncpg.TargetServerAttributeNotMatched)
                away = away or is_connection_lost(error)
                again = away and time.monotonic() < deadline
                failure = not_connected(error, options)
            else:
                if tries > 1:
                    seconds = round(time.monotonic() - begun, 3)
                    log.info("reconnected", tries=tries, seconds=seconds)
                return connection
            if not again:
                # Out here it has no context: the driver's error may quote a setting.
                raise failure
            if tries == 1:
                log.warning("server_away", why=str(failure), retry_seconds=self.retry_seconds)
            retries_total.add(1, {"reason": "connecting"})
            await asyncio.sleep(RETRY_PAUSE_SECONDS)  # a restart takes its time

    async def _connected(self, options: Mapping[str, Any]) -> asyncpg.Connection:
        """Whoever is cancelled meanwhile does not wait, and nothing is left of it.

        Cancelled itself, asyncpg may leave a future behind, whose error asyncio logs as never
        heard.
        """
        loop = asyncio.get_running_loop()
        task = task_of(asyncpg.connect(loop=OneTimerLoop(loop), **options))
        try:
            connection = await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_end_unwanted)
            self.cleanup.own(task)
            raise
        # Its protocol alone has time limits; the rest asks asyncio for what is of this loop.
        connection._loop = connection._stmt_cache._loop = loop  # noqa: SLF001 - no public names
        return connection


def _end_unwanted(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


async def _asked(provider: PasswordProvider) -> str:
    """What a provider gives; in a thread, since a plain function may ask a network."""
    try:
        password = await call_theirs(provider)
    except Exception as error:
        raise UnavailableError(
            f"password_provider raised {type(error).__name__}, so nothing was connected."
        ) from error
    if not isinstance(password, str):
        raise InvalidInputError(
            f"password_provider gave a {type(password).__name__}; it has to give a str."
        )
    return password


def connection_options(engine: Engine) -> Mapping[str, Any]:
    """What a host's engine tells its driver, as far as its URL says."""
    options: Mapping[str, Any] = engine.dialect.create_connect_args(engine.url)[1]
    return options


def not_connected(error: Exception, options: Mapping[str, Any]) -> Exception:
    """The error to raise for one that was met while connecting.

    Args:
        options: Of the driver: host and port or a list of each, database, timeout.
    """
    state = sqlstate_of(error)
    if state and state.startswith("08") and (said := said_by_pooler(error)):
        why = f"the pooler there says: {said}; {advice(said)}"
        return PoolerError(f"Could not connect to {_place(options)}: {why}.", sqlstate=state)
    severities = {getattr(each, "severity_en", None) for each in causes(error)} - {None}
    # A server refuses a connection by nothing less; what a host's hook met there is a statement's.
    if isinstance(error, QortexDbError) or not (
        "FATAL" in severities
        or (not severities and any(isinstance(each, _NOT_SENT) for each in causes(error)))
    ):
        return translated(error)
    kind = PermissionDeniedError if state == _DENIED else UnavailableError
    why = _refusal(error, state) if severities and state else _failure(error, options)
    return kind(f"Could not connect to {_place(options)}: {why}.", sqlstate=state)


def _place(options: Mapping[str, Any]) -> str:
    hosts, ports = options.get("host"), options.get("port")
    names = hosts if isinstance(hosts, (list, tuple)) else [hosts]
    numbers = ports if isinstance(ports, (list, tuple)) else [ports] * len(names)
    places = ", ".join(map(_address, names, numbers))
    database = options.get("database") or options.get("user")
    return f"{places}, database {shown(database)}" if database else places


def _address(host: str | None, port: int | None) -> str:
    if not host:
        return "the local server"
    if host.startswith("/"):
        return escaped(f"{host}/.s.PGSQL.{port or _PORT}", 200)
    name = host.rpartition("@")[2]  # of a host's URL, it may hold the end of a password
    return escaped(f"[{name}]:{port or _PORT}" if ":" in name else f"{name}:{port or _PORT}", 200)


def _refusal(error: Exception, state: str) -> str:
    return f"the server says: {said_by_server(error, state)}; check {_to_check(state)}"


def _failure(error: Exception, options: Mapping[str, Any]) -> str:
    said = (said for each in causes(error) for said in _said_of(each, options))
    return next(said, type(error).__name__)


def _to_check(state: str) -> str:
    if state == _DENIED:
        return "the role's privileges (GRANT CONNECT)"
    if state[:2] in {"53", "57"}:
        return "again when it has room, or is ready"
    return "user, password, database and options"


def _said_of(  # noqa: C901 - a list of what is known
    cause: BaseException, options: Mapping[str, Any]
) -> Iterator[str]:
    """What an error of the system's or the driver's means; the first that is known."""
    host = options.get("host")
    if isinstance(cause, socket.gaierror):
        yield f"the host's name is unknown ({scrubbed(cause.strerror or type(cause).__name__)})"
    elif isinstance(cause, ssl.SSLCertVerificationError):
        yield f"its TLS certificate is not accepted ({scrubbed(cause.verify_message)})"
    elif isinstance(cause, ssl.SSLError):
        yield f"TLS failed ({scrubbed(cause.reason or type(cause).__name__)})"
    elif "rejected SSL upgrade" in str(cause):
        yield "it offers no TLS, which sslmode asks for"
    elif isinstance(cause, TimeoutError):
        seconds = options.get("timeout")
        yield f"no answer within {seconds:g} s" if seconds else "no answer in time (timeout)"
    elif isinstance(cause, ConnectionRefusedError):
        yield _REFUSED
    elif isinstance(cause, ConnectionResetError) or sqlstate_of(cause) == "08003":
        yield "the connection was ended before it was ready"
    elif isinstance(cause, FileNotFoundError):
        at_socket = not host or str(host).startswith("/")
        yield (
            "no such socket; check that the server runs"
            if at_socket
            else "a file that the DSN names is not there, such as sslrootcert"
        )
    elif isinstance(cause, OSError):
        # asyncio gathers those of several addresses into one.
        codes = {int(code) for code in _ERRNO.findall(str(cause))} or {cause.errno or 0}
        names = ", ".join(sorted(os.strerror(code) for code in codes if code))
        yield _REFUSED if "Connection refused" in names else names or type(cause).__name__
    elif isinstance(cause, asyncpg.TargetServerAttributeNotMatched):
        yield "no server there is as target_session_attrs wants it"
    elif isinstance(cause, asyncpg.InterfaceError):
        yield f"the driver says {said_by_driver(cause)}"
