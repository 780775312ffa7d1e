"""The report's statements: each gives a bounded number of rows, whatever the tables hold."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Double,
    Integer,
    bindparam,
    cast,
    column,
    extract,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from qortex_db.models import (
    InteroceptionEdge,
    InteroceptionFactor,
    LearningArmState,
    LearningContext,
    LearningEvent,
)
from qortex_db.repositories.interoception.edge_statements import avg_score, is_ready
from qortex_db.sql import Text, double, func

BINS: Final = 40
"""Of the time between the first and the last pull."""
STEP: Final = 0.05
"""A factor's bin; each is centred on a multiple of it, as are the weights that feedback makes."""
LOWEST, HIGHEST = 0.1, 5.0
MOST_HITS: Final = 20
"""Edges with more hits are counted together."""
_LONGEST: Final = 200  # letters of a context: it may be of any size

_arms: Any = LearningArmState.__table__
_contexts: Any = LearningContext.__table__
_events: Any = LearningEvent.__table__
_factors: Any = InteroceptionFactor.__table__
_edges: Any = InteroceptionEdge.__table__


def _texts(name: str) -> Any:
    return cast(bindparam(name), ARRAY(Text))


def _int(name: str) -> Any:
    return cast(bindparam(name), Integer)


def _listed(*names: str) -> Any:
    """Parallel lists of texts as rows."""
    return (
        func.unnest(*(_texts(name) for name in names))
        .table_valued(*(column(name, Text) for name in names))
        .render_derived(name="listed")
    )


@cache
def panels() -> Any:
    """Contexts of learners with what they sum up to: of each learner those with the most pulls."""
    groups = (
        select(
            _arms.c.learner_name,
            _arms.c.context_hash,
            func.count().label("arms"),
            func.sum(_arms.c.pulls).label("pulls"),
            func.sum(_arms.c.total_reward).label("reward"),
        )
        .where(
            or_(
                _texts("learners").is_(None),
                _arms.c.learner_name == func.any(_texts("learners")),
            )
        )
        .group_by(_arms.c.learner_name, _arms.c.context_hash)
        .subquery("_groups")
    )
    of_learner: dict[str, Any] = {"partition_by": groups.c.learner_name}
    first = (groups.c.pulls.desc(), groups.c.context_hash)
    placed = select(
        groups,
        func.row_number().over(**of_learner, order_by=first).label("place"),
        func.count().over(**of_learner).label("contexts"),
        func.sum(groups.c.pulls).over(**of_learner).label("learner_pulls"),
        func.count().over().label("all_contexts"),
    ).subquery("_placed")
    order = (placed.c.learner_pulls.desc(), placed.c.learner_name, placed.c.place)
    kept = (
        select(placed)
        .where(placed.c.place <= _int("contexts"))
        .order_by(*order)
        .limit(_int("panels"))
        .subquery("_panels")
    )
    readable = func.left(cast(_contexts.c.context, Text), _LONGEST)
    # Ordered once more: a join keeps no order.
    return (
        select(
            kept.c.learner_name,
            kept.c.context_hash,
            readable,
            kept.c.arms,
            cast(kept.c.pulls, BigInteger),
            kept.c.reward,
            kept.c.contexts,
            kept.c.all_contexts,
        )
        .select_from(kept.outerjoin(_contexts, _contexts.c.context_hash == kept.c.context_hash))
        .order_by(kept.c.learner_pulls.desc(), kept.c.learner_name, kept.c.place)
    )


@cache
def arm_names() -> Any:
    """How many arms there are by name, in however many contexts."""
    names = select(_arms.c.learner_name, _arms.c.arm_id).distinct().subquery("_names")
    return select(func.count()).select_from(names)


def _about_low() -> Any:
    """About the lower bound of an arm's interval: SQL has no quantiles of Beta."""
    total = _arms.c.alpha + _arms.c.beta
    mean = _arms.c.alpha / total
    return mean - double(1.96) * func.sqrt(mean * (double(1) - mean) / (total + double(1)))


@cache
def best() -> Any:
    """Of each of these contexts the arms whose reward is surely high, about in their order."""
    listed = _listed("learners", "contexts")
    place = func.row_number().over(
        partition_by=(_arms.c.learner_name, _arms.c.context_hash),
        order_by=(_about_low().desc(), _arms.c.arm_id),
    )
    ranked = (
        select(_arms, place.label("place"))
        .where(
            tuple_(_arms.c.learner_name, _arms.c.context_hash).in_(
                select(listed.c.learners, listed.c.contexts)
            )
        )
        .subquery("_ranked")
    )
    return (
        select(
            ranked.c.learner_name,
            ranked.c.context_hash,
            ranked.c.arm_id,
            ranked.c.alpha,
            ranked.c.beta,
            ranked.c.pulls,
            ranked.c.total_reward,
        )
        .where(ranked.c.place <= _int("top"))
        .order_by(ranked.c.learner_name, ranked.c.context_hash, ranked.c.place)
    )


