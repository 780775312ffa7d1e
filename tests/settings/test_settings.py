"""Settings and connection strings: what is read, in which order, and that no password shows."""

from __future__ import annotations

import json
import os
import ssl
import traceback
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest
from asyncpg import connect_utils
from pydantic import SecretStr, ValidationError
from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from qortex_db.settings import DEFAULT_DIMENSIONS, Settings, Target, parse_dsn

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "s3cr3t"  # noqa: S105 - it is looked for in messages


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PGVECTOR_", "QORTEX_", "PG")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)


def resolved(target: Target) -> tuple[list[Any], Any]:
    """What asyncpg makes of what SQLAlchemy's dialect hands to it."""
    dialect: Any = PGDialect_asyncpg
    _, arguments = dialect().create_connect_args(target.url)
    arguments |= target.connect_args
    parse = connect_utils._parse_connect_dsn_and_args
    # Its parameters grow with asyncpg's versions.
    addresses, parameters = parse(
        **{name: arguments.get(name) for name in signature(parse).parameters}
    )
    return addresses, parameters


def everything_said(error: BaseException) -> Iterator[str]:
    yield "".join(traceback.format_exception(error))
    seen: BaseException | None = error
    while seen is not None:
        yield f"{seen} {seen!r} {seen.args!r}"
        seen = seen.__cause__ or seen.__context__


# Settings


def test_nothing_set_means_the_embedded_server_and_qortex_defaults() -> None:
    settings = Settings()
    assert settings.target() is None
    assert not settings.is_given
    assert (settings.store, settings.vec) == ("sqlite", "sqlite")
    assert (settings.host, settings.port, settings.user, settings.db) == (
        "localhost", 5432, "qortex", "qortex",
    )  # fmt: skip
    assert settings.password.get_secret_value() == "qortex"
    assert not settings.otel_enabled
    assert not settings.prometheus_enabled
    assert (settings.dimensions, DEFAULT_DIMENSIONS) == (None, 384)
    assert (settings.db_schema, settings.version_table) == (None, "qortex_db_alembic_version")
    assert (settings.pool_min_size, settings.pool_max_size) == (2, 10)
    assert settings.embedded_path.parts[-2:] == (".qortex", "postgres")


@pytest.mark.parametrize(
    ("variable", "field", "text", "value"),
    [
        ("QORTEX_STORE", "store", "postgres", "postgres"),
        ("QORTEX_VEC", "vec", "pgvector", "pgvector"),
        ("PGVECTOR_HOST", "host", "db.example", "db.example"),
        ("PGVECTOR_PORT", "port", "6543", 6543),
        ("PGVECTOR_USER", "user", "me", "me"),
        ("PGVECTOR_DB", "db", "mine", "mine"),
        ("QORTEX_OTEL_ENABLED", "otel_enabled", "true", True),
        ("QORTEX_PROMETHEUS_ENABLED", "prometheus_enabled", "1", True),
        ("QORTEX_VEC_DIMENSIONS", "dimensions", "768", 768),
        ("QORTEX_DB_SCHEMA", "db_schema", "memory", "memory"),
        ("QORTEX_DB_VERSION_TABLE", "version_table", "versions", "versions"),
        ("QORTEX_DB_POOL_MIN_SIZE", "pool_min_size", "0", 0),
        ("QORTEX_DB_POOL_MAX_SIZE", "pool_max_size", "20", 20),
        ("QORTEX_DB_POOL_TIMEOUT_SECONDS", "pool_timeout_seconds", "1.5", 1.5),
        ("QORTEX_DB_CONNECT_TIMEOUT_SECONDS", "connect_timeout_seconds", "2", 2.0),
        ("QORTEX_DB_STATEMENT_TIMEOUT_SECONDS", "statement_timeout_seconds", "0", 0.0),
        ("QORTEX_DB_IDLE_PING_SECONDS", "idle_ping_seconds", "5", 5.0),
    ],
)
def test_each_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, field: str, text: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(Settings(), field) == value


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"PGVECTOR_DSN": "postgresql://a/b", "PGVECTOR_HOST": "x"}, "a/b"),
        ({"PGVECTOR_HOST": "x", "DATABASE_URL": "postgresql://c/d"}, "x/qortex"),
        ({"PGVECTOR_PASSWORD": "x", "DATABASE_URL": "postgresql://c/d"}, "localhost/qortex"),
        ({"DATABASE_URL": "postgresql://c/d", "QORTEX_STORE": "sqlite"}, "c/d"),
        ({"PGVECTOR_DSN": "", "DATABASE_URL": "postgresql://c/d"}, "c/d"),
    ],
)
def test_a_given_server_is_used_in_the_documented_order(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], place: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    target = settings.target()
    assert target is not None
    assert target.display == place
    assert settings.is_given


