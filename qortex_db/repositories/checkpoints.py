"""How far long work is: a row for each, written in the transactions of its batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Interval,
    bindparam,
    case,
    cast,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from qortex_db.errors import ConflictError
from qortex_db.filters.expressions import Constant
from qortex_db.messages import shown
from qortex_db.models import Checkpoint
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from sqlalchemy import CTE, ColumnElement

    from qortex_db.engine import Executor

_kept: Any = Checkpoint.__table__
_NO_TIME: Final = literal_column("'0'::interval", Interval)
_COUNTS: Final = ("rows_read", "rows_written", "rows_rejected")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is.

    Attributes:
        position: Where it goes on, as JSON; None at its beginning.
        is_finished: Whether it reached its end.
    """

    work: str
    position: Any
    rows_read: int = 0
    rows_written: int = 0
    rows_rejected: int = 0
    is_finished: bool = False


@cache
def _take_up() -> Any:
    """Make the row, or find it as it is."""
    start = insert(_kept).values(work=bindparam("of", type_=Text))
    return start.on_conflict_do_update(
        index_elements=["work"], set_={"work": start.excluded.work}
    ).returning(
        _kept.c.position, *(_kept.c[name] for name in _COUNTS), _kept.c.finished_at.is_not(None)
    )


def held() -> CTE:
    """The row of a piece of work, locked, if nobody has gone on with it since it was read."""
    return (
        select(_kept.c.work)
        .where(
            _kept.c.work == bindparam("of", type_=Text),
            _kept.c.rows_read == bindparam("seen", type_=BigInteger),
            _kept.c.finished_at.is_(None),
        )
        .with_for_update()
        .cte("_held")
        .prefix_with("MATERIALIZED")
    )


def advanced(
    row: CTE, *, after: Any, read: Any, written: Any, is_finished: ColumnElement[bool]
) -> CTE:
    """Add a batch to a row that is held, in the batch's own statement: a row if it was.

    Args:
        row: As `held` gives it.
        after: The last key that was read; NULL leaves it.
    """
    said = func.jsonb_build_object(
        Constant("call"), bindparam("call", type_=Text), Constant("after"), after
    )
    before = func.coalesce(_kept.c.position, cast(Constant("{}"), JSONB))
    position = before.op("||", return_type=JSONB())(func.jsonb_strip_nulls(said))
    return (
        update(_kept)
        .where(_kept.c.work == row.c.work)
        .values(
            position=position,
            rows_read=_kept.c.rows_read + read,
            rows_written=_kept.c.rows_written + written,
            updated_at=func.now(),
            # In a CASE Citus takes no now().
            finished_at=func.now() + case((is_finished, _NO_TIME)),
        )
        .returning(literal_column("1"))
        .cte("_advanced")
    )


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


def met(work: str) -> ConflictError:
    """What is raised where two go on with the same work."""
    return ConflictError(
        f"Somebody else goes on with {shown(work)} at the same time; what this call did since its "
        "last checkpoint is rolled back. Let one of them finish."
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

    async def take_up(self, work: str) -> Progress:
        """Take up a piece of work where it was stopped; one that was finished stays finished."""
        return Progress(work, *(await self._executor.run(_take_up(), {"of": work})).rows[0])

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
            raise met(so_far.work)
        return Progress(
            so_far.work,
            position,
            so_far.rows_read + read,
            so_far.rows_written + written,
            so_far.rows_rejected + rejected,
        )
