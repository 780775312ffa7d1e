"""How far long work is: a row for each, written in the transactions of its batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Boolean, Interval, bindparam, case, literal_column, or_, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from qortex_db.errors import ConflictError
from qortex_db.messages import shown
from qortex_db.models import Checkpoint
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from qortex_db.engine import Executor

_kept: Any = Checkpoint.__table__
_NO_TIME: Final = literal_column("'0'::interval", Interval)
_COUNTS: Final = ("rows_read", "rows_written", "rows_rejected")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is.

    Attributes:
        position: Where it goes on, as JSON; None at its beginning.
    """

    work: str
    position: Any
    rows_read: int = 0
    rows_written: int = 0
    rows_rejected: int = 0


@cache
def _begin() -> Any:
    """Make the row, or take it up; a finished one, or one that is told to, begins anew."""
    start = insert(_kept).values(work=bindparam("of", type_=Text))
    anew = or_(_kept.c.finished_at.is_not(None), bindparam("anew", type_=Boolean))
    zero = literal_column("0", BigInteger)
    changed: dict[str, Any] = {
        name: case((anew, zero), else_=_kept.c[name]) for name in _COUNTS
    } | {
        "position": case((anew, literal_column("NULL", JSONB)), else_=_kept.c.position),
        # Citus takes no now() here.
        "began_at": case((anew, start.excluded.began_at), else_=_kept.c.began_at),
        "finished_at": None,
    }
    return start.on_conflict_do_update(index_elements=["work"], set_=changed).returning(
        _kept.c.position, *(_kept.c[name] for name in _COUNTS)
    )


@cache
def _advance() -> Any:
    """Add a batch, if nobody else has added one since."""
    given = {name: bindparam(f"new_{name}", type_=BigInteger) for name in _COUNTS}
    return (
        update(_kept)
        .where(
            _kept.c.work == bindparam("of", type_=Text),
            _kept.c.rows_read == bindparam("seen", type_=BigInteger),
            _kept.c.finished_at.is_(None),
        )
        .values(
            position=bindparam("next_position", type_=JSONB(none_as_null=True)),
            updated_at=func.now(),
            # In a CASE Citus takes no now().
            finished_at=func.now() + case((bindparam("is_finished", type_=Boolean), _NO_TIME)),
            **{name: _kept.c[name] + number for name, number in given.items()},
        )
    )


class CheckpointRepository:
    """The checkpoints of long work, in the transaction of whoever holds this."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor.of(Checkpoint)

    async def begin(self, work: str, *, anew: bool = False) -> Progress:
        """Take up a piece of work where it was stopped; one that was finished begins anew.

        Args:
            work: What it is called.
            anew: Whether to begin anew whatever was done.
        """
        rows = (await self._executor.run(_begin(), {"of": work, "anew": anew})).rows
        position, *counts = rows[0]
        return Progress(work, position, *counts)

    async def advance(
        self,
        so_far: Progress,
        position: Any,
        *,
        read: int = 0,
        written: int = 0,
        rejected: int = 0,
        is_finished: bool = False,
    ) -> Progress:
        """Say how far it is after one more batch.

        Args:
            so_far: What `begin`, or the last call, gave.
            position: Where it goes on, as JSON.

        Raises:
            ConflictError: Another process has gone on with the same work meanwhile.
        """
        counts = {"new_rows_read": read, "new_rows_written": written, "new_rows_rejected": rejected}
        given = {"of": so_far.work, "seen": so_far.rows_read, "next_position": position}
        done = await self._executor.run(_advance(), {**given, **counts, "is_finished": is_finished})
        if done.rowcount != 1:
            raise ConflictError(
                f"Somebody else goes on with {shown(so_far.work)} at the same time; what this call "
                "did since its last checkpoint is rolled back. Let one of them finish."
            )
        return Progress(
            so_far.work,
            position,
            so_far.rows_read + read,
            so_far.rows_written + written,
            so_far.rows_rejected + rejected,
        )
