"""The statements that change arms, each built once, when it is first used.

With the history on, the same statement writes the events.

Rows are inserted, or locked, in key order: writers then never deadlock.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Double,
    Integer,
    bindparam,
    case,
    cast,
    delete,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from qortex_db.checks import MAX_INT4
from qortex_db.engine.citus import on_citus as on_citus_form
from qortex_db.engine.citus import or_on_citus
from qortex_db.repositories.arms.history_statements import events_of, kept, recorded
from qortex_db.repositories.arms.read_statements import (
    CONTEXT,
    KEY,
    LEARNER,
    RETURNED,
    STATE,
    arms,
    listed_rows,
    of_arms,
)
from qortex_db.repositories.chunks import Chunk
from qortex_db.repositories.idempotency import claimed
from qortex_db.repositories.locking import locked_in_key_order
from qortex_db.sql import Text, double, func, json_parameter
from qortex_db.values.composite_keys import CompositeKey, packed
from qortex_db.values.keys import key_kind

if TYPE_CHECKING:
    from qortex_db.repositories.chunks import Step


def _number(name: str) -> Any:
    return bindparam(name, type_=Double)


_ONE: Final = double(1.0)
_FLOOR: Final = double(0.01)
"""What decay and deltas leave of alpha and beta at least."""
_MANY_LIVES: Final = 100.0  # 2**-100 of the evidence is none, and no number underflows
_NOTHING: Final = double(1e-200)  # smaller rewards would underflow, which is an error


def _insert(source: Any, *columns: Any, history: bool, where: Any = None) -> Any:
    """Insert rows: learner, context, arm, and these columns; none where the condition is not so."""
    values = select(LEARNER, CONTEXT, source.c.arm_id, *(value for _, value in columns))
    conditions = [kept()] if history else []
    return insert(arms).from_select(
        [*(key.name for key in KEY), *(name for name, _ in columns)],
        values.where(*conditions, *([] if where is None else [where])),
    )


_MOST: Final = literal_column(str(MAX_INT4), Integer)


def _have_room(rows: Any = None) -> Any:
    """Whether each of these arms has room for its pulls: one that is full stops all of a call.

    Args:
        rows: How many each gets, as `n` of its row; without them one.
    """
    full = [arms.c.pulls == _MOST]
    if rows is not None:
        added = select(rows.c.n).where(rows.c.arm_id == arms.c.arm_id).scalar_subquery()
        full = [arms.c.pulls > literal_column(str(MAX_INT4 // 2)), arms.c.pulls > _MOST - added]
    # By itself, which Citus needs where one node has the table and others not.
    found: Any = select(literal_column("1").label("one")).where(*of_arms(listed=True), *full)
    return ~select(found.cte("_full").prefix_with("MATERIALIZED")).exists()


def _allowed(have_room: Any, *, one: bool, once: bool) -> Any:
    """When a call counts: `once` it has taken its key, which it does if there is room."""
    if once:
        return claimed(have_room)
    return None if one else have_room


@cache
def put(*, history: bool) -> Any:
    """Write a state over what is there."""
    given = [(c.name, bindparam(f"new_{c.name}", type_=c.type)) for c in STATE]
    statement = _insert(listed_rows(), *given, history=history)
    change = statement.on_conflict_do_update(
        index_elements=list(KEY), set_={name: statement.excluded[name] for name, _ in given}
    ).returning(*RETURNED)
    return recorded(change, "put") if history else change


@cache
def observe(*, one: bool, once: bool, history: bool) -> Any:
    """Add rewards to posteriors, of one arm or several; to none where one of them has no room.

    Of several, and under a key, that is read first; of one, the row says it when it is locked.

    A new row is the prior plus the sums, so that it passes any check that a row has to; an old one
    takes the sums themselves, since subtracting the prior again would round.
    """
    rows = listed_rows(n=Integer, r=Double)
    pulls = cast(rows.c.n, Double)
    statement = _insert(
        rows,
        ("alpha", _ONE + rows.c.r),
        ("beta", _ONE + (pulls - rows.c.r)),
        ("pulls", rows.c.n),
        ("total_reward", rows.c.r),
        history=history,
        where=_allowed(_have_room(rows.alias()), one=one, once=once),
    )
    new = statement.excluded
    change = statement.on_conflict_do_update(
        index_elements=list(KEY),
        set_={
            "alpha": arms.c.alpha + new.total_reward,
            "beta": arms.c.beta + (cast(new.pulls, Double) - new.total_reward),
            "pulls": arms.c.pulls + new.pulls,
            "total_reward": arms.c.total_reward + new.total_reward,
            "last_updated": new.last_updated,
        },
        where=arms.c.pulls <= _MOST - new.pulls if one and not once else None,
    ).returning(*RETURNED)
    if not history:
        return change
    given: dict[str, Any] = {
        "alpha_added": rows.c.r,
        "beta_added": pulls - rows.c.r,
        "pulls_added": rows.c.n,
    }
    return recorded(change, "observe", rows, **given)


@cache
def apply_deltas(*, one: bool, once: bool, history: bool) -> Any:
    """Add what may be negative, down to a floor; to nothing where an arm has no room for a pull.

    The row that is proposed has the floor already, so an old row finds its deltas by its key in the
    parameter.
    """

    def delta(which: int, arm_id: Any) -> Any:
        pair = func.jsonb_extract_path(
            json_parameter("deltas"), arm_id, literal_column(f"'{which}'", Text)
        )
        return cast(pair, Double)

    rows = listed_rows()
    statement = _insert(
        rows,
        ("alpha", func.greatest(_ONE + delta(0, rows.c.arm_id), _FLOOR)),
        ("beta", func.greatest(_ONE + delta(1, rows.c.arm_id), _FLOOR)),
        ("pulls", literal_column("1", Integer)),
        ("total_reward", delta(0, rows.c.arm_id)),
        history=history,
        where=_allowed(_have_room(), one=one, once=once),
    )
    new = statement.excluded
    change = statement.on_conflict_do_update(
        index_elements=list(KEY),
        set_={
            "alpha": func.greatest(arms.c.alpha + delta(0, arms.c.arm_id), _FLOOR),
            "beta": func.greatest(arms.c.beta + delta(1, arms.c.arm_id), _FLOOR),
            "pulls": arms.c.pulls + 1,
            "total_reward": arms.c.total_reward + new.total_reward,
            "last_updated": new.last_updated,
        },
        where=arms.c.pulls <= _MOST - new.pulls if one and not once else None,
    ).returning(*RETURNED)
    if not history:
        return change
    given = {
        "alpha_added": delta(0, rows.c.arm_id),
        "beta_added": delta(1, rows.c.arm_id),
        "pulls_added": literal_column("1", Integer),
    }
    return recorded(change, "deltas", rows, **given)


def _locked(*conditions: Any, also: tuple[Any, ...] = ()) -> tuple[Any, Any]:
    """The keys of rows, locked in their order; and a condition, so that this comes first.

    The statement then goes by the same conditions, in the same snapshot: to join it with the keys
    takes quadratic time where the planner has no statistics yet.
    """
    keys = _keys(*conditions, also=also)
    return keys, select(func.count()).select_from(keys).scalar_subquery() >= 0


def _keys(*conditions: Any, also: tuple[Any, ...] = (), locks: bool = True) -> Any:
    return locked_in_key_order(KEY, *conditions, also=also, locks=locks)


def _in_key_order(change: Any, conditions: tuple[Any, ...]) -> Any:
    """A change of rows that are locked in key order first; on Citus as each node finds them."""
    _, locked = _locked(*conditions)
    return or_on_citus(change.where(*conditions, locked), lambda: change.where(*conditions))


def _factor(*, timed: bool) -> Any:
    """What decay multiplies by: a number, or what a half-life leaves since the last change."""
    if not timed:
        return _number("by")
    # Of NULL and a number the greatest is the number. No time stands in a CASE: Citus refuses it.
    seconds = cast(func.extract("epoch", func.now() - arms.c.last_updated), Double)
    lives = func.least(
        func.greatest(seconds, double(0.0)) / _number("half_life"), double(_MANY_LIVES)
    )
    return func.power(double(0.5), lives)


def _decayed(*, timed: bool) -> Any:
    """The decay of arms, without saying which."""
    factor = _factor(timed=timed)
    is_none = func.abs(arms.c.total_reward) < _NOTHING
    change = update(arms).values(
        alpha=func.greatest(func.greatest(arms.c.alpha, _FLOOR) * factor, _FLOOR),
        beta=func.greatest(func.greatest(arms.c.beta, _FLOOR) * factor, _FLOOR),
        total_reward=case((is_none, double(0.0)), else_=arms.c.total_reward) * factor,
        last_updated=func.now(),
    )
    return change.returning(*RETURNED)


@cache
def decay(*, in_context: bool, listed: bool, timed: bool, history: bool) -> Any:
    """Let the evidence of arms fade, by a factor, or by the time."""
    conditions = of_arms(in_context=in_context, listed=listed)
    change = _decayed(timed=timed)
    if not history:
        return _in_key_order(change, conditions)
    also = (_factor(timed=timed).label("multiplied_by"),)

    def written(keys: Any, *locked: Any) -> Any:
        done = change.where(*conditions, *locked)
        return recorded(done, "decay", keys, multiplied_by=keys.c.multiplied_by)

    def on_citus() -> Any:
        return on_citus_form(written(_keys(*conditions, also=also, locks=False)))

    return or_on_citus(written(*_locked(*conditions, also=also)), on_citus)


@cache
def apply_delta(*, history: bool) -> Any:
    """The same of one arm, as Citus takes it; without a key, and with its context kept before."""
    alpha, beta = _number("alpha_delta"), _number("beta_delta")
    statement = insert(arms).values(
        learner_name=LEARNER,
        context_hash=CONTEXT,
        arm_id=bindparam("of_arm", type_=Text),
        alpha=func.greatest(_ONE + alpha, _FLOOR),
        beta=func.greatest(_ONE + beta, _FLOOR),
        pulls=literal_column("1", Integer),
        total_reward=alpha,
    )
    new = statement.excluded
    change = statement.on_conflict_do_update(
        index_elements=list(KEY),
        set_={
            "alpha": func.greatest(arms.c.alpha + alpha, _FLOOR),
            "beta": func.greatest(arms.c.beta + beta, _FLOOR),
            "pulls": arms.c.pulls + 1,
            "total_reward": arms.c.total_reward + alpha,
            "last_updated": new.last_updated,
        },
        where=arms.c.pulls < _MOST,
    ).returning(*RETURNED)
    if not history:
        return change
    added = {"alpha_added": alpha, "beta_added": beta, "pulls_added": literal_column("1", Integer)}
    return recorded(change, "deltas", **added)


@cache
def place() -> CompositeKey:
    """Where a batch of a learner's arms ends."""
    return CompositeKey([key_kind(arms.c.context_hash), key_kind(arms.c.arm_id)])


