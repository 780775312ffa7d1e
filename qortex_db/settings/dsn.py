"""Connection strings of every common form, as what SQLAlchemy's asyncpg dialect takes.

No message quotes any part of a string that could be a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from sqlalchemy import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER: Final = "postgresql+asyncpg"

_SCHEMES: Final = frozenset({"postgresql", "postgres"})
_DRIVERS: Final = frozenset({"", "asyncpg", "psycopg", "psycopg2"})
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# asyncpg itself gives these their meaning.
_PASSED_ON: Final = frozenset({
    "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "passfile",
    "krbsrvname", "gsslib", "service",
})  # fmt: skip
_CACHES: Final = frozenset({"statement_cache_size", "prepared_statement_cache_size"})
_PLACES: Final = frozenset({"host", "port", "user", "password", "dbname"})
_KNOWN: Final = (
    _PASSED_ON | _CACHES | _PLACES | {"ssl", "connect_timeout", "application_name", "options"}
)
_QUERY = re.compile(r"\?(?=([A-Za-z_]+)=)[^?]*$")
_OPTION = re.compile(r"(?:-c\s*|--)([A-Za-z_.]+)=((?:\\.|[^\s\\])*)\s*")
_KEYWORD = re.compile(r"\s*([A-Za-z_]+)\s*=\s*(?:'((?:\\.|[^'\\])*)'|((?:\\.|[^\s\\'])*))(?=\s|$)")


@dataclass(frozen=True)
class Target:
    """A server: what `create_async_engine(target.url, connect_args=target.connect_args)` takes."""

    url: URL
    connect_args: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def display(self) -> str:
        """Host and database, for people."""
        hosts = self.connect_args.get("host")
        place = ",".join(map(str, hosts)) if isinstance(hosts, list) else self.url.host
        return f"{place or 'the local server'}/{self.url.database or self.url.username or ''}"


def parse_dsn(dsn: str) -> Target:
    """A server by a URL or by libpq's keywords.

    Raises:
        ValueError: The string is no DSN of PostgreSQL, or has a parameter that can't be honoured.
    """
    if not dsn.strip():
        raise ValueError("The DSN is empty; it has the form postgresql://user:password@host/db.")
    if any(ord(character) < 32 or ord(character) == 127 for character in dsn):  # noqa: PLR2004
        raise ValueError("The DSN contains a control character.")
    scheme, separator, rest = dsn.strip().partition("://")
    if separator and "=" not in scheme:
        return _target(*_from_url(scheme, rest))
    if "=" in dsn:
        return _target({}, _from_keywords(dsn))
    raise ValueError("The DSN has no scheme; it has the form postgresql://user:password@host/db.")


def _from_url(scheme: str, rest: str) -> tuple[dict[str, str], dict[str, str]]:
    dialect, _, driver = scheme.lower().partition("+")
    if dialect not in _SCHEMES or driver not in _DRIVERS:
        shown = scheme if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", scheme) else "of that DSN"
        raise ValueError(f"The scheme {shown} is not PostgreSQL's; use postgresql://.")
    base, query = rest, ""
    if found := _QUERY.search(rest):
        # A password may contain `?` and `=` too: then what follows has the host's `@`.
        before, key = rest[: found.start()], found.group(1)
        if "@" in before or "@" not in found.group() or key in _KNOWN:
            base, query = before, found.group()[1:]
    elif rest.endswith("?"):
        base = rest[:-1]
    userinfo, _, place = base.rpartition("@")  # a raw password may contain `@`: the last one counts
    user, has_password, password = userinfo.partition(":")
    hosts, _, database = place.partition("/")
    parts = {"host": hosts, "dbname": unquote(database), "user": unquote(user)}
    if has_password:
        parts["password"] = unquote(password)
    params: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError("The DSN's query has a parameter without `=`.")
        _add(params, unquote(key), unquote(value))
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
    if unknown := sorted(params.keys() - _KNOWN):
        names = ", ".join(name if name.isidentifier() else "…" for name in unknown)
        raise ValueError(
            f"The DSN has parameters that asyncpg can't honour: {names}. Remove them, or put "
            "server settings into options=-c%20name=value."
        )
    places = parts | {key: params[key] for key in _PLACES & params.keys()}
    hosts = _hosts(places.get("host", ""), params.get("port", ""))
    arguments = _connect_args(params)
    single = len(hosts) == 1
    if not single:
        arguments |= {"host": [host for host, _ in hosts], "port": [port for _, port in hosts]}
    url = URL.create(
        DRIVER,
        username=places.get("user"),
        password=places.get("password"),
        host=hosts[0][0] if single else None,
        port=hosts[0][1] if single and hosts[0][0] else None,
        database=places.get("dbname"),
    )
    return Target(url, arguments)


def _hosts(hosts: str, ports: str) -> list[tuple[str | None, int]]:
    numbers = [_port(port) for port in ports.split(",")]
    found: list[tuple[str | None, int]] = []
    names = hosts.split(",")
    if len(numbers) not in {1, len(names)}:
        raise ValueError("The DSN has as many ports as hosts, or one port for all; these differ.")
    for number, name in enumerate(names):
        port = numbers[number if len(numbers) > 1 else 0]
        if name.startswith("["):  # IPv6
            address, bracket, tail = name[1:].partition("]")
            if not bracket or (tail and not tail.startswith(":")):
                raise ValueError("The DSN has an IPv6 address that is not of the form [::1]:5432.")
            found.append((address, _port(tail[1:], port)))
        elif name.count(":") == 1:
            host, _, own = name.partition(":")
            found.append((unquote(host) or None, _port(own, port)))
        else:
            found.append((unquote(name) or None, port))
    if any(host and "@" in host for host, _ in found):
        raise ValueError("The DSN's host is not readable; percent-encode the password.")
    return found


def _port(text: str, default: int = 5432) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 65_535:  # noqa: PLR2004
        # What stands there may be the rest of a password with an unescaped `/` or `@`.
        raise ValueError(
            "The DSN's port is not a whole number from 1 to 65535. If the password contains "
            "/ or :, percent-encode it (%2F, %3A)."
        )
    return int(text)


def _connect_args(params: Mapping[str, str]) -> dict[str, object]:
    arguments: dict[str, object] = {}
    passed = {key: params[key] for key in sorted(_PASSED_ON & params.keys())}
    if "ssl" in params:
        value = params["ssl"]
        passed["sslmode"] = {"true": "require", "false": "disable"}.get(value.lower(), value)
    if passed.get("sslmode", "prefer") not in _SSL_MODES:
        raise ValueError(f"The DSN's sslmode is not one of {', '.join(_SSL_MODES)}.")
    if passed:
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in passed.items())
        arguments["dsn"] = f"postgresql://?{query}"
    if "connect_timeout" in params:
        seconds = _whole(params, "connect_timeout")
        arguments["timeout"] = float(seconds) if seconds else None
    for key in _CACHES & params.keys():
        arguments[key] = _whole(params, key)
    if settings := _server_settings(params):
        arguments["server_settings"] = settings
    return arguments


def _whole(params: Mapping[str, str], key: str) -> int:
    if not (params[key].isascii() and params[key].isdigit()):
        raise ValueError(f"The DSN's {key} is not a whole number.")
    return int(params[key])


def _server_settings(params: Mapping[str, str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    options, position = params.get("options", "").strip(), 0
    while position < len(options):
        found = _OPTION.match(options, position)
        if found is None:
            raise ValueError("The DSN's options are not of the form -c name=value.")
        settings[found.group(1)] = re.sub(r"\\(.)", r"\1", found.group(2))
        position = found.end()
    if "application_name" in params:
        settings["application_name"] = params["application_name"]
    return settings