def test_an_argument_wins_over_every_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGVECTOR_DSN", "DATABASE_URL"):
        monkeypatch.setenv(name, "postgresql://variable/db")
    monkeypatch.setenv("PGVECTOR_HOST", "part")
    target = Settings(dsn=SecretStr("postgresql://argument/db")).target()
    assert target is not None
    assert target.display == "argument/db"


@pytest.mark.parametrize("variable", ["QORTEX_STORE", "QORTEX_VEC"])
@pytest.mark.parametrize("value", ["postgres", "pgvector"])
def test_a_flag_that_names_postgresql_uses_the_default_parts_without_giving_a_server(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    target = Settings().target()
    assert target is not None
    assert target.display == "localhost/qortex"
    assert not Settings().is_given


@pytest.mark.parametrize("variable", ["QORTEX_STORE", "QORTEX_VEC"])
def test_an_unknown_flag_is_refused_by_name_and_value(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "mysql")
    with pytest.raises(ValueError, match=rf"(?s){variable}.*'mysql'"):
        Settings()


def test_empty_variables_and_those_of_others_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PGVECTOR_DSN", "PGVECTOR_HOST", "PGVECTOR_PORT", "DATABASE_URL", "QORTEX_STORE"):
        monkeypatch.setenv(name, "")
    for name in ("QORTEX_GRAPH", "MEMGRAPH_HOST", "HOST", "USER", "PORT", "DSN"):
        monkeypatch.setenv(name, "another's")
    assert Settings().target() is None
    assert not Settings().is_given


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"pool_min_size": 5, "pool_max_size": 4}, "pool_min_size is larger"),
        ({"pool_max_size": 0}, "pool_max_size\n.*greater than or equal to 1 "),
        ({"dimensions": 0}, "dimensions\n.*greater than or equal to 1 "),
        ({"dimensions": 16_001}, "dimensions\n.*less than or equal to 16000 "),
        ({"port": 0}, "port\n.*greater than or equal to 1 "),
        ({"port": 65_536}, "port\n.*less than or equal to 65535 "),
        ({"db_schema": 'a"; DROP'}, "db_schema\n.*not an identifier"),
        ({"db_schema": "1a"}, "db_schema\n.*not an identifier"),
        ({"version_table": "a" * 64}, "version_table\n.*not an identifier"),
        ({"pool_timeout_seconds": 0}, "pool_timeout_seconds\n.*greater than 0 "),
        ({"connect_timeout_seconds": float("nan")}, "connect_timeout_seconds\n.*finite"),
        ({"statement_timeout_seconds": -1}, "statement_timeout_seconds\n.*greater than or equal"),
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(**wrong)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().store = "postgres"


def test_no_password_shows_in_settings_or_targets() -> None:
    dsn = SecretStr(f"postgresql://u:{SECRET}@h/d?sslmode=require&sslpassword={SECRET}")
    settings = Settings(dsn=dsn, database_url=dsn, password=SecretStr(SECRET))
    target = settings.target()
    assert target is not None
    for text in (settings, settings.model_dump(), settings.model_dump_json(), target):
        assert SECRET not in f"{text} {text!r}"
    assert SECRET not in target.display
    assert target.url.password == SECRET


