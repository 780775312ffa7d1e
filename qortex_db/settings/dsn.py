"""Connection strings of every common form, as what SQLAlchemy's asyncpg dialect takes.

No message quotes any part of a string that could be a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from sqlalchemy import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER: Final = "postgresql+asyncpg"
_PORT: Final = 5432

_SCHEMES: Final = frozenset({"postgresql", "postgres"})
_DRIVERS: Final = frozenset({"", "asyncpg", "psycopg", "psycopg2"})
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
# asyncpg would quote a wrong value, which may be anything, and only when it connects.
_CHOICES: Final = {
    "sslmode": _SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS,
    "ssl_max_protocol_version": _TLS,
    "target_session_attrs": (
        "any", "primary", "standby", "read-write", "read-only", "prefer-standby",
    ),
    "gsslib": ("gssapi", "sspi"),
}  # fmt: skip
_INSTEAD: Final = {
    "schema": "set QORTEX_DB_SCHEMA",
    "servicefile": "set PGSERVICEFILE",
}
_NO_CHANNELS: Final = (
    "asyncpg can't bind channels: TLS is asked for, and sslmode=verify-full keeps others out"
)
# What may be left out: by these values it asks for what is so.
_LEFT_OUT: Final = {
    "channel_binding": ("disable", "prefer", "require"),  # see _NO_CHANNELS
    "client_encoding": ("utf8", "utf-8", "auto"),
    "gssencmode": ("disable", "prefer"),
    "gssdelegation": ("0",),
    "keepalives": ("0", "1"),
    "load_balance_hosts": ("disable",),
    "pgbouncer": ("true", "false"),  # in URLs for Prisma; true takes away the statement caches
    "sslcompression": ("0",),
    "sslsni": ("1",),
}
# Or for what settings of ours do: QORTEX_DB_NETWORK_TIMEOUT_SECONDS, QORTEX_DB_POOL_MAX_SIZE and
# QORTEX_DB_POOL_TIMEOUT_SECONDS.
_LEFT_TO_SETTINGS: Final = frozenset({
    "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
    "connection_limit", "pool_timeout",
})  # fmt: skip
_MARKS: Final = frozenset({"supa"})  # Vercel's, in Supabase's URLs
# asyncpg itself gives these their meaning.
_PASSED_ON: Final = frozenset({
    "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "passfile",
    "krbsrvname", "gsslib", "service",
})  # fmt: skip
CACHES: Final = frozenset({"statement_cache_size", "prepared_statement_cache_size"})
_PLACES: Final = frozenset({"host", "port", "user", "password", "dbname"})
_KNOWN: Final = (
    _PASSED_ON
    | CACHES
    | _PLACES
    | _LEFT_OUT.keys()
    | _LEFT_TO_SETTINGS
    | _MARKS
    | {"ssl", "connect_timeout", "application_name", "fallback_application_name", "options"}
)
_QUERY = re.compile(r"\?(?=([A-Za-z_]+)=)[^?]*$")
_OPTION = re.compile(r"(?:-c\s*|--)([A-Za-z_][\w.]*)=((?:\\.|[^\s\\])*)\s*")
_ENDPOINT = re.compile(r"(?:endpoint|project|reference)=[\w.-]{1,63}")  # of Neon's and Supabase's
_KEYWORD = re.compile(
    r"\s*([A-Za-z_]+)\s*=\s*(?:'((?:\\.|[^'\\])*)'|((?!')(?:\\.|[^\s\\])*))(?=\s|$)"
)


@dataclass(frozen=True)
class Target:
    """A server: what `create_async_engine(target.url, connect_args=target.connect_args)` takes.

    Attributes:
        ignored: The parameters of its DSN that make it safer, and can't be honoured: why.
    """

    url: URL
    connect_args: Mapping[str, object] = field(default_factory=dict, repr=False)
    ignored: Mapping[str, str] = field(default_factory=dict)

    @property
    def display(self) -> str:
        """Host and database, for people; with the port where it is none of PostgreSQL's own."""
        hosts: Any = self.connect_args.get("host", [self.url.host])
        ports: Any = self.connect_args.get("port", [self.url.port])
        place = ",".join(
            f"{host}:{port}" if host and port not in {None, _PORT} else str(host or "")
            for host, port in zip(hosts, ports, strict=True)
        )
        return f"{place or 'the local server'}/{self.url.database or self.url.username or ''}"


