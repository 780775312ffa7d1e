"""The statements that read arms, each built once, when it is first used.

And what those that change arms share with them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY, Double, bindparam, cast, column, select, type_coerce

from qortex_db.models import LearningArmState, LearningContext
from qortex_db.sql import Text, func
from qortex_db.types import JsonText

if TYPE_CHECKING:
    from sqlalchemy import Select

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


def ids() -> Any:
    """The parameter with arms."""
    return cast(bindparam("ids"), ARRAY(Text))


def of_arms(*, in_context: bool = True, listed: bool = False) -> tuple[Any, ...]:
    """Which arms of a learner a statement is about.

    Args:
        in_context: Of one context, else of all.
        listed: Those of a list, else all.
    """
    conditions = [arms.c.learner_name == LEARNER]
    if in_context:
        conditions.append(arms.c.context_hash == CONTEXT)
    if listed:
        conditions.append(arms.c.arm_id == func.any(ids()))
    return tuple(conditions)


def listed_rows(**lists: Any) -> Any:
    """Parameters, in their order, as rows: ids, and lists beside them."""
    arrays = [ids(), *(cast(bindparam(name), ARRAY(kind)) for name, kind in lists.items())]
    columns = [column("arm_id", Text), *(column(name, kind) for name, kind in lists.items())]
    return func.unnest(*arrays).table_valued(*columns).render_derived(name="listed")


@cache
def get_all_states() -> Select[Any]:
    """A learner's arms in all contexts."""
    return select(*RETURNED).where(*of_arms(in_context=False))


@cache
def get_all() -> Select[Any]:
    """The arms of a context."""
    return select(*RETURNED).where(*of_arms())


@cache
def get() -> Select[Any]:
    """These arms of a context."""
    return select(*RETURNED).where(*of_arms(listed=True))


@cache
def get_one() -> Select[Any]:
    """One arm of a context: a list of one costs the server more."""
    return get_all().where(arms.c.arm_id == bindparam("arm_id", type_=Text))


@cache
def posteriors() -> Select[Any]:
    """What a selection looks at."""
    columns = arms.c.arm_id, arms.c.alpha, arms.c.beta, arms.c.pulls
    return select(*columns).where(*of_arms(listed=True))


@cache
def top() -> Select[Any]:
    """The arms of the highest mean."""
    mean = arms.c.alpha / (arms.c.alpha + arms.c.beta)
    return get_all().order_by(mean.desc(), arms.c.arm_id).limit(bindparam("k"))


@cache
def metrics() -> Select[Any]:
    """Counts and sums over a learner's arms."""
    sums: list[Any] = [
        func.count(),
        func.count(arms.c.context_hash.distinct()),
        func.coalesce(func.sum(arms.c.pulls), 0),
        func.coalesce(func.sum(arms.c.total_reward), cast(0, Double)),
    ]
    return select(*sums).where(*of_arms(in_context=False))


@cache
def context_hashes() -> Select[Any]:
    """The contexts in which a learner has arms."""
    hashes = select(arms.c.context_hash).where(*of_arms(in_context=False))
    return hashes.distinct().order_by(arms.c.context_hash)


@cache
def read_contexts() -> Select[Any]:
    """The same, and what each hash stands for where that was kept."""
    hashes = context_hashes().subquery("_hashes")
    readable = type_coerce(cast(contexts.c.context, Text), JsonText())
    known = hashes.outerjoin(contexts, contexts.c.context_hash == hashes.c.context_hash)
    return (
        select(hashes.c.context_hash, readable).select_from(known).order_by(hashes.c.context_hash)
    )