@cache
def pulls_of_events() -> Any:
    """Pulls as the history has them."""
    changing = [literal_column("'observe'", Text), literal_column("'deltas'", Text)]
    return _pulls(
        _events, _events.c.recorded_at, _events.c.pulls_added, _events.c.kind.in_(changing)
    )


@cache
def pulls_of_arms() -> Any:
    """All pulls of an arm at the time of its last change, where there is no history."""
    return _pulls(_arms, _arms.c.last_updated, _arms.c.pulls)


def _pulls(table: Any, time: Any, amount: Any, *conditions: Any) -> Any:
    """Pulls by context, bin of time, and arm; arms that are not among the best as NULL."""
    listed = _listed("learners", "contexts")
    of_panels = tuple_(table.c.learner_name, table.c.context_hash).in_(
        select(listed.c.learners, listed.c.contexts)
    )
    rows = (
        select(
            table.c.learner_name,
            table.c.context_hash,
            table.c.arm_id,
            cast(extract("epoch", time), Double).label("at"),
            amount.label("amount"),
        )
        .where(of_panels, amount > 0, func.isfinite(time), *conditions)
        .cte("_rows")
    )
    start = func.min(rows.c.at)
    spans = (
        select(
            rows.c.learner_name,
            rows.c.context_hash,
            start.label("start"),
            # At least a second a bin: a bucket has a width.
            func.greatest(func.max(rows.c.at), start + double(BINS)).label("end"),
        )
        .group_by(rows.c.learner_name, rows.c.context_hash)
        .cte("_spans")
    )
    shown = (
        func.unnest(_texts("best_learners"), _texts("best_contexts"), _texts("best_arms"))
        .table_valued(column("learner", Text), column("context", Text), column("arm", Text))
        .render_derived(name="best")
    )
    place = func.least(func.width_bucket(rows.c.at, spans.c.start, spans.c.end, BINS), BINS)
    joined = rows.join(
        spans,
        (spans.c.learner_name == rows.c.learner_name)
        & (spans.c.context_hash == rows.c.context_hash),
    ).outerjoin(
        shown,
        (shown.c.learner == rows.c.learner_name)
        & (shown.c.context == rows.c.context_hash)
        & (shown.c.arm == rows.c.arm_id),
    )
    keys = (
        rows.c.learner_name,
        rows.c.context_hash,
        shown.c.arm,
        place,
        spans.c.start,
        spans.c.end,
    )
    return (
        select(*keys, cast(func.sum(rows.c.amount), BigInteger)).select_from(joined).group_by(*keys)
    )


@cache
def factor_bins() -> Any:
    """Factors by bin; what was stored beyond the bounds of feedback is in the outermost."""
    count = round((HIGHEST - LOWEST) / STEP) + 1
    edges = (LOWEST - STEP / 2, HIGHEST + STEP / 2)
    place = func.least(func.greatest(func.width_bucket(_factors.c.weight, *edges, count), 1), count)
    return select(place - 1, func.count()).group_by(place).order_by(place)


@cache
def factor_extremes() -> Any:
    """The nodes with the largest weights, and those with the smallest."""
    weight, node = _factors.c.weight, _factors.c.node_id
    halves = (
        select(literal_column(f"'{side}'", Text).label("side"), node, weight)
        .where(condition)
        .order_by(order, node)
        .limit(_int("k"))
        for side, condition, order in (
            ("boosted", weight > 1.0, weight.desc()),
            ("penalised", weight < 1.0, weight),
        )
    )
    return union_all(*(half.subquery().select() for half in halves))


@cache
def edge_hits() -> Any:
    """Edges by their hits, and by whether they are ready to be promoted."""
    edges = select(
        func.least(func.greatest(_edges.c.hit_count, 0), MOST_HITS).label("hits"),
        is_ready().label("ready"),
    ).subquery("_edges")
    return select(edges.c.hits, edges.c.ready, func.count()).group_by(*edges.c).order_by(*edges.c)


@cache
def nearest_edges() -> Any:
    """The edges that lack least: hits first, then mean score; those that lack nothing lead."""
    edges = select(
        _edges.c.src_id,
        _edges.c.tgt_id,
        _edges.c.hit_count,
        avg_score().label("avg_score"),
        _edges.c.last_seen,
    ).subquery("_edges")
    lacking = (
        func.greatest(_int("min_hits") - edges.c.hit_count, 0),
        func.greatest(bindparam("min_avg_score", type_=Double) - edges.c.avg_score, 0.0),
    )
    order = (*lacking, edges.c.hit_count.desc(), edges.c.avg_score.desc(), *edges.c[:2])
    return select(edges).order_by(*order).limit(_int("k"))
