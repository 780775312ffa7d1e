"""The statements of the history: what writes events beside a change, and what reads them.

The events are written by the change's own statement, from what the change returned: so each is
numbered while its arm's row is locked, and the numbers of one arm's events are in the order of its
changes.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import DateTime, Double, Text, bindparam, cast, func, literal_column, null, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from qortex_db.models import LearningEvent
from qortex_db.repositories.arm_statements import (
    CONTEXT,
    LEARNER,
    RETURNED,
    STATE,
    arms,
    contexts,
    listed,
)

events: Any = LearningEvent.__table__


def kept() -> Any:
    """Keep what the context's hash stands for; a condition, so that this comes before the arms."""
    readable = bindparam("readable", type_=Text)
    known = (
        insert(contexts)
        .from_select(
            ["context_hash", "context"],
            select(CONTEXT, cast(readable, JSONB)).where(readable.is_not(None)),
        )
        .on_conflict_do_nothing()
        .returning(contexts.c.context_hash)
        .cte("known")
    )
    return select(func.count()).select_from(known).scalar_subquery() >= 0


def events_of(done: Any, kind: str, beside: Any = None, **amounts: Any) -> Any:
    """The events of a change.

    Args:
        done: What the change returned: `RETURNED`, and amounts of its own.
        kind: The events'.
        beside: Rows with amounts by arm.
        amounts: Of the events, from either.
    """
    source = done if beside is None else done.join(beside, beside.c.arm_id == done.c.arm_id)
    states = {c.name: null() if kind == "delete" else done.c[c.name] for c in STATE}
    values = {
        "learner_name": LEARNER,
        "context_hash": done.c.context_hash,
        "arm_id": done.c.arm_id,
        "kind": literal_column(f"'{kind}'", Text),
        **amounts,
        **states,
    }
    return insert(events).from_select(list(values), select(*values.values()).select_from(source))


def recorded(change: Any, kind: str, beside: Any = None, **amounts: Any) -> Any:
    """The change with its events, giving what it gives; an amount that it returns goes by name."""
    done = change.cte("done")
    given = {name: done.c[v] if isinstance(v, str) else v for name, v in amounts.items()}
    return (
        events_of(done, kind, beside, **given)
        .returning(*(events.c[c.name] for c in RETURNED))
        .execution_options(writes=(arms,))
    )


def _log_selection() -> Any:
    rows = listed(p=Double)
    values = select(
        LEARNER, CONTEXT, rows.c.arm_id, literal_column("'select'", Text), rows.c.p
    ).where(kept())
    names = ["learner_name", "context_hash", "arm_id", "kind", "probability"]
    return insert(events).from_select(names, values)


def _rebuild() -> Any:
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
        .subquery("changes")
    )
    states = (changes.c[c.name] for c in RETURNED)
    return select(*states).where(changes.c.place == 1, changes.c.alpha.is_not(None))


LOG_SELECTION: Final = _log_selection()
REBUILD: Final = _rebuild()