@cache
def decay_chunk(step: Step, *, in_context: bool, timed: bool, history: bool) -> Any:
    """The same, of the arms of a batch."""
    conditions = of_arms(in_context=in_context)
    parts = arms.c.context_hash, arms.c.arm_id
    after = place().apart(bindparam("after", type_=Text))
    behind = [tuple_(*parts) > tuple_(*after)] if step.goes_on else []
    chunk = Chunk(step, packed(parts), parts, [*conditions, *behind])
    of = *conditions, chunk.contains(*parts)
    also = (_factor(timed=timed).label("multiplied_by"),)

    def changed(keys: Any, *locked: Any, apart: bool) -> Any:
        done = _decayed(timed=timed).where(*of, *locked).cte("_done")
        if history:
            amounts = {"multiplied_by": keys.c.multiplied_by}
            events = events_of(done, "decay", keys, apart=apart, **amounts)
            done = events.returning(literal_column("1", Integer)).cte("_recorded")
        return chunk.changed_by(done, arms)

    return or_on_citus(
        changed(*_locked(*of, also=also), apart=False),
        lambda: changed(_keys(*of, also=also, locks=False), apart=True),
    )


@cache
def reset(*, in_context: bool, listed: bool, history: bool) -> Any:
    """Take arms back to the prior."""
    conditions = of_arms(in_context=in_context, listed=listed)
    prior = {"alpha": _ONE, "beta": _ONE, "pulls": 0, "total_reward": double(0.0)}
    change = update(arms).values(**prior, last_updated=func.now())
    if not history:
        return _in_key_order(change, conditions)
    return recorded(_in_key_order(change.returning(*RETURNED), conditions), "reset")


