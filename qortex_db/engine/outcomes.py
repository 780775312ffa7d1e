"""The id of a unit of work's transaction, by which it is asked whether a COMMIT happened.

It has to be known before COMMIT is sent, and costs no round trip: the first statement of ours that
writes gives it beside its own answer. What only a caller's own statements wrote is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import TextClause, event, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import UpdateBase

from qortex_db.engine.telling import ASSIGNED, telling_if_assigned
from qortex_db.engine.telling import told as told_beside

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import SessionTransaction

    from qortex_db.engine.executor import Fetched

_ID: Final = "qortex_db_transaction_id"
_WROTE: Final = "qortex_db_wrote"
_CONNECTED: Final = "qortex_db_connected"


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

    def connection(self, *args: Any, **options: Any) -> Any:
        self.info[_CONNECTED] = True  # what is done on it is not seen here
        return super().connection(*args, **options)


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
    if not isinstance(session.sync_session, OwnSession) or not isinstance(statement, UpdateBase):
        return None
    if session.info.get(_ID) is not None:
        return None
    return telling_if_assigned(statement)


def told(session: AsyncSession, statement: Executable, given: Fetched) -> Fetched:
    """What the statement itself gave, without the id, which is kept."""
    own, number = told_beside(statement, given)
    if given.rows:
        session.info[_ID] = number
    return own


def note_write(session: AsyncSession) -> None:
    """That it may have written, whether or not its id was given."""
    session.info[_WROTE] = True


def connection_of(session: Session, bind_arguments: dict[str, Any]) -> Connection:
    """A session's connection, for statements of ours."""
    if type(session) is OwnSession:
        return Session.connection(session, bind_arguments=bind_arguments)
    return session.connection(bind_arguments=bind_arguments)


def wrote(session: AsyncSession) -> bool:
    """Whether it may have written."""
    info = session.info
    return any(info.get(each) for each in (_ID, _WROTE, _CONNECTED))


async def know_outcome(session: AsyncSession) -> int | None:
    """The id of a session's transaction, before its COMMIT; None where it wrote nothing."""
    info = session.info
    if info.get(_ID) is None and info.get(_WROTE):
        info[_ID] = await session.scalar(select(ASSIGNED))
    found = info.get(_ID)
    return None if found is None else int(found)
