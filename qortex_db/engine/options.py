"""What a view of a Database has its calls run under."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import select, true

from qortex_db.checks import check_choice, check_number, check_text
from qortex_db.engine.citus import ON_CITUS
from qortex_db.engine.consistency import CONSISTENCIES, Consistency, OwnWrites
from qortex_db.engine.executor import catalog_of
from qortex_db.errors import InvalidInputError
from qortex_db.names import literal, qualified
from qortex_db.sql import func

SettingValue: TypeAlias = str | int | UUID
"""The value of a setting of PostgreSQL's, or of a policy's: a text, or what is `str()` of it."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")
_MAX_NAME: Final = 63
_MAX_SETTINGS: Final = 32
_MAX_VALUE: Final = 8_192
_MAX_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How calls by themselves and units of work run.

    Attributes:
        settings: What is set for their transaction, by name.
        schema: Where the package's tables are, if not where those of the Database are.
        timeout_seconds: How long a statement may take; None as long as others.
        lock_timeout_seconds: How long it waits for a lock; None as the server says.
        consistency: How fresh reads by themselves have to be; None where no replica is asked.
        own_writes: Where writes are noted; None where nobody asks.
    """

    settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    schema: str | None = None
    timeout_seconds: float | None = None
    lock_timeout_seconds: float | None = None
    consistency: Consistency | None = None
    own_writes: OwnWrites | None = None

    def begin(self, *, on_citus: bool = False) -> str:
        """What begins a call's transaction, in one round trip; "" where a statement is its own.

        The driver itself limits a statement's time, at no cost.

        Args:
            on_citus: Whether the settings of extensions, and those of policies, are to be told to
                other nodes.
        """
        settings = (*self.settings, *_limit("lock_timeout", self.lock_timeout_seconds))
        if not settings:
            return ""
        values = (
            f"pg_catalog.set_config({literal(name)}, {literal(value)}, true)"
            for name, value in settings
        )
        parts = [f"SELECT {', '.join(values)}"]
        if on_citus:
            parts += propagated(settings)
        return "; ".join(parts)

    @property
    def search_path(self) -> str | None:
        """Where tables are looked for, if that is one of the settings."""
        return dict(self.settings).get("search_path")

    @property
    def local(self) -> tuple[tuple[str, str], ...]:
        """What is set for a transaction of SQLAlchemy's."""
        return (
            *self.settings,
            *_limit("lock_timeout", self.lock_timeout_seconds),
            *_limit("statement_timeout", self.timeout_seconds),
        )

    def set_on(self, connection: Any) -> None:
        """Set it, in a transaction that has begun."""
        if not self.local:
            return
        pairs = [func.set_config(name, value, true()) for name, value in self.local]
        connection.execute(select(*pairs))
        if catalog_of(connection).get(ON_CITUS):
            for each in propagated(self.local):
                connection.exec_driver_sql(each)

    def with_limits(
        self, timeout_seconds: float | None, lock_timeout_seconds: float | None
    ) -> CallOptions:
        """These, and the time that a statement may take or wait for a lock; None leaves it."""
        given = {"timeout_seconds": timeout_seconds, "lock_timeout_seconds": lock_timeout_seconds}
        limits = {
            name: check_number(value, name=name, low=0.001, high=_MAX_SECONDS)
            for name, value in given.items()
            if value is not None
        }
        return replace(self, **limits)  # type: ignore[arg-type]

    def with_consistency(self, consistency: Consistency | None) -> CallOptions:
        """These, and how fresh reads have to be; None leaves it."""
        if consistency is None:
            return self
        check_choice(consistency, CONSISTENCIES, name="consistency")
        if consistency == "session" and self.own_writes is None:
            return replace(self, consistency=consistency, own_writes=OwnWrites())
        return replace(self, consistency=consistency)

    def reading_after(self, token: str | None) -> CallOptions:
        """These, for a caller whose last write a token tells."""
        own_writes = OwnWrites(token, self.own_writes)
        return replace(self, consistency="session", own_writes=own_writes)

    def with_settings(self, settings: Mapping[str, SettingValue]) -> CallOptions:
        """These, and further settings, of which the later ones count."""
        return replace(self, settings=tuple(({**dict(self.settings)} | read(settings)).items()))


NO_OPTIONS: Final = CallOptions()
_PROPAGATE: Final = "SET LOCAL citus.propagate_set_commands = 'local'"


def propagated(settings: Iterable[tuple[str, str | None]]) -> list[str]:
    """Have Citus set on other nodes what extensions, policies and locks go by.

    It passes by what `set_config` sets.

    Args:
        settings: By name; None for what it is by default.
    """
    own = [
        f"SET LOCAL {'.'.join(map(qualified, name.split('.')))} = "
        f"{'DEFAULT' if value is None else literal(value)}"
        for name, value in settings
        if "." in name or name == "lock_timeout"
    ]
    return [_PROPAGATE, *own] if own else []


def read(settings: object) -> dict[str, str]:
    """Settings by name, checked.

    Raises:
        InvalidInputError: A name is none, or a value no text, number or UUID.
    """
    if not isinstance(settings, Mapping):
        raise InvalidInputError(f"settings is a {type(settings).__name__}; pass a dict.")
    if len(settings) > _MAX_SETTINGS:
        raise InvalidInputError(f"settings has {len(settings)} names; at most {_MAX_SETTINGS}.")
    found = {}
    for name, value in settings.items():
        if not isinstance(name, str) or len(name) > _MAX_NAME or not _NAME.fullmatch(name):
            raise InvalidInputError(
                "A name of settings is none of PostgreSQL's: pass letters, digits, _ and $, with a "
                "dot before a name of your own, as 'app.tenant'."
            )
        if isinstance(value, bool) or not isinstance(value, (str, int, UUID)):
            raise InvalidInputError(
                f"settings[{name!r}] is a {type(value).__name__}; pass a str, an int or a UUID."
            )
        text = check_text(str(value), name=f"settings[{name!r}]")
        if len(text) > _MAX_VALUE:
            raise InvalidInputError(
                f"settings[{name!r}] has {len(text):,} characters; at most {_MAX_VALUE:,}."
            )
        found[name.lower()] = text
    return found


def _limit(name: str, seconds: float | None) -> tuple[tuple[str, str], ...]:
    return () if seconds is None else ((name, f"{max(1, round(seconds * 1_000))}ms"),)
