"""The statements of the history: what writes events beside a change, and what reads them.

The events are written by the change's own statement, from what the change returned: so each is
numbered while its arm's row is locked, and the numbers of one arm's events are in the order of its
changes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import DateTime, Double, and_, bindparam, cast, literal_column, null, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from qortex_db.engine.citus import on_citus, or_on_citus
from qortex_db.models import LearningEvent
from qortex_db.repositories.arms.read_statements import (
    CONTEXT,
    LEARNER,
    RETURNED,
    STATE,
    arms,
    contexts,
    listed_rows,
)
from qortex_db.sql import Text, func

events: Any = LearningEvent.__table__


@cache
def keep() -> Any:
    """Keep what the context's hash stands for."""
    readable = bindparam("readable", type_=Text)
    return (
        insert(contexts)
        .from_select(
            ["context_hash", "context"],
            select(CONTEXT, cast(readable, JSONB)).where(readable.is_not(None)),
        )
        .on_conflict_do_nothing()
        .returning(contexts.c.context_hash)
    )


def kept() -> Any:
    """The same; a condition, so that this comes before the arms."""
    known = keep().cte("_known")
    return select(func.count()).select_from(known).scalar_subquery() >= 0


def events_of(
    done: Any, kind: str, beside: Any = None, *, apart: bool = False, **amounts: Any
) -> Any:
    """The events of a change.

    Args:
        done: What the change returned: `RETURNED`.
        kind: The events'.
        beside: Rows with amounts by arm, or by context and arm.
        apart: Whether it is as Citus takes it.
        amounts: Of the events, from these rows.
    """
    source, conditions = done, []
    if beside is not None:
        shared = [c.name for c in (arms.c.context_hash, arms.c.arm_id) if c.name in beside.c]
        # Each row has its partner. A full join is never a nested loop, which takes quadratic time
        # where the planner has no statistics yet.
        matching = and_(*(beside.c[name] == done.c[name] for name in shared))
        source = done.join(beside, matching, full=not apart)
        if not apart:  # or the change was refused as a whole
            conditions = [select(func.count()).select_from(done).scalar_subquery() > 0]
    states = {c.name: null() if kind == "delete" else done.c[c.name] for c in STATE}
    values = {
        "learner_name": LEARNER,
        "context_hash": done.c.context_hash,
        "arm_id": done.c.arm_id,
        "kind": literal_column(f"'{kind}'", Text),
        **amounts,
        **states,
    }
    rows = select(*values.values()).select_from(source).where(*conditions)
    return insert(events).from_select(list(values), rows)


def recorded(change: Any, kind: str, beside: Any = None, **amounts: Any) -> Any:
    """The change with its events, giving what the change gives."""

    def with_events(done: Any, *, apart: bool) -> Any:
        return (
            events_of(done.cte("_done"), kind, beside, apart=apart, **amounts)
            .returning(*(events.c[c.name] for c in RETURNED))
            .execution_options(writes=(arms,))
        )

    made = with_events(change, apart=False)
    return or_on_citus(made, lambda: with_events(on_citus(change), apart=True))


@cache
def log_selection() -> Any:
    """Keep which arms were chosen, and how likely that was."""
    rows = listed_rows(p=Double)
    values = select(
        LEARNER, CONTEXT, rows.c.arm_id, literal_column("'select'", Text), rows.c.p
    ).where(kept())
    names = ["learner_name", "context_hash", "arm_id", "kind", "probability"]
    return insert(events).from_select(names, values)


@cache
def rebuild() -> Any:
    """The states after the newest events."""
    until = bindparam("until", type_=DateTime(timezone=True))
    place = func.row_number().over(
        partition_by=(events.c.context_hash, events.c.arm_id), order_by=events.c.id.desc()
    )
    changes = (
        select(*(events.c[c.name] for c in RETURNED), place.label("place"))
        .where(
            events.c.learner_name == LEARNER,
            events.c.kind != "select",
            until.is_(None) | (events.c.recorded_at <= until),
        )
        .subquery("_changes")
    )
    states = (changes.c[c.name] for c in RETURNED)
    return select(*states).where(changes.c.place == 1, changes.c.alpha.is_not(None))
