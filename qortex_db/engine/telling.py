"""What a statement tells beside its own answer, in the same round trip.

What is made of a statement is kept with it, so that it lives as long: a dictionary would keep both.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Integer,
    Select,
    bindparam,
    cast,
    literal_column,
    select,
    true,
    type_coerce,
)
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.types import UserDefinedType

from qortex_db.engine.executor import Fetched, written_tables
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Executable

AFTER: Final = "qortex_db_after"
"""The parameter of a guarded read: the number of a transaction."""
_ON_PRIMARY: Final = "qortex_db_on_primary"
_OWN: Final = literal_column("pg_catalog.pg_current_xact_id()::pg_catalog.text", Text)
ASSIGNED: Final = literal_column(
    "pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text", Text
)


class _Xid8(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "pg_catalog.xid8"


def _kept(statement: Executable, name: str, make: Callable[[Any], Any]) -> Any:
    kept = vars(statement).get(name)
    if kept is None or kept[0]() is not statement:  # what is made of it takes its own along
        kept = vars(statement)[name] = weakref.ref(statement), make(statement)
    return kept[1]


def on_primary(statement: Any) -> Any:
    """A read as part of a write, or of what the primary alone can tell: no replica is asked."""
    return _kept(statement, _ON_PRIMARY, lambda one: one.execution_options(**{_ON_PRIMARY: True}))


def is_for_replicas(statement: Executable) -> bool:
    """Whether a statement only reads what any replica has.

    A text() of ours asks of settings and catalogs, and what is learned of those is kept for long.
    """
    return (
        isinstance(statement, SelectBase)
        and written_tables(statement) is None
        and _ON_PRIMARY not in statement.get_execution_options()
    )


def telling_if_assigned(statement: UpdateBase) -> Executable:
    """A write that tells its transaction's number too, where its transaction has one."""
    made: Executable = _kept(
        statement, "qortex_db_telling_if_assigned", lambda one: _telling(one, ASSIGNED)
    )
    return made


def telling(statement: Executable) -> Executable | None:
    """A write that tells its transaction's number; None where it can't."""
    if not isinstance(statement, (UpdateBase, SelectBase)):
        return None
    made: Executable = _kept(statement, "qortex_db_telling", lambda one: _telling(one, _OWN))
    return made


def _telling(statement: Any, number: ColumnElement[str]) -> Any:
    if isinstance(statement, Select):
        return statement.add_columns(number)
    if isinstance(statement, SelectBase):  # parts of a UNION can't have it each
        written: Any = statement
        made = select(*written.subquery("_written").c, number)
        return made.execution_options(**written.get_execution_options())
    if statement.exported_columns:
        return statement.returning(number)
    written = statement.returning(literal_column("1", Integer)).cte("_written")
    counted: Any = select(func.count(), number).select_from(written)
    # It stays a write, which is not sent again unasked.
    options = {**statement.get_execution_options(), "writes": written_tables(statement)}
    return counted.execution_options(**options)


def told(statement: Any, given: Fetched) -> tuple[Fetched, str | None]:
    """What a telling statement's own answer is, and the number; None where it wrote nothing."""
    rows = given.rows
    number = rows[-1][-1] if rows else None
    if statement.exported_columns:
        return Fetched([row[:-1] for row in rows], given.rowcount), number
    return Fetched((), rows[0][0]), number


def guarded(statement: Executable) -> Executable:
    """A read that a replica answers only where it has reached a transaction.

    Its last column says whether it has. The server then compares with the very snapshot by which it
    reads: one of before would be right too, one of after would not.
    """
    made: Executable = _kept(
        statement, "qortex_db_guarded", lambda one: _beside(one, _has_reached(), is_guard=True)
    )
    return made


def seeing(statement: Executable) -> Executable:
    """A read on the primary that tells which transactions it sees: all below a number."""
    made: Executable = _kept(
        statement, "qortex_db_seeing", lambda one: _beside(one, _horizon(), is_guard=False)
    )
    return made


def _has_reached() -> ColumnElement[bool]:
    after = cast(cast(bindparam(AFTER, type_=Text), Text), _Xid8())
    oldest_open = type_coerce(func.pg_snapshot_xmin(func.pg_current_snapshot()), _Xid8())
    return after < oldest_open


def _horizon() -> ColumnElement[str]:
    return cast(func.pg_snapshot_xmax(func.pg_current_snapshot()), Text)


def _beside(statement: Any, asked: ColumnElement[Any], *, is_guard: bool) -> Any:
    """A read with two more columns in each row, and one row where it has none.

    The first says whether it is a row of the read, and the last is what is asked.
    """
    seen = select(asked.label("_told")).subquery("_seen")
    read = statement.subquery("_read")
    rows = select(*read.c, true().label("_is_row"))
    if is_guard:  # what is not reached is not read
        rows = rows.where(seen.c._told)  # noqa: SLF001 - a column
    given = rows.lateral("_given")
    made = select(*given.c, seen.c._told).select_from(seen.outerjoin(given, true()))  # noqa: SLF001
    return made.execution_options(**statement.get_execution_options())


def parted(given: Fetched) -> tuple[Fetched, Any]:
    """What a read beside which something was told gave, and that."""
    rows: Sequence[Any] = given.rows
    said = rows[0][-1]
    if rows[0][-2] is None:
        return Fetched((), 0), said
    return Fetched([row[:-2] for row in rows], len(rows)), said
