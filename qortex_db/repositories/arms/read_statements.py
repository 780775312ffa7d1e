"""The statements that read arms, built once; and what those that change arms share with them."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ARRAY, Double, Text, bindparam, cast, column, func, select, type_coerce

from qortex_db.models import LearningArmState, LearningContext
from qortex_db.types import JsonText

arms: Any = LearningArmState.__table__
contexts: Any = LearningContext.__table__
KEY: Final = (arms.c.learner_name, arms.c.context_hash, arms.c.arm_id)
STATE: Final = (
    arms.c.alpha,
    arms.c.beta,
    arms.c.pulls,
    arms.c.total_reward,
    arms.c.last_updated,
)
RETURNED: Final = (arms.c.context_hash, arms.c.arm_id, *STATE)
"""What every read of states and every change gives."""

LEARNER: Final = bindparam("learner", type_=Text)
CONTEXT: Final = bindparam("context", type_=Text)
IDS: Final = cast(bindparam("ids"), ARRAY(Text))
OF_LEARNER: Final = arms.c.learner_name == LEARNER
IN_CONTEXT: Final = arms.c.context_hash == CONTEXT
LISTED: Final = arms.c.arm_id == func.any(IDS)


def listed(**lists: Any) -> Any:
    """Parameters, in their order, as rows: ids, and lists beside them."""
    arrays = [IDS, *(cast(bindparam(name), ARRAY(kind)) for name, kind in lists.items())]
    columns = [column("arm_id", Text), *(column(name, kind) for name, kind in lists.items())]
    return func.unnest(*arrays).table_valued(*columns).render_derived(name="listed")


GET_ALL_STATES: Final = select(*RETURNED).where(OF_LEARNER)
GET_ALL: Final = GET_ALL_STATES.where(IN_CONTEXT)
GET: Final = GET_ALL.where(LISTED)
POSTERIORS: Final = select(arms.c.arm_id, arms.c.alpha, arms.c.beta, arms.c.pulls).where(
    OF_LEARNER, IN_CONTEXT, LISTED
)
CONTEXTS: Final = (
    select(arms.c.context_hash).where(OF_LEARNER).distinct().order_by(arms.c.context_hash)
)
TOP: Final = GET_ALL.order_by(
    (arms.c.alpha / (arms.c.alpha + arms.c.beta)).desc(), arms.c.arm_id
).limit(bindparam("k"))
METRICS: Final = select(
    func.count(),
    func.count(arms.c.context_hash.distinct()),
    func.coalesce(func.sum(arms.c.pulls), 0),
    func.coalesce(func.sum(arms.c.total_reward), cast(0, Double)),
).where(OF_LEARNER)


def _read_contexts() -> Any:
    hashes = CONTEXTS.subquery("hashes")
    readable = type_coerce(cast(contexts.c.context, Text), JsonText())
    known = hashes.outerjoin(contexts, contexts.c.context_hash == hashes.c.context_hash)
    return (
        select(hashes.c.context_hash, readable).select_from(known).order_by(hashes.c.context_hash)
    )


READ_CONTEXTS: Final = _read_contexts()
