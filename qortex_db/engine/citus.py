"""What a server with Citus takes another form of: a statement carries it, and executors choose.

There tables may be distributed over nodes, and Citus refuses parts of SQL over those. Its forms run
on every table of such a server; elsewhere the statements are what they are, at full speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Executable

ON_CITUS: Final = "qortex_db_on_citus"
"""The key of a catalog where it is whether the database has Citus; and of a statement's option."""

Statement = TypeVar("Statement", bound=Any)


def or_on_citus(statement: Statement, other: Callable[[], Executable]) -> Statement:
    """A statement, or on a server with Citus another one of the same parameters and columns.

    The last step: what is made of the statement afterwards has the other as it was.

    Args:
        other: Makes it, when it is first needed.
    """
    made: Statement = statement.execution_options(**{ON_CITUS: _Form(other)})
    return made


class _Form:
    """A statement that is made when it is first needed."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Executable]) -> None:
        self._make = make
        self._made: Executable | None = None

    def __call__(self) -> Executable:
        if self._made is None:
            self._made = self._make()
        return self._made


def form_of(statement: Executable, known: Mapping[object, Any] | None) -> Executable:
    """The form of a statement that a server takes.

    Args:
        known: Of its database; as long as nothing is, it has no Citus.
    """
    return on_citus(statement) if known and known.get(ON_CITUS) else statement


def on_citus(statement: Executable) -> Executable:
    """The form of a statement that Citus takes, which may be the same."""
    make: _Form | None = statement.get_execution_options().get(ON_CITUS)
    return statement if make is None else make()