@pytest.mark.parametrize("variable", ["PGVECTOR_DSN", "DATABASE_URL"])
@pytest.mark.parametrize(
    "dsn",
    [
        f"mysql://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h:port/d",
        f"postgresql://u:{SECRET}/x@y:{SECRET}/d",
        f"postgresql://u:{SECRET}/d",
        f"u:{SECRET}@h/d",
        f"password={SECRET} host",
        f"postgresql://u@h/d?sslmode={SECRET}",
        f"postgresql://u@h/d?connect_timeout={SECRET}",
        f"postgresql://u@h/d?options={SECRET}",
        f"postgresql://u:p@[{SECRET}/d",
    ],
)
def test_a_bad_dsn_is_refused_at_once_and_never_echoed(
    monkeypatch: pytest.MonkeyPatch, variable: str, dsn: str
) -> None:
    monkeypatch.setenv(variable, dsn)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert all(SECRET not in text for text in everything_said(caught.value))
    with pytest.raises(ValueError, match=r"\w") as caught_too:
        parse_dsn(dsn)
    assert SECRET not in str(caught_too.value)
    assert caught_too.value.__context__ is None


# Connection strings


@pytest.mark.parametrize("driver", ["", "+asyncpg", "+psycopg", "+psycopg2"])
@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_every_scheme_of_postgresql_becomes_asyncpg(scheme: str, driver: str) -> None:
    target = parse_dsn(f"{scheme}{driver}://u:p@h:6543/d")
    assert target.url == make_url("postgresql+asyncpg://u:p@h:6543/d")
    assert not target.connect_args


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("p%40%3A%2F%25%2B%20w", "p@:/%+ w"),
        ("p@:/%+ w", "p@:/%+ w"),
        ("a+b", "a+b"),
        ("100%", "100%"),
        ("50%zz", "50%zz"),
        ("a#b", "a#b"),
        ("a?b", "a?b"),
        ("a%C3%A9", "aé"),
        ("p@ss:w/rd", "p@ss:w/rd"),
    ],
)
def test_passwords_are_read_encoded_and_raw(written: str, password: str) -> None:
    target = parse_dsn(f"postgresql://u:{written}@h:5433/d?sslmode=disable")
    addresses, parameters = resolved(target)
    assert addresses == [("h", 5433)]
    assert (parameters.user, parameters.password, parameters.database) == ("u", password, "d")


@pytest.mark.parametrize(
    ("dsn", "addresses"),
    [
        ("postgresql://u@h/d", [("h", 5432)]),
        ("postgresql://u@[::1]:5433/d", [("::1", 5433)]),
        ("postgresql://u@[::1]/d", [("::1", 5432)]),
        ("postgresql://u@/d?host=/var/run/x", ["/var/run/x/.s.PGSQL.5432"]),
        ("postgresql://u@%2Fvar%2Frun/d", ["/var/run/.s.PGSQL.5432"]),
        ("postgresql://u@%2Fvar%2Frun:5433/d", ["/var/run/.s.PGSQL.5433"]),
        ("postgresql://u@h1:1,h2:2/d", [("h1", 1), ("h2", 2)]),
        ("postgresql://u@h1,h2/d?port=7", [("h1", 7), ("h2", 7)]),
        ("postgresql://u@h1:1,[::1]:2,h3/d", [("h1", 1), ("::1", 2), ("h3", 5432)]),
        ("postgresql://u@/d?host=h1,h2&port=1,2", [("h1", 1), ("h2", 2)]),
        ("postgresql://u@/d?host=h1:1&host=h2:2", [("h1", 1), ("h2", 2)]),
        ("host=h port=5433 user=u dbname=d", [("h", 5433)]),
        ("host=/run/x user=u dbname=d", ["/run/x/.s.PGSQL.5432"]),
        ("host=h1,h2 port=1,2 user=u dbname=d", [("h1", 1), ("h2", 2)]),
    ],
)
def test_hosts_ports_and_sockets_are_found(dsn: str, addresses: list[object]) -> None:
    found, parameters = resolved(parse_dsn(dsn))
    assert found == addresses
    assert (parameters.user, parameters.database) == ("u", "d")


