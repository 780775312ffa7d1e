"""Factors: how much feedback weighs a node."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qortex_db import checks, messages
from qortex_db.engine import on_primary
from qortex_db.errors import InvalidInputError
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.models import InteroceptionFactor
from qortex_db.names import qualified
from qortex_db.observability import Subject, metrics, observed
from qortex_db.repositories import validation
from qortex_db.repositories.chunks import Chunks, Work
from qortex_db.repositories.idempotency import check_claim, was_done
from qortex_db.repositories.interoception import factor_statements
from qortex_db.repositories.interoception.factor_statements import DEFAULT_WEIGHT, DELTAS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    from qortex_db.engine import Executor
    from qortex_db.repositories.progress import IngestProgress

_CURSOR: Final = re.compile(r"(\d{1,18})@(-?\d{1,19}\.\d{1,10})", re.ASCII)


@dataclass(frozen=True, slots=True)
class FactorChanges:
    """What a copy of the factors needs to become like the table.

    Attributes:
        weights: The weights to put over those of the copy.
        cursor: What to ask with the next time; text that may be stored.
        count: How many factors are stored. A copy that has more after taking `weights` over holds
            some that were deleted: ask again without a cursor.
    """

    weights: dict[str, float]
    cursor: str
    count: int


@dataclass(frozen=True, slots=True)
class FactorSummary:
    """All factors at a glance.

    Attributes:
        mean: 1.0, as are min and max, where none is stored.
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


