"""The settings: the only reader of the environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL

from qortex_db.settings.dsn import DRIVER, Target, parse_dsn

DEFAULT_DIMENSIONS: Final = 384
"""What a first upgrade makes the embedding column hold, unless told otherwise."""

_PARTS = ("host", "port", "user", "password", "db")
_LOCAL = "sqlite"
_SERVER = ("postgres", "pgvector")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """What qortex-db is told by arguments, or else by the environment.

    A server is given by a DSN, by any `PGVECTOR_*` variable or by `DATABASE_URL`. Where none is,
    and neither `QORTEX_STORE` nor `QORTEX_VEC` names PostgreSQL, it is an embedded one.
    """

    model_config = SettingsConfigDict(
        env_prefix="QORTEX_DB_",
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
    db: str = Field(default="qortex", validation_alias="PGVECTOR_DB")
    database_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_URL")
    otel_enabled: bool = Field(default=False, validation_alias="QORTEX_OTEL_ENABLED")
    prometheus_enabled: bool = Field(default=False, validation_alias="QORTEX_PROMETHEUS_ENABLED")
    dimensions: int | None = Field(
        default=None, ge=1, le=16_000, validation_alias="QORTEX_VEC_DIMENSIONS"
    )
    db_schema: str | None = Field(default=None, validation_alias="QORTEX_DB_SCHEMA")
    version_table: str = "qortex_db_alembic_version"
    pool_min_size: int = Field(default=2, ge=0)
    pool_max_size: int = Field(default=10, ge=1)
    pool_timeout_seconds: Seconds = 30.0
    connect_timeout_seconds: Seconds = 10.0
    statement_timeout_seconds: float = Field(default=60.0, ge=0, allow_inf_nan=False)
    idle_ping_seconds: Seconds = 30.0
    embedded_path: Path = Path("~/.qortex/postgres")

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

    @field_validator("db_schema", "version_table")
    @classmethod
    def _check_identifier(cls, value: str | None) -> str | None:
        if value is not None and not _IDENTIFIER.fullmatch(value):
            raise ValueError("not an identifier of 1 to 63 letters, digits, _ and $")
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.pool_min_size > self.pool_max_size:
            raise ValueError("pool_min_size is larger than pool_max_size")
        self.target()  # a DSN that can't be used is refused here, not at the first query
        return self

    @property
    def is_given(self) -> bool:
        """Whether a server was named, by an argument or by a variable."""
        named = {"dsn", "database_url", *_PARTS}
        return any(getattr(self, name) is not None for name in self.model_fields_set & named)

    def target(self) -> Target | None:
        """The server to use; None means the embedded one."""
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
        return Target(
            URL.create(
                DRIVER,
                username=self.user,
                password=self.password.get_secret_value(),
                host=self.host.strip("[]"),
                port=self.port,
                database=self.db,
            )
        )


__all__ = ["DEFAULT_DIMENSIONS", "Settings", "Target", "parse_dsn"]