def parse_dsn(dsn: str) -> Target:
    """A server by a URL or by libpq's keywords.

    Raises:
        ValueError: The string is no DSN of PostgreSQL, or has a parameter that can't be honoured.
    """
    if not dsn.strip():
        raise ValueError("The DSN is empty; it has the form postgresql://user:password@host/db.")
    _check_characters(dsn)
    scheme, separator, rest = dsn.strip().partition("://")
    if separator and "=" not in scheme:
        return _target(*_from_url(scheme, rest))
    if "=" in dsn:
        return _target({}, _from_keywords(dsn))
    raise ValueError("The DSN has no scheme; it has the form postgresql://user:password@host/db.")


def parts_target(*, host: str, port: int, user: str, password: str, db: str) -> Target:
    """A server by its parts, checked as those of a DSN are."""
    if not (host and user and db):
        raise ValueError("The host, user and database must not be empty.")
    places = {"host": host, "port": str(port), "user": user, "password": password, "dbname": db}
    return _target(places, {})


def _check_characters(text: str) -> None:
    # Lone surrogates are bytes that were no UTF-8: the driver's error would carry the whole text.
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise ValueError("The DSN contains a control character, or bytes that are not UTF-8.")


def _decode(text: str) -> str:
    return unquote(text, errors="surrogateescape")  # _check_characters refuses what that leaves


def _from_url(scheme: str, rest: str) -> tuple[dict[str, str], dict[str, str]]:
    dialect, _, driver = scheme.lower().partition("+")
    if dialect not in _SCHEMES or driver not in _DRIVERS:
        shown = scheme if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", scheme) else "of that DSN"
        raise ValueError(f"The scheme {shown} is not PostgreSQL's; use postgresql://.")
    base, query = rest, ""
    if found := _QUERY.search(rest):
        # A password may contain `?` and `=` too: then what follows has the host's `@`.
        before, key = rest[: found.start()], found.group(1)
        if "@" in before and "@" in found.group() and key not in _KNOWN:
            raise ValueError("The DSN can be read in two ways; write ? as %3F and @ as %40.")
        if "@" in before or "@" not in found.group() or key in _KNOWN:
            base, query = before, found.group()[1:]
    elif rest.endswith("?"):
        base = rest[:-1]
    userinfo, _, place = base.rpartition("@")  # a raw password may contain `@`: the last one counts
    if "?" in place:  # it would become a part of the database's name
        raise ValueError("The DSN's query is not of the form name=value&name=value.")
    user, has_password, password = userinfo.partition(":")
    hosts, _, database = place.partition("/")
    parts = {"host": _decode(hosts), "dbname": _decode(database), "user": _decode(user)}
    if has_password:
        parts["password"] = _decode(password)
    params: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError("The DSN's query has a parameter without `=`.")
        _add(params, _decode(key), _decode(value))
    return {key: value for key, value in parts.items() if value or key == "password"}, params


def _add(params: dict[str, str], key: str, value: str) -> None:
    if key in params and key == "host":  # SQLAlchemy's own way to name several
        params[key] += f",{value}"
    else:
        params[key] = value


def _from_keywords(dsn: str) -> dict[str, str]:
    params: dict[str, str] = {}
    position = 0
    text = dsn.strip()
    while position < len(text):
        found = _KEYWORD.match(text, position)
        if found is None:
            raise ValueError(
                "The DSN is neither a URL nor a list of keyword=value; quote a value with spaces: "
                "password='two words'."
            )
        value = found.group(2) if found.group(2) is not None else found.group(3)
        params[found.group(1)] = re.sub(r"\\(.)", r"\1", value)
        position = found.end()
    return params


def _target(parts: dict[str, str], params: dict[str, str]) -> Target:
    _check_characters("".join((*parts.values(), *params.values())))  # decoded by now
    if unknown := sorted(params.keys() - _KNOWN):
        # An unescaped password may have got here: of odd names and beside `@`, none is said.
        shown = not any("@" in text for text in (*params.keys(), *params.values()))
        names = ", ".join(n if shown and n.isidentifier() else "…" for n in unknown)
        instead = "".join(f" Instead of {n}: {_INSTEAD[n]}." for n in unknown if n in _INSTEAD)
        raise ValueError(
            f"The DSN has parameters that asyncpg can't honour: {names}. Remove them, or put "
            f"server settings into options=-c%20name=value.{instead}"
        )
    for key, choices in _LEFT_OUT.items():
        if key in params and params[key].lower() not in choices:
            raise ValueError(f"The DSN's {key} can't be honoured but as {' or '.join(choices)}.")
    for key in _LEFT_TO_SETTINGS & params.keys():
        _whole(params, key)
    places = parts | {key: params[key] for key in _PLACES & params.keys()}
    hosts = _hosts(places.get("host", ""), places.get("port", ""))
    arguments = _connect_args(params)
    single = len(hosts) == 1
    if not single:
        arguments |= {"host": [host for host, _ in hosts], "port": [port for _, port in hosts]}
    database = places.get("dbname")
    if not database and "service" not in params:  # a service may name it
        database = places.get("user")
    url = URL.create(
        DRIVER,
        username=places.get("user"),
        password=places.get("password"),
        host=hosts[0][0] if single else None,
        port=hosts[0][1] if single else None,
        database=database,
    )
    ignored = {"channel_binding": _NO_CHANNELS} if _binds_channels(params) else {}
    return Target(url, arguments, ignored)