@observed("factors", writes=("adjust", "decay", "delete", "save"))
class FactorRepository:
    """The factors of all nodes."""

    def __init__(self, executor: Executor, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._executor = executor
        self._limits = limits
        self._subject = Subject(InteroceptionFactor.__tablename__, limits.slow_call_seconds)

    async def load(self) -> dict[str, float]:
        """Every stored weight by node."""
        rows = (await self._executor.run(factor_statements.load(), {})).rows
        return {row[0]: row[1] for row in rows}

    async def get(self, node_ids: Iterable[str]) -> dict[str, float]:
        """The weights of these nodes, in the order given; 1.0 where none is stored.

        Raises:
            InvalidInputError: An id was refused.
            LimitExceededError: There are more ids than a limit allows.
        """
        given = validation.check_list(
            node_ids, name="node_ids", of="list of ids", limits=self._limits
        )
        keys = validation.check_ids(given, name="node_ids", limits=self._limits)
        if not keys:
            return {}
        rows = (await self._executor.run(factor_statements.get(), {"ids": keys})).rows
        stored = {row[0]: row[1] for row in rows}
        return {key: stored.get(key, DEFAULT_WEIGHT) for key in given}

    async def save(self, weights: Mapping[str, float]) -> None:
        """Store weights as they are; what is absent stays.

        Raises:
            InvalidInputError: An id or a weight was refused; nothing was stored.
            LimitExceededError: There are more weights than a limit allows.
        """
        of = "mapping of node ids to numbers"
        weights = validation.check_dict(weights, name="weights", of=of, limits=self._limits)
        keys = validation.check_ids(weights, name="node ids", limits=self._limits)
        if not keys:
            return
        values = [weights[key] for key in keys]
        if not validation.all_measures(values):
            values = [
                validation.check_measure(value, name=f"weight of {messages.shown(key)}")
                for key, value in zip(keys, values, strict=True)
            ]
        await self._executor.run(factor_statements.save(), {"ids": keys, "weights": values})
        metrics.factor_updates_total.add(len(keys), {"outcome": "saved"})

    async def adjust(
        self,
        outcomes: Mapping[str, str],
        *,
        half_life: float | timedelta | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, float]:
        """Move weights by feedback, each within 0.1 to 5.0, atomically.

        Args:
            outcomes: "accepted" (+0.1), "rejected" (-0.05) or "partial" (+0.03) by node.
            half_life: In seconds. Where weights decay, pass what `decay` is given: each weight
                then decays to this moment before it moves. Without it, the time since the weight
                last changed is forgiven.

            idempotency_key: Text that is this feedback's own: however often the call is repeated
                with it, it counts once.

        Returns:
            The new weights; of a repeated call the weights as they are.

        Raises:
            InvalidInputError: An id or an outcome is unknown; nothing was changed.
            LimitExceededError: There are more outcomes than a limit allows.
            IdempotencyKeyReusedError: The key was used for another call; nothing was changed.
        """
        of = "mapping of node ids to outcomes"
        outcomes = validation.check_dict(outcomes, name="outcomes", of=of, limits=self._limits)
        rows: dict[str, float] = {}
        for key, outcome in outcomes.items():
            validation.check_id(key, name="node id")
            if not isinstance(outcome, str) or outcome not in DELTAS:
                raise InvalidInputError(
                    f"The outcome of {messages.shown(key)} is unknown; pass one of "
                    f"{', '.join(DELTAS)}."
                )
            rows[key] = DEFAULT_WEIGHT + DELTAS[outcome]
        pace = (
            0.0
            if half_life is None
            else 1.0 / validation.check_seconds(half_life, name="half_life")
        )
        claim = None
        if idempotency_key is not None:
            call = ["factors.adjust", pace, *sorted(outcomes.items())]
            claim = check_claim(idempotency_key, call)
        if not rows:
            return {}
        keys = sorted(rows)
        params = {
            "ids": keys,
            "weights": [rows[key] for key in keys],
            "half_lives_per_second": pace,
        }
        if claim is not None:
            params |= claim.params
        statement = factor_statements.adjust(once=claim is not None)
        while not (fetched := await self._executor.run(statement, params)).rows:
            if await was_done(self._executor, claim):
                stored = on_primary(factor_statements.get())
                fetched = await self._executor.run(stored, {"ids": keys})
                weights = {row[0]: row[1] for row in fetched.rows}
                return {key: weights.get(key, DEFAULT_WEIGHT) for key in keys}
        for outcome, count in Counter(outcomes.values()).items():
            metrics.factor_updates_total.add(count, {"outcome": outcome})
        return {row[0]: row[1] for row in fetched.rows}

    async def decay(
        self,
        *,
        half_life: float | timedelta,
        node_ids: Iterable[str] | None = None,
        batch_size: int | None = None,
        on_progress: Callable[[IngestProgress], object] | None = None,
    ) -> int:
        """Move weights towards 1.0 by the time since each last changed, in one statement.

        A weight `w` becomes `1 + (w - 1) * 0.5 ** (elapsed / half_life)`. It may be called at any
        moments: twice is once over the whole time. What changes a weight starts its time anew, so
        let `adjust` know the half-life too.

        Args:
            half_life: In seconds.
            node_ids: Whose; None means every node.
            batch_size: So many nodes at a time, each batch its own transaction, 1 to 100,000; of
                every node, and not in a unit of work. What was stopped is simply begun again.
            on_progress: Called, and awaited if need be, after each batch.

        Returns:
            How many factors were written. `changes` tells which.

        Raises:
            InvalidInputError: The half-life is not positive, or node_ids and batch_size are both
                given.
            LimitExceededError: There are more ids than a limit allows.
        """
        seconds = validation.check_seconds(half_life, name="half_life")
        params: dict[str, object] = {"half_lives_per_second": 1.0 / seconds}
        chunks = Chunks.of(self._executor, batch_size, on_progress, None)
        if chunks is not None:
            if node_ids is not None:
                raise InvalidInputError("A decay in batches is of every node: leave node_ids out.")
            count = await chunks.run(
                self._executor,
                Work("decay factors", [seconds], str),
                factor_statements.decay_chunk,
                lambda statement, given: self._executor.run(statement, {**params, **given}),
            )
            metrics.factor_updates_total.add(count, {"outcome": "decayed"})
            return count
        if node_ids is not None:
            params["ids"] = keys = validation.check_ids(
                node_ids, name="node_ids", limits=self._limits
            )
            if not keys:
                return 0
        statement = factor_statements.decay(listed=node_ids is not None)
        count = (await self._executor.run(statement, params)).rowcount
        metrics.factor_updates_total.add(count, {"outcome": "decayed"})
        return count

    async def changes(self, since: str | None = None) -> FactorChanges:
        """What was written since a cursor, so that a copy in memory is refreshed cheaply.

        Exact, whatever the clocks say and however late a transaction commits: a copy that takes
        each answer over is never without a committed weight. A weight may be sent more than once.
        Ask by itself: a unit of work also sees what it may still roll back.

        Args:
            since: The cursor of the answer before; None sends everything.

        Raises:
            InvalidInputError: `since` is no cursor of this database, or newer than this server, as
                after a restore: ask without one. Or Citus has the factors on several nodes, which
                number their transactions each by itself: load all.

        Source:
            https://www.postgresql.org/docs/current/functions-info.html (pg_current_snapshot)
        """
        number, origin = _parsed(since)
        if await self._executor.on_citus():
            await self._check_one_node()
        rows = (await self._executor.run(factor_statements.changes(), {"since": number})).rows
        _, _, database, cursor, newest, count = next(row for row in rows if row[0] is None)
        if number is not None and (origin != database or number > newest):
            raise InvalidInputError(
                "since is the cursor of another database, or newer than this server: start anew "
                "from what changes() gives without one."
            )
        weights = {row[0]: row[1] for row in rows if row[0] is not None}
        return FactorChanges(weights, f"{cursor}@{database}", count)

    async def _check_one_node(self) -> None:
        table = factor_statements.TABLE
        name = qualified(self._executor.schema_of(table.schema), table.name)
        params = {"table_name": name}
        rows = (await self._executor.run(factor_statements.ON_SEVERAL_NODES, params)).rows
        if rows[0][0]:
            raise InvalidInputError(
                f"changes() can't tell what is new in {name}: Citus has it on several nodes, and "
                "each numbers its transactions by itself. load() reads all weights."
            )

    async def weight_seeds(self, seed_ids: Iterable[str]) -> dict[str, float]:
        """The seeds' shares by their weights, summing to 1; equal shares where all weigh 0.

        Raises:
            InvalidInputError: An id was refused.
            LimitExceededError: There are more ids than a limit allows.
        """
        weights = await self.get(seed_ids)
        total = sum(weights.values())
        if total == 0:
            return {key: 1.0 / len(weights) for key in weights}
        return {key: weight / total for key, weight in weights.items()}

    async def delete(self, node_ids: Iterable[str]) -> int:
        """Forget the weights of these nodes.

        Returns:
            How many were stored.

        Raises:
            InvalidInputError: An id was refused.
            LimitExceededError: There are more ids than a limit allows.
        """
        keys = validation.check_ids(node_ids, limits=self._limits)
        if not keys:
            return 0
        return (await self._executor.run(factor_statements.remove(), {"ids": keys})).rowcount

    async def summary(self) -> FactorSummary:
        """Count, mean, extremes and entropy, by one statement."""
        count, mean, low, high, boosted, penalised, entropy = (
            await self._executor.run(factor_statements.summary(), {})
        ).rows[0]
        return FactorSummary(
            count=count,
            mean=DEFAULT_WEIGHT if mean is None else mean,
            min=DEFAULT_WEIGHT if low is None else low,
            max=DEFAULT_WEIGHT if high is None else high,
            boosted=boosted,
            penalised=penalised,
            entropy=abs(float(entropy or 0.0)),
        )


def _parsed(cursor: str | None) -> tuple[int | None, str]:
    """A cursor's transaction, and the database that it is of."""
    if cursor is None:
        return None, ""
    match = _CURSOR.fullmatch(checks.check_text(cursor, name="since"))
    if match is None:
        raise InvalidInputError("since is no cursor: pass that of the answer before, or None.")
    return int(match[1]), match[2]
