"""What a table has for the change of its model alone: by its triggers it is told what belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from qortex_db.names import index_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

TRIGGER: Final = "qortex_db_changeover"
"""What the names of a changeover's triggers and of its function begin with."""
TRIGGERS: Final = (f"{TRIGGER}_1", f"{TRIGGER}_2")
"""The first is to come before the second, and is about the column of the new embeddings."""

_COLUMN: Final = """
SELECT a.attname::text FROM pg_catalog.pg_trigger g
JOIN pg_catalog.pg_attribute a ON a.attrelid = g.tgrelid AND a.attnum = g.tgattr[0]
WHERE g.tgname = CAST(:trigger AS text)::name AND g.tgrelid = """
_BY_OID: Final = text(f"{_COLUMN} CAST(:oid AS oid)")
_BY_NAME: Final = text(f"{_COLUMN} pg_catalog.to_regclass(:name)::oid")


def index_names(table: str, name: str) -> tuple[str, str]:
    """What the indexes of a changeover are called: that of the new ones, and of what lacks one."""
    return index_name(f"ix_{table}_{name}"), index_name(f"ix_{table}_{name}_missing")


def column_of(connection: Connection, *, name: str = "", oid: int | None = None) -> str | None:
    """The column of the new embeddings, where a table changes its model."""
    given: dict[str, Any] = {"name": name} if oid is None else {"oid": oid}
    statement = _BY_NAME if oid is None else _BY_OID
    found: str | None = connection.scalar(statement, {"trigger": TRIGGERS[0], **given})
    return found


def objects_of(table: str, column: str) -> Sequence[str]:
    """What the catalogue calls what belongs to it: what has to be there, and then the index."""
    index, missing = index_names(table, column)
    needed = [f"column {column}", f"index {missing}", *(f"trigger {name}" for name in TRIGGERS)]
    return [*needed, f"index {index}"]
