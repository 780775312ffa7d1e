"""Factors: how much feedback weighs a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY, Double, Text, bindparam, case, cast, column, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from qortex_db import observability
from qortex_db.errors import InvalidInputError
from qortex_db.models import InteroceptionFactor
from qortex_db.repositories import validation

if TYPE_CHECKING:
    from qortex_db.engine import Executor

DELTAS: Final[Mapping[str, float]] = {"accepted": 0.1, "rejected": -0.05, "partial": 0.03}
"""What an outcome adds to a weight."""
MIN_WEIGHT: Final = 0.1
MAX_WEIGHT: Final = 5.0
DEFAULT_WEIGHT: Final = 1.0

_factors: Any = InteroceptionFactor.__table__


def _clamped(weight: Any) -> Any:
    return func.least(MAX_WEIGHT, func.greatest(MIN_WEIGHT, weight))


def _keys() -> Any:
    return cast(bindparam("ids"), ARRAY(Text))


def _upsert() -> Any:
    rows = (
        func.unnest(_keys(), cast(bindparam("weights"), ARRAY(Double)))
        .table_valued(column("node_id", Text), column("weight", Double))
        .render_derived(name="rows")
    )
    return insert(_factors).from_select(
        ["node_id", "weight"], select(rows.c.node_id, rows.c.weight)
    )


def _save() -> Any:
    statement = _upsert()
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[_factors.c.node_id],
        set_={"weight": new.weight, "updated_at": new.updated_at},
    )


def _adjust() -> Any:
    """A new row has the default plus the outcome's delta; that sum also tells which delta it is.

    The deltas are parameters: as differences of `excluded` they would carry its rounding.
    """
    statement = _upsert()
    new = statement.excluded
    delta = case(
        *((new.weight == DEFAULT_WEIGHT + delta, delta) for delta in DELTAS.values()), else_=0.0
    )
    return statement.on_conflict_do_update(
        index_elements=[_factors.c.node_id],
        set_={"weight": _clamped(_factors.c.weight + delta), "updated_at": new.updated_at},
    ).returning(_factors.c.node_id, _factors.c.weight)


_LOAD = select(_factors.c.node_id, _factors.c.weight)
_GET = _LOAD.where(_factors.c.node_id == func.any(_keys()))
_SAVE = _save()
_ADJUST = _adjust()
_LOCKED = (
    select(_factors.c.node_id)
    .where(_factors.c.node_id == func.any(_keys()))
    .order_by(_factors.c.node_id.collate("C"))
    .with_for_update()
    .cte("keys")
    .prefix_with("MATERIALIZED")
)
_DELETE = delete(_factors).where(_factors.c.node_id == _LOCKED.c.node_id)
_share = _factors.c.weight / func.nullif(func.sum(_factors.c.weight).over(), 0)
_weights = select(_factors.c.weight, _share.label("share")).subquery("weights")
_SUMMARY = select(
    func.count(),
    func.avg(_weights.c.weight),
    func.min(_weights.c.weight),
    func.max(_weights.c.weight),
    func.count().filter(_weights.c.weight > DEFAULT_WEIGHT),
    func.count().filter(_weights.c.weight < DEFAULT_WEIGHT),
    func.sum(-_weights.c.share * func.ln(_weights.c.share) / func.ln(2.0)).filter(
        _weights.c.share > 0
    ),
).select_from(_weights)


@dataclass(frozen=True, slots=True)
class FactorSummary:
    """All factors at a glance.

    Attributes:
        boosted: How many weights are above 1.0.
        penalised: How many are below.
        entropy: Of the weights as shares of their sum, in bits.
    """

    count: int
    mean: float
    min: float
    max: float
    boosted: int
    penalised: int
    entropy: float


class FactorRepository:
    """The factors of all nodes."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def load(self) -> dict[str, float]:
        """Every stored weight by node."""
        return {row[0]: row[1] for row in (await self._executor.run(_LOAD, {})).rows}

    async def get(self, node_ids: Iterable[str]) -> dict[str, float]:
        """The weights of these nodes, in the order given; 1.0 where none is stored."""
        given = node_ids if isinstance(node_ids, (str, bytes)) else list(node_ids)
        keys = validation.check_ids(given, name="node_ids")
        if not keys:
            return {}
        stored = {row[0]: row[1] for row in (await self._executor.run(_GET, {"ids": keys})).rows}
        return {key: stored.get(key, DEFAULT_WEIGHT) for key in given}

    async def save(self, weights: Mapping[str, float]) -> None:
        """Store weights as they are; what is absent stays.

        Raises:
            InvalidInputError: An id or a weight was refused; nothing was stored.
        """
        if not isinstance(weights, Mapping):
            raise InvalidInputError("weights has to be a mapping of node ids to numbers.")
        keys = validation.check_ids(weights, name="node ids")
        if not keys:
            return
        values = [weights[key] for key in keys]
        if not validation.all_finite(values):
            values = [
                validation.check_number(value, name=f"weight of {key!r:.60}")
                for key, value in zip(keys, values, strict=True)
            ]
        await self._executor.run(_SAVE, {"ids": keys, "weights": values})
        observability.factor_updates_total.add(len(keys), {"outcome": "saved"})

    async def adjust(self, outcomes: Mapping[str, str]) -> dict[str, float]:
        """Move weights by feedback, each within 0.1 to 5.0, atomically.

        Args:
            outcomes: "accepted" (+0.1), "rejected" (-0.05) or "partial" (+0.03) by node.

        Returns:
            The new weights.

        Raises:
            InvalidInputError: An id or an outcome is unknown; nothing was changed.
        """
        if not isinstance(outcomes, Mapping):
            raise InvalidInputError("outcomes has to be a mapping of node ids to outcomes.")
        rows: dict[str, float] = {}
        for key, outcome in outcomes.items():
            validation.check_id(key, name="node id")
            if not isinstance(outcome, str) or outcome not in DELTAS:
                raise InvalidInputError(
                    f"The outcome of {key!r:.60} is unknown; pass one of {', '.join(DELTAS)}."
                )
            rows[key] = DEFAULT_WEIGHT + DELTAS[outcome]
        if not rows:
            return {}
        keys = sorted(rows)
        fetched = await self._executor.run(
            _ADJUST, {"ids": keys, "weights": [rows[key] for key in keys]}
        )
        for outcome in outcomes.values():
            observability.factor_updates_total.add(1, {"outcome": outcome})
        return {row[0]: row[1] for row in fetched.rows}

    async def weight_seeds(self, seed_ids: Iterable[str]) -> dict[str, float]:
        """The seeds' shares by their weights, summing to 1; equal shares where all weigh 0."""
        weights = await self.get(seed_ids)
        total = sum(weights.values())
        if total == 0:
            return {key: 1.0 / len(weights) for key in weights}
        return {key: weight / total for key, weight in weights.items()}

    async def delete(self, node_ids: Iterable[str]) -> int:
        """Forget the weights of these nodes.

        Returns:
            How many were stored.
        """
        keys = validation.check_ids(node_ids)
        if not keys:
            return 0
        return (await self._executor.run(_DELETE, {"ids": keys})).rowcount

    async def summary(self) -> FactorSummary:
        """Count, mean, extremes and entropy, by one statement."""
        count, mean, low, high, boosted, penalised, entropy = (
            await self._executor.run(_SUMMARY, {})
        ).rows[0]
        return FactorSummary(
            count=count,
            mean=float(mean or 0.0),
            min=float(low or 0.0),
            max=float(high or 0.0),
            boosted=boosted,
            penalised=penalised,
            entropy=abs(float(entropy or 0.0)),
        )