def test_a_dsn_without_a_host_leaves_the_socket_to_asyncpg() -> None:
    addresses, parameters = resolved(parse_dsn("postgresql://u@/d"))
    assert any(str(address).endswith("/.s.PGSQL.5432") for address in addresses)
    assert parameters.user == "u"


def test_a_dsn_without_a_database_means_the_users() -> None:
    target = parse_dsn("postgresql://u@h")
    assert resolved(target)[1].database == "u"
    assert target.display == "h/u"


def test_libpq_keywords_take_quotes_and_escapes() -> None:
    target = parse_dsn(r"host = h dbname='my db' user=u password='it\'s a \\ + %41'")
    assert (target.url.database, target.url.password) == ("my db", r"it's a \ + %41")


@pytest.mark.parametrize(
    ("mode", "verify", "names"),
    [
        ("prefer", ssl.CERT_NONE, False),
        ("require", ssl.CERT_NONE, False),
    ],
)
def test_asyncpg_is_told_the_sslmode(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    verify: ssl.VerifyMode,
    names: bool,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # its root.crt would count
    for key in ("sslmode", "ssl"):
        _, parameters = resolved(parse_dsn(f"postgresql://u@h/d?{key}={mode}"))
        assert parameters.sslmode.name == mode
        assert (parameters.ssl.verify_mode, parameters.ssl.check_hostname) == (verify, names)


def test_files_of_certificates_reach_asyncpg() -> None:
    dsn = "postgresql://u@h/d?sslmode=verify-full&sslrootcert=/no/such%20file.pem"
    with pytest.raises(FileNotFoundError):
        resolved(parse_dsn(dsn))


def test_other_parameters_are_translated() -> None:
    target = parse_dsn(
        "postgresql://u@h/d?connect_timeout=3&application_name=me%20too&sslmode=disable"
        "&options=-c%20search_path%3Da,b%20-cjit=off%20--work_mem=1MB&target_session_attrs=primary"
        "&statement_cache_size=0&prepared_statement_cache_size=0"
    )
    _, parameters = resolved(target)
    assert parameters.server_settings == {
        "application_name": "me too", "search_path": "a,b", "jit": "off", "work_mem": "1MB",
    }  # fmt: skip
    assert parameters.target_session_attrs.value == "primary"
    assert target.connect_args["timeout"] == 3.0
    assert target.connect_args["statement_cache_size"] == 0
    assert target.connect_args["prepared_statement_cache_size"] == 0


def test_a_connect_timeout_of_zero_means_none() -> None:
    assert parse_dsn("host=h connect_timeout=0").connect_args["timeout"] is None


@pytest.mark.parametrize(
    "name",
    ["gssencmode", "keepalives", "keepalives_idle", "tcp_user_timeout",
     "client_encoding", "hostaddr", "require_auth", "schema", "pgbouncer", "servicefile"],
)  # fmt: skip
def test_parameters_that_cannot_be_honoured_are_refused_by_name(name: str) -> None:
    for dsn in (f"postgresql://u:p@h/d?{name}=require", f"host=h {name}=require"):
        with pytest.raises(ValueError, match=name):
            parse_dsn(dsn)


STOCK = {
    "Neon": (
        "postgresql://u:p@ep-cool-1-pooler.us-east-2.aws.neon.tech/d"
        "?sslmode=require&channel_binding=require"
    ),
    "Neon, for clients without SNI": (
        "postgresql://u:p@ep-cool-1.us-east-2.aws.neon.tech/d?sslmode=require"
        "&options=endpoint%3Dep-cool-1"
    ),
    "Supabase": "postgresql://u.abc:p@aws-0-eu-central-1.pooler.supabase.com:6543/d",
    "Supabase, for Prisma": (
        "postgres://u.abc:p@aws-0-eu-central-1.pooler.supabase.com:6543/d"
        "?pgbouncer=true&connection_limit=1"
    ),
    "Supabase, by Vercel": (
        "postgres://u.abc:p@aws-0-us-east-1.pooler.supabase.com:6543/d"
        "?sslmode=require&supa=base-pooler.x"
    ),
    "RDS": (
        "host=m.abc.us-east-1.rds.amazonaws.com port=5432 dbname=d user=u password=p "
        "sslmode=require"
    ),
    "Azure": (
        "host=m.postgres.database.azure.com port=5432 dbname=d user=u password=p sslmode=require"
    ),
    "Azure, with the server in the user": (
        "postgres://u%40m:p@m.postgres.database.azure.com:5432/d?sslmode=require"
    ),
    "Heroku": "postgres://u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d",
    "Cloud SQL": "postgresql://u:p@/d?host=/cloudsql/project:region:instance",
    "DigitalOcean": "postgresql://u:p@m.db.ondigitalocean.com:25060/d?sslmode=require",
    "Django": (
        "postgresql://u:p@h/d?client_encoding=UTF8&gssencmode=prefer&keepalives=1"
        "&keepalives_idle=30&keepalives_interval=10&keepalives_count=5&tcp_user_timeout=1000"
        "&application_name=me&fallback_application_name=other"
    ),
}


@pytest.mark.parametrize("provider", STOCK)
def test_what_providers_print_is_taken(provider: str) -> None:
    target = parse_dsn(STOCK[provider])
    addresses, parameters = resolved(target)
    assert len(addresses) == 1
    assert (parameters.password, parameters.database) == ("p", "d")
    assert parameters.user.startswith("u")
    wanted = "require" if "require" in STOCK[provider] else "prefer"
    if not str(addresses[0]).startswith("/"):
        assert parameters.sslmode.name == wanted
    settings = parameters.server_settings or {}
    if "endpoint" in STOCK[provider]:
        assert settings == {"options": "endpoint=ep-cool-1"}
    assert settings.get("application_name") == ("me" if provider == "Django" else None)
    for key in ("statement_cache_size", "prepared_statement_cache_size"):
        assert target.connect_args.get(key) == (0 if "pgbouncer" in STOCK[provider] else None)
    assert list(target.ignored) == (["channel_binding"] if provider == "Neon" else [])


def test_channels_that_cannot_be_bound_are_at_least_encrypted() -> None:
    _, parameters = resolved(parse_dsn("postgresql://u@h/d?channel_binding=require"))
    assert parameters.sslmode.name == "require"
    for mode in ("disable", "allow", "prefer"):
        with pytest.raises(ValueError, match="channel_binding=require wants sslmode=require"):
            parse_dsn(f"postgresql://u@h/d?channel_binding=require&sslmode={mode}")


@pytest.mark.parametrize("password", ["p", "p@:/%+ w?#é"])
def test_a_url_of_sqlalchemy_is_taken_as_it_is(password: str) -> None:
    url = make_url("postgresql+psycopg2://u@h:6543/d?sslmode=require").set(password=password)
    for field in ("dsn", "database_url"):
        target = Settings(**{field: url}).target()
        assert target is not None
        addresses, parameters = resolved(target)
        assert addresses == [("h", 6543)]
        assert (parameters.user, parameters.password, parameters.database) == ("u", password, "d")


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("h/d", "no scheme"),
        ("mysql://h/d", "mysql"),
        ("sqlite:///d", "sqlite"),
        ("http://h/d", "http"),
        ("postgresql+pg8000://h/d", "pg8000"),
        ("postgresql://h:0/d", "port"),
        ("postgresql://h:65536/d", "port"),
        ("postgresql://h:x/d", "port"),
        ("postgresql://h1,h2/d?port=1,2,3", "ports"),
        ("postgresql://[::1/d", "IPv6"),
        ("postgresql://h/d\0", "control"),
        ("postgresql://h/\nd", "control"),
        ("postgresql://h/d?sslmode=on", "sslmode.*verify-full"),
        ("postgresql://h/d?sslmode=require&x", "without `=`"),
        ("postgresql://h/d?options=jit", "options"),
        ("host=h password='open", "keyword=value"),
    ],
)
def test_what_is_no_dsn_is_refused_with_its_fault(dsn: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_dsn(dsn)


# What was once wrong


def test_kubernetes_variables_of_a_service_called_qortex_db_are_not_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QORTEX_DB_PORT", "tcp://10.0.0.1:5432")
    monkeypatch.setenv("QORTEX_DB_HOST", "10.0.0.1")
    assert Settings().target() is None
    assert not Settings().is_given


def test_a_refused_dsn_is_in_no_part_of_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVECTOR_PASSWORD", SECRET)
    with pytest.raises(ValidationError) as caught:
        Settings(dsn=SecretStr(f"mysql://u:{SECRET}@h"), database_url=SecretStr(SECRET))
    monkeypatch.setenv("PGVECTOR_DSN", f"mysql://u:{SECRET}@h")
    with pytest.raises(ValidationError) as by_variable:
        Settings()
    for error in (caught.value, by_variable.value):
        assert SECRET not in f"{error.errors()} {error.json()}"
        assert all(SECRET not in text for text in everything_said(error))
        assert "mysql" in str(error)


def test_an_error_names_the_variable_and_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QORTEX_DB_VERSION_TABLE", "a b")
    monkeypatch.setenv("PGVECTOR_PORT", "99999")
    with pytest.raises(ValidationError) as caught:
        Settings()
    found = json.loads(caught.value.json())
    assert [problem["loc"] for problem in found] == [["PGVECTOR_PORT"], ["QORTEX_DB_VERSION_TABLE"]]
    assert "65535" in found[0]["msg"]


def test_a_statement_may_have_no_timeout() -> None:
    assert Settings(statement_timeout_seconds=None).statement_timeout_seconds is None


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("[::1]", [("::1", 5433)]),
        ("::1", [("::1", 5433)]),
        ("/run/x", ["/run/x/.s.PGSQL.5433"]),
        ("h1,h2", [("h1", 5433), ("h2", 5433)]),
    ],
)
def test_the_host_variable_takes_what_a_dsn_does(host: str, addresses: list[object]) -> None:
    target = Settings(host=host, port=5433).target()
    assert target is not None
    assert resolved(target)[0] == addresses


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"host": ""}, "must not be empty"),
        ({"user": ""}, "must not be empty"),
        ({"db": "a\0b"}, "control character"),
        ({"host": "a b"}, "host is not readable"),
    ],
)
def test_parts_that_name_no_server_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(**wrong)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:{SECRET}:x:h/d",
        f"postgresql://u:p@{SECRET}:x:h/d",
        f"postgresql://u:p@ss?cret={SECRET}@h/d",
        f"postgresql://u:p@ss?cret=x&{SECRET}=x@h/d",
        f"postgresql://u:p@ss?ssl=x&{SECRET}=x@h/d",
        f"postgresql://u:{SECRET}%00@h/d",
        f"postgresql://u:{SECRET}%ff@h/d",
        f"postgresql://u:{SECRET}\udcff@h/d",
        f"postgresql://u:p@h/d?target_session_attrs={SECRET}",
        f"postgresql://u:p@h/d?ssl_min_protocol_version={SECRET}",
        f"postgresql://u:p@h/d?gsslib={SECRET}",
    ],
)
def test_secrets_in_the_wrong_place_are_not_said(dsn: str) -> None:
    with pytest.raises(ValueError, match="DSN") as caught:
        parse_dsn(dsn)
    assert all(SECRET not in text for text in (str(caught.value), repr(caught.value)))
    assert caught.value.__context__ is None


