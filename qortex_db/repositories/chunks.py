"""A change of any number of rows in batches: each a statement, and a transaction, of its own.

Rows are visited in the order of their keys, each at most once. A batch locks its own rows alone, so
that others wait for no more than that. What is resumed goes on behind the last batch that was
committed, which says so in its own statement: no row is changed twice.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    ClauseElement,
    Integer,
    and_,
    bindparam,
    cast,
    literal_column,
    select,
    tuple_,
)

from qortex_db.errors import ConflictError, InvalidInputError
from qortex_db.messages import shown
from qortex_db.repositories import validation
from qortex_db.repositories.checkpoints import CheckpointRepository, Progress, advanced, held, met
from qortex_db.repositories.progress import Pace, tell
from qortex_db.sql import DIALECT, func

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sqlalchemy import CTE, ColumnElement, Executable, Select

    from qortex_db.engine import Executor, Fetched
    from qortex_db.repositories.progress import IngestProgress

MAX_CHANGED: Final = 100_000
"""The most rows of one batch of a change."""
_HITS: Final = bindparam("hits", type_=Integer)


@dataclass(frozen=True, slots=True)
class Step:
    """What makes a batch's statement another than the next one's.

    Attributes:
        goes_on: Whether there is a batch before it.
        is_kept: Whether it says how far the work is.
    """

    goes_on: bool
    is_kept: bool


class Chunk:
    """The rows of a batch, as SQL.

    Args:
        step: Of the work.
        key: What goes into `after` of the next one.
        parts: The columns by which rows are ordered, of which the key is made.
        conditions: Of the rows, those behind `after`.
    """

    def __init__(
        self,
        step: Step,
        key: ColumnElement[Any],
        parts: Sequence[ColumnElement[Any]],
        conditions: Sequence[ColumnElement[bool]],
    ) -> None:
        own = [part.label(f"part_{i}") for i, part in enumerate(parts)]
        rows = select(key.label("id"), *own).where(*conditions).order_by(*parts).limit(_HITS)
        self.page: CTE = rows.cte("_page").prefix_with("MATERIALIZED")
        self._parts = [self.page.c[part.name] for part in own]
        self._held = held() if step.is_kept else None

    def contains(self, *parts: ColumnElement[Any]) -> ColumnElement[bool]:
        """Whether a row is one of them, where the work is this call's to go on with."""
        row: Any = parts[0] if len(parts) == 1 else tuple_(*parts)
        own = [self.page.c.id] if len(parts) == 1 else self._parts
        found: ColumnElement[bool] = row.in_(select(*own))
        return found if self._held is None else and_(found, select(self._held).exists())

    def changed_by(self, change: CTE, table: object) -> Select[Any]:
        """The batch's statement: the last key, rows read and changed, and whether it was done.

        Args:
            change: Which returns a row for each that it changed.
            table: Whose they are.
        """
        order = [part.desc() for part in self._parts]
        one = literal_column("1", Integer)
        last = select(self.page.c.id).order_by(*order).limit(one).scalar_subquery()
        read, written = _count(self.page), _count(change)
        is_done: ColumnElement[Any] = one
        if self._held is not None:
            kept = advanced(
                self._held,
                after=last,
                read=read,
                written=written,
                is_finished=read < cast(_HITS, BigInteger),
            )
            is_done = _count(kept)
        statement = select(last.label("last"), read, written, is_done)
        return statement.execution_options(writes=(table,))


def _count(rows: CTE) -> Any:
    return select(func.count()).select_from(rows).scalar_subquery()


@dataclass(frozen=True, slots=True)
class Chunks:
    """What a caller says of work in batches, checked.

    Attributes:
        size: Rows of a batch.
        resume: What the work is called; None where nothing says how far it is.
    """

    size: int
    resume: str | None
    on_progress: Callable[[IngestProgress], object] | None

    @classmethod
    def of(
        cls,
        executor: Executor,
        batch_size: object,
        on_progress: Callable[[IngestProgress], object] | None,
        resume: object,
    ) -> Chunks | None:
        """Check what was said; None where all is one statement.

        Raises:
            InvalidInputError: It is no such thing, or a unit of work's.
        """
        if batch_size is None:
            if resume is not None or on_progress is not None:
                raise InvalidInputError(
                    "resume and on_progress are of work in batches: pass batch_size too."
                )
            return None
        size = validation.check_limit(batch_size, MAX_CHANGED, name="batch_size")
        if on_progress is not None:
            validation.check_callable(on_progress, name="on_progress")
        name = None if resume is None else validation.check_id(resume, name="resume")
        refuse_in_transaction(executor)
        return cls(size, name, on_progress)

    async def run(
        self,
        executor: Executor,
        work: Work,
        statement: Callable[[Step], Executable],
        send: Callable[[Executable, Mapping[str, Any]], Awaitable[Fetched]],
    ) -> int:
        """Change batch after batch; return how many rows were, by earlier processes too.

        Args:
            statement: A batch's, as `Chunk.changed_by` makes it.
            send: What runs it, with its own parameters besides.

        Raises:
            ConflictError: The name was used for another call, or another process goes on with it.
        """
        so_far = Progress(work.name, None)
        if self.resume is not None:
            so_far = await CheckpointRepository(executor).take_up(work.named(self.resume))
        after, digest = None, work.digest
        if so_far.position is not None:
            if so_far.position["call"] != digest:
                raise ConflictError(
                    f"{shown(self.resume)} was begun with other arguments; nothing was changed. "
                    "Go on with the same ones, or give this call a name of its own."
                )
            after = so_far.position.get("after")
            after = None if after is None else work.read(after)
        pace = Pace(so_far.rows_read)
        while not so_far.is_finished:
            step = Step(goes_on=after is not None, is_kept=self.resume is not None)
            kept = {"of": so_far.work, "seen": so_far.rows_read, "call": digest}
            params = {"hits": self.size, "after": after, **(kept if step.is_kept else {})}
            ((last, read, written, is_done),) = (await send(statement(step), params)).rows
            if not is_done:
                raise met(so_far.work)
            so_far = Progress(
                so_far.work,
                None,
                so_far.rows_read + read,
                so_far.rows_written + written,
                is_finished=read < self.size,
            )
            after = last
            if read:
                await tell(self.on_progress, pace.progress(so_far.rows_read))
        return so_far.rows_written


@dataclass(frozen=True, slots=True)
class Work:
    """A call in batches.

    Attributes:
        name: Its method, and what it changes.
        arguments: What must not change while it is resumed.
        read: Makes a key of one that a checkpoint has.
    """

    name: str
    arguments: Sequence[object]
    read: Callable[[Any], Any]

    def named(self, resume: str) -> str:
        """What it is called in its checkpoint.

        Raises:
            InvalidInputError: That is too long.
        """
        return validation.check_id(f"{self.name}: {resume}", name="resume, with what it changes,")

    @property
    def digest(self) -> str:
        """What tells the call from another's."""
        said = json.dumps(self.arguments, default=_plain, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()


def _plain(value: Any) -> object:
    if isinstance(value, ClauseElement):  # its text has none of its values
        made = value.compile(dialect=DIALECT)
        return [made.string, {name: repr(given) for name, given in made.params.items()}]
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def refuse_in_transaction(executor: Executor) -> None:
    """Refuse batches where they can't be transactions of their own.

    Raises:
        InvalidInputError: It is the lane of a unit of work.
    """
    if not executor.commits:
        raise InvalidInputError(
            "batch_size makes each batch a transaction of its own, and a unit of work is one: "
            "leave it out, or call the method of the Database."
        )
