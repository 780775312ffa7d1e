"""Migrating where Citus has the tables on several nodes.

It takes one constraint an ALTER TABLE. Revisions that say several in one stay as they have landed;
they are run one by one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event, text

if TYPE_CHECKING:
    from sqlalchemy import Connection

_WHAT: Final = r"(?:ADD|DROP|VALIDATE) CONSTRAINT "
_SEVERAL: Final = re.compile(rf"(ALTER TABLE \S+ )({_WHAT}.*, {_WHAT}.*)", re.DOTALL)
_HAS_CITUS: Final = text(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus'::name)"
)


def one_by_one(statement: str) -> list[str]:
    """An ALTER TABLE of several constraints as one of each; what is none, as it is."""
    several = _SEVERAL.fullmatch(statement)
    if several is None:
        return [statement]
    parts = re.split(rf", (?={_WHAT})", several[2])
    return [several[1] + part for part in parts]


def has_citus(connection: Connection) -> bool:
    """Whether the database has Citus."""
    return bool(connection.scalar(_HAS_CITUS))


def adapt(connection: Connection) -> None:
    """Have a connection send what Citus takes, if the database has it."""
    if not has_citus(connection):
        return

    def split(
        _connection: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        _context: object,
        executemany: bool,  # noqa: ARG001, FBT001 - the same
    ) -> tuple[str, Any]:
        *before, last = one_by_one(statement)
        for each in before:
            cursor.execute(each)
        return last, parameters

    event.listen(connection, "before_cursor_execute", split, retval=True)
