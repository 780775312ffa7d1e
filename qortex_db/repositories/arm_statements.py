"""The statements over `learning_arm_states`, built once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    Double,
    Integer,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from qortex_db.models import LearningArmState

_arms: Any = LearningArmState.__table__
_KEY = (_arms.c.learner_name, _arms.c.context_hash, _arms.c.arm_id)
_STATE = (_arms.c.alpha, _arms.c.beta, _arms.c.pulls, _arms.c.total_reward, _arms.c.last_updated)
_of_learner = _arms.c.learner_name == bindparam("learner")
_in_context = _arms.c.context_hash == bindparam("context")
_listed = _arms.c.arm_id == func.any(cast(bindparam("ids"), ARRAY(Text)))

GET_ALL = select(_arms.c.arm_id, *_STATE).where(_of_learner, _in_context)
GET = GET_ALL.where(_listed)
POSTERIORS = select(_arms.c.arm_id, _arms.c.alpha, _arms.c.beta, _arms.c.pulls).where(
    _of_learner, _in_context, _listed
)
GET_ALL_STATES = select(_arms.c.context_hash, _arms.c.arm_id, *_STATE).where(_of_learner)
CONTEXTS = select(_arms.c.context_hash).where(_of_learner).distinct().order_by(_arms.c.context_hash)
TOP = GET_ALL.order_by(
    (_arms.c.alpha / (_arms.c.alpha + _arms.c.beta)).desc(), _arms.c.arm_id
).limit(bindparam("k"))


def _put() -> Any:
    statement = insert(_arms).values(
        {c.name: bindparam(c.name, type_=c.type) for c in (*_KEY, *_STATE)}
    )
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(_KEY), set_={c.name: new[c.name] for c in _STATE}
    )


def _observe() -> Any:
    """Add rewards to posteriors.

    A new row is the prior plus the sums, so that it passes any check that a row has to; an old one
    takes the sums themselves, since subtracting the prior again would round.
    """
    rows = (
        func.unnest(
            cast(bindparam("ids"), ARRAY(Text)),
            cast(bindparam("counts"), ARRAY(Integer)),
            cast(bindparam("rewards"), ARRAY(Double)),
        )
        .table_valued(column("arm_id", Text), column("n", Integer), column("r", Double))
        .render_derived(name="rows")
    )
    one = literal_column("1.0::float8", Double)
    statement = insert(_arms).from_select(
        ["learner_name", "context_hash", "arm_id", "alpha", "beta", "pulls", "total_reward"],
        select(
            bindparam("learner", type_=Text),
            bindparam("context", type_=Text),
            rows.c.arm_id,
            one + rows.c.r,
            one + (rows.c.n - rows.c.r),
            rows.c.n,
            rows.c.r,
        ),
    )
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(_KEY),
        set_={
            "alpha": _arms.c.alpha + new.total_reward,
            "beta": _arms.c.beta + (new.pulls - new.total_reward),
            "pulls": _arms.c.pulls + new.pulls,
            "total_reward": _arms.c.total_reward + new.total_reward,
            "last_updated": new.last_updated,
        },
    ).returning(_arms.c.arm_id, *_STATE)


def _delete(*conditions: Any) -> Any:
    """Lock in key order first, as every writer does, so that none deadlocks with another."""
    keys = (
        select(*_KEY)
        .where(*conditions)
        .order_by(*(key.collate("C") for key in _KEY))
        .with_for_update()
        .cte("keys")
        .prefix_with("MATERIALIZED")
    )
    return delete(_arms).where(*(key == keys.c[key.name] for key in _KEY))


PUT = _put()
OBSERVE = _observe()
DELETE = {  # by whether a context and ids are named
    (False, False): _delete(_of_learner),
    (True, False): _delete(_of_learner, _in_context),
    (False, True): _delete(_of_learner, _listed),
    (True, True): _delete(_of_learner, _in_context, _listed),
}
