"""What can be read of arms."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qortex_db import checks, learning
from qortex_db.learning import ArmState, Posterior
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.models import LearningArmState
from qortex_db.observability import Subject
from qortex_db.repositories import validation
from qortex_db.repositories.arms import history_statements, read_statements
from qortex_db.repositories.arms.arguments import check_learner, hash_of
from qortex_db.repositories.validation import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from qortex_db.engine import Executor


@dataclass(frozen=True, slots=True)
class LearnerMetrics:
    """A learner at a glance, over all its contexts.

    Attributes:
        arm_count: An arm counts once in each context.
        total_reward: The sum of the rewards, less what decayed.
    """

    learner: str
    arm_count: int
    context_count: int
    total_pulls: int
    total_reward: float

    @property
    def accuracy(self) -> float:
        """The mean reward of a pull; 0 without pulls."""
        return self.total_reward / max(self.total_pulls, 1)


class ArmReads:
    """The arms of all learners, to be read."""

    def __init__(
        self, executor: Executor, *, history: bool = False, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._executor = executor
        self._history = history
        self._limits = limits
        self._subject = Subject(LearningArmState.__tablename__, limits.slow_call_seconds)

    async def get(
        self, learner: str, arm_id: str, *, context: Mapping[str, Any] | None = None
    ) -> ArmState:
        """One arm's state; the prior, and nothing stored, if it was never observed.

        Raises:
            InvalidInputError: The learner's name or the id was refused.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
        """
        key = validation.check_id(arm_id, name="arm_id")
        found = await self._states(read_statements.get_one(), learner, context, arm_id=key)
        return found.get(key, ArmState())

    async def get_all(
        self,
        learner: str,
        arm_ids: Iterable[str] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, ArmState]:
        """Every stored arm of one context, or these of them.

        Raises:
            InvalidInputError: The learner's name or an id was refused.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        if arm_ids is None:
            return await self._states(read_statements.get_all(), learner, context)
        if not (ids := validation.check_ids(arm_ids, name="arm_ids", limits=self._limits)):
            return {}
        return await self._states(read_statements.get(), learner, context, ids=ids)

    async def get_all_states(self, learner: str) -> dict[str, dict[str, ArmState]]:
        """Every stored arm of a learner by context hash and arm.

        Raises:
            InvalidInputError: The learner's name was refused.
        """
        params = {"learner": check_learner(learner)}
        return by_context((await self._executor.run(read_statements.get_all_states(), params)).rows)

    async def top(
        self, learner: str, *, k: int = 10, context: Mapping[str, Any] | None = None
    ) -> list[tuple[str, ArmState]]:
        """The arms of the highest posterior mean, highest first; ties by id.

        Raises:
            InvalidInputError: The learner's name or `k` was refused.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
        """
        count = validation.check_limit(k, MAX_LIMIT, name="k")
        return list((await self._states(read_statements.top(), learner, context, k=count)).items())

    async def posteriors(
        self,
        learner: str,
        arm_ids: Iterable[str] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        level: float = 0.95,
    ) -> dict[str, Posterior]:
        """Means, variances and credible intervals of the stored arms, or of these of them.

        Args:
            level: The probability, between 0 and 1, that an interval holds the true mean reward.

        Raises:
            InvalidInputError: The level is not between 0 and 1.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        checks.check_number(level, name="level", low=1e-9, high=1 - 1e-9)
        states = await self.get_all(learner, arm_ids, context=context)
        # Half a second of numpy for a thousand arms: not on the event loop's thread.
        found = await asyncio.to_thread(learning.posteriors, states.values(), level=level)
        return dict(sorted(zip(states, found, strict=True)))

    async def metrics(self, learner: str) -> LearnerMetrics:
        """Counts and sums over all contexts.

        Raises:
            InvalidInputError: The learner's name was refused.
        """
        params = {"learner": check_learner(learner)}
        row = (await self._executor.run(read_statements.metrics(), params)).rows[0]
        arms, contexts, pulls, reward = row
        return LearnerMetrics(learner, arms, contexts, int(pulls), reward)

    async def contexts(self, learner: str) -> list[str]:
        """The hashes of the contexts in which a learner has arms.

        Raises:
            InvalidInputError: The learner's name was refused.
        """
        params = {"learner": check_learner(learner)}
        return [
            row[0]
            for row in (await self._executor.run(read_statements.context_hashes(), params)).rows
        ]

    async def read_contexts(self, learner: str) -> dict[str, dict[str, Any] | None]:
        """The contexts in which a learner has arms, by their hashes.

        Returns:
            What each hash stands for; None where it was not seen with the history on.

        Raises:
            InvalidInputError: The learner's name was refused.
        """
        params = {"learner": check_learner(learner)}
        rows = (await self._executor.run(read_statements.read_contexts(), params)).rows
        default = learning.context_hash(None)
        return {key: {} if key == default else context for key, context in rows}

    async def rebuild(
        self, learner: str, *, until: datetime | str | None = None
    ) -> dict[str, dict[str, ArmState]]:
        """The states that the history leads to, by context hash and arm; nothing is stored.

        An event carries the state after it, so that of an arm is in its newest event: whenever the
        history was begun, and whatever else has changed the arm's row since.

        Args:
            until: Changes of transactions that began later don't count; an aware time.

        Raises:
            InvalidInputError: until is no time.
        """
        params = {
            "learner": check_learner(learner),
            "until": validation.check_time(until, name="until"),
        }
        return by_context((await self._executor.run(history_statements.rebuild(), params)).rows)

    async def _states(
        self, statement: Any, learner: str, context: Mapping[str, Any] | None, **params: Any
    ) -> dict[str, ArmState]:
        params |= {"learner": check_learner(learner), "context": hash_of(context, self._limits)}
        return by_arm((await self._executor.run(statement, params)).rows)


def by_arm(rows: Sequence[Any]) -> dict[str, ArmState]:
    """The states of one context, in the rows' order."""
    return {
        arm_id: ArmState(alpha, beta, pulls, reward, updated or "")
        for _, arm_id, alpha, beta, pulls, reward, updated in rows
    }


def by_context(rows: Sequence[Any]) -> dict[str, dict[str, ArmState]]:
    """States by context hash and arm, in key order."""
    contexts: dict[str, list[Any]] = {}
    for row in sorted(rows, key=lambda row: (row[0], row[1])):
        contexts.setdefault(row[0], []).append(row)
    return {context: by_arm(arms) for context, arms in contexts.items()}
