"""The id of a unit of work's transaction, by which it is asked whether a COMMIT happened.

It has to be known before COMMIT is sent, and costs no round trip: the first statement of ours that
writes gives it beside its own answer. What only a caller's own statements wrote is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, TextClause, event, literal_column, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import UpdateBase

from qortex_db.engine.executor import Fetched
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import SessionTransaction

_ID: Final = "qortex_db_transaction_id"
_WROTE: Final = "qortex_db_wrote"
_TELLING: Final = "qortex_db_telling"
_ASSIGNED: Final = literal_column(
    "pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text", Text
)


class OwnSession(Session):
    """The session of a unit of work that we commit."""

    def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
        _note(self, statement)
        return super().execute(statement, *args, **options)

    def scalar(self, statement: Any, *args: Any, **options: Any) -> Any:
        _note(self, statement)
        return super().scalar(statement, *args, **options)

    def scalars(self, statement: Any, *args: Any, **options: Any) -> Any:
        _note(self, statement)
        return super().scalars(statement, *args, **options)


def _note(session: Session, statement: object) -> None:
    if isinstance(statement, (UpdateBase, TextClause)):  # of a text nobody knows
        session.info[_WROTE] = True


@event.listens_for(OwnSession, "after_begin")
def _on_begin(session: Session, transaction: SessionTransaction, _: object) -> None:
    if not transaction.nested:
        session.info[_ID] = None


@event.listens_for(OwnSession, "after_flush")
def _on_flush(session: Session, *_: object) -> None:
    session.info[_WROTE] = True


def telling(session: AsyncSession, statement: Executable) -> Executable | None:
    """A statement of ours that gives its transaction's id too; None where it need not, or can't."""
    info = session.info
    if not isinstance(session.sync_session, OwnSession) or not isinstance(statement, UpdateBase):
        return None
    if info.get(_ID) is not None:
        return None
    # With the statement, so that it lives as long: a dictionary would keep both.
    kept: Executable | None = vars(statement).get(_TELLING)
    if kept is None:
        kept = vars(statement)[_TELLING] = _telling(statement)
    return kept


def _telling(statement: UpdateBase) -> Executable:
    if statement.exported_columns:
        return statement.returning(_ASSIGNED)
    written = statement.returning(literal_column("1", Integer)).cte("_written")
    return select(func.count(), _ASSIGNED).select_from(written)


def told(session: AsyncSession, statement: Executable, given: Fetched) -> Fetched:
    """What the statement itself gave, without the id, which is kept."""
    rows = given.rows
    if rows:
        session.info[_ID] = rows[0][-1]
    own: Any = statement
    if own.exported_columns:
        return Fetched([row[:-1] for row in rows], given.rowcount)
    return Fetched((), rows[0][0])


def note_write(session: AsyncSession) -> None:
    """That it may have written, whether or not its id was given."""
    session.info[_WROTE] = True


async def know_outcome(session: AsyncSession) -> int | None:
    """The id of a session's transaction, before its COMMIT; None where it wrote nothing."""
    info = session.info
    if info.get(_ID) is None and info.get(_WROTE):
        info[_ID] = await session.scalar(select(_ASSIGNED))
    found = info.get(_ID)
    return None if found is None else int(found)