def test_ssl_never_weakens_sslmode() -> None:
    for query in ("sslmode=verify-full&ssl=true", "ssl=disable&sslmode=require"):
        with pytest.raises(ValueError, match="differ"):
            parse_dsn(f"postgresql://u@h/d?{query}")
    arguments = parse_dsn("postgresql://u@h/d?sslmode=require&ssl=true").connect_args
    assert arguments == {"dsn": "postgresql://?sslmode=require"}


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("postgresql://h1,,h2/d", "host"),
        ("postgresql://h a/d", "host"),
        ("postgresql://[x]/d", "IPv6"),
        ("postgresql://h/d?sslmode", "name=value"),
        ("postgresql://h/d%00", "control"),
        ("postgresql://h/d?application_name=%0A", "control"),
        ("postgresql://h/d?port=" + "9" * 5000, "port"),
        ("postgresql://h/d?sslmode=verify-full&sslrootcert=system", "name a file"),
        ("postgresql://h/d?schema=x", "QORTEX_DB_SCHEMA"),
    ],
)
def test_a_dsn_that_can_be_misread_is_refused_with_what_to_do(dsn: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_dsn(dsn)


@pytest.mark.parametrize(
    ("dsn", "addresses"),
    [
        ("postgresql://u@[fe80::1%25eth0]:1/d", [("fe80::1%eth0", 1)]),
        ("host=/run/a%20b user=u dbname=d", ["/run/a%20b/.s.PGSQL.5432"]),
        ("host=h user=u dbname=d password=it's", [("h", 5432)]),
    ],
)
def test_hosts_are_decoded_once_and_only_in_urls(dsn: str, addresses: list[object]) -> None:
    assert resolved(parse_dsn(dsn))[0] == addresses


def test_a_port_without_a_host_is_the_sockets() -> None:
    addresses, _ = resolved(parse_dsn("postgresql://u@:5433/d"))
    assert addresses[0].endswith("/.s.PGSQL.5433")


def test_the_users_database_is_meant_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGDATABASE", "another")
    assert resolved(parse_dsn("postgresql://u@h"))[1].database == "u"


def test_a_pooler_in_transaction_mode_has_no_prepared_statements() -> None:
    caches = ("statement_cache_size", "prepared_statement_cache_size")
    plain = Settings(dsn="postgresql://u@h/d").target()
    pooled = Settings(
        dsn="postgresql://u@h/d?application_name=me&options=-c%20TimeZone%3DUTC",
        pooler="transaction",
        password_provider=lambda: "p",
    ).target()
    own = Settings(dsn="postgresql://u@h/d?statement_cache_size=9", pooler="transaction").target()
    assert plain is not None
    assert pooled is not None
    assert own is not None
    assert not plain.connect_args.keys() & set(caches)
    assert [pooled.connect_args[name] for name in caches] == [0, 0]
    assert "password" in pooled.connect_args
    assert [own.connect_args[name] for name in caches] == [9, 0]
    assert Settings(pooler="transaction").target() is None


def test_a_pooler_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QORTEX_DB_POOLER", "transaction")
    monkeypatch.setenv("PGVECTOR_HOST", "h")
    target = Settings().target()
    assert target is not None
    assert target.connect_args["statement_cache_size"] == 0
    monkeypatch.setenv("QORTEX_DB_POOLER", "session")
    with pytest.raises(ValidationError, match="QORTEX_DB_POOLER"):
        Settings()


def test_options_that_a_pooler_does_not_take_are_refused_without_their_values() -> None:
    dsn = "postgresql://u@h/d?options=-c%20app.tenant%3Dsecret%20-c%20work_mem%3D8MB"
    with pytest.raises(ValidationError, match=r"app\.tenant, work_mem.*with_settings") as caught:
        Settings(dsn=dsn, pooler="transaction")
    assert "secret" not in str(caught.value)
    endpoint = "postgresql://u@h/d?options=endpoint%3Dep-1"
    assert Settings(dsn=endpoint, pooler="transaction").target() is not None