@cache
def remove(*, in_context: bool, listed: bool, history: bool) -> Any:
    """Delete arms."""
    conditions = of_arms(in_context=in_context, listed=listed)
    if not history:
        return _in_key_order(delete(arms), conditions)
    return recorded(_in_key_order(delete(arms).returning(*RETURNED), conditions), "delete")


@cache
def seed(*, unpulled: bool, history: bool) -> Any:
    """Insert boosted arms that are not there, and read the others.

    The reading sees the rows as they were before the statement: an arm that another transaction
    inserted meanwhile is in neither part, and the caller asks again.
    """
    statement = _insert(listed_rows(), ("alpha", _number("boost")), ("beta", _ONE), history=history)
    if unpulled:
        new = statement.excluded
        prior = {"beta": new.beta, "total_reward": new.total_reward}
        statement = statement.on_conflict_do_update(
            index_elements=list(KEY),
            set_={"alpha": new.alpha, **prior, "last_updated": new.last_updated},
            where=arms.c.pulls == literal_column("0", Integer),
        )
    else:
        statement = statement.on_conflict_do_nothing()
    seeded = statement.returning(*RETURNED).cte("_seeded")
    there = select(*RETURNED).where(
        *of_arms(listed=True), arms.c.arm_id.not_in(select(seeded.c.arm_id))
    )
    both = select(*seeded.c).union_all(there)
    if history:
        both = both.add_cte(events_of(seeded, "seed").cte("_recorded"))
    return both.execution_options(writes=(arms,) if unpulled else ())
