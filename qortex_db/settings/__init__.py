"""The settings: the only reader of the environment."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    Field,
    ImportString,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL

from qortex_db.errors import InvalidInputError
from qortex_db.limits import DEEPEST, DEFAULT_LIMITS, MOST_PROBED, Complete, Limits
from qortex_db.names import is_identifier
from qortex_db.settings.dsn import (
    DRIVER,
    Target,
    parse_dsn,
    parts_target,
)
from qortex_db.settings.pooled import through_transaction_pooler

DEFAULT_DIMENSIONS: Final = 384
"""What a first upgrade makes the embedding column hold, unless told otherwise."""

_PARTS = ("host", "port", "user", "password", "db")
_LOCAL = "sqlite"
_BETWEEN_DSNS: Final = re.compile(r"\s*\n\s*|\s+(?=postgres(?:ql)?(?:\+\w+)?://)")
_SERVER = ("postgres", "pgvector")

PasswordProvider: TypeAlias = Callable[[], str | Awaitable[str]]
"""Gives the password of a new connection, now or when it is awaited."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Most = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Settings(BaseSettings):
    """What qortex-db is told by arguments, or else by the environment.

    A server is given by a DSN, by any `PGVECTOR_*` variable or by `DATABASE_URL`. Where none is,
    and neither `QORTEX_STORE` nor `QORTEX_VEC` names PostgreSQL, it is an embedded one.
    """

    model_config = SettingsConfigDict(
        # Every variable is an alias. A field's own name is none: Kubernetes sets QORTEX_DB_PORT for
        # a service called qortex-db, and no variable's name has an equals sign.
        env_prefix="=",
        defer_build=True,  # a host that passes its engine never asks for settings
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    store: str = Field(default=_LOCAL, validation_alias="QORTEX_STORE")
    vec: str = Field(default=_LOCAL, validation_alias="QORTEX_VEC")
    dsn: SecretStr | None = Field(default=None, validation_alias="PGVECTOR_DSN")
    host: str = Field(default="localhost", validation_alias="PGVECTOR_HOST")
    port: int = Field(default=5432, ge=1, le=65_535, validation_alias="PGVECTOR_PORT")
    user: str = Field(default="qortex", validation_alias="PGVECTOR_USER")
    password: SecretStr = Field(default=SecretStr("qortex"), validation_alias="PGVECTOR_PASSWORD")
    password_provider: ImportString[PasswordProvider] | None = Field(  # before every password
        default=None,
        validation_alias="QORTEX_DB_PASSWORD_PROVIDER",
        exclude=True,
        repr=False,
    )
    db: str = Field(default="qortex", validation_alias="PGVECTOR_DB")
    database_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_URL")
    otel_enabled: bool = Field(default=False, validation_alias="QORTEX_OTEL_ENABLED")
    otel_statements: bool = Field(default=True, validation_alias="QORTEX_OTEL_STATEMENTS")
    otlp_endpoint: str | None = Field(
        default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT", repr=False
    )
    otlp_protocol: str = Field(default="grpc", validation_alias="OTEL_EXPORTER_OTLP_PROTOCOL")
    prometheus_enabled: bool = Field(default=False, validation_alias="QORTEX_PROMETHEUS_ENABLED")
    prometheus_port: int = Field(
        default=9464, ge=1, le=65_535, validation_alias="QORTEX_PROMETHEUS_PORT"
    )
    dimensions: int | None = Field(
        default=None, ge=1, le=16_000, validation_alias="QORTEX_VEC_DIMENSIONS"
    )
    db_schema: str | None = Field(default=None, validation_alias="QORTEX_DB_SCHEMA")
    version_table: str = Field(
        default="qortex_db_alembic_version", validation_alias="QORTEX_DB_VERSION_TABLE"
    )
    pool: Literal["fair", "null"] = Field(  # null: each call has a connection of its own
        default="fair", validation_alias="QORTEX_DB_POOL"
    )
    pooler: Literal["transaction"] | None = Field(  # None: none, or one that needs nothing
        default=None, validation_alias="QORTEX_DB_POOLER"
    )
    pool_min_size: int = Field(default=2, ge=0, validation_alias="QORTEX_DB_POOL_MIN_SIZE")
    pool_max_size: int = Field(default=10, ge=1, validation_alias="QORTEX_DB_POOL_MAX_SIZE")
    pool_timeout_seconds: Seconds = Field(
        default=30.0, validation_alias="QORTEX_DB_POOL_TIMEOUT_SECONDS"
    )
    max_waiting: int | None = Field(  # None: as many as will have a connection in time
        default=None, ge=0, validation_alias="QORTEX_DB_MAX_WAITING"
    )
    connect_timeout_seconds: Seconds = Field(
        default=5.0, validation_alias="QORTEX_DB_CONNECT_TIMEOUT_SECONDS"
    )
    network_timeout_seconds: Seconds = Field(
        default=10.0, validation_alias="QORTEX_DB_NETWORK_TIMEOUT_SECONDS"
    )
    statement_timeout_seconds: float | None = Field(  # 0 or None: as long as it takes
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        validation_alias="QORTEX_DB_STATEMENT_TIMEOUT_SECONDS",
    )
    idle_ping_seconds: Seconds = Field(default=30.0, validation_alias="QORTEX_DB_IDLE_PING_SECONDS")
    retry_seconds: float = Field(  # 0: never
        default=5.0, ge=0, allow_inf_nan=False, validation_alias="QORTEX_DB_RETRY_SECONDS"
    )
    migration_timeout_seconds: Seconds = Field(
        default=600.0, validation_alias="QORTEX_DB_MIGRATION_TIMEOUT_SECONDS"
    )
    encryption_keys: SecretStr | None = Field(  # newest first, with commas between them
        default=None, validation_alias="QORTEX_DB_ENCRYPTION_KEYS"
    )
    replica_dsns: SecretStr | None = Field(  # URLs with spaces between them, or lines, or a list
        default=None, validation_alias="QORTEX_DB_REPLICA_DSNS"
    )
    consistency: Literal["eventual", "session", "strong"] | None = Field(
        default=None, validation_alias="QORTEX_DB_CONSISTENCY"
    )
    replica_wait_seconds: float = Field(  # 0: the primary answers at once
        default=0.0, ge=0, le=60, validation_alias="QORTEX_DB_REPLICA_WAIT_SECONDS"
    )
    import_api_key: SecretStr | None = Field(  # of the source of an import
        default=None, validation_alias="QORTEX_DB_IMPORT_API_KEY"
    )
    learning_history: bool = Field(default=False, validation_alias="QORTEX_LEARNING_HISTORY")
    max_payload_bytes: _Most = Field(
        default=DEFAULT_LIMITS.max_payload_bytes, validation_alias="QORTEX_DB_MAX_PAYLOAD_BYTES"
    )
    max_payload_depth: int = Field(
        default=DEFAULT_LIMITS.max_payload_depth,
        ge=1,
        le=DEEPEST,
        validation_alias="QORTEX_DB_MAX_PAYLOAD_DEPTH",
    )
    max_key_bytes: _Most = Field(
        default=DEFAULT_LIMITS.max_key_bytes, validation_alias="QORTEX_DB_MAX_KEY_BYTES"
    )
    max_document_bytes: _Most = Field(
        default=DEFAULT_LIMITS.max_document_bytes, validation_alias="QORTEX_DB_MAX_DOCUMENT_BYTES"
    )
    max_filter_values: _Most = Field(
        default=DEFAULT_LIMITS.max_filter_values, validation_alias="QORTEX_DB_MAX_FILTER_VALUES"
    )
    max_filter_bytes: _Most = Field(
        default=DEFAULT_LIMITS.max_filter_bytes, validation_alias="QORTEX_DB_MAX_FILTER_BYTES"
    )
    max_search_many_hits: _Most = Field(
        default=DEFAULT_LIMITS.max_search_many_hits,
        validation_alias="QORTEX_DB_MAX_SEARCH_MANY_HITS",
    )
    max_items: _Most = Field(
        default=DEFAULT_LIMITS.max_items, validation_alias="QORTEX_DB_MAX_ITEMS"
    )
    max_context_bytes: _Most = Field(
        default=DEFAULT_LIMITS.max_context_bytes, validation_alias="QORTEX_DB_MAX_CONTEXT_BYTES"
    )
    complete: Complete = Field(
        default=DEFAULT_LIMITS.complete, validation_alias="QORTEX_DB_COMPLETE"
    )
    max_compared_rows: _Most = Field(
        default=DEFAULT_LIMITS.max_compared_rows, validation_alias="QORTEX_DB_MAX_COMPARED_ROWS"
    )
    max_probed_rows: int = Field(  # 0: never
        default=DEFAULT_LIMITS.max_probed_rows,
        ge=0,
        le=MOST_PROBED,
        validation_alias="QORTEX_DB_MAX_PROBED_ROWS",
    )
    slow_call_seconds: float | None = Field(
        default=DEFAULT_LIMITS.slow_call_seconds,
        ge=0,
        le=86_400,
        validation_alias="QORTEX_DB_SLOW_CALL_SECONDS",
    )
    metrics_seconds: float | None = Field(  # how often gauges are read; None: never
        default=None, ge=0.1, le=86_400, validation_alias="QORTEX_DB_METRICS_SECONDS"
    )
    embedded_path: Path = Field(
        default=Path("~/.qortex/postgres"), validation_alias="QORTEX_DB_EMBEDDED_PATH"
    )
    metadata: str | None = Field(default=None, validation_alias="QORTEX_DB_METADATA")
    test_dsn: SecretStr | None = Field(  # for tests alone; never the server of a Database
        default=None, validation_alias="QORTEX_DB_TEST_DSN"
    )

    @field_validator("store", "vec")
    @classmethod
    def _check_flag(cls, value: str) -> str:
        value = value.strip().lower()
        if value != _LOCAL and value not in _SERVER:
            raise ValueError(
                f"{value[:40]!r} is not known; use {_LOCAL} (no server of your own), "
                f"{' or '.join(_SERVER)}"
            )
        return value

    @field_validator("dsn", "database_url", mode="before")
    @classmethod
    def _take_url(cls, value: object) -> object:
        return SecretStr(_dsn_of(value)) if isinstance(value, URL) else value

    @field_validator("replica_dsns", mode="before")
    @classmethod
    def _take_dsns(cls, value: object) -> object:
        if not isinstance(value, (list, tuple)):
            return value
        if not all(isinstance(each, (str, URL)) for each in value):
            raise ValueError("not a list of DSNs")
        return SecretStr("\n".join(map(_dsn_of, value)))

    @field_validator("db_schema", "version_table")
    @classmethod
    def _check_identifier(cls, value: str | None) -> str | None:
        if value is not None and not is_identifier(value):
            raise ValueError("not an identifier of 1 to 63 letters, digits, _ and $")
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.pool_min_size > self.pool_max_size:
            raise ValueError("pool_min_size is larger than pool_max_size")
        self.target()  # a DSN that can't be used is refused here, not at the first query
        self.replicas()
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, values: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(values, dict):  # pydantic-settings 2.6, 2.7: variables beat arguments
            beaten = {f.validation_alias for name, f in cls.model_fields.items() if name in values}
            values = {name: value for name, value in values.items() if name not in beaten}
        # hide_input_in_errors keeps a DSN out of the message, not out of errors() and json().
        try:
            return handler(values)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise ValidationError.from_exception_data(
            cls.__name__,
            [
                {
                    "type": PydanticCustomError(problem["type"], problem["msg"]),
                    "loc": problem["loc"],
                    "input": None,
                }
                for problem in problems
            ],
            hide_input=True,
        )

    @property
    def is_given(self) -> bool:
        """Whether a server was named, by an argument or by a variable."""
        named = {"dsn", "database_url", *_PARTS}
        return any(getattr(self, name) is not None for name in self.model_fields_set & named)

    @property
    def fernet_keys(self) -> list[str] | None:
        """The keys of encrypted payloads, newest first."""
        if self.encryption_keys is None:
            return None
        given = self.encryption_keys.get_secret_value().split(",")
        return [key.strip() for key in given if key.strip()]

    @property
    def limits(self) -> Limits:
        """The most of what one call may bring."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})

    def target(self) -> Target | None:
        """The server to use; None means the embedded one."""
        named = self._named()
        return None if named is None else self._reached(named)

    def replicas(self) -> list[Target]:
        """The servers that reads by themselves go to."""
        if self.replica_dsns is None:
            return []
        given = _BETWEEN_DSNS.split(self.replica_dsns.get_secret_value().strip())
        if any(dsn.count("://") > 1 for dsn in given):
            raise InvalidInputError(
                "QORTEX_DB_REPLICA_DSNS has URLs that nothing parts: put spaces between them."
            )
        return [self._reached(parse_dsn(dsn)) for dsn in given if dsn]

    def with_replicas(self, dsns: Sequence[str | URL]) -> Self:
        """These, with other replicas.

        Raises:
            InvalidInputError: A DSN can't be used.
        """
        if not all(isinstance(each, (str, URL)) for each in dsns):
            raise InvalidInputError("replicas has to be a list of DSNs.")
        made = self.model_copy(
            update={"replica_dsns": SecretStr("\n".join(map(_dsn_of, dsns))) if dsns else None}
        )
        try:
            made.replicas()
        except ValueError as error:  # it quotes no value
            raise InvalidInputError(f"replicas: {error}") from None
        return made

    def _reached(self, target: Target) -> Target:
        """A server as it is connected to: through a pooler, and with whose password."""
        if self.pooler is not None:
            target = through_transaction_pooler(target)
        if self.password_provider is None:
            return target
        provided = {**target.connect_args, "password": self.password_provider}
        return replace(target, connect_args=provided)

    def _named(self) -> Target | None:
        if self.dsn is not None:
            return parse_dsn(self.dsn.get_secret_value())
        if not self.model_fields_set.isdisjoint(_PARTS):
            return self._by_parts()
        if self.database_url is not None:
            return parse_dsn(self.database_url.get_secret_value())
        if self.store in _SERVER or self.vec in _SERVER:
            return self._by_parts()
        return None

    def _by_parts(self) -> Target:
        return parts_target(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password.get_secret_value(),
            db=self.db,
        )


def _dsn_of(given: str | URL) -> str:
    if isinstance(given, str):
        return given
    if given.host and "/" in given.host:  # a socket's folder, which SQLAlchemy does not escape
        place = {"host": given.host, "port": str(given.port or 5432)}
        given = given._replace(host=None, port=None).update_query_dict(place)
    return given.render_as_string(hide_password=False)


def read_settings(**given: Any) -> Settings:
    """Settings of some arguments, else of the environment.

    Raises:
        InvalidInputError: What is wrong with them; no value is in it.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        # Its own text has an address of pydantic's in it, and may be long.
        problems = [
            f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False)
        ]
    raise InvalidInputError("; ".join(problems))


__all__ = [
    "DEFAULT_DIMENSIONS",
    "DRIVER",
    "PasswordProvider",
    "Settings",
    "Target",
    "parse_dsn",
    "read_settings",
]