def _binds_channels(params: Mapping[str, str]) -> bool:
    return params.get("channel_binding") == "require"


def _hosts(hosts: str, ports: str) -> list[tuple[str | None, int | None]]:
    numbers = [_port(port, None) for port in ports.split(",")]
    found: list[tuple[str | None, int | None]] = []
    names = hosts.split(",")
    if len(numbers) not in {1, len(names)}:
        raise ValueError("The DSN has as many ports as hosts, or one port for all; these differ.")
    for number, name in enumerate(names):
        port = numbers[number if len(numbers) > 1 else 0]
        address, own = name, ""
        if name.startswith("["):  # IPv6
            address, bracket, tail = name[1:].partition("]")
            if not (bracket and _is_ipv6(address)) or (tail and not tail.startswith(":")):
                raise ValueError("The DSN has an IPv6 address that is not of the form [::1]:5432.")
            own = tail[1:]
        elif name.count(":") == 1:
            address, _, own = name.partition(":")
        port = _port(own, port)
        if not address and len(names) == 1:  # asyncpg looks for a socket
            found.append((None, port))
        elif address.startswith("/") or re.fullmatch(r"[\w.-]+", address) or _is_ipv6(address):
            found.append((address, port or _PORT))
        else:  # it may be a part of a password, and hosts are shown
            raise ValueError("The DSN's host is not readable; percent-encode the password.")
    return found


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _port(text: str, default: int | None) -> int | None:
    if not text:
        return default
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:  # noqa: PLR2004
        # What stands there may be the rest of a password with an unescaped `/` or `@`.
        raise ValueError(
            "The DSN's port is not a whole number from 1 to 65535. If the password contains "
            "/ or :, percent-encode it (%2F, %3A)."
        )
    return int(text)


def _passed_on(params: Mapping[str, str]) -> dict[str, str]:
    passed = {key: params[key] for key in sorted(_PASSED_ON & params.keys())}
    if "ssl" in params:
        value = params["ssl"]
        mode = {"true": "require", "false": "disable"}.get(value.lower(), value)
        if passed.setdefault("sslmode", mode) != mode:
            raise ValueError("The DSN's ssl and sslmode differ; keep sslmode.")
    if _binds_channels(params) and passed.setdefault("sslmode", "require") in _SSL_MODES[:3]:
        raise ValueError("The DSN's channel_binding=require wants sslmode=require, or verify-full.")
    for key, choices in _CHOICES.items():
        if key in passed and passed[key] not in choices:
            raise ValueError(f"The DSN's {key} is not one of {', '.join(choices)}.")
    if passed.get("sslrootcert") == "system":
        raise ValueError("asyncpg doesn't know sslrootcert=system; name a file of certificates.")
    return passed


def _connect_args(params: Mapping[str, str]) -> dict[str, object]:
    arguments: dict[str, object] = {}
    passed = _passed_on(params)
    if passed:
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in passed.items())
        arguments["dsn"] = f"postgresql://?{query}"
    if "connect_timeout" in params:
        seconds = _whole(params, "connect_timeout")
        arguments["timeout"] = float(seconds) if seconds else None
    if params.get("pgbouncer") == "true":
        arguments |= dict.fromkeys(CACHES, 0)
    for key in CACHES & params.keys():
        arguments[key] = _whole(params, key)
    if settings := _server_settings(params):
        arguments["server_settings"] = settings
    return arguments


def _whole(params: Mapping[str, str], key: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", params[key]):
        raise ValueError(f"The DSN's {key} is not a whole number.")
    return int(params[key])


def _server_settings(params: Mapping[str, str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    options, position = params.get("options", "").strip(), 0
    if _ENDPOINT.fullmatch(options):  # for those in front of the server, as they take it
        settings["options"], options = options, ""
    while position < len(options):
        found = _OPTION.match(options, position)
        if found is None:
            raise ValueError("The DSN's options are not of the form -c name=value.")
        settings[found.group(1)] = re.sub(r"\\(.)", r"\1", found.group(2))
        position = found.end()
    for key in ("fallback_application_name", "application_name"):
        if key in params:
            settings["application_name"] = params[key]
    return settings
