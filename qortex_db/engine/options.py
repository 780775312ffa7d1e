"""What a view of a Database has its calls run under."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import select, true

from qortex_db.checks import check_text
from qortex_db.errors import InvalidInputError
from qortex_db.sql import func

SettingValue: TypeAlias = str | int | UUID
"""The value of a setting of PostgreSQL's, or of a policy's: a text, or what is `str()` of it."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")
_MAX_NAME: Final = 63
_MAX_SETTINGS: Final = 32


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How calls by themselves and units of work run.

    Attributes:
        settings: What is set for their transaction, by name.
        schema: Where the package's tables are, if not where those of the Database are.
    """

    settings: tuple[tuple[str, str], ...] = ()
    schema: str | None = None

    @property
    def begin(self) -> str:
        """What begins a call's transaction, in one round trip; "" where a statement is its own."""
        if not self.settings:
            return ""
        values = (
            f"pg_catalog.set_config({_literal(name)}, {_literal(value)}, true)"
            for name, value in self.settings
        )
        return f"SELECT {', '.join(values)}"

    def set_on(self, connection: Any) -> None:
        """The same for a transaction of SQLAlchemy's."""
        if self.settings:
            pairs = [func.set_config(name, value, true()) for name, value in self.settings]
            connection.execute(select(*pairs))

    def with_settings(self, settings: Mapping[str, SettingValue]) -> CallOptions:
        """These, and further settings, of which the later ones count."""
        return replace(self, settings=tuple(({**dict(self.settings)} | read(settings)).items()))


NO_OPTIONS: Final = CallOptions()


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
        found[name.lower()] = check_text(str(value), name=f"settings[{name!r}]")
    return found


def _literal(text: str) -> str:
    """As libpq's PQescapeLiteral: the same whatever `standard_conforming_strings` is."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
